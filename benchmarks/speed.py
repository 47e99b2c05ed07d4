"""How fast is it, here? Measures this project against the loop that tutorials have, in turns, in one run.

    python -m benchmarks.speed             both loops, and the recipe `speedrun`; under five minutes; prints Markdown
    python -m benchmarks.speed --growth    seconds and memory as images, width and epochs grow, and a picture of it

The machine's speed drifts, so what counts is the ratio pair by pair, A B A B, and its spread. The ceiling is what a
large matrix product reaches in the same precision, measured between the pairs.
"""

import argparse
import multiprocessing
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import datasets, transforms

import recipes
from fmnist import checkpoints, data, evaluation, metrics, training
from fmnist.figures import album, comparisons

ROOT = Path(__file__).parents[1]
PAIRS = 5
STEPS = {"ffn": 600, "cnn": 200}  # of 64 images, in each half of a pair: what a run does once weighs little in it
PLAIN_EPOCHS = {"ffn": 15, "cnn": 10}  # what is usual to reach the published accuracies; `speedrun` is held against it
PRODUCT = 2048  # rows and columns of the matrices whose product is the ceiling


class PlainFFN(nn.Sequential):
    """The network of 203,530 parameters as tutorials write it."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Dropout(0.2), nn.Linear(256, 10))


class PlainCNN(nn.Module):
    """The network of 421,642 parameters as tutorials write it: pooling after ReLU, channels first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.linear1, self.linear2, self.dropout = nn.Linear(3136, 128), nn.Linear(128, 10), nn.Dropout(0.25)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.linear2(self.dropout(F.relu(self.linear1(x.flatten(1)))))


def train_plainly(name: str, root: Path, count: int, epochs: int = 1) -> tuple[nn.Module, float]:
    """Train on so many images by the loop of the tutorials; return the network, and images per second."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((data.MEAN,), (data.STD,))])
    images = Subset(datasets.FashionMNIST(root, transform=transform), range(count))
    model = {"ffn": PlainFFN, "cnn": PlainCNN}[name]()
    optimizer, loss_function = torch.optim.Adam(model.parameters(), lr=1e-3), nn.CrossEntropyLoss()
    start = time.perf_counter()
    for _ in range(epochs):
        model.train()
        running_loss = 0.0
        for inputs, labels in DataLoader(images, batch_size=64, shuffle=True):
            optimizer.zero_grad()
            loss = loss_function(model(inputs), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
    return model, epochs * count / (time.perf_counter() - start)


def plain_loop(name: str, root: Path, steps: int) -> float:
    """Images per second of the loop of the tutorials."""
    return train_plainly(name, root, steps * 64)[1]


def train_our_way(
    network: recipes.Network, dataset: data.FashionMNIST, count: int, precision: str
) -> tuple[training.Learner, float]:
    """Train on so many images by `training.fit`, checkpoint and all; return what has learnt, and images per second."""
    config = network.training
    learner = network.learner(torch.device("cpu"), precision, count)
    learnt = (dataset.train_images, dataset.train_labels, (torch.arange(count), torch.arange(0)), config)
    with tempfile.TemporaryDirectory() as folder:
        kept = checkpoints.Checkpoints(Path(folder), network.name, network.settings, {})
        start = time.perf_counter()
        training.fit(learner, *learnt, kept, training.Progress(), log=lambda _: None)
        return learner, config.epochs * count / (time.perf_counter() - start)


def our_loop(name: str, dataset: data.FashionMNIST, steps: int, precision: str) -> float:
    """Images per second of this project's loop, over one epoch."""
    return train_our_way(classic(name, epochs=1), dataset, steps * 64, precision)[1]


def classic(name: str, **training_settings: int) -> recipes.Network:
    """One network of `classic`, to be trained with some settings of its own."""
    network = next(network for network in recipes.CLASSIC.networks if network.name == name)
    return recipes.replace(network, training=recipes.replace(network.training, **training_settings))


def operations(network: recipes.Network, count: int = 64) -> float:
    """Floating-point operations to learn from one image: forward and backward, as torch counts them for a batch."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network.build()(torch.empty(count, 1, 28, 28)).sum().backward()
    return counter.get_total_flops() / count


def ceiling(precision: str) -> float:
    """Floating-point operations per second of a large matrix product, the best of three."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.randn(2, PRODUCT, PRODUCT).to(kind)
    return max(2 * PRODUCT**3 / seconds(lambda: a @ b) for _ in range(3))


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def spread(values: list[float], form: str) -> str:
    """The median of `values`, and the smallest and largest."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def compare(name: str, root: Path, dataset: data.FashionMNIST, precision: str, apart: Executor) -> str:
    """A row of the table: both loops in turns, their ratio pair by pair, and the share of the ceiling.

    The plain loop runs `apart`, in a process where memory is handled as torch finds it.
    """
    network = classic(name)
    per_image = operations(network)
    steps, plain, ours, shares = STEPS[name], [], [], []
    apart.submit(plain_loop, name, root, 5).result(), our_loop(name, dataset, 5, precision)
    for _ in range(PAIRS):
        plain.append(apart.submit(plain_loop, name, root, steps).result())
        ours.append(our_loop(name, dataset, steps, precision))
        shares.append(ours[-1] * per_image / ceiling(precision))
    ratios = [our / their for our, their in zip(ours, plain, strict=True)]
    cells = (spread(plain, ",.0f"), spread(ours, ",.0f"), spread(ratios, ".2f"), spread(shares, ".0%"))
    return f"| {network.title} | {' | '.join(cells)} |"


def first_step(root: Path) -> float:
    """Seconds from the command to the first training step of `classic`, in a process of its own."""
    program = (
        "import sys, os; sys.argv = ['fashionmnist.py'] + sys.argv[1:];"
        "import fashionmnist; from fmnist import training; fit = training.TorchLearner.step;"
        "training.TorchLearner.step = lambda *a: (fit(*a), os._exit(0));"
        "fashionmnist.main(sys.argv[1:])"
    )
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", program, "--data-dir", str(root), "--output-dir", folder]
        return seconds(lambda: subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL))


def speedrun(root: Path, apart: Executor) -> str:
    """Rows of the table: the whole of `speedrun`, and how often it fits into PLAIN_EPOCHS of the plain loop.

    The plain loop's images per second are taken before and after, and its epochs' seconds follow from them: training
    alone, without a start, a test or a picture.
    """

    def plain_seconds() -> float:
        rates = {name: apart.submit(plain_loop, name, root, STEPS[name]).result() for name in PLAIN_EPOCHS}
        return sum(epochs * 60_000 / rates[name] for name, epochs in PLAIN_EPOCHS.items())

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "fashionmnist.py", "speedrun", "--data-dir", str(root), "--output-dir", folder]
        before = plain_seconds()
        ours = seconds(lambda: subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL))
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # `apart` is not among them while it runs
        plain = [before, plain_seconds()]
    epochs = " and ".join(f"{epochs} of the {name.upper()}" for name, epochs in PLAIN_EPOCHS.items())
    return (
        f"| `speedrun`, from the command to the last file | {ours:.0f} |\n"
        f"| the plain loop at its rate before and after that, epochs: {epochs} | {spread(plain, '.0f')} |\n"
        f"| so many times as long | {spread([value / ours for value in plain], '.1f')} |\n\n"
        f"Peak memory of `speedrun`: {peak:,.0f} MB."
    )


def evaluate_and_draw(dataset: data.FashionMNIST, precision: str) -> tuple[float, float]:
    """Seconds of one full evaluation of the CNN, and of drawing all of `classic`: both scripts' figures, the report."""
    trained = {}
    for network in recipes.CLASSIC.networks:
        learner = network.learner(torch.device("cpu"), precision, 60_000)
        start = time.perf_counter()
        scored = evaluation.evaluate(learner, dataset, torch.arange(60_000))
        evaluating = time.perf_counter() - start
        epoch = {"train_loss": 1.0, "train_accuracy": 0.5, "seconds": 1.0, "steps": 938}
        trained[network.name] = [metrics.Trained(network, [epoch] * 20, scored, learner.cost())]
    numbers = metrics.collect(recipes.CLASSIC, trained, None, "", {"device": "cpu", "precision": precision})
    evaluations = {name: runs[0].evaluation for name, runs in trained.items()}
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(None):
        folder, start = Path(folder), time.perf_counter()
        images, pictures = dataset.test_images.numpy(), album.Album(folder)
        predicted = {
            name: evaluation.Predictions(images, run.labels, run.probabilities) for name, run in evaluations.items()
        }
        album.draw_models(pictures, (), numbers, predicted)
        page = (folder / "report.html", numbers, evaluations, images, pictures.pictures, data.CLASSES)
        page.write_report(*page)
        album.draw_layers(pictures, learner.model, "CNN", data.test_image(dataset, 0))
        return evaluating, time.perf_counter() - start


# How the cost of the CNN grows: what is varied, and its values; each point is measured in a process of its own.
GROWTH = {"training images": (6_000, 15_000, 30_000, 60_000), "width": (1, 2, 4), "epochs": (1, 2, 4)}
FEW = 6_000  # training images, where it is not they that grow


def measure_growth(root: Path, picture: Path) -> str:
    """Measure every point of GROWTH, draw them into `picture` and return them as a table."""
    measured, rows = {}, ["| what grows | value | seconds | peak MB |", "| --- | --- | --- | --- |"]
    for what, values in GROWTH.items():
        measured[what] = []
        for value in values:
            images, width, epochs = (
                value if what == name else usual for name, usual in zip(GROWTH, (FEW, 1, 1), strict=True)
            )
            command = [sys.executable, "-m", "tests.benchmark", "--data-dir", str(root), "--point"]
            command += map(str, (images, width, epochs))
            said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
            measured[what].append((value, *map(float, said.split())))
            rows.append("| {} | {:,} | {:.1f} | {:,.0f} |".format(what, *measured[what][-1]))
    comparisons.cost_growth(picture, measured, "What training costs, and how it grows")
    return "\n".join(rows)


def train_once(root: Path, images: int, width: int, epochs: int) -> tuple[float, float]:
    """Train the CNN, `width` times as wide, on so many images; return seconds and the peak memory in MB."""
    training.keep_freed_memory()
    dataset = data.load(root, log=lambda _: None)
    network = classic("cnn", epochs=epochs)
    arguments = {**network.arguments, "kernels": [32 * width, 64 * width], "dense": [128 * width]}
    precision = training.choose_precision("auto", torch.device("cpu"))
    _, rate = train_our_way(recipes.replace(network, arguments=arguments), dataset, images, precision)
    return epochs * images / rate, peak_memory()


def peak_memory() -> float:
    """Largest resident size so far of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_speed(root: Path) -> None:
    """Print what a run costs here, against the loop of the tutorials."""
    dataset = data.load(root, log=lambda _: None)
    precision = training.choose_precision("auto", torch.device("cpu"))
    machine = f"{torch.get_num_threads()} threads, {precision}, torch {torch.__version__}"
    print(f"{PAIRS} pairs in turns, batch 64; {machine}\n")
    print("| Network | plain loop, images/s | this project, images/s | ratio | share of the ceiling |")
    print("| --- | --- | --- | --- | --- |")
    training.keep_freed_memory()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
        for name in STEPS:
            print(compare(name, root, dataset, precision, apart), flush=True)
        whole = speedrun(root, apart)
    evaluating, drawing = evaluate_and_draw(dataset, precision)
    starts = [first_step(root) for _ in range(3)]
    print("\n| What | seconds |\n| --- | --- |")
    print(f"| from the command to the first training step | {spread(starts, '.1f')} |")
    print(f"| a full evaluation of the CNN, 10,000 and 2,000 images | {evaluating:.1f} |")
    print(f"| drawing all of `classic`: the figures of both scripts, and the report | {drawing:.1f} |")
    print(whole)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=ROOT / "data")
    parser.add_argument("--growth", action="store_true", help="measure how seconds and memory grow instead")
    parser.add_argument("--picture", type=Path, default=ROOT / "outputs" / "cost_growth.png", help="where to draw it")
    parser.add_argument("--point", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.data_dir = options.data_dir.resolve()
    if options.point:
        print(*train_once(options.data_dir, *options.point))
    elif options.growth:
        print(measure_growth(options.data_dir, options.picture))
    else:
        measure_speed(options.data_dir)


if __name__ == "__main__":
    main()
