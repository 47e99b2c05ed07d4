"""Pictures of one training and its outcome: curves, confusion, examples. Arrays in, PNG out; nothing is trained here.

Every function writes one PNG, whole or not at all, and returns its Figure. Networks go by their names, which choose
their colours; `titles` says what the legend calls them. Accuracies are fractions.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from fmnist.figures.style import (
    BLUE,
    GREY,
    MARKERS,
    PALE,
    VERMILION,
    Board,
    board,
    broken,
    colours,
    legend_below,
    matrix,
    places,
    sheet,
    spread,
)

Histories = Mapping[str, Sequence[Mapping[str, Any]]]  # network name -> the dict of numbers of each epoch
VALIDATION = (0, (4, 2))  # the dashes of everything measured on held-out images
# Around the epoch whose weights are scored.
RING = {"marker": "o", "ms": 13, "mfc": "none", "mew": 1.6, "linestyle": ""}
STAR = {"marker": "*", "linestyle": ""}  # what was measured on the test images

CELL_WIDTH, CELL_HEIGHT = 1.62, 1.46  # inches for an image of a gallery and the words below it
GALLERY = (5, 6)  # rows and columns
EXAMPLES = (4, 4)


# Curves


def loss_curves(
    path: Path | str,
    histories: Histories,
    titles: Mapping[str, str] | None = None,
    palette: Mapping[str, str] | None = None,
    title: str = "Loss",
    steps_per_epoch: Mapping[str, int] | None = None,
) -> Figure:
    """Draw the training loss of each network and, dashed, its validation loss where there is one.

    With `steps_per_epoch`, by network name, the axis counts steps, and a thin line shows the training loss within each
    epoch ("train_loss_by_step": the means over equal parts of the epoch). Where one network takes more than four times
    the steps of another, that axis is logarithmic.
    """
    palette = palette or colours(histories)
    with sheet(path, 8, 5, title) as figure:
        axes = figure.subplots()
        validated = _has(histories, "validation_loss")
        axes.set(xlabel="step" if steps_per_epoch else "epoch", ylabel="loss" if validated else "training loss")
        for name, history in histories.items():
            steps = (steps_per_epoch or {}).get(name, 1)
            if steps_per_epoch:
                _within_epochs(axes, history, palette[name], steps)
            # The training loss is the mean over an epoch: where steps are counted, it stands in the epoch's middle.
            _curve(axes, history, "train_loss", palette[name], steps, shift=-0.5 if steps_per_epoch else 0.0)
            _curve(axes, history, "validation_loss", palette[name], steps, linestyle=VALIDATION)
        lengths = [len(history) * (steps_per_epoch or {}).get(name, 1) for name, history in histories.items()]
        if steps_per_epoch and max(lengths) > 4 * min(lengths):
            axes.set_xscale("log")  # else the shorter trainings would be squeezed against the left edge
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        else:
            _whole_numbers(axes)
        _legend(figure, histories, titles, palette, _kinds(histories, "validation_loss"))
    return figure


def accuracy_curves(
    path: Path | str,
    histories: Histories,
    test_accuracies: Mapping[str, float],
    titles: Mapping[str, str] | None = None,
    title: str = "Accuracy",
) -> Figure:
    """Draw each network's accuracy in training and, dashed, on the validation images where there are some.

    The test accuracy, measured once, is a star at the epoch of the scored weights, with its value in the right margin.
    """
    palette = colours(histories)
    with sheet(path, 8, 5, title) as figure:
        axes = figure.subplots()
        axes.set(xlabel="epoch", ylabel="accuracy")
        for name, history in histories.items():
            _curve(axes, history, "train_accuracy", palette[name])
            _curve(axes, history, "validation_accuracy", palette[name], linestyle=VALIDATION)
        _stars(axes, histories, test_accuracies, palette)
        _whole_numbers(axes)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        kinds = _kinds(histories, "validation_accuracy") | {"test": STAR | {"ms": 13}}
        _legend(figure, histories, titles, palette, kinds)
    return figure


def model_comparison(
    path: Path | str,
    histories: Histories,
    test_accuracies: Mapping[str, float],
    published: Mapping[str, float | None] | None = None,
    titles: Mapping[str, str] | None = None,
    title: str = "Comparison",
) -> Figure:
    """Draw loss and accuracy of every network in training and on the validation images, in 2 x 2 panels.

    Rings stand around the best epochs, whose weights are scored. The legend gives each network's test accuracy, and
    the published one where there is one.
    """
    palette, published = colours(histories), published or {}
    with sheet(path, 11, 8.6, title) as figure:
        panels = figure.subplots(2, 2, sharey="row")
        for row, quantity in enumerate(("loss", "accuracy")):
            for column, part in enumerate(("training", "validation")):
                axes, key = panels[row, column], f"{('train', 'validation')[column]}_{quantity}"
                axes.set(title=f"{part} {quantity}", xlabel="epoch" if row else "")
                for name, history in histories.items():
                    _curve(axes, history, key, palette[name])
                _whole_numbers(axes)
                if not axes.lines:
                    axes.set(xticks=[], xlabel="")
                    axes.text(0.5, 0.5, f"no {part} {quantity} was measured", transform=axes.transAxes, ha="center")
        panels[1, 0].yaxis.set_major_formatter(PercentFormatter(1))
        handles = []
        for name in histories:
            known = {"test": test_accuracies.get(name), "published": published.get(name)}
            scores = [f"{word} {value:.2%}" for word, value in known.items() if value is not None]
            handles.append(_line(palette[name], ", ".join([(titles or {}).get(name, name), *scores])))
        if _rings(histories):
            handles.append(Line2D([], [], color=GREY, label="best epoch", **RING))
        legend_below(figure, handles)
    return figure


def _values(history: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """One value per epoch, NaN where it is missing."""
    return np.array([epoch.get(key) for epoch in history], dtype=float)


def _has(histories: Histories, key: str) -> bool:
    return any(np.isfinite(_values(history, key)).any() for history in histories.values())


def _line(colour: str, label: str) -> Line2D:
    return Line2D([], [], color=colour, marker=MARKERS.get(colour, "o"), label=label)


def _curve(
    axes: Axes,
    history: Sequence[Mapping[str, Any]],
    key: str,
    colour: str,
    steps: int = 1,
    shift: float = 0.0,
    linestyle: Any = "-",
) -> None:
    """Draw one value per epoch, if there are any; the markers thin out where epochs are many."""
    values = _values(history, key)
    if np.isfinite(values).any():
        along = (np.arange(1, len(values) + 1) + shift) * steps
        every = -(-len(values) // 25)
        marker = MARKERS.get(colour, "o")
        axes.plot(along, values, color=colour, linestyle=linestyle, marker=marker, markevery=every)
        best = [epoch.get("best", False) for epoch in history]
        if key.startswith("validation") and any(best):
            axes.plot(along[best], values[best], color=colour, **RING)


def _within_epochs(axes: Axes, history: Sequence, colour: str, steps: int) -> None:
    """Draw the means over equal parts of each epoch, each at the middle of its part."""
    parts = [epoch.get("train_loss_by_step") or [] for epoch in history]
    along = [steps * (n + (i + 0.5) / len(part)) for n, part in enumerate(parts) for i in range(len(part))]
    axes.plot(along, [value for part in parts for value in part], color=colour, linewidth=1, alpha=0.6)


def _stars(axes: Axes, histories: Histories, accuracies: Mapping[str, float], palette: Mapping[str, str]) -> None:
    """Mark each network's test accuracy at its best epoch, else its last, and write it in the right margin."""
    names = [name for name in histories if accuracies.get(name) is not None]
    for name in names:
        best = [n for n, epoch in enumerate(histories[name], start=1) if epoch.get("best")]
        scored = best[0] if best else max(1, len(histories[name]))
        axes.plot(scored, accuracies[name], color=palette[name], ms=15, mec="white", zorder=5, **STAR)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    margin = axes.get_yaxis_transform()
    for name, height in zip(names, spread([accuracies[name] for name in names], (high - low) * 0.05), strict=True):
        axes.plot(1.012, height, color=palette[name], ms=9, transform=margin, clip_on=False, **STAR)
        axes.text(1.028, height, f"{accuracies[name]:.2%}", transform=margin, va="center")


def _whole_numbers(axes: Axes) -> None:
    """Mark whole epochs or steps only; a single epoch stands in the middle."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    if all(np.all(np.asarray(line.get_xdata()) <= 1) for line in axes.lines):
        axes.set_xlim(0.5, 1.5)


def _rings(histories: Histories) -> bool:
    return any(epoch.get("best") for history in histories.values() for epoch in history)


def _kinds(histories: Histories, key: str) -> dict[str, dict[str, Any]]:
    """The kinds of line in a figure whose dashed curves show `key`, and how the legend draws them."""
    kinds: dict[str, dict[str, Any]] = {"training": {}}
    if _has(histories, key):
        kinds["validation"] = {"linestyle": VALIDATION}
    if _rings(histories):
        kinds["best epoch"] = RING
    return kinds


def _legend(
    figure: Figure,
    names: Sequence[str],
    titles: Mapping[str, str] | None,
    palette: Mapping[str, str],
    kinds: Mapping[str, dict[str, Any]],
) -> None:
    """Tell the networks by colour and marker, and what was measured by the kind of line, if there are several."""
    handles = [_line(palette[name], (titles or {}).get(name, name)) for name in names]
    for label, how in kinds.items() if len(kinds) > 1 else ():
        handles.append(Line2D([], [], color=GREY, label=label, **how))
    legend_below(figure, handles)


# Confusion


def confusion_matrix(
    path: Path | str,
    confusion: np.ndarray,
    per_class: Mapping[str, Sequence[float]],
    classes: Sequence[str],
    title: str,
) -> Figure:
    """Draw the counts of `confusion` [C, C], rows true, with recall, precision and accuracy beside them."""
    confusion = np.asarray(confusion)
    # A power below one lifts the few mistakes out of the white, which the hundreds on the diagonal would leave them in.
    shades = (confusion / max(1, confusion.max())) ** 0.4
    count, place = len(classes), len(classes) + 0.3
    with sheet(path, 9.2, 8.0, title) as figure:
        axes = figure.subplots()
        matrix(axes, shades, confusion.astype(str).tolist(), classes)
        _margin(axes, place, per_class["recall"], upright=False)
        _margin(axes, place, per_class["precision"], upright=True)
        accuracy = np.trace(confusion) / max(1, confusion.sum())
        axes.text(place, place, f"{accuracy:.2%}\nright", ha="center", va="center", fontsize=9.5, weight="bold")
        axes.set(xlim=(-0.5, place + 0.5), ylim=(place + 0.5, -0.5))
        axes.set_xticks([*range(count), place], [*map(broken, classes), "recall"])
        axes.set_yticks([*range(count), place], [*classes, "precision"])
        axes.set_xlabel("predicted class", labelpad=8, weight="bold")
        axes.set_ylabel("true class", labelpad=8, weight="bold")
    return figure


def _margin(axes: Axes, place: float, shares: Sequence[float], upright: bool) -> None:
    """Write one share per class in a row or column of cells beside the matrix, each filled up to its share."""
    draw, across, along = (axes.bar, "width", "bottom") if upright else (axes.barh, "height", "left")
    # Rows count downwards, so that an upright bar grows from the lower edge of its cell with a negative length.
    edge, direction = (place + 0.45, -0.9) if upright else (place - 0.45, 0.9)
    numbers = np.arange(len(shares))
    for lengths, colour in ((np.ones(len(shares)), "#f0f0f0"), (np.asarray(shares, float), "#f3c98b")):
        draw(numbers, lengths * direction, color=colour, **{across: 0.9, along: edge})
    for number, share in enumerate(shares):
        x, y = (number, place) if upright else (place, number)
        axes.text(x, y, f"{share:.1%}", ha="center", va="center", fontsize=8.5)


# Examples


def examples(
    path: Path | str,
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    title: str,
) -> Figure:
    """Draw images [N, 28, 28] that the network gets right on the left, and ones that it gets wrong on the right."""
    rows, columns = EXAMPLES
    width = columns * CELL_WIDTH
    with board(path, 2 * width + 0.7, rows * CELL_HEIGHT + 1.0, title) as page:
        _gallery(page, 0.15, EXAMPLES, True, images, labels, probabilities, classes)
        _gallery(page, width + 0.55, EXAMPLES, False, images, labels, probabilities, classes)
        page.axes.plot([width + 0.35] * 2, [0.55, rows * CELL_HEIGHT + 0.85], color=PALE, linewidth=1)
    return page.figure


def gallery(
    path: Path | str,
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    title: str,
    correct: bool,
) -> Figure:
    """Draw images [N, 28, 28] that the network gets right, or ones that it gets wrong."""
    rows, columns = GALLERY
    with board(path, columns * CELL_WIDTH + 0.3, rows * CELL_HEIGHT + 1.0, title) as page:
        _gallery(page, 0.15, GALLERY, correct, images, labels, probabilities, classes)
    return page.figure


def _gallery(
    page: Board,
    left: float,
    shape: tuple[int, int],
    correct: bool,
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
) -> None:
    """Lay out some images that were classified rightly or wrongly, with true class, predicted class and probability."""
    rows, columns = shape
    predicted = probabilities.argmax(axis=1)
    indices = np.flatnonzero((predicted == labels) == correct)
    word, colour = ("right", BLUE) if correct else ("wrong", VERMILION)
    middle = left + columns * CELL_WIDTH / 2
    page.words(middle, 0.5, f"{word}: {len(indices):,} of {len(labels):,}", size=11, color=colour)
    if not len(indices):
        page.words(middle, 0.85 + rows * CELL_HEIGHT / 2, f"no image is classified {word}", size=11)
    indices = spread_over_classes(indices, labels, rows * columns)
    corners = places(len(indices), columns, left, 0.85, CELL_WIDTH, CELL_HEIGHT)
    for index, (x, y) in zip(indices, corners, strict=True):
        page.tile(images[index], x + (CELL_WIDTH - 1) / 2, y, 1.0, frame=colour)
        guess, middle = predicted[index], x + CELL_WIDTH / 2
        page.words(middle, y + 1.04, f"true {classes[labels[index]]}")
        text = f"predicted {classes[guess]} {probabilities[index, guess]:.0%}"
        page.words(middle, y + 1.19, text, color=colour)


def spread_over_classes(indices: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Choose up to `count` of `indices`: the first of each class, then the second of each, and so on; sort by class."""
    own = labels[indices]
    turn = np.zeros(len(indices), int)  # how many of the same class come before
    for label in np.unique(own):
        turn[own == label] = np.arange((own == label).sum())
    chosen = np.lexsort((indices, own, turn))[:count]
    return indices[chosen[np.lexsort((indices[chosen], own[chosen]))]]
