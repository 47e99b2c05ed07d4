"""The picture of why a network answers as it does. Arrays in, PNG out."""

from pathlib import Path
from textwrap import wrap

import numpy as np
from matplotlib.figure import Figure

from fmnist.data import CLASSES
from fmnist.explanations import INTEGRATED_GRADIENTS, Explanation
from fmnist.figures.style import GREY, Board, Box, board, signed_scale

TILE, STEP = 1.9, 2.15  # inches: a map, and from one to the next
LEFT, TOP = 2.55, 0.95  # inches to the first map
LINE = 0.2  # inches a line of words takes


def explanation(
    path: Path | str, sample: np.ndarray, explained: Explanation, probabilities: np.ndarray, title: str
) -> Figure:
    """Draw the maps of each method, a column, for each class that is explained, a row; each column has one scale.

    `sample` is the image, uint8 [28, 28], and `probabilities` [10] are what the network makes of it.
    """
    width = max(10.2, LEFT + len(explained.methods) * STEP + 0.15)
    lines = _lines(explained, int(width * 12))
    rows = len(explained.classes)
    below = TOP + rows * STEP + 0.75
    with board(path, width, below + len(lines) * LINE + 0.3, title) as page:
        for row, number in enumerate(explained.classes):
            _class(page, sample, f"{CLASSES[number]}\n{probabilities[number]:.1%}", TOP + row * STEP)
        for column, method in enumerate(explained.methods):
            left, scale = LEFT + column * STEP, signed_scale(method.maps)
            page.words(left + TILE / 2, TOP - 0.1, method.name, va="bottom", weight="bold")
            for row, values in enumerate(method.maps):
                page.tile(values, Box(left, TOP + row * STEP, TILE, TILE), scale)
            page.colour_bar(scale, Box(left + 0.2, below - 0.65, TILE - 0.4, 0.13), "")
        for number, line in enumerate(lines):
            page.words(0.35, below + number * LINE, line, ha="left", color=GREY)
    return page.figure


def _class(page: Board, sample: np.ndarray, words: str, top: float) -> None:
    """Lay the sample at the left of a row, and the class that is explained below it."""
    size = TILE - 0.4  # leaves room for the words
    page.tile(sample, Box(0.35, top, size, size))
    page.words(0.35 + size / 2, top + size + 0.04, words)


def _lines(explained: Explanation, longest: int) -> list[str]:
    """What each method shows, what is left out, and how complete integrated gradients are."""
    sentences = [f"{method.name}: {method.told}" for method in explained.methods]
    sentences.append(f"{INTEGRATED_GRADIENTS}: {explained.completeness}")
    sentences += [*explained.left_out, "Score: the logit of the row's class. Red speaks for it, blue against it."]
    return [line for each in sentences for line in wrap(each, longest, subsequent_indent="    ")]
