"""What all pictures share: one style, a colour for each network, sheets to draw on, and small images laid on them.

The pictures themselves are in figures.py, comparisons.py, layers.py and dataset.py.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # pictures go to files; no display is asked for, whatever MPLBACKEND says

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import FigureImage

from fmnist.files import atomic_write

DPI = 110
INK, GREY, PALE = "#222222", "#6b6b6b", "#d9d9d9"
BLUE, ORANGE, VERMILION = "#0173b2", "#de8f05", "#c44e00"
# Mostly of seaborn's "colorblind" palette, with darker colours for those that are lost on white. A marker goes with
# each colour, so that the networks can be told apart in grey as well.
OTHERS = ("#029e73", "#d55e00", "#cc78bc", "#56b4e9", "#8c5a2b", "#6a3d9a", "#222222", "#949494")
MARKERS = dict(zip((BLUE, ORANGE, *OTHERS), "os^DvPX<>h", strict=True))
SIGNED = "RdBu_r"  # blue below zero, white at zero, red above: safe for the common kinds of colour blindness
COUNTED = "Blues"

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
    "image.interpolation": "nearest",  # a pixel of the data is a square of the picture
}


def colours(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each network name: "ffn" blue, "cnn" orange wherever they occur, the others in turn."""
    fixed = {"ffn": BLUE, "cnn": ORANGE}
    names = list(names)
    others = [name for name in names if name not in fixed]
    return {name: fixed.get(name) or OTHERS[others.index(name) % len(OTHERS)] for name in names}


@contextmanager
def sheet(path: Path | str, width: float, height: float, title: str = "") -> Iterator[Figure]:
    """Yield a figure of `width` x `height` inches that arranges its axes itself; write it to `path` as PNG."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        if title:
            figure.suptitle(fitting(title, width))
        yield figure
        _write(path, figure)


class Pixels(FigureImage):
    """Finished pixels behind everything else on a figure of the same size, put there as they are.

    matplotlib's own images are resampled even where nothing changes, which takes most of a second for a large sheet.
    """

    def make_image(self, renderer: object, magnification: float = 1.0, unsampled: bool = False) -> tuple:
        """Return what matplotlib asks an image for: uint8 [h, w, 4] from the bottom up, and where it goes."""
        opaque = np.full((*self._A.shape[:2], 1), 255, np.uint8)
        return np.concatenate([self._A, opaque], axis=2)[::-1], 0, 0, None


class Board:
    """A sheet for small images and words, measured in inches from its upper left corner.

    All images go into one array of pixels: five hundred pairs of axes, or images on one pair, take seconds to draw.
    """

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self.width, self.height = figure.get_size_inches()
        self.axes = figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self.axes.set(xlim=(0, self.width), ylim=(self.height, 0))
        across, down = figure.canvas.get_width_height()
        self.pixels = np.full((down, across, 3), 255, np.uint8)

    def tile(
        self, image: np.ndarray, left: float, top: float, width: float, height: float | None = None, **how
    ) -> None:
        """Lay `image` [h, w] or [h, w, 3] down, as high as wide unless `height` says otherwise.

        Grey levels 0..255; or, with `scale`, blue at -scale, white at zero and red at +scale. `frame` is a colour.
        """
        height = width if height is None else height
        y, x = (slice(round(low * DPI), round((low + size) * DPI)) for low, size in ((top, height), (left, width)))
        inside = self.pixels[y, x]  # a view
        inside[:] = np.multiply(to_rgb(how.get("frame", PALE)), 255)
        rows, columns = (
            np.arange(n - 2) * size // (n - 2) for n, size in zip(inside.shape[:2], image.shape[:2], strict=True)
        )
        inside[1:-1, 1:-1] = _rgb(image, how.get("scale"))[rows[:, None], columns]

    def words(self, x: float, y: float, text: str, size: float = 8, ha: str = "center", va: str = "top", **how) -> None:
        """Write `text`, centred and hanging from (x, y) unless said otherwise."""
        self.axes.text(x, y, text, fontsize=size, ha=ha, va=va, **how)

    def inset(self, left: float, top: float, width: float, height: float) -> Axes:
        """Return ordinary axes of this place and size."""
        across, down = self.width, self.height
        return self.figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))

    def colour_bar(self, scale: float, left: float, top: float, width: float, label: str) -> None:
        """Draw what the colours between -scale and +scale mean."""
        axes = self.inset(left, top, width, 0.13)
        axes.imshow(np.linspace(-1, 1, 256)[None], cmap=SIGNED, aspect="auto", extent=(-scale, scale, 0, 1))
        axes.set_xticks([-scale, 0, scale], [f"{-scale:.2g}", "0", f"{scale:.2g}"], fontsize=8)
        axes.set_yticks([])
        axes.grid(False)
        self.words(left + width / 2, top - 0.06, label, size=8.5, va="bottom")


@contextmanager
def board(path: Path | str, width: float, height: float, title: str) -> Iterator[Board]:
    """Yield a board of `width` x `height` inches; write it to `path` as PNG."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI)
        page = Board(figure)
        page.words(width / 2, 0.25, fitting(title, width), size=13, va="center", weight="bold")
        yield page
        figure.images.append(Pixels(figure))
        figure.images[-1].set(data=page.pixels, zorder=-1)
        _write(path, figure)


def _write(path: Path | str, figure: Figure) -> None:
    with atomic_write(path) as file:
        figure.savefig(file, format="png", metadata={"Software": None})


def fitting(title: str, width: float) -> str:
    """Return `title`, which may hold a file's name, on one line no longer than `width` inches of headline."""
    title = "".join(character if character.isprintable() else "?" for character in title)
    longest = int(width * 8)
    return title if len(title) <= longest else title[: longest - 1] + "…"


def legend_below(figure: Figure, handles: Sequence[Artist]) -> None:
    """Put a legend below the axes, where it hides nothing, in as many columns as its entries leave room for."""
    longest = max((len(handle.get_label()) for handle in handles), default=0)
    columns = int(figure.get_size_inches()[0] * 72 / (longest * 5.8 + 42))
    figure.legend(handles=handles, loc="outside lower center", ncols=max(1, min(columns, len(handles))))


def _rgb(image: np.ndarray, scale: float | None) -> np.ndarray:
    """Return uint8 [h, w, 3] for grey levels or colours 0..255, or for values between -scale and +scale."""
    if scale is not None:
        return matplotlib.colormaps[SIGNED]((image / scale + 1) / 2, bytes=True)[..., :3]
    image = np.asarray(image).round().astype(np.uint8)
    return image if image.ndim == 3 else image[..., None].repeat(3, axis=2)


def signed_scale(values: np.ndarray, share: float = 1.0) -> float:
    """Return the size below which that share of `values` lie: the end of a scale that is symmetric around zero."""
    size = float(np.quantile(np.abs(values), share)) if np.size(values) else 0.0
    return size or float(np.max(np.abs(values), initial=0.0)) or 1.0


def places(count: int, columns: int, left: float, top: float, width: float, height: float) -> list[tuple[float, float]]:
    """Return the upper left corners of `count` cells, row by row."""
    return [(left + n % columns * width, top + n // columns * height) for n in range(count)]


def spread(values: Sequence[float], gap: float) -> np.ndarray:
    """Return positions for labels: as near to `values` as can be (least squares) but at least `gap` apart."""
    values = np.asarray(values, float)
    order = np.argsort(values, kind="stable")
    touching: list[tuple[float, int]] = []  # sum and number of the labels of each group that touch each other
    for rank, value in enumerate(values[order]):
        total, count = value - rank * gap, 1
        while touching and touching[-1][0] / touching[-1][1] > total / count:
            before, many = touching.pop()
            total, count = total + before, count + many
        touching.append((total, count))
    placed = np.empty(len(values))
    placed[order] = [total / count for total, count in touching for _ in range(count)]
    placed[order] += gap * np.arange(len(values))
    return placed


def broken(name: str) -> str:
    """Break a class name into short lines: at spaces and after slashes."""
    return name.replace(" ", "\n").replace("/", "/\n")


def matrix(axes: Axes, shades: np.ndarray, texts: Sequence[Sequence[str]], classes: Sequence[str]) -> None:
    """Draw `texts` [C, C] on cells as dark as `shades`, 0..1, with the classes above and on the left."""
    picture = axes.imshow(shades, cmap=COUNTED, vmin=0, vmax=1, aspect="auto")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            # Relative luminance as WCAG has it, nearly; below 0.2 white stands out more than ink.
            dark = np.dot(np.power(picture.cmap(float(shades[row, column]))[:3], 2.2), (0.2126, 0.7152, 0.0722)) < 0.2
            axes.text(column, row, text, ha="center", va="center", fontsize=9, color="white" if dark else INK)
    axes.set_xticks(range(len(classes)), [broken(name) for name in classes], fontsize=8.5)
    axes.set_yticks(range(len(classes)), classes, fontsize=9)
    axes.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
    axes.xaxis.set_label_position("top")
