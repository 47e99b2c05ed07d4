"""How fast is this project on this machine's CPU? Measured against the loop that tutorials have; prints Markdown.

    python -m benchmarks.speed            everything; 20 to 40 minutes on two cores, most of it the plain loop's epochs
    python -m benchmarks.speed --peers    beside Keras alone; five to ten minutes, with requirements-benchmarks.txt
    python -m benchmarks.speed --quick    from a few steps and one epoch, to see that it runs: figures of no value

A machine's speed drifts, so what counts are ratios of measurements in turns, A B A B, and their spread. Nothing else
should run meanwhile.
"""

import multiprocessing
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

import recipes
from benchmarks import measure, peers
from benchmarks.bench import Bench, Effort, load
from benchmarks.loops import PLAIN, classic, train_by_fit
from benchmarks.measure import ROOT, spread, table
from benchmarks.speedrun import report_speedrun
from fmnist import device, evaluation, learners, options, trials
from fmnist.config import Network, Recipe
from fmnist.errors import run_main
from fmnist.trials import Trial

FEW = 2000  # training images of networks that are trained to be drawn
PRODUCT = 2048  # rows and columns of the matrices whose product is the ceiling

FULL = Effort(pairs=5, steps={"ffn": 600, "cnn": 200}, commands=3, seeds=3, most_epochs=30)
QUICK = Effort(pairs=2, steps={"ffn": 4, "cnn": 2}, commands=1, seeds=1, most_epochs=1)


# Both loops in turns

Rates = dict[tuple[str, str], list[float]]  # by what is measured ("plain", "fit" or "product"), and the precision

GAINS = {
    "the loop, in fp32": (("fit", "fp32"), ("plain", "fp32")),
    "the loop, in bf16": (("fit", "bf16"), ("plain", "bf16")),
    "bf16, in the plain loop": (("plain", "bf16"), ("plain", "fp32")),
    "bf16, in this project": (("fit", "bf16"), ("fit", "fp32")),
    "both": (("fit", "bf16"), ("plain", "fp32")),
}


def measure_rates(name: str, bench: Bench) -> Rates:
    """Images per second of both loops in each precision, in turns, and operations per second of a matrix product."""
    rates: Rates = defaultdict(list)
    train_by_fit(classic(name, epochs=1), bench.dataset, min(320, bench.count(name)), bench.machine.precision)
    for _ in range(bench.effort.pairs):
        for precision in bench.precisions:
            rates["plain", precision].append(bench.plain_rate(name, precision))
            rates["fit", precision].append(bench.fit_rate(name, precision))
            rates["product", precision].append(ceiling(precision))
    return rates


def ceiling(precision: str) -> float:
    """Floating-point operations per second of a large matrix product, the best of three."""
    a, b = torch.randn(2, PRODUCT, PRODUCT).to(torch.bfloat16 if precision == "bf16" else torch.float32)
    return max(2 * PRODUCT**3 / measure.seconds(lambda: a @ b) for _ in range(3))


def operations(network: Network, count: int = 64) -> float:
    """Floating-point operations to learn from one image: forward and backward, as torch counts them for a batch."""
    model = network.outline()
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(count, 28, 28, dtype=torch.uint8, device="meta")).sum().backward()
    return counter.get_total_flops() / count


def rate_rows(network: Network, rates: Rates, precisions: Sequence[str]) -> Iterator[list[str]]:
    """Rows of the table of images per second, and of the fraction of the ceiling that they reach."""
    per_image = operations(network)
    for precision in precisions:
        for loop, title in (("plain", "plain loop"), ("fit", "this project")):
            measured, ceilings = rates[loop, precision], rates["product", precision]
            fractions = [rate * per_image / top for rate, top in zip(measured, ceilings, strict=True)]
            yield [network.title, title, precision, spread(measured, ",.0f"), spread(fractions, ".1%")]


def gain_rows(network: Network, rates: Rates) -> Iterator[list[str]]:
    """Rows of the table of ratios, pair by pair: what the loop gives, what the precision gives."""
    for title, (ours, theirs) in GAINS.items():
        if {ours, theirs} <= rates.keys():
            ratios = [a / b for a, b in zip(rates[ours], rates[theirs], strict=True)]
            yield [network.title, title, spread(ratios, ".2f")]


def report_loops(bench: Bench) -> None:
    """Print both loops' images per second, and their ratios."""
    networks = [classic(name) for name in PLAIN]
    rates = {network.name: measure_rates(network.name, bench) for network in networks}
    print(f"## Both loops\n\n{bench.effort.pairs} pairs in turns, batches of {networks[0].training.batch_size}; median")
    print("(smallest to largest). The ceiling is a matrix product in the same precision, measured in each pair.\n")
    rows = [row for n in networks for row in rate_rows(n, rates[n.name], bench.precisions)]
    print(table(["network", "loop", "precision", "images per second", "fraction of the ceiling"], rows))
    print("\nWhat gives it, as a ratio of images per second, pair by pair:\n")
    print(table(["network", "what gives it", "ratio"], [row for n in networks for row in gain_rows(n, rates[n.name])]))
    if bench.machine.precision == "fp32":
        print("\nThis processor has no instructions for bf16: it would be emulated, and is not measured.")


# What surrounds the training

# Runs fashionmnist.py up to the end of its first training step.
FIRST_STEP = """
import os, sys
import fashionmnist
from fmnist import learners
step = learners.TorchLearner.step
learners.TorchLearner.step = lambda *arguments: (step(*arguments), os._exit(0))
fashionmnist.main(sys.argv[1:])
"""


def first_step(root: Path) -> float:
    """Seconds from the command to the end of the first training step of `classic`."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["classic", "--data-dir", root, "--output-dir", folder, "--device", "cpu"]
        return measure.run(sys.executable, "-c", FIRST_STEP, *words).seconds


def evaluate_and_draw(bench: Bench) -> tuple[float, float]:
    """Seconds of one full evaluation of the CNN, and of drawing all that both scripts draw of `classic`.

    The networks have learnt for an epoch from FEW images: the pictures are as many and as large.
    """
    few = bench.dataset._replace(
        train_images=bench.dataset.train_images[:FEW], train_labels=bench.dataset.train_labels[:FEW]
    )
    recipe = options.changed(recipes.CLASSIC, {"epochs": 1})
    with tempfile.TemporaryDirectory() as output, redirect_stdout(None):
        folder = Path(output) / "classic"
        folder.mkdir()
        planned = trials.plan(recipe, 1, few, bench.machine, folder)
        for trial in planned:
            trials.train(trial, few)
        learner = learners.make_learner(planned[-1].network.build(), planned[-1].network.training, bench.machine, 1)
        scored = torch.arange(len(bench.dataset.train_images))
        evaluating = measure.seconds(lambda: evaluation.evaluate(learner, bench.dataset, scored))
        return evaluating, measure.seconds(lambda: draw_classic(bench, recipe, planned, folder))


def draw_classic(bench: Bench, recipe: Recipe, planned: list[Trial], folder: Path) -> None:
    """Draw what both scripts draw of `classic`, and write the report; kernel_vis.py loads weights and data for it."""
    import fashionmnist
    import kernel_vis

    fashionmnist.keep_weights(planned, folder)
    fashionmnist.present(recipe, planned, bench.dataset, bench.machine, folder)
    kernel_vis.main(["classic", "--data-dir", str(bench.root), "--output-dir", str(folder.parent)])


def report_surroundings(bench: Bench) -> None:
    """Print what a run takes besides training."""
    starts = [first_step(bench.root) for _ in range(bench.effort.commands)]
    evaluating, drawing = evaluate_and_draw(bench)
    images = len(bench.dataset.test_images) + min(evaluation.SUBSET, len(bench.dataset.train_images))
    rows = [
        ["from the command to the end of the first training step", spread(starts, ".1f")],
        [f"a full evaluation of the CNN, {images:,} images", f"{evaluating:.1f}"],
        ["drawing all of `classic`: the figures of both scripts, and the report", f"{drawing:.1f}"],
    ]
    print(f"\n## What surrounds the training\n\n{table(['what', 'seconds'], rows)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = options.Parser(prog="python -m benchmarks.speed", description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, default=ROOT / "data", help="where the data set is [data]")
    parser.add_argument("--quick", action="store_true", help="a few steps and one epoch, to see that it runs")
    parser.add_argument("--peers", action="store_true", help="measure beside Keras, and nothing else")
    asked = parser.parse_args(argv)
    if asked.peers:
        peers.check_installed()
    root = asked.data_dir.resolve()
    machine, dataset = device.set_up({"device": "cpu"}, by_torch=True), load(root)
    threads = f"{torch.get_num_threads()} threads"
    print(f"{device.processor()}, {threads}, `auto` is {machine.precision}, torch {torch.__version__}\n")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
        bench = Bench(root, dataset, machine, QUICK if asked.quick else FULL, apart)
        if asked.peers:
            peers.report_peers(bench)
        else:
            report_loops(bench)
            report_speedrun(bench)
            report_surroundings(bench)


if __name__ == "__main__":
    sys.exit(run_main(main))
