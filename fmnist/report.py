"""The results table with its verdicts and notes, and what --list says of the recipes.

Made from the content of metrics.json. Imports nothing heavy, for --list's sake.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fmnist.files import plain

if TYPE_CHECKING:
    from fmnist.config import Network, Recipe
    from fmnist.metrics import Comparison, Metrics, Model

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


def _recipe_block(recipe: "Recipe", reference: "Metrics | None") -> str:
    measured = reference["models"] if reference else {}
    lines = [f"{recipe.name}: {recipe.title}", recipe.summary]
    if recipe.source:
        lines.append(f"published by {recipe.source}")
    if measured:
        minutes = sum(measured_value(model, "training_seconds") for model in measured.values()) / 60
        lines.append(f"trained once in {minutes:.1f} minutes on {reference['device']} in {reference['precision']}")
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
    kind: str  # "name", "measured", "published" or "difference"
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

LEGEND = {
    "points": "Points: measured minus published test accuracy.",
    "Pooled %": "Pooled: accuracy over the test images and those 2,000 training images together.",
    "Train loss": "Train loss: of the last epoch.",
    "Epoch": "Epoch: the best on the validation images, whose weights are scored.",
    "Multiply-adds": "Multiply-adds: to score one image.",
    "Seconds": "Seconds: of training.",
    "Seeds": "±: standard deviation over the seeds. A published figure is reproduced if it lies in the 95 % prediction "
    "interval for one more seed, and exceeded if measured ones are better than that.",
}
WARNINGS = {  # by release of the data set
    "first": "Warning: measured on the first release of the data set, whose test images are partly today's training "
    "images; accuracies are not comparable",
    "own": "Warning: measured on a data set of your own; accuracies are not comparable",
}
HEADERS = {"pixel deviation": "pixel standard deviation"}  # of the data set's statistics, where not as in metrics.json
ONE_SEED = "One seed: no verdict on the published figures (--seeds 5)"


def results_table(metrics: "Metrics") -> str:
    """Return the results as Markdown that reads well in a terminal: a row per network, comparisons, notes.

    Accuracies in per cent, published figures in the column after the measured one, differences in points.
    """
    metrics = plain(metrics)
    columns = results_columns(metrics)
    facts, rows = statistics_columns(metrics)
    listed = [f"{name}: {value}" for name, value in facts], [*release_warnings(metrics), *remarks(metrics)]
    facts, below = ("\n".join(f"- {' '.join(line.split())}" for line in lines) for lines in listed)
    parts = (_markdown(columns), " ".join(legend(columns)), facts, _markdown(rows), below)
    return "\n\n".join(filter(None, parts))


def results_columns(metrics: "Metrics") -> list[Column]:
    """The columns of the results table, with a cell per network; none where no network was trained."""
    models = list(metrics["models"].values())
    if not models:
        return []
    columns = [Column("Network", "name", [model["title"] for model in models])]
    for measure in MEASURES:
        if measure.key in metrics["columns"] or not measure.if_asked:
            columns += _measured_and_published(measure, models)
    if any("seeds" in model for model in models):
        columns.append(Column("Seeds", "measured", [str(seed_count(model)) for model in models]))
    return columns


def _measured_and_published(measure: Measure, models: "Sequence[Model]") -> list[Column]:
    measured = [measured_value(model, measure.key) for model in models]
    published = [model["published"].get(measure.key) for model in models]
    is_published = any(value is not None for value in published)
    if not is_published and (measure.if_published or all(value is None for value in measured)):
        return []
    columns = [Column(measure.header, "measured", [_with_std(model, measure) for model in models])]
    if is_published:
        columns.append(Column("published", "published", [cell(value, measure.write) for value in published]))
    if is_published and measure.key == "test_accuracy":
        pairs = zip(measured, published, strict=True)
        gaps = [None if None in pair else pair[0] - pair[1] for pair in pairs]
        columns.append(Column("points", "difference", [cell(gap, _points) for gap in gaps]))
    return columns


def measured_value(model: "Model", key: str) -> float | None:
    """A number of the network, the mean over its seeds if there are several; None if it has none, or none finite."""
    return {**model, **model.get("mean", {})}.get(key)


def _with_std(model: "Model", measure: Measure) -> str:
    measured, std = measured_value(model, measure.key), model.get("std", {}).get(measure.key)
    return cell(measured, measure.write) if std is None else f"{measure.write(measured)} ± {measure.write(std)}"


def accuracy_text(model: "Model") -> str:
    return _with_std(model, next(measure for measure in MEASURES if measure.key == "test_accuracy"))


def seed_count(model: "Model") -> int:
    return len(model["seeds"]) if "seeds" in model else 1


def cell(value: float | None, write: Callable[[float], str]) -> str:
    return NOTHING if value is None else write(value)


def legend(columns: Iterable[Column]) -> list[str]:
    headers = {column.header for column in columns}
    return [words for header, words in LEGEND.items() if header in headers]


def remarks(metrics: "Metrics") -> list[str]:
    """What stands below the table, a line each: what the numbers are of, verdicts, changes, comparisons, notes."""
    source = [f"Published figures: {metrics['source']}"] if metrics["source"] else []
    comparisons = [_comparison(metrics, comparison) for comparison in metrics["comparisons"]]
    return [
        *_kept(metrics),
        *_reproductions(metrics),
        *_changes(metrics),
        *comparisons,
        *source,
        *map(str, metrics["notes"]),
    ]


def release_warnings(metrics: "Metrics") -> list[str]:
    return [WARNINGS[metrics["release"]]] if metrics["release"] in WARNINGS else []


def _kept(metrics: "Metrics") -> list[str]:
    """Of which seed are the weights and what is drawn of one network."""
    kept = [f"{model['title']} {first_seed(model)}" for model in metrics["models"].values() if "seeds" in model]
    return [f"Weights kept, confusion matrices and images: {'; '.join(kept)}"] if kept else []


def first_seed(model: "Model") -> str:
    return f"of seed {model['seeds'][0]['seed']}, {_percent(model['test_accuracy'])} %"


def _reproductions(metrics: "Metrics") -> list[str]:
    """Verdicts on the published figures, a line per network that has several seeds; one line for all others."""
    judged = [model for model in metrics["models"].values() if model["reproduction"]]
    several = [_reproduction(model) for model in judged if "seeds" in model]
    return several + [ONE_SEED] * (len(several) < len(judged))


def _reproduction(model: "Model") -> str:
    """Such as "FFN (5 seeds): test accuracy 88.36 published, 88.95 ± 0.12 measured: exceeded"."""
    figures = [
        f"{measure.name} {measure.write(model['published'][measure.key])} published, "
        f"{_with_std(model, measure)} measured: {model['reproduction'][measure.key]['verdict']}"
        for measure in MEASURES
        if measure.key in model["reproduction"]
    ]
    return f"{model['title']} ({seed_count(model)} seeds): {'; '.join(figures)}"


def _changes(metrics: "Metrics") -> list[str]:
    gains = {comparison["b"]: f" ({_gap(comparison)} points)" for comparison in metrics["comparisons"]}
    changed = {name: model for name, model in metrics["models"].items() if model["change"]}
    return [f"{model['title']}: {model['change']}{gains.get(name, '')}" for name, model in changed.items()]


def _comparison(metrics: "Metrics", comparison: "Comparison") -> str:
    """Such as "CNN - FFN: +3.11 points: more than noise (paired t, p < 0.001, n = 10)"."""
    a, b = (metrics["models"][comparison[side]]["title"] for side in ("a", "b"))
    return f"{b} - {a}: {_gap(comparison)} points: {comparison['verdict']}"


def _gap(comparison: "Comparison") -> str:
    return cell(comparison["difference"], _points)


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


def _markdown(columns: Sequence[Column]) -> str:
    """Lay `columns` out as Markdown whose bars stand below each other; names left, numbers right."""
    laid = []
    for header, kind, cells in columns:
        texts = [" ".join(text.split()).replace("|", "\\|") for text in (header, *cells)]
        width = max(map(len, [*texts, "---"]))
        left = kind == "name"
        padded = [text.ljust(width) if left else text.rjust(width) for text in texts]
        laid.append([padded[0], "-" * width if left else "-" * (width - 1) + ":", *padded[1:]])
    return "\n".join(f"| {' | '.join(row)} |" for row in zip(*laid, strict=True))
