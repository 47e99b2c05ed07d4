"""The pictures are really drawn: they show what they should, can be read, and no display is needed."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text

from fmnist.audit import Pairs, Suspects
from fmnist.data import CLASSES
from fmnist.evaluation import Predictions
from fmnist.exploration import Exploration
from fmnist.figures import comparisons, curves, dataset, predictions, style
from fmnist.figures.reliability import reliability
from tests.helpers.figure_checks import (
    CALIBRATION,
    CONFUSION,
    IMAGES,
    LABELS,
    MISTAKES,
    PER_CLASS,
    PREDICTIONS,
    WRONG,
    check_picture,
    contrast,
    epochs,
    model,
    recorded,
    texts,
    tiles_laid,
    with_seeds,
)

LONG = "four convolutions, LeakyReLU"
TWO = {"ffn": model("FFN", 0.8836, epochs(20)), "cnn": model("CNN", 0.9147, epochs(20, start=0.4))}
EIGHT = {
    f"v{n}": model(f"v{n}, {LONG}", 0.92 + n / 3000, epochs(10, True, 0.4 + n / 20), multiply_adds=10**7 * (n + 1))
    for n in range(8)
}
EIGHT["v0"] |= {"published": {"test_accuracy": 0.9}}
SEEDS = {
    name: with_seeds(one, [0.91, 0.92, 0.936], [epochs(n, True, 0.4) for n in (5, 4, 7)]) for name, one in EIGHT.items()
}
VARIED = {  # a study of five settings
    f"cnn-{n}": model(
        f"CNN, kernels 16+32+64+{n}, weight decay 0.0001, label smoothing 0.05, batch size 256, lr 0.000{n}",
        0.9,
        epochs(3, True),
        published={"test_accuracy": 0.89},
    )
    for n in range(8)
}
VERSIONS = {
    "v0": model("v0", 0.8761, epochs(2), published={"test_accuracy": 0.8748}),
    "v1": model("v1", 0.918, epochs(2), change=LONG),
}
EXPLORATION = Exploration(
    np.full(10, 6000),
    np.full(10, 1000),
    0.286,
    0.353,
    np.full(10, 0.3),
    np.full(10, 0.35),
    IMAGES[:10].astype(float),
    np.bincount(IMAGES.ravel(), minlength=256),
    np.corrcoef(IMAGES[:10].reshape(10, -1)),
)
GROWTH = {
    "training images": [(1000, 1, 300), (60_000, 50, 400)],
    "width": [(8, 1, 3), (64, 9, 5)],
    "epochs": [(1, 2, 3)],
}

EFFECTS = [
    {"factors": ["pool"], "low": "max", "high": "stride", "effect": -0.005, "interval": [-0.006, -0.004]},
    {"factors": ["pool", "optimizer"], "low": "", "high": "", "effect": 0.0002},
]


def suspects(count):
    """Suspects with the longest of names and numbers."""
    classes = np.full(count, CLASSES.index("T-shirt/top"))
    return Suspects(59_999 - np.arange(count), IMAGES[:count], classes, classes, np.ones((count, 2)))


def pairs(count):
    """Pairs of which half are of a training and a test image, and of the classes of the longest names."""
    is_test = np.stack([np.zeros(count, bool), np.arange(count) % 2 == 0], axis=1)
    labels = np.tile([CLASSES.index("T-shirt/top"), CLASSES.index("Ankle boot")], (count, 1))
    images = IMAGES[: 2 * count].reshape(count, 2, 28, 28)
    return Pairs(np.full((count, 2), 59_999), is_test, images, labels, np.full(count, 12.3))


CASES = {
    "loss of one epoch": lambda p: curves.loss_curves(p, {"cnn": model("CNN", 0.9, epochs(1))}, "Loss"),
    "loss of eight by step": lambda p: curves.loss_curves(p, EIGHT, "Loss", by_step=True),
    "loss of seeds by step": lambda p: curves.loss_curves(p, SEEDS, "Loss", by_step=True),
    "accuracy": lambda p: curves.accuracy_curves(p, TWO, "Accuracy"),
    "accuracy of eight": lambda p: curves.accuracy_curves(p, EIGHT, "Accuracy"),
    "accuracy of seeds": lambda p: curves.accuracy_curves(p, SEEDS, "Accuracy"),
    "comparison": lambda p: curves.model_comparison(p, EIGHT, "Comparison"),
    "comparison without validation": lambda p: curves.model_comparison(p, TWO, "Comparison"),
    "confusion": lambda p: predictions.confusion_matrix(p, CONFUSION * 999 + 88, PER_CLASS, "CNN: confusion matrix"),
    "confusion of every shade": lambda p: predictions.confusion_matrix(
        p, np.arange(100).reshape(10, 10) ** 2, PER_CLASS, "CNN"
    ),
    "examples": lambda p: predictions.examples(p, PREDICTIONS, "CNN: correct and incorrect predictions"),
    "correct": lambda p: predictions.gallery(p, PREDICTIONS, "CNN: correct predictions", correct=True),
    "incorrect": lambda p: predictions.gallery(p, PREDICTIONS, "CNN: incorrect predictions", correct=False),
    "reliability": lambda p: reliability(p, CALIBRATION, "CNN: reliability"),
    "accuracies": lambda p: comparisons.accuracy_comparison(p, EIGHT, "Test accuracy"),
    "accuracies and effects": lambda p: comparisons.accuracy_comparison(p, EIGHT, "Test accuracy", EFFECTS),
    "accuracies of long names": lambda p: comparisons.accuracy_comparison(p, VARIED, "Test accuracy"),
    "loss of long names": lambda p: curves.loss_curves(p, VARIED, "Loss"),
    "comparison of long names": lambda p: curves.model_comparison(p, VARIED, "Comparison"),
    "gains": lambda p: comparisons.gains(p, VERSIONS, "Gains"),
    "gains of seeds": lambda p: comparisons.gains(p, SEEDS, "Gains"),
    "costs": lambda p: comparisons.cost_scatter(p, SEEDS, "Costs"),
    "growth": lambda p: comparisons.cost_growth(p, GROWTH, "Growth"),
    "class counts": lambda p: dataset.class_counts(p, EXPLORATION, "Images per class"),
    "histogram": lambda p: dataset.pixel_histogram(p, EXPLORATION, "Histogram"),
    "means": lambda p: dataset.class_means(p, EXPLORATION, "Means"),
    "statistics": lambda p: dataset.class_statistics(p, EXPLORATION, "Statistics"),
    "sample grid": lambda p: dataset.sample_grid(p, IMAGES, LABELS, "Samples"),
    "mistakes": lambda p: predictions.mistakes(p, PREDICTIONS, MISTAKES, "CNN, 0.9 M: its surest mistakes"),
    "suspects": lambda p: dataset.suspects(p, suspects(60), "Labels of training images that look wrong"),
    "three suspects": lambda p: dataset.suspects(p, suspects(3), "Labels of test images that look wrong"),
    "no suspects": lambda p: dataset.suspects(p, suspects(0), "Labels of test images that look wrong"),
    "pairs": lambda p: dataset.near_pairs(p, pairs(30), "Images that nearly come twice"),
    "no pairs": lambda p: dataset.near_pairs(p, pairs(0), "Images that nearly come twice"),
    "look-alikes": lambda p: dataset.look_alikes(p, EXPLORATION, "Correlation"),
}


@pytest.mark.parametrize("case", CASES)
def test_picture_is_whole_and_readable(case, tmp_path):
    check_picture(CASES[case], tmp_path)


@pytest.mark.parametrize("case", ["accuracy of eight", "examples"])
def test_same_input_gives_the_same_bytes_whatever_the_users_style(case, tmp_path):
    CASES[case](tmp_path / "a.png")
    with matplotlib.rc_context({"font.size": 30, "savefig.bbox": "tight", "lines.linewidth": 9, "figure.dpi": 50}):
        CASES[case](tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


# Colours


def test_every_colour_of_a_line_or_word_stands_out_from_white():
    drawn = [look.color for look in style.looks([*"abcdefgh", "ffn", "cnn"]).values()]
    for colour in (*drawn, *style.palette(), style.INK, style.GREY, style.BLUE, style.VERMILION):
        assert contrast(matplotlib.colors.to_rgb(colour), (1, 1, 1)) >= 3, colour


def test_the_palette_is_seaborns_as_far_as_it_can_be_read():
    import seaborn

    published = seaborn.color_palette("colorblind").as_hex()
    kept = [ours == theirs for ours, theirs in zip(style.palette(), published, strict=True)]
    assert kept == [contrast(matplotlib.colors.to_rgb(colour), (1, 1, 1)) >= 3.2 for colour in published]
    hues = (matplotlib.colors.rgb_to_hsv(matplotlib.colors.to_rgb(c))[0] for c in (style.palette()[1], published[1]))
    assert next(hues) == pytest.approx(next(hues), abs=0.01), "a darker orange, but orange"


def test_ffn_is_blue_and_cnn_orange_and_no_two_networks_look_alike():
    looks = style.looks(["resnet18", "cnn", "ffn", *(f"n{n}" for n in range(30))])
    assert (looks["ffn"].color, looks["cnn"].color) == tuple(style.palette()[:2])
    assert looks["ffn"].color == style.BLUE
    assert len(set(looks.values())) == 33
    assert len({look.color for look in list(looks.values())[:10]}) == 10


# Curves


def test_loss_curves_show_every_epoch_in_the_networks_colours(tmp_path):
    models = {"ffn": model("FFN", 0.9, epochs(3)), "cnn": model("CNN", 0.9, epochs(2, True))}
    (axes,) = curves.loss_curves(tmp_path / "l.png", models, "Loss").axes
    ffn, cnn, validation = axes.lines
    assert ffn.get_xdata().tolist() == [1, 2, 3]
    assert ffn.get_ydata() == pytest.approx([0.6, 0.3, 0.2])
    blue, orange = style.palette()[:2]
    assert (ffn.get_color(), cnn.get_color(), validation.get_color()) == (blue, orange, orange)
    assert validation.get_ydata() == pytest.approx([0.7, 0.4])
    assert [line.is_dashed() for line in (ffn, cnn, validation)] == [False, False, True]
    assert all(line.get_marker() != "None" for line in axes.lines)
    (alone,) = curves.loss_curves(tmp_path / "l.png", models, "Loss", only="ffn").axes[0].lines
    assert alone.get_color() == blue


def test_published_losses_of_epochs_are_crosses(tmp_path):
    published = {"epochs": [{"train_loss": 0.5}, {"train_loss": 0.4}]}
    models = {"cnn": model("CNN", 0.9, epochs(2), published=published)}
    figure = curves.loss_curves(tmp_path / "l.png", models, "Loss")
    crosses = figure.axes[0].lines[-1]
    assert crosses.get_marker() == "x"
    assert crosses.get_xydata().tolist() == [[1, 0.5], [2, 0.4]]
    assert "published" in texts(figure)


def test_effects_stand_below_the_bars_with_their_intervals(tmp_path):
    figure = comparisons.accuracy_comparison(tmp_path / "a.png", EIGHT, "Test accuracy", EFFECTS)
    _, axes = figure.axes
    interval, main, interaction, zero = axes.lines
    assert interval.get_xdata() == pytest.approx([-0.6, -0.4])
    assert (main.get_xdata(), interaction.get_xdata()) == (pytest.approx([-0.5]), pytest.approx([0.02]))
    assert main.get_color() != interaction.get_color()
    assert zero.get_xdata() == [0, 0]
    assert {"pool: stride for max", "pool x optimizer", "-0.50", "+0.02", "main effect", "interaction"} <= texts(figure)


def test_the_gain_of_the_last_version_over_the_first_stands_below_the_bars(tmp_path):
    figure = comparisons.gains(tmp_path / "g.png", VERSIONS, "Gains")
    assert figure.axes[0].get_xlabel().endswith("v0 to v1: +4.19 points")


def test_a_ring_stands_around_the_epoch_whose_weights_are_scored(tmp_path):
    rows = epochs(3, validation=True)
    rows[1]["best"] = True
    models = {"v1": model("v1", 0.88, rows), "v2": model("v2", 0.9, epochs(1))}
    loss = curves.loss_curves(tmp_path / "l.png", models, "Loss", only="v1", by_step=True).axes[0]
    assert loss.lines[-1].get_xydata().tolist() == [[60, 0.4]]
    accuracy = curves.accuracy_curves(tmp_path / "a.png", models, "Accuracy")
    ring, star = (line for line in accuracy.axes[0].lines if np.ravel(line.get_xdata()).tolist() == [2])
    assert (ring.get_ydata(), star.get_ydata()) == ([0.9], [0.88])
    panels = curves.model_comparison(tmp_path / "m.png", models, "Comparison").axes
    assert [len(axes.lines) for axes in panels] == [2, 2, 2, 2]  # both networks; one validated, and ringed
    assert all("epoch that is scored" in texts(axes.figure) for axes in (loss, accuracy.axes[0], panels[0]))
    assert all(line.get_mfc() == "none" for line in (loss.lines[-1], ring, panels[1].lines[-1], panels[3].lines[-1]))


def test_epochs_are_whole_numbers_and_missing_values_are_left_out(tmp_path):
    history = [epochs(1)[0], epochs(1)[0] | {"train_loss": None}, epochs(1)[0]]
    (axes,) = curves.loss_curves(tmp_path / "l.png", {"cnn": model("CNN", 0.9, history)}, "Loss").axes
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1, 2, 3]
    assert np.isnan(axes.lines[0].get_ydata()[1])


def test_loss_by_step_lies_over_its_epoch(tmp_path):
    models = {"v1": model("v1", 0.9, epochs(2))}
    (axes,) = curves.loss_curves(tmp_path / "l.png", models, "Loss", by_step=True).axes
    within, whole = axes.lines
    assert within.get_xdata() == pytest.approx([5, 15, 25, 35, 45, 55])
    assert within.get_ydata() == pytest.approx([0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    assert whole.get_xdata().tolist() == [15, 45]
    assert axes.get_xlabel() == "step"
    (entry,) = [line for line in axes.figure.legends[0].get_lines() if line.get_label() == "training, within an epoch"]
    assert entry.get_linewidth() == within.get_linewidth() < whole.get_linewidth()


@pytest.mark.parametrize(("count", "scale"), [(3, "linear"), (9, "log")])
def test_steps_that_differ_much_are_drawn_on_a_logarithmic_axis(count, scale, tmp_path):
    models = {"v0": model("v0", 0.9, epochs(count)), "v1": model("v1", 0.9, epochs(2))}
    figure = curves.loss_curves(tmp_path / "l.png", models, "Loss", by_step=True)
    assert figure.axes[0].get_xscale() == scale
    assert not any("$" in text for text in texts(figure))


def test_the_legend_tells_every_line_and_star_of_the_accuracies(tmp_path):
    models = {"ffn": model("FFN", 0.8836, epochs(4)), "cnn": model("CNN", 0.9147, epochs(3, True))}
    figure = curves.accuracy_curves(tmp_path / "a.png", models, "Accuracy")
    stars = [line.get_xydata().tolist() for line in figure.axes[0].lines if line.get_marker() == "*"]
    assert stars == [[[4, 0.8836]], [[3, 0.9147]]]
    assert {line for line in texts(figure) if "," in line} == {
        "FFN, training",
        "FFN, test 88.36%",
        "CNN, training",
        "CNN, validation",
        "CNN, test 91.47%",
    }


def test_several_seeds_are_drawn_as_their_mean_in_a_band_of_their_range(tmp_path):
    one = with_seeds(model("CNN", 0.9, epochs(2)), [0.9, 0.91, 0.95], [epochs(2, start=x) for x in (0.3, 0.4, 0.8)])
    (axes,) = curves.loss_curves(tmp_path / "l.png", {"cnn": one}, "Loss").axes
    assert axes.lines[0].get_ydata() == pytest.approx([0.5, 0.25])
    (band,) = axes.collections
    assert {tuple(vertex.round(3)) for vertex in band.get_paths()[0].vertices} == {
        (1, 0.3),
        (1, 0.8),
        (2, 0.15),
        (2, 0.4),
    }
    assert "mean of 3 seeds, band: range" in texts(axes.figure)
    figure = curves.accuracy_curves(tmp_path / "a.png", {"cnn": one}, "Accuracy")
    assert "CNN, test 92.00% ± 2.65" in texts(figure)
    (bar,) = (line for line in figure.axes[0].collections if hasattr(line, "get_segments"))
    assert np.ptp(bar.get_segments()[0][:, 1]) / 2 == pytest.approx(np.std([0.9, 0.91, 0.95], ddof=1))


def test_seeds_that_end_at_different_epochs(tmp_path):
    (axes,) = curves.loss_curves(tmp_path / "l.png", {"cnn": SEEDS["v0"]}, "Loss").axes
    assert axes.lines[0].get_xdata().tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert "mean of up to 3 seeds, band: range" in texts(axes.figure)


def test_comparison_tells_all_networks_apart_and_says_what_is_missing(tmp_path):
    figure = curves.model_comparison(tmp_path / "m.png", EIGHT, "Comparison")
    assert [len(axes.lines) for axes in figure.axes] == [8, 8, 8, 8]
    assert len({line.get_color() for line in figure.axes[0].lines}) == 8
    assert f"v0, {LONG}, test 92.00%, published 90.00%" in texts(figure)
    words = texts(curves.model_comparison(tmp_path / "m.png", TWO, "Comparison"))
    assert {"no validation loss was measured", "no validation accuracy was measured"} <= set(words)


# Predictions


def test_confusion_shows_counts_margins_and_accuracy_in_their_places(tmp_path):
    (axes,) = predictions.confusion_matrix(tmp_path / "c.png", CONFUSION, PER_CLASS, "t").axes
    at = {tuple(np.round(text.get_position(), 2)): text.get_text() for text in axes.texts}
    counts = [[at[column + 0.5, row + 0.5] for column in range(10)] for row in range(10)]
    assert counts == CONFUSION.astype(str).tolist()
    assert [at[10.8, row + 0.5] for row in range(10)] == [f"{value:.1%}" for value in PER_CLASS["recall"]]
    assert [at[column + 0.5, 10.8] for column in range(10)] == [f"{value:.1%}" for value in PER_CLASS["precision"]]
    assert at[10.8, 10.8] == "85.50%\ncorrect"
    assert [label.get_text().replace("\n", " ").replace("/ ", "/") for label in axes.get_xticklabels()] == [*CLASSES]
    assert [label.get_text() for label in axes.get_yticklabels()] == [*CLASSES]
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first true class stands above the others"


@pytest.fixture
def tiles():
    with tiles_laid() as laid:
        yield laid


def test_examples_stand_correct_on_the_left_and_incorrect_on_the_right(tmp_path, tiles):
    figure = predictions.examples(tmp_path / "e.png", PREDICTIONS, "t")
    middle = figure.get_size_inches()[0] / 2
    left = [int(image[0, 0]) for image, box in tiles if box.left < middle]
    right = [int(image[0, 0]) for image, box in tiles if box.left > middle]
    assert (len(left), len(right)) == (16, 16)
    assert not WRONG[left].any()
    assert WRONG[right].all()
    assert set(LABELS[left]) == set(LABELS[right]) == set(range(10))
    words = texts(figure)
    assert f"correct: {(~WRONG).sum()} of 200" in words
    assert f"true {CLASSES[LABELS[right[0]]]}" in words
    assert f"→ {CLASSES[PREDICTIONS.classes[right[0]]]} 82%" in words


@pytest.mark.parametrize(("kept", "word"), [(WRONG, "correct"), (~WRONG, "incorrect")])
def test_a_gallery_without_images_says_so(tmp_path, kept, word):
    shown = Predictions(*(values[kept] for values in PREDICTIONS))
    figure = predictions.gallery(tmp_path / "g.png", shown, "t", correct=word == "correct")
    assert f"no prediction is {word}" in texts(figure)


def test_mistakes_are_shown_with_what_others_think_of_their_labels(tmp_path):
    with tiles_laid() as tiles:
        figure = predictions.mistakes(tmp_path / "m.png", PREDICTIONS, MISTAKES, "t")
    assert [image[0, 0] for image, _ in tiles] == MISTAKES["surest"]
    written = [text.get_text() for text in figure.findobj(Text)]
    verdicts = [text == "label looks wrong" for text in written if text.startswith("label looks")]
    assert verdicts == MISTAKES["surest_suspected"]
    none = {"count": 0, "suspected": 0, "surest": [], "surest_suspected": []}
    assert "no mistake" in texts(predictions.mistakes(tmp_path / "m.png", PREDICTIONS, none, "t"))


def test_choice_is_spread_over_classes():
    labels = np.array([0, 0, 0, 2, 1, 0, 2])
    assert predictions.spread_over_classes(np.array([0, 2, 3, 5, 6]), labels, 3).tolist() == [0, 2, 3]
    assert predictions.spread_over_classes(np.arange(7), labels, 4).tolist() == [0, 1, 4, 3]
    assert predictions.spread_over_classes(np.arange(7), labels, 99).tolist() == [0, 1, 2, 5, 4, 3, 6]
    assert predictions.spread_over_classes(np.array([], int), labels, 4).tolist() == []


def test_reliability_shows_each_bin_before_and_after_with_its_interval(tmp_path):
    before, after, counts, _ = reliability(tmp_path / "r.png", CALIBRATION, "t").axes
    diagonal, points, *_ = before.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert points.get_xydata().tolist() == [[0.3, 0.0], [0.55, 0.4], [0.98, 0.97]]
    assert after.lines[1].get_ydata().tolist() == [1.0, 0.56, 0.98]
    assert [bar.get_height() for bar in counts.patches] == [1, 200, 9799]
    assert "expected calibration error 4.31%" in before.get_title()
    assert after.get_title() == "at temperature 1.62, from 6,000 held-out images\nexpected calibration error 0.87%"
    # Wilson's interval (1927) for 80 of 200, written out.
    z, n, p = 1.959964, 200, 0.4
    middle, half = (
        (p + z * z / 2 / n) / (1 + z * z / n),
        z / (1 + z * z / n) * (p * (1 - p) / n + (z / 2 / n) ** 2) ** 0.5,
    )
    ends = before.containers[0].lines[2][0].get_segments()[1][:, 1]
    assert ends == pytest.approx([middle - half, middle + half])


# The data set, and comparisons


def test_look_alikes_frame_the_nearest_other_class(tmp_path):
    (axes,) = dataset.look_alikes(tmp_path / "l.png", EXPLORATION, "t").axes
    frames = [(int(frame.get_x()), int(frame.get_y())) for frame in axes.patches]
    nearest = (EXPLORATION.similarity - 2 * np.eye(10)).argmax(axis=1)
    assert frames == [(column, row) for row, column in enumerate(nearest)]


@pytest.mark.parametrize("draw", [comparisons.gains, comparisons.accuracy_comparison])
def test_bars_tell_measured_and_published(draw, tmp_path):
    figure = draw(tmp_path / "g.png", VERSIONS, "t")
    axes, words = figure.axes[0], texts(figure)
    assert {"87.61%\npublished 87.48%", "91.80%", "published"} <= words
    assert (f"v1: +4.19 points\n{LONG}" in words) == (draw is comparisons.gains)
    assert [bar.get_x() + bar.get_width() for bar in axes.patches] == pytest.approx([0.8761, 0.918])
    assert axes.lines[0].get_xdata() == pytest.approx([0.8748] * 2)
    assert "the axis starts at 84%" in axes.get_xlabel()


@pytest.mark.parametrize("draw", [comparisons.gains, comparisons.accuracy_comparison, comparisons.cost_scatter])
def test_of_several_seeds_the_mean_and_its_error_are_drawn(draw, tmp_path):
    figure = draw(tmp_path / "g.png", {"v0": SEEDS["v0"]}, "t")
    (bar,) = (line for line in figure.axes[0].collections if hasattr(line, "get_segments"))
    low, high = np.sort(bar.get_segments()[0][:, 1 if draw is comparisons.cost_scatter else 0])
    assert (low + high) / 2 == pytest.approx(0.922)
    assert (high - low) / 2 == pytest.approx(np.std([0.91, 0.92, 0.936], ddof=1))
    assert "mean ± standard deviation of 3 seeds" in texts(figure)


def test_a_cost_that_was_not_measured_leaves_the_network_out(tmp_path):
    models = {"a": TWO["ffn"] | {"multiply_adds": None}, "b": TWO["cnn"]}
    figure = comparisons.cost_scatter(tmp_path / "c.png", models, "t")
    assert [len(axes.lines) for axes in figure.axes] == [2, 1, 2]
    assert [axes.get_xscale() for axes in figure.axes] == ["log"] * 3
    assert "not measured" in texts(comparisons.cost_scatter(tmp_path / "c.png", {"a": models["a"]}, "t"))


# What all have in common


@pytest.mark.parametrize("title", ["x" * 300, "two\nlines", r"$\frac$ costs $5_", "\udcff.jpg", "衬衫.jpg"])
def test_any_title_fits_on_one_line_and_warns_of_no_glyph(tmp_path, title, recwarn):
    for draw in (
        lambda path: dataset.class_means(path, EXPLORATION, title),
        lambda path: curves.loss_curves(path, TWO, title),
    ):
        with recorded() as boxes:
            figure = draw(tmp_path / "t.png")
        (box,) = (box for text, box in boxes.items() if text.get_fontweight() == "bold")
        assert 0 < box.x0 < box.x1 < figure.bbox.width
        assert box.height < 40
    assert not recwarn.list


def test_pictures_need_no_display_and_import_seaborn_only_for_what_it_draws(tmp_path):
    program = (
        "import sys; import numpy as np; from fmnist.figures import album, layers\n"
        f"layers.kernels_grid({str(tmp_path / 'k.png')!r}, np.ones((4, 1, 3, 3)), 'Kernels')\n"
        "print({'seaborn', 'pandas', 'matplotlib.pyplot', 'tkinter'} & set(sys.modules))"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[1],
        env=environment | {"MPLBACKEND": "TkAgg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "set()", "")
    assert (tmp_path / "k.png").read_bytes().startswith(b"\x89PNG")
