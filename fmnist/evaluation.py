"""How well a trained network performs: its predictions, accuracies, confusion matrix and per-class figures."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from fmnist.data import CLASSES, FashionMNIST
from fmnist.learners import Learner, log_probabilities
from fmnist.metrics import Calibration, PerClass

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
    """One network scored on the test images and on a subset of the training images; accuracies are fractions."""

    predictions: Predictions  # of the test images
    test_accuracy: float
    test_loss: float  # mean cross-entropy
    train_subset_accuracy: float
    mean_accuracy: float  # over the pooled test and subset images
    calibration: Calibration | None = None  # where validation images are held out
    mirrored_accuracy: float | None = None  # on test images scored together with their mirror images, if asked for

    @property
    def confusion(self) -> np.ndarray:
        """int [10, 10], test images by true class (rows) and predicted class (columns)."""
        from sklearn.metrics import confusion_matrix

        return confusion_matrix(self.predictions.labels, self.predictions.classes, labels=range(len(CLASSES)))

    @property
    def per_class(self) -> PerClass:
        """Precision, recall, F1 and support of each class; 0 for a class that is never predicted, or never occurs."""
        from sklearn.metrics import precision_recall_fscore_support

        classes = {"labels": range(len(CLASSES)), "zero_division": 0}
        columns = precision_recall_fscore_support(self.predictions.labels, self.predictions.classes, **classes)
        precision, recall, f1, support = (column.tolist() for column in columns)
        return {"precision": precision, "recall": recall, "f1": f1, "support": support}

    def classification_report(self) -> str:
        """The same and its averages, as scikit-learn lays them out for reading."""
        from sklearn.metrics import classification_report

        names = {"labels": range(len(CLASSES)), "target_names": CLASSES}
        labels, predicted = self.predictions.labels, self.predictions.classes
        return classification_report(labels, predicted, digits=4, zero_division=0, **names)


def evaluate(
    learner: Learner,
    dataset: FashionMNIST,
    train_indices: Tensor,
    validation_indices: Tensor | None = None,
    mirrored: bool = False,
) -> Evaluation:
    """Score `learner` once on the test images, and on the first 2,000 of the training images it has learnt from.

    `train_indices`, int64, are in the random order that `fmnist.data.training_data` has put them in by the seed; the
    images of `validation_indices`, where there are some, calibrate the probabilities. With `mirrored`, the accuracy of
    the mean of the probabilities of each test image and its mirror image is measured besides.
    """
    scores, labels = log_probabilities(learner, dataset.test_images).double(), dataset.test_labels.cpu()
    subset = train_indices[:SUBSET]
    subset_scores = log_probabilities(learner, dataset.train_images[subset])
    predictions = Predictions(dataset.test_images.cpu().numpy(), labels.numpy(), scores.exp().float().numpy())
    correct = int(predictions.correct.sum())
    subset_correct = int((subset_scores.argmax(dim=1) == dataset.train_labels[subset].cpu()).sum())
    is_held_out = validation_indices is not None and len(validation_indices) > 0
    return Evaluation(
        predictions=predictions,
        test_accuracy=correct / len(labels),
        test_loss=float(F.nll_loss(scores, labels)),
        train_subset_accuracy=subset_correct / len(subset),
        mean_accuracy=(correct + subset_correct) / (len(labels) + len(subset)),
        calibration=_calibration(learner, dataset, validation_indices, scores) if is_held_out else None,
        mirrored_accuracy=_mirrored_accuracy(learner, dataset, scores) if mirrored else None,
    )


def _mirrored_accuracy(learner: Learner, dataset: FashionMNIST, scores: Tensor) -> float:
    """The accuracy on test images together with their mirror images; `scores`, [T, 10], are those of the former."""
    together = scores.exp() + log_probabilities(learner, dataset.test_images.flip(-1)).double().exp()
    return float((together.argmax(dim=1) == dataset.test_labels.cpu()).double().mean())


def _calibration(learner: Learner, dataset: FashionMNIST, indices: Tensor, scores: Tensor) -> Calibration:
    """Calibrate by the validation images of these `indices` the log-probabilities [T, 10] of the test images."""
    from fmnist.calibration import calibrate

    held_out = log_probabilities(learner, dataset.train_images[indices]).double()
    return calibrate(
        (held_out.numpy(), dataset.train_labels[indices].cpu().numpy()),
        (scores.numpy(), dataset.test_labels.cpu().numpy()),
    )
