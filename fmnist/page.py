"""report.html: what a run found, on one page that needs nothing but a browser.

Made from the content of metrics.json and the networks' predictions. Titles, class names, file names and notes come from
outside: they are escaped on their way out.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fmnist.captions import alternative, caption, owner_and_kind
from fmnist.config import WITHOUT_TORCH
from fmnist.errors import command
from fmnist.files import atomic_write, plain, write_text
from fmnist.remarks import first_seed, release_warnings, remarks
from fmnist.results import looked_into
from fmnist.tables import (
    Column,
    accuracy_text,
    cell,
    effects_columns,
    epochs_text,
    legend,
    mean_of,
    results_columns,
    seed_count,
    statistics_columns,
)

if TYPE_CHECKING:
    import numpy as np
    from jinja2 import Environment

    from fmnist.evaluation import Predictions
    from fmnist.metrics import Metrics, Model

TILE = 28  # pixels: one test image in the sprite
TILES_PER_ROW = 50
CORRECT_SHOWN = 24  # of each cell on the diagonal
INCORRECT_SHOWN = 250  # of each other cell; a trained network stays below it, so that all its errors are shown
FIGURES_BEGIN, FIGURES_END = b"<!-- layer figures -->", b"<!-- end of layer figures -->"  # in report.html


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

    @property
    def errors(self) -> int:
        """How many images the network gets wrong: the page has not all of them where it gets most wrong."""
        return sum(map(sum, self.confusion)) - sum(row[n] for n, row in enumerate(self.confusion))


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
    networks = looked_into(metrics)
    rows, sprite = _embed(networks, predictions)
    pictures = _pictures(figures, metrics, predictions)
    columns, effects = results_columns(metrics), effects_columns(metrics)
    page = environment().get_template("report.html.j2")
    text = page.render(
        metrics=metrics,
        facts=_facts(metrics),
        provenance=_provenance(metrics),
        columns=columns,
        legend=legend(columns),
        effects=effects,
        effects_legend=legend(effects),
        warnings=release_warnings(metrics),
        remarks=remarks(metrics),
        statistics=statistics_columns(metrics),
        pictures=pictures[None],
        sections=[_section(metrics, name, pictures[name], classes, name in predictions) for name in networks],
        classes=list(classes),
        sprite=sprite,
        embedded={"size": TILE, "perRow": TILES_PER_ROW, "classes": list(classes), "images": plain(rows)},
        look=look_at_image((f"FOLDER/{name}.pth", metrics["models"][name]["config"]) for name in reversed(networks)),
    )
    write_text(path, text)


def add_figures(path: Path | str, figures: Iterable[tuple[str, Path | str]]) -> None:
    """Show `figures`, (title, PNG file), in the report at `path`, in place of those that were added before.

    A page among them, an HTML file beside the report, is linked to.

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
        files = [(title, Path(file)) for title, file in figures]
        pictures = [_picture(title, file, file.stem, {}) for title, file in files if file.suffix != ".html"]
        pages = [(title, file.name) for title, file in files if file.suffix == ".html"]
        section = environment().get_template("figures.html.j2").module.layer_section(pictures, pages)
        with atomic_write(path) as file:  # bytes, of which some are not of this version
            file.write(before + FIGURES_BEGIN + section.encode(errors="backslashreplace") + FIGURES_END + after)


def look_at_image(networks: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """The command that shows what the layers of a network make of a test image: of the first that torch trains.

    Of each of the `networks` it takes the place of the weights and the config; empty if torch trains none of them.
    Imports no class: a run that is compared may come from elsewhere, and name any.
    """
    for weights, config in networks:
        class_path = config["network"]["class"]
        if class_path not in WITHOUT_TORCH:
            own = ["--network", class_path] if ".py:" in class_path else []
            return command("kernel_vis.py", "--weights", weights, *own, "--index", "NUMBER")
    return ""


def environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader

    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)


def _facts(metrics: "Metrics") -> list[tuple[str, str]]:
    """What the run was: at the head of the page."""
    seeds = max(map(seed_count, metrics["models"].values()), default=1)
    first = metrics["seed"]
    return [
        ("Recipe", metrics["recipe"]),
        ("Seed", str(first)) if seeds == 1 else ("Seeds", f"{first} to {first + seeds - 1}"),
        *((name.capitalize(), str(metrics[name])) for name in ("device", "precision", "threads")),
        ("Processor", metrics["processor"]),
        ("Data", metrics["data"]["source"]),
    ]


def _provenance(metrics: "Metrics") -> list[tuple[str, str]]:
    """When, how and with what the run was made: at the foot of the page."""
    versions = ", ".join(f"{name} {version}" for name, version in metrics["versions"].items())
    return [*((key.capitalize(), metrics[key]) for key in ("created", "command", "commit")), ("Versions", versions)]


def _section(
    metrics: "Metrics", name: str, pictures: list[Picture], classes: Sequence[str], is_clickable: bool
) -> Section:
    model = metrics["models"][name]
    kept = f"{first_seed(model)}, as are the weights in {name}.pth" if "seeds" in model else ""
    headline = f"Test accuracy, %, mean of {seed_count(model)} seeds" if "seeds" in model else "Test accuracy, %"
    facts = [
        (headline, accuracy_text(model)),
        ("Parameters", f"{model['parameters']:,}"),
        ("Multiply-adds per image", f"{model['multiply_adds']:,}"),
        ("Epochs", epochs_text([model])),
        ("Seconds per epoch", cell(mean_of(model, "seconds_per_epoch"), "{:.1f}".format)),
    ]
    return Section(
        title=model["title"],
        facts=facts,
        first_seed=kept,
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
        owner, kind = owner_and_kind(Path(path).stem, models)
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
    return rows, sprite_of(next(iter(predictions.values())).images[shown])


def _choose(predictions: "Predictions") -> "np.ndarray":
    """The indices of the images to embed: the errors, and of the correct ones from most to least confident; sorted."""
    import numpy as np

    order = np.argsort(-predictions.probabilities.max(axis=1), kind="stable")
    cells = predictions.labels[order] * predictions.probabilities.shape[1] + predictions.classes[order]
    correct, chosen = predictions.correct, []
    for number in np.unique(cells):
        members = order[cells == number]
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


def sprite_of(images: "np.ndarray") -> str:
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
