"""Does the speed cost accuracy? Trains the networks of `classic` by both loops, and tests that they are equivalent.

    python -m benchmarks.agreement                   2 epochs from as many seeds as it takes; one to two hours
    python -m benchmarks.agreement --models ffn      one network; ten minutes

Both: the loop that tutorials have, in fp32, and this project's with all its shortcuts, on the same images with the same
settings. Their draws differ, and so do their networks; it is the means over the seeds that should agree. A loss of 0.3
points would matter: from the spread of the plain loop's first seeds follows how many seeds show with a power of 80 %
that there is no such difference, by two one-sided tests. The exit code is 1 if that is not shown for every network.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from tqdm import tqdm

from benchmarks.loops import CPU, PLAIN, PlainLoop, classic, learner_accuracy, train_by_fit
from benchmarks.measure import ROOT, table
from fmnist import data, device, options
from fmnist.config import Network
from fmnist.errors import Failed, run_main
from fmnist.statistics import SIGNIFICANT, equivalence, samples_for_equivalence

MARGIN = 0.003  # of accuracy: the loss that would matter
POWER = 0.8
FEWEST = 5  # seeds, the first ones of the plain loop, of which the spread is taken


class Bench(NamedTuple):
    """What both loops are given."""

    dataset: data.FashionMNIST
    images: int  # training images, the first ones
    epochs: int
    precision: str  # of this project's loop

    def network(self, name: str, seed: int) -> Network:
        """A network of `classic`, to be trained so long from this seed."""
        return classic(name, epochs=self.epochs, seed=seed)


def by_plain_loop(name: str, seed: int, bench: Bench) -> float:
    """The test accuracy of one training by the loop that tutorials have, in fp32."""
    loop = PlainLoop(bench.network(name, seed), bench.dataset)
    for _ in range(bench.epochs):
        loop.train_epoch(range(bench.images))
    return loop.accuracy(bench.dataset.test_images, bench.dataset.test_labels)


def by_this_project(name: str, seed: int, bench: Bench) -> float:
    """The test accuracy of one training by this project's loop."""
    learner = train_by_fit(bench.network(name, seed), bench.dataset, bench.images, bench.precision).learner
    return learner_accuracy(learner, bench.dataset.test_images, bench.dataset.test_labels)


def seeds_for(accuracies: np.ndarray) -> int | None:
    """How many seeds show equivalence within MARGIN with a power of POWER, by this spread; None if over 10,000."""
    std = float(np.std(accuracies, ddof=1))
    return samples_for_equivalence(std, MARGIN, POWER) if std > 0 else FEWEST


class Comparison(NamedTuple):
    """Test accuracies of one network by both loops, one of each for every seed."""

    name: str
    plain: np.ndarray
    fit: np.ndarray

    @property
    def p_value(self) -> float:
        """Of two one-sided tests that the means differ by MARGIN or more."""
        return equivalence(self.fit, self.plain, MARGIN)

    @property
    def shown(self) -> bool:
        """Whether the two loops are shown to be equivalent."""
        return self.p_value < SIGNIFICANT

    @property
    def verdict(self) -> str:
        """What follows, in words."""
        if self.shown:
            return f"equivalent within {100 * MARGIN:g} points"
        if lower(self.fit, self.plain):
            return "this project is worse"
        if lower(self.plain, self.fit):
            return "this project is better"
        return "too few seeds to tell"

    @property
    def row(self) -> list[str]:
        """Its row of the table."""
        means = [f"{runs.mean():.2%} ± {100 * runs.std(ddof=1):.2f}" for runs in (self.plain, self.fit)]
        difference = f"{100 * (self.fit.mean() - self.plain.mean()):+.2f}"
        needed = seeds_for(self.plain)
        seeds = [str(len(self.fit)), "over 10,000" if needed is None else f"{needed:,}"]
        return [self.name.upper(), *seeds, *means, difference, f"{self.p_value:.3f}", self.verdict]


HEADER = ["network", "seeds", "for 80 % power", "plain loop", "this project", "points", "p", "verdict"]


def lower(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether the mean of `a` is below that of `b` by more than chance, by Welch's one-sided t test."""
    if np.ptp(a) == np.ptp(b) == 0:  # there is no t where nothing varies
        return bool(a[0] < b[0])
    return bool(stats.ttest_ind(a, b, equal_var=False, alternative="less").pvalue < SIGNIFICANT)


def compare(name: str, bench: Bench, least: int, most: int) -> Comparison:
    """Train a network by both loops from as many seeds as it takes, `least` at the least and `most` at the most."""
    first = trained(by_plain_loop, name, range(FEWEST), bench)
    seeds = min(max(seeds_for(first) or most, least), most)
    plain = np.append(first, trained(by_plain_loop, name, range(FEWEST, seeds), bench))
    return Comparison(name, plain, trained(by_this_project, name, range(seeds), bench))


def trained(train: Callable[[str, int, Bench], float], name: str, seeds: range, bench: Bench) -> np.ndarray:
    """Test accuracies of one training from each seed."""
    return np.array([train(name, seed, bench) for seed in tqdm(seeds, name, leave=False, disable=None)])


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line. Raises Refused for what is out of its limits."""
    parser = options.Parser(prog="python -m benchmarks.agreement", description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--data-dir", type=Path, default=ROOT / "data", help="where the data set is [data]")
    add("--models", nargs="+", choices=PLAIN, default=list(PLAIN), help="networks to compare [all]")
    add("--epochs", type=options.whole(1, 100), default=2, help="epochs of each training [2]")
    add("--images", type=options.whole(64, 60_000), default=60_000, help="training images, the first ones [60000]")
    add("--least", type=options.whole(FEWEST, 1000), default=FEWEST, help=f"fewest seeds of each loop [{FEWEST}]")
    add("--most", type=options.whole(FEWEST, 1000), default=40, help="most seeds of each loop [40]")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, print the table. Raises Failed if equivalence is not shown for every network."""
    asked = parse_arguments(argv)
    machine = device.set_up({"device": CPU.type}, by_torch=True)
    dataset = data.load(asked.data_dir.resolve(), log=lambda _: None)
    bench = Bench(dataset, min(asked.images, len(dataset.train_images)), asked.epochs, machine.precision)
    how = f"{bench.epochs} epochs over {bench.images:,} images; plain loop in fp32, this project in {bench.precision}"
    print(f"{how}, torch {torch.__version__}; mean ± standard deviation of the test accuracies\n")
    compared = [compare(name, bench, asked.least, asked.most) for name in asked.models]
    print(table(HEADER, [comparison.row for comparison in compared]))
    failed = [f"{one.name}: {one.verdict}" for one in compared if not one.shown]
    if failed:
        margin = f"equivalence within {100 * MARGIN:g} points is not shown"
        raise Failed(f"{margin}: {'; '.join(failed)} (--least N trains more seeds, up to --most)")


if __name__ == "__main__":
    sys.exit(run_main(main))
