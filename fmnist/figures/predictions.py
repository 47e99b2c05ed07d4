"""Pictures of what a network predicts: the confusion matrix, and galleries of correct and incorrect predictions.

Every function writes one PNG, whole or not at all, and returns its Figure.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmnist.data import CLASSES
from fmnist.evaluation import Predictions
from fmnist.figures.style import BLUE, GREY, VERMILION, Board, Box, board, cells, heatmap, name_classes, sheet
from fmnist.metrics import Mistakes, PerClass

CELL = Box(0.15, 1.0, 1.62, 1.58)  # the first of a gallery: an image and the words below it
IMAGE = 1.1  # inches
GALLERY, EXAMPLES, MISTAKES = (5, 6), (4, 4), (5, 8)  # rows and columns


def confusion_matrix(path: Path | str, confusion: np.ndarray, per_class: PerClass, title: str) -> Figure:
    """Draw the counts of `confusion` [10, 10], rows true, with recall, precision and accuracy in the margins."""
    confusion = np.asarray(confusion)
    # A power below one lifts the few errors out of the white, which the hundreds on the diagonal would leave them in.
    shades = (confusion / max(1, confusion.max())) ** 0.4
    count = len(CLASSES)
    with sheet(path, 10, 8.4, title) as figure:
        axes = figure.subplots()
        heatmap(axes, shades, confusion.astype(str))
        name_classes(axes, CLASSES, CLASSES)
        _margin(axes, per_class["recall"], upright=False)
        _margin(axes, per_class["precision"], upright=True)
        middle = count + 0.8  # of the margins
        accuracy = np.trace(confusion) / max(1, confusion.sum())
        axes.text(middle, middle, f"{accuracy:.2%}\ncorrect", ha="center", va="center", size=11, weight="bold")
        axes.text(middle, -0.08, "recall", ha="center", va="bottom")
        axes.text(-0.08, middle, "precision", ha="right", va="center")
        axes.set(xlim=(0, count + 1.3), ylim=(count + 1.3, 0))
        axes.set_xlabel("predicted class", labelpad=8, weight="bold")
        axes.set_ylabel("true class", labelpad=8, weight="bold")
    return figure


def _margin(axes: Axes, scores: Sequence[float], upright: bool) -> None:
    """Write one score per class in a row or column of cells beside the matrix, each filled up to its score."""
    draw, across, along = (axes.bar, "width", "bottom") if upright else (axes.barh, "height", "left")
    middle, places = len(scores) + 0.8, np.arange(len(scores)) + 0.5
    # Rows count downwards, so that an upright bar grows from the lower edge of its cell with a negative length.
    edge, direction = (middle + 0.45, -0.9) if upright else (middle - 0.45, 0.9)
    for lengths, colour in ((np.ones(len(scores)), "#f0f0f0"), (np.asarray(scores, float), "#f3c98b")):
        draw(places, lengths * direction, color=colour, **{across: 0.9, along: edge})
    for place, score in zip(places, scores, strict=True):
        x, y = (place, middle) if upright else (middle, place)
        axes.text(x, y, f"{score:.1%}", ha="center", va="center")


def examples(path: Path | str, predictions: Predictions, title: str) -> Figure:
    """Draw images that are predicted correctly on the left, and ones predicted incorrectly on the right."""
    rows, columns = EXAMPLES
    width = columns * CELL.width
    with board(path, 2 * width + 0.7, rows * CELL.height + 1.1, title) as page:
        _gallery(page, 0.15, EXAMPLES, predictions, correct=True)
        _gallery(page, width + 0.55, EXAMPLES, predictions, correct=False)
        page.axes.plot([width + 0.35] * 2, [0.6, page.height - 0.2], color=GREY, linewidth=0.8)
    return page.figure


def gallery(path: Path | str, predictions: Predictions, title: str, correct: bool) -> Figure:
    """Draw images that are predicted correctly, or ones that are not."""
    rows, columns = GALLERY
    with board(path, columns * CELL.width + 0.3, rows * CELL.height + 1.1, title) as page:
        _gallery(page, 0.15, GALLERY, predictions, correct)
    return page.figure


def _gallery(page: Board, left: float, shape: tuple[int, int], predictions: Predictions, correct: bool) -> None:
    """Lay out some correct or incorrect predictions, each with its true class, predicted class and probability."""
    rows, columns = shape
    indices = np.flatnonzero(predictions.correct == correct)
    word, colour = ("correct", BLUE) if correct else ("incorrect", VERMILION)
    middle, count = left + columns * CELL.width / 2, len(predictions.labels)
    page.words(middle, 0.5, f"{word}: {len(indices):,} of {count:,}", size=11, color=colour)
    if not len(indices):
        page.words(middle, 1.0 + rows * CELL.height / 2, f"no prediction is {word}", size=11)
        return
    page.words(middle, 0.71, "→ prediction and its probability", color=GREY)
    indices = spread_over_classes(indices, predictions.labels, rows * columns)
    classes = predictions.classes
    for index, cell in zip(indices, cells(len(indices), columns, CELL._replace(left=left)), strict=True):
        middle = cell.left + CELL.width / 2
        page.tile(predictions.images[index], Box(middle - IMAGE / 2, cell.top, IMAGE, IMAGE), frame=colour)
        guess = classes[index]
        page.words(middle, cell.top + IMAGE + 0.04, f"true {CLASSES[predictions.labels[index]]}")
        text = f"→ {CLASSES[guess]} {predictions.probabilities[index, guess]:.0%}"
        page.words(middle, cell.top + IMAGE + 0.21, text, color=colour)


def mistakes(path: Path | str, predictions: Predictions, made: Mistakes, title: str) -> Figure:
    """Draw the mistakes that a network is surest of, and say which have labels that look wrong to other networks."""
    rows, columns = MISTAKES
    place = CELL._replace(height=CELL.height + 0.2)
    with board(path, columns * place.width + 0.3, rows * place.height + 1.2, title) as page:
        said = f"{made['count']:,} mistakes on {len(predictions.labels):,} test images"
        page.words(
            page.width / 2, 0.5, f"{said}; the labels of {made['suspected']:,} of them look wrong to other networks"
        )
        shown = min(len(made["surest"]), rows * columns)
        words = f"the {shown} surest: number, label, → prediction and its probability" if shown else "no mistake"
        page.words(page.width / 2, 0.71, words, color=GREY)
        places = cells(shown, columns, place)
        for index, is_suspect, cell in zip(made["surest"], made["surest_suspected"], places, strict=False):
            middle, guess = cell.left + cell.width / 2, predictions.classes[index]
            colour = VERMILION if is_suspect else BLUE
            page.tile(predictions.images[index], Box(middle - IMAGE / 2, cell.top, IMAGE, IMAGE), frame=colour)
            page.words(middle, cell.top + IMAGE + 0.04, f"{index}: {CLASSES[predictions.labels[index]]}")
            text = f"→ {CLASSES[guess]} {predictions.probabilities[index, guess]:.0%}"
            page.words(middle, cell.top + IMAGE + 0.21, text)
            verdict = "label looks wrong" if is_suspect else "label looks right"
            page.words(middle, cell.top + IMAGE + 0.38, verdict, color=colour)
    return page.figure


def spread_over_classes(indices: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Choose up to `count` of `indices`: the first of each class, then the second of each, and so on; sort by class."""
    own = labels[indices]
    turn = np.zeros(len(indices), int)  # how many of the same class come before
    for label in np.unique(own):
        turn[own == label] = np.arange((own == label).sum())
    chosen = np.lexsort((indices, own, turn))[:count]
    return indices[chosen[np.lexsort((indices[chosen], own[chosen]))]]
