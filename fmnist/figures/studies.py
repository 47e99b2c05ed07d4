"""study.png: what each setting of a study does to the accuracy on validation images.

A line with its spread for one setting, or points where its values are no numbers; a heatmap for two settings; one for
each value of the third; of more settings a panel each, over all trials. Where one thing at a time was changed, how far
each change is from the baseline.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from math import ceil
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import NullLocator, PercentFormatter

from fmnist.figures.style import BLUE, INK, VERMILION, heatmap, legend_below, looks, name_classes, sheet, spread_entry
from fmnist.studies import written
from fmnist.study_results import change

ACROSS = 4  # panels in a row
MEASURES = {"validation_accuracy": "on validation images, which select", "test_accuracy": "on test images"}
DECADE = 10  # a numeric setting whose values span more gets a logarithmic axis
# In inches: a character and a line of a label, and what a panel has beside its axis.
CHARACTER, LINE, BESIDE_PANEL = 0.1, 0.22, 0.8
WIDEST = 11  # of a panel; where more values have no room for their names, some are left out
USUAL_LABEL = 6  # characters of a value, as in 0.0001


class Study(NamedTuple):
    """What is drawn: every trial, as a row of `fmnist.study_results.trials`, and what was varied."""

    trials: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Sequence[Any]]  # all values of each setting
    best: str  # the combination that is best on validation
    baseline: str = ""  # that of which one thing at a time was changed

    def of(self, **wanted: str) -> "list[Mapping[str, Any]]":
        """The trials whose columns have these values."""
        return [row for row in self.trials if all(row[key] == value for key, value in wanted.items())]

    @property
    def networks(self) -> list[str]:
        """The networks that were varied, in their order."""
        return list(dict.fromkeys(row["network"] for row in self.trials))

    @property
    def seeds(self) -> int:
        """From how many seeds each combination was trained."""
        return len({row["seed"] for row in self.trials})


def draw(path: Path | str, study: Study, title: str) -> Figure:
    """Draw `study` in the form that suits the number of its settings."""
    names = list(study.settings)
    if study.baseline:
        return _changes(path, study, title)
    if len(names) == 1:
        return _one_setting(path, study, names[0], title)
    return _heatmaps(path, study, names, title) if len(names) <= 3 else _marginals(path, study, title)


# Lines and points


def _one_setting(path: Path | str, study: Study, name: str, title: str) -> Figure:
    with sheet(path, 2 * max(5.5, _least_width(study)), 4.6 + _label_height(study), title) as figure:
        for axes, (measure, words) in zip(figure.subplots(1, 2, sharey=True), MEASURES.items(), strict=True):
            _along(axes, study, name, measure)
            axes.set_title(words)
        _accuracy_axis(figure.axes[0])
        legend_below(figure, _legend(study))
    return figure


def _marginals(path: Path | str, study: Study, title: str) -> Figure:
    count = len(study.settings)
    rows, columns = -(-count // ACROSS), min(count, ACROSS)
    width, height = columns * max(3.4, _least_width(study)), rows * (3.6 + _label_height(study))
    with sheet(path, width, height, title) as figure:
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes, name in zip(panels.flat, study.settings, strict=False):
            _along(axes, study, name, "validation_accuracy")
        for axes in panels.flat[count:]:
            axes.remove()
        for axes in panels[:, 0]:
            _accuracy_axis(axes)
            axes.set_ylabel("validation accuracy")
        legend_below(figure, _legend(study, "all trials compared that have the value"))
    return figure


def _along(axes: Axes, study: Study, name: str, measure: str) -> None:
    """Draw the accuracy of every trial, and mean and standard deviation of those with the same value of a setting."""
    values = study.settings[name]
    if is_numeric := all(_number(value) is not None for value in values):
        values = sorted(values, key=_number)
    places = _value_axis(axes, name, values)
    own = looks(study.networks)
    for n, network in enumerate(study.networks):
        beside = places + (0 if is_numeric else 0.14 * (n - (len(own) - 1) / 2))
        samples = [[row[measure] for row in study.of(network=network, **{name: written(value)})] for value in values]
        means = [np.mean(sample) if sample else np.nan for sample in samples]
        spread = [np.std(sample, ddof=1) if len(sample) > 1 else 0 for sample in samples]
        line = {"linestyle": "-" if is_numeric else "", "ms": 8, **own[network]._asdict()}
        axes.errorbar(beside, means, spread if any(spread) else None, **line)
        dots = np.concatenate([np.full(len(sample), place) for sample, place in zip(samples, beside, strict=True)])
        dot = {"linestyle": "", "marker": "o", "ms": 4.5, "color": own[network].color, "mfc": "white", "zorder": 3}
        axes.plot(dots, np.concatenate(samples), **dot)
        for place in beside[np.isnan(means)]:
            how = {"rotation": 90, "ha": "center", "va": "bottom", "color": own[network].color}
            axes.text(place, 0.03, "diverged", transform=axes.get_xaxis_transform(), **how)


def _number(value: Any) -> float | None:
    """A value of a setting, or the only one in a list, as a number; None where it is none."""
    number = value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value
    return float(number) if isinstance(number, (int, float)) and not isinstance(number, bool) else None


def _value_axis(axes: Axes, name: str, values: Sequence[Any]) -> np.ndarray:
    """Name the values of a setting, ascending if they are numbers, below its axis; return their places, float [V].

    Numbers stand where they are on the axis, words at equal distances; so do numbers that are too near to be named.
    """
    numbers, labels = [_number(value) for value in values], [written(value) for value in values]
    room = axes.figure.get_figwidth() / axes.get_gridspec().ncols - BESIDE_PANEL
    places, gaps = np.arange(len(values), dtype=float), np.full(len(values) - 1, room / len(values))
    if None not in numbers and (own := _scaled(axes, numbers) * room).min() >= LINE:
        places, gaps = np.array(numbers), own
    else:
        axes.set_xscale("linear")
        axes.set_xlim(-0.5, len(values) - 0.5)
    widths = CHARACTER * np.array([len(label) + 1 for label in labels])
    every = max(1, ceil(LINE / gaps.min(initial=room)))  # more than one only at equal distances
    axes.set_xticks(
        places[::every], labels[::every], rotation=90 if (gaps < (widths[1:] + widths[:-1]) / 2).any() else 0
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(name.replace("_", " "))
    return places


def _scaled(axes: Axes, numbers: Sequence[float]) -> np.ndarray:
    """Choose the axis for ascending `numbers`; return the distances between them, in parts of its length.

    It is logarithmic where they span more than a decade: from zero, if that is the first, to the next one linear.
    """
    first = next((number for number in numbers if number > 0), 0)
    if numbers[0] >= 0 and numbers[-1] > DECADE * first:
        axes.set_xscale("symlog", linthresh=first) if numbers[0] == 0 else axes.set_xscale("log")
    scale = axes.xaxis.get_transform()
    along = scale.transform(np.array(numbers))
    beyond = 0.05 * np.ptp(along)
    low, high = along[0] - beyond, along[-1] + beyond
    axes.set_xlim(*scale.inverted().transform(np.array([low, high])))  # diverged values are on it as well
    return np.diff(along) / (high - low)


def _least_width(study: Study) -> float:
    """How wide a panel is in which all values of each setting can be named, in inches, up to WIDEST."""
    return min(WIDEST, BESIDE_PANEL + LINE * max(map(len, study.settings.values())))


def _label_height(study: Study) -> float:
    """What the longest name of a value takes of a panel's height if it stands upright, beyond the usual, in inches."""
    longest = max(len(written(value)) for values in study.settings.values() for value in values)
    return max(0, CHARACTER * (longest - USUAL_LABEL))


def _accuracy_axis(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    axes.set_ylabel("accuracy")


def _legend(study: Study, of: str = "") -> list[list[Line2D]]:
    own = looks(study.networks)
    groups = [[Line2D([], [], label=name, ms=8, linestyle="", **own[name]._asdict())] for name in study.networks]
    spread = of or (f"{study.seeds} seeds" if study.seeds > 1 else "")
    return groups + ([_spread_note(spread)] if spread else [])


def _spread_note(of: str) -> list[Line2D]:
    return [spread_entry(f"{of}; each trial a ring")]


# Changes of a baseline


def _changes(path: Path | str, study: Study, title: str) -> Figure:
    """Draw how far each change is from the baseline: the difference of every seed, their mean and spread."""
    own = {name: study.of(name=study.baseline)[0][name] for name in study.settings}
    changes = list(dict.fromkeys(row["name"] for row in study.trials if row["name"] != study.baseline))
    labels = [change(own, study.of(name=name)[0]) for name in changes]
    with sheet(path, 11, 1.8 + 0.36 * len(changes), title) as figure:
        for axes, (measure, words) in zip(figure.subplots(1, 2, sharey=True), MEASURES.items(), strict=True):
            before = {row["seed"]: row[measure] for row in study.of(name=study.baseline)}
            for place, name in enumerate(changes):
                points = [100 * (row[measure] - before[row["seed"]]) for row in study.of(name=name)]
                spread = np.std(points, ddof=1) if len(points) > 1 else None
                axes.errorbar(np.mean(points), place, xerr=spread, color=BLUE, marker="o", ms=8)
                axes.plot(points, np.full(len(points), place), "o", color=BLUE, mfc="white", ms=4.5, zorder=3)
            axes.axvline(0, color=INK, linewidth=1, zorder=0)
            axes.set(title=words, xlabel="points from the baseline", ylim=(len(changes) - 0.5, -0.5))
            axes.set_yticks(range(len(changes)), labels)
        if study.seeds > 1:
            legend_below(figure, [_spread_note(f"{study.seeds} seeds")])
    return figure


# Heatmaps


def _heatmaps(path: Path | str, study: Study, names: Sequence[str], title: str) -> Figure:
    """A heatmap of the first two settings for every network, and every value of the third where there is one."""
    down, across = ([written(value) for value in study.settings[name]] for name in names[:2])
    thirds = [{name: written(value)} for name in names[2:] for value in study.settings[name]] or [{}]
    panels = [{"network": network, **third} for network, third in product(study.networks, thirds)]
    low, high = _range(study, names)
    rows, columns = -(-len(panels) // ACROSS), min(len(panels), ACROSS)
    cell = max(1.0, 0.25 + 0.09 * max(map(len, across)))  # inches
    width = columns * (1.1 + 0.09 * max(map(len, down)) + cell * len(across))
    titles = [fill(", ".join(_panel_words(study, panel)), int(cell * len(across) / CHARACTER)) for panel in panels]
    above = 1.0 + 0.2 * max(text.count("\n") + 1 for text in titles)
    with sheet(path, max(6.0, width), rows * (above + 0.62 * len(down)) + 0.5, title) as figure:
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, panel, words in zip(grid.flat, panels, titles, strict=False):
            means, texts = _table(study, panel, {names[0]: down, names[1]: across})
            heatmap(axes, np.nan_to_num((means - low) / ((high - low) or 1)), texts)
            name_classes(axes, across, down)
            axes.set(xlabel=names[1].replace("_", " "), ylabel=names[0].replace("_", " "))
            axes.set_title(words)
            _frame_best(axes, study, panel, (names[0], down), (names[1], across))
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        spread = f", ± standard deviation of {study.seeds} seeds" if study.seeds > 1 else ""
        shade = Patch(facecolor="#6baed6", label=f"mean validation accuracy, %{spread}")
        frame = Patch(facecolor="none", edgecolor=VERMILION, linewidth=2.5, label="the best of all")
        legend_below(figure, [[shade], [frame]])
    return figure


def _range(study: Study, names: Sequence[str]) -> tuple[float, float]:
    """The lowest and the highest mean validation accuracy of a combination."""
    groups: dict[tuple, list[float]] = {}
    for row in study.trials:
        groups.setdefault((row["network"], *(row[name] for name in names)), []).append(row["validation_accuracy"])
    means = [float(np.mean(group)) for group in groups.values()]
    return min(means), max(means)


def _table(
    study: Study, panel: Mapping[str, str], settings: Mapping[str, Sequence[str]]
) -> tuple[np.ndarray, list[list[str]]]:
    """Mean validation accuracies [R, C] of one panel, NaN of what diverged, and what is written in its cells."""
    (first, down), (second, across) = settings.items()
    samples = [
        [[row["validation_accuracy"] for row in study.of(**panel, **{first: y, second: x})] for x in across]
        for y in down
    ]
    means = np.array([[np.mean(sample) if sample else np.nan for sample in line] for line in samples])
    return means, [[_cell(sample) for sample in line] for line in samples]


def _cell(sample: Sequence[float]) -> str:
    if not sample:
        return "diverged"
    mean = f"{100 * np.mean(sample):.2f}"
    return f"{mean}\n± {100 * np.std(sample, ddof=1):.2f}" if len(sample) > 1 else mean


def _panel_words(study: Study, panel: Mapping[str, str]) -> list[str]:
    """What a panel is of: its network, where there are several, and the value of the third setting."""
    third = [f"{name.replace('_', ' ')} {value}" for name, value in panel.items() if name != "network"]
    return [panel["network"], *third] if len(study.networks) > 1 or not third else third


def _frame_best(
    axes: Axes,
    study: Study,
    panel: Mapping[str, str],
    down: tuple[str, Sequence[str]],
    across: tuple[str, Sequence[str]],
) -> None:
    """Frame the best combination's cell, if it is in this panel."""
    best = next(row for row in study.trials if row["name"] == study.best)
    if all(best[key] == value for key, value in panel.items()):
        x, y = across[1].index(best[across[0]]), down[1].index(best[down[0]])
        axes.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor=VERMILION, linewidth=2.5, clip_on=False))
