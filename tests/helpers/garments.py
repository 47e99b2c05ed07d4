"""Made-up garments and photographs of them, for the tests of fmnist/photograph.py."""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

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


# Photographs of the data set's images: disguises, of which benchmarks/photographs.py measures what accuracy they leave


class Disguise(NamedTuple):
    """What a garment is photographed on and with. Lengths are in parts of the garment's height."""

    ground: str = "white"  # one of GROUNDS
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)  # of the ground
    shadow: float = 0.0  # by how much it darkens the ground at most
    blur: float = 0.05  # standard deviation of its edge
    fall: tuple[float, float] = (0.05, 0.08)  # how far it falls down and to the right
    shape: str = "garment"  # of the shadow, or "ellipse" below the garment
    cut: bool = False  # the garment's own colour, cut out, or else ink on the ground
    noise: float = 0.0  # standard deviation, in levels
    quality: int | None = None  # of JPEG
    beside: str = ""  # "hanger", "object" or nothing
    transparent: bool = False  # the ground is; it is not drawn


def disguised(image: np.ndarray, disguise: Disguise, random: np.random.Generator) -> Image.Image:
    """A photograph, 400 to 520 pixels a side, of the garment `image`, uint8 [28, 28], placed and scaled by chance."""
    scale = random.uniform(9, 12)
    height, width = random.integers(400, 520, 2)
    ink = _enlarged(image / 255, scale)
    mask = _enlarged((image > 0).astype(float), scale).clip(0, 1)
    side = len(ink)
    top, left = random.integers(20, height - side - 20), random.integers(20, width - side - 20)
    place = np.s_[top : top + side, left : left + side]
    levels, covered = np.zeros((2, height, width))
    levels[place], covered[place] = ink.clip(0, 1), mask
    ground = GROUNDS[disguise.ground](height, width, random)[..., None] * np.array(disguise.tint) * 255
    ground = ground * (1 - disguise.shadow * _shadow(disguise, covered, side)[..., None])
    if disguise.beside:
        ground = _with_thing(ground, disguise.beside, (top, left, side))
    if disguise.transparent:
        return Image.fromarray(np.dstack([255 * (1 - 0.85 * levels)] * 3 + [255 * covered]).astype(np.uint8), "RGBA")
    levels, covered = levels[..., None], covered[..., None]
    lit = 235 * (1 - 0.85 * levels) * covered + ground * (1 - covered) if disguise.cut else ground * (1 - 0.85 * levels)
    return _taken(lit, disguise, random)


def _enlarged(image: np.ndarray, scale: float) -> np.ndarray:
    side = round(28 * scale)
    return np.asarray(Image.fromarray(image.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC))


def _shadow(disguise: Disguise, covered: np.ndarray, side: int) -> np.ndarray:
    """Where the shadow falls, 0 to 1."""
    if not disguise.shadow:
        return np.zeros_like(covered)
    if disguise.shape == "ellipse":
        rows, columns = np.nonzero(covered > 0.5)
        y, x = np.mgrid[: covered.shape[0], : covered.shape[1]]
        across, down = np.ptp(columns) * 0.55, side * 0.12
        covered = (((x - columns.mean()) / across) ** 2 + ((y - rows.max()) / down) ** 2 < 1).astype(float)
    fallen = ndimage.shift(covered, [part * side for part in disguise.fall], order=1)
    return ndimage.gaussian_filter(fallen, disguise.blur * side).clip(0, 1)


def _with_thing(ground: np.ndarray, thing: str, place: tuple[int, int, int]) -> np.ndarray:
    """The ground with a wire hanger above the garment, or a small object in the corner that is the farthest."""
    top, left, side = place
    picture = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    middle = left + side // 2
    if thing == "hanger":
        draw.line([(middle, max(0, top - 40)), (middle, top + 6)], fill=(90, 90, 95), width=4)
        draw.line(
            [(middle - side // 4, top + 20), (middle, top), (middle + side // 4, top + 20)], fill=(90, 90, 95), width=4
        )
    else:
        x = 8 if middle > ground.shape[1] // 2 else ground.shape[1] - 46
        y = 8 if top + side // 2 > len(ground) // 2 else len(ground) - 46
        draw.ellipse([x, y, x + 38, y + 38], fill=(60, 90, 140))
    return np.asarray(picture, dtype=float)


def _taken(lit: np.ndarray, disguise: Disguise, random: np.random.Generator) -> Image.Image:
    """The photograph, with the camera's noise and packed as JPEG."""
    picture = Image.fromarray((lit + random.normal(0, disguise.noise, lit.shape)).clip(0, 255).astype(np.uint8))
    if disguise.quality is None:
        return picture
    packed = io.BytesIO()
    picture.save(packed, "JPEG", quality=disguise.quality)
    return Image.open(packed).convert("RGB")


def _even(height: int, width: int, _random: np.random.Generator) -> np.ndarray:
    return np.full((height, width), 0.97)


def _slope(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    turn = random.uniform(0, 2 * np.pi)
    return 0.78 + 0.2 * (np.cos(turn) * (x - 0.5) + np.sin(turn) * (y - 0.5))


def _two_lights(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """Lamps at two sides, and a darker band between them."""
    _, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return 0.95 - random.uniform(0.15, 0.3) * (1 - (2 * x - 1) ** 2)


def _vignette(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return 0.95 - random.uniform(0.15, 0.3) * ((x**2 + y**2) / 2) ** random.uniform(1, 1.6)


def _folds(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """A bed sheet: soft ridges of light and shade that run across it."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    sheet = np.full((height, width), 0.9)
    for _ in range(5):
        turn, at, wide = random.uniform(0, np.pi), random.uniform(-0.2, 1.2), random.uniform(0.02, 0.06)
        across = (np.cos(turn) * x + np.sin(turn) * y - at) / wide
        sheet -= random.uniform(0.04, 0.1) * across * np.exp(-(across**2) / 2)
    return sheet.clip(0, 1)


def _wood(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return 0.75 + 0.05 * np.sin(60 * y + 3 * np.sin(4 * x + random.uniform(0, 6)))


GROUNDS = {
    "white": _even,
    "slope": _slope,
    "two lights": _two_lights,
    "vignette": _vignette,
    "folds": _folds,
    "wood": _wood,
}
BROWN, BLUISH, GREY_GROUND = (0.95, 0.75, 0.5), (0.8, 0.9, 1.0), (0.75, 0.75, 0.75)
SHADOW = Disguise(shadow=0.4)
# These the constants of fmnist/garment.py were set by.
KNOWN = {
    "white": Disguise(),
    "tinted": Disguise(tint=BLUISH),
    "gradient": Disguise("slope"),
    "noisy JPEG": Disguise("slope", noise=6, quality=60),
    "wood": Disguise("wood", BROWN, noise=2),
    "transparent": Disguise(transparent=True),
    "shadow": SHADOW,
    "shadow, faint and wide": SHADOW._replace(shadow=0.25, blur=0.1),
    "shadow, dark": SHADOW._replace(shadow=0.55, blur=0.06, fall=(0.08, -0.1)),
    "shadow, on wood": Disguise("wood", BROWN, shadow=0.35, noise=2, quality=85),
    "shadow, cut out": SHADOW._replace(tint=GREY_GROUND, cut=True),
    "folds": Disguise("folds", noise=2),
    "vignette": Disguise("vignette"),
    "two lights": Disguise("two lights"),
    "hanger": Disguise(beside="hanger"),
    "object": Disguise(beside="object"),
}
# By these they were judged; docs/testing.md names two that had a say in one constant each.
HELD_OUT = {
    "tinted, cut out": Disguise(tint=(1.0, 0.85, 0.8), cut=True, noise=3),
    "gradient, JPEG": Disguise("slope", BLUISH, noise=3, quality=40),
    "shadow below": SHADOW._replace(shadow=0.5, blur=0.05, fall=(0.05, 0.0), shape="ellipse"),
    "shadow to the left": SHADOW._replace(shadow=0.45, blur=0.04, fall=(0.03, -0.12), noise=3, quality=80),
    "shadow, short": SHADOW._replace(shadow=0.5, blur=0.03, fall=(0.03, 0.04)),
    "shadow, on a gradient": Disguise("slope", shadow=0.35, blur=0.07, fall=(-0.06, 0.08), noise=3, quality=75),
    "shadow, tinted, cut out": Disguise(tint=BLUISH, shadow=0.45, fall=(0.1, 0.04), cut=True),
    "shadow and vignette": Disguise("vignette", shadow=0.35, blur=0.08),
    "shadow on folds": Disguise("folds", shadow=0.3, blur=0.06, noise=2),
    "two lights, tinted": Disguise("two lights", BROWN, noise=3, quality=70),
    "hanger and shadow": Disguise(shadow=0.35, beside="hanger"),
    "object and shadow": Disguise(shadow=0.35, beside="object"),
}
