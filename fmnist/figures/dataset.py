"""Pictures of the data set itself.

Every function writes one PNG, whole or not at all, and returns its Figure.
"""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import StrMethodFormatter

from fmnist.audit import Pairs, Suspects, pair_names
from fmnist.data import CLASSES
from fmnist.exploration import Exploration
from fmnist.figures.style import GREY, INK, VERMILION, Board, Box, board, cells, heatmap, name_classes, palette, sheet

PER_CLASS = 10  # images of each class in the sample grid
SUSPECTS, SUSPECT = (6, 8), Box(0.2, 0.85, 1.5, 1.86)  # rows and columns, and the first place
PAIRS, PAIR = (3, 4), Box(0.2, 0.0, 2.75, 1.62)
IMAGE = 1.1  # inches


def class_counts(path: Path | str, exploration: Exploration, title: str) -> Figure:
    """Draw how many training and test images each class has."""
    rows = np.arange(len(CLASSES))
    parts = {"training": exploration.train_counts, "test": exploration.test_counts}
    with sheet(path, 8, 5.6, title) as figure:
        axes = figure.subplots()
        for (label, counts), shift, colour in zip(parts.items(), (-0.2, 0.2), palette(), strict=False):
            bars = axes.barh(rows + shift, counts, height=0.38, color=colour, label=f"{label}: {sum(counts):,}")
            axes.bar_label(bars, [f"{count:,}" for count in counts], padding=4)
        longest = max(1, *(count for counts in parts.values() for count in counts))
        axes.set(xlabel="images", xlim=(0, longest * 1.12))
        _name_rows(axes)
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def pixel_histogram(path: Path | str, exploration: Exploration, title: str) -> Figure:
    """Draw how often each grey level 0..255 occurs, with mean and standard deviation (both on the scale 0..1)."""
    mean, std = exploration.mean, exploration.std
    with sheet(path, 8, 4.6, title) as figure:
        axes = figure.subplots()
        edges = np.arange(len(exploration.histogram) + 1) - 0.5
        # 256 bars take a second to draw.
        axes.stairs(exploration.histogram, edges, fill=True, baseline=0.5, color=palette()[0])
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.axvline(mean * 255, color=INK, label=f"mean {mean:.4f}")
        low, high = np.clip([(mean - std) * 255, (mean + std) * 255], 0, 255)
        axes.axvspan(low, high, color="#f8e3bf", zorder=0, label=f"mean ± standard deviation, {std:.4f}")
        axes.set(xlabel="grey level (0 black, 255 white)", ylabel="pixels", xlim=(-1, 256))
        axes.grid(axis="x", visible=False)
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def class_means(path: Path | str, exploration: Exploration, title: str) -> Figure:
    """Draw the mean image of each class."""
    boxes = cells(len(CLASSES), 5, Box(0.25, 0.6, 1.8, 2.0))
    with board(path, 5 * 1.8 + 0.3, 2 * 2.0 + 0.7, title) as page:
        for image, name, (left, top, *_) in zip(exploration.mean_images, CLASSES, boxes, strict=True):
            page.tile(image, Box(left, top, 1.65, 1.65))
            page.words(left + 0.825, top + 1.7, name)
    return page.figure


def class_statistics(path: Path | str, exploration: Exploration, title: str) -> Figure:
    """Draw mean and standard deviation of the pixels of each class, on the scale 0..1."""
    statistics = {"mean": exploration.class_means, "standard deviation": exploration.class_stds}
    with sheet(path, 9, 4.8, title) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (label, values), colour in zip(panels, statistics.items(), palette(), strict=False):
            bars = axes.barh(np.arange(len(CLASSES)), values, color=colour)
            axes.bar_label(bars, [f"{value:.3f}" for value in values], padding=4)
            axes.set(xlabel=f"{label} of the pixels, 0..1", xlim=(0, max(values) * 1.18 or 1))
            _name_rows(axes)
    return figure


def _name_rows(axes: Axes) -> None:
    """Give each class a row of bars, from the top."""
    axes.set_yticks(np.arange(len(CLASSES)), CLASSES)
    axes.set_ylim(len(CLASSES) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)


def sample_grid(path: Path | str, images: np.ndarray, labels: np.ndarray, title: str) -> Figure:
    """Draw the first ten images of each class, a row per class, from images [N, 28, 28]."""
    with board(path, 1.5 + PER_CLASS * 0.8, 0.7 + len(CLASSES) * 0.8, title) as page:
        for number, name in enumerate(CLASSES):
            top = 0.6 + number * 0.8
            page.words(1.3, top + 0.37, name, ha="right", va="center")
            for position, index in enumerate(np.flatnonzero(labels == number)[:PER_CLASS]):
                page.tile(images[index], Box(1.4 + position * 0.8, top, 0.74, 0.74))
    return page.figure


def look_alikes(path: Path | str, exploration: Exploration, title: str) -> Figure:
    """Draw the correlation of the classes' mean images, and frame the most similar other class of each row."""
    similarity = np.asarray(exploration.similarity, float)
    others = np.where(np.eye(len(similarity), dtype=bool), -np.inf, similarity)
    low = min(0.0, similarity.min())
    shades = ((similarity - low) / max(1e-12, similarity.max() - low)) ** 1.5
    with sheet(path, 9.2, 7.6, title) as figure:
        axes = figure.subplots()
        heatmap(axes, shades, [[f"{value:.2f}" for value in row] for row in similarity])
        name_classes(axes, CLASSES, CLASSES)
        for row, nearest in enumerate(others.argmax(axis=1)):
            frame = {"fill": False, "edgecolor": VERMILION, "linewidth": 2.5}
            outline = withStroke(linewidth=5.5, foreground="white")  # sets the frame off from cells of any shade
            axes.add_patch(Rectangle((nearest + 0.05, row + 0.05), 0.9, 0.9, path_effects=[outline], **frame))
    return figure


# The audit


def suspects(path: Path | str, suspected: Suspects, title: str) -> Figure:
    """Draw the images whose labels look most wrong, each with its number, its label and the class predicted."""
    rows, columns = SUSPECTS
    count = len(suspected.indices)
    places = cells(min(count, rows * columns), columns, SUSPECT)
    with board(path, columns * SUSPECT.width + 0.4, -(-len(places) // columns) * SUSPECT.height + 1.0, title) as page:
        said = f"{count:,} labels look wrong; the least believed come first: number, label, → prediction"
        page.words(page.width / 2, 0.5, said if count else "no label looks wrong", color=GREY)
        for n, (left, top, width, _) in enumerate(places):
            middle = left + width / 2
            page.tile(suspected.images[n], Box(middle - IMAGE / 2, top, IMAGE, IMAGE))
            page.words(middle, top + IMAGE + 0.04, f"{suspected.indices[n]}")
            page.words(middle, top + IMAGE + 0.21, CLASSES[suspected.labels[n]])
            guess = f"→ {CLASSES[suspected.predicted[n]]} {suspected.probabilities[n, 1]:.0%}"
            page.words(middle, top + IMAGE + 0.38, guess, color=VERMILION)
    return page.figure


def near_pairs(path: Path | str, pairs: Pairs, title: str) -> Figure:
    """Draw the nearest pairs of a training and a test image, and the nearest of either, with their distances."""
    rows, columns = PAIRS
    across = pairs.is_test[:, 0] != pairs.is_test[:, 1]
    groups = {"a training and a test image": across, "two training images, or two test images": ~across}
    with board(path, columns * PAIR.width + 0.4, 2 * (rows * PAIR.height + 0.5) + 0.7, title) as page:
        said = "labels, in red where they differ, and distance: root mean square difference of the pixels, 0..255"
        page.words(page.width / 2, 0.45, said, color=GREY)
        for (words, chosen), top in zip(groups.items(), (0.85, 0.85 + rows * PAIR.height + 0.45), strict=True):
            page.words(page.width / 2, top, words if chosen.any() else f"{words}: none", size=11, weight="bold")
            shown = np.flatnonzero(chosen)[: rows * columns]
            for n, box in zip(shown, cells(len(shown), columns, PAIR._replace(top=top + 0.3)), strict=True):
                _pair(page, box, Pairs(*(values[n : n + 1] for values in pairs)))
    return page.figure


def _pair(page: Board, box: Box, pair: Pairs) -> None:
    """Lay out one pair, and what there is to say of it."""
    middle, below = box.left + box.width / 2, box.top + IMAGE
    for image, left in zip(pair.images[0], (middle - IMAGE - 0.03, middle + 0.03), strict=True):
        page.tile(image, Box(left, box.top, IMAGE, IMAGE))
    page.words(middle, below + 0.04, ", ".join(pair_names(pair)[0]))
    classes = list(dict.fromkeys(CLASSES[label] for label in pair.labels[0]))
    colour = INK if len(classes) == 1 else VERMILION
    page.words(middle, below + 0.21, f"{', '.join(classes)}: {pair.distances[0]:.1f}", color=colour)
