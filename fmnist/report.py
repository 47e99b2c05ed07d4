"""What a run found, for reading: the results table, report.html, and what --list says of the recipes.

Made from the content of metrics.json and the networks' predictions; nothing is trained or drawn. Titles, class names,
file names and notes come from outside: they are escaped on their way out. Imports nothing heavy, for --list's sake.
"""

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fmnist.captions import alternative, caption
from fmnist.files import atomic_write, plain

if TYPE_CHECKING:
    import numpy as np
    from jinja2 import Environment

    from fmnist.config import Network, Recipe
    from fmnist.evaluation import Predictions
    from fmnist.metrics import Comparison, Metrics, Model

REFERENCE = Path(__file__).resolve().parents[1] / "outputs" / "reference"  # whole runs that come with the program

NOTHING = "-"  # a cell without a value
TILE = 28  # pixels: one test image in the sprite
TILES_PER_ROW = 50
CORRECT_SHOWN = 24  # of each cell on the diagonal
INCORRECT_SHOWN = 250  # of each other cell; a trained network stays below it, so that all its errors are shown
FIGURES_BEGIN, FIGURES_END = b"<!-- layer figures -->", b"<!-- end of layer figures -->"  # in report.html


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
        minutes = sum(_measured(model, "training_seconds") for model in measured.values()) / 60
        lines.append(f"trained once in {minutes:.1f} minutes on {reference['device']} in {reference['precision']}")
    lines += [_network_line(network, measured.get(network.name)) for network in recipe.networks]
    return "\n    ".join([*lines, *recipe.notes])


def _network_line(network: "Network", model: "Model | None") -> str:
    published = _cell(network.published.get("test_accuracy"), _percent)
    measured = _accuracy(model) if model else NOTHING
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
    columns = _columns(metrics)
    facts, rows = _statistics(metrics)
    listed = [f"{name}: {value}" for name, value in facts], [*_warnings(metrics), *_remarks(metrics)]
    facts, remarks = ("\n".join(f"- {' '.join(line.split())}" for line in lines) for lines in listed)
    parts = (_markdown(columns), " ".join(_legend(columns)), facts, _markdown(rows), remarks)
    return "\n\n".join(filter(None, parts))


def _columns(metrics: "Metrics") -> list[Column]:
    """The columns of the results table, with a cell per network; none where no network was trained."""
    models = list(metrics["models"].values())
    if not models:
        return []
    columns = [Column("Network", "name", [model["title"] for model in models])]
    for measure in MEASURES:
        if measure.key in metrics["columns"] or not measure.if_asked:
            columns += _measured_and_published(measure, models)
    if any("seeds" in model for model in models):
        columns.append(Column("Seeds", "measured", [str(_seeds(model)) for model in models]))
    return columns


def _measured_and_published(measure: Measure, models: "Sequence[Model]") -> list[Column]:
    measured = [_measured(model, measure.key) for model in models]
    published = [model["published"].get(measure.key) for model in models]
    is_published = any(value is not None for value in published)
    if not is_published and (measure.if_published or all(value is None for value in measured)):
        return []
    columns = [Column(measure.header, "measured", [_with_std(model, measure) for model in models])]
    if is_published:
        columns.append(Column("published", "published", [_cell(value, measure.write) for value in published]))
    if is_published and measure.key == "test_accuracy":
        pairs = zip(measured, published, strict=True)
        gaps = [None if None in pair else pair[0] - pair[1] for pair in pairs]
        columns.append(Column("points", "difference", [_cell(gap, _points) for gap in gaps]))
    return columns


def _measured(model: "Model", key: str) -> float | None:
    """A number of the network, the mean over its seeds if there are several; None if it has none, or none finite."""
    return {**model, **model.get("mean", {})}.get(key)


def _with_std(model: "Model", measure: Measure) -> str:
    measured, std = _measured(model, measure.key), model.get("std", {}).get(measure.key)
    return _cell(measured, measure.write) if std is None else f"{measure.write(measured)} ± {measure.write(std)}"


def _accuracy(model: "Model") -> str:
    return _with_std(model, next(measure for measure in MEASURES if measure.key == "test_accuracy"))


def _seeds(model: "Model") -> int:
    return len(model["seeds"]) if "seeds" in model else 1


def _cell(value: float | None, write: Callable[[float], str]) -> str:
    return NOTHING if value is None else write(value)


def _legend(columns: Iterable[Column]) -> list[str]:
    headers = {column.header for column in columns}
    return [words for header, words in LEGEND.items() if header in headers]


def _remarks(metrics: "Metrics") -> list[str]:
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


def _warnings(metrics: "Metrics") -> list[str]:
    return [WARNINGS[metrics["release"]]] if metrics.get("release") in WARNINGS else []


def _kept(metrics: "Metrics") -> list[str]:
    """Of which seed are the weights and what is drawn of one network."""
    kept = [f"{model['title']} {_first_seed(model)}" for model in metrics["models"].values() if "seeds" in model]
    return [f"Weights kept, confusion matrices and images: {'; '.join(kept)}"] if kept else []


def _first_seed(model: "Model") -> str:
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
    return f"{model['title']} ({_seeds(model)} seeds): {'; '.join(figures)}"


def _changes(metrics: "Metrics") -> list[str]:
    gains = {comparison["b"]: f" ({_gap(comparison)} points)" for comparison in metrics["comparisons"]}
    changed = {name: model for name, model in metrics["models"].items() if model["change"]}
    return [f"{model['title']}: {model['change']}{gains.get(name, '')}" for name, model in changed.items()]


def _comparison(metrics: "Metrics", comparison: "Comparison") -> str:
    """Such as "CNN - FFN: +3.11 points: more than noise (paired t, p < 0.001, n = 10)"."""
    a, b = (metrics["models"][comparison[side]]["title"] for side in ("a", "b"))
    return f"{b} - {a}: {_gap(comparison)} points: {comparison['verdict']}"


def _gap(comparison: "Comparison") -> str:
    return _cell(comparison["difference"], _points)


def _statistics(metrics: "Metrics") -> tuple[list[tuple[str, str]], list[Column]]:
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


# report.html


class Picture(NamedTuple):
    """One figure on the page."""

    title: str
    file: str
    kind: str  # its file's name without the network's: see fmnist.captions
    caption: str
    alternative: str  # for who does not see it
    png: str  # base64


@dataclass(frozen=True)
class Section:
    """What the page says of one network."""

    title: str
    facts: list[tuple[str, str]]
    first_seed: str  # which seed is shown, where there are several
    config: Mapping[str, Mapping[str, Any]]
    pictures: list[Picture]
    confusion: list[list[int]]
    scores: list[Column]  # the classification report
    is_clickable: bool  # whether the images behind the confusion matrix are there


def write_report(
    path: Path | str,
    metrics: "Metrics",
    predictions: "Mapping[str, Predictions]",
    figures: Iterable[tuple[str, Path | str]],
    classes: Sequence[str],
) -> None:
    """Write the run as one HTML file that needs nothing but a browser: tables, figures, images behind them.

    `predictions` maps names of `metrics["models"]` to what the network of the confusion matrix makes of the test
    images, the same for all; empty where none was trained. `figures` are (title, PNG file). NAME_... goes to the
    network NAME; its NAME_confusion.png is left out where the page has it as a table to click in.
    Raises OSError, naming the file, if a figure cannot be read or `path` not written.
    """
    metrics = plain(metrics)
    rows, sprite = _embed(metrics["models"], predictions)
    pictures = _pictures(figures, metrics, predictions)
    columns = _columns(metrics)
    page = _environment().get_template("report.html.j2")
    text = page.render(
        metrics=metrics,
        facts=_facts(metrics),
        provenance=_provenance(metrics),
        columns=columns,
        legend=_legend(columns),
        warnings=_warnings(metrics),
        remarks=_remarks(metrics),
        statistics=_statistics(metrics),
        pictures=pictures[None],
        sections=[_section(metrics, name, pictures[name], classes, name in predictions) for name in metrics["models"]],
        classes=list(classes),
        sprite=sprite,
        embedded={"size": TILE, "perRow": TILES_PER_ROW, "classes": list(classes), "images": plain(rows)},
    )
    with atomic_write(path) as file:
        file.write(text.encode(errors="backslashreplace"))  # a path may hold any bytes


def add_figures(path: Path | str, figures: Iterable[tuple[str, Path | str]]) -> None:
    """Show `figures`, (title, PNG file), in the report at `path`, in place of those that were added before.

    Does nothing where there is no report, or one of an earlier version. Raises OSError, naming the file, if a figure
    cannot be read or `path` not written.
    """
    try:
        page = Path(path).read_bytes()
    except FileNotFoundError:
        return
    before, _, rest = page.partition(FIGURES_BEGIN)
    _, is_there, after = rest.partition(FIGURES_END)
    if is_there:
        pictures = [_picture(title, Path(file), Path(file).stem, {}) for title, file in figures]
        section = _environment().get_template("figures.html.j2").module.layer_section(pictures)
        with atomic_write(path) as file:
            file.write(before + FIGURES_BEGIN + section.encode(errors="backslashreplace") + FIGURES_END + after)


def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader

    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)


def _facts(metrics: "Metrics") -> list[tuple[str, str]]:
    """What the run was: at the head of the page."""
    optional = {"processor": "Processor", "release": "Release of the data set"}
    seeds = max(map(_seeds, metrics["models"].values()), default=1)
    first = metrics["seed"]
    return [
        ("Recipe", metrics["recipe"]),
        ("Seed", str(first)) if seeds == 1 else ("Seeds", f"{first} to {first + seeds - 1}"),
        *((name.capitalize(), str(metrics[name])) for name in ("device", "precision", "threads")),
        ("Data", metrics["data"]["source"]),
        *((label, metrics[key]) for key, label in optional.items() if key in metrics),
    ]


def _provenance(metrics: "Metrics") -> list[tuple[str, str]]:
    """When, how and with what the run was made: at the foot of the page."""
    versions = ", ".join(f"{name} {version}" for name, version in metrics["versions"].items())
    known = [(key.capitalize(), metrics[key]) for key in ("created", "command", "commit") if key in metrics]
    return [*known, ("Versions", versions)]


def _section(
    metrics: "Metrics", name: str, pictures: list[Picture], classes: Sequence[str], is_clickable: bool
) -> Section:
    model = metrics["models"][name]
    first_seed = f"{_first_seed(model)}, as are the weights in {name}.pth" if "seeds" in model else ""
    headline = f"Test accuracy, %, mean of {_seeds(model)} seeds" if "seeds" in model else "Test accuracy, %"
    facts = [
        (headline, _accuracy(model)),
        ("Parameters", f"{model['parameters']:,}"),
        ("Multiply-adds per image", f"{model['multiply_adds']:,}"),
        ("Epochs", str(len(model["epochs"]))),
        ("Seconds per epoch", _cell(_measured(model, "seconds_per_epoch"), "{:.1f}".format)),
    ]
    return Section(
        title=model["title"],
        facts=facts,
        first_seed=first_seed,
        config=model["config"],
        pictures=pictures,
        confusion=model["confusion"],
        scores=_classification_report(model, classes),
        is_clickable=is_clickable,
    )


def _classification_report(model: "Model", classes: Sequence[str]) -> list[Column]:
    """Precision, recall, F1 and support as scikit-learn's classification_report lays them out."""
    support = model["per_class"]["support"]
    images, count = sum(support), len(support)
    columns = [Column("class", "name", [*classes, "accuracy", "macro avg", "weighted avg"])]
    for key, header in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
        scores = model["per_class"][key]
        weighted = sum(score * n for score, n in zip(scores, support, strict=True)) / images
        accuracy = f"{model['test_accuracy']:.3f}" if key == "f1" else ""
        averages = [accuracy, f"{sum(scores) / count:.3f}", f"{weighted:.3f}"]
        columns.append(Column(header, "measured", [*(f"{score:.3f}" for score in scores), *averages]))
    columns.append(Column("support", "difference", [f"{n:,}" for n in (*support, images, images, images)]))
    return columns


# Figures on the page


def _pictures(
    figures: Iterable[tuple[str, Path | str]], metrics: "Metrics", clickable: Iterable[str]
) -> dict[str | None, list[Picture]]:
    """Sort the figures under the network their file name begins with, or None."""
    models = metrics["models"]
    placed: dict[str | None, list[Picture]] = {None: [], **{name: [] for name in models}}
    for title, path in figures:
        stem = Path(path).stem
        owner = max((name for name in models if stem.startswith(f"{name}_")), key=len, default=None)
        kind = stem.removeprefix(f"{owner}_") if owner else stem
        if not (kind == "confusion" and owner in clickable):
            shown = {owner: models[owner]} if owner else models
            placed[owner].append(_picture(title, Path(path), kind, shown, metrics.get("statistics", {})))
    return placed


def _picture(
    title: str, path: Path, kind: str, models: "Mapping[str, Model]", statistics: Mapping[str, Any] | None = None
) -> Picture:
    return Picture(
        title=title,
        file=path.name,
        kind=kind,
        caption=caption(kind, models),
        alternative=alternative(kind, models, statistics or {}) or title,
        png=base64.b64encode(path.read_bytes()).decode(),
    )


# The test images behind the confusion matrices


def _embed(names: Iterable[str], predictions: "Mapping[str, Predictions]") -> tuple[list[list[tuple]], str]:
    """What the page shows of the test images: for each network a row per image, and the images as one PNG, base64."""
    import numpy as np

    chosen = {name: _choose(own) for name, own in predictions.items()}
    if not chosen:
        return [], ""
    shown = np.unique(np.concatenate(list(chosen.values())))
    rows = [_rows(predictions[name], chosen[name], shown) if name in chosen else [] for name in names]
    return rows, _sprite(next(iter(predictions.values())).images[shown])


def _choose(predictions: "Predictions") -> "np.ndarray":
    """The indices of the images to embed: the errors, and of the correct ones from most to least confident; sorted."""
    import numpy as np

    order = np.argsort(-predictions.probabilities.max(axis=1), kind="stable")
    cells = predictions.labels[order] * predictions.probabilities.shape[1] + predictions.classes[order]
    correct, chosen = predictions.correct, []
    for cell in np.unique(cells):
        members = order[cells == cell]
        if correct[members[0]]:
            members = members[np.unique(np.linspace(0, len(members) - 1, CORRECT_SHOWN).astype(int))]
        chosen.append(members[:INCORRECT_SHOWN])
    return np.sort(np.concatenate(chosen))


def _rows(predictions: "Predictions", chosen: "np.ndarray", shown: "np.ndarray") -> list[tuple]:
    """Per image: index, tile, true class, predicted class, probability of the predicted, of the true."""
    import numpy as np

    probabilities, rows = predictions.probabilities[chosen].astype(float).round(4), np.arange(len(chosen))
    true, predicted = predictions.labels[chosen], predictions.classes[chosen]
    tiles = np.searchsorted(shown, chosen)
    fields = (chosen, tiles, true, predicted, probabilities[rows, predicted], probabilities[rows, true])
    return list(zip(*(field.tolist() for field in fields), strict=True))


def _sprite(images: "np.ndarray") -> str:
    """The `images`, uint8 [N, 28, 28], as tiles of one PNG, in base64."""
    import numpy as np
    from PIL import Image

    rows = -(-len(images) // TILES_PER_ROW)
    tiles = np.zeros((rows * TILES_PER_ROW, TILE, TILE), np.uint8)
    tiles[: len(images)] = images
    sheet = tiles.reshape(rows, TILES_PER_ROW, TILE, TILE).swapaxes(1, 2)
    png = BytesIO()
    Image.fromarray(sheet.reshape(rows * TILE, TILES_PER_ROW * TILE)).save(png, "PNG")
    return base64.b64encode(png.getvalue()).decode()
