"""What a trained network is worth: predictions, accuracies, confusion, per-class figures, and two networks compared."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from fmnist.data import FashionMNIST
from fmnist.training import Learner, log_probabilities

SUBSET = 2000  # training images on which the training accuracy is measured
SIGNIFICANT = 0.05  # a difference less likely than this under chance alone is called more than noise


class Predictions(NamedTuple):
    """What one network makes of N images."""

    images: np.ndarray  # uint8 [N, 28, 28]
    labels: np.ndarray  # int64 [N], their true classes
    probabilities: np.ndarray  # float32 [N, 10]

    @property
    def classes(self) -> np.ndarray:
        """int64 [N], the likeliest class of each image."""
        return self.probabilities.argmax(axis=1)

    @property
    def correct(self) -> np.ndarray:
        """bool [N], whether that is the true class."""
        return self.classes == self.labels


@dataclass(frozen=True)
class Evaluation:
    """One network scored on the T test images and on a subset of the training images; accuracies are fractions."""

    probabilities: np.ndarray  # float32 [T, 10], of the test images
    labels: np.ndarray  # int64 [T], their true classes
    test_accuracy: float
    test_loss: float  # mean cross-entropy
    train_subset_accuracy: float
    mean_accuracy: float  # over the pooled test and subset images
    confusion: np.ndarray  # int [10, 10], rows true, columns predicted
    per_class: dict[str, list[float]]  # precision, recall and f1, each of the ten classes

    @property
    def predictions(self) -> np.ndarray:
        """int64 [T], the likeliest class of each test image."""
        return self.probabilities.argmax(axis=1)


def evaluate(learner: Learner, dataset: FashionMNIST, learnt: torch.Tensor) -> Evaluation:
    """Score `learner` once on the test images, and on the first 2,000 of the training images it has learnt from.

    `learnt` holds their indices, int64, in the random order that `fmnist.data.split` has put them in by the seed.
    """
    scores = log_probabilities(learner, dataset.test_images).double()
    labels = dataset.test_labels.cpu()
    subset = learnt[:SUBSET]
    subset_scores = log_probabilities(learner, dataset.train_images[subset])
    right = int((scores.argmax(dim=1) == labels).sum())
    subset_right = int((subset_scores.argmax(dim=1) == dataset.train_labels[subset].cpu()).sum())
    confusion, per_class = confusion_and_per_class(labels.numpy(), scores.argmax(dim=1).numpy())
    return Evaluation(
        probabilities=scores.exp().float().numpy(),
        labels=labels.numpy(),
        test_accuracy=right / len(labels),
        test_loss=float(F.nll_loss(scores, labels)),
        train_subset_accuracy=subset_right / len(subset),
        mean_accuracy=(right + subset_right) / (len(labels) + len(subset)),
        confusion=confusion,
        per_class=per_class,
    )


def confusion_and_per_class(labels: np.ndarray, predictions: np.ndarray) -> tuple[np.ndarray, dict[str, list[float]]]:
    """Return the confusion matrix, int [10, 10] with rows true, and precision, recall and F1 of each class.

    A class that is never predicted has precision 0, one that never occurs recall 0, one that is neither F1 0.
    """
    # By hand: importing scikit-learn for this takes more time and memory than all the evaluation.
    confusion = np.bincount(10 * labels + predictions, minlength=100).reshape(10, 10)
    right, predicted, occurring = confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1)
    per_class = {
        "precision": right / np.maximum(predicted, 1),
        "recall": right / np.maximum(occurring, 1),
        "f1": 2 * right / np.maximum(predicted + occurring, 1),
    }
    return confusion, {name: values.tolist() for name, values in per_class.items()}


def compare(a: str, b: str, runs: dict[str, list[Evaluation]]) -> dict[str, Any]:
    """Say whether network `b` differs from `a` by more than noise, from the runs of each over the same seeds.

    One seed: McNemar's exact test on the test images that only one of the two gets right, which speaks of these two
    trained networks. Several seeds: the paired t test on the accuracies seed by seed, which speaks of the two recipes.
    """
    differences = np.array(
        [right.test_accuracy - left.test_accuracy for left, right in zip(runs[a], runs[b], strict=True)]
    )
    if len(differences) == 1:
        test, p_value = "McNemar", _mcnemar(runs[a][0], runs[b][0])
        count = len(runs[a][0].labels)
    else:
        test, p_value, count = "paired t", _paired_t(differences), len(differences)
    return {
        "a": a,
        "b": b,
        "difference": float(differences.mean()),
        "p_value": p_value,
        "test": test,
        "n": count,
        "verdict": "more than noise" if p_value < SIGNIFICANT else "no more than noise",
    }


# scipy.special's distribution functions: scipy.stats has the tests ready-made, and takes 45 MB to import.


def _mcnemar(a: Evaluation, b: Evaluation) -> float:
    """Two-sided exact p value: were a coin thrown for each image that only one gets right, how rarely so one-sided?"""
    from scipy.special import bdtr

    a_right, b_right = (run.predictions == run.labels for run in (a, b))
    only_a, only_b = int((a_right & ~b_right).sum()), int((b_right & ~a_right).sum())
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def _paired_t(differences: np.ndarray) -> float:
    """Two-sided p value of differences whose mean would be zero if there were none; certain where they never vary."""
    from scipy.special import stdtr

    if np.ptp(differences) == 0:
        return 1.0 if differences[0] == 0 else 0.0
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    return 2 * float(stdtr(len(differences) - 1, -abs(differences.mean()) / error))


def scores(evaluation: Evaluation) -> dict[str, float]:
    """Return the accuracies and the test loss, by the names they have in metrics.json."""
    names = ("test_accuracy", "train_subset_accuracy", "mean_accuracy", "test_loss")
    return {name: getattr(evaluation, name) for name in names}


def mean_and_std(runs: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return "mean" and "std", the sample standard deviation, of every number of at least two `runs` but the seed."""
    values = {key: np.array([run[key] for run in runs]) for key in runs[0] if key != "seed"}
    return {
        "mean": {key: float(value.mean()) for key, value in values.items()},
        "std": {key: float(value.std(ddof=1)) for key, value in values.items()},
    }
