"""Made-up garments and photographs of them, for the tests of fmnist/photograph.py."""

import numpy as np
from PIL import Image, ImageDraw

SCALE = 9  # a garment of 28 pixels becomes one of 252


def trousers() -> np.ndarray:
    """Trousers, uint8 [28, 28], bright on black."""
    image = Image.new("L", (28, 28))
    draw = ImageDraw.Draw(image)
    draw.polygon([(9, 0), (18, 0), (21, 27), (16, 27), (14, 9), (13, 9), (11, 27), (6, 27)], fill=190)
    draw.line([(9, 1), (18, 1)], fill=255)
    draw.line([(9, 3), (8, 26)], fill=120)
    return np.asarray(image)


def boot() -> np.ndarray:
    """An ankle boot, uint8 [28, 28]."""
    image = Image.new("L", (28, 28))
    draw = ImageDraw.Draw(image)
    draw.polygon([(11, 4), (22, 4), (27, 22), (0, 22), (0, 17), (10, 14)], fill=160)
    draw.line([(0, 22), (27, 22)], fill=255, width=2)
    draw.line([(12, 7), (19, 7)], fill=90)
    return np.asarray(image)


def shirt() -> np.ndarray:
    """A T-shirt, uint8 [28, 28]."""
    image = Image.new("L", (28, 28))
    draw = ImageDraw.Draw(image)
    outline = [(8, 0), (19, 0), (27, 8), (23, 12), (20, 9), (20, 27), (7, 27), (7, 9), (4, 12), (0, 8)]
    draw.polygon(outline, fill=200)
    draw.rectangle([10, 12, 17, 18], fill=70)
    draw.line([(11, 0), (16, 0)], fill=255)
    return np.asarray(image)


def placed(garment: np.ndarray, left: int = 120, top: int = 31) -> np.ndarray:
    """The garment, float [330, 420] from 0 to 1, enlarged and off-centre on an empty ground."""
    ground = np.zeros((330, 420))
    big = Image.fromarray(garment).resize((28 * SCALE, 28 * SCALE), Image.Resampling.NEAREST)
    ground[top : top + 28 * SCALE, left : left + 28 * SCALE] = np.asarray(big) / 255
    return ground


def grey(levels: np.ndarray) -> Image.Image:
    """A grey picture of `levels`, rounded and held within 0 to 255."""
    return Image.fromarray(levels.clip(0, 255).round().astype(np.uint8)).convert("RGB")


def agreement(prepared: np.ndarray, garment: np.ndarray) -> tuple[float, float]:
    """Overlap of the shapes (intersection over union) and correlation of the pixels."""
    ours, theirs = prepared > 25, garment > 25
    return (ours & theirs).sum() / (ours | theirs).sum(), np.corrcoef(prepared.ravel(), garment.ravel())[0, 1]


def photo() -> Image.Image:
    """A dark boot on white."""
    return grey(255 - 255 * placed(boot()))
