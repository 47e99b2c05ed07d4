"""The tables of results: of networks, of a study, of effects, of the data set; made from the content of metrics.json.

Accuracies in per cent, published figures in the column after the measured one, differences in points. Imports nothing
heavy, as --list does not either.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from fmnist.config import REPRODUCTION_SEEDS
from fmnist.study_results import Spread, change, combinations, trainings_of

if TYPE_CHECKING:
    from fmnist.metrics import Comparison, Effect, Metrics, Model, Study
    from fmnist.study_results import Combination

NOTHING = "-"  # a cell without a value


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


def percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"


def points(difference: float) -> str:
    return f"{100 * difference:+.2f}"


def _epoch(number: float) -> str:
    return f"{number:,.0f}" if number == round(number) else f"{number:,.1f}"  # a mean


MEASURES = (
    Measure("parameters", "Parameters", "parameters", "{:,.0f}".format),
    Measure("multiply_adds", "Multiply-adds", "multiply-adds", "{:,.0f}".format, if_asked=True),
    Measure("test_accuracy", "Test %", "test accuracy", percent),
    Measure("train_subset_accuracy", "Train % (2,000 images)", "train accuracy (2,000 images)", percent),
    Measure("mean_accuracy", "Pooled %", "pooled accuracy", percent),
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
    "Seeds needed": "Seeds needed: about so many would show a difference of that size, in four studies of five.",
    "Effect": "Effect: in points of test accuracy, of one value in place of the other, averaged over the other "
    "factors; of an interaction, half the difference between one factor's effects at the two values of the other. "
    "Intervals and tests rest on the variance between seeds; with one seed, on the interactions, taken for noise.",
    "±": "±: standard deviation over the seeds.",
    "published": f"From {REPRODUCTION_SEEDS} seeds, a published figure is reproduced if it lies in the 95 % prediction "
    "interval for one more, and exceeded if measured ones are better than that.",
}
HEADERS = {"pixel deviation": "pixel standard deviation"}  # of the data set's statistics, where not as in metrics.json


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


def _measured_and_published(measure: Measure, models: "Sequence[Model]") -> list[Column]:
    measured = [mean_of(model, measure.key) for model in models]
    published = [model["published"].get(measure.key) for model in models]
    is_published = any(value is not None for value in published)
    if not is_published and (measure.if_published or all(value is None for value in measured)):
        return []
    columns = [Column(measure.header, "measured", [with_std(model, measure.key, measure.write) for model in models])]
    if is_published:
        columns.append(Column("published", "published", [cell(value, measure.write) for value in published]))
    if is_published and measure.key == "test_accuracy":
        pairs = zip(measured, published, strict=True)
        gaps = [None if None in pair else pair[0] - pair[1] for pair in pairs]
        columns.append(Column("points", "difference", [cell(one, points) for one in gaps]))
    return columns


def effects_columns(metrics: "Metrics") -> list[Column]:
    """The columns of the table of main effects and interactions; none where the recipe is no full factorial."""
    effects = metrics["effects"]
    if not effects:
        return []
    cells = {
        "difference": [points(effect["effect"]) for effect in effects],
        "95 % interval": [interval_text(effect.get("interval")) for effect in effects],
        "verdict": [effect["verdict"] for effect in effects],
    }
    names = Column("Effect", "name", [effect_name(effect) for effect in effects])
    return [names, *(Column(header, "measured", texts) for header, texts in cells.items())]


def effect_name(effect: "Effect") -> str:
    """Such as "activation: leaky_relu for relu", or "activation x pool" of an interaction."""
    if len(effect["factors"]) == 1:
        return f"{effect['factors'][0]}: {effect['high']} for {effect['low']}"
    return " x ".join(effect["factors"])


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
        "Points": gap,
        "95 % interval": lambda one: interval_text(one["interval"]),
        "p": _p,
        "Seeds needed": lambda one: cell(one.get("seeds_needed"), "{:,}".format),
    }
    cells = {header: [write(one) if one else NOTHING for one in comparisons] for header, write in columns.items()}
    return {header: texts for header, texts in cells.items() if set(texts) != {NOTHING}}


def _p(comparison: "Comparison") -> str:
    from fmnist.statistics import p_text

    return p_text(comparison["p_holm"])


def _verdict(row: "Combination", study: "Study") -> str:
    if row.comparison is None:
        return "the baseline" if "baseline" in study else "best on validation"
    if row.name in study["alike"]:
        return "not told apart"
    return "better on test" if row.comparison["difference"] > 0 else "worse"


# The data set


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


# Cells


def mean_of(model: "Model", key: str) -> float | None:
    """A number of a network, the mean over its seeds if there are several; None if it has none, or none finite."""
    return {**model, **model.get("mean", {})}.get(key)


def std_of(model: "Model", key: str) -> float | None:
    """Its standard deviation over the seeds; None of one seed."""
    return model.get("std", {}).get(key)


def with_std(model: "Model", key: str, write: Callable[[float], str]) -> str:
    measured = mean_of(model, key)
    return NOTHING if measured is None else spread_text(Spread(measured, std_of(model, key)), write)


def accuracy_text(model: "Model") -> str:
    """The test accuracy in per cent, with the standard deviation over the seeds if there are several."""
    return with_std(model, "test_accuracy", percent)


def seed_count(model: "Model") -> int:
    return len(model["seeds"]) if "seeds" in model else 1


def epochs_text(models: "Iterable[Model]") -> str:
    """How many epochs networks were trained for, from every seed: "10", or "8 to 10"."""
    return range_text([len(training["epochs"]) for model in models for training in trainings_of(model)])


def range_text(numbers: Sequence[int], write: Callable[[int], str] = str) -> str:
    """The least and the greatest of `numbers`, as in "8 to 10"; where they are one, that."""
    return " to ".join(map(write, sorted({min(numbers), max(numbers)})))


def spread_text(spread: Spread, write: Callable[[float], str] = percent) -> str:
    """A figure over several seeds: an accuracy, in per cent, unless `write` says otherwise."""
    return write(spread.mean) + ("" if spread.std is None else f" ± {write(spread.std)}")


def gap(comparison: "Comparison") -> str:
    return cell(comparison["difference"], points)


def interval_text(interval: Sequence[float] | None) -> str:
    return NOTHING if interval is None else f"{points(interval[0])} to {points(interval[1])}"


def cell(value: Any | None, write: Callable[[Any], str]) -> str:
    return NOTHING if value is None else write(value)


# Written


def legend(columns: Sequence[Column]) -> list[str]:
    """What the headers of `columns`, and signs in their cells, mean."""
    used = {column.header for column in columns}
    if "Seeds" not in used:  # one seed judges nothing that is published
        used -= {"published"}
    if any("±" in text for column in columns for text in column.cells):
        used.add("±")
    return [words for what, words in LEGEND.items() if what in used]


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


def bullets(lines: Iterable[str]) -> str:
    """A Markdown list, each of `lines` in one line of its own."""
    return "\n".join(f"- {' '.join(line.split())}" for line in lines)
