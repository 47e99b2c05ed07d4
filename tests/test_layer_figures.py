"""The pictures of kernels, maps, progressions and photographs show what they should, and nothing is cut off."""

import matplotlib
import numpy as np
import pytest
from PIL import Image

from fmnist.figures import layers, style
from tests.helpers.figure_checks import CLASSES, IMAGES, PROBABILITIES, check_picture, recorded, texts, tiles_laid

SAMPLE, LAST = IMAGES[3], PROBABILITIES[4]
RNG = np.random.default_rng(1)
KERNELS = RNG.normal(size=(32, 1, 3, 3))
MAPS = RNG.normal(size=(32, 14, 14))


def stages(count):
    shapes = [(32, 28, 28), (64, 7, 7), (512, 1, 1), (4, 2, 2)]
    maps = [np.random.default_rng(n).normal(size=shapes[n % 4]) for n in range(count)]
    return [(f"layer{n}.0.downsample.0 (2)", "AdaptiveAvgPool2d", each) for n, each in enumerate(maps)]


CASES = {
    "kernels": lambda p: layers.kernels_grid(p, KERNELS, "CNN: kernels", "features.conv1"),
    "kernels of a deep layer": lambda p: layers.kernels_grid(
        p, np.ones((256, 128, 1, 1)), "ResNet-18: kernels", "layer3.0.downsample.0"
    ),
    "one kernel": lambda p: layers.kernels_grid(p, KERNELS[:1], "CNN: kernels", "features.conv1"),
    "features": lambda p: layers.features_grid(p, SAMPLE, MAPS, KERNELS[:, 0], "Kernels"),
    "activations": lambda p: layers.features_grid(p, SAMPLE, np.repeat(MAPS, 4, axis=0), None, "Maps"),
    "a dead layer": lambda p: layers.features_grid(p, SAMPLE, np.zeros((1, 7, 7)), None, "Maps"),
    "progression": lambda p: layers.progression(p, SAMPLE, stages(6), LAST, CLASSES, "CNN"),
    "long progression": lambda p: layers.progression(p, SAMPLE, stages(60), LAST, CLASSES, "ResNet-18"),
    "photograph": lambda p: layers.photograph(p, np.full((90, 60, 3), 80, np.uint8), SAMPLE, LAST, CLASSES),
    "thin photograph": lambda p: layers.photograph(p, np.full((900, 1), 80, np.uint8), SAMPLE, LAST, CLASSES),
}


@pytest.fixture
def tiles():
    with tiles_laid() as laid:
        yield laid


@pytest.mark.parametrize("case", CASES)
def test_picture_is_whole_and_readable(case, tmp_path):
    check_picture(CASES[case], tmp_path)


def test_kernels_share_one_scale_around_zero(tmp_path):
    kernels = np.zeros((2, 1, 1, 2))
    kernels[0, 0, 0] = 0.5, -0.5
    kernels[1, 0, 0] = 0.25, 0
    layers.kernels_grid(tmp_path / "k.png", kernels, "t", "conv1")
    with Image.open(tmp_path / "k.png") as picture:
        width, y = picture.width, round(1.5 * style.DPI)  # in the middle of the row of tiles
        first = round(width / 2 - 0.75 * style.DPI)
        plus, minus, half, zero = (picture.getpixel((first + step, y))[:3] for step in (0, 50, 110, 160))
    shades = matplotlib.colormaps["RdBu_r"]
    assert plus == shades(1.0, bytes=True)[:3]
    assert minus == shades(0.0, bytes=True)[:3]
    assert half == shades(0.75, bytes=True)[:3]
    assert zero == shades(0.5, bytes=True)[:3]


def test_kernels_of_a_deep_layer_are_averaged_and_counted(tmp_path, tiles):
    kernels = RNG.normal(size=(100, 8, 3, 3))
    words = texts(layers.kernels_grid(tmp_path / "k.png", kernels, "t", "conv2"))
    assert "conv2: 64 of 100 kernels of 3 x 3, each the mean over its 8 input channels" in words
    assert "63" in words
    assert "64" not in words
    assert len(tiles) == 64
    assert tiles[5][0] == pytest.approx(kernels[5].mean(axis=0))


def test_each_map_stands_with_its_kernel(tmp_path, tiles):
    words = texts(layers.features_grid(tmp_path / "f.png", SAMPLE, MAPS, KERNELS[:, 0], "t"))
    images = [image for image, _ in tiles]
    assert {f"kernel {n}" for n in range(32)} <= set(words)
    assert np.array_equal(images[0], SAMPLE)
    assert np.array_equal(images[1 + 2 * 7], KERNELS[7, 0])
    assert np.array_equal(images[2 + 2 * 7], MAPS[7])


@pytest.mark.parametrize("count", [1, 20])
def test_progression_shows_every_stage_with_its_shape_and_the_answer(tmp_path, tiles, count):
    shown = stages(count)
    with recorded() as boxes:
        figure = layers.progression(tmp_path / "p.png", SAMPLE, shown, LAST, CLASSES, "t")
    words = {text.get_text(): box for text, box in boxes.items()}
    names = [words[f"{n}  {name}"] for n, (name, _, _) in enumerate(shown, start=1)]
    first = min(left for _, left in tiles[1:]) * style.DPI
    assert names[0].x1 < first, "a name runs into the maps"
    assert all(f"{kind}\n{' x '.join(map(str, maps.shape))}" in words for _, kind, maps in shown)
    assert len(tiles) == 1 + sum({32: 8, 64: 8, 512: 1, 4: 4}[len(maps)] for _, _, maps in shown)
    assert [bar.get_width() for bar in figure.axes[-1].patches] == pytest.approx(LAST.tolist())


def test_the_most_active_channels_are_chosen():
    maps = np.zeros((20, 2, 2))
    strongest = [1, 3, 4, 8, 9, 12, 15, 19]
    maps[strongest] = RNG.choice([-1, 1], (8, 2, 2)) * np.arange(1, 9)[:, None, None]
    assert layers.most_active(maps).tolist() == strongest


def test_photograph_shows_the_three_likeliest_classes(tmp_path, tiles):
    probabilities = np.array([0.1, 0, 0.5, 0, 0.3, 0, 0.06, 0, 0.04, 0])
    original = np.zeros((40, 80, 3), np.uint8)
    figure = layers.photograph(tmp_path / "p.png", original, SAMPLE, probabilities, CLASSES)
    labels = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert labels == ["Pullover", "Coat", "T-shirt/top"]
    assert [bar.get_width() for bar in figure.axes[1].patches] == pytest.approx([0.5, 0.3, 0.1])
    assert tiles[0][0].shape == (165, 330, 3), "the proportions are lost"
