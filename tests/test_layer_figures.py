"""The pictures of kernels, maps, progressions and photographs show what they should, and can be read."""

import matplotlib
import numpy as np
import pytest
from PIL import Image

from fmnist.activations import Stage
from fmnist.figures import layers, style
from fmnist.photograph import Step
from tests.helpers.figure_checks import IMAGES, PREDICTIONS, check_picture, recorded, texts, tiles_laid

SAMPLE, LAST = IMAGES[3], PREDICTIONS.probabilities[4]
RNG = np.random.default_rng(1)
KERNELS = RNG.normal(size=(32, 1, 3, 3))
MAPS = RNG.normal(size=(32, 14, 14))


def stages(count):
    """So many stages, each a convolution of its own, of shapes that come round again."""
    shapes = [(32, 28, 28), (64, 7, 7), (512, 1, 1), (4, 2, 2)]
    maps = [np.random.default_rng(n).normal(size=shapes[n % 4]) for n in range(count)]
    name = "layer{}.0.downsample.0 (2)"
    return [Stage(name.format(n), "AdaptiveAvgPool2d", each, name.format(n)) for n, each in enumerate(maps)]


def steps_of(shape):
    """What a photograph of this shape became."""
    return [Step("what was found", np.full(shape, 80, np.uint8)), Step("shrunk to 28x28", SAMPLE)]


CASES = {
    "kernels": lambda p: layers.kernels_grid(p, KERNELS, "CNN: kernels of features.conv1"),
    "kernels of a deep layer": lambda p: layers.kernels_grid(p, np.ones((256, 128, 1, 1)), "ResNet-18: kernels"),
    "one kernel": lambda p: layers.kernels_grid(p, KERNELS[:1], "CNN: kernels"),
    "features": lambda p: layers.features_grid(p, SAMPLE, MAPS, KERNELS[:, 0] / 1000, "Kernels"),
    "activations": lambda p: layers.features_grid(p, SAMPLE, np.repeat(MAPS, 4, axis=0), None, "Maps"),
    "a dead layer": lambda p: layers.features_grid(p, SAMPLE, np.zeros((1, 7, 7)), None, "Maps"),
    "progression": lambda p: layers.progression(p, SAMPLE, stages(6), LAST, "CNN"),
    "long progression": lambda p: layers.progression(p, SAMPLE, stages(60), LAST, "ResNet-18"),
    "long names": lambda p: layers.progression(
        p, SAMPLE, [stage._replace(name="backbone.stage1." * 4 + "conv") for stage in stages(2)], LAST, "CNN"
    ),
    "photograph": lambda p: layers.photograph(p, steps_of((90, 60, 3)), LAST, [], "a.jpg"),
    "thin photograph": lambda p: layers.photograph(p, steps_of((900, 1)), LAST, ["doubt " * 40] * 2, "a.jpg"),
}


@pytest.fixture
def tiles():
    with tiles_laid() as laid:
        yield laid


@pytest.mark.parametrize("case", CASES)
def test_picture_is_whole_and_readable(case, tmp_path):
    check_picture(CASES[case], tmp_path)


def test_kernels_share_one_scale_around_zero_and_lie_where_they_should(tmp_path, tiles):
    kernels = np.zeros((2, 1, 1, 2))
    kernels[0, 0, 0] = 0.5, -0.5
    kernels[1, 0, 0] = 0.25, 0
    layers.kernels_grid(tmp_path / "k.png", kernels, "t")
    with Image.open(tmp_path / "k.png") as picture:
        shown = [
            picture.getpixel((round((box.left + box.width * part) * style.DPI), round((box.top + 0.5) * style.DPI)))[:3]
            for _, box in tiles
            for part in (0.25, 0.75)
        ]
    shades = matplotlib.colormaps["RdBu_r"]
    assert shown == [shades(level, bytes=True)[:3] for level in (1.0, 0.0, 0.75, 0.5)]


def test_kernels_of_a_deep_layer_are_averaged_and_counted(tmp_path, tiles):
    kernels = RNG.normal(size=(100, 8, 3, 3))
    words = texts(layers.kernels_grid(tmp_path / "k.png", kernels, "t"))
    assert "64 of 100 kernels of 3 x 3, each the mean over its 8 input channels" in words
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
def test_progression_shows_every_stage_with_its_shape_and_the_prediction(tmp_path, tiles, count):
    shown = stages(count)
    with recorded() as boxes:
        figure = layers.progression(tmp_path / "p.png", SAMPLE, shown, LAST, "t")
    words = {text.get_text(): box for text, box in boxes.items()}
    names = [words[f"{n}  {stage.name}"] for n, stage in enumerate(shown, start=1)]
    first = min(box.left for _, box in tiles[1:]) * style.DPI
    assert max(name.x1 for name in names[:10]) < first, "a name runs into the maps"
    assert all(f"{stage.kind}\n{' x '.join(map(str, stage.maps.shape))}" in words for stage in shown)
    assert len(tiles) == 1 + sum({32: 8, 64: 8, 512: 1, 4: 4}[len(stage.maps)] for stage in shown)
    assert [bar.get_width() for bar in figure.axes[-1].patches] == pytest.approx(LAST.tolist())


def test_a_column_follows_one_channel_from_a_convolution_to_the_next(tmp_path, tiles):
    before, after, other = (RNG.normal(size=(20, 4, 4)) for _ in range(3))
    strongest = [1, 3, 4, 8, 9, 12, 15, 19]
    after[strongest] *= 100
    other[strongest[0]] = 0  # another convolution has other channels
    path = [
        Stage("conv1", "Conv2d 3x3", before, "conv1"),
        Stage("relu1", "ReLU", after, "conv1"),
        Stage("conv2", "Conv2d 3x3", other, "conv2"),
    ]
    with recorded() as boxes:
        layers.progression(tmp_path / "p.png", SAMPLE, path, LAST, "t")
    shown = [(image, box) for image, box in tiles[1:]]
    numbers = {text.get_text(): box for text, box in boxes.items() if text.get_text().isdecimal()}
    for column, channel in enumerate(strongest):
        (first, place), (second, below) = shown[column], shown[8 + column]
        assert np.array_equal(first, before[channel])
        assert np.array_equal(second, after[channel])
        assert (place.left, place.width) == (below.left, below.width)
    middle = shown[0][1].left + shown[0][1].width / 2
    assert (numbers["1"].x0 + numbers["1"].x1) / 2 == pytest.approx(middle * style.DPI, abs=1)
    strength = np.abs(other).mean(axis=(1, 2))
    chosen = {int(np.flatnonzero((other == image).all(axis=(1, 2)))[0]) for image, _ in shown[16:]}
    assert chosen == set(np.argsort(-strength)[:8])


def test_photograph_shows_the_three_likeliest_classes(tmp_path, tiles):
    probabilities = np.array([0.1, 0, 0.5, 0, 0.3, 0, 0.06, 0, 0.04, 0])
    figure = layers.photograph(tmp_path / "p.png", steps_of((400, 800, 3)), probabilities, ["It is doubtful."], "t")
    labels = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert labels == ["Pullover", "Coat", "T-shirt/top"]
    assert [bar.get_width() for bar in figure.axes[1].patches] == pytest.approx([0.5, 0.3, 0.1])
    assert tiles[0][0].shape[:2] == (173, 345), "the proportions are lost"
    assert np.array_equal(tiles[1][0], SAMPLE)
    assert {"what was found", "shrunk to 28x28", "It is doubtful."} <= set(texts(figure))
