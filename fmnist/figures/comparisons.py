"""Pictures of several networks or runs compared: accuracies, gains, costs, growth.

Every function writes one PNG, whole or not at all, and returns its Figure. `models` are those of metrics.json; where a
network was trained from several seeds, its mean is drawn, with their standard deviation as an error bar.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator, PercentFormatter

from fmnist.figures.style import BLUE, GREY, INK, VERMILION, legend_below, looks, sheet, spread
from fmnist.metrics import Model

COSTS = {
    "parameters": "parameters",
    "multiply_adds": "multiply-adds per image",
    "seconds_per_epoch": "seconds per epoch",
}


def accuracy_comparison(path: Path | str, models: Mapping[str, Model], title: str) -> Figure:
    """Draw a bar per network with its test accuracy, and the published one where there is one."""
    names = [fill(model["title"], 30) for model in models.values()]
    values = [_with_error(model) for model in models.values()]
    with sheet(path, 10, 1.6 + 0.55 * len(models), title) as figure:
        _accuracy_bars(figure, models, names, values)
    return figure


def gains(path: Path | str, models: Mapping[str, Model], title: str) -> Figure:
    """Draw a bar per version with its test accuracy, what changed and gained since the one before, and the published
    accuracy.
    """
    names = [f"{m['title']}\n{fill(m['change'], 34)}" if m["change"] else m["title"] for m in models.values()]
    values, before = [], None
    for model in models.values():
        accuracy = _accuracy(model)
        gain = "" if before is None else f"\n{(accuracy - before) * 100:+.2f} points"
        values.append(_with_error(model) + gain)
        before = accuracy
    with sheet(path, 10, 1.6 + 0.95 * len(models), title) as figure:
        _accuracy_bars(figure, models, names, values)
    return figure


def _accuracy(model: Model) -> float:
    return model.get("mean", model)["test_accuracy"]


def _std(model: Model) -> float:
    """The standard deviation of the test accuracy over the seeds; 0 of one seed."""
    return model["std"]["test_accuracy"] if "std" in model else 0.0


def _with_error(model: Model) -> str:
    return f"{_accuracy(model):.2%}" + (f" ± {_std(model) * 100:.2f}" if "std" in model else "")


def _accuracy_bars(figure: Figure, models: Mapping[str, Model], names: Sequence[str], values: Sequence[str]) -> None:
    """Draw a bar per network, named on its left, with its value behind it and a mark at the published accuracy."""
    own, axes = looks(models), figure.subplots()
    published = [model["published"].get("test_accuracy") for model in models.values()]
    start, end = _limits(models, published)
    for row, ((name, model), mark) in enumerate(zip(models.items(), published, strict=True)):
        accuracy, error = _accuracy(model), _std(model)
        bar = {"left": start, "height": 0.55, "color": own[name].color, "ecolor": INK}
        axes.barh(row, accuracy - start, xerr=error or None, **bar)
        if mark is not None:
            axes.plot([mark] * 2, [row - 0.4, row + 0.4], color=INK, linewidth=2.5)
        axes.text(max(accuracy + error, mark or 0) + (end - start) * 0.015, row, values[row], va="center")
    axes.set_yticks(range(len(models)), names)
    axes.set(xlim=(start, end), ylim=(len(models) - 0.5, -0.5))
    axes.set_xlabel(f"test accuracy (the axis starts at {start:.0%})" if start else "test accuracy")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="y", visible=False)
    if notes := _notes(models, published):
        legend_below(figure, notes)


def _limits(models: Mapping[str, Model], published: Sequence[float | None]) -> tuple[float, float]:
    """Where the axis of the accuracies starts and ends. Bars from zero would all look alike: it is cut."""
    measured = [_accuracy(model) + sign * _std(model) for model in models.values() for sign in (-1, 1)]
    known = [*measured, *(value for value in published if value is not None)]
    start = max(0.0, np.floor((min(known) - 0.02) * 50) / 50)
    return start, max(known) + (max(known) - start) * 0.3


def _notes(models: Mapping[str, Model], published: Sequence[float | None]) -> list[list[Artist]]:
    """The legend's entries for the marks of published accuracies and for the error bars, where there are some."""
    notes = []
    if any(value is not None for value in published):
        notes.append([Line2D([], [], color=INK, linestyle="", marker="|", ms=16, mew=2.5, label="published")])
    if seeds := max(len(model.get("seeds", ())) for model in models.values()):
        label = f"mean ± standard deviation of {seeds} seeds"
        notes.append([Line2D([], [], color=INK, linewidth=1.5, marker="|", ms=6, label=label)])
    return notes


# Costs


def cost_scatter(path: Path | str, models: Mapping[str, Model], title: str) -> Figure:
    """Draw test accuracy against each cost, a point per network; a cost of None or 0 leaves a network out."""
    own = looks(models)
    accuracies = [_accuracy(model) for model in models.values()]
    margin = max(0.004, np.ptp(accuracies) * 0.25, *(1.3 * _std(model) for model in models.values()))
    with sheet(path, 13, 4.8, title) as figure:
        for axes, (key, label) in zip(figure.subplots(1, 3, sharey=True), COSTS.items(), strict=True):
            costs = {name: model.get("mean", model).get(key, model.get(key)) for name, model in models.items()}
            present = {name: cost for name, cost in costs.items() if cost}
            for name, cost in present.items():
                error = _std(models[name]) or None
                axes.errorbar(cost, _accuracy(models[name]), error, ms=10, **own[name]._asdict())
            axes.set_xscale("log")
            axes.set(xlabel=label, ylim=(min(accuracies) - margin, max(accuracies) + margin))
            _label_points(axes, [(cost, _accuracy(models[n]), models[n]["title"]) for n, cost in present.items()])
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        figure.axes[0].set_ylabel("test accuracy")
        if notes := _notes(models, []):
            legend_below(figure, notes)
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
    heights = spread([accuracy for _, accuracy, _ in points], (top - bottom) * 0.065)
    for cost, (x, _, text), height in zip(costs, points, heights, strict=True):
        left = cost > (low + high) / 2 + 1e-9
        how = {"ha": "right" if left else "left", "va": "center"}
        axes.annotate(text, (x, height), (-9 if left else 9, 0), textcoords="offset points", **how)


def cost_growth(
    path: Path | str, measurements: Mapping[str, Sequence[tuple[float, float, float]]], title: str
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
