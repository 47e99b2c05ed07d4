"""The numbers of a run, put together: what becomes metrics.json, and what the tables and figures show."""

import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypedDict

import torch
from typing_extensions import NotRequired  # of typing from Python 3.11 on; comes with torch

from fmnist.evaluation import Evaluation, compare, mean_and_std, scores
from fmnist.exploration import Exploration, drawn, statistics
from fmnist.training import best_epoch

LIBRARIES = ("torch", "torchvision", "numpy", "scipy", "matplotlib")


# What metrics.json holds. Accuracies are fractions, times are seconds. Where a key is "NotRequired", it is missing
# wherever there is nothing to say: no file holds empty values.


class Epoch(TypedDict):
    """One epoch of a training."""

    train_loss: float  # mean over the epoch, weighted by images
    train_accuracy: float
    train_loss_by_step: list[float]  # means over up to 20 equal parts of the epoch
    steps: int
    seconds: float
    images_per_second: float
    validation_loss: NotRequired[float]  # where validation images are held out
    validation_accuracy: NotRequired[float]
    best: NotRequired[bool]  # on the epoch whose weights are scored, where validation images choose it


class Summary(TypedDict):
    """What a table compares of one network trained from one seed; also the means, and the standard deviations, of
    several."""

    test_accuracy: float
    train_subset_accuracy: float
    mean_accuracy: float  # over the test images and the subset of the training images, pooled
    test_loss: float
    train_loss: float  # of the last epoch
    training_seconds: float
    seconds_per_epoch: float
    best_epoch: NotRequired[float]  # where validation images choose it; whole but for means


class Seed(Summary):
    """One of several trainings of a network."""

    seed: int
    epochs: list[Epoch]


class Published(TypedDict, total=False):
    """What a network's author reports, as far as he does."""

    parameters: int
    test_accuracy: float
    train_subset_accuracy: float
    mean_accuracy: float
    test_loss: float
    train_loss: float


class Reproduction(TypedDict):
    """One published figure held against the measured ones; see `fmnist.statistics.reproduction`."""

    verdict: str  # "reproduced", "exceeded", "not reproduced", or "one seed: no verdict"
    n: int  # seeds
    low: NotRequired[float]  # the 95 % prediction interval for one more seed
    high: NotRequired[float]


class PerClass(TypedDict):
    """Scores of each of the ten classes, on the test images."""

    precision: list[float]
    recall: list[float]
    f1: list[float]
    support: list[int]  # test images of the class


class Model(Summary):
    """One network: its first seed in full, and what several seeds made of it."""

    title: str
    change: str  # what distinguishes it from the network before it; may be empty
    published: Published
    reproduction: dict[str, Reproduction]  # by key of `published`
    parameters: int
    multiply_adds: int  # to score one image
    confusion: list[list[int]]  # [10][10], rows true, columns predicted
    per_class: PerClass
    config: dict[str, dict[str, Any]]  # "network" and "training": all that its weights follow from
    epochs: list[Epoch]
    seeds: NotRequired[list[Seed]]  # the three together, where there are several seeds
    mean: NotRequired[Summary]
    std: NotRequired[Summary]  # sample standard deviations


class Comparison(TypedDict):
    """Network `b` against network `a`; see `fmnist.statistics`."""

    a: str
    b: str
    difference: float  # of test accuracies, b - a; the mean over the seeds
    p_value: float
    test: str  # "McNemar" for one seed, "paired t" for several
    n: int  # test images, or seeds
    verdict: str  # in words


class Metrics(TypedDict):
    """The content of metrics.json."""

    recipe: str
    title: str
    source: str  # author and repository of the published figures; may be empty
    seed: int  # the first one
    device: str
    precision: str
    threads: int
    versions: dict[str, str]
    data: dict[str, Any]  # "source", in words; of a recipe that explores also what its pictures show
    statistics: NotRequired[dict[str, Any]]  # of the data set, where the recipe explores it
    models: dict[str, Model]
    best: str | None  # the network that is best on validation images, where some are held out
    comparisons: list[Comparison]
    columns: list[str]  # of the results table, besides those of every recipe
    notes: list[str]
    created: NotRequired[str]  # ISO 8601
    command: NotRequired[str]
    commit: NotRequired[str]  # of this program
    processor: NotRequired[str]
    release: NotRequired[str]  # of the data set: "current", "first" or "own"


@dataclass(frozen=True)
class Trained:
    """What is kept of a network (a recipes.Network) that was trained from one seed."""

    network: Any
    history: list[dict[str, Any]]  # numbers of each epoch
    evaluation: Evaluation
    cost: dict[str, int]  # parameters, and multiply_adds of one image

    @property
    def best_epoch(self) -> int | None:
        """The epoch, from 1, that was chosen on validation images; None where none were held out."""
        return best_epoch(self.history) if "validation_accuracy" in self.history[-1] else None

    @property
    def summary(self) -> dict[str, float]:
        """The numbers that a table compares."""
        seconds = sum(epoch["seconds"] for epoch in self.history)
        return {
            **scores(self.evaluation),
            "train_loss": self.history[-1]["train_loss"],
            "training_seconds": seconds,
            "seconds_per_epoch": seconds / len(self.history),
            **({"best_epoch": self.best_epoch} if self.best_epoch else {}),
        }


def collect(
    recipe: Any,
    trained: dict[str, list[Trained]],
    found: Exploration | None,
    source: str,
    machine: dict[str, str],
) -> dict[str, Any]:
    """Return the content of metrics.json for a run of `recipe` (a recipes.Recipe).

    `trained` holds each network's results, one per seed; `found` what is known of the data set, where the recipe
    explores it; `source` says where it came from; `machine` names device and precision.
    """
    evaluations = {name: [result.evaluation for result in runs] for name, runs in trained.items()}
    return {
        "recipe": recipe.name,
        "title": recipe.title,
        "source": recipe.source,
        "seed": min((run.network.training.seed for runs in trained.values() for run in runs), default=0),
        **machine,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        "data": {"source": source, **(drawn(found) if found else {})},
        **({"statistics": statistics(found)} if found else {}),
        "models": {name: _model(runs) for name, runs in trained.items()},
        "best": best_on_validation(trained),
        "comparisons": [compare(a, b, evaluations) for a, b in recipe.pairs],
        "columns": list(recipe.columns),
        "notes": list(recipe.notes),
    }


def best_on_validation(trained: dict[str, list[Trained]]) -> str | None:
    """Return the network with the highest validation accuracy in its best epoch; None without a validation split.

    Of several seeds the first counts: its weights are the ones that are kept. The test images have no say in it.
    """
    chosen = {name: runs[0].history[epoch - 1] for name, runs in trained.items() if (epoch := runs[0].best_epoch)}
    return max(chosen, key=lambda name: chosen[name]["validation_accuracy"], default=None)


def _model(runs: list[Trained]) -> dict[str, Any]:
    """One network's part: its first run in full, and what several seeds made of it."""
    first, network = runs[0], runs[0].network
    several = [{"seed": run.network.training.seed, **run.summary} for run in runs]
    with_epochs = [row | {"epochs": run.history} for row, run in zip(several, runs, strict=True)]
    return {
        "title": network.title,
        "change": network.change,
        "published": network.published,
        "reproduction": {},
        **first.cost,
        **first.summary,
        "confusion": first.evaluation.confusion.tolist(),
        "per_class": {**first.evaluation.per_class, "support": first.evaluation.confusion.sum(axis=1).tolist()},
        "config": network.settings,
        "epochs": [row | {"best": True} if n == first.best_epoch else row for n, row in enumerate(first.history, 1)],
        **({"seeds": with_epochs, **mean_and_std(several)} if len(runs) > 1 else {}),
    }
