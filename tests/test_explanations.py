"""Explanations against finite differences, sums, plain loops and a forward pass by hand, for networks of every kind."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import kernel_vis
from cnn import CNN, ResNet18
from ffn import FFN
from fmnist import explanations
from fmnist.data import CLASSES, Sample
from fmnist.errors import Refused
from fmnist.figures import album
from fmnist.figures import explanations as figures
from fmnist.layers import Pixels
from tests.helpers.figure_checks import IMAGES, check_picture, recorded, tiles_laid

IMAGE = IMAGES[3]
PROBABILITIES = np.array([0.1, 0, 0.5, 0, 0.3, 0, 0.06, 0, 0.04, 0], np.float32)


class Own(nn.Module):
    """A user's network: without Pixels, one ReLU in place for all layers, no activation behind the last convolution."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.relu = nn.Conv2d(1, 4, 3, stride=2), nn.Conv2d(4, 6, 3), nn.ReLU(inplace=True)
        self.linear = nn.Linear(6 * 11 * 11, 10)

    def forward(self, images):
        maps = self.second(self.relu(self.first(images[:, None] / 255)))
        return self.linear(self.relu(maps).flatten(1))


NETWORKS = {
    "cnn": lambda: CNN([4, 6]),
    "variant": lambda: CNN([4, 6], 5, pool="stride", norm="before", activation="leaky_relu", dense_norm="layer"),
    "resized": lambda: CNN([4], pool="avg", norm="after", size=40),
    "resnet": lambda: ResNet18(),
    "ffn": lambda: FFN([16]),
    "normalised ffn": lambda: FFN([16], norm="before"),
    "own": Own,
}


@pytest.fixture(params=NETWORKS)
def name(request):
    return request.param


@cache
def network(name):
    torch.manual_seed(0)
    return NETWORKS[name]().eval()


def explained(model):
    found = explanations.explain(model, IMAGE, (7, 2))
    return found, {method.name: method.maps for method in found.methods}


@cache
def explained_once(name):
    return explained(network(name))


@torch.no_grad()
def score(model, image, number):
    return float(model(torch.as_tensor(image)[None])[0, number])


def test_integrated_gradients_add_up_to_the_change_of_score(name):
    found, maps = explained_once(name)
    changes = [score(network(name), IMAGE, n) - score(network(name), np.zeros_like(IMAGE), n) for n in (7, 2)]
    assert found.changes == pytest.approx(changes, abs=1e-4)
    assert maps["Integrated gradients"].sum(axis=(1, 2)) - changes == pytest.approx(found.errors, abs=2e-3)
    assert np.abs(found.errors).max() < 0.1 * np.abs(found.changes).max()
    assert f"of a change of score of {np.abs(changes).max():.3g} (" in found.completeness


def test_occlusion_agrees_with_a_plain_loop(name):
    _, maps = explained_once(name)
    windows = [np.s_[top : top + 4, left : left + 4] for top in range(0, 25, 2) for left in range(0, 25, 2)]
    images = np.stack([IMAGE] * (len(windows) + 1))
    for image, window in zip(images, windows, strict=False):  # the last is left as it is
        image[window] = 0
    with torch.no_grad():
        *scores, whole = network(name)(torch.from_numpy(images)).numpy()
    for number, values in zip((7, 2), maps["Occlusion"], strict=True):
        falls, covered = np.zeros((28, 28)), np.zeros((28, 28))
        for window, score_left in zip(windows, scores, strict=True):
            falls[window] += whole[number] - score_left[number]
            covered[window] += 1
        assert np.abs(falls / covered - values).max() < 1e-4 * (1 + np.abs(values).max())


def test_saliency_agrees_with_finite_differences():
    torch.manual_seed(0)
    network = CNN([4, 6], pool="avg", activation="leaky_relu").eval().double()
    _, maps = explained(network.float())
    network.double()
    for row, column in ((14, 14), (3, 20), (25, 6)):
        moved = np.stack([IMAGE, IMAGE]).astype(float)
        moved[:, row, column] += -1e-4, 1e-4
        low, high = (score(network, image, 7) for image in moved)
        assert maps["Saliency"][0, row, column] == pytest.approx(abs(high - low) / 2e-4, rel=1e-2, abs=1e-6)


def test_saliency_and_integrated_gradients_of_a_linear_network_are_its_weights():
    torch.manual_seed(0)
    network = nn.Sequential(Pixels(0.0, 1.0), nn.Flatten(), nn.Linear(784, 10))
    _, maps = explained(network)
    weights = network[2].weight[[7, 2]].detach().numpy().reshape(2, 28, 28) / 255
    assert maps["Saliency"] == pytest.approx(np.abs(weights), abs=1e-7)
    assert maps["Integrated gradients"] == pytest.approx(weights * IMAGE, abs=1e-5)


def test_grad_cam_agrees_with_a_pass_by_hand():
    torch.manual_seed(0)
    network = CNN([4, 6]).eval()
    _, maps = explained(network)
    features = network.features(network.pixels(torch.from_numpy(IMAGE)[None])).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network.classifier(features)[0, 7], features)
    by_hand = (gradient[0].mean(dim=(1, 2))[:, None, None] * features[0]).sum(dim=0).relu()
    assert maps["Grad-CAM"].shape == (2, 7, 7)
    assert maps["Grad-CAM"][0] == pytest.approx(by_hand.detach().numpy(), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "layer"), [("cnn", "features.relu2"), ("variant", "features.leaky_relu2"), ("resnet", "layer3.1.relu")]
)
def test_grad_cam_is_of_the_last_maps_with_more_than_one_pixel(name, layer):
    found, _ = explained_once(name)
    assert any(f" of {layer}," in method.told for method in found.methods)


def test_grad_cam_of_a_shared_relu_is_of_the_convolution_before_it():
    found, maps = explained_once("own")
    assert maps["Grad-CAM"].shape == (2, 11, 11)
    assert not found.left_out


def test_grad_cam_is_left_out_in_words_where_there_is_no_convolution(name):
    found, maps = explained_once(name)
    convolutional = "ffn" not in name
    assert list(maps) == ["Saliency", "Integrated gradients", *["Grad-CAM"] * convolutional, "Occlusion"]
    assert [line[:20] for line in found.left_out] == ([] if convolutional else ["Grad-CAM is left out"])


class WithMapsBeside(Own):
    """Own, whose convolution `beside` makes maps of the last ones: without a part in the scores, or a gradient."""

    def __init__(self, has_part):
        super().__init__()
        self.beside, self.has_part = nn.Conv2d(6, 6, 3, padding=1), has_part

    def forward(self, images):
        maps = self.second(self.relu(self.first(images[:, None] / 255)))
        attention = self.beside(maps.detach() if self.has_part else maps)
        return self.linear((maps * attention.detach().sigmoid() if self.has_part else maps).flatten(1))


@pytest.mark.parametrize("has_part", [False, True], ids=["auxiliary head", "detached attention"])
def test_grad_cam_is_of_the_last_maps_from_which_the_scores_have_a_gradient(has_part):
    torch.manual_seed(0)
    found, maps = explained(WithMapsBeside(has_part))
    assert any(" maps of second, 11x11," in method.told for method in found.methods)
    assert maps["Grad-CAM"].shape == (2, 11, 11)


class ConvolutionBeside(WithMapsBeside):
    """A network that is linear in the image, and whose only convolutions have no part in the scores."""

    def forward(self, images):
        super().forward(images)
        return images.flatten(1)[:, :10] / 255


def test_grad_cam_is_left_out_where_no_convolution_has_a_gradient():
    found, maps = explained(ConvolutionBeside(False))
    assert "Grad-CAM" not in maps
    assert found.left_out[0].startswith("Grad-CAM is left out: no convolution has a gradient")


@pytest.mark.parametrize("name", ["cnn", "resized", "ffn", "own"])
def test_explanations_are_deterministic_and_leave_the_network_as_it_is(name, recwarn):
    model = network(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first, second = explained_once(name)[1], explained(model)[1]
    assert all(np.array_equal(first[method], second[method]) for method in first)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert not recwarn.list


class Wants(Own):
    """A network that does with its bytes what `prepared` does."""

    def __init__(self, prepared):
        super().__init__()
        self.prepared = prepared

    def forward(self, images):
        return super().forward(self.prepared(images))


@pytest.mark.parametrize(
    ("prepared", "words"),
    [
        (lambda images: images.to(torch.uint8), "no finite gradient"),
        (lambda images: images.detach(), "no finite gradient"),
        (lambda images: images.bitwise_and(255), "as floats"),
        (lambda images: images if images.dtype == torch.uint8 else images / 0.5, "otherwise"),
    ],
)
def test_a_network_that_cannot_be_explained_is_refused_and_its_picture_left_out(prepared, words, tmp_path, capsys):
    torch.manual_seed(0)
    with pytest.raises(Refused, match=words):
        explanations.explain(Wants(prepared), IMAGE, [7, 2])
    assert album.draw_explanation(album.Album(tmp_path), Wants(prepared), "Net", Sample(IMAGE, "a")) is None
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("explanation.png is left out: Net: ")
    assert not any(tmp_path.iterdir())


def test_which_classes_are_explained():
    assert explanations.classes_to_explain(PROBABILITIES) == [2, 4]
    assert explanations.classes_to_explain(PROBABILITIES, 9) == [2, 4, 9]
    assert explanations.classes_to_explain(PROBABILITIES, 4) == [2, 4]
    assert explanations.classes_to_explain(np.full(10, 0.1)) == [0, 1]


@pytest.mark.parametrize(("asked", "number"), [(None, None), ("0", 0), ("t-shirt/TOP", 0), (" Bag ", 8), ("9", 9)])
def test_a_class_is_asked_for_by_name_or_number(asked, number):
    assert kernel_vis.class_number(asked, CLASSES) == number


@pytest.mark.parametrize("asked", ["10", "-1", "", "hat", "1.0"])
def test_a_class_that_is_not_there_is_refused(asked):
    with pytest.raises(Refused, match=r"--explain .*: the classes are T-shirt/top, .*Ankle boot, or their numbers"):
        kernel_vis.class_number(asked, CLASSES)


# The picture


def made_up(classes, methods):
    """An explanation of so many classes by so many methods."""
    maps = np.random.default_rng(0).normal(size=(methods, classes, 14, 14))
    shown = [explanations.Method(f"Method {n}", "what it shows " * 6, each) for n, each in enumerate(maps)]
    return explanations.Explanation([2, 4, 9][:classes], shown, np.array([0.01]), np.array([2.0]), ["b is left out"])


@pytest.mark.parametrize(("classes", "methods"), [(2, 4), (3, 4), (2, 3), (3, 1)])
def test_picture_is_whole_and_readable(classes, methods, tmp_path):
    found = made_up(classes, methods)
    check_picture(lambda path: figures.explanation(path, IMAGE, found, PROBABILITIES, "CNN"), tmp_path)


def test_each_method_has_one_scale_and_is_told_in_a_line(tmp_path, monkeypatch):
    found, scales = made_up(2, 4), []
    tile = figures.Board.tile
    monkeypatch.setattr(
        figures.Board, "tile", lambda *about: (scales.append(about[3] if len(about) > 3 else None), tile(*about))
    )
    with recorded() as boxes, tiles_laid() as tiles:
        figures.explanation(tmp_path / "e.png", IMAGE, found, PROBABILITIES, "CNN")
    words = " ".join(text.get_text() for text in boxes)
    assert [scale for scale in scales if scale] == [
        np.abs(method.maps).max() for method in found.methods for _ in range(2)
    ]
    assert [np.array_equal(image, IMAGE) for image, _ in tiles].count(True) == 2
    assert all(f"Method {n}: what it shows" in words for n in range(4))
    for said in ("Pullover\n50.0%", "Coat\n30.0%", "completeness error 0.01 of a change of score of 2 (0.50%)", "b is"):
        assert said in words


def test_the_album_draws_and_prints_the_explanation(tmp_path, capsys):
    torch.manual_seed(0)
    pages = album.Album(tmp_path, "cnn_")
    found = album.draw_explanation(pages, FFN([8]), "FFN", Sample(IMAGE, "test image 3, Bag"), 5)
    assert pages.pictures == [("FFN: explanation, test image 3, Bag", tmp_path / "cnn_explanation.png")]
    assert found.classes[2:] == [5]
    printed = capsys.readouterr().out
    assert f"integrated gradients: {found.completeness}" in printed
    assert "Grad-CAM is left out" in printed
