"""What metrics.json holds, and how it is put together from what a run has trained."""

import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import NotRequired, TypedDict  # of typing from Python 3.11 on; comes with torch

if TYPE_CHECKING:
    import numpy as np

    from fmnist.config import Network, Recipe
    from fmnist.data import FashionMNIST
    from fmnist.device import Machine
    from fmnist.evaluation import Evaluation
    from fmnist.exploration import Exploration

LIBRARIES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "matplotlib", "seaborn")

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
    temperature: NotRequired[float]  # where validation images are held out: these three are those of Calibration
    ece: NotRequired[float]
    ece_after: NotRequired[float]
    mirrored_accuracy: NotRequired[float]  # on test images and their mirror images together, if it learnt from such


class Seed(Summary):
    """One of several trainings of a network."""

    seed: int
    epochs: list[Epoch]


class PublishedEpoch(TypedDict):
    """What a network's author reports of one epoch."""

    train_loss: float


class Published(TypedDict, total=False):
    """What a network's author reports, as far as he does."""

    parameters: int
    test_accuracy: float
    train_subset_accuracy: float
    mean_accuracy: float
    test_loss: float
    train_loss: float
    epochs: list[PublishedEpoch]  # the first ones


class Reproduction(TypedDict):
    """One published figure held against the measured ones; see `fmnist.statistics.reproduction`."""

    verdict: str  # "reproduced", "exceeded", "not reproduced", or such as "one seed: no verdict"
    n: int  # seeds
    low: NotRequired[float]  # the 95 % prediction interval for one more seed
    high: NotRequired[float]


class PerClass(TypedDict):
    """Scores of each of the ten classes, on the test images."""

    precision: list[float]
    recall: list[float]
    f1: list[float]
    support: list[int]  # test images of the class


class Reliability(TypedDict):
    """The test images by the probability of the predicted class, in bins of equal width; empty ones are left out."""

    confidence: list[float]  # that probability, the mean over the images of a bin
    accuracy: list[float]
    count: list[int]


class Calibration(TypedDict):
    """How far a network's probabilities can be believed; see `fmnist.calibration`."""

    temperature: float  # that the logits are divided by; fitted on the validation images
    validation_images: int
    ece: float  # expected calibration error on the test images, a fraction
    ece_after: float  # the same at this temperature
    nll: float  # mean cross-entropy on the test images
    nll_after: float
    bins: Reliability
    bins_after: Reliability


class Model(Summary):
    """One network: its first seed in full, and what several seeds made of it."""

    title: str
    change: str  # what distinguishes it from the network before it; may be empty
    why: str  # why that should help; may be empty
    published: Published
    reproduction: dict[str, Reproduction]  # by key of `published`, but for its epochs
    reproduced_epochs: list[dict[str, Reproduction]]  # the same of each of those
    parameters: int
    multiply_adds: int  # to score one image
    confusion: list[list[int]]  # [10][10], rows true, columns predicted
    per_class: PerClass
    config: dict[str, dict[str, Any]]  # "network" and "training": all that its weights follow from
    epochs: list[Epoch]
    varied: NotRequired[dict[str, Any]]  # of a study: the settings of this combination, and
    variant_of: NotRequired[str]  # the network of the recipe that has them
    calibration: NotRequired[Calibration]  # of the first seed, where validation images are held out
    mistakes: NotRequired["Mistakes"]  # of the first seed, where networks have judged the labels
    seeds: NotRequired[list[Seed]]  # the three together, where there are several seeds
    mean: NotRequired[Summary]
    std: NotRequired[Summary]  # sample standard deviations


class Comparison(TypedDict):
    """Network `b` against network `a`; see `fmnist.statistics`."""

    a: str
    b: str
    difference: float  # of test accuracies, b - a; the mean over the seeds
    differences: NotRequired[list[float]]  # for several seeds: of each
    interval: list[float]  # low and high, the 95 % confidence interval of `difference`; for one seed, on new images
    p_value: float
    test: str  # "McNemar" for one seed, "paired t" for several
    n: int  # test images, or seeds
    p_holm: float  # adjusted over the comparisons of the table: what the verdict goes by
    seeds_needed: NotRequired[int]  # for several seeds: those that would show `difference`; missing beyond 10,000
    verdict: str  # in words


class Study(TypedDict):
    """What a study varied, and what it found; see `fmnist.study_results`."""

    settings: dict[str, list[Any]]  # all values of each setting
    best: str  # the combination that is best on validation images, the mean over its seeds
    alike: list[str]  # those that no test tells from it or, where there is one, from the baseline
    baseline: NotRequired[str]  # the network as it was, where one thing at a time was changed


class Effect(TypedDict):
    """What one factor of a factorial does to the test accuracy, or how far several depend on each other.

    See `fmnist.statistics.factorial_effects`.
    """

    factors: list[str]  # one, or those that interact
    low: str  # the level of a single factor that counts as low: its first; of an interaction ""
    high: str
    effect: float  # mean over the high level less that over the low one, each over all levels of the other factors
    verdict: str  # in words
    interval: NotRequired[list[float]]  # low and high, the 95 % confidence interval; missing where nothing is an error
    degrees_of_freedom: NotRequired[int]  # of that error
    p_value: NotRequired[float]
    p_holm: NotRequired[float]  # adjusted over all effects of the table


class AuditedScore(TypedDict):
    """What networks make of images that they have not learnt from; of test images, the means over the networks."""

    accuracy: float
    mistakes: float
    mistakes_suspected: float  # those of them whose labels are suspect; to the other networks, if test images
    accuracy_without: float  # the accuracy where the suspect images are left out


class AuditedPart(AuditedScore):
    """The training or the test images whose labels look wrong; see `fmnist.audit`."""

    suspected: int
    indices: list[int]  # of each, beginning with the least believed
    labels: list[int]
    predicted: list[int]
    label_probabilities: list[float]


class Mistakes(TypedDict):
    """What a network gets wrong of the test images, and what networks of another kind think of those labels."""

    count: int
    suspected: int  # those of them whose labels look wrong; see `fmnist.audit`
    surest: list[int]  # the test images that it is surest of, the surest first
    surest_suspected: list[bool]


class AuditedPair(TypedDict):
    """Two images that are nearly the same."""

    images: list[str]  # such as "training 13360" and "test 4998"
    classes: list[str]
    distance: float  # root mean square difference of the pixels, in grey levels 0..255


class Audit(TypedDict):
    """The faults of the data set; see `fmnist.audit`."""

    training: AuditedPart
    test: AuditedPart
    identical_pairs: int
    near_pairs: int  # that look the same; the identical ones among them
    near_pairs_across: int  # those of them of a training and a test image
    pairs: list[AuditedPair]  # the nearest, the nearest first


class Metrics(TypedDict):
    """The content of metrics.json."""

    recipe: str
    title: str
    source: str  # author and repository of the published figures; may be empty
    seed: int  # the first one
    created: str  # when, in ISO 8601
    command: str  # by which command
    commit: str  # of which version of the program; may be empty
    processor: str
    device: str
    precision: str
    threads: int
    versions: dict[str, str]
    release: str  # of the data set: "current", "first", or "own" for the user's own
    data: dict[str, Any]  # "source", in words; of a recipe that explores also what its pictures show
    statistics: NotRequired[dict[str, Any]]  # of the data set, where the recipe explores it
    audit: NotRequired[Audit]  # of the data set, with --audit
    models: dict[str, Model]
    best: str | None  # the network that is best on validation images, where some are held out
    study: NotRequired[Study]  # where settings were varied; the comparisons are with its baseline, or else its best
    comparisons: list[Comparison]
    total_gain: NotRequired[Comparison]  # of the last network over the first, where each builds on the one before
    published_minimum: NotRequired[float]  # test accuracy that all networks surpass, as their author reports
    effects: list[Effect]  # of the factors of a full factorial; empty for other recipes
    columns: list[str]  # of the results table, besides those of every recipe
    notes: list[str]


class Record(TypedDict):
    """The content of trial.json: what is kept of one trial beside its predictions; see `fmnist.trials`."""

    format: int
    name: str  # of the network
    title: str
    recipe: str
    seed: int
    release: str  # of the data set
    settings: dict[str, dict[str, Any]]  # "network", "training", "machine" and "data": all that the rest follows from
    summary: Summary
    cost: dict[str, int]  # parameters, and multiply_adds of one image
    epochs: list[Epoch]
    calibration: NotRequired[Calibration]  # where validation images are held out


@dataclass(frozen=True)
class Trained:
    """What is kept of a network that was trained from one seed."""

    network: "Network"
    history: list[Epoch]
    best_epoch: int | None  # from 1; None where the last one was scored
    evaluation: "Evaluation"
    cost: dict[str, int]  # parameters, and multiply_adds of one image

    @property
    def summary(self) -> Summary:
        """The numbers that a table compares."""
        seconds = sum(epoch["seconds"] for epoch in self.history)
        summary: Summary = {
            "test_accuracy": self.evaluation.test_accuracy,
            "train_subset_accuracy": self.evaluation.train_subset_accuracy,
            "mean_accuracy": self.evaluation.mean_accuracy,
            "test_loss": self.evaluation.test_loss,
            "train_loss": self.history[-1]["train_loss"],
            "training_seconds": seconds,
            "seconds_per_epoch": seconds / len(self.history),
        }
        if self.best_epoch:
            summary["best_epoch"] = self.best_epoch
        if calibration := self.evaluation.calibration:
            summary |= {key: calibration[key] for key in ("temperature", "ece", "ece_after")}
        if self.evaluation.mirrored_accuracy is not None:
            summary["mirrored_accuracy"] = self.evaluation.mirrored_accuracy
        return summary

    @property
    def epochs(self) -> list[Epoch]:
        """The history, with a mark on the epoch that was chosen."""
        return [row | {"best": True} if n == self.best_epoch else row for n, row in enumerate(self.history, start=1)]


def collect(
    recipe: "Recipe",
    trained: dict[str, list[Trained]],
    dataset: "FashionMNIST",
    machine: "Machine",
    exploration: "Exploration | None",
    suspected: "np.ndarray | None" = None,
) -> Metrics:
    """Return the content of metrics.json for a run of `recipe`.

    `trained` holds each network's results, one per seed; `exploration` what is known of the data set, where the recipe
    explores it; `suspected` the indices of the test images whose labels look wrong, where networks have judged them.
    """
    from fmnist import audit, statistics, study_results  # with scipy.stats, a second: not before the first step

    evaluations = {name: [run.evaluation for run in runs] for name, runs in trained.items()}
    accuracies = [[evaluation.test_accuracy for evaluation in several] for several in evaluations.values()]
    judged = recipe.is_published and dataset.release == "current"  # else the figures are of another experiment
    models = {name: _model(runs, judged) for name, runs in trained.items()}
    best, pairs = best_kept(trained), recipe.pairs
    if recipe.study:
        best = study_results.best_on_validation(models)
        first = recipe.baseline or best
        pairs = [(first, other) for other in models if other != first]
    metrics: Metrics = {
        "recipe": recipe.name,
        "title": recipe.title,
        "source": recipe.source,
        "seed": min((run.network.training.seed for runs in trained.values() for run in runs), default=0),
        "device": machine.device.type,
        "precision": machine.precision,
        "threads": machine.threads,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        **_provenance(),
        **_about_data(dataset, exploration),
        "models": models,
        "best": best,
        "comparisons": statistics.compare(pairs, evaluations),
        "effects": statistics.factorial_effects(recipe.levels, accuracies),
        "columns": list(recipe.columns),
        "notes": [*recipe.notes, *(recipe.findings if dataset.release == "current" else ())],
    }
    if recipe.study:
        metrics["study"] = study_results.describe(recipe.study, best, recipe.baseline, metrics["comparisons"])
    if judged and recipe.published_minimum is not None:
        metrics["published_minimum"] = recipe.published_minimum
    if recipe.ends:
        (metrics["total_gain"],) = statistics.compare([recipe.ends], evaluations)
    if suspected is not None:
        for name, runs in trained.items():
            models[name]["mistakes"] = audit.surest_mistakes(runs[0].evaluation.predictions, suspected)
    return metrics


def _about_data(dataset: "FashionMNIST", exploration: "Exploration | None") -> dict[str, Any]:
    """Which data set it was, and what is known of it where the recipe explores it."""
    about: dict[str, Any] = {"release": dataset.release, "data": {"source": dataset.source}}
    if exploration is None:
        return about
    from fmnist import audit
    from fmnist.exploration import figure_data, statistics

    about["data"] |= figure_data(exploration)
    about["statistics"] = statistics(exploration)
    return about | {"audit": audit.summary(exploration.audit)} if exploration.audit else about


def _provenance() -> dict[str, str]:
    """When this run was, by which command, of which version of the program, on which processor."""
    from fmnist.device import processor

    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git, or a copy of the program without its history
        commit = ""
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": commit,
        "processor": processor(),
    }


def best_kept(trained: dict[str, list[Trained]]) -> str | None:
    """Return the network whose kept weights are best on validation images; None where none are held out.

    Of several seeds the first counts: its weights are the ones that are kept. The test images have no say in it.
    """
    chosen = {name: runs[0].history[epoch - 1] for name, runs in trained.items() if (epoch := runs[0].best_epoch)}
    return max(chosen, key=lambda name: chosen[name]["validation_accuracy"], default=None)


def _model(runs: list[Trained], judged: bool) -> Model:
    """One network's part: its first seed in full, what several seeds made of it, and verdicts on what is published."""
    from fmnist import statistics

    first, network = runs[0], runs[0].network
    seeds: list[Seed] = [{"seed": run.network.training.seed, **run.summary, "epochs": run.epochs} for run in runs]
    measured = {
        key: [seed.get(key, first.cost.get(key)) for seed in seeds]
        for key in network.published
        if judged and key != "epochs"
    }
    model: Model = {
        "title": network.title,
        "change": network.change,
        "why": network.why,
        "published": network.published,
        "reproduction": {
            key: statistics.reproduction(key, network.published[key], values) for key, values in measured.items()
        },
        "reproduced_epochs": _reproduced_epochs(network.published, seeds) if judged else [],
        **first.cost,
        **first.summary,
        "confusion": first.evaluation.confusion.tolist(),
        "per_class": first.evaluation.per_class,
        "config": network.settings,
        "epochs": first.epochs,
    }
    if network.varied:
        model |= {"varied": dict(network.varied), "variant_of": network.variant_of}
    if calibration := first.evaluation.calibration:
        model["calibration"] = calibration
    return model | {"seeds": seeds, **statistics.mean_and_std(seeds)} if len(runs) > 1 else model


def _reproduced_epochs(published: Published, seeds: list[Seed]) -> "list[dict[str, Reproduction]]":
    """Verdicts on the figures of single epochs that every seed was trained for."""
    from fmnist import statistics

    epochs = zip(published.get("epochs", []), *(seed["epochs"] for seed in seeds), strict=False)
    return [
        {key: statistics.reproduction(key, figure[key], [epoch[key] for epoch in measured]) for key in figure}
        for figure, *measured in epochs
    ]
