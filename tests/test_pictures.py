"""fmnist/figures/album.py: which pictures are drawn, and of what. How they look is tested in test_figures.py."""

import json

import numpy as np
import pytest
import torch

from cnn import CNN
from ffn import FFN
from fmnist.data import CLASSES, FashionMNIST, Sample
from fmnist.errors import Refused
from fmnist.exploration import explore
from fmnist.figures import album
from fmnist.photograph import Step
from fmnist.report import REFERENCE
from recipes import RECIPES
from tests.helpers.figure_checks import CALIBRATION, IMAGES, MISTAKES, PREDICTIONS

OF_EACH = {"loss", "confusion", "examples", "correct", "incorrect"}
LAYERS = {"kernels_grid.png", "features_grid.png", "progression.png"}


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """An album that draws nothing; `asked` of it is what each picture is to be drawn of, by file name."""
    pages = album.Album(tmp_path)
    pages.asked = {}
    add = lambda self, file, title, figure, *what, **how: pages.asked.update({file: (title, what, how)})  # noqa: E731
    monkeypatch.setattr(album.Album, "add", add)
    return pages


def metrics(name):
    return json.loads((REFERENCE / name / "metrics.json").read_text())


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("classic", set()),
        ("resnet", {"cost.png"}),
        ("evolution", {"gains.png", "model_comparison.png", "accuracy_comparison.png"}),
        ("choices", {"model_comparison.png", "accuracy_comparison.png"}),
    ],
)
def test_each_recipe_has_its_pictures(asked, name, files):
    content = metrics(name)
    album.draw_models(asked, RECIPES[name].figures, content, dict.fromkeys(content["models"], PREDICTIONS))
    own = {f"{model}_{kind}.png" for model in content["models"] for kind in OF_EACH}
    own |= {f"{name}_reliability.png" for name, model in content["models"].items() if "calibration" in model}
    assert asked.asked.keys() == {"loss_curves.png", "accuracy_curves.png"} | files | own
    assert asked.asked["loss_curves.png"][2] == {"by_step": name == "evolution"}


def test_a_picture_of_one_seed_says_which(asked):
    content = metrics("classic")
    content["models"]["cnn"]["seeds"] = [{"seed": 7 + n} for n in range(5)]
    album.draw_models(asked, (), content, {"cnn": PREDICTIONS})
    titles = {file: title for file, (title, *_) in asked.asked.items()}
    assert titles["cnn_confusion.png"] == "CNN: confusion matrix (seed 7 of 5)"
    of_one_seed = {file for file, title in titles.items() if title.endswith("(seed 7 of 5)")}
    assert of_one_seed == {f"cnn_{kind}.png" for kind in OF_EACH - {"loss"}}


def test_reliability_is_drawn_where_it_was_measured(asked):
    content = metrics("classic")
    content["models"]["cnn"]["calibration"] = CALIBRATION
    album.draw_models(asked, (), content, dict.fromkeys(content["models"], PREDICTIONS))
    assert {file for file in asked.asked if "reliability" in file} == {"cnn_reliability.png"}
    assert asked.asked["cnn_reliability.png"][1] == (CALIBRATION,)


def test_mistakes_are_drawn_where_labels_were_judged(asked):
    content = metrics("classic")
    content["models"]["cnn"]["mistakes"] = MISTAKES
    album.draw_models(asked, (), content, dict.fromkeys(content["models"], PREDICTIONS))
    assert {file for file in asked.asked if "mistakes" in file} == {"cnn_mistakes.png"}
    assert asked.asked["cnn_mistakes.png"][1] == (PREDICTIONS, MISTAKES)


def test_a_figure_that_is_not_there_is_an_error(asked):
    with pytest.raises(ValueError, match="piechart"):
        album.draw_models(asked, ("piechart",), metrics("classic"), {})


def test_which_networks_show_their_layers():
    convolutional = ["v1", "v2"]
    assert album.networks_to_look_into(("layers",), convolutional, "v2") == ["v1", "v2"]
    assert album.networks_to_look_into(("best layers",), convolutional, "v2") == ["v2"]
    assert album.networks_to_look_into(("best layers",), convolutional, "v0") == []
    assert album.networks_to_look_into(("cost",), convolutional, "v2") == []


def test_a_picture_that_is_open_elsewhere_is_named_and_the_others_are_drawn(tmp_path, capsys):
    def draw(path, title):
        if path.name == "open.png":
            raise PermissionError(13, "it is used by another process", str(path))
        path.write_text(title)

    pages = album.Album(tmp_path)
    pages.add("open.png", "first", draw)
    pages.add("free.png", "second", draw)
    assert pages.pictures == [("second", tmp_path / "free.png")]
    (line,) = capsys.readouterr().out.splitlines()
    assert str(tmp_path / "open.png") in line


def test_the_data_set_is_drawn_where_classes_are_missing_too(tmp_path):
    few = torch.from_numpy(IMAGES[:20]), torch.tensor([3, 9] * 10)
    dataset = FashionMNIST(*few, *few, source="made up")
    pages = album.Album(tmp_path)
    album.draw_dataset(pages, explore(dataset), dataset)
    names = {"class_counts", "samples", "class_means", "pixel_histogram", "class_statistics", "look_alikes"}
    assert {path.stem for _, path in pages.pictures} == names == {path.stem for path in tmp_path.iterdir()}


# The layers of one network


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return CNN([4, 6])


def test_layers_are_drawn_under_the_networks_title_and_files_prefix(network, tmp_path):
    pages = album.Album(tmp_path, prefix="cnn_")
    probabilities = album.draw_layers(pages, network, "CNN", Sample(IMAGES[0], "test image 0, Bag"))
    assert {path.name for path in tmp_path.iterdir()} == {f"cnn_{name}" for name in LAYERS}
    assert dict(pages.pictures).keys() == {
        "CNN: kernels of features.conv1",
        "CNN: feature maps of features.conv1, test image 0, Bag",
        "CNN: activations by layer, test image 0, Bag",
    }
    assert probabilities.shape == (len(CLASSES),)
    assert probabilities.sum() == pytest.approx(1)


@pytest.fixture
def shown(monkeypatch, network, tmp_path):
    """Shows the network a photograph, whose picture holds `content`, and returns the titles and files of the album."""
    for figure in ("kernels_grid", "features_grid", "progression"):
        monkeypatch.setattr(album.layers, figure, lambda *_, **__: None)

    def show(file, content):
        def draw(path, *_, title):
            if content is None:
                raise PermissionError(13, "it is used by another process", str(path))
            path.write_text(content)

        monkeypatch.setattr(album.layers, "photograph", draw)
        pages = album.Album(tmp_path)
        sample = Sample(IMAGES[0], file, (Step("what was found", IMAGES[1]),))
        album.draw_photograph(pages, "CNN", sample, album.draw_layers(pages, network, "CNN", sample), None)
        return [(title, path.name) for title, path in pages.pictures]

    return show


def test_photographs_do_not_overwrite_each_other(shown, tmp_path):
    listed = shown("shirt.jpg", "a shirt")
    assert listed[-1] == ("shirt.jpg: prediction of CNN", "photograph.png")
    assert [name for _, name in listed].count("photograph.png") == 1
    for file, content in (
        ("shirt.jpg", "a shirt of another folder"),
        ("shirt.jpg", "a third shirt"),
        ("shirt.jpg", "a shirt of another folder"),
        ("shirt.png", "a drawn shirt"),
        ("b.b.png", "a boot"),
        ("ö" * 120 + ".jpg", "umlauts"),
        ("a." + "x" * 250, "no ending"),
    ):
        shown(file, content)
        assert (tmp_path / "photograph.png").read_text() == content
    kept = {path.name: path.read_text() for path in tmp_path.iterdir() if path.name != "photograph.png"}
    assert kept == {
        "photograph_shirt.jpg.png": "a shirt",
        "photograph_shirt.jpg_2.png": "a shirt of another folder",
        "photograph_shirt.jpg_3.png": "a third shirt",
        "photograph_shirt.png.png": "a drawn shirt",
        "photograph_b.b.png.png": "a boot",
        f"photograph_{'ö' * 46}.jpg.png": "umlauts",
        f"photograph_a.{'x' * 9}.png": "no ending",
    }


def test_of_a_photograph_that_could_not_be_drawn_nothing_is_kept(shown, tmp_path):
    shown("shirt.jpg", "a shirt")
    listed = shown("boot.jpg", None)
    assert not [name for _, name in listed if name.startswith("photograph")]
    assert {path.name for path in tmp_path.iterdir()} == {"photograph.png", "photograph_shirt.jpg.png"}


@pytest.mark.parametrize(
    ("layer", "kernels_of", "own"),
    [(None, "conv1", True), ("features.conv2", "conv2", True), ("features.pool2", "conv2", False)],
)
def test_maps_stand_with_the_kernels_they_come_from(asked, network, layer, kernels_of, own):
    album.draw_layers(asked, network, "CNN", Sample(IMAGES[0], "sample"), layer)
    weight = network.get_submodule(f"features.{kernels_of}").weight.detach().numpy()
    (kernels,) = asked.asked["kernels_grid.png"][1]
    sample, maps, beside = asked.asked["features_grid.png"][1]
    assert np.array_equal(kernels, weight)
    assert np.array_equal(sample, IMAGES[0])
    assert len(maps) == len(weight)
    assert np.array_equal(beside, weight.mean(axis=1)) if own else beside is None


def test_a_photograph_is_drawn_with_what_makes_it_and_the_answer_doubtful(asked):
    sample = Sample(IMAGES[0], "a.png", (Step("what was found", IMAGES[1]),), "it hardly stands out")
    album.draw_photograph(asked, "FFN", sample, np.full(10, 0.1), "uncertain")
    steps, probabilities, remarks = asked.asked["photograph.png"][1]
    assert (steps, remarks) == (sample.steps, ["it hardly stands out", "uncertain"])
    assert probabilities.sum() == pytest.approx(1)


def test_of_a_network_without_convolutions_no_layers_are_drawn(asked, capsys):
    probabilities = album.draw_layers(asked, FFN([4]), "FFN", Sample(IMAGES[0], "a.png"))
    assert probabilities.sum() == pytest.approx(1)
    assert not asked.asked
    assert "FFN has no convolution: kernels_grid.png, " in capsys.readouterr().out


def test_a_layer_or_a_convolution_that_is_not_there_is_refused(asked, network):
    sample = Sample(IMAGES[0], "sample")
    with pytest.raises(Refused, match=r"--layer conv9: CNN has pixels, features\.conv1, .*features\.conv2"):
        album.draw_layers(asked, network, "CNN", sample, "conv9")
    with pytest.raises(Refused, match="FFN has no convolution"):
        album.draw_layers(asked, FFN([4]), "FFN", sample, "linear1")
