"""Does the speed cost accuracy? Trains the networks of `classic` by both loops, and compares what they are worth.

    python -m benchmarks.agreement             two epochs from each of five seeds; a quarter of an hour; prints Markdown

By both: the loop that tutorials have, and this project's with all its shortcuts, on the same images, with the same
settings. Their draws differ, and so do their networks; it is the mean over the seeds that should agree.
"""

import argparse
import statistics
from pathlib import Path

import torch
from scipy import stats
from torch import nn

from benchmarks.speed import ROOT, STEPS, classic, train_our_way, train_plainly
from fmnist import data, training

SEEDS, EPOCHS = 5, 2


@torch.inference_mode()
def plain_scores(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Float32 [N, 10] of uint8 images [N, 28, 28], as tutorials score them."""
    return torch.cat([model.eval()(data.normalise(batch)) for batch in images.split(1000)])


def accuracy(scores: torch.Tensor, dataset: data.FashionMNIST) -> float:
    """Share of the test images whose true class has the highest of the `scores` [N, 10]."""
    return float((scores.argmax(1) == dataset.test_labels).float().mean())


def compare(name: str, root: Path, dataset: data.FashionMNIST, precision: str) -> str:
    """A row of the table: mean and deviation of each loop's test accuracies, and Welch's t test between them."""
    plain, ours = [], []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        model, _ = train_plainly(name, root, len(dataset.train_images), EPOCHS)
        plain.append(accuracy(plain_scores(model, dataset.test_images), dataset))
        network = classic(name, epochs=EPOCHS, seed=seed)
        learner, _ = train_our_way(network, dataset, len(dataset.train_images), precision)
        ours.append(accuracy(training.log_probabilities(learner, dataset.test_images), dataset))
    means = [f"{statistics.mean(runs):.2%} ± {statistics.stdev(runs) * 100:.2f}" for runs in (plain, ours)]
    gap = statistics.mean(ours) - statistics.mean(plain)
    p_value = stats.ttest_ind(ours, plain, equal_var=False).pvalue
    return f"| {name.upper()} | {' | '.join(means)} | {gap * 100:+.2f} | {p_value:.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=ROOT / "data")
    root = parser.parse_args().data_dir.resolve()
    dataset = data.load(root, log=lambda _: None)
    precision = training.choose_precision("auto", torch.device("cpu"))
    print(f"{EPOCHS} epochs from each of {SEEDS} seeds, {precision}, torch {torch.__version__}\n")
    print("| Network | plain loop, test accuracy | this project | points | Welch t, p |")
    print("| --- | --- | --- | --- | --- |")
    for name in STEPS:
        print(compare(name, root, dataset, precision), flush=True)


if __name__ == "__main__":
    main()
