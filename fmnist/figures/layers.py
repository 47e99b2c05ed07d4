"""Pictures of what a convolutional network has learnt and sees: kernels, maps, progression, a photograph.

Arrays in, PNG out. Every function writes one PNG, whole or not at all, and returns its Figure. In all of them blue is
negative, white is zero and red is positive; the sample and photographs are grey as they are.
"""

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from fmnist.figures.style import BLUE, DPI, GREY, Board, board, places, signed_scale

SHOWN = 64  # kernels or maps of one layer at most: more would be too small to see
CHANNELS = 8  # maps of each stage in the progression
CAPTION = 2.0  # inches for the words on the left of them
ROBUST = 0.995  # share of a map's values within its colour scale: a few extremes would leave the rest pale
Stage = tuple[str, str, np.ndarray]  # name, kind and maps [C, h, w] of one layer


def kernels_grid(path: Path | str, kernels: np.ndarray, title: str, layer: str) -> Figure:
    """Draw the kernels [O, I, h, w] of one convolution on one scale; of several input channels, their mean."""
    kernels = np.asarray(kernels)
    count, inputs, height, width = kernels.shape
    shown = kernels[:SHOWN].mean(axis=1)
    scale = signed_scale(shown)
    columns = min(8, len(shown))
    rows = ceil(len(shown) / columns)
    across = max(5.6, columns * 1.0 + 0.4)
    with board(path, across, rows * 1.14 + 1.75, title) as page:
        which = f"{len(shown)} of {count} kernels" if len(shown) < count else f"{count} kernels"
        averaged = f", each the mean over its {inputs} input channels" if inputs > 1 else ""
        page.words(across / 2, 0.5, f"{layer}: {which} of {height} x {width}{averaged}", size=9.5)
        left = (across - columns) / 2
        for number, (x, y) in enumerate(places(len(shown), columns, left, 0.9, 1.0, 1.14)):
            page.words(x + 0.5, y + 0.16, str(number), va="bottom")
            page.tile(shown[number], x + 0.06, y + 0.19, 0.88, scale=scale)
        page.colour_bar(scale, across / 2 - 1.5, rows * 1.14 + 1.28, 3.0, "weight, one scale for all kernels")
    return page.figure


def features_grid(
    path: Path | str, sample: np.ndarray, maps: np.ndarray, kernels: np.ndarray | None, title: str
) -> Figure:
    """Draw the sample, uint8 [28, 28], and the maps [C, h, w] that a layer makes of it, on one scale.

    With `kernels` [C, k, k] each map stands beside the kernel that made it.
    """
    shown = np.asarray(maps[:SHOWN])
    scale, side = signed_scale(shown, ROBUST), 0.46 if kernels is not None else 0.0
    columns, cell = min(8, len(shown)), 1.1 + side
    rows = ceil(len(shown) / columns)
    across, down = 2.5 + columns * cell, max(4.2, 0.75 + rows * 1.3)
    with board(path, across, down, title) as page:
        _sample(page, sample, f"{len(shown)} of {len(maps)} maps" if len(shown) < len(maps) else f"{len(maps)} maps")
        page.colour_bar(scale, 0.35, 3.1, 1.5, "map: value")
        if kernels is not None:
            kernels = np.asarray(kernels[:SHOWN])
            kernel_scale = signed_scale(kernels)
            page.colour_bar(kernel_scale, 0.35, 3.75, 1.5, "kernel: weight")
        for number, (x, y) in enumerate(places(len(shown), columns, 2.35, 0.6, cell, 1.3)):
            word = "channel" if kernels is None else "kernel"
            page.words(x + side + 0.5, y + 0.17, f"{word} {number}", va="bottom")
            if kernels is not None:
                page.tile(kernels[number], x + 0.02, y + 0.2, 0.4, scale=kernel_scale)
            page.tile(shown[number], x + side, y + 0.2, 1.0, scale=scale)
    return page.figure


def _sample(page: Board, sample: np.ndarray, note: str) -> None:
    """Lay the sample at the left of a board."""
    page.words(1.1, 0.77, "the sample", va="bottom", size=9)
    page.tile(sample, 0.35, 0.8, 1.5)
    page.words(1.1, 2.4, note, size=9)


def progression(
    path: Path | str,
    sample: np.ndarray,
    stages: Sequence[Stage],
    probabilities: np.ndarray,
    classes: Sequence[str],
    title: str,
) -> Figure:
    """Draw the way of the sample, uint8 [28, 28], through the stages to the class probabilities [10].

    A row is a stage with its shape and its most active channels; many stages stand in up to three blocks, to be read
    down and then to the right. Each stage has a colour scale of its own.
    """
    blocks = 1 if len(stages) <= 14 else 2 if len(stages) <= 44 else 3
    rows = ceil(len(stages) / blocks)
    height = 1.0 if blocks == 1 else 0.72  # of a row, inches
    width = CAPTION + CHANNELS * (height - 0.06) + 0.2  # of a block
    down = max(5.6, 1.0 + rows * height)
    with board(path, 2.2 + blocks * width + 2.9, down, title) as page:
        _sample(page, sample, "blue: negative\nwhite: zero\nred: positive\n\none scale for\neach row")
        for number, stage in enumerate(stages):
            block, row = divmod(number, rows)
            _stage(page, stage, 2.2 + block * width, 0.75 + row * height, height, number + 1)
        _bars(page.inset(2.2 + blocks * width + 0.95, 0.9, 1.4, 3.9), probabilities, classes)
        page.words(2.2 + blocks * width + 1.65, 0.77, "the network's answer", va="bottom", size=9)
    return page.figure


def _stage(page: Board, stage: Stage, left: float, top: float, height: float, number: int) -> None:
    """Draw one stage: what it is on the left, then the most active of its maps."""
    name, kind, maps = *stage[:2], np.asarray(stage[2])
    scale = signed_scale(maps, ROBUST)
    shape = " x ".join(map(str, maps.shape))
    small = height < 0.9
    page.words(left, top + 0.04, f"{number}  {name}", size=7.5 if small else 8, ha="left", weight="bold")
    page.words(left, top + height * 0.32, f"{kind}\n{shape}", size=7 if small else 8, ha="left", color=GREY)
    left, step, size = left + CAPTION, height - 0.06, height - 0.22
    if maps[0].size == 1:  # a vector: all its values side by side, as a strip
        page.tile(maps.reshape(1, -1), left, top, CHANNELS * step - 0.16, size * 0.6, scale=scale)
        return
    channels = most_active(maps)
    for position, channel in enumerate(channels):
        page.tile(maps[channel], left + position * step, top, size, scale=scale)
    page.words(left, top + size + 0.02, f"channels {', '.join(map(str, channels))}", size=7, ha="left", color=GREY)


def most_active(maps: np.ndarray) -> np.ndarray:
    """Return the channels of maps [C, h, w] with the largest mean absolute value, in ascending order, 8 at most."""
    strength = np.abs(maps).reshape(len(maps), -1).mean(axis=1)
    return np.sort(np.argsort(-strength, kind="stable")[:CHANNELS])


def _bars(axes: Axes, probabilities: np.ndarray, classes: Sequence[str]) -> None:
    """Draw a bar per class with its probability; the likeliest stands out."""
    rows, best = np.arange(len(classes)), int(np.argmax(probabilities))
    axes.barh(rows, probabilities, color=[BLUE if row == best else "#9ec3e0" for row in rows])
    axes.set_yticks(rows, classes, fontsize=8.5)
    axes.set(xlim=(0, 1), ylim=(len(classes) - 0.4, -0.6), xticks=[])
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    for row, probability in enumerate(probabilities):
        axes.text(probability + 0.03, row, f"{probability:.1%}", va="center", fontsize=8, clip_on=False)


def photograph(
    path: Path | str,
    original: np.ndarray,
    prepared: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    title: str = "The photograph, and what the network makes of it",
) -> Figure:
    """Draw the user's photograph, uint8 [h, w, 3] or [h, w], its prepared form [28, 28] and the likeliest classes."""
    tall, wide = (max(0.05, 3.0 * length / max(original.shape[:2])) for length in original.shape[:2])  # inches
    coarse = Image.fromarray(original).resize((round(wide * DPI), round(tall * DPI)))
    probabilities = np.asarray(probabilities)
    likeliest = np.argsort(-probabilities, kind="stable")[:3]
    with board(path, 11.6, 4.4, title) as page:
        for x, text in ((1.9, "the photograph"), (5.3, "what the network sees"), (9.6, "the likeliest classes")):
            page.words(x, 0.78, text, va="bottom", size=10)
        page.tile(np.asarray(coarse), 1.9 - wide / 2, 2.4 - tall / 2, wide, tall)
        page.tile(prepared, 3.8, 0.9, 3.0)
        _bars(page.inset(8.4, 1.2, 2.3, 1.9), probabilities[likeliest], [classes[n] for n in likeliest])
    return page.figure
