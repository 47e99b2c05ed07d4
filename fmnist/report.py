"""What a run found, for reading: the results table and report.html.

Made from the dictionary that becomes metrics.json and from the networks' `Evaluation`s; nothing is trained or
drawn. Titles, class names, file names and notes come from outside: they are escaped on their way out.
"""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fmnist.files import atomic_write, plain

Metrics = Mapping[str, Any]

NOTHING = "-"  # a cell without a value
TILE = 28  # pixels: one test image in the sprite
TILES_PER_ROW = 50
CORRECT_SHOWN = 24  # of each cell on the diagonal
WRONG_SHOWN = 250  # of each other cell; a trained network stays below it, so that all its mistakes are shown


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
    write: Callable[[float], str]
    if_published: bool = False  # shown only where some network has a published figure
    if_asked: bool = False  # shown only where the recipe names it


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _points(difference: float) -> str:
    return f"{100 * difference:+.2f}"


def _epoch(number: float) -> str:
    return f"{number:,.0f}" if number == round(number) else f"{number:,.1f}"  # a mean


MEASURES = (
    Measure("parameters", "Parameters", "{:,.0f}".format),
    Measure("multiply_adds", "Multiply-adds", "{:,.0f}".format, if_asked=True),
    Measure("test_accuracy", "Test %", _percent),
    Measure("train_subset_accuracy", "Subset %", _percent),
    Measure("mean_accuracy", "Mean %", _percent),
    Measure("test_loss", "Test loss", "{:.4f}".format),
    Measure("train_loss", "Train loss", "{:.4f}".format, if_published=True),
    Measure("best_epoch", "Epoch", _epoch),
    Measure("seconds_per_epoch", "Seconds/epoch", "{:,.1f}".format, if_asked=True),
    Measure("training_seconds", "Seconds", "{:,.1f}".format),
)

LEGEND = {
    "points": "Points: measured minus published test accuracy.",
    "Subset %": "Subset: accuracy on a part of the training images.",
    "Mean %": "Mean: accuracy over the test images and that subset together.",
    "Train loss": "Train loss: of the last epoch.",
    "Epoch": "Epoch: the best on the validation images, whose weights are scored.",
    "Multiply-adds": "Multiply-adds: to score one image.",
    "Seconds": "Seconds: of training.",
    "Seeds": "±: standard deviation over the seeds.",
}


def results_table(metrics: Metrics) -> str:
    """Return the results as Markdown that reads well in a terminal: a row per network, comparisons, notes.

    Accuracies in per cent, published figures in the column after the measured one, differences in points.
    """
    metrics = plain(metrics)
    columns = _columns(metrics)
    facts, rows = _statistics(metrics)
    said = [f"{name}: {value}" for name, value in facts], _remarks(metrics)
    facts, remarks = ("\n".join(f"- {' '.join(line.split())}" for line in lines) for lines in said)
    parts = (_markdown(columns), " ".join(_legend(columns)), facts, _markdown(rows), remarks)
    return "\n\n".join(filter(None, parts))


def _columns(metrics: Metrics) -> list[Column]:
    """The columns of the results table, with a cell per network; none where no network was trained."""
    models = metrics.get("models") or {}
    if not models:
        return []
    columns = [Column("Network", "name", [_title(metrics, name) for name in models])]
    asked = metrics.get("columns") or ()
    for measure in (measure for measure in MEASURES if measure.key in asked or not measure.if_asked):
        columns += _measured_and_published(measure, list(models.values()))
    seeds = [len(model.get("seeds") or ()) for model in models.values()]
    if any(seeds):
        columns.append(Column("Seeds", "measured", [str(n or 1) for n in seeds]))
    return columns


def _measured_and_published(measure: Measure, models: Sequence[Metrics]) -> list[Column]:
    measured = [_measured(model, measure.key) for model in models]
    published = [(model.get("published") or {}).get(measure.key) for model in models]
    is_published = any(value is not None for value in published)
    if not is_published and (measure.if_published or all(value is None for value in measured)):
        return []
    spreads = [(model.get("std") or {}).get(measure.key) for model in models]
    cells = [_cell(value, measure.write, spread) for value, spread in zip(measured, spreads, strict=True)]
    columns = [Column(measure.header, "measured", cells)]
    if is_published:
        columns.append(Column("published", "published", [_cell(value, measure.write) for value in published]))
    if is_published and measure.key == "test_accuracy":
        pairs = zip(measured, published, strict=True)
        gaps = [None if None in pair else pair[0] - pair[1] for pair in pairs]
        columns.append(Column("points", "difference", [_cell(gap, _points) for gap in gaps]))
    return columns


def _measured(model: Metrics, key: str) -> float | None:
    """The network's number: the mean over its seeds if there are several; the last epoch's training loss."""
    last = (model.get("epochs") or [{}])[-1]
    return {"train_loss": last.get("train_loss"), **model, **(model.get("mean") or {})}.get(key)


def _cell(value: float | None, write: Callable[[float], str], spread: float | None = None) -> str:
    if value is None:
        return NOTHING
    return write(value) if spread is None else f"{write(value)} ± {write(spread)}"


def _title(metrics: Metrics, name: str) -> str:
    return str(((metrics.get("models") or {}).get(name) or {}).get("title") or name)


def _legend(columns: Iterable[Column]) -> list[str]:
    headers = {column.header for column in columns}
    return [words for header, words in LEGEND.items() if header in headers]


def _remarks(metrics: Metrics) -> list[str]:
    """What stands below the table, a line each: changes from network to network, comparisons, notes."""
    comparisons = [_comparison(metrics, comparison) for comparison in metrics.get("comparisons") or ()]
    return [*_changes(metrics), *comparisons, *map(str, metrics.get("notes") or ())]


def _changes(metrics: Metrics) -> list[str]:
    gains = {comparison["b"]: comparison.get("difference") for comparison in metrics.get("comparisons") or ()}
    lines = []
    for name, model in (metrics.get("models") or {}).items():
        if model.get("change"):
            gain = "" if gains.get(name) is None else f" ({_points(gains[name])} points)"
            lines.append(f"{_title(metrics, name)}: {model['change']}{gain}")
    return lines


def _comparison(metrics: Metrics, comparison: Metrics) -> str:
    """One line, such as "CNN - FFN: +3.11 points, McNemar p < 0.001, n = 10,000: more than noise"."""
    p_value = comparison.get("p_value")
    p = "p unknown" if p_value is None else "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
    titles = f"{_title(metrics, comparison['b'])} - {_title(metrics, comparison['a'])}"
    gap = _cell(comparison.get("difference"), _points)
    test = f"{comparison['test']} {p}, n = {comparison['n']:,}"
    return f"{titles}: {gap} points, {test}: {comparison['verdict']}"


def _statistics(metrics: Metrics) -> tuple[list[tuple[str, str]], list[Column]]:
    """What `metrics["statistics"]` says of the data set: single facts, and its list of rows as columns."""
    facts, columns = [], []
    for name, value in (metrics.get("statistics") or {}).items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            kinds = ["name"] + ["measured"] * (len(value[0]) - 1)
            for key, kind in zip(value[0], kinds, strict=True):
                columns.append(Column(key, kind, [_fact(row.get(key)) for row in value]))
        else:
            facts.append((name, _fact(value)))
    return facts, columns


def _fact(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_fact, value))
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


# report.html


def write_report(
    path: Path | str,
    metrics: Metrics,
    evaluations: Mapping[str, Any],
    test_images: np.ndarray | None,
    figures: Iterable[tuple[str, Path | str]],
    classes: Sequence[str],
) -> None:
    """Write the run as one HTML file that needs nothing but a browser: tables, figures, images behind them.

    `evaluations` maps names of `metrics["models"]` to the `Evaluation` of `test_images`, uint8 [T, 28, 28]; where
    it is empty, as in `explore`, the images may be None. `figures` are (title, PNG file). NAME_... goes to the
    network NAME; its NAME_confusion.png is left out, as the page has it as a table to click in.
    Raises OSError, naming the file, if a figure cannot be read or `path` not written.
    """
    metrics = plain(metrics)
    chosen = {name: _choose(evaluation) for name, evaluation in evaluations.items()}
    shown = np.unique(np.concatenate([np.empty(0, int), *chosen.values()]))
    placed = _place(figures, metrics.get("models") or {}, evaluations)
    names = [name for name in placed if name is not None]
    rows = [_pictures(evaluations[name], chosen[name], shown) if name in chosen else [] for name in names]
    page = _render(
        metrics=metrics,
        columns=_columns(metrics),
        legend=_legend(_columns(metrics)),
        remarks=_remarks(metrics),
        statistics=_statistics(metrics),
        figures=placed[None],
        networks=[_network(metrics, name, evaluations.get(name), placed[name]) for name in names],
        sprite=_sprite(test_images, shown) if len(shown) else None,
        pictures={"size": TILE, "perRow": TILES_PER_ROW, "classes": list(classes), "images": plain(rows)},
    )
    with atomic_write(path) as file:
        file.write(page.encode(errors="backslashreplace"))  # a path may hold any bytes


def _render(**content: Any) -> str:
    from jinja2 import Environment, FileSystemLoader

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("report.html.j2").render(content)


def _choose(evaluation: Any) -> np.ndarray:
    """The indices of the test images to embed: mistakes, and hits from the surest to the least sure; sorted."""
    predicted = evaluation.probabilities.argmax(1)
    order = np.argsort(-evaluation.probabilities.max(1), kind="stable")
    cells = evaluation.labels[order] * evaluation.probabilities.shape[1] + predicted[order]
    chosen = []
    for cell in np.unique(cells):
        members = order[cells == cell]
        if evaluation.labels[members[0]] == predicted[members[0]]:
            members = members[np.unique(np.linspace(0, len(members) - 1, CORRECT_SHOWN).astype(int))]
        chosen.append(members[:WRONG_SHOWN])
    return np.sort(np.concatenate(chosen))


def _pictures(evaluation: Any, chosen: np.ndarray, shown: np.ndarray) -> list[tuple]:
    """Per image: index, tile, true class, predicted class, probability of the predicted, of the true."""
    probabilities, true = evaluation.probabilities[chosen].astype(float).round(4), evaluation.labels[chosen]
    predicted, rows = evaluation.probabilities[chosen].argmax(1), np.arange(len(chosen))
    tiles = np.searchsorted(shown, chosen)
    fields = (chosen, tiles, true, predicted, probabilities[rows, predicted], probabilities[rows, true])
    return list(zip(*(field.tolist() for field in fields), strict=True))


def _sprite(images: np.ndarray, shown: np.ndarray) -> str:
    """The images of the indices `shown` as tiles of one PNG, in base64."""
    from PIL import Image

    rows = -(-len(shown) // TILES_PER_ROW)
    tiles = np.zeros((rows * TILES_PER_ROW, TILE, TILE), np.uint8)
    tiles[: len(shown)] = np.asarray(images)[shown]
    sheet = tiles.reshape(rows, TILES_PER_ROW, TILE, TILE).swapaxes(1, 2)
    png = BytesIO()
    Image.fromarray(sheet.reshape(rows * TILE, TILES_PER_ROW * TILE)).save(png, "PNG")
    return base64.b64encode(png.getvalue()).decode()


def _place(figures: Iterable[tuple], names: Iterable[str], evaluations: Mapping[str, Any]) -> dict[Any, list]:
    """Sort the figures under the network their file name begins with, or None; `kind` is the rest of it."""
    placed: dict[str | None, list] = {None: [], **{name: [] for name in names}}
    for title, path in figures:
        path = Path(path)
        owners = [name for name in placed if name is not None and path.stem.startswith(f"{name}_")]
        owner = max(owners, key=len, default=None)
        kind = path.stem.removeprefix(f"{owner}_") if owner else path.stem
        if not (kind == "confusion" and owner in evaluations):
            png = base64.b64encode(path.read_bytes()).decode()
            placed[owner].append({"title": title, "file": path.name, "kind": kind, "png": png})
    return placed


def _network(metrics: Metrics, name: str, evaluation: Any, figures: list) -> dict[str, Any]:
    """What the page says of one network. Its confusion is the evaluation's, whose images the cells open."""
    model = metrics["models"][name]
    return {
        "title": _title(metrics, name),
        "model": model,
        "accuracy": _cell(_measured(model, "test_accuracy"), _percent),
        "figures": figures,
        "confusion": model.get("confusion") if evaluation is None else plain(evaluation.confusion),
        "per_class": (model.get("per_class") or {}) if evaluation is None else plain(evaluation.per_class),
        "clickable": evaluation is not None,
    }
