"""What a trained network is worth: predictions, accuracies, confusion, per-class figures."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from fmnist.data import FashionMNIST
from fmnist.training import Learner, log_probabilities

SUBSET = 2000  # training images on which the training accuracy is measured


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
    def predictions(self) -> Predictions:
        """Those of the test images, without the images."""
        return Predictions(np.empty((len(self.labels), 0, 0), np.uint8), self.labels, self.probabilities)


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


def scores(evaluation: Evaluation) -> dict[str, float]:
    """Return the accuracies and the test loss, by the names they have in metrics.json."""
    names = ("test_accuracy", "train_subset_accuracy", "mean_accuracy", "test_loss")
    return {name: getattr(evaluation, name) for name in names}
