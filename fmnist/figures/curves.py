"""Pictures of trainings: loss and accuracy, epoch by epoch.

Every function writes one PNG, whole or not at all, and returns its Figure. `models` are those of metrics.json. Where a
network was trained from several seeds, its curve is their mean, in a band from the smallest value to the largest.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from fmnist.figures.style import GREY, INK, Look, legend_below, looks, sheet
from fmnist.metrics import Epoch, Model
from fmnist.study_results import scored_epoch, trainings_of
from fmnist.tables import mean_of, std_of

VALIDATION = (0, (4, 2))  # the dashes of everything measured on held-out images
# Around the epoch whose weights are scored, where validation images choose it.
RING = {"marker": "o", "ms": 13, "mfc": "none", "mew": 1.6, "linestyle": ""}
CROSS = {"marker": "x", "ms": 9, "mew": 2, "linestyle": ""}  # what is published
THIN = {"linewidth": 0.8}  # what was measured within an epoch
STAR = {"marker": "*", "ms": 15, "linestyle": ""}  # what was measured on the test images
UNEVEN = 4  # times the steps of another training: then the axis of the steps is logarithmic


def loss_curves(
    path: Path | str, models: Mapping[str, Model], title: str, only: str | None = None, by_step: bool = False
) -> Figure:
    """Draw the training loss of each network, or `only` of one, and, dashed, its validation loss where there is one.

    Published losses of single epochs are crosses. `by_step` counts steps, not epochs, and adds the training loss within
    each epoch as a thin line.
    """
    own, shown = looks(models), {only: models[only]} if only else models
    with sheet(path, 8, 5, title) as figure:
        axes = figure.subplots()
        for name, model in shown.items():
            _losses(axes, model, own[name], by_step)
        validated = any(_is_measured(model, "validation_loss") for model in shown.values())
        axes.set(xlabel="step" if by_step else "epoch", ylabel="loss" if validated else "training loss")
        steps = [_steps(model) * len(model["epochs"]) for model in shown.values()]
        if by_step and max(steps) > UNEVEN * min(steps):
            axes.set_xscale("log")  # else the shorter trainings would be squeezed against the left edge
        else:
            _mark_whole_numbers(axes)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        groups = [_lines(model, "loss", own[name]) for name, model in shown.items()]
        if by_step:
            groups.append([Line2D([], [], color=GREY, label="training, within an epoch", **THIN)])
        elif any("epochs" in model["published"] for model in shown.values()):
            groups.append([Line2D([], [], color=GREY, label="published", **CROSS)])
        legend_below(figure, [*groups, *_notes(shown)])
    return figure


def accuracy_curves(path: Path | str, models: Mapping[str, Model], title: str) -> Figure:
    """Draw each network's accuracy in training and, dashed, on the validation images where there are some.

    The test accuracy is a star at the epoch of the scored weights; of several seeds it is the mean, and its error bar
    their standard deviation.
    """
    own = looks(models)
    with sheet(path, 9, 5.6, title) as figure:
        axes = figure.subplots()
        groups = []
        for name, model in models.items():
            _curve(axes, model, "train_accuracy", own[name])
            _curve(axes, model, "validation_accuracy", own[name])
            star = _star(axes, model, own[name].color)
            groups.append([*_lines(model, "accuracy", own[name]), star])
        _mark_whole_numbers(axes)
        axes.set(xlabel="epoch", ylabel="accuracy")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        legend_below(figure, [*groups, *_notes(models)])
    return figure


def model_comparison(path: Path | str, models: Mapping[str, Model], title: str) -> Figure:
    """Draw loss and accuracy of every network in training and on the validation images, in 2 x 2 panels.

    The legend gives each network's test accuracy, and the published one where there is one.
    """
    own = looks(models)
    with sheet(path, 11, 8.6, title) as figure:
        panels = figure.subplots(2, 2, sharey="row")
        for row, quantity in enumerate(("loss", "accuracy")):
            for axes, part in zip(panels[row], ("training", "validation"), strict=True):
                for name, model in models.items():
                    _curve(axes, model, f"{part.removesuffix('ing')}_{quantity}", own[name])
                axes.set(title=f"{part} {quantity}", xlabel="epoch" if row else "")
                _mark_whole_numbers(axes)
                if not axes.lines:
                    axes.set(xticks=[], xlabel="")
                    axes.text(0.5, 0.5, f"no {part} {quantity} was measured", transform=axes.transAxes, ha="center")
        panels[1, 0].yaxis.set_major_formatter(PercentFormatter(1))
        handles = [[_entry(own[name], f"{model['title']}, {_scores(model)}")] for name, model in models.items()]
        legend_below(figure, [*handles, *_notes(models)])
    return figure


# Numbers


def _runs(model: Model) -> list[list[Epoch]]:
    """The epochs of each training of a network."""
    return [training["epochs"] for training in trainings_of(model)]


def _steps(model: Model) -> int:
    """Steps per epoch."""
    return model["epochs"][0]["steps"]


def _aligned(rows: Sequence[Sequence[float | None]]) -> np.ndarray:
    """Return rows of any length as one array, float [R, longest], NaN where a value is missing."""
    aligned = np.full((len(rows), max(map(len, rows))), np.nan)
    for place, row in zip(aligned, rows, strict=True):
        place[: len(row)] = row
    return aligned


def _values(model: Model, key: str) -> np.ndarray:
    """One value per seed and epoch, float [S, E], NaN where it is missing: seeds may end at different epochs."""
    return _aligned([np.array([epoch.get(key) for epoch in run], float) for run in _runs(model)])


def _is_measured(model: Model, key: str) -> bool:
    return bool(np.isfinite(_values(model, key)).any())


def _best(run: Sequence[Epoch]) -> list[int]:
    """The number of the epoch that validation images chose, from 1; none where they chose none."""
    return [number for number, epoch in enumerate(run, start=1) if epoch.get("best")]


def _scores(model: Model) -> str:
    """Test accuracy and published accuracy in words."""
    published = model["published"].get("test_accuracy")
    return _test(model) if published is None else f"{_test(model)}, published {published:.2%}"


def _test(model: Model) -> str:
    """Test accuracy in words, with the standard deviation over several seeds."""
    std = std_of(model, "test_accuracy")
    return f"test {mean_of(model, 'test_accuracy'):.2%}" + ("" if std is None else f" ± {std * 100:.2f}")


# Lines


def _losses(axes: Axes, model: Model, look: Look, by_step: bool) -> None:
    """Draw the losses of one network, by epoch or by step."""
    if not by_step:
        _curve(axes, model, "train_loss", look)
        _curve(axes, model, "validation_loss", look)
        if published := [epoch["train_loss"] for epoch in model["published"].get("epochs", [])]:
            axes.plot(range(1, len(published) + 1), published, color=look.color, **CROSS)
        return
    runs, steps = _runs(model), _steps(model)
    within = _aligned([[part for epoch in run for part in epoch["train_loss_by_step"]] for run in runs])
    parts = within.shape[1] / max(map(len, runs))  # of an epoch
    middles = (np.arange(within.shape[1]) + 0.5) / parts * steps
    axes.plot(middles, _mean(within), color=look.color, **THIN)
    # The training loss is the mean over an epoch: it stands in the epoch's middle.
    _curve(axes, model, "train_loss", look, along=lambda epochs: (epochs - 0.5) * steps)
    _curve(axes, model, "validation_loss", look, along=lambda epochs: epochs * steps)


def _curve(
    axes: Axes, model: Model, key: str, look: Look, along: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> None:
    """Draw one value per epoch, if there are any, at `along` of the epochs; validation dashed.

    The markers thin out where epochs are many.
    """
    values = _values(model, key)
    if not np.isfinite(values).any():
        return
    epochs = along(np.arange(1, values.shape[1] + 1))
    every = -(-len(epochs) // 25)
    is_validation = key.startswith("validation")
    axes.plot(epochs, _mean(values), linestyle=VALIDATION if is_validation else "-", markevery=every, **look._asdict())
    if len(values) > 1:
        known = np.ma.masked_invalid(values)
        low, high = (edge.filled(np.nan) for edge in (known.min(axis=0), known.max(axis=0)))
        axes.fill_between(epochs, low, high, color=look.color, alpha=0.2, linewidth=0)
    elif is_validation and (best := _best(model["epochs"])):
        axes.plot(epochs[best[0] - 1], values[0, best[0] - 1], color=look.color, **RING)


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean over the seeds, [S, E] -> [E], of what is known; NaN where nothing is."""
    return np.ma.masked_invalid(values).mean(axis=0).filled(np.nan)


def _star(axes: Axes, model: Model, colour: str) -> Line2D:
    """Mark the test accuracy at the epoch that is scored, over several seeds the mean one; return its legend entry."""
    epochs = [scored_epoch(run) for run in _runs(model)]
    accuracy, error = mean_of(model, "test_accuracy"), std_of(model, "test_accuracy")
    axes.errorbar(np.mean(epochs), accuracy, error, fmt="none", ecolor=INK, elinewidth=1.2, zorder=6)
    axes.plot(np.mean(epochs), accuracy, color=colour, mec="white", zorder=5, **STAR)
    return Line2D([], [], color=colour, label=f"{model['title']}, {_test(model)}", **STAR)


def _mark_whole_numbers(axes: Axes) -> None:
    """Mark whole epochs or steps only; a single epoch stands in the middle."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    if all(np.all(np.asarray(line.get_xdata()) <= 1) for line in axes.lines):
        axes.set_xlim(0.5, 1.5)


# Legends


def _entry(look: Look, label: str, linestyle: str | tuple[int, tuple[int, ...]] = "-") -> Line2D:
    return Line2D([], [], linestyle=linestyle, label=label, **look._asdict())


def _lines(model: Model, quantity: str, look: Look) -> list[Artist]:
    """The legend's entries for the lines of one network."""
    entries = [_entry(look, f"{model['title']}, training")]
    if _is_measured(model, f"validation_{quantity}"):
        entries.append(_entry(look, f"{model['title']}, validation", VALIDATION))
    return entries


def _notes(models: Mapping[str, Model]) -> Iterable[list[Artist]]:
    """The legend's entries for what means the same in every network: the ring, and the band over several seeds."""
    runs = [_runs(model) for model in models.values()]
    several = max(map(len, runs))
    if several > 1:
        uneven = any(len({len(run) for run in trained}) > 1 for trained in runs)
        label = f"mean of {'up to ' if uneven else ''}{several} seeds, band: range"
        yield [Patch(color=GREY, alpha=0.4, label=label)]
    if any(len(trained) == 1 and _best(trained[0]) for trained in runs):
        yield [Line2D([], [], color=GREY, label="epoch that is scored", **RING)]
