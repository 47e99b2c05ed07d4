"""What metrics.json and trial.json hold, as types. Accuracies are fractions, times are seconds.

Where a key is "NotRequired", it is missing wherever there is nothing to say: no file holds empty values.
"""

from typing import Any

from typing_extensions import NotRequired, TypedDict  # of typing from Python 3.11 on; comes with torch


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
    """What a network's author reports; what is not reported is missing."""

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


# Of the data set; pixels on the 0..1 scale.
ClassStatistics = TypedDict(
    "ClassStatistics",
    {
        "class": str,
        "training images": int,
        "test images": int,
        "pixel mean": float,
        "pixel deviation": float,  # the standard deviation
        "nearest look-alike": str,  # the class whose mean image correlates most with this one's
        "correlation": float,
    },
)
Statistics = TypedDict("Statistics", {"pixel mean": float, "pixel deviation": float, "classes": list[ClassStatistics]})


class FigureData(TypedDict, total=False):
    """What the figures of the data set show beyond the statistics."""

    pixel_histogram: list[int]  # [256], pixels of each grey level
    class_means: list[list[float]]  # [10][784], the mean images, grey levels 0..255
    look_alikes: list[list[float]]  # [10][10], correlation of the mean images


class Data(FigureData):
    """The data set; where the recipe explores it, also what its figures show."""

    source: str  # where it came from, in words


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
    data: Data
    statistics: NotRequired[Statistics]  # of the data set, where the recipe explores it
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
