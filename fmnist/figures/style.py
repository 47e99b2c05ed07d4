"""What all pictures share: one style, a colour and marker for each network, sheets to draw on, boards of small images.

Every picture is written whole or not at all, as PNG of DPI pixels an inch, and holds no text below 10 points.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")  # pictures go to files; no display is asked for, whatever MPLBACKEND says

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fmnist.files import atomic_write

DPI = 150
INK, GREY, PALE = "#222222", "#6b6b6b", "#d9d9d9"
BLUE, VERMILION = "#0173b2", "#c44e00"  # correct and incorrect
SIGNED = "RdBu_r"  # blue below zero, white at zero, red above: safe for the common kinds of colour blindness
COUNTED = "Blues"
CONTRAST = 3.2  # of a line to white: WCAG 2.1 asks for 3 (1.4.11), and antialiasing takes a little of it
MARKERS = "os^DvPX<>h*"  # as many as a prime, so that no colour meets a marker twice before the eighty-ninth network

# The user's own matplotlibrc would move things about: every picture starts from matplotlib's defaults.
STYLE = {
    **{key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith(("backend", "_"))},
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a title is a dollar sign
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "errorbar.capsize": 3,
    "grid.color": "#e4e4e4",
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.constrained_layout.h_pad": 0.1,  # inches
    "figure.constrained_layout.w_pad": 0.1,
    "figure.titlesize": 13,
    "figure.titleweight": "bold",
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "lines.markersize": 5.0,
}


# Colours


class Look(NamedTuple):
    """How a network's lines and points are drawn: told apart by colour, and in grey by their markers."""

    color: str
    marker: str


@cache
def palette() -> list[str]:
    """Return seaborn's "colorblind" palette, its colours darkened to CONTRAST where they would be lost on white."""
    import seaborn  # takes more than a second; the pictures of layers do without

    return [readable(colour) for colour in seaborn.color_palette("colorblind").as_hex()]


def looks(names: Iterable[str]) -> dict[str, Look]:
    """Return a look for each network name: "ffn" blue, "cnn" orange wherever they occur, the others in turn."""
    blue, orange, green, vermilion, pink, brown, _, grey, yellow, sky = palette()
    fixed = {"ffn": Look(blue, MARKERS[0]), "cnn": Look(orange, MARKERS[1])}
    # Darkened, the palette's rose is its pink again: purple stands in for it.
    colours = (green, vermilion, pink, sky, brown, "#9467bd", yellow, grey)
    names = list(names)
    others = [name for name in names if name not in fixed]
    turns = {name: Look(colours[n % len(colours)], MARKERS[(n + 2) % len(MARKERS)]) for n, name in enumerate(others)}
    return {name: fixed.get(name) or turns[name] for name in names}


def luminance(colour: str | Sequence[float]) -> float:
    """Return the relative luminance, 0..1, of an sRGB colour, as WCAG 2.1 defines it."""
    linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in to_rgb(colour)]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(a: str | Sequence[float], b: str | Sequence[float]) -> float:
    """Return the contrast ratio of two colours, 1..21, as WCAG 2.1 defines it."""
    dark, light = sorted((luminance(a), luminance(b)))
    return (light + 0.05) / (dark + 0.05)


def readable(colour: str) -> str:
    """Return `colour`, darkened as far as a line on white needs."""
    levels = np.array(to_rgb(colour))
    while contrast(to_hex(levels), "white") < CONTRAST:
        levels *= 0.99
    return to_hex(levels)


# Sheets of axes


@contextmanager
def sheet(path: Path | str, width: float, height: float, title: str) -> Iterator[Figure]:
    """Yield a figure of `width` x `height` inches that arranges its axes itself; write it to `path` as PNG."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        figure.suptitle(fitting(title, width))
        yield figure
        _write(path, figure)


def _write(path: Path | str, figure: Figure) -> None:
    with atomic_write(path) as file, warnings.catch_warnings():
        # Names of files and networks are of any script: what the font lacks is drawn as a box, without a warning each.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(file, format="png", metadata={"Software": None})


def fitting(title: str, width: float) -> str:
    """Return `title`, which may hold a file's name, on one line no longer than `width` inches of headline."""
    title = "".join(character if character.isprintable() else "?" for character in title)
    longest = int(width * 8)
    return title if len(title) <= longest else title[: longest - 1] + "…"


def legend_below(figure: Figure, groups: Sequence[Sequence[Artist]]) -> None:
    """Put a legend below the axes, in as many columns as there is room for; what belongs to one group keeps together.

    A group that is shorter than the longest leaves room below it. The figure grows by the legend's height, and to the
    width of its longest label.
    """
    longest = max(len(handle.get_label()) for group in groups for handle in group)
    column = (longest * 5.8 + 42) / 72  # inches
    width = max(figure.get_figwidth(), column)
    figure.set_figwidth(width)
    columns = min(len(groups), int(width / column))
    columns = -(-len(groups) // -(-len(groups) // columns))  # no more than as many rows need
    size, rows = max(map(len, groups)), -(-len(groups) // columns)
    blank = Line2D([], [], linestyle="", label="")
    filled = [handle for group in groups for handle in [*group, *[blank] * (size - len(group))]]
    filled += [blank] * (columns * rows * size - len(filled))
    figure.set_figheight(figure.get_figheight() + 0.21 * rows * size)  # inches
    figure.legend(handles=filled, loc="outside lower center", ncols=columns)


def spread_entry(of: str) -> Line2D:
    """The legend's entry for error bars: `of` how many seeds."""
    label = f"mean ± standard deviation of {of}"
    return Line2D([], [], color=INK, linewidth=1.5, marker="|", ms=6, label=label)


def heatmap(axes: Axes, shades: np.ndarray, texts: Sequence[Sequence[str]]) -> None:
    """Draw `texts` [R, C] on cells as dark as `shades`, 0..1; the middle of cell (0, 0) is at (0.5, 0.5)."""
    import seaborn

    # seaborn lays out the whole figure for each tick label, to see whether they overlap: `name_classes` writes them.
    plain = {"cbar": False, "xticklabels": False, "yticklabels": False}
    seaborn.heatmap(shades, ax=axes, annot=np.asarray(texts), fmt="", cmap=COUNTED, vmin=0, vmax=1, **plain)
    for text, cell in zip(axes.texts, axes.collections[0].get_facecolors(), strict=True):
        # seaborn writes white on middling blue too, where its contrast falls to 2.3.
        text.set_color(max((INK, "white"), key=lambda colour: contrast(colour, cell)))


def name_classes(axes: Axes, across: Sequence[str], down: Sequence[str]) -> None:
    """Write the names of a heatmap's columns above it, broken into short lines, and those of its rows on its left."""
    places = np.arange(max(len(across), len(down))) + 0.5
    axes.set_xticks(places[: len(across)], [name.replace(" ", "\n").replace("/", "/\n") for name in across], rotation=0)
    axes.set_yticks(places[: len(down)], down, rotation=0)
    axes.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
    axes.xaxis.set_label_position("top")
    axes.grid(False)


# Boards of small images


class Box(NamedTuple):
    """A place on a board, in inches from its upper left corner."""

    left: float
    top: float
    width: float
    height: float


class Board:
    """A sheet for small images and words, measured in inches from its upper left corner.

    The images are put down pixel by pixel: five hundred pairs of axes, or images on one pair, take seconds to draw.
    """

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self.width, self.height = figure.get_size_inches()
        self.axes = figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self.axes.set(xlim=(0, self.width), ylim=(self.height, 0))

    def tile(self, image: np.ndarray, box: Box, scale: float | None = None, frame: str = PALE) -> None:
        """Lay `image` [h, w] or [h, w, 3] into `box`, in a frame of one pixel of the colour `frame`.

        Grey levels 0..255; or, with `scale`, blue at -scale, white at zero and red at +scale.
        """
        left, top, right, bottom = (
            round(edge * DPI) for edge in (box.left, box.top, box.left + box.width, box.top + box.height)
        )
        framed = np.full((bottom - top, right - left, 3), np.multiply(to_rgb(frame), 255), np.uint8)
        rows, columns = (
            np.arange(room - 2) * size // (room - 2)
            for room, size in zip(framed.shape[:2], image.shape[:2], strict=True)
        )
        framed[1:-1, 1:-1] = _rgb(image, scale)[rows[:, None], columns]
        height = self.figure.canvas.get_width_height()[1]
        self.figure.figimage(framed, left, height - bottom, zorder=-1)  # counts from below

    def words(self, x: float, y: float, text: str, **how) -> None:
        """Write `text` in 10 points, centred and hanging from (x, y), unless `how` says otherwise."""
        self.axes.text(x, y, text, **{"ha": "center", "va": "top", **how})

    def inset(self, box: Box) -> Axes:
        """Return ordinary axes of this place and size."""
        across, down = self.width, self.height
        below = 1 - (box.top + box.height) / down
        return self.figure.add_axes((box.left / across, below, box.width / across, box.height / down))

    def colour_bar(self, scale: float, box: Box, label: str) -> None:
        """Draw what the colours between -scale and +scale mean."""
        axes = self.inset(box)
        axes.imshow(np.linspace(-1, 1, 256)[None], cmap=SIGNED, aspect="auto", extent=(-scale, scale, 0, 1))
        axes.set_xticks([-scale, 0, scale], [f"{-scale:.2g}", "0", f"{scale:.2g}"])
        axes.set_yticks([])
        axes.grid(False)
        self.words(box.left + box.width / 2, box.top - 0.06, label, va="bottom")


@contextmanager
def board(path: Path | str, width: float, height: float, title: str) -> Iterator[Board]:
    """Yield a board of `width` x `height` inches; write it to `path` as PNG."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI)
        page = Board(figure)
        page.words(width / 2, 0.25, fitting(title, width), size=13, va="center", weight="bold")
        yield page
        _write(path, figure)


def cells(count: int, columns: int, first: Box) -> list[Box]:
    """Return `count` boxes of the size of the `first`, row by row and without gaps between them."""
    left, top, width, height = first
    return [first._replace(left=left + n % columns * width, top=top + n // columns * height) for n in range(count)]


def _rgb(image: np.ndarray, scale: float | None) -> np.ndarray:
    """Return uint8 [h, w, 3] for grey levels or colours 0..255, or for values between -scale and +scale."""
    if scale is not None:
        return matplotlib.colormaps[SIGNED]((image / scale + 1) / 2, bytes=True)[..., :3]
    image = np.asarray(image).round().astype(np.uint8)
    return image if image.ndim == 3 else image[..., None].repeat(3, axis=2)


def signed_scale(values: np.ndarray, fraction: float = 1.0) -> float:
    """Return the size below which that fraction of `values` lie: the end of a scale that is symmetric around zero."""
    size = float(np.quantile(np.abs(values), fraction)) if np.size(values) else 0.0
    return size or float(np.max(np.abs(values), initial=0.0)) or 1.0
