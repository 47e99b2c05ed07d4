"""How a network is named, imported and built; networks of the user's own; and what two networks differ in."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fashionmnist
from fmnist import config, data, options, trials, workers
from fmnist.checkpoints import Checkpoints, rebuild
from fmnist.config import Network, Recipe, TrainConfig, import_class
from fmnist.device import Machine
from fmnist.errors import Failed, Refused
from fmnist.trials import Trained
from recipes import RECIPES
from tests.helpers import tiny
from tests.test_training import equal, without_times

ROOT = Path(__file__).parents[1]


def by_name(recipe: Recipe) -> dict[str, Network]:
    return {network.name: network for network in recipe.networks}


FFN, CNN = RECIPES["classic"].networks
V0 = by_name(RECIPES["evolution"])["v0"]


# By its word


def test_a_network_is_imported_when_it_is_built():
    program = """
import sys, recipes
from fmnist import options, report
heavy = {"torch", "numpy", "pandas", "sklearn", "matplotlib", "ffn", "cnn", "numpy_ffn"}
print(heavy & sys.modules.keys())
recipes.RECIPES["classic"].networks[0].build()
print(heavy & sys.modules.keys() - {"torch", "numpy", "pandas", "sklearn"})
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["set()", "{'ffn'}"]


def test_a_class_is_found_by_module_and_name():
    import cnn

    assert import_class("cnn:CNN") is cnn.CNN
    with pytest.raises(Refused, match=r"cnn:VGG: there is no class VGG; cnn has .*ResNet18"):
        import_class("cnn:VGG")
    with pytest.raises(Refused, match="there is no class POOLS"):
        import_class("cnn:POOLS")


@pytest.mark.parametrize("network", [FFN, CNN], ids=["ffn", "cnn"])
def test_initial_weights_follow_from_the_seed_alone(network):
    first = network.build().state_dict()
    torch.rand(7)
    second, other = network.build().state_dict(), network.with_seed(1).build().state_dict()
    assert equal(first, second)
    assert not any(torch.equal(first[key], other[key]) for key in first if key.endswith("weight"))


def test_initial_weights_of_the_numpy_network_follow_from_the_seed_alone():
    first, second, other = (network.build().weights[0] for network in (V0, V0, V0.with_seed(1)))
    assert (first == second).all()
    assert (first != other).any()


def test_settings_are_all_that_training_follows_from():
    network = Network("cnn", "CNN", "cnn:CNN", {"kernels": [4]}, TrainConfig(seed=3))
    assert network.settings == {"network": {"class": "cnn:CNN", "kernels": [4]}, "training": vars(TrainConfig(seed=3))}
    assert network.run_name == "cnn-seed3"
    assert (network.is_torch, network.is_convolutional, network.is_users_own) == (True, True, False)
    assert (FFN.is_torch, FFN.is_convolutional) == (True, False)
    assert (V0.is_torch, V0.is_convolutional) == (False, False)


def test_an_argument_has_its_default_where_the_recipe_says_nothing():
    network = Network("cnn", "CNN", "cnn:CNN", {"pool": "avg"})
    assert (network.argument("pool"), network.argument("kernels"), network.argument("dropout")) == (
        "avg",
        [32, 64],
        0.25,
    )


# Networks of a recipe


def test_networks_differ_in_what_is_not_the_same_for_all():
    explicit = Network("explicit", "", "cnn:CNN", {"kernels": [32, 64], "dropout": 0.25})
    usual = Network("usual", "", "cnn:CNN", {}, TrainConfig(epochs=3, lr=0.1))
    recipe = Recipe("r", "", "", networks=(explicit, usual, Network("ffn", "", "ffn:FFN", {"dropout": 0.9})))
    assert recipe.differs_in("lr")
    assert not recipe.differs_in("epochs")
    for name in ("kernels", "dropout", "pool", "hidden", "batch_size"):  # as good as said; of another class; of none
        assert not recipe.differs_in(name)


def test_pairs_to_compare():
    assert RECIPES["evolution"].pairs == [("v0", "v1"), ("v1", "v2"), ("v2", "v3")]
    assert options.changed(RECIPES["evolution"], {"models": ["v3", "v1"]}).pairs == [("v1", "v3")]
    assert RECIPES["explore"].pairs == []
    based = Recipe("r", "", "", networks=tuple(Network(n, "", "ffn:FFN") for n in "abc"), baseline="b")
    assert based.pairs == [("b", "a"), ("b", "c")]


def test_seeds_count_up_from_the_networks_own():
    recipe = options.changed(RECIPES["classic"], {"seed": 5})
    assert [network.run_name for network in recipe.trainings(2)] == ["ffn-seed5", "ffn-seed6", "cnn-seed5", "cnn-seed6"]


# A network of the user's own

NET = """
import torch
from torch import nn
from fmnist.layers import Pixels

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(Pixels(), nn.Conv2d(1, 4, 5, stride=4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(),
                                    nn.Linear(4 * 36, 10))

    def forward(self, images):
        return self.layers(images)
"""
BAD = {
    "no such file": (None, "there is no such file"),
    "syntax error": ("class Net(:\n", "SyntaxError"),
    "error on import": ("raise RuntimeError('told\\nyou')", "cannot be imported (RuntimeError: told you)"),
    "exit on import": ("import sys\nsys.exit()", "cannot be imported (SystemExit)"),
    "missing import": ("import no_such_library", "No module named 'no_such_library'"),
    "no such class": ("class Nett: pass\nx = 3", "there is no class Net; my_net.py has Nett"),
    "no class": ("Net = 3", "there is no class Net"),
    "no network": ("class Net: pass", "is no torch.nn.Module"),
    "needs arguments": (NET.replace("__init__(self):", "__init__(self, units):"), "cannot be built (TypeError: "),
    "error in constructor": (NET.replace("4 * 36", "-1"), "cannot be built ("),
    "value error": (NET.replace("super().__init__()", "raise ValueError('odd')"), "cannot be built (ValueError: odd)"),
    "float input": (NET.replace("Pixels(), ", ""), "let fmnist.layers.Pixels be its first stage"),
    "one image is none": (NET.replace("self.layers(images)", "self.layers(images).squeeze()"), "is not the logits"),
    "no gradient": (NET.replace("self.layers(images)", "self.layers(images).detach()"), "leave out no_grad and detach"),
    "eleven classes": (NET.replace("36, 10", "36, 11"), "its output is not the logits of ten classes, [B, 10]"),
    "two outputs": (NET.replace("self.layers(images)", "2 * (self.layers(images),)"), "is not the logits"),
    "no weights": (NET.replace("self.layers(images)", "images.flatten(1)[:, :10].float()").replace(
        "self.layers = ", "layers = "), "has no weights to train"),
    "frozen": (NET.replace("def forward", "    self.requires_grad_(False)\n\n    def forward"), "has no weights"),
    "lazy": (NET.replace("nn.Linear(4 * 36, 10)", "nn.LazyLinear(10)"), "has lazy layers; write their sizes out"),
}  # fmt: skip


def own(folder: Path, content: str | None = NET, recipe: str = "classic", **asked) -> Recipe:
    """A recipe whose networks are replaced by that of a file."""
    path = folder / "my_net.py"
    if content is not None:
        path.write_text(content)
    return options.changed(RECIPES[recipe], {"network": f"{path}:Net", **asked})


@pytest.mark.parametrize(("content", "words"), BAD.values(), ids=BAD)
def test_a_file_that_holds_no_network_is_refused_in_one_line(content, words, tmp_path):
    with pytest.raises(Refused) as caught:
        own(tmp_path, content).checked()
    assert "my_net.py" in str(caught.value)
    assert words in str(caught.value).replace(f"{tmp_path}/", "")
    assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read_is_refused_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "my_net.py").write_text(NET)

    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(Refused, match=r"my_net.py: cannot be imported \(PermissionError"):
        own(tmp_path, content=None).checked()


def test_what_a_network_draws_besides_its_weights_is_the_same_whenever_it_is_built(tmp_path):
    (network,) = own(
        tmp_path, NET.replace("super().__init__()", "super().__init__(); self.fixed = torch.randn(9)")
    ).networks
    fixed = network.build().fixed
    torch.rand(5)
    assert torch.equal(network.outline().fixed, fixed)


@pytest.mark.parametrize("word", ["my_net.py", "my_net:Net", "my_net.py:", "my_net.py:a b", ":Net", "os:system", ""])
def test_a_network_is_named_by_file_and_class(word):
    with pytest.raises(Refused, match=r"--network .*name a file and a class in it, as in my_net\.py:Net"):
        options.changed(RECIPES["classic"], {"network": word})


def test_a_network_of_ones_own_takes_the_place_of_the_recipes(tmp_path):
    recipe = own(tmp_path, recipe="evolution", epochs=2).checked()
    (network,) = recipe.networks
    assert (network.name, network.title, network.is_users_own, network.is_convolutional) == ("net", "Net", True, True)
    last = {"validation": 0.1, "select_best": False}
    assert network.training == TrainConfig(epochs=2, optimizer="adamw", lr=3e-4, weight_decay=0.01, **last)
    assert network.published == {}
    assert recipe.pairs == []


def test_the_settings_tell_when_its_file_has_changed(tmp_path):
    (network,) = own(tmp_path).networks
    digest = hashlib.sha256(NET.encode()).hexdigest()
    assert network.settings["network"] == {"class": "my_net.py:Net", "sha256": digest}
    (tmp_path / "my_net.py").write_text(NET + "# changed\n")
    assert network.settings["network"]["sha256"] == digest  # in this process, which has imported what was there
    config._digest.cache_clear()
    assert network.settings["network"]["sha256"] != digest


def test_its_file_may_import_its_neighbours_and_options_reach_its_arguments(tmp_path):
    (tmp_path / "neighbour_of_net.py").write_text("WIDTH = 144\n")
    content = NET.replace("4 * 36", "WIDTH").replace("__init__(self)", "__init__(self, dropout=0.2)")
    content = content.replace("Dropout(0.2)", "Dropout(dropout)") + "\nfrom neighbour_of_net import WIDTH\n"
    path = list(sys.path)
    (network,) = own(tmp_path, content, dropout=0.7).checked().networks
    assert network.build().layers[3].p == 0.7
    assert sys.path == path
    with pytest.raises(Refused, match="--kernels"):
        own(tmp_path, content, kernels=[3])


@pytest.mark.parametrize("is_imported", [False, True])
@pytest.mark.parametrize("neighbour", ["cnn.py", "cnn/__init__.py"])
def test_a_neighbour_called_like_a_file_of_this_program_is_not_taken_for_that(is_imported, neighbour, tmp_path):
    import cnn

    (tmp_path / neighbour).parent.mkdir(exist_ok=True)
    (tmp_path / neighbour).write_text("WIDTH = 144\n")
    if not is_imported:
        del sys.modules["cnn"]
    try:
        own(tmp_path, NET.replace("4 * 36", "WIDTH") + "\nfrom cnn import WIDTH\n").checked()
        assert config.import_class("cnn:CNN").__name__ == "CNN"
        assert (config.import_class("cnn:CNN") is cnn.CNN) == is_imported
    finally:
        sys.modules["cnn"] = cnn


@pytest.mark.parametrize("mode", ["self.training", "not self.training"])
def test_what_goes_wrong_in_a_network_of_ones_own_is_said_in_one_line_and_ends_no_other_trial(mode, tmp_path):
    content = NET.replace(
        "return self",
        f"if {mode} and len(images) > 2 and torch.initial_seed() % 2: raise KeyError('a')\n        return self",
    )
    recipe = own(tmp_path, "import torch\n" + content, epochs=1).checked()
    made = [torch.from_numpy(array) for array in tiny.make(train=120, test=40)]
    dataset = data.FashionMNIST(made[0], made[1].long(), made[2], made[3].long(), "made up")
    planned = trials.plan(recipe, 2, dataset, Machine(torch.device("cpu"), "fp32"), tmp_path / "checkpoints")
    with pytest.raises(
        Failed, match=r"1 of 2 trials failed, net-seed0 first \(.*my_net.py:Net: cannot be trained \(KeyError: 'a'\)"
    ):
        workers.train_all(planned, dataset, {}, tmp_path)
    assert [trial.is_finished() for trial in planned] == [False, True]


class Stop(BaseException):
    pass


def trained(recipe: Recipe, folder: Path) -> tuple[trials.Trial, Trained]:
    """Train the one network of `recipe`, or what is left of its training."""
    made = [torch.from_numpy(array) for array in tiny.make(train=120, test=40)]
    dataset = data.FashionMNIST(made[0], made[1].long(), made[2], made[3].long(), "made up")
    (trial,) = trials.plan(recipe, 1, dataset, Machine(torch.device("cpu"), "bf16"), folder)
    trials.train(trial, dataset)
    return trial, trials.read(trial, made[2].numpy())


def test_a_network_of_ones_own_is_trained_stopped_resumed_and_rebuilt(tmp_path, monkeypatch):
    recipe = own(tmp_path, epochs=3, lr=0.01)
    whole, unbroken = trained(recipe, tmp_path / "whole")
    save = Checkpoints.save

    def stops(self: Checkpoints, epoch: int, *state) -> None:
        save(self, epoch, *state)
        if epoch == 2:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", stops)
        with pytest.raises(Stop):
            trained(recipe, tmp_path / "parts")
    trial, resumed = trained(recipe, tmp_path / "parts")
    assert without_times(resumed.history) == without_times(unbroken.history)
    assert resumed.evaluation.test_loss == unbroken.evaluation.test_loss
    assert unbroken.evaluation.test_accuracy > 0.3
    assert unbroken.cost == {"parameters": 4 * 26 + 1450, "multiply_adds": 36 * 25 * 4 + 1440}

    fashionmnist.keep_weights([trial], tmp_path)
    model, content = rebuild(tmp_path / "net.pth", [options.users_own(f"{tmp_path}/my_net.py:Net")])
    assert content["title"] == "Net"
    assert equal(model.state_dict(), trials.weights(whole))
