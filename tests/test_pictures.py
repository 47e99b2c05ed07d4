"""fmnist/figures/album.py: which pictures are drawn, of which numbers. How they look is tested in test_figures.py."""

import json

import pytest
import torch

from fmnist.data import FashionMNIST
from fmnist.figures import album
from recipes import RECIPES, REFERENCE

NOTHING = FashionMNIST(*4 * [torch.empty(0)], source="nowhere")


@pytest.fixture
def draw(monkeypatch, tmp_path):
    """Draw of a recipe's numbers; return what each picture is to be drawn from, by file name."""

    def draw(name, numbers):
        asked = {}
        monkeypatch.setattr(album.Album, "add", lambda _, file, *what, **how: asked.update({file: (what[2:], how)}))
        album.draw_models(RECIPES[name].figures, numbers, {}, NOTHING, tmp_path)
        return asked

    return draw


def numbers(name):
    return json.loads((REFERENCE / name / "metrics.json").read_text())


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("classic", set()),
        ("resnet", {"cost.png"}),
        ("evolution", {"gains.png", "model_comparison.png"}),
        ("choices", {"model_comparison.png"}),
    ],
)
def test_each_recipe_has_its_pictures_of_all_networks(draw, name, files):
    assert draw(name, numbers(name)).keys() == {"loss_curves.png", "accuracy_curves.png"} | files


def test_steps_are_drawn_where_a_recipe_asks_for_them(draw):
    assert draw("evolution", numbers("evolution"))["loss_curves.png"][1]["steps_per_epoch"]["v1"] == 844
    assert draw("classic", numbers("classic"))["loss_curves.png"][1]["steps_per_epoch"] is None


def test_of_several_seeds_the_means_are_drawn(draw):
    resnet, evolution = numbers("resnet"), numbers("evolution")
    for model in (resnet["models"]["cnn"], evolution["models"]["v1"]):
        model["mean"] = model | {"test_accuracy": 0.5, "seconds_per_epoch": 3.0}
    ((rows,), _) = draw("resnet", resnet)["cost.png"]
    cnn, resnet18 = rows
    assert (cnn["test_accuracy"], cnn["seconds"]) == (0.5, 3.0)
    assert resnet18["test_accuracy"] == resnet["models"]["resnet18"]["test_accuracy"]
    assert draw("evolution", evolution)["gains.png"][0][1][1] == 0.5


def test_which_networks_show_their_layers():
    convolutional = ["v1", "v2"]
    assert album.networks_to_look_into(("layers",), convolutional, "v2") == ["v1", "v2"]
    assert album.networks_to_look_into(("best layers",), convolutional, "v2") == ["v2"]
    assert album.networks_to_look_into(("best layers",), convolutional, "v0") == []
    assert album.networks_to_look_into(("cost",), convolutional, "v2") == []
