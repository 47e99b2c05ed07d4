"""What does a trial cost beside its training? A thousand that take one step, by each way to spread them; Markdown.

python -m benchmarks.scaling                     minutes on two quick cores; needs Dask for the cluster, on loopback
python -m benchmarks.scaling --trials 20 30 40   to see that it runs: figures of no value
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.growth import STRAIGHT
from benchmarks.measure import table
from fmnist import options
from fmnist.errors import Refused, run_main

SIDE_BY_SIDE = 2  # processes, and workers of the cluster
SEEDS = 10  # of each combination
WAYS = {"in turn": 1, "processes": SIDE_BY_SIDE, "cluster": SIDE_BY_SIDE}  # by how many cores
TEST_IMAGES = 10_000  # as the data set has: what is stored of a trial is for the most part its predictions of these
TRIALS, CORES, TRAINING = 10_000, 1_000, 60.0  # what is calculated: a study of so many, each of so many seconds


@dataclass(frozen=True)
class Cost:
    """What a run of `trials` trials took."""

    trials: int
    seconds: float  # to train them all, from the first to the last
    parent: float  # seconds of processor time of the run's own process in that
    merging: float  # seconds to read them all, compare them and write study.csv
    megabytes: float  # peak memory of the run's own process
    folder: float  # MB of the run's folder


# One run, in a process of its own


def run_once(way: str, count: int, address: str) -> Cost:
    """Train `count` trials by one of WAYS, and merge them."""
    from fmnist import device, trials, workers

    spread = {"in turn": {}, "processes": {"jobs": SIDE_BY_SIDE}, "cluster": {"cluster": address}}[way]
    machine = device.set_up({"device": "cpu", "precision": "fp32"}, by_torch=True, threads=1)
    dataset, recipe = made_up(), study(count // SEEDS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        planned = trials.plan(recipe, SEEDS, dataset, machine, folder / "checkpoints")
        started, used = time.perf_counter(), time.process_time()
        workers.train_all(planned, dataset, spread, folder)
        seconds, parent = time.perf_counter() - started, time.process_time() - used
        merge(recipe, planned, dataset, machine, folder)  # the first time imports what takes seconds
        merging = measure.seconds(lambda: merge(recipe, planned, dataset, machine, folder))
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    peak = measure.resource.getrusage(measure.resource.RUSAGE_SELF).ru_maxrss * measure.RSS_UNIT / 1e6
    return Cost(len(planned), seconds, parent, merging, peak, size)


def made_up() -> Any:
    """As many test images as the data set has, and few to train on, of noise."""
    import torch

    from fmnist.data import FashionMNIST

    torch.manual_seed(0)
    images = [torch.randint(0, 256, (count, 28, 28), dtype=torch.uint8) for count in (40, TEST_IMAGES)]
    labels = [torch.arange(len(part)) % 10 for part in images]
    return FashionMNIST(images[0], labels[0], images[1], labels[1], "made up")


def study(combinations: int) -> Any:
    """A study of a network of one hidden unit, which takes one step."""
    from recipes import RECIPES

    rates = ",".join(f"{1e-3 * (1 + n / 10_000):.7f}" for n in range(max(2, combinations)))
    asked = {"models": ["ffn"], "hidden": [1], "epochs": 1, "validation": 0.25, "vary": [f"lr={rates}"]}
    return options.changed(RECIPES["classic"], asked)


def merge(recipe: Any, planned: Sequence[Any], dataset: Any, machine: Any, folder: Path) -> None:
    """Do what a run does of its trials when all are there, but for pictures and page."""
    from fmnist import files, results, study_results, trials

    collected = results.collect(recipe, trials.read_all(planned, dataset), dataset, machine, None)
    files.write_json(folder / "metrics.json", collected)
    files.write_csv(folder / "study.csv", study_results.trials(collected["models"]))


# All of them


@contextmanager
def local_cluster():
    """Start a scheduler and workers on loopback; yield its address. Raises Refused without Dask."""
    try:
        from distributed import LocalCluster
    except ImportError:
        raise Refused("the cluster needs Dask: pip install -r requirements-cluster.txt") from None
    with LocalCluster(n_workers=SIDE_BY_SIDE, threads_per_worker=1, dashboard_address=":0") as there:
        yield there.scheduler_address


def measure_all(counts: Sequence[int]) -> dict[str, list[Cost]]:
    """The cost of so many trials, by each way, each in a process of its own."""
    with local_cluster() as address:
        measure_cost("cluster", counts[0], address)  # its workers import torch once, for all runs
        return {way: [measure_cost(way, count, address) for count in counts] for way in WAYS}


def measure_cost(way: str, count: int, address: str) -> Cost:
    """Call `run_once` in a process of its own, so that the memory is its own."""
    words = [sys.executable, "-m", "benchmarks.scaling", "--point", way, count, address]
    cost = Cost(**json.loads(measure.run(*words).output.splitlines()[-1]))
    print(f"{way}: {cost}", file=sys.stderr)  # all of it: whoever is stopped keeps what was measured
    return cost


def slope(costs: Sequence[Cost], what: str) -> float:
    """How much one more trial adds to a number of a run's cost: start and imports, paid once, do not count."""
    first, last = costs[0], costs[-1]
    return (getattr(last, what) - getattr(first, what)) / (last.trials - first.trials)


def rows(way: str, costs: Sequence[Cost]) -> list[list[str]]:
    """Rows of the table of what was measured."""
    return [
        [
            way,
            f"{cost.trials:,}",
            f"{cost.seconds:.1f}",
            f"{cost.seconds * WAYS[way] / cost.trials:.3f}",
            f"{cost.parent / cost.trials * 1e3:.1f}",
            f"{cost.merging:.2f}",
            f"{cost.megabytes:,.0f}",
            f"{cost.folder:,.1f}",
        ]
        for cost in costs
    ]


def in_words(way: str, costs: Sequence[Cost]) -> str:
    """Say of which numbers one more trial adds more to a large run than to a small one."""
    named = {"seconds": "seconds", "parent": "processor time of the run's process", "merging": "seconds to merge"}
    named |= {"folder": "size of the folder"}
    ratios = {words: slope(costs[1:], name) / slope(costs[:2], name) for name, words in named.items()}
    told = [f"{words} ({ratio:.2f} times)" for words, ratio in ratios.items() if ratio > 1 + STRAIGHT]
    what = f"more than linear: {', '.join(told)}" if told else "nothing grows by more than the trials do"
    return f"- {way}: {what}"


def calculated(costs: Sequence[Cost]) -> list[list[str]]:
    """A study of TRIALS trials on CORES cores, from what was measured on the cluster."""
    each, parent = slope(costs, "seconds") * WAYS["cluster"], slope(costs, "parent")
    merging, megabytes, size = (slope(costs, what) * TRIALS for what in ("merging", "megabytes", "folder"))
    training, cost = TRIALS / CORES * TRAINING, TRIALS / CORES * each
    handing = TRIALS * parent
    whole = max(training + cost, handing) + merging
    return [
        ["trials that a core trains, one after the other", f"{TRIALS / CORES:,.0f}"],
        [f"their training, at {TRAINING:.0f} s each", f"{training:,.0f} s"],
        ["what they cost beside it", f"{cost:,.1f} s"],
        ["processor time of the run's own process to hand all out and take them back, meanwhile", f"{handing:,.0f} s"],
        ["merging them at the end", f"{merging:,.0f} s"],
        ["from the first to the last", f"{whole:,.0f} s"],
        ["of which the cores train", f"{training / whole:.0%}"],
        ["memory of the run's own process", f"{costs[-1].megabytes + max(0, megabytes):,.0f} MB"],
        ["size of the run's folder", f"{size / 1e3:,.1f} GB"],
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print the tables."""
    parser = options.Parser(prog="python -m benchmarks.scaling", description=__doc__.partition("\n")[0])
    count, words = options.whole(20, 100_000), "three numbers of trials, each larger than the one before [20 250 1000]"
    parser.add_argument("--trials", type=count, nargs=3, default=(20, 250, 1000), metavar="N", help=words)
    parser.add_argument("--point", nargs=3, help=argparse.SUPPRESS)  # measure one run, print its cost, and end
    asked = parser.parse_args(argv)
    if measure.resource is None:
        raise Refused("this system does not tell a process's peak memory")
    if asked.point:
        way, count, address = asked.point
        print(json.dumps(asdict(run_once(way, int(count), address))))
        return
    if len({count // SEEDS for count in asked.trials}) < 3:
        raise Refused(f"--trials: the three are to differ by {SEEDS} or more, as each combination has so many seeds")
    measured = measure_all(sorted(asked.trials))
    header = ["trials", "how many", "seconds", "core seconds each", "run's process, ms each", "to merge, s"]
    header += ["its peak MB", "folder, MB"]
    print(f"Trials of one step, scored on {TEST_IMAGES:,} images; {SIDE_BY_SIDE} side by side\n")
    print(table(header, [row for way, costs in measured.items() for row in rows(way, costs)]))
    small, middle, large = (f"{cost.trials:,}" for cost in measured["cluster"])
    print(f"\nWhat a further trial adds, between {middle} and {large} against between {small} and {middle}:\n")
    print("\n".join(in_words(way, costs) for way, costs in measured.items()))
    print(f"\nCalculated from the cluster's: a study of {TRIALS:,} trials on {CORES:,} cores\n")
    print(table(["what", "how much"], calculated(measured["cluster"])))


if __name__ == "__main__":
    sys.exit(run_main(main))
