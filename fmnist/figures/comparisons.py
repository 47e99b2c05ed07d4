"""Pictures of several networks or runs set against each other: gains, costs, growth. Arrays in, PNG out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator, PercentFormatter

from fmnist.figures.style import BLUE, GREY, INK, MARKERS, VERMILION, colours, legend_below, sheet, spread

COSTS = {"parameters": "parameters", "multiply_adds": "multiply-adds per image", "seconds": "seconds per epoch"}


def gains(
    path: Path | str,
    names: Sequence[str],
    accuracies: Sequence[float],
    changes: Sequence[str],
    published: Sequence[float | None],
    title: str = "What each change gained",
    deviations: Sequence[float] | None = None,
) -> Figure:
    """Draw a bar per version with its test accuracy, what it gained over the one before, and the published accuracy.

    `changes` says what changed from version to version; `deviations` is the spread over seeds, where there are several.
    """
    palette = colours(names)
    known = [value for value in [*accuracies, *published] if value is not None]
    # Bars from zero would all look alike: the axis is cut, and its label says so.
    start = max(0.0, np.floor((min(known) - 0.02) * 50) / 50)
    end = max(known) + (max(known) - start) * 0.3
    with sheet(path, 10, 1.6 + 0.95 * len(names), title) as figure:
        axes = figure.subplots()
        rows = np.arange(len(names))
        lengths = np.asarray(accuracies) - start
        axes.barh(rows, lengths, left=start, height=0.55, color=[palette[name] for name in names], xerr=deviations)
        for row, (accuracy, reference) in enumerate(zip(accuracies, published, strict=True)):
            gain = f"\n{(accuracy - accuracies[row - 1]) * 100:+.2f} points" if row else ""
            furthest = max(accuracy + (deviations[row] if deviations is not None else 0), reference or 0)
            axes.text(furthest + (end - start) * 0.015, row, f"{accuracy:.2%}{gain}", va="center")
            if reference is not None:
                axes.plot([reference] * 2, [row - 0.4, row + 0.4], color=INK, linewidth=2.5)
        texts = [f"{name}\n{fill(change, 34)}" if change else name for name, change in zip(names, changes, strict=True)]
        axes.set_yticks(rows, texts)
        axes.set(xlim=(start, end), ylim=(len(names) - 0.5, -0.5))
        axes.set_xlabel(f"test accuracy (the axis starts at {start:.0%})" if start else "test accuracy")
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(axis="y", visible=False)
        if any(value is not None for value in published):
            mark = Line2D([], [], color=INK, linestyle="", marker="|", ms=16, mew=2.5, label="published")
            legend_below(figure, [mark])
    return figure


def cost_scatter(
    path: Path | str,
    rows: Sequence[Mapping[str, Any]],
    title: str = "Accuracy against complexity",
) -> Figure:
    """Draw test accuracy against each cost, a point per network.

    Each row holds "name", "title", "test_accuracy", "parameters", "multiply_adds" and "seconds" (of one epoch); a cost
    that is None or missing leaves the network out of that panel.
    """
    palette = colours([row["name"] for row in rows])
    accuracies = [row["test_accuracy"] for row in rows]
    margin = max(0.004, np.ptp(accuracies) * 0.25) if rows else 0.01
    with sheet(path, 13, 4.6, title) as figure:
        for axes, (key, label) in zip(figure.subplots(1, 3, sharey=True), COSTS.items(), strict=True):
            present = [row for row in rows if row.get(key)]
            for row in present:
                colour = palette[row["name"]]
                axes.plot(row[key], row["test_accuracy"], MARKERS.get(colour, "o"), color=colour, ms=10)
            axes.set_xscale("log")
            axes.set(xlabel=label, ylim=(min(accuracies) - margin, max(accuracies) + margin))
            _label_points(axes, [(row[key], row["test_accuracy"], row["title"]) for row in present])
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        figure.axes[0].set_ylabel("test accuracy")
    return figure


def _label_points(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write each point's text beside it, towards the middle of the panel, and clear of the other texts."""
    if not points:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=GREY)
        return
    costs = np.log10([cost for cost, _, _ in points])
    low, high = costs.min() - 0.35, costs.max() + 0.35
    axes.set_xlim(10**low, 10**high)
    bottom, top = axes.get_ylim()
    heights = spread([accuracy for _, accuracy, _ in points], (top - bottom) * 0.06)
    for cost, (x, _, text), height in zip(costs, points, heights, strict=True):
        left = cost > (low + high) / 2 + 1e-9
        how = {"ha": "right" if left else "left", "va": "center", "fontsize": 9}
        axes.annotate(text, (x, height), (-9 if left else 9, 0), textcoords="offset points", **how)


def cost_growth(
    path: Path | str,
    measurements: Mapping[str, Sequence[tuple[float, float, float]]],
    title: str = "What training costs, and how it grows",
) -> Figure:
    """Draw seconds and memory against what grows, with a straight line from the first measurement to the last.

    `measurements` maps what grows ("training images", "width", "epochs") to (its value, seconds, megabytes), ascending.
    """
    with sheet(path, 4 * len(measurements), 6.4, title) as figure:
        panels = figure.subplots(2, len(measurements), squeeze=False)
        for column, (what, measured) in enumerate(measurements.items()):
            along, *costs = np.asarray(measured, float).T
            units = {"seconds": BLUE, "MB": VERMILION}
            for axes, cost, (unit, colour) in zip(panels[:, column], costs, units.items(), strict=True):
                line = {"color": GREY, "linewidth": 1.2, "linestyle": "--", "label": "straight line"}
                axes.plot(along[[0, -1]], cost[[0, -1]], **line)
                axes.plot(along, cost, color=colour, marker="o", label="measured")
                axes.set(xlabel=what, ylabel=unit, ylim=(0, cost.max() * 1.15 or 1))
                axes.set_xticks(along, [f"{value:,g}" for value in along])
        panels[0, 0].legend(loc="lower right")
    return figure
