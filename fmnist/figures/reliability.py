"""Reliability: how often predictions of a given probability are correct, before and after temperature scaling."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from fmnist.figures.style import BLUE, GREY, sheet
from fmnist.metrics import Calibration, Reliability


def reliability(path: Path | str, calibration: Calibration, title: str) -> Figure:
    """Draw accuracy against confidence of the test images, and how many have which, with and without temperature.

    On the dashed line a network is as often correct as its probabilities say; below it, it is overconfident.
    """
    scaled = (
        f"at temperature {calibration['temperature']:.2f}, from {calibration['validation_images']:,} held-out images"
    )
    panels = {"bins": ("as trained", "ece"), "bins_after": (scaled, "ece_after")}
    with sheet(path, 10, 6.6, title) as figure:
        axes = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1))
        for column, (key, (words, error)) in enumerate(panels.items()):
            _accuracies(axes[0, column], calibration[key])
            _counts(axes[1, column], calibration[key])
            axes[0, column].set_title(f"{words}\nexpected calibration error {calibration[error]:.2%}")
        axes[0, 0].set_ylabel("accuracy")
        axes[1, 0].set_ylabel("test images")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _accuracies(axes: Axes, bins: Reliability) -> None:
    """Draw the accuracy of each bin with its interval, beside the line on which it should lie."""
    accuracy, ends = np.array(bins["accuracy"]), np.array(_intervals(bins))
    bars = np.abs(ends.T - accuracy)
    axes.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1.2, label="as often correct as it says")
    words = "accuracy at this confidence, with its 95 % interval"
    axes.errorbar(bins["confidence"], accuracy, bars, fmt="o-", color=BLUE, elinewidth=1.2, label=words)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))


def _intervals(bins: Reliability) -> list[tuple[float, float]]:
    """Wilson's interval for each accuracy."""
    from scipy.stats import binomtest  # takes a second; kernel_vis.py does without

    counted = zip(bins["accuracy"], bins["count"], strict=True)
    tests = (binomtest(round(accuracy * count), count) for accuracy, count in counted)
    return [tuple(test.proportion_ci(method="wilson")) for test in tests]


def _counts(axes: Axes, bins: Reliability) -> None:
    """Draw how many images each bin has."""
    axes.bar(bins["confidence"], bins["count"], width=0.05, color=BLUE)
    axes.set_xlabel("confidence: probability of the predicted class")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
