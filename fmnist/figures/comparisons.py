"""Pictures of several networks or runs compared: accuracies, gains, costs, growth.

Every function writes one PNG, whole or not at all, and returns its Figure. `models` are those of metrics.json; where a
network was trained from several seeds, its mean is drawn, with their standard deviation as an error bar.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator, PercentFormatter

from fmnist.figures.style import BLUE, GREY, INK, VERMILION, legend_below, looks, sheet, spread_entry
from fmnist.metrics import Effect, Model
from fmnist.tables import effect_name, mean_of, std_of

COSTS = {
    "parameters": "parameters",
    "multiply_adds": "multiply-adds per image",
    "seconds_per_epoch": "seconds per epoch",
}


def accuracy_comparison(
    path: Path | str, models: Mapping[str, Model], title: str, effects: Sequence[Effect] = ()
) -> Figure:
    """Draw a bar per network with its test accuracy, and a mark at the published one where there is one.

    Below them, where there are `effects` of a factorial, each with its 95 % interval.
    """
    names, factors = _filled([model["title"] for model in models.values()], 30), _filled(map(effect_name, effects), 34)
    bars, rows = 1.2 + _row(names, 0.55) * len(names), 1.2 + _row(factors, 0.42) * len(factors)
    with sheet(path, 10, bars + (rows if effects else 0), title) as figure:
        above, *below = figure.subplots(2, 1, height_ratios=(bars, rows)) if effects else [figure.subplots()]
        _accuracy_bars(above, models, names)
        notes = _notes(models)
        for axes in below:
            notes += _effects(axes, effects, factors)
        if notes:
            legend_below(figure, notes)
    return figure


def _filled(names: Iterable[str], width: int) -> list[str]:
    return [fill(name, width) for name in names]


def _row(names: Sequence[str], least: float) -> float:
    """The height of a row in which each of the `names` has room, `least` or more, in inches."""
    return max([least, *(0.17 * (1 + name.count("\n")) + 0.05 for name in names)])


def _effects(axes: Axes, effects: Sequence[Effect], names: Sequence[str]) -> list[list[Artist]]:
    """Draw each effect as a point on its 95 % interval; return the legend's entries for what is drawn."""
    points = {"linestyle": "", "marker": "D", "ms": 7}
    for row, effect in enumerate(effects):
        colour = BLUE if len(effect["factors"]) == 1 else GREY
        if "interval" in effect:
            axes.plot([100 * end for end in effect["interval"]], [row, row], color=colour, linewidth=2)
        axes.plot(100 * effect["effect"], row, color=colour, **points)
        axes.text(1.015, row, f"{100 * effect['effect']:+.2f}", transform=axes.get_yaxis_transform(), va="center")
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(effects)), names)
    axes.set(ylim=(len(effects) - 0.5, -0.5), xlabel="effect on the test accuracy in points")
    axes.grid(axis="y", visible=False)
    kinds = {"main effect": BLUE, "interaction": GREY}
    drawn = {"main effect" if len(effect["factors"]) == 1 else "interaction" for effect in effects}
    lines = [[Line2D([], [], color=kinds[kind], label=kind, **points)] for kind in kinds if kind in drawn]
    return [*lines, [Line2D([], [], color=BLUE, linewidth=2, label="95 % interval")]]


def gains(path: Path | str, models: Mapping[str, Model], title: str) -> Figure:
    """Draw a bar per version with its test accuracy, the published one, what changed and what was gained by it.

    The axis is labelled with the gain of the last version over the first.
    """
    names, before = [], None
    for model in models.values():
        accuracy = _accuracy(model)
        gain = "" if before is None else f": {(accuracy - before) * 100:+.2f} points"
        change = f"\n{fill(model['change'], 34)}" if model["change"] else ""
        names.append(f"{model['title']}{gain}{change}")
        before = accuracy
    with sheet(path, 10, 1.2 + 0.9 * len(models), title) as figure:
        axes = figure.subplots()
        _accuracy_bars(axes, models, names)
        if len(models) > 1:
            first, *_, last = models.values()
            total = f"{first['title']} to {last['title']}: {(_accuracy(last) - _accuracy(first)) * 100:+.2f} points"
            axes.set_xlabel(f"{axes.get_xlabel()}\n{total}")
        if notes := _notes(models):
            legend_below(figure, notes)
    return figure


def _accuracy(model: Model) -> float:
    return mean_of(model, "test_accuracy")


def _std(model: Model) -> float:
    """The standard deviation of the test accuracy over the seeds; 0 of one seed."""
    return std_of(model, "test_accuracy") or 0.0


def _accuracy_bars(axes: Axes, models: Mapping[str, Model], names: Sequence[str]) -> None:
    """Draw a bar per network, named on its left, and in numbers on its right."""
    own = looks(models)
    start, end = _limits(models)
    for row, (name, model) in enumerate(models.items()):
        accuracy, error = _accuracy(model), _std(model)
        bar = {"left": start, "height": 0.55, "color": own[name].color, "ecolor": INK}
        axes.barh(row, accuracy - start, xerr=error or None, **bar)
        words = f"{accuracy:.2%}" + (f" ± {error * 100:.2f}" if error else "")
        if (published := model["published"].get("test_accuracy")) is not None:
            axes.plot([published] * 2, [row - 0.4, row + 0.4], color=INK, linewidth=2.5)
            words += f"\npublished {published:.2%}"
        axes.text(1.015, row, words, transform=axes.get_yaxis_transform(), va="center")
    axes.set_yticks(range(len(models)), names)
    axes.set(xlim=(start, end), ylim=(len(models) - 0.5, -0.5))
    axes.set_xlabel(f"test accuracy (the axis starts at {start:.0%})" if start else "test accuracy")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="y", visible=False)


def _limits(models: Mapping[str, Model]) -> tuple[float, float]:
    """Where the axis of the accuracies starts and ends. Bars from zero would all look alike: it is cut."""
    measured = [_accuracy(model) + sign * _std(model) for model in models.values() for sign in (-1, 1)]
    published = [model["published"].get("test_accuracy") for model in models.values()]
    known = [*measured, *(value for value in published if value is not None)]
    start = max(0.0, np.floor((min(known) - 0.02) * 50) / 50)
    return start, max(known) + (max(known) - start) * 0.05


def _notes(models: Mapping[str, Model]) -> list[list[Artist]]:
    """The legend's entries for the marks of published accuracies and for the error bars, where there are some."""
    notes = []
    if any("test_accuracy" in model["published"] for model in models.values()):
        notes.append([Line2D([], [], color=INK, linestyle="", marker="|", ms=16, mew=2.5, label="published")])
    return notes + _error_note(models)


def _error_note(models: Mapping[str, Model]) -> list[list[Artist]]:
    seeds = max(len(model.get("seeds", ())) for model in models.values())
    return [[spread_entry(f"{seeds} seeds")]] if seeds else []


# Costs


def cost_scatter(path: Path | str, models: Mapping[str, Model], title: str) -> Figure:
    """Draw test accuracy against each cost, a point per network; a cost of None or 0 leaves a network out."""
    own = looks(models)
    with sheet(path, 13, 4.4, title) as figure:
        for axes, (key, label) in zip(figure.subplots(1, 3, sharey=True), COSTS.items(), strict=True):
            costs = {name: mean_of(model, key) for name, model in models.items()}
            for name in filter(costs.get, models):
                error = _std(models[name]) or None
                axes.errorbar(costs[name], _accuracy(models[name]), error, ms=10, **own[name]._asdict())
            _cost_axis(axes, [cost for cost in costs.values() if cost])
            axes.set_xlabel(label)
        figure.axes[0].margins(y=0.2)
        figure.axes[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
        figure.axes[0].set_ylabel("test accuracy")
        points = {"linestyle": "", "ms": 10}
        groups = [[Line2D([], [], label=model["title"], **points, **own[n]._asdict())] for n, model in models.items()]
        legend_below(figure, [*groups, *_error_note(models)])
    return figure


def _cost_axis(axes: Axes, costs: Sequence[float]) -> None:
    """Make the axis of a cost logarithmic, and wide enough for its marks to be read."""
    if not costs:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=GREY)
        axes.set_xticks([])
        return
    axes.set_xscale("log")
    axes.set_xlim(min(costs) / 2, max(costs) * 2)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


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
