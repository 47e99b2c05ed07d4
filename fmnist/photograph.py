"""A user's photograph, prepared as the images of the data set were: grey, bright on black, trimmed, centred, 28x28.

The steps are those of the data set's authors (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747, section 2): trim
what has the colour of the background, shrink the longest edge to 28, sharpen with a Gaussian of standard deviation 1,
centre on 28x28, negate, take the grey level. Their photographs stood on even white. Those of users do not: so the
background is estimated from the border first and taken away, shadows and other things are told from the garment
(fmnist/garment.py), and an image that is bright on dark already is not negated.
"""

import contextlib
import os
import stat
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from fmnist.errors import Refused, one_line
from fmnist.garment import WORK_EDGE, estimate_background, find

SIDE = 28
# No others: Pillow has parsers for some fifty, written with varying care. "JPEG" reads MPO too, several JPEG pictures
# in one file, as some phones write; the first counts.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
FORMAT_NAMES = "PNG, JPEG, WebP, BMP or GIF"
MAX_PIXELS = 64_000_000  # the largest common camera sensors; decoding takes 1 GB at worst (WebP)
MOST = f"{MAX_PIXELS // 10**6} megapixels"
MAX_BYTES = 300_000_000  # an uncompressed file of so many pixels
MIN_EDGE = 8  # pixels; below, there is no telling garment from background
READ_EDGE = 1120  # longest edge of what is kept of a photograph, in pixels, at least: 40 times the data set's
FEW = 0.005  # the part of a picture that is transparent at the most in one that is no cut-out: a window's corners
TOUCHES = 0.02  # a garment that covers more than this part of a side of the picture may go on beyond it
PALE = 0.12 * 255  # a garment that differs less from the ground, on average, may be found in part only
ANOTHER = 0.3  # something of more than this part of the garment's area might be the garment as well
OUTLINE = (230, 120, 0)  # orange, which few garments are
MARGIN = "leave a margin around the garment"


class Step(NamedTuple):
    """A photograph on the way to what the network sees."""

    title: str
    image: np.ndarray  # uint8 [h, w, 3] or [h, w]


class Prepared(NamedTuple):
    """A photograph as the data set would hold it."""

    pixels: np.ndarray  # uint8 [28, 28]
    warning: str | None  # what makes it doubtful, in words for the user
    steps: tuple[Step, ...]  # from the photograph, with what was found outlined, to `pixels`


def read(path: Path | str) -> Image.Image:
    """Return the photograph at `path` upright in RGB; a longest edge of 2,240 pixels or more is reduced.

    It is reduced by a whole factor, to at least 1,120. The content decides on the format, not the name's ending.
    Transparent parts become plain background. Raises Refused, naming the file, if it is missing, unreadable, cut short,
    of another format than PNG, JPEG, WebP, BMP and GIF, or larger than 64 megapixels (decided from the header, before
    decoding).
    """
    try:
        _check_file(path)
        with warnings.catch_warnings(), open(path, "rb") as file:
            warnings.simplefilter("ignore")  # Pillow's doubts about size and EXIF: size is checked here
            with Image.open(file, formats=FORMATS) as image:
                _check_size(path, image.size)
                return _decode(image)
    except Refused:
        raise
    except Image.UnidentifiedImageError:
        raise Refused(f"{path}: holds no {FORMAT_NAMES} picture; convert it to one of these") from None
    except Image.DecompressionBombError:
        raise Refused(f"{path}: is larger than {MOST}; reduce it first") from None
    except PermissionError:
        raise Refused(f"{path}: may not be read; change its permissions") from None
    # Damaged files make the decoders raise whatever their parsers trip over, from struct.error to MemoryError.
    except Exception as error:
        raise Refused(f"{path}: is damaged or cut short ({one_line(error, 80)}); save or copy it anew") from None


def prepare(image: Image.Image, name: Path | str = "the image") -> Prepared:
    """Return an RGB photograph as the data set would hold it, the garment bright on black (0).

    `name` is what a refusal calls the image. Raises Refused if no garment can be told from the background.
    """
    if min(image.size) < MIN_EDGE:
        raise Refused(f"{name}: is {image.width}x{image.height} pixels, too small to show a garment; take a larger one")
    pixels = np.asarray(_reduced(image, WORK_EDGE).convert("RGB"), dtype=np.float32)
    background = estimate_background(pixels)
    garment, things, rival = find(pixels, background)
    if not garment.any():
        raise Refused(
            f"{name}: shows nothing that stands out from its background; {MARGIN}, on a plain ground of another colour"
        )
    warning = _cropped(garment, things, name) or _doubt(garment, pixels - background, rival, name)
    grey, behind = _grey(pixels), _grey(background)
    is_negated = bool((grey - behind)[garment].mean() < 0)  # a garment darker than its background
    brightness = np.where(garment, _bright_on_black(grey, behind, is_negated), 0)
    prepared = _centred(_shrunk(_trimmed(brightness, garment)))
    steps = (
        Step("what was found", _outlined(pixels, garment)),
        Step("trimmed", _trimmed(pixels, garment).astype(np.uint8)),
        Step("negated, on black" if is_negated else "on black", _trimmed(brightness, garment).astype(np.uint8)),
        Step("shrunk to 28x28", prepared),
    )
    return Prepared(prepared, warning, steps)


# Reading


def _check_file(path: Path | str) -> None:
    """Raise Refused unless a regular file of reasonable size stands there: reading a pipe would wait for ever."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise Refused(f"{path}: there is no such file; name a {FORMAT_NAMES} file") from None
    except PermissionError:
        raise
    except (OSError, ValueError) as error:  # a loop of links, a name too long, a NUL in the name
        raise Refused(f"{path}: cannot be read ({one_line(error, 80)}); name a {FORMAT_NAMES} file") from None
    if not stat.S_ISREG(status.st_mode):
        raise Refused(f"{path}: is not a file; name a {FORMAT_NAMES} file")
    if status.st_size == 0:
        raise Refused(f"{path}: is empty; copy it anew")
    if status.st_size > MAX_BYTES:
        raise Refused(f"{path}: is larger than {MAX_BYTES // 10**6} MB; reduce it first")


def _check_size(path: Path | str, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise Refused(f"{path}: has {size[0]:,} x {size[1]:,} pixels, more than {MOST}; reduce it first")


def _decode(image: Image.Image) -> Image.Image:
    """Decode an opened image, in RGB, reduced, upright, without transparency."""
    image.draft(None, (READ_EDGE, READ_EDGE))  # JPEG can be decoded at a fraction of its size
    image.load()
    with contextlib.suppress(Exception):  # a photograph is shown even if its EXIF data are garbled, as viewers do
        ImageOps.exif_transpose(image, in_place=True)
    image = _reduced(_eight_bits(image), READ_EDGE)
    return (on_plain(image) if image.mode == "RGBA" else image).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return `image` in a mode of eight bits a channel, RGBA if it is a cut-out; 16-bit grey is scaled."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray((np.asarray(image).astype(np.float32) / 257).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        is_cut_out = np.mean(np.asarray(image.getchannel("A")) < 128) > FEW
        return image if is_cut_out else _filled(image)
    return image.convert("RGB") if image.mode in ("1", "P") else image


def _filled(image: Image.Image) -> Image.Image:
    """Lay an RGBA image, of which little is transparent, on the median colour of its edge, in RGB."""
    pixels = np.asarray(image)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = np.median(edge[edge[:, 3] >= 128, :3] if (edge[:, 3] >= 128).any() else edge[:, :3], axis=0)
    ground = Image.new("RGBA", image.size, (round(red), round(green), round(blue)))
    return Image.alpha_composite(ground, image).convert("RGB")


def _reduced(image: Image.Image, edge: int) -> Image.Image:
    """Average blocks of pixels, as large as leave the longest edge `edge` pixels or more: fewer than twice as many."""
    factor = max(image.size) // edge
    return image.reduce(factor) if factor > 1 else image


def on_plain(image: Image.Image) -> Image.Image:
    """Lay an RGBA image on a plain ground with a margin: white, as the data set's authors did, black if it is white."""
    grey, weight = np.asarray(image.convert("RGB").convert("L"), dtype=np.float32), np.asarray(image.getchannel("A"))
    white = weight.any() and np.average(grey, weights=weight) > 0.85 * 255
    margin = max(image.size) // 10 + 1
    ground = Image.new("RGBA", (image.width + 2 * margin, image.height + 2 * margin), "black" if white else "white")
    ground.alpha_composite(image, (margin, margin))
    return ground


# Preparing


def _grey(pixels: np.ndarray) -> np.ndarray:
    """Luma of RGB [H, W, 3] by ITU-R 601, as Pillow and the data set have it."""
    return pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)


def _cropped(garment: np.ndarray, things: np.ndarray, name: Path | str) -> str | None:
    """Return a warning where the garment, a mask [H, W], may go on beyond the picture; `things` is all that was seen.

    Raises Refused where it is rather the ground that was taken for it: of this a garment that fills the picture leaves
    several pieces along the edge, or some on all four sides.
    """
    sides = (garment[0], garment[-1], garment[:, 0], garment[:, -1])
    touched = [side.mean() > TOUCHES for side in sides]
    if not any(touched) or max(garment.shape) <= SIDE:  # the data set's own images are trimmed
        return None
    if all(touched) or _pieces_at_the_edge(things) > 1:
        raise Refused(f"{name}: shows no garment that stands clear of the picture's edge; {MARGIN}")
    return f"{name}: the garment touches the picture's edge; if part of it is cut off, {MARGIN}"


def _doubt(garment: np.ndarray, difference: np.ndarray, rival: float, name: Path | str) -> str | None:
    """Return a warning where the garment, a mask [H, W], hardly differs from the ground, or has a `rival` in size."""
    if np.abs(difference[garment]).max(axis=1).mean() < PALE:
        return f"{name}: the garment hardly stands out from its background; a ground of another colour shows it better"
    if rival > ANOTHER:
        return f"{name}: shows several things, of which the largest is taken for the garment; photograph one alone"
    return None


def _pieces_at_the_edge(things: np.ndarray) -> int:
    """Count the pieces that touch the picture's edge and make up more than 5 % of the whole."""
    from scipy import ndimage

    pieces, _ = ndimage.label(things, structure=np.ones((3, 3)))
    at_edge = np.unique(np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]]))
    areas = np.bincount(pieces.ravel())[at_edge[at_edge > 0]]
    return int((areas > 0.05 * things.sum()).sum())


def _bright_on_black(grey: np.ndarray, background: np.ndarray, is_negated: bool) -> np.ndarray:
    """Return how far [H, W] is from the background towards the far end of the scale, 0 to 255.

    If negated, what was black becomes 255.
    """
    if is_negated:
        grey, background = 255 - grey, 255 - background
    return ((grey - background) / np.maximum(255 - background, 1) * 255).clip(0, 255)


def _outlined(pixels: np.ndarray, garment: np.ndarray) -> np.ndarray:
    """Return the photograph, uint8 [H, W, 3], with the outline of the garment in orange."""
    from scipy import ndimage

    wide = max(1, max(garment.shape) // 200)
    outline = ndimage.binary_dilation(garment, iterations=wide) & ~ndimage.binary_erosion(garment, iterations=wide)
    return np.where(outline[..., None], OUTLINE, pixels).astype(np.uint8)


def _trimmed(image: np.ndarray, garment: np.ndarray) -> np.ndarray:
    rows, columns = (np.flatnonzero(garment.any(axis=axis)) for axis in (1, 0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _shrunk(brightness: np.ndarray) -> np.ndarray:
    """Bring the longest edge to 28, sharpen what shrinking has blurred, and let the brightest spot be 255.

    The last is seen, not published: 254 or 255 is the maximum of 99 of 100 images of the data set (n = 6,000).
    """
    height, width = brightness.shape
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = Image.fromarray(brightness.astype(np.float32))
    if scale != 1:
        image = image.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)
    if scale < 1:
        grey = Image.fromarray(_stretched(np.asarray(image)).round().astype(np.uint8))
        image = grey.filter(ImageFilter.UnsharpMask(radius=1, percent=60, threshold=0))
    return _stretched(np.asarray(image, dtype=np.float32))


def _stretched(brightness: np.ndarray) -> np.ndarray:
    return (brightness / max(brightness.max(), 1) * 255).clip(0, 255)


def _centred(brightness: np.ndarray) -> np.ndarray:
    canvas = np.zeros((SIDE, SIDE), dtype=np.uint8)
    height, width = brightness.shape
    top, left = (SIDE - height + 1) // 2, (SIDE - width + 1) // 2  # as the data set rounds
    canvas[top : top + height, left : left + width] = brightness.round()
    return canvas
