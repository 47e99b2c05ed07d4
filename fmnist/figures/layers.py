"""Pictures of what a convolutional network has learnt and sees: kernels, feature maps, activations, a photograph.

Arrays in, PNG out. Every function writes one PNG, whole or not at all, and returns its Figure. In all of them blue is
negative, white is zero and red is positive; the sample and photographs are grey as they are.
"""

from collections.abc import Sequence
from itertools import groupby
from math import ceil
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from fmnist.activations import Stage
from fmnist.data import CLASSES
from fmnist.figures.style import BLUE, DPI, GREY, Board, Box, board, cells, signed_scale
from fmnist.photograph import Step

SHOWN = 64  # kernels or maps of one layer at most: more would be too small to see
CHANNELS = 8  # maps of each stage in the progression
ROBUST = 0.995  # fraction of a map's values within its colour scale: a few extremes would leave the rest pale
CAPTION, NUMBERS = 2.6, 0.22  # inches for the words on the left of a stage's maps, and for the channels' numbers above
LARGEST_STEP = 2.6  # inches, with its margin, of what a photograph becomes
LONGEST = 26  # characters of a stage's name that the caption has room for
LEFT, RIGHT = 2.2, 3.1  # inches for the sample and for the prediction


def kernels_grid(path: Path | str, kernels: np.ndarray, title: str) -> Figure:
    """Draw the kernels [O, I, h, w] of one convolution on one scale; of several input channels, their mean."""
    kernels = np.asarray(kernels)
    count, inputs, height, width = kernels.shape
    shown = kernels[:SHOWN].mean(axis=1)
    scale = signed_scale(shown)
    columns = min(8, len(shown))
    rows = ceil(len(shown) / columns)
    across = max(6.4, columns * 1.0 + 0.4)
    with board(path, across, rows * 1.18 + 1.75, title) as page:
        which = f"{len(shown)} of {count} kernels" if len(shown) < count else f"{count} kernels"
        averaged = f", each the mean over its {inputs} input channels" if inputs > 1 else ""
        page.words(across / 2, 0.5, f"{which} of {height} x {width}{averaged}")
        first = Box((across - columns) / 2, 0.9, 1.0, 1.18)
        for number, (left, top, *_) in enumerate(cells(len(shown), columns, first)):
            page.words(left + 0.5, top + 0.2, str(number), va="bottom")
            page.tile(shown[number], Box(left + 0.06, top + 0.22, 0.88, 0.88), scale)
        bar = Box(across / 2 - 1.5, rows * 1.18 + 1.28, 3.0, 0.13)
        page.colour_bar(scale, bar, "weight, one scale for all kernels")
    return page.figure


def features_grid(
    path: Path | str, sample: np.ndarray, maps: np.ndarray, kernels: np.ndarray | None, title: str
) -> Figure:
    """Draw the sample, uint8 [28, 28], and the maps [C, h, w] that a layer makes of it, on one scale.

    With `kernels` [C, k, k] each map stands beside the kernel that made it.
    """
    shown = np.asarray(maps[:SHOWN])
    scale, side = signed_scale(shown, ROBUST), 0.46 if kernels is not None else 0.0
    columns = min(8, len(shown))
    rows, first = ceil(len(shown) / columns), Box(2.35, 0.6, 1.1 + side, 1.34)
    across = max(6.4, 2.5 + columns * first.width)
    with board(path, across, max(4.4, 0.75 + rows * first.height), title) as page:
        _sample(page, sample, f"{len(shown)} of {len(maps)} maps" if len(shown) < len(maps) else f"{len(maps)} maps")
        page.colour_bar(scale, Box(0.35, 3.1, 1.5, 0.13), "map: value")
        if kernels is not None:
            kernels = np.asarray(kernels[:SHOWN])
            kernel_scale = signed_scale(kernels)
            page.colour_bar(kernel_scale, Box(0.35, 3.8, 1.5, 0.13), "kernel: weight")
        for number, (left, top, *_) in enumerate(cells(len(shown), columns, first)):
            word = "channel" if kernels is None else "kernel"
            page.words(left + side + 0.5, top + 0.2, f"{word} {number}", va="bottom")
            if kernels is not None:
                page.tile(kernels[number], Box(left + 0.02, top + 0.22, 0.4, 0.4), kernel_scale)
            page.tile(shown[number], Box(left + side, top + 0.22, 1.0, 1.0), scale)
    return page.figure


def _sample(page: Board, sample: np.ndarray, note: str) -> None:
    """Lay the sample at the left of a board."""
    page.words(1.1, 0.77, "sample", va="bottom")
    page.tile(sample, Box(0.35, 0.8, 1.5, 1.5))
    page.words(1.1, 2.38, note)


# Activations by layer


class Row(NamedTuple):
    """One stage of a progression."""

    number: int  # from 1
    stage: Stage
    channels: np.ndarray  # which of its maps are shown
    numbered: bool  # whether the channels' numbers stand above them: once for all rows that show the same


def progression(
    path: Path | str, sample: np.ndarray, stages: Sequence[Stage], probabilities: np.ndarray, title: str
) -> Figure:
    """Draw the way of the sample, uint8 [28, 28], through the stages to the class probabilities [10].

    A row is a stage. A column follows one channel from a convolution to the last stage before the next convolution;
    many stages stand in up to three blocks, to be read down and then to the right. Each row has its own colour scale.
    """
    blocks = 1 if len(stages) <= 12 else 2 if len(stages) <= 36 else 3
    size = 0.82 if blocks == 1 else 0.6  # of a map, inches
    columns = _in_blocks(follow_channels(stages), blocks)
    width = CAPTION + CHANNELS * (size + 0.1) + 0.2
    down = 1.0 + max(sum(_height(row, size) for row in column) for column in columns)
    with board(path, LEFT + len(columns) * width + RIGHT, max(5.6, down), title) as page:
        _sample(page, sample, "blue: negative\nwhite: zero\nred: positive\n\none scale for\neach row")
        for block, column in enumerate(columns):
            top = 0.6
            for row in column:
                _stage(page, row, Box(LEFT + block * width, top, size, size))
                top += _height(row, size)
        left = LEFT + len(columns) * width
        page.words(left + 1.65, 0.77, "prediction", va="bottom")
        _bars(page.inset(Box(left + 0.95, 0.9, 1.4, 3.9)), probabilities, CLASSES)
    return page.figure


def follow_channels(stages: Sequence[Stage]) -> list[Row]:
    """Choose up to eight channels for each convolution and all stages that carry its channels on: those that are the
    most active, by their mean absolute value, in the last of them.
    """
    rows: list[Row] = []
    for _, group in groupby(stages, key=lambda stage: (stage.source, len(stage.maps))):
        group = list(group)
        channels = most_active(np.asarray(group[-1].maps))
        first, *others = (Row(len(rows) + n, stage, channels, False) for n, stage in enumerate(group, start=1))
        rows += [_numbered(first), *others]
    return rows


def _numbered(row: Row) -> Row:
    """Return the row with its channels' numbers above its maps; single values stand without them."""
    return row._replace(numbered=row.stage.maps[0].size > 1)


def most_active(maps: np.ndarray) -> np.ndarray:
    """Return the channels of maps [C, h, w] with the largest mean absolute value, in ascending order, 8 at most."""
    strength = np.abs(maps).reshape(len(maps), -1).mean(axis=1)
    return np.sort(np.argsort(-strength, kind="stable")[:CHANNELS])


def _in_blocks(rows: list[Row], blocks: int) -> list[list[Row]]:
    """Divide the rows into equally many a block; each block begins with the numbers of its channels."""
    size = ceil(len(rows) / blocks)
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [[_numbered(part[0]), *part[1:]] for part in parts]


def _height(row: Row, size: float) -> float:
    """Inches that a row takes, whose maps are of this size."""
    return size + 0.1 + (NUMBERS if row.numbered else 0)


def _stage(page: Board, row: Row, box: Box) -> None:
    """Draw one stage: what it is on the left, then its maps of the size of `box`, under their channels' numbers."""
    maps = np.asarray(row.stage.maps)
    scale, step = signed_scale(maps, ROBUST), box.width + 0.1
    left, top = box.left + CAPTION, box.top + (NUMBERS if row.numbered else 0)
    name = row.stage.name if len(row.stage.name) <= LONGEST else f"…{row.stage.name[1 - LONGEST :]}"
    page.words(box.left, top, f"{row.number}  {name}", ha="left", weight="bold")
    page.words(box.left, top + 0.2, f"{row.stage.kind}\n{' x '.join(map(str, maps.shape))}", ha="left", color=GREY)
    if maps[0].size == 1:  # a vector: all its values side by side, as a strip
        page.tile(maps.reshape(1, -1), Box(left, top, CHANNELS * step - 0.1, box.height * 0.6), scale)
        return
    if row.numbered:
        page.words(left - 0.08, box.top, "channel", ha="right", color=GREY)
    for position, channel in enumerate(row.channels):
        place = Box(left + position * step, top, box.width, box.height)
        page.tile(maps[channel], place, scale)
        if row.numbered:
            page.words(place.left + box.width / 2, box.top, str(channel), color=GREY)


def _bars(axes: Axes, probabilities: np.ndarray, classes: Sequence[str]) -> None:
    """Draw a bar per class with its probability; the likeliest stands out."""
    rows, best = np.arange(len(classes)), int(np.argmax(probabilities))
    axes.barh(rows, probabilities, color=[BLUE if row == best else GREY for row in rows])
    axes.set_yticks(rows, classes)
    axes.set(xlim=(0, 1), ylim=(len(classes) - 0.4, -0.6), xticks=[])
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    for row, probability in enumerate(probabilities):
        axes.text(probability + 0.03, row, f"{probability:.1%}", va="center", clip_on=False)


# A photograph


def photograph(
    path: Path | str, steps: Sequence[Step], probabilities: np.ndarray, remarks: Sequence[str], title: str
) -> Figure:
    """Draw what a photograph became, step by step, the likeliest classes of float [10], and remarks below."""
    probabilities = np.asarray(probabilities)
    likeliest = np.argsort(-probabilities, kind="stable")[:3]
    lines = [line for remark in remarks for line in wrap(remark, 120)]
    left = LARGEST_STEP * len(steps) + 1.6
    with board(path, left + 3.4, 3.9 + 0.2 * len(lines), title) as page:
        for n, step in enumerate(steps):
            middle = 0.3 + LARGEST_STEP * (n + 0.5)
            page.words(middle, 0.78, step.title, va="bottom")
            edges = step.image.shape[:2]
            tall, wide = (max(0.05, (LARGEST_STEP - 0.3) * edge / max(edges)) for edge in edges)
            size = round(wide * DPI), round(tall * DPI)
            shown = Image.fromarray(step.image).resize(size) if max(edges) > max(size) else step.image
            page.tile(np.asarray(shown), Box(middle - wide / 2, 2.2 - tall / 2, wide, tall))
        page.words(left + 1.2, 0.78, "likeliest classes", va="bottom")
        _bars(page.inset(Box(left, 1.2, 2.3, 1.9)), probabilities[likeliest], [CLASSES[n] for n in likeliest])
        for n, line in enumerate(lines):
            page.words(0.3, 3.7 + 0.2 * n, line, ha="left")
    return page.figure
