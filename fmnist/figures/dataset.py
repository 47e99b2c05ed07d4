"""Pictures of the data set itself. Arrays in, PNG out.

Every function writes one PNG, whole or not at all, and returns its Figure.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import StrMethodFormatter

from fmnist.figures.style import BLUE, ORANGE, VERMILION, board, matrix, places, sheet

PER_CLASS = 10  # images of each class in the sample grid


def class_counts(
    path: Path | str,
    train_counts: Sequence[int],
    test_counts: Sequence[int],
    classes: Sequence[str],
    title: str = "Images of each class",
) -> Figure:
    """Draw how many training and test images each class has."""
    rows = np.arange(len(classes))
    with sheet(path, 8, 5.2, title) as figure:
        axes = figure.subplots()
        for counts, shift, colour, label in (
            (train_counts, -0.2, BLUE, "training"),
            (test_counts, 0.2, ORANGE, "test"),
        ):
            bars = axes.barh(rows + shift, counts, height=0.38, color=colour, label=f"{label}: {sum(counts):,}")
            axes.bar_label(bars, [f"{count:,}" for count in counts], padding=4, fontsize=8.5)
        axes.set_yticks(rows, classes)
        axes.set(
            xlabel="images", xlim=(0, max([*train_counts, *test_counts, 1]) * 1.12), ylim=(len(classes) - 0.5, -0.5)
        )
        axes.grid(axis="y", visible=False)
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def pixel_histogram(
    path: Path | str, counts: Sequence[int], mean: float, deviation: float, title: str = "Pixels of each grey level"
) -> Figure:
    """Draw how often each grey level 0..255 occurs, with mean and standard deviation (both on the scale 0..1)."""
    with sheet(path, 8, 4.6, title) as figure:
        axes = figure.subplots()
        edges = np.arange(len(counts) + 1) - 0.5
        axes.stairs(counts, edges, fill=True, baseline=0.5, color=BLUE)  # 256 bars take a second to draw
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.axvline(mean * 255, color=VERMILION, label=f"mean {mean:.4f}")
        low, high = np.clip([(mean - deviation) * 255, (mean + deviation) * 255], 0, 255)
        axes.axvspan(low, high, color="#f8e3bf", zorder=0, label=f"within one standard deviation, {deviation:.4f}")
        axes.set(xlabel="grey level (0 black, 255 white)", ylabel="pixels", xlim=(-1, 256))
        axes.grid(axis="x", visible=False)
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def class_means(
    path: Path | str, means: np.ndarray, classes: Sequence[str], title: str = "The mean image of each class"
) -> Figure:
    """Draw the mean image of each class, [C, 28, 28], grey levels 0..255."""
    rows = -(-len(means) // 5)
    with board(path, 5 * 1.8 + 0.3, rows * 2.0 + 0.7, title) as page:
        for image, name, (x, y) in zip(means, classes, places(len(means), 5, 0.25, 0.6, 1.8, 2.0), strict=True):
            page.tile(image, x, y, 1.65)
            page.words(x + 0.825, y + 1.7, name, size=10)
    return page.figure


def class_statistics(
    path: Path | str,
    means: Sequence[float],
    deviations: Sequence[float],
    classes: Sequence[str],
    title: str = "Pixels of each class",
) -> Figure:
    """Draw mean and standard deviation of the pixels of each class, on the scale 0..1."""
    with sheet(path, 9, 4.6, title) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, values, colour, label in zip(
            panels, (means, deviations), (BLUE, ORANGE), ("mean", "standard deviation"), strict=True
        ):
            bars = axes.barh(np.arange(len(classes)), values, color=colour)
            axes.bar_label(bars, [f"{value:.3f}" for value in values], padding=4, fontsize=8.5)
            axes.set(title=label, xlim=(0, max(values) * 1.18), ylim=(len(classes) - 0.5, -0.5))
            axes.grid(axis="y", visible=False)
        panels[0].set_yticks(np.arange(len(classes)), classes)
    return figure


def sample_grid(
    path: Path | str,
    images: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    title: str = "The first images of each class",
) -> Figure:
    """Draw the first ten images of each class, a row per class, from images [N, 28, 28]."""
    with board(path, 1.3 + PER_CLASS * 0.8, 0.7 + len(classes) * 0.8, title) as page:
        for number, name in enumerate(classes):
            y = 0.6 + number * 0.8
            page.words(1.2, y + 0.37, name, size=9.5, ha="right", va="center")
            for position, index in enumerate(np.flatnonzero(labels == number)[:PER_CLASS]):
                page.tile(images[index], 1.3 + position * 0.8, y, 0.74)
    return page.figure


def look_alikes(
    path: Path | str,
    similarity: np.ndarray,
    classes: Sequence[str],
    title: str = "Look-alikes: the framed class is nearest to that of its row",
) -> Figure:
    """Draw how alike the classes are, [C, C] with 1 for the same, and frame the nearest other class of each row."""
    similarity = np.asarray(similarity, float)
    others = np.where(np.eye(len(classes), dtype=bool), -np.inf, similarity)
    low = min(0.0, similarity.min())
    shades = ((similarity - low) / max(1e-12, similarity.max() - low)) ** 1.5
    with sheet(path, 8.6, 7.4, title) as figure:
        axes = figure.subplots()
        matrix(axes, shades, [[f"{value:.2f}" for value in row] for row in similarity], classes)
        for row, nearest in enumerate(others.argmax(axis=1)):
            frame = Rectangle((nearest - 0.47, row - 0.47), 0.94, 0.94, fill=False, edgecolor=VERMILION, linewidth=2.5)
            axes.add_patch(frame)
    return figure
