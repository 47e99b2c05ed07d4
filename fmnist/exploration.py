"""What there is to know of the data set before training: counts, pixel statistics, mean images, look-alikes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fmnist.audit import Audit, audit
from fmnist.data import CLASSES, FashionMNIST
from fmnist.metrics import ClassStatistics, FigureData, Statistics


class Exploration(NamedTuple):
    """The data set in numbers; pixels on the 0..1 scale, of the training images."""

    train_counts: np.ndarray  # int [10], images of each class
    test_counts: np.ndarray  # int [10]
    mean: float
    std: float
    class_means: np.ndarray  # [10], of all pixels of each class
    class_stds: np.ndarray  # [10]
    mean_images: np.ndarray  # [10, 28, 28], grey levels 0..255
    histogram: np.ndarray  # int [256], pixels of each grey level
    similarity: np.ndarray  # [10, 10], correlation of the mean images
    audit: Audit | None = None  # where one was asked for


def explore(dataset: FashionMNIST, judgements: Sequence[np.ndarray] = ()) -> Exploration:
    """Count and average the data set. A class without images has zeros throughout.

    It is audited too where there are `judgements`: see `fmnist.audit.audit`.
    """
    images, labels = dataset.train_images.cpu().numpy(), dataset.train_labels.cpu().numpy()
    classes = range(len(CLASSES))
    # Everything follows from how often each grey level occurs, so no copy in floating point is made of all the images.
    by_class = np.stack([np.bincount(images[labels == c].ravel(), minlength=256) for c in classes])
    mean_images = np.stack([_mean_image(images[labels == c]) for c in classes])
    mean, std = _moments(by_class.sum(axis=0))
    means, stds = zip(*map(_moments, by_class), strict=True)
    return Exploration(
        train_counts=np.bincount(labels, minlength=10),
        test_counts=np.bincount(dataset.test_labels.cpu().numpy(), minlength=10),
        mean=mean,
        std=std,
        class_means=np.array(means),
        class_stds=np.array(stds),
        mean_images=mean_images,
        histogram=by_class.sum(axis=0),
        similarity=_correlation(mean_images.reshape(len(mean_images), -1)),
        audit=audit(dataset, judgements) if len(judgements) else None,
    )


def statistics(exploration: Exploration) -> Statistics:
    """Return the statistics that metrics.json holds, by class where they belong to one."""
    others = np.where(np.eye(len(CLASSES), dtype=bool), -np.inf, exploration.similarity)
    rows: list[ClassStatistics] = [
        {
            "class": name,
            "training images": int(exploration.train_counts[c]),
            "test images": int(exploration.test_counts[c]),
            "pixel mean": float(exploration.class_means[c]),
            "pixel deviation": float(exploration.class_stds[c]),
            "nearest look-alike": CLASSES[others[c].argmax()],
            "correlation": float(others[c].max()),
        }
        for c, name in enumerate(CLASSES)
    ]
    return {"pixel mean": exploration.mean, "pixel deviation": exploration.std, "classes": rows}


def figure_data(exploration: Exploration) -> FigureData:
    """Return the rest of what the figures show."""
    return {
        "pixel_histogram": exploration.histogram.tolist(),
        "class_means": exploration.mean_images.round(2).reshape(len(CLASSES), -1).tolist(),
        "look_alikes": exploration.similarity.tolist(),
    }


def _mean_image(images: np.ndarray) -> np.ndarray:
    """The mean of uint8 [N, 28, 28]; black if there are none."""
    return images.mean(axis=0) if len(images) else np.zeros((28, 28))


def _moments(histogram: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation, on the 0..1 scale, of pixels that occur so often, int [256]; 0 if none does."""
    if not histogram.any():
        return 0.0, 0.0
    levels = np.arange(256) / 255
    mean = np.average(levels, weights=histogram)
    return float(mean), float(np.sqrt(np.average((levels - mean) ** 2, weights=histogram)))


def _correlation(rows: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each row with each other; 0 where a row is constant."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 0)
    return unit @ unit.T
