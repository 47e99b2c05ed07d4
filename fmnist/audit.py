"""The data set's own faults: labels that look wrong, and near-duplicate images.

Labels by confident learning (Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset
Labels", Journal of Artificial Intelligence Research 70, 2021), from the probabilities of networks that have not learnt
from the images they judge: of five, each is trained on four fifths of the training images.
"""

from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fmnist import metrics
from fmnist.data import CLASSES, FashionMNIST, part_indices

if TYPE_CHECKING:
    from fmnist.evaluation import Predictions

SUREST = 40  # mistakes that are shown
PAIRS = 200  # the nearest ones, which are looked for
NEAR = 5.0  # grey levels, root mean square: pairs that differ by less look the same
BLOCK = 2000  # images at once: 4,000,000 distances, in 16 MB
CHUNK = 10_000  # pairs whose distances are computed exactly at once
ROUNDING = 1e-5  # of a squared distance in single precision, relative to the squared lengths it is the difference of


class Suspects(NamedTuple):
    """Images whose labels look wrong, beginning with those that the networks believe least."""

    indices: np.ndarray  # int64 [S], among the training or the test images
    images: np.ndarray  # uint8 [S, 28, 28]
    labels: np.ndarray  # int64 [S]
    predicted: np.ndarray  # int64 [S], the likeliest class
    probabilities: np.ndarray  # float [S, 2], of the label and of the likeliest class


class Pairs(NamedTuple):
    """Pairs of images that are nearly the same, beginning with the nearest, among training and test images."""

    indices: np.ndarray  # int64 [P, 2], among those images of the set
    is_test: np.ndarray  # bool [P, 2], whether they are test images
    images: np.ndarray  # uint8 [P, 2, 28, 28]
    labels: np.ndarray  # int64 [P, 2]
    distances: np.ndarray  # float [P], root mean square difference of the pixels, in grey levels 0..255


class Audit(NamedTuple):
    """What looks wrong in the data set, and what the networks that judge it get wrong."""

    train: Suspects
    test: Suspects
    pairs: Pairs
    train_score: metrics.AuditedScore
    test_score: metrics.AuditedScore


def audit(dataset: FashionMNIST, probabilities: Sequence[np.ndarray]) -> Audit:
    """Put together what networks, one for each part, make of the training images of that part and of the test images.

    `probabilities` has float [P + T, 10] of each, for the test images of its `fmnist.data.without_part`.
    """
    train_labels, test_labels = dataset.train_labels.cpu().numpy(), dataset.test_labels.cpu().numpy()
    train = np.empty((len(train_labels), len(CLASSES)))
    for part, own in enumerate(probabilities):
        indices = part_indices(len(train), part).numpy()
        train[indices] = own[: len(indices)]
    test = np.stack([own[-len(test_labels) :] for own in probabilities]).astype(float)
    suspected = find_suspects(train, train_labels), suspected_tests(dataset, probabilities)
    return Audit(
        train=_described(suspected[0], train, dataset.train_images, train_labels),
        test=_described(suspected[1], test.mean(axis=0), dataset.test_images, test_labels),
        pairs=_nearest_pairs(dataset),
        train_score=score(train, train_labels, suspected[0]),
        test_score=_cross_score(test, test_labels),
    )


def summary(audited: Audit) -> metrics.Audit:
    """Return what metrics.json holds of an audit."""
    pairs = audited.pairs
    near = pairs.distances < NEAR
    across = near & (pairs.is_test[:, 0] != pairs.is_test[:, 1])
    return {
        "training": _part(audited.train, audited.train_score),
        "test": _part(audited.test, audited.test_score),
        "identical_pairs": int((pairs.distances == 0).sum()),
        "near_pairs": int(near.sum()),
        "near_pairs_across": int(across.sum()),
        "pairs": [
            {"images": names, "classes": [CLASSES[label] for label in labels], "distance": float(distance)}
            for names, labels, distance in zip(pair_names(pairs), pairs.labels, pairs.distances, strict=True)
        ],
    }


def pair_names(pairs: Pairs) -> list[list[str]]:
    """Such as ["training 13360", "test 4998"], for each of the pairs."""
    places = zip(pairs.indices.tolist(), pairs.is_test.tolist(), strict=True)
    return [[f"{'test' if test else 'training'} {n}" for n, test in zip(*place, strict=True)] for place in places]


def _part(suspects: Suspects, scored: metrics.AuditedScore) -> metrics.AuditedPart:
    return {
        "suspected": len(suspects.indices),
        "indices": suspects.indices.tolist(),
        "labels": suspects.labels.tolist(),
        "predicted": suspects.predicted.tolist(),
        "label_probabilities": suspects.probabilities[:, 0].tolist(),
        **scored,
    }


# Labels that look wrong


def confident_joint(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Count images by their label (rows) and by the class that they surely are (columns): int [10, 10].

    An image surely is the likeliest of those classes whose probability, float [N, 10], is at least what it is on
    average for the images with that label; where there is none, it is not counted. Equations 1 and 2 of the paper.
    """
    counts = np.bincount(labels, minlength=len(CLASSES))
    believed = np.bincount(labels, probabilities[np.arange(len(labels)), labels], minlength=len(CLASSES))
    threshold = np.divide(believed, counts, out=np.full(len(CLASSES), np.inf), where=counts > 0)
    sure = probabilities >= threshold
    likeliest, counted = np.where(sure, probabilities, -1).argmax(axis=1), sure.any(axis=1)
    joint = np.zeros((len(CLASSES), len(CLASSES)), int)
    np.add.at(joint, (labels[counted], likeliest[counted]), 1)
    return joint


def wrong_labels(joint: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return how many images of each label have a wrong one: int [10]. After equation 3, which scales the joint."""
    sums = joint.sum(axis=1)
    elsewhere = (sums - joint.diagonal()) * np.bincount(labels, minlength=len(joint))
    return np.divide(elsewhere, sums, out=np.zeros(len(joint)), where=sums > 0).round().astype(int)


def find_suspects(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the indices of the images whose `labels`, int [N], look wrong, beginning with the least believed.

    Of each class as many as the confident joint says, those whose label has the lowest of the `probabilities`, float
    [N, 10], of networks that have not learnt from them: "prune by class", section 3.2.
    """
    believed = probabilities[np.arange(len(labels)), labels]
    order, wrong = np.argsort(believed, kind="stable"), wrong_labels(confident_joint(probabilities, labels), labels)
    chosen = [order[labels[order] == label][:count] for label, count in enumerate(wrong)]
    suspects = np.concatenate(chosen)
    return suspects[np.argsort(believed[suspects], kind="stable")]


def suspected_tests(dataset: FashionMNIST, probabilities: Sequence[np.ndarray]) -> np.ndarray:
    """Return the indices of the test images whose labels look wrong; `probabilities` are those that `audit` takes."""
    labels = dataset.test_labels.cpu().numpy()
    return find_suspects(np.mean([own[-len(labels) :] for own in probabilities], axis=0, dtype=float), labels)


def surest_mistakes(predictions: "Predictions", suspected: np.ndarray) -> metrics.Mistakes:
    """Return which mistakes a network is surest of, and which of them are images whose label is `suspected`."""
    mistakes = np.flatnonzero(~predictions.correct)
    believed = predictions.probabilities[mistakes].max(axis=1, initial=0)
    surest = mistakes[np.argsort(-believed, kind="stable")][:SUREST]
    return {
        "count": len(mistakes),
        "suspected": int(np.isin(mistakes, suspected).sum()),
        "surest": surest.tolist(),
        "surest_suspected": np.isin(surest, suspected).tolist(),
    }


def score(probabilities: np.ndarray, labels: np.ndarray, suspects: np.ndarray) -> metrics.AuditedScore:
    """Return what the images [N] that networks get wrong have to do with those whose labels are suspect."""
    wrong = probabilities.argmax(axis=1) != labels
    trusted = np.ones(len(labels), bool)
    trusted[suspects] = False
    return {
        "accuracy": float(1 - wrong.mean()),
        "mistakes": float(wrong.sum()),
        "mistakes_suspected": float((wrong & ~trusted).sum()),
        "accuracy_without": float(1 - wrong[trusted].mean()) if trusted.any() else 0.0,
    }


def _cross_score(probabilities: np.ndarray, labels: np.ndarray) -> metrics.AuditedScore:
    """The mean over networks, [K, T, 10], of what each gets wrong of the images that the others suspect.

    Its own judgement is left out: whatever a network gets wrong is suspect to it.
    """
    scores = []
    for k, own in enumerate(probabilities):
        others = np.delete(probabilities, k, axis=0).mean(axis=0)
        scores.append(score(own, labels, find_suspects(others, labels)))
    return {key: float(np.mean([one[key] for one in scores])) for key in scores[0]}


def _described(suspects: np.ndarray, probabilities: np.ndarray, images: Tensor, labels: np.ndarray) -> Suspects:
    """The suspects with all that is shown of them."""
    own, labels = probabilities[suspects], labels[suspects]
    beliefs = np.stack([own[np.arange(len(own)), labels], own.max(axis=1)], axis=1)
    return Suspects(suspects, images[torch.from_numpy(suspects)].cpu().numpy(), labels, own.argmax(axis=1), beliefs)


# Images that come twice


def nearest_pairs(images: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` nearest pairs of uint8 images [N, 28, 28], int64 [P, 2], and their squared distances [P].

    All pairs are looked at in blocks, by a matrix product of the images' means over 4 x 4 pixels: 16 times their
    squared distance is no more than that of the pixels, so that few pairs are left to be computed exactly.
    """
    means = 4 * functional.avg_pool2d(images[:, None].float(), 4).flatten(1)  # the factor is the root of that 16
    lengths = means.square().sum(dim=1)
    nearest = torch.empty(0, 2, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    for first, second in combinations_with_replacement(range(0, len(images), BLOCK), 2):
        rows, columns = slice(first, first + BLOCK), slice(second, second + BLOCK)
        sums = (1 - ROUNDING) * (lengths[rows, None] + lengths[columns])
        least = torch.addmm(sums, means[rows], means[columns].T, alpha=-2)
        if first == second:
            least.masked_fill_(torch.ones_like(least, dtype=torch.bool).tril(), torch.inf)
        nearest = _merged(nearest, images, least, (first, second), count)
    return nearest


def _merged(
    nearest: tuple[Tensor, Tensor], images: Tensor, least: Tensor, corner: tuple[int, int], count: int
) -> tuple[Tensor, Tensor]:
    """The `nearest` pairs with those of a block at this `corner`, whose squared distances are at `least` so much."""

    def farthest() -> float:
        return float(nearest[1][-1]) if len(nearest[1]) == count else torch.finfo(torch.float32).max

    flat = least.flatten()
    candidates = (flat <= farthest()).nonzero()[:, 0]
    candidates = candidates[flat[candidates].argsort(stable=True)]
    for part in candidates.split(CHUNK):
        if not len(part) or flat[part[0]] > farthest():
            break
        pairs = torch.stack([part // least.shape[1] + corner[0], part % least.shape[1] + corner[1]], dim=1)
        exact = (images[pairs[:, 0]].int() - images[pairs[:, 1]].int()).square().sum(dim=(1, 2))
        pairs, distances = torch.cat([nearest[0], pairs]), torch.cat([nearest[1], exact])
        order = distances.argsort(stable=True)[:count]
        nearest = pairs[order], distances[order]
    return nearest


def _nearest_pairs(dataset: FashionMNIST) -> Pairs:
    """The nearest pairs among training and test images."""
    images = torch.cat([dataset.train_images, dataset.test_images]).cpu()
    labels = torch.cat([dataset.train_labels, dataset.test_labels]).cpu()
    pairs, squares = nearest_pairs(images, PAIRS)
    is_test = pairs >= len(dataset.train_images)
    indices = torch.where(is_test, pairs - len(dataset.train_images), pairs)
    distances = (squares / images[0].numel()).sqrt()
    return Pairs(*(values.numpy() for values in (indices, is_test, images[pairs], labels[pairs], distances)))
