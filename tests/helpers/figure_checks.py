"""What the tests of pictures share: made-up results, and what must hold of every picture."""

from contextlib import contextmanager

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from fmnist.figures import style

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
LABELS = np.arange(200) % 10
IMAGES = np.random.default_rng(0).integers(0, 256, (200, 28, 28), dtype=np.uint8)
IMAGES[:, 0, 0] = np.arange(200)  # tells each image from the others
WRONG = np.arange(200) % 7 == 0
GUESSES = np.where(WRONG, (LABELS + 3) % 10, LABELS)
PROBABILITIES = np.full((200, 10), 0.02, np.float32)
PROBABILITIES[np.arange(200), GUESSES] = 0.82


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
    """Yield a list that takes the images laid on boards, each with its left edge in inches."""
    laid, tile = [], style.Board.tile

    def record(board, image, left, *arguments, **options):
        laid.append((image, left))
        tile(board, image, left, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style.Board, "tile", record)
        yield laid


def check_picture(draw, folder):
    """Draw with `draw(path)`; check that the PNG is there and whole, and that no text is cut off or covered."""
    path = folder / "figure.png"
    with recorded() as boxes:
        figure = draw(path)
    check_png(path, figure.get_size_inches())
    check_texts(boxes, figure.bbox)
    assert all(axes.lines or axes.patches or axes.images or axes.texts for axes in figure.axes), "axes are empty"


def check_png(path, inches):
    assert list(path.parent.iterdir()) == [path], "more is left behind than the picture"
    with Image.open(path) as picture:
        assert picture.format == "PNG", picture.format
        assert picture.size == tuple(np.floor(inches * style.DPI + 1e-6)), "not of the size that was asked for"
        pixels = np.asarray(picture.convert("L"))
    assert (pixels < 200).mean() > 0.002, "next to nothing is drawn"
    assert pixels[[0, -1]].min() == 255, "something touches the upper or lower edge"
    assert pixels[:, [0, -1]].min() == 255, "something touches the left or right edge"


def check_texts(boxes, canvas):
    words = [text.get_text() for text in boxes]
    x0, y0, x1, y1 = np.array([box.extents for box in boxes.values()]).T
    outside = (x0 < 0) | (y0 < 0) | (x1 > canvas.width) | (y1 > canvas.height)
    assert not outside.any(), [word for word, out in zip(words, outside, strict=True) if out]
    across = np.minimum(x1[:, None], x1) - np.maximum(x0[:, None], x0)
    down = np.minimum(y1[:, None], y1) - np.maximum(y0[:, None], y0)
    pairs = np.argwhere(np.triu((across > 1) & (down > 3), k=1))  # boxes have empty edges
    assert not len(pairs), [(words[a], words[b]) for a, b in pairs[:5]]
