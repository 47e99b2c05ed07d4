"""What the tests of pictures share: made-up results, and what must hold of every picture."""

from contextlib import contextmanager

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from fmnist.evaluation import Predictions
from fmnist.figures import style

LABELS = np.arange(200) % 10
IMAGES = np.random.default_rng(0).integers(0, 256, (200, 28, 28), dtype=np.uint8)
IMAGES[:, 0, 0] = np.arange(200)  # tells each image from the others
WRONG = np.arange(200) % 7 == 0
PROBABILITIES = np.full((200, 10), 0.02, np.float32)
PROBABILITIES[np.arange(200), np.where(WRONG, (LABELS + 3) % 10, LABELS)] = 0.82
PREDICTIONS = Predictions(IMAGES, LABELS, PROBABILITIES)
CONFUSION = np.zeros((10, 10), int)
np.add.at(CONFUSION, (LABELS, PREDICTIONS.classes), 1)
PER_CLASS = {
    "recall": [CONFUSION[c, c] / CONFUSION[c].sum() for c in range(10)],
    "precision": [CONFUSION[c, c] / CONFUSION[:, c].sum() for c in range(10)],
}


MISTAKES = {
    "count": int(WRONG.sum()),
    "suspected": 9,
    "surest": np.flatnonzero(WRONG).tolist(),
    "surest_suspected": [n % 3 == 0 for n in range(WRONG.sum())],
}
CALIBRATION = {
    **{
        "temperature": 1.62,
        "validation_images": 6000,
        "ece": 0.0431,
        "ece_after": 0.0087,
        "nll": 0.4,
        "nll_after": 0.3,
    },
    "bins": {"confidence": [0.3, 0.55, 0.98], "accuracy": [0.0, 0.4, 0.97], "count": [1, 200, 9799]},
    "bins_after": {"confidence": [0.3, 0.55, 0.98], "accuracy": [1.0, 0.56, 0.98], "count": [1, 300, 9699]},
}


def epochs(count, validation=False, start=0.6):
    """So many epochs of a training whose loss falls as 1 / epoch."""
    losses = [start / (epoch + 1) for epoch in range(count)]
    rows = [
        {"train_loss": x, "train_accuracy": 1 - x / 3, "train_loss_by_step": [x + 0.1, x, x - 0.1], "steps": 30}
        for x in losses
    ]
    held_out = [{"validation_loss": x + 0.1, "validation_accuracy": 0.9} for x in losses]
    return [row | new for row, new in zip(rows, held_out, strict=True)] if validation else rows


def model(title, accuracy, history, **more):
    """A network as it stands in metrics.json, as far as it is drawn."""
    costs = {"parameters": 900_000, "multiply_adds": 10_000_000, "seconds_per_epoch": 30.0}
    scores = {"confusion": CONFUSION.tolist(), "per_class": PER_CLASS}
    plain = {"title": title, "test_accuracy": accuracy, "epochs": history, "published": {}, "change": ""}
    return plain | costs | scores | more


def with_seeds(one, accuracies, histories):
    """The same network trained from several seeds."""
    seeds = [
        one | {"seed": n, "test_accuracy": accuracy, "epochs": history}
        for n, (accuracy, history) in enumerate(zip(accuracies, histories, strict=True))
    ]
    mean = {"test_accuracy": np.mean(accuracies), "seconds_per_epoch": one["seconds_per_epoch"]}
    return one | {"seeds": seeds, "mean": mean, "std": {"test_accuracy": np.std(accuracies, ddof=1)}}


def texts(figure):
    return {text.get_text() for text in figure.findobj(Text)}


@contextmanager
def recorded():
    """Yield a dict that takes every text that is drawn, with the box it fills, in pixels from the lower left corner."""
    boxes, draw = {}, Text.draw

    def record(text, renderer, *arguments, **options):
        draw(text, renderer, *arguments, **options)
        if text.get_visible() and text.get_text():
            boxes[text] = text.get_window_extent(renderer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", record)
        yield boxes


@contextmanager
def tiles_laid():
    """Yield a list that takes the images laid on boards, each with its box."""
    laid, tile = [], style.Board.tile

    def record(board, image, box, *arguments, **options):
        laid.append((image, box))
        tile(board, image, box, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style.Board, "tile", record)
        yield laid


def contrast(a, b):
    """WCAG 2.1's contrast ratio of two colours, each of them three levels 0..1, written out from its text."""

    def luminance(colour):
        linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    brighter, darker = sorted((luminance(a), luminance(b)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def check_picture(draw, folder):
    """Draw with `draw(path)`; check that the PNG is there and whole, and that every text and line can be read."""
    path = folder / "figure.png"
    with recorded() as boxes:
        figure = draw(path)
    check_png(path, figure.get_size_inches())
    check_texts(boxes, figure.bbox)
    check_grounds(boxes, path)
    assert all(axes.lines or axes.patches or axes.images or axes.texts for axes in figure.axes), "axes are empty"
    for line in (line for axes in figure.axes for line in axes.lines):
        colour = matplotlib.colors.to_rgba(line.get_color(), line.get_alpha())
        assert colour[3] == 1
        assert contrast(colour[:3], (1, 1, 1)) >= 3, line


def check_png(path, inches):
    assert list(path.parent.iterdir()) == [path], "more is left behind than the picture"
    with Image.open(path) as picture:
        assert picture.format == "PNG", picture.format
        assert picture.size == tuple(np.floor(inches * 150 + 1e-6)), "not 150 dots an inch"
        pixels = np.asarray(picture.convert("L"))
    assert (pixels < 200).mean() > 0.002, "next to nothing is drawn"
    assert pixels[[0, -1]].min() == 255, "something touches the upper or lower edge"
    assert pixels[:, [0, -1]].min() == 255, "something touches the left or right edge"


def check_texts(boxes, canvas):
    """Check that no text is too small, cut off, or covered by another."""
    words = [text.get_text() for text in boxes]
    assert {text.get_text(): text.get_fontsize() for text in boxes if text.get_fontsize() < 10} == {}
    x0, y0, x1, y1 = np.array([box.extents for box in boxes.values()]).T
    outside = (x0 < 0) | (y0 < 0) | (x1 > canvas.width) | (y1 > canvas.height)
    assert not outside.any(), [word for word, out in zip(words, outside, strict=True) if out]
    across = np.minimum(x1[:, None], x1) - np.maximum(x0[:, None], x0)
    down = np.minimum(y1[:, None], y1) - np.maximum(y0[:, None], y0)
    pairs = np.argwhere(np.triu((across > 1) & (down > 4), k=1))  # boxes have empty edges
    assert not len(pairs), [(words[a], words[b]) for a, b in pairs[:5]]


def check_grounds(boxes, path):
    """Check the contrast of every text to what it is really drawn on: the commonest colour just above and below it."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    for text, box in boxes.items():
        x0, x1, top, bottom = int(box.x0), int(box.x1), len(pixels) - int(box.y1) - 1, len(pixels) - int(box.y0)
        around = pixels[np.clip([top, bottom], 0, len(pixels) - 1), x0:x1].reshape(-1, 3)
        colours, counts = np.unique(around, axis=0, return_counts=True)
        ground = colours[counts.argmax()] / 255
        assert contrast(matplotlib.colors.to_rgb(text.get_color()), ground) >= 3, (text.get_text(), ground)
