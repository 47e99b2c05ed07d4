"""What does training cost as the work grows? Seconds and memory of the CNN by images, width and epochs; Markdown.

python -m benchmarks.growth                       five minutes on two cores; draws cost_growth.png
python -m benchmarks.growth --picture mine.png
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from benchmarks import measure
from benchmarks.measure import ROOT, table
from fmnist import options
from fmnist.errors import Refused, run_main

TITLE = "Cost of training the CNN as the work grows"
FLAT = 0.1  # by which the largest value may exceed the smallest where nothing grows
STRAIGHT = 0.15  # by which a value may miss the straight line


class Work(NamedTuple):
    """What one measurement trains."""

    images: int
    width: int = 1  # so many times the kernels and dense units of `classic`
    epochs: int = 1


class Cost(NamedTuple):
    """What it takes."""

    seconds: float  # of training
    megabytes: float | None  # peak memory of the whole process; None where the system does not tell


class Plan(NamedTuple):
    """What is varied, and over which values; the rest stays at the first of each."""

    images: tuple[int, ...]
    width: tuple[int, ...]
    epochs: tuple[int, ...]
    repeats: int  # of each measurement, of which the median counts

    @property
    def grown(self) -> dict[str, list[Work]]:
        """The measurements by what grows."""
        return {
            "training images": [Work(count) for count in self.images],
            "width": [Work(self.images[0], width=width) for width in self.width],
            "epochs": [Work(self.images[0], epochs=epochs) for epochs in self.epochs],
        }


FULL = Plan(images=(6_000, 15_000, 30_000, 60_000), width=(1, 2, 4), epochs=(1, 2, 4), repeats=3)
QUICK = Plan(images=(128, 256), width=(1, 2), epochs=(1, 2), repeats=1)


# One measurement, in a process of its own


def train_once(root: Path, work: Work) -> float:
    """Train the CNN on the first images of the data in `root`; return seconds."""
    from benchmarks.loops import classic, train_by_fit
    from fmnist import data, device

    machine = device.set_up({"device": "cpu"}, by_torch=True)
    network = classic("cnn", epochs=work.epochs)
    wider = {name: [work.width * units for units in network.argument(name)] for name in ("kernels", "dense")}
    network = replace(network, arguments={**network.arguments, **wider})
    return train_by_fit(network, data.load(root, log=lambda _: None), work.images, machine.precision).seconds


def measure_cost(root: Path, work: Work) -> Cost:
    """Run `train_once` in a process of its own, so that the memory is its own."""
    words = [sys.executable, "-m", "benchmarks.growth", "--data-dir", root, "--point", *work]
    completed = measure.run(*words)
    return Cost(float(completed.output), completed.megabytes)


# All of them


def measure_growth(plan: Plan, cost: Callable[[Work], Cost]) -> dict[str, list[Cost]]:
    """Measure every point of `plan`, by what grows; a point that several have in common is measured once."""

    @cache
    def median(work: Work) -> Cost:
        costs = [cost(work) for _ in range(plan.repeats)]
        peaks = [one.megabytes for one in costs if one.megabytes is not None]
        return Cost(statistics.median(one.seconds for one in costs), statistics.median(peaks) if peaks else None)

    return {what: [median(work) for work in works] for what, works in plan.grown.items()}


def growth(values: Sequence[float], costs: Sequence[float]) -> str:
    """Say in words how `costs` grow with ascending `values`: whether along the line from the first to the last."""
    if max(costs) <= (1 + FLAT) * min(costs):
        return "no growth"
    if len(values) < 3:
        return "growth, of which two values do not show how,"
    slope = (costs[-1] - costs[0]) / (values[-1] - values[0])
    line = [costs[0] + slope * (value - values[0]) for value in values]
    misses = [cost / straight - 1 for cost, straight in zip(costs, line, strict=True)]
    if max(map(abs, misses)) <= STRAIGHT:
        return "linear growth"
    return "more than linear growth" if min(misses) < -STRAIGHT else "less than linear growth"


def in_words(what: str, values: Sequence[int], costs: Sequence[Cost]) -> str:
    """A sentence on how seconds and memory grow with one of what grows."""
    seconds, megabytes = zip(*costs, strict=True)
    memory = "memory not known" if None in megabytes else f"{growth(values, megabytes)} of the memory"
    times = f"{values[-1] / values[0]:g} times as many cost {seconds[-1] / seconds[0]:.1f} times the seconds"
    return f"- {what}: {growth(values, seconds)} of the seconds ({times}), {memory}"


def rows(what: str, values: Sequence[int], costs: Sequence[Cost]) -> list[list[str]]:
    """Rows of the table for one of what grows."""
    return [
        [what, f"{value:,}", f"{cost.seconds:.1f}", measure.megabytes(cost.megabytes)]
        for value, cost in zip(values, costs, strict=True)
    ]


def draw(picture: Path, values: Mapping[str, Sequence[int]], measured: Mapping[str, Sequence[Cost]]) -> None:
    """Draw the measurements into the file `picture`; memory that is not known stands at 0."""
    from fmnist.figures.album import Album
    from fmnist.figures.comparisons import cost_growth

    points = {
        what: [(value, cost.seconds, cost.megabytes or 0) for value, cost in zip(values[what], costs, strict=True)]
        for what, costs in measured.items()
    }
    picture.parent.mkdir(parents=True, exist_ok=True)
    Album(picture.parent).add(picture.name, TITLE, cost_growth, points)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line. Raises Refused for what is out of its limits."""
    parser = options.Parser(prog="python -m benchmarks.growth", description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--data-dir", type=Path, default=ROOT / "data", help="where the data set is [data]")
    picture = ROOT / "outputs" / "cost_growth.png"
    add("--picture", type=Path, default=picture, help="where it is drawn [outputs/cost_growth.png]")
    add("--quick", action="store_true", help="a few images, to see that it runs: figures of no value")
    add("--point", type=int, nargs=3, help=argparse.SUPPRESS)  # measure one Work, print the seconds, and end
    return parser.parse_args(argv)


def check_size(root: Path, plan: Plan) -> None:
    """Fetch the data into `root` if need be. Raises Refused if they have fewer training images than `plan` asks for."""
    from fmnist import data

    there = len(data.load(root, log=lambda _: None).train_images)
    if there < max(plan.images):
        needed = f"{max(plan.images):,} training images are needed, and {there:,} are there"
        raise Refused(f"--data-dir {root}: {needed}; --quick needs fewer")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table and what it says, and draw it."""
    asked = parse_arguments(argv)
    root = asked.data_dir.resolve()
    if asked.point:
        print(train_once(root, Work(*asked.point)))
        return
    plan = QUICK if asked.quick else FULL
    check_size(root, plan)
    measured = measure_growth(plan, lambda work: measure_cost(root, work))
    values = dict(zip(measured, plan, strict=False))
    print(f"The CNN on {plan.images[0]:,} images for one epoch, but for what grows; medians of {plan.repeats}\n")
    header = ["what grows", "value", "seconds", "peak MB"]
    print(table(header, [row for what, costs in measured.items() for row in rows(what, values[what], costs)]))
    print(f"\nLinear: no value misses the straight line from the first to the last by more than {STRAIGHT:.0%}.\n")
    print("\n".join(in_words(what, values[what], costs) for what, costs in measured.items()))
    draw(asked.picture.resolve(), values, measured)


if __name__ == "__main__":
    sys.exit(run_main(main))
