"""The pictures are really drawn: they show what they should, nothing is cut off, and no display is needed."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from fmnist.figures import comparisons, curves, dataset, style
from tests.helpers.figure_checks import (
    CLASSES,
    GUESSES,
    IMAGES,
    LABELS,
    PROBABILITIES,
    WRONG,
    check_picture,
    recorded,
    texts,
    tiles_laid,
)

CONFUSION = np.zeros((10, 10), int)
np.add.at(CONFUSION, (LABELS, GUESSES), 1)
PER_CLASS = {
    "recall": [CONFUSION[c, c] / CONFUSION[c].sum() for c in range(10)],
    "precision": [CONFUSION[c, c] / CONFUSION[:, c].sum() for c in range(10)],
}
SHOWN = (IMAGES, LABELS, PROBABILITIES, CLASSES)
LONG = "four convolutions, LeakyReLU"


def history(epochs, validation=False, start=0.6):
    rows = []
    for epoch in range(epochs):
        loss = start / (epoch + 1)
        row = {"train_loss": loss, "train_accuracy": 1 - loss / 3, "train_loss_by_step": [loss + 0.1, loss, loss - 0.1]}
        rows.append(row | ({"validation_loss": loss + 0.1, "validation_accuracy": 0.9} if validation else {}))
    return rows


TWO = {"ffn": history(20), "cnn": history(20, start=0.4)}
EIGHT = {f"v{n}": history(10, True, 0.4 + n / 20) for n in range(8)}
EIGHT_TITLES = {name: f"{name}, {LONG}" for name in EIGHT}
CLOSE = {name: 0.92 + n / 3000 for n, name in enumerate(EIGHT)}
ROWS = [
    {"name": n, "title": LONG, "test_accuracy": a, "parameters": 9e5, "multiply_adds": 1e7 * (k + 1), "seconds": 30 + k}
    for k, (n, a) in enumerate(CLOSE.items())
]

CASES = {
    "loss of one epoch": lambda p: curves.loss_curves(p, {"cnn": history(1)}),
    "loss of eight by step": lambda p: curves.loss_curves(
        p, EIGHT, EIGHT_TITLES, steps_per_epoch=dict.fromkeys(EIGHT, 844)
    ),
    "accuracy": lambda p: curves.accuracy_curves(p, TWO, {"ffn": 0.8836, "cnn": 0.9147}),
    "accuracy of eight": lambda p: curves.accuracy_curves(p, EIGHT, CLOSE, EIGHT_TITLES),
    "comparison": lambda p: curves.model_comparison(p, EIGHT, CLOSE, {"v0": 0.9}, EIGHT_TITLES),
    "comparison without validation": lambda p: curves.model_comparison(p, TWO, {"ffn": 0.88, "cnn": 0.91}),
    "confusion": lambda p: curves.confusion_matrix(p, CONFUSION * 999 + 88, PER_CLASS, CLASSES, "CNN: confusion"),
    "examples": lambda p: curves.examples(p, *SHOWN, "CNN: right and wrong"),
    "right": lambda p: curves.gallery(p, *SHOWN, "CNN: right", correct=True),
    "wrong": lambda p: curves.gallery(p, *SHOWN, "CNN: wrong", correct=False),
    "gains": lambda p: comparisons.gains(
        p, list("abc"), [0.87, 0.91, 0.93], ["", LONG, LONG * 2], [0.88, None, 0.93], deviations=[0.001, 0.002, 0.003]
    ),
    "costs": lambda p: comparisons.cost_scatter(p, ROWS),
    "growth": lambda p: comparisons.cost_growth(
        p,
        {
            "training images": [(1000, 1, 300), (60_000, 50, 400)],
            "width": [(8, 1, 3), (64, 9, 5)],
            "epochs": [(1, 2, 3)],
        },
    ),
    "class counts": lambda p: dataset.class_counts(p, [6000] * 10, [1000] * 10, CLASSES),
    "histogram": lambda p: dataset.pixel_histogram(p, np.bincount(IMAGES.ravel(), minlength=256), 0.286, 0.353),
    "means": lambda p: dataset.class_means(p, IMAGES[:10].astype(float), CLASSES),
    "statistics": lambda p: dataset.class_statistics(p, [0.3] * 10, [0.35] * 10, CLASSES),
    "sample grid": lambda p: dataset.sample_grid(p, IMAGES, LABELS, CLASSES),
    "look-alikes": lambda p: dataset.look_alikes(p, np.corrcoef(IMAGES[:10].reshape(10, -1)), CLASSES),
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


# Curves


def test_loss_curves_show_every_epoch_in_the_networks_colours(tmp_path):
    (axes,) = curves.loss_curves(tmp_path / "l.png", {"ffn": history(3), "cnn": history(2, True)}).axes
    ffn, cnn, validation = axes.lines
    assert ffn.get_xdata().tolist() == [1, 2, 3]
    assert ffn.get_ydata() == pytest.approx([0.6, 0.3, 0.2])
    assert (ffn.get_color(), cnn.get_color(), validation.get_color()) == (style.BLUE, style.ORANGE, style.ORANGE)
    assert validation.get_ydata() == pytest.approx([0.7, 0.4])
    assert [line.is_dashed() for line in (ffn, cnn, validation)] == [False, False, True]
    assert all(line.get_marker() != "None" for line in axes.lines)


def test_a_ring_stands_around_the_epoch_whose_weights_are_scored(tmp_path):
    rows = history(3, validation=True)
    rows[1]["best"] = True
    loss = curves.loss_curves(tmp_path / "l.png", {"v1": rows}, steps_per_epoch={"v1": 30}).axes[0]
    assert loss.lines[-1].get_xydata().tolist() == [[60, 0.4]]
    accuracy = curves.accuracy_curves(tmp_path / "a.png", {"v1": rows}, {"v1": 0.88})
    ring, star = (line for line in accuracy.axes[0].lines if len(line.get_xdata()) == 1 and line.get_xdata()[0] == 2)
    assert (ring.get_ydata()[0], star.get_ydata()[0]) == (0.9, 0.88)
    assert {"training", "validation", "best epoch", "test"} <= set(texts(accuracy))
    panels = curves.model_comparison(tmp_path / "m.png", {"v1": rows, "v2": history(2)}, {}).axes
    assert "best epoch" in texts(panels[0].figure)
    assert [len(axes.lines) for axes in panels] == [2, 2, 2, 2]  # both networks; one validated, and ringed
    assert all(line.get_mfc() == "none" for line in (loss.lines[-1], ring, panels[1].lines[-1], panels[3].lines[-1]))


def test_epochs_are_whole_numbers_and_missing_values_are_left_out(tmp_path):
    (axes,) = curves.loss_curves(tmp_path / "l.png", {"cnn": [history(1)[0], {"train_loss": None}, history(1)[0]]}).axes
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1, 2, 3]
    assert np.isnan(axes.lines[0].get_ydata()[1])


def test_loss_by_step_lies_over_its_epoch(tmp_path):
    (axes,) = curves.loss_curves(tmp_path / "l.png", {"v1": history(2)}, steps_per_epoch={"v1": 30}).axes
    within, epochs = axes.lines
    assert within.get_xdata() == pytest.approx([5, 15, 25, 35, 45, 55])
    assert within.get_ydata() == pytest.approx([0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    assert epochs.get_xdata().tolist() == [15, 45]
    assert axes.get_xlabel() == "step"


@pytest.mark.parametrize(("steps", "scale"), [(40, "linear"), (400, "log")])
def test_steps_that_differ_much_are_drawn_on_a_logarithmic_axis(steps, scale, tmp_path):
    histories = {"v0": history(2), "v1": history(2)}
    figure = curves.loss_curves(tmp_path / "l.png", histories, steps_per_epoch={"v0": steps, "v1": 30})
    assert figure.axes[0].get_xscale() == scale
    assert not any("$" in text for text in texts(figure))


def test_accuracy_curves_mark_the_test_accuracy(tmp_path):
    figure = curves.accuracy_curves(tmp_path / "a.png", {"ffn": history(4), "cnn": history(3)}, {"ffn": 0.8836})
    stars = [line.get_xydata().tolist() for line in figure.axes[0].lines if line.get_marker() == "*"]
    assert stars[0] == [[4, 0.8836]]
    assert "88.36%" in texts(figure)


def test_comparison_tells_all_networks_apart_and_says_what_is_missing(tmp_path):
    figure = curves.model_comparison(tmp_path / "m.png", EIGHT, CLOSE, {"v0": 0.9}, EIGHT_TITLES)
    assert [len(axes.lines) for axes in figure.axes] == [8, 8, 8, 8]
    assert len({line.get_color() for line in figure.axes[0].lines}) == 8
    assert len({line.get_marker() for line in figure.axes[0].lines}) == 8
    assert f"v0, {LONG}, test 92.00%, published 90.00%" in texts(figure)
    words = texts(curves.model_comparison(tmp_path / "m.png", TWO, {}))
    assert {"no validation loss was measured", "no validation accuracy was measured"} <= set(words)


def test_colours_are_fixed_for_ffn_and_cnn():
    chosen = style.colours(["resnet18", "cnn", "ffn", "baseline"])
    assert (chosen["ffn"], chosen["cnn"]) == (style.BLUE, style.ORANGE)
    assert len(set(chosen.values())) == 4


# Confusion and examples


def test_confusion_shows_counts_margins_and_accuracy_in_their_places(tmp_path):
    confusion = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    per_class = {"recall": [3 / 4, 4 / 6, 0.0], "precision": [3 / 5, 4 / 5, 0.0]}
    (axes,) = curves.confusion_matrix(tmp_path / "c.png", confusion, per_class, "abc", "t").axes
    at = {text.get_position(): text.get_text() for text in axes.texts}
    assert [at[column, row] for row in range(3) for column in range(3)] == list("310240000")
    assert [at[3.3, row] for row in range(3)] == ["75.0%", "66.7%", "0.0%"]
    assert [at[column, 3.3] for column in range(3)] == ["60.0%", "80.0%", "0.0%"]
    assert at[3.3, 3.3] == "70.00%\nright"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c", "recall"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c", "precision"]


def luminance(colour):
    return float(np.dot(np.power(matplotlib.colors.to_rgb(colour), 2.2), (0.2126, 0.7152, 0.0722)))


def test_counts_can_be_read_on_cells_of_every_shade(tmp_path):
    counts = np.arange(100).reshape(10, 10) ** 2
    (axes,) = curves.confusion_matrix(tmp_path / "c.png", counts, PER_CLASS, CLASSES, "t").axes
    cells = axes.images[0]
    for text in axes.texts[:100]:
        column, row = text.get_position()
        cell = cells.cmap(cells.norm(cells.get_array()[row, column]))
        dark, light = sorted([luminance(cell), luminance(text.get_color())])
        assert (light + 0.05) / (dark + 0.05) > 3.5


@pytest.fixture
def tiles():
    with tiles_laid() as laid:
        yield laid


def test_examples_stand_right_on_the_left_and_wrong_on_the_right(tmp_path, tiles):
    figure = curves.examples(tmp_path / "e.png", *SHOWN, "t")
    middle = figure.get_size_inches()[0] / 2
    left = [int(image[0, 0]) for image, x in tiles if x < middle]
    right = [int(image[0, 0]) for image, x in tiles if x > middle]
    assert (len(left), len(right)) == (16, 16)
    assert not WRONG[left].any()
    assert WRONG[right].all()
    assert set(LABELS[left]) == set(LABELS[right]) == set(range(10))
    words = texts(figure)
    assert f"right: {(~WRONG).sum()} of 200" in words
    assert f"true {CLASSES[LABELS[right[0]]]}" in words
    assert f"predicted {CLASSES[GUESSES[right[0]]]} 82%" in words


@pytest.mark.parametrize(("kept", "word"), [(WRONG, "right"), (~WRONG, "wrong")])
def test_a_gallery_without_images_says_so(tmp_path, kept, word):
    shown = (IMAGES[kept], LABELS[kept], PROBABILITIES[kept], CLASSES)
    figure = curves.gallery(tmp_path / "g.png", *shown, "t", correct=word == "right")
    assert f"no image is classified {word}" in texts(figure)


def test_choice_is_spread_over_classes():
    labels = np.array([0, 0, 0, 2, 1, 0, 2])
    assert curves.spread_over_classes(np.array([0, 2, 3, 5, 6]), labels, 3).tolist() == [0, 2, 3]
    assert curves.spread_over_classes(np.arange(7), labels, 4).tolist() == [0, 1, 4, 3]
    assert curves.spread_over_classes(np.arange(7), labels, 99).tolist() == [0, 1, 2, 5, 4, 3, 6]
    assert curves.spread_over_classes(np.array([], int), labels, 4).tolist() == []


# The data set, and comparisons


def test_look_alikes_frame_the_nearest_other_class(tmp_path):
    similarity = np.array([[1.0, 0.2, 0.7], [0.2, 1.0, -0.1], [0.7, -0.1, 1.0]])
    (axes,) = dataset.look_alikes(tmp_path / "l.png", similarity, "abc").axes
    frames = [(round(frame.get_x() + 0.47), round(frame.get_y() + 0.47)) for frame in axes.patches]
    assert frames == [(2, 0), (0, 1), (0, 2)]


def test_gains_tell_measured_gained_and_published(tmp_path):
    figure = comparisons.gains(tmp_path / "g.png", ["v0", "v1"], [0.8761, 0.918], ["", LONG], [0.8748, None])
    words = texts(figure)
    assert {"87.61%", "91.80%\n+4.19 points", "published", f"v1\n{LONG}"} <= set(words)
    assert [bar.get_x() + bar.get_width() for bar in figure.axes[0].patches] == pytest.approx([0.8761, 0.918])
    assert figure.axes[0].lines[0].get_xdata() == pytest.approx([0.8748] * 2)
    assert "the axis starts at 84%" in figure.axes[0].get_xlabel()


def test_a_cost_that_was_not_measured_leaves_the_network_out(tmp_path):
    rows = [ROWS[0] | {"multiply_adds": None}, ROWS[1]]
    figure = comparisons.cost_scatter(tmp_path / "c.png", rows)
    assert [len(axes.lines) for axes in figure.axes] == [2, 1, 2]
    assert [axes.get_xscale() for axes in figure.axes] == ["log"] * 3


# What all have in common


@pytest.mark.parametrize("values", [[3.0], [1, 1, 1], [5, 1, 5.1, 9], [0.3, 0.1, 0.2], []])
def test_labels_are_spread_apart_in_their_order(values):
    placed = style.spread(values, 0.5)
    assert np.all(np.diff(np.sort(placed)) >= 0.5 - 1e-12)
    assert np.array_equal(np.argsort(placed, kind="stable"), np.argsort(values, kind="stable"))
    assert placed.sum() == pytest.approx(sum(values)), "they moved to one side"
    assert style.spread([1, 2, 9], 0.5).tolist() == [1, 2, 9]


@pytest.mark.parametrize("title", ["x" * 300, "two\nlines", r"$\frac$ costs $5_", "\udcff.jpg"])
def test_any_title_fits_on_one_line(tmp_path, title):
    for draw in (
        lambda path: dataset.class_means(path, IMAGES[:10], CLASSES, title),
        lambda path: curves.loss_curves(path, {"cnn": history(2)}, title=title),
    ):
        with recorded() as boxes:
            figure = draw(tmp_path / "t.png")
        (box,) = (box for text, box in boxes.items() if text.get_fontweight() == "bold")
        assert 0 < box.x0 < box.x1 < figure.bbox.width
        assert box.height < 30


def test_pictures_need_no_display_no_torch_and_no_pyplot(tmp_path):
    program = (
        "import sys; from fmnist.figures import curves, layers, comparisons, dataset\n"
        f"dataset.class_counts({str(tmp_path / 'c.png')!r}, [3], [1], ['Bag'])\n"
        "print({'torch', 'seaborn', 'pandas', 'matplotlib.pyplot', 'tkinter'} & set(sys.modules))"
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
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
