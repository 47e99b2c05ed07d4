"""comparison.html: runs side by side, and for any two networks the test images that only one of them gets right.

One file that needs nothing but a browser. What comes from outside is escaped on its way out.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fmnist.comparison import Compared, StoredTrial, in_words
from fmnist.files import plain, write_text
from fmnist.page import TILE, TILES_PER_ROW, environment, look_at_image, sprite_of
from fmnist.remarks import comparison_in_words, release_warnings
from fmnist.tables import Column, bullets, cell, markdown, spread_text


class Told(NamedTuple):
    """What is said of a comparison, in text."""

    columns: list[Column]
    warnings: list[str]
    remarks: list[str]


def tell(compared: Compared, content: dict[str, Any]) -> Told:
    """Put a comparison, whose numbers are `content`, into words."""
    lines = [comparison_in_words(content, comparison) for comparison in content["comparisons"]]
    return Told(_columns(compared), release_warnings(content), [*content["notes"], *lines])


def _columns(compared: Compared) -> list[Column]:
    entries, settings = compared.entries, compared.differences()
    validation = [entry.validation for entry in entries]
    scores = {
        "Validation %": [cell(one, spread_text) for one in validation] if any(validation) else [],
        "Test %": [spread_text(entry.over("test_accuracy")) for entry in entries],
        "Test loss": [f"{entry.over('test_loss').mean:.4f}" for entry in entries],
        "Parameters": [f"{entry.trials[0].row['parameters']:,}" for entry in entries],
        "Epochs": [f"{entry.over('epochs').mean:,g}" for entry in entries],
        "Seconds": [f"{entry.over('training_seconds').mean:,.1f}" for entry in entries],
    }
    columns = [
        Column("Network", "name", [entry.title for entry in entries]),
        Column("Run", "setting", [", ".join(entry.runs) for entry in entries]),
        Column("Seeds", "number", [str(len(entry.trials)) for entry in entries]),
    ]
    for header, cells in scores.items():
        if cells:
            columns.append(Column(header, "measured" if header.endswith(" %") else "number", cells))
    return [*columns, Column("Differs in", "setting", [in_words(settings[entry.name]) for entry in entries])]


def table(told: Told) -> str:
    """The comparison as Markdown that reads well in a terminal."""
    return f"{markdown(told.columns)}\n\n{bullets([*told.warnings, *told.remarks])}"


def write(path: Path | str, compared: Compared, told: Told, classes: Sequence[str]) -> None:
    """Write comparison.html. Raises OSError, naming `path`, if it cannot be written."""
    shown, embedded = _embedded(compared)
    first_trials = [entry.trials[0] for entry in compared.entries]
    page = environment().get_template("comparison.html.j2")
    text = page.render(
        told=told,
        titles=[entry.title for entry in compared.entries],
        runs=list(dict.fromkeys(str(trial.run) for entry in compared.entries for trial in entry.trials)),
        sprite=sprite_of(first_trials[0].images[shown]) if len(shown) else "",
        embedded=plain({"size": TILE, "perRow": TILES_PER_ROW, "classes": list(classes), **embedded}),
        look=look_at_image(
            (str(one.run / f"{one.record['name']}.pth"), one.record["settings"]) for one in first_trials
        ),
    )
    write_text(path, text)


def _embedded(compared: Compared) -> tuple[np.ndarray, dict[str, Any]]:
    """Which test images are shown, int64 [N], and what each network makes of them.

    Those that some networks get right and others do not; of each network the trial of one seed.
    """
    chosen = [compared.first(entry) for entry in compared.entries]
    predicted, confidence = map(np.stack, zip(*map(_likeliest, chosen), strict=True))  # [networks, T]
    labels = chosen[0].predictions.labels
    correct = predicted == labels
    shown = np.flatnonzero(correct.any(axis=0) & ~correct.all(axis=0))
    networks = [
        {
            "title": entry.title,
            "seed": trial.seed,
            "correct": correct[n].sum(),
            "predicted": predicted[n, shown],
            "percent": (100 * confidence[n, shown]).round(),
        }
        for n, (entry, trial) in enumerate(zip(compared.entries, chosen, strict=True))
    ]
    return shown, {"count": len(labels), "indices": shown, "labels": labels[shown], "networks": networks}


def _likeliest(trial: StoredTrial) -> tuple[np.ndarray, np.ndarray]:
    """The class that a network predicts of each test image, uint8 [T], and its probability, float32 [T]."""
    probabilities = trial.predictions.probabilities
    return probabilities.argmax(axis=1).astype(np.uint8), probabilities.max(axis=1)
