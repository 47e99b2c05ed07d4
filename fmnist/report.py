"""The results table with its verdicts and notes, and what --list says of the recipes.

Made from the content of metrics.json. Imports nothing heavy, for --list's sake.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

from fmnist.config import REPRODUCTION_SEEDS, TrainConfig
from fmnist.errors import at_most
from fmnist.files import plain
from fmnist.study_results import change, combinations

if TYPE_CHECKING:
    from fmnist.config import Network, Recipe
    from fmnist.metrics import AuditedScore, Comparison, Effect, Metrics, Model, Study
    from fmnist.study_results import Combination, Spread

REFERENCE = Path(__file__).resolve().parents[1] / "outputs" / "reference"  # whole runs that come with the program

NOTHING = "-"  # a cell without a value


# --list


def listing(recipes: "Iterable[Recipe]") -> str:
    """Return what --list prints: the recipes, their networks, what was published of them and what was measured."""
    return "\n\n".join(_recipe_block(recipe, reference_run(REFERENCE / recipe.name)) for recipe in recipes)


def reference_run(folder: Path) -> "Metrics | None":
    """Return the metrics.json of the whole run in `folder`; None where there is none."""
    try:
        return json.loads((folder / "metrics.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None


def changes_since(run: "Metrics", recipe: "Recipe") -> list[str]:
    """What of `recipe` has changed since `run`, in words: such as "v1: conv_dropout was not set, is 0.1"."""
    if run["models"].keys() != {network.name for network in recipe.networks}:
        return [f"the networks were {', '.join(run['models'])}"]
    models = [(network, run["models"][network.name]) for network in recipe.networks]
    return [change for network, model in models for change in changes_of_network(network, model["config"])]


def changes_of_network(network: "Network", config: "Mapping[str, Mapping[str, Any]]") -> list[str]:
    """What of `network` is not as it was in the `config` of a run.

    A training setting that was not there yet had its default; one that is no longer there is not asked about.
    """
    now, then, training = network.settings, config["network"], asdict(TrainConfig()) | config["training"]
    pairs = [(now["network"], then), (now["training"], {key: training[key] for key in now["training"]})]
    return [
        f"{network.name}: {key} was {then.get(key, 'not set')}, is {now.get(key, 'not set')}"
        for now, then in pairs
        for key in sorted(now.keys() | then.keys())
        if now.get(key) != then.get(key)
    ]


def _recipe_block(recipe: "Recipe", reference: "Metrics | None") -> str:
    measured = reference["models"] if reference else {}
    lines = [f"{recipe.name}: {recipe.title}", recipe.summary]
    if recipe.source:
        lines.append(f"published by {recipe.source}")
    if measured:
        minutes = sum(mean_of(model, "training_seconds") for model in measured.values()) / 60
        lines.append(f"trained once in {minutes:.1f} minutes on {reference['device']} in {reference['precision']}")
        if changes := changes_since(reference, recipe):
            lines.append(f"measured before the recipe changed: {'; '.join(changes)}")
    lines += [_network_line(network, measured.get(network.name)) for network in recipe.networks]
    return "\n    ".join([*lines, *recipe.notes])


def _network_line(network: "Network", model: "Model | None") -> str:
    published = cell(network.published.get("test_accuracy"), _percent)
    measured = accuracy_text(model) if model else NOTHING
    name = f"{network.name:<12} {network.title:<24} {network.training.epochs:>3} epochs"
    return f"{name}   test accuracy: {published:>5} published, {measured:>5} measured"


# The results table


class Column(NamedTuple):
    """One column of a table, as text: its header, what it holds, and its cells."""

    header: str
    kind: str  # "name", "measured", "published", "difference"; in a study's table "setting" and "number" as well
    cells: list[str]


@dataclass(frozen=True)
class Measure:
    """A number of metrics.json that has a column of its own, with the published figure beside it."""

    key: str
    header: str
    name: str  # in a sentence
    write: Callable[[float], str]
    if_published: bool = False  # shown only where some network has a published figure
    if_asked: bool = False  # shown only where the recipe names it


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"


def _points(difference: float) -> str:
    return f"{100 * difference:+.2f}"


def _epoch(number: float) -> str:
    return f"{number:,.0f}" if number == round(number) else f"{number:,.1f}"  # a mean


MEASURES = (
    Measure("parameters", "Parameters", "parameters", "{:,.0f}".format),
    Measure("multiply_adds", "Multiply-adds", "multiply-adds", "{:,.0f}".format, if_asked=True),
    Measure("test_accuracy", "Test %", "test accuracy", _percent),
    Measure("train_subset_accuracy", "Train % (2,000 images)", "train accuracy (2,000 images)", _percent),
    Measure("mean_accuracy", "Pooled %", "pooled accuracy", _percent),
    Measure("test_loss", "Test loss", "test loss", "{:.4f}".format),
    Measure("train_loss", "Train loss", "train loss", "{:.4f}".format, if_published=True),
    Measure("best_epoch", "Epoch", "epoch", _epoch),
    Measure("seconds_per_epoch", "Seconds/epoch", "seconds per epoch", "{:,.1f}".format, if_asked=True),
    Measure("training_seconds", "Seconds", "seconds", "{:,.1f}".format),
)

OPTIMIZER = "optimizer"  # a column too, of words, where the recipe names it

LEGEND = {
    "Optimizer": "Optimizer: and its learning rate; the loss is the cross-entropy.",
    "points": "Points: measured minus published test accuracy.",
    "Pooled %": "Pooled: accuracy over the test images and those 2,000 training images together.",
    "Train loss": "Train loss: of the last epoch.",
    "Epoch": "Epoch: the best on the validation images, whose weights are scored.",
    "Multiply-adds": "Multiply-adds: to score one image.",
    "Seconds": "Seconds: of training.",
    "Validation %": "Validation: accuracy on the images held out from the training, at the epoch whose weights were "
    "scored; it alone selects.",
    "Points": "Points: test accuracy less that of the best on validation, or of the baseline where there is one, with "
    "the interval of each row by itself.",
    "p": "p: how often chance alone would make so large a difference, adjusted by Holm's method over all comparisons "
    "of the table: so a row whose own interval leaves out 0 may still not be told apart.",
    "To tell": "To tell: about so many seeds would show a difference of that size, in four studies of five.",
    "Effect": "Effect: in points of test accuracy, of one value in place of the other, averaged over the other "
    "factors; of an interaction, half the difference between one factor's effects at the two values of the other. "
    "Intervals and tests rest on the variance between seeds; with one seed, on the interactions, taken for noise.",
    "Seeds": f"±: standard deviation over the seeds. From {REPRODUCTION_SEEDS} seeds, a published figure is reproduced "
    "if it lies in the 95 % prediction interval for one more, and exceeded if measured ones are better than that.",
}
WARNINGS = {  # by release of the data set
    "first": "Warning: measured on the first release of the data set, whose test images are partly today's training "
    "images; accuracies are not comparable",
    "own": "Warning: measured on a data set of your own; accuracies are not comparable",
}
HEADERS = {"pixel deviation": "pixel standard deviation"}  # of the data set's statistics, where not as in metrics.json
CLASS_COUNT = 10
MOST_NAMED = 8  # combinations of a study, in a sentence
TOO_FEW_SEEDS = (
    f"Fewer than {REPRODUCTION_SEEDS} seeds: no verdict on the published figures (--seeds {REPRODUCTION_SEEDS})"
)


def results_table(metrics: "Metrics") -> str:
    """Return the results as Markdown that reads well in a terminal: a row per network, comparisons, notes.

    Accuracies in per cent, published figures in the column after the measured one, differences in points.
    """
    metrics = plain(metrics)
    columns = results_columns(metrics)
    facts, rows = statistics_columns(metrics)
    listed = [f"{name}: {value}" for name, value in facts], [*release_warnings(metrics), *remarks(metrics)]
    facts, below = ("\n".join(f"- {' '.join(line.split())}" for line in lines) for lines in listed)
    effects = effects_columns(metrics)
    tables = (markdown(columns), " ".join(legend(columns)), markdown(effects), " ".join(legend(effects)))
    parts = (*tables, facts, markdown(rows), below)
    return "\n\n".join(filter(None, parts))


def results_columns(metrics: "Metrics") -> list[Column]:
    """The columns of the results table, with a cell per network; none where no network was trained."""
    if "study" in metrics:
        return study_columns(metrics)
    models = list(metrics["models"].values())
    if not models:
        return []
    columns = [Column("Network", "name", [model["title"] for model in models])]
    if OPTIMIZER in metrics["columns"]:
        columns.append(Column("Optimizer", "setting", [_optimizer(model) for model in models]))
    for measure in MEASURES:
        if measure.key in metrics["columns"] or not measure.if_asked:
            columns += _measured_and_published(measure, models)
    if any("seeds" in model for model in models):
        columns.append(Column("Seeds", "measured", [str(seed_count(model)) for model in models]))
    return columns


def _optimizer(model: "Model") -> str:
    """Such as "adam, 0.001"."""
    training = model["config"]["training"]
    return f"{training['optimizer']}, {training['lr']:g}"


def effects_columns(metrics: "Metrics") -> list[Column]:
    """The columns of the table of main effects and interactions; none where the recipe is no full factorial."""
    effects = metrics["effects"]
    if not effects:
        return []
    cells = {
        "difference": [_points(effect["effect"]) for effect in effects],
        "95 % interval": [_interval(effect.get("interval")) for effect in effects],
        "verdict": [effect["verdict"] for effect in effects],
    }
    names = Column("Effect", "name", [effect_name(effect) for effect in effects])
    return [names, *(Column(header, "measured", texts) for header, texts in cells.items())]


def effect_name(effect: "Effect") -> str:
    """Such as "activation: leaky_relu for relu", or "activation x pool" of an interaction."""
    if len(effect["factors"]) == 1:
        return f"{effect['factors'][0]}: {effect['high']} for {effect['low']}"
    return " x ".join(effect["factors"])


def _interval(interval: Sequence[float] | None) -> str:
    return NOTHING if interval is None else f"{_points(interval[0])} to {_points(interval[1])}"


def _measured_and_published(measure: Measure, models: "Sequence[Model]") -> list[Column]:
    measured = [mean_of(model, measure.key) for model in models]
    published = [model["published"].get(measure.key) for model in models]
    is_published = any(value is not None for value in published)
    if not is_published and (measure.if_published or all(value is None for value in measured)):
        return []
    columns = [Column(measure.header, "measured", [_with_std(model, measure.key, measure.write) for model in models])]
    if is_published:
        columns.append(Column("published", "published", [cell(value, measure.write) for value in published]))
    if is_published and measure.key == "test_accuracy":
        pairs = zip(measured, published, strict=True)
        gaps = [None if None in pair else pair[0] - pair[1] for pair in pairs]
        columns.append(Column("points", "difference", [cell(gap, _points) for gap in gaps]))
    return columns


def mean_of(model: "Model", key: str) -> float | None:
    """A number of a network, the mean over its seeds if there are several; None if it has none, or none finite."""
    return {**model, **model.get("mean", {})}.get(key)


def std_of(model: "Model", key: str) -> float | None:
    """Its standard deviation over the seeds; None of one seed."""
    return model.get("std", {}).get(key)


def _with_std(model: "Model", key: str, write: Callable[[float], str]) -> str:
    measured, std = mean_of(model, key), std_of(model, key)
    return cell(measured, write) if std is None else f"{write(measured)} ± {write(std)}"


def accuracy_text(model: "Model") -> str:
    """The test accuracy in per cent, with the standard deviation over the seeds if there are several."""
    return _with_std(model, "test_accuracy", _percent)


def seed_count(model: "Model") -> int:
    return len(model["seeds"]) if "seeds" in model else 1


def cell(value: float | None, write: Callable[[float], str]) -> str:
    return NOTHING if value is None else write(value)


def legend(columns: Iterable[Column]) -> list[str]:
    headers = {column.header for column in columns}
    return [words for header, words in LEGEND.items() if header in headers]


def remarks(metrics: "Metrics") -> list[str]:
    """What stands below the table, a line each: what the numbers are of, verdicts, changes, comparisons, notes."""
    if "study" in metrics:
        return [*study_remarks(metrics), *_smoothed(metrics), *map(str, metrics["notes"])]
    source = [f"Published figures: {metrics['source']}"] if metrics["source"] else []
    comparisons = [comparison_in_words(metrics, comparison) for comparison in metrics["comparisons"]]
    return [
        *_kept(metrics),
        *_reproductions(metrics),
        *_minimum(metrics),
        *_changes(metrics),
        *comparisons,
        *_smoothed(metrics),
        *_calibrations(metrics),
        *_mirrored(metrics),
        *_mistakes(metrics),
        *_audit(metrics),
        *source,
        *map(str, metrics["notes"]),
    ]


def looked_into(metrics: "Metrics") -> list[str]:
    """The networks that are looked into one by one: of a study the best on validation alone."""
    return [metrics["study"]["best"]] if "study" in metrics else list(metrics["models"])


def release_warnings(metrics: "Metrics") -> list[str]:
    return [WARNINGS[metrics["release"]]] if metrics["release"] in WARNINGS else []


def _kept(metrics: "Metrics") -> list[str]:
    """Of which seed are the weights and what is drawn of one network."""
    kept = [f"{model['title']} {first_seed(model)}" for model in metrics["models"].values() if "seeds" in model]
    return [f"Weights kept, confusion matrices and images: {'; '.join(kept)}"] if kept else []


def first_seed(model: "Model") -> str:
    return f"of seed {model['seeds'][0]['seed']}, {_percent(model['test_accuracy'])} %"


def _reproductions(metrics: "Metrics") -> list[str]:
    """Verdicts on the published figures, a line per network that has enough seeds; one line for all others."""
    published = [model for model in metrics["models"].values() if model["reproduction"]]
    judged = [_reproduction(model) for model in published if seed_count(model) >= REPRODUCTION_SEEDS]
    by_epoch = [_losses_by_epoch(model) for model in metrics["models"].values() if "epochs" in model["published"]]
    return judged + [TOO_FEW_SEEDS] * (len(judged) < len(published)) + by_epoch


def _reproduction(model: "Model") -> str:
    """Such as "FFN (5 seeds): test accuracy 88.36 published, 88.95 ± 0.12 measured: exceeded"."""
    figures = [
        f"{measure.name} {measure.write(model['published'][measure.key])} published, "
        f"{_with_std(model, measure.key, measure.write)} measured: {model['reproduction'][measure.key]['verdict']}"
        for measure in MEASURES
        if measure.key in model["reproduction"]
    ]
    return f"{model['title']} ({seed_count(model)} seeds): {'; '.join(figures)}"


def _losses_by_epoch(model: "Model") -> str:
    """Such as "CNN, training loss by epoch: 0.50, 0.31 published, 0.48 ± 0.01, 0.32 ± 0.02 measured: reproduced, ...".

    With too few seeds there is no verdict.
    """
    published = model["published"]["epochs"]
    runs = [seed["epochs"] for seed in model.get("seeds", [model])]
    measured = [[epoch["train_loss"] for epoch in row] for row in zip(*runs, strict=False)][: len(published)]
    verdicts = [epoch["train_loss"]["verdict"] for epoch in model["reproduced_epochs"]]
    texts = [_mean_and_std(losses, "{:.4f}") for losses in measured]
    words = f": {', '.join(verdicts)}" if verdicts and len(runs) >= REPRODUCTION_SEEDS else ""
    figures = ", ".join(f"{epoch['train_loss']:.4f}" for epoch in published)
    return f"{model['title']}, training loss by epoch: {figures} published, {', '.join(texts)} measured{words}"


def _mean_and_std(values: Sequence[float], form: str) -> str:
    return form.format(fmean(values)) + (f" ± {form.format(stdev(values))}" if len(values) > 1 else "")


def _minimum(metrics: "Metrics") -> list[str]:
    """Whether every network surpasses the accuracy that is published of them all."""
    if "published_minimum" not in metrics:
        return []
    minimum = metrics["published_minimum"]
    accuracies = [mean_of(model, "test_accuracy") for model in metrics["models"].values()]
    above = sum(accuracy > minimum for accuracy in accuracies)
    number = "all" if above == len(accuracies) else f"{above} of {len(accuracies)}"
    published = f"Published: every network above {_percent(minimum)} % test accuracy"
    return [f"{published}; measured: {number}, the lowest {_percent(min(accuracies))} %"]


def _changes(metrics: "Metrics") -> list[str]:
    """What each network changes, what that gained and why it should; and what all changes gained together."""
    gains = {comparison["b"]: f" ({_gap(comparison)} points)" for comparison in metrics["comparisons"]}
    changed = {name: model for name, model in metrics["models"].items() if model["change"]}
    lines = [
        f"{model['title']}: {model['change']}{gains.get(name, '')}" + (f": {model['why']}" if model["why"] else "")
        for name, model in changed.items()
    ]
    if "total_gain" in metrics:
        lines.append(f"Total gain, {comparison_in_words(metrics, metrics['total_gain'])}")
    return lines


def _smoothed(metrics: "Metrics") -> list[str]:
    """How low a training loss of smoothed labels can come, as it cannot be set beside other losses."""
    trainings = [model["config"]["training"] for model in metrics["models"].values()]
    lines = []
    for smoothing in sorted({training.get("label_smoothing", 0) for training in trainings} - {0}):
        other = smoothing / CLASS_COUNT
        true = 1 - smoothing + other
        least = -true * math.log(true) - (CLASS_COUNT - 1) * other * math.log(other)
        what = f"Training losses of labels smoothed by {smoothing:g} cannot fall below {least:.4f}"
        lines.append(f"{what}; all other losses are of the labels as they are")
    return lines


def comparison_in_words(metrics: "Mapping[str, Any]", comparison: "Comparison") -> str:
    """Such as "CNN - FFN: +0.12 points, -0.10 to +0.34: no more than noise at 5 seeds (...); about 36 would tell"."""
    a, b = (metrics["models"][comparison[side]]["title"] for side in ("a", "b"))
    return f"{b} - {a}: {compared(comparison)}"


def compared(comparison: "Comparison") -> str:
    """Return the difference, its 95 % interval and the verdict of a comparison in words."""
    interval = f", {_interval(comparison['interval'])}" if "interval" in comparison else ""  # of an earlier version
    return f"{_gap(comparison)} points{interval}: {comparison['verdict']}"


def _calibrations(metrics: "Metrics") -> list[str]:
    """Such as "CNN: expected calibration error 4.31 %, at temperature 1.62 (of 6,000 held-out images) 0.87 %"."""
    lines = []
    for model in metrics["models"].values():
        if "calibration" in model:
            before, after = (_with_std(model, key, _percent) for key in ("ece", "ece_after"))
            temperature = _with_std(model, "temperature", "{:.2f}".format)
            fitted = f"fitted on {model['calibration']['validation_images']:,} validation images"
            lines.append(
                f"{model['title']}: expected calibration error on the test images {before} %; "
                f"at temperature {temperature}, {fitted}, {after} %"
            )
    return lines


def _mirrored(metrics: "Metrics") -> list[str]:
    """Test accuracies by two looks at each image, which are not to be compared with those by one."""
    lines = []
    for model in metrics["models"].values():
        if "mirrored_accuracy" in model:
            accuracy = _with_std(model, "mirrored_accuracy", _percent)
            lines.append(
                f"{model['title']}: test accuracy {accuracy} % where the probabilities of each image and its mirror "
                "image are averaged; the table is of the image alone"
            )
    return lines


def _mistakes(metrics: "Metrics") -> list[str]:
    """How many mistakes of each network are images whose labels look wrong to others."""
    made = {
        f"{model['title']} {first_seed(model)}" if "seeds" in model else model["title"]: model["mistakes"]
        for model in metrics["models"].values()
        if "mistakes" in model
    }
    return [
        f"{title}: {one['count']:,} mistakes on test images; the labels of {one['suspected']:,} of them look wrong to "
        f"networks that judge them by confident learning, and of {sum(one['surest_suspected'])} of the "
        f"{len(one['surest'])} surest"
        for title, one in made.items()
    ]


def _audit(metrics: "Metrics") -> list[str]:
    """What an audit found: suspect labels, what networks get wrong of them, and images that nearly come twice."""
    if "audit" not in metrics:
        return []
    from fmnist.audit import NEAR

    audit = metrics["audit"]
    training, test = audit["training"], audit["test"]
    suspects = f"{training['suspected']:,} training and {test['suspected']:,} test images"
    near = f"{audit['near_pairs']:,} pairs, {audit['near_pairs_across']:,} of them of a training and a test image"
    return [
        f"Labels that look wrong by confident learning: {suspects} (audit_training.png, audit_test.png)",
        f"Training images, each judged by a network that had not seen it: {_without_suspects(training)}",
        f"Test images, averaged over the networks, each judged by the other four: {_without_suspects(test)}; similar "
        "networks share mistakes, so wrong labels explain less than this",
        f"Images that nearly come twice, less than {NEAR:g} grey levels (root mean square) from each other: {near}; "
        f"identical: {audit['identical_pairs']:,} (audit_pairs.png)",
    ]


def _without_suspects(part: "AuditedScore") -> str:
    """Such as "310 of 880 mistakes (35 %) are such images; accuracy 91.20 %, 94.10 % with them left out"."""
    suspected, mistakes = part["mistakes_suspected"], part["mistakes"]
    fraction = f" ({100 * suspected / mistakes:.0f} %)" if mistakes else ""
    accuracies = f"accuracy {_percent(part['accuracy'])} %, {_percent(part['accuracy_without'])} % with them left out"
    return f"{suspected:,.0f} of {mistakes:,.0f} mistakes{fraction} are such images; {accuracies}"


def _gap(comparison: "Comparison") -> str:
    return cell(comparison["difference"], _points)


# Studies


def study_columns(metrics: "Metrics") -> list[Column]:
    """The columns of a study's table, a row per combination, the one that each other is compared with first."""
    rows = combinations(metrics)
    networks = [row.network for row in rows]
    named = {"Network": networks} if len(set(networks)) > 1 else {}
    if "baseline" in metrics["study"]:
        named |= {"Change": [change(rows[0].values, row.values) for row in rows]}
    else:
        named |= {name.replace("_", " "): [row.values[name] for row in rows] for name in metrics["study"]["settings"]}
    kinds = ["name", *["setting"] * (len(named) - 1)]
    columns = [Column(header, kind, cells) for (header, cells), kind in zip(named.items(), kinds, strict=True)]
    scores = {
        "Validation %": [spread_text(row.validation) for row in rows],
        "Test %": [spread_text(row.test) for row in rows],
        "Parameters": [f"{row.parameters:,}" for row in rows],
        "Seconds": [f"{row.seconds:,.1f}" for row in rows],
        **_differences([row.comparison for row in rows]),
    }
    for header, cells in scores.items():
        columns.append(Column(header, "measured" if header.endswith(" %") else "number", cells))
    verdicts = [_verdict(row, metrics["study"]) for row in rows]
    against = "the baseline" if "baseline" in metrics["study"] else "the best"
    return [*columns, Column(f"Against {against}", "setting", verdicts)]


def _differences(comparisons: "Sequence[Comparison | None]") -> dict[str, list[str]]:
    """Cells by header: how far each is from what it is compared with, which is None; no column without a value."""
    columns: dict[str, Callable[[Comparison], str]] = {
        "Points": _gap,
        "95 % interval": lambda one: _interval(one["interval"]),
        "p": _p,
        "To tell": lambda one: cell(one.get("seeds_needed"), "{:,}".format),
    }
    cells = {header: [write(one) if one else NOTHING for one in comparisons] for header, write in columns.items()}
    return {header: texts for header, texts in cells.items() if set(texts) != {NOTHING}}


def spread_text(spread: "Spread") -> str:
    """An accuracy over several seeds, in per cent."""
    return _percent(spread.mean) + ("" if spread.std is None else f" ± {_percent(spread.std)}")


def _p(comparison: "Comparison") -> str:
    from fmnist.statistics import p_text

    return p_text(comparison["p_holm"])


def _verdict(row: "Combination", study: "Study") -> str:
    if row.comparison is None:
        return "the baseline" if "baseline" in study else "best on validation"
    if row.name in study["alike"]:
        return "not told apart"
    return "better on test" if row.comparison["difference"] > 0 else "worse"


def study_remarks(metrics: "Metrics") -> list[str]:
    """What a study has found, in words: the best on validation, and how many no test tells from it or the baseline."""
    models, study, number = metrics["models"], metrics["study"], len(metrics["comparisons"])
    best, alike = models[study["best"]], [models[name]["title"] for name in study["alike"]]
    named = f": {'; '.join(at_most(MOST_NAMED, alike))}" if alike else ""
    it = "the baseline" if "baseline" in study else "it"
    told = f"No test tells {len(alike)} of {number} others from {it}" if alike else f"A test tells each other from {it}"
    told += f" ({_test(best, number)}){named}"
    lines = [f"Best on validation: {best['title']}", told]
    if "seeds" in best:
        return [*lines, f"Confusion matrix and images: {best['title']} {first_seed(best)}"]
    return [*lines, "One seed speaks of these trained networks, not of their settings: --seeds 5"]


def _test(best: "Model", number: int) -> str:
    """By which test a study compares its combinations."""
    test = f"paired t on test accuracies, {seed_count(best)} seeds" if "seeds" in best else "McNemar on the test images"
    return f"{test}, Holm over {number} comparisons" if number > 1 else test


def statistics_columns(metrics: "Metrics") -> tuple[list[tuple[str, str]], list[Column]]:
    """What `metrics["statistics"]` says of the data set: single facts, and its list of rows as columns."""
    facts, columns = [], []
    for name, value in metrics.get("statistics", {}).items():
        if isinstance(value, list):
            kinds = ["name"] + ["measured"] * (len(value[0]) - 1)
            for key, kind in zip(value[0], kinds, strict=True):
                columns.append(Column(HEADERS.get(key, key), kind, [_fact(row[key]) for row in value]))
        else:
            facts.append((HEADERS.get(name, name), _fact(value)))
    return facts, columns


def _fact(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return NOTHING if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def markdown(columns: Sequence[Column]) -> str:
    """Lay `columns` out as Markdown whose bars stand below each other; names left, numbers right."""
    laid = []
    for header, kind, cells in columns:
        texts = [" ".join(text.split()).replace("|", "\\|") for text in (header, *cells)]
        width = max(map(len, [*texts, "---"]))
        left = kind in ("name", "setting")
        padded = [text.ljust(width) if left else text.rjust(width) for text in texts]
        laid.append([padded[0], "-" * width if left else "-" * (width - 1) + ":", *padded[1:]])
    return "\n".join(f"| {' | '.join(row)} |" for row in zip(*laid, strict=True))
