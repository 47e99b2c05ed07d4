"""`speedrun` from the command to the last file, against what the plain loop takes to the same end.

A part of benchmarks.speed. The same end can be read in two ways: the published number of epochs, or the accuracy that
was published.
"""

import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

import recipes
from benchmarks import measure
from benchmarks.bench import Bench, load
from benchmarks.loops import PLAIN, PlainLoop, classic
from benchmarks.measure import spread, table
from fmnist import data
from fmnist.config import Network

PUBLISHED_EPOCHS = {"ffn": 15, "cnn": 10}  # of the published loss curves of `classic`
HELD_OUT = 0.1  # fraction of the training images that tells when the plain loop has reached an accuracy
RULE = (
    f"The same accuracy: of the training images a fraction of {HELD_OUT:g} is held out, and scored after each epoch in "
    "time that is not\ncounted; the training ends with the first epoch whose held-out accuracy is at least the "
    "published test accuracy."
)


# The plain loop to the accuracy


def plain_epochs(root: Path, name: str, seed: int, most: int) -> int | None:
    """Epochs that the plain loop takes from `seed` to the published test accuracy, by `epochs_to_reach`."""
    network = classic(name, seed=seed)
    accuracies = itertools.islice(held_out_accuracies(network, load(root)), most)
    return epochs_to_reach(network.published["test_accuracy"], accuracies)


def held_out_accuracies(network: Network, dataset: data.FashionMNIST) -> Iterator[float]:
    """Train by the plain loop without end; yield the accuracy on the held-out training images after each epoch."""
    images, labels, train_indices, held_out = data.training_data(dataset, HELD_OUT, network.training.seed)
    loop = PlainLoop(network, dataset)
    while True:
        loop.train_epoch(train_indices.tolist())
        yield loop.accuracy(images[held_out], labels[held_out])


def epochs_to_reach(goal: float, accuracies: Iterable[float]) -> int | None:
    """The rule, chosen beforehand: the first epoch, from 1, whose accuracy is at least `goal`; None if none is."""
    return next((epoch for epoch, accuracy in enumerate(accuracies, start=1) if accuracy >= goal), None)


# `speedrun`


class Speedrun(NamedTuple):
    """One run of the recipe `speedrun` as a command."""

    command: measure.Completed
    training: dict[str, float]  # seconds by network, of training alone
    rates: dict[str, float]  # the plain loop's images per second by network, around this run


def run_speedrun(bench: Bench) -> list[Speedrun]:
    """Run `speedrun`, and the plain loop in fp32 before and after each run."""
    around, runs = [plain_rates(bench)], []
    for _ in range(bench.effort.commands):
        with tempfile.TemporaryDirectory() as folder:
            words = ["speedrun", "--data-dir", bench.root, "--output-dir", folder, "--device", "cpu"]
            command = measure.run(sys.executable, "fashionmnist.py", *words)
            models = json.loads((Path(folder) / "speedrun" / "metrics.json").read_text("utf-8"))["models"]
        around.append(plain_rates(bench))
        rates = {name: statistics.harmonic_mean([before[name] for before in around[-2:]]) for name in PLAIN}
        runs.append(Speedrun(command, {name: model["training_seconds"] for name, model in models.items()}, rates))
    return runs


def plain_rates(bench: Bench) -> dict[str, float]:
    """The plain loop's images per second in fp32, by network."""
    return {name: bench.plain_rate(name, "fp32") for name in PLAIN}


def train_to_accuracy(bench: Bench) -> dict[str, list[int | None]]:
    """The epochs that the plain loop takes to the published test accuracy from each seed, by network."""
    reached: dict[str, list[int | None]] = {name: [] for name in PLAIN}
    trainings = list(itertools.product(PLAIN, range(bench.effort.seeds)))
    for name, seed in tqdm(trainings, "plain loop to the accuracy", leave=False, disable=None):
        training = bench.apart.submit(plain_epochs, bench.root, name, seed, bench.effort.most_epochs)
        reached[name].append(training.result())
    return reached


# In Markdown


def report_speedrun(bench: Bench) -> None:
    """Print how long `speedrun` takes, and how long the plain loop takes to the same end, by either reading of that."""
    runs, reached = run_speedrun(bench), train_to_accuracy(bench)
    epochs = {name: [epoch or bench.effort.most_epochs for epoch in by_seed] for name, by_seed in reached.items()}
    print("\n## `speedrun`, from the command to the last file\n")
    print(f"{len(runs)} runs, and the plain loop's rate in fp32 before and after each; of the plain loop only training")
    print(f"is counted, of `speedrun` everything.\n\n{ratios(runs, epochs, len(bench.dataset.train_images))}\n")
    header = [
        "network",
        "seconds for 60,000 images",
        "published epochs",
        "accuracy to reach",
        "epochs to it",
        "by seed",
    ]
    rows = [epoch_row(name, runs, by_seed, epochs[name]) for name, by_seed in reached.items()]
    print(f"{RULE}\n\n{table(header, rows)}\n\n{parts(runs)}")


def ratios(runs: Sequence[Speedrun], epochs: Mapping[str, Sequence[int]], images: int) -> str:
    """The table of the plain loop's time by `speedrun`'s, with so many training `images` and the `epochs` by seed.

    To the accuracy an epoch counts without the images that are held out, on which it did not train.
    """
    trained_on = images - round(HELD_OUT * images)
    rows = [
        [
            "as fast as the published number of epochs",
            *against(runs, {name: count * images for name, count in PUBLISHED_EPOCHS.items()}),
        ],
        [
            "as fast as the plain loop takes to the same accuracy",
            *against(runs, {name: statistics.mean(by_seed) * trained_on for name, by_seed in epochs.items()}),
        ],
    ]
    return table(["how many times", "plain loop, seconds", "`speedrun`, seconds", "ratio"], rows)


def against(runs: Sequence[Speedrun], images: Mapping[str, float]) -> list[str]:
    """Cells: seconds of the plain loop for so many images of each network, of `speedrun`, and their ratio."""
    plain = [sum(count / run.rates[name] for name, count in images.items()) for run in runs]
    ours = [run.command.seconds for run in runs]
    return [spread(plain, ".0f"), spread(ours, ".1f"), spread([a / b for a, b in zip(plain, ours, strict=True)], ".1f")]


def epoch_row(name: str, runs: Sequence[Speedrun], reached: Sequence[int | None], epochs: Sequence[int]) -> list[str]:
    """A row of the table of epochs; a seed that has not `reached` the accuracy counts with all its `epochs`."""
    network = classic(name)
    goal, per_epoch = f"{network.published['test_accuracy']:.2%}", [60_000 / run.rates[name] for run in runs]
    by_seed = [f"not in {n}" if epoch is None else str(n) for epoch, n in zip(reached, epochs, strict=True)]
    mean = f"{statistics.mean(epochs):.1f} ({min(epochs)} to {max(epochs)})"
    published = str(PUBLISHED_EPOCHS[name])
    return [network.title, spread(per_epoch, ".1f"), published, goal, mean, ", ".join(by_seed)]


def _epochs(count: int) -> str:
    return f"{count} epoch{'' if count == 1 else 's'}"


def parts(runs: Sequence[Speedrun]) -> str:
    """A table of what each part of `speedrun` takes, and its peak memory."""
    seconds = {
        f"training of the {network.title}, {_epochs(network.training.epochs)}": [r.training[network.name] for r in runs]
        for network in recipes.SPEEDRUN.networks
    }
    seconds["all else: start, data, evaluation, figures, report"] = [
        run.command.seconds - sum(run.training.values()) for run in runs
    ]
    seconds["from the command to the last file"] = [run.command.seconds for run in runs]
    rows = [[part, spread(measured, ".1f")] for part, measured in seconds.items()]
    peaks = [run.command.megabytes for run in runs]
    peak = measure.megabytes(None if None in peaks else max(peaks))
    return f"{table(['part of `speedrun`', 'seconds'], rows)}\n\nPeak memory of `speedrun`, in MB: {peak}"
