"""fmnist/live.py: a network written down for the page. How the page runs it is tested in test_live_browser.py."""

import base64
import json
import re
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import kernel_vis
from cnn import CNN
from ffn import FFN
from fmnist import data, download, live, page
from fmnist.checkpoints import save_weights
from fmnist.data import CLASSES, OWN, FashionMNIST, Sample
from fmnist.evaluation import Predictions
from fmnist.figures import album
from fmnist.layers import Pixels
from fmnist.learners import multiply_adds
from recipes import RECIPES
from tests.helpers import tiny

PHOTOGRAPH = Path(__file__).with_name("photograph.jpg")
IMAGE = tiny.make(10, 10).test_images[0]
SMALL = (Pixels(), nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 13 * 13, 10))


def numbers(text: str, kind: str = "<f4") -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def content_of(path: Path) -> dict:
    """What the page at `path` holds."""
    return json.loads(re.search(r'id="network">(.*?)</script>', path.read_text("utf-8"), re.DOTALL)[1])


# The network in plain values


@pytest.mark.parametrize(
    "network", [CNN([4, 6], dense=[8]), FFN([8]), nn.Sequential(*SMALL)], ids=["cnn", "ffn", "own"]
)
def test_layers_are_described_in_the_order_and_with_the_shapes_in_which_they_are_computed(network):
    layers = live.describe(network, IMAGE)
    leaves = {name: module for name, module in network.named_modules() if not list(module.children())}
    assert [(layer["name"], layer["kind"]) for layer in layers] == [(n, type(m).__name__) for n, m in leaves.items()]
    values = torch.from_numpy(IMAGE)[None]
    for layer, module in zip(layers, leaves.values(), strict=True):
        assert layer["input"] == list(values.shape[1:])
        values = module.eval()(values)
        assert layer["output"] == list(values.shape[1:])
    assert live.multiply_adds(layers) == multiply_adds(network)


def test_weights_keep_sixteen_bits_of_each_kernels_largest():
    network = CNN([4, 6])
    layers = {layer["name"]: layer for layer in live.describe(network, IMAGE)}
    for name in ("features.conv1", "features.conv2", "classifier.linear1"):
        own = network.get_submodule(name).weight.detach().flatten(1).numpy()
        whole = numbers(layers[name]["weights"], "<i2").reshape(own.shape)
        kept = whole * numbers(layers[name]["scales"])[:, None]
        assert (np.abs(kept - own).max(axis=1) <= np.abs(own).max(axis=1) / 65_000).all()
        assert np.array_equal(numbers(layers[name]["bias"]), network.get_submodule(name).bias.detach().numpy())


def test_a_kernel_of_zeros_stays_one():
    network = nn.Sequential(*SMALL)
    nn.init.zeros_(network[1].weight)
    layer = live.describe(network, IMAGE)[1]
    assert not numbers(layer["weights"], "<i2").any()
    assert np.isfinite(numbers(layer["scales"])).all()
    nn.init.normal_(network[1].weight)


def test_batch_norm_becomes_a_factor_and_a_summand():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(values, 0.5, 2)
    layer = live.describe(nn.Sequential(*SMALL[:2], norm, *SMALL[2:]), IMAGE)[2]
    maps = torch.randn(1, 4, 5, 5)
    scale, shift = (torch.tensor(numbers(layer[key]))[:, None, None] for key in ("scale", "shift"))
    assert torch.allclose(maps * scale + shift, norm.eval()(maps), atol=1e-6)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.pixels, self.conv, self.flatten = Pixels(), nn.Conv2d(1, 1, 3, padding=1), nn.Flatten()
        self.output = nn.Linear(784, 10)

    def forward(self, images):
        pixels = self.pixels(images)
        return self.output(self.flatten(pixels + self.conv(pixels)))


class InAFunction(Residual):
    def forward(self, images):
        return self.output(self.flatten(torch.relu(self.conv(self.pixels(images)))))


class FlattenedByAFunction(Residual):
    def forward(self, images):
        return self.output(torch.flatten(self.conv(self.pixels(images)), 1))


class NormalisedVector(Residual):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(784)

    def forward(self, images):
        return self.output(self.norm(torch.flatten(self.conv(self.pixels(images)), 1)))


class HandedByKeyword(Residual):
    def forward(self, images):
        return self.output(self.flatten(self.conv(input=self.pixels(images))))


class Branches(Residual):
    """Two branches that one layer flattens: flattened twice, one after the other, maps have too few dimensions."""

    def __init__(self):
        super().__init__()
        self.other, self.flatten = nn.Conv2d(1, 1, 3, padding=1), nn.Flatten(1, 3)

    def forward(self, images):
        pixels = self.pixels(images)
        one, other = self.conv(pixels), self.other(pixels)
        return self.output(self.flatten(one) + self.flatten(other))


class WithIndices(Residual):
    def __init__(self):
        super().__init__()
        self.pool, self.output = nn.MaxPool2d(2, return_indices=True), nn.Linear(196, 10)

    def forward(self, images):
        return self.output(self.flatten(self.pool(self.conv(self.pixels(images)))[0]))


def sequence(*middle, inputs=4 * 13 * 13):
    return nn.Sequential(*SMALL[:2], *middle, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(inputs, 10))


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Residual(), "more than one layer after the other"),
        (InAFunction(), "more than one layer after the other"),
        (FlattenedByAFunction(), "more than one layer after the other"),
        (Branches(), "more than one layer after the other"),
        (NormalisedVector(), "more than one layer after the other"),
        (HandedByKeyword(), "conv is not handed one tensor"),
        (WithIndices(), "pool is not handed one tensor, or does not hand on one"),
        (sequence(nn.GELU()), "2 is a layer of a kind that the page does not know: GELU"),
        (nn.Sequential(nn.Flatten(), nn.Identity()), "its first layer is not fmnist.layers.Pixels"),
        (sequence(nn.Conv2d(4, 4, 3, groups=2, padding=1)), "2: a convolution with groups, dilation"),
        (sequence(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")), "2: a convolution with groups, dilation"),
        (sequence(nn.BatchNorm2d(4, track_running_stats=False)), "2: batch norm by the batch's own mean"),
        (sequence(nn.LayerNorm(26)), "2: layer norm over a part of the values"),
        (sequence(nn.AvgPool2d(3, 1, padding=1)), "2: pooling beyond the edge of the maps"),
        (nn.Sequential(Pixels(size=40), *SMALL[1:4], nn.AdaptiveAvgPool2d(13), *SMALL[4:]), "does not divide"),
        (nn.Sequential(Pixels(size=160), nn.Conv2d(1, 64, 3), nn.Conv2d(64, 100, 3)), "multiply-adds per image"),
        (FFN([4000, 1000]), "7,151,010 parameters"),
    ],
    ids=lambda value: value.replace(" ", "_")[:30] if isinstance(value, str) else type(value).__name__,
)
def test_what_the_page_cannot_run_is_refused_in_words(network, words):
    with pytest.raises(live.Unsupported, match=re.escape(words)):
        live.describe(network, IMAGE)


# The images on the page


def predictions(count: int = 600) -> Predictions:
    """Of ten classes in turn; every fifth image is taken for the next class, the later the surer."""
    labels = np.arange(count) % 10
    wrong = np.arange(count) % 5 == 0
    sure = np.linspace(0.5, 0.99, count)[:, None]
    others = (1 - sure) / 9
    probabilities = np.where(np.eye(10, dtype=bool)[np.where(wrong, (labels + 1) % 10, labels)], sure, others)
    return Predictions(np.zeros((count, 28, 28), np.uint8), labels, probabilities.astype(np.float32))


def test_the_surest_mistakes_come_first_and_then_each_class():
    made = predictions()
    chosen = live.choose(made)
    assert len(chosen) == len(set(chosen)) == 200
    assert chosen[:60].tolist() == list(range(595, 595 - 5 * 60, -5)), "every fifth is wrong, and the last is surest"
    rest = chosen[60:]
    assert made.correct[rest].all()
    assert made.labels[rest].tolist() == sorted(made.labels[rest]), "class by class"
    assert set(np.bincount(made.labels[rest], minlength=10)[[1, 2, 3, 4, 6, 7, 8, 9]]) <= {17, 18}


def test_a_network_without_mistakes_or_without_many_images_fills_what_it_can():
    made = predictions()
    correct = Predictions(*(part[made.correct] for part in made))
    assert len(live.choose(correct)) == 200
    assert len(live.choose(Predictions(*(part[:30] for part in made)))) == 30


@pytest.fixture(scope="module")
def dataset(made_up) -> FashionMNIST:
    tensors = [torch.from_numpy(array) for array in made_up]
    return FashionMNIST(tensors[0], tensors[1].long(), tensors[2], tensors[3].long(), "made up", OWN)


def test_the_page_holds_the_sample_and_what_the_network_makes_of_test_images(dataset, tmp_path):
    torch.manual_seed(0)
    network = CNN([4, 6]).eval()
    live.write(tmp_path / "live.html", network, Sample(IMAGE, "test image 7, Bag"), dataset, "CNN, live")
    content = content_of(tmp_path / "live.html")
    images = numbers(content["images"], np.uint8).reshape(-1, 28, 28)
    assert content["classes"] == list(CLASSES)
    assert content["parameters"] == sum(weight.numel() for weight in network.parameters())
    assert content["shown"][0] == {"title": "test image 7, Bag", "is_photograph": False}
    assert np.array_equal(images[0], IMAGE)
    assert len(images) == len(content["shown"]) == 201
    with torch.inference_mode():
        probabilities = network(torch.tensor(images)).softmax(dim=1)
    for image, fact, own in zip(images[1:], content["shown"][1:], probabilities[1:], strict=True):
        assert np.array_equal(image, dataset.test_images[fact["index"]])
        assert fact["label"] == dataset.test_labels[fact["index"]]
        assert fact["predicted"] == own.argmax()
        assert fact["probability"] == pytest.approx(float(own.max()), abs=1e-4)


def test_nothing_is_loaded_from_outside_and_names_are_escaped(tmp_path):
    evil = "</script><img src=x onerror=alert(1)>\udcff"
    live.write(tmp_path / "live.html", nn.Sequential(*SMALL), Sample(IMAGE, evil), None, evil)
    text = (tmp_path / "live.html").read_text("utf-8")
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'" in text
    assert not re.search(r"https?:|@import|url\(", text)
    assert "<img" not in text
    assert text.count("</script>") == 2
    assert content_of(tmp_path / "live.html")["shown"] == [{"title": evil, "is_photograph": False}]


def test_a_page_of_classic_is_smaller_than_six_megabytes(dataset, tmp_path):
    live.write(tmp_path / "live.html", CNN(), Sample(IMAGE, "sample"), dataset, "CNN, live")
    assert (tmp_path / "live.html").stat().st_size < 6e6


# By kernel_vis.py


@pytest.fixture
def no_data_here(monkeypatch):
    """No data set on this machine, and nothing may be fetched."""
    monkeypatch.setattr(download, "SYSTEM_COPY", Path("/nonexistent"))
    monkeypatch.setattr(download, "_fetch", lambda *_: pytest.fail("fetched"))


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setattr(album, "draw_layers", lambda *_: np.zeros(10))


def looked_into(network, run_here, folder, *arguments):
    save_weights(folder, network, "classic", network.build().state_dict(), OWN)
    words = ["--weights", folder / f"{network.name}.pth", "--output-dir", folder / "out", *arguments]
    done = run_here(words, main=kernel_vis.main)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_photograph_comes_alone_where_there_is_no_data_set(no_data_here, no_figures, run_here, tmp_path):
    where = ["--image", PHOTOGRAPH, "--data-dir", tmp_path / "none"]
    out = looked_into(RECIPES["classic"].networks[1], run_here, tmp_path, *where)
    assert "live.html" in out
    assert content_of(tmp_path / "out" / "classic" / "live.html")["shown"] == [
        {"title": "photograph.jpg", "is_photograph": True}
    ]


def test_a_photograph_stands_beside_the_test_images_where_they_are_here(run_here, no_figures, made_up, tmp_path):
    tiny.write_csv(made_up, tmp_path / "data")
    where = ["--image", PHOTOGRAPH, "--data-dir", tmp_path / "data"]
    out = looked_into(RECIPES["classic"].networks[1], run_here, tmp_path, *where)
    assert "data:" not in out, "they are an extra: nothing is said of them"
    shown = content_of(tmp_path / "out" / "classic" / "live.html")["shown"]
    assert [fact.get("title") for fact in shown[:2]] == ["photograph.jpg", None]
    assert len(shown) == 201


def test_of_a_network_that_no_page_can_run_the_other_pictures_are_drawn(run_here, no_data_here, monkeypatch, tmp_path):
    monkeypatch.setattr(live, "MOST_PARAMETERS", 400_000)
    where = ["--image", PHOTOGRAPH, "--data-dir", tmp_path / "none"]
    earlier = tmp_path / "out" / "classic" / "live.html"
    for words in ("", "; from before, perhaps of another network: live.html"):
        out = looked_into(RECIPES["classic"].networks[1], run_here, tmp_path, *where)
        assert "live.html is left out: CNN cannot run in a page: 421,642 parameters, and the page holds 400,000" in out
        assert words in out
        assert (tmp_path / "out" / "classic" / "progression.png").exists()
        assert earlier.exists() == bool(words)
        earlier.touch()


def test_the_report_links_to_the_page(tmp_path):
    report = tmp_path / "report.html"
    report.write_bytes(b"before" + page.FIGURES_BEGIN + page.FIGURES_END + b"after")
    page.add_figures(report, [("<b>, live", tmp_path / "live.html")])
    text = report.read_text()
    assert '<a href="live.html">&lt;b&gt;, live</a>' in text
    assert text.startswith("before")
    assert text.endswith("after")
    assert prod(text.count(mark) for mark in ("<!-- layer figures -->", "<!-- end of layer figures -->")) == 1


def test_the_data_set_is_not_fetched_unless_it_is_asked_for(no_data_here, tmp_path):
    with pytest.raises(data.Refused, match="is not on this machine"):
        data.load(tmp_path, fetch=False)
