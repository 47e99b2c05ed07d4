"""The recipes: what is published of them, and that every option is honoured or refused in words."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fmnist.config import TrainConfig
from fmnist.errors import Refused
from recipes import RECIPES, Network, Recipe, rebuild, with_options

ROOT = Path(__file__).parents[1]


def by_name(recipe: Recipe) -> dict[str, Network]:
    return {network.name: network for network in recipe.networks}


def refusal(name: str, **options) -> str:
    with pytest.raises(Refused) as caught:
        with_options(RECIPES[name], options).checked()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What the recipes are


def test_the_recipes_and_their_networks():
    assert {name: list(by_name(recipe)) for name, recipe in RECIPES.items()} == {
        "classic": ["ffn", "cnn"],
        "speedrun": ["ffn", "cnn"],
        "batchnorm": ["ffn", "cnn"],
        "resnet": ["cnn", "resnet18"],
        "evolution": ["v0", "v1", "v2", "v3"],
        "choices": ["relu", "leaky_relu", "strided", "sgd"],
        "explore": [],
    }
    assert all(name == recipe.name for name, recipe in RECIPES.items())


def test_the_published_test_accuracies():
    published = {
        (recipe.name, network.name): network.published["test_accuracy"]
        for recipe in RECIPES.values()
        for network in recipe.networks
        if "test_accuracy" in network.published
    }
    assert published == {
        ("classic", "ffn"): 0.8836,
        ("classic", "cnn"): 0.9147,
        ("speedrun", "ffn"): 0.8836,
        ("speedrun", "cnn"): 0.9147,
        ("resnet", "cnn"): 0.9134,
        ("resnet", "resnet18"): 0.8947,
        ("evolution", "v0"): 0.8748,
        ("evolution", "v1"): 0.9173,
        ("evolution", "v2"): 0.9254,
        ("evolution", "v3"): 0.9319,
    }


def test_the_published_mean_accuracy_is_that_of_the_pooled_images():
    for network in RECIPES["classic"].networks:
        published = network.published
        pooled = (10_000 * published["test_accuracy"] + 2_000 * published["train_subset_accuracy"]) / 12_000
        assert published["mean_accuracy"] == pytest.approx(pooled, abs=5e-5)


def test_speedrun_trains_the_networks_of_classic_without_dropout_in_few_epochs():
    classic, speedrun = by_name(RECIPES["classic"]), by_name(RECIPES["speedrun"])
    for name, network in speedrun.items():
        theirs = {key: value for key, value in classic[name].arguments.items() if key != "dropout"}
        assert network.arguments == {**theirs, "dropout": 0.0}
        assert network.training.epochs < classic[name].training.epochs / 4


def test_training_settings_are_those_of_the_authors():
    classic, batchnorm, resnet = (by_name(RECIPES[name]) for name in ("classic", "batchnorm", "resnet"))
    for network in classic.values():
        settings = network.training
        assert (settings.optimizer, settings.lr, settings.batch_size, settings.epochs) == ("adam", 1e-3, 64, 20)
    assert batchnorm["ffn"].training == TrainConfig(epochs=15, batch_size=32, lr=1e-3, schedule="plateau")
    assert batchnorm["cnn"].training == TrainConfig(epochs=12, batch_size=32, lr=3e-3, schedule="plateau")
    assert resnet["cnn"].training == TrainConfig(epochs=5, batch_size=64, lr=1.0, optimizer="adadelta")
    assert resnet["resnet18"].training == TrainConfig(epochs=5, batch_size=64, lr=1e-4, optimizer="adam")
    for version in ("v1", "v2", "v3"):
        settings = by_name(RECIPES["evolution"])[version].training
        assert (settings.optimizer, settings.lr, settings.batch_size) == ("adamw", 3e-4, 64)
        assert (settings.epochs, settings.validation) == (10, 0.1)


def test_every_network_can_be_built():
    for recipe in RECIPES.values():
        assert recipe.checked() is recipe


def test_pairs_to_compare():
    assert RECIPES["evolution"].pairs == [("v0", "v1"), ("v1", "v2"), ("v2", "v3")]
    assert RECIPES["choices"].pairs == [("relu", "leaky_relu"), ("relu", "strided"), ("relu", "sgd")]
    assert RECIPES["explore"].pairs == []
    assert with_options(RECIPES["evolution"], {"models": ["v3", "v1"]}).pairs == [("v1", "v3")]


def test_seeds_count_up_from_the_networks_own():
    recipe = with_options(RECIPES["classic"], {"seed": 5})
    assert [network.run_name for network in recipe.trainings(2)] == ["ffn-seed5", "ffn-seed6", "cnn-seed5", "cnn-seed6"]


@pytest.mark.parametrize("name", ["ffn", "cnn"])
def test_initial_weights_follow_from_the_seed_alone(name):
    network = by_name(RECIPES["classic"])[name]
    first = network.build().state_dict()
    torch.rand(7)
    second, other = network.build().state_dict(), network.with_seed(1).build().state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first if key.endswith("weight"))


def test_initial_weights_of_the_numpy_network_follow_from_the_seed_alone():
    v0 = by_name(RECIPES["evolution"])["v0"]
    first, second, other = (network.build().weights[0] for network in (v0, v0, v0.with_seed(1)))
    assert (first == second).all()
    assert (first != other).any()


def test_importing_recipes_imports_no_torch():
    program = "import sys, recipes; sys.exit(any(m in sys.modules for m in ('torch', 'pandas', 'matplotlib')))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


# Options honoured


def test_training_options_reach_every_network():
    options = {"epochs": 2, "batch_size": 256, "lr": 3e-3, "seed": 7, "optimizer": "sgd", "validation": 0.25}
    for network in with_options(RECIPES["resnet"], options).networks:
        training = network.training
        assert {name: getattr(training, name) for name in options} == options
    untouched = by_name(RECIPES["resnet"])["cnn"].training
    assert untouched == TrainConfig(epochs=5, optimizer="adadelta", lr=1.0)


def test_network_options_reach_the_networks_that_have_them():
    changed = by_name(with_options(RECIPES["classic"], {"hidden": [512, 256], "kernels": [16, 32, 64], "dropout": 0.1}))
    assert changed["ffn"].arguments == {"hidden": [512, 256], "dropout": 0.1}
    assert changed["cnn"].arguments["kernels"] == [16, 32, 64]
    assert changed["cnn"].arguments["dropout"] == 0.1
    assert [layer.out_features for layer in changed["ffn"].build() if hasattr(layer, "out_features")] == [512, 256, 10]


def test_options_shape_the_network_that_is_built():
    cnn = by_name(with_options(RECIPES["classic"], {"kernels": [16, 32, 64], "kernel_size": 5, "pool": "avg"}))["cnn"]
    model = cnn.build()
    assert [tuple(model.features.get_submodule(f"conv{n}").weight.shape) for n in (1, 2, 3)] == [
        (16, 1, 5, 5),
        (32, 16, 5, 5),
        (64, 32, 5, 5),
    ]
    assert isinstance(model.features.pool1, torch.nn.AvgPool2d)
    assert model.classifier.linear1.in_features == 64 * 3 * 3
    ffn = by_name(with_options(RECIPES["evolution"], {"hidden": [50]}))["v0"].build()
    assert [weight.shape for weight in ffn.weights] == [(784, 50), (50, 10)]


def test_models_chooses_and_keeps_the_recipes_order():
    assert list(by_name(with_options(RECIPES["evolution"], {"models": ["v3", "v0"]}))) == ["v0", "v3"]


def test_a_change_is_told_only_beside_what_it_changed():
    def told(recipe, *names):
        return [
            name
            for name, network in by_name(with_options(RECIPES[recipe], {"models": names})).items()
            if network.change
        ]

    assert told("evolution", "v0", "v1", "v3") == ["v0", "v1"]  # v3 against v1 is two changes
    assert told("evolution", "v2", "v3") == ["v2", "v3"]
    assert told("choices", "leaky_relu", "sgd") == ["leaky_relu"]
    assert told("choices", "relu", "sgd") == ["sgd"]


def test_options_of_ones_own_are_noted_beside_what_is_published():
    (note,) = with_options(RECIPES["classic"], {"epochs": 2, "seed": 3, "device": "cpu"}).notes
    assert "epochs 2" in note
    assert "seed" not in note
    assert with_options(RECIPES["classic"], {"seed": 3, "models": ["cnn"]}).notes == ()


@pytest.mark.parametrize("options", [{"epochs": 1}, {"models": ["v0"]}])
def test_what_whole_runs_have_found_is_not_said_of_another_experiment(options):
    recipe = RECIPES["evolution"]
    assert recipe.findings
    assert set(recipe.findings) <= set(with_options(recipe, {"seed": 3}).notes)
    assert not set(recipe.findings) & set(with_options(recipe, options).notes)


# Options refused


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("classic", {"models": ["v1", "cnn"]}, ["--models v1", "classic", "ffn, cnn"]),
        ("explore", {"models": ["cnn"]}, ["--models cnn", "explore", "it trains none"]),
        ("explore", {"epochs": 3}, ["--epochs", "explore trains no network"]),
        ("explore", {"kernels": [8]}, ["--kernels", "explore"]),
        ("choices", {"pool": "avg"}, ["--pool", "choices compares", "--models"]),
        ("choices", {"optimizer": "sgd"}, ["--optimizer", "choices compares", "--models"]),
        ("choices", {"hidden": [64]}, ["--hidden", "choices"]),
        ("evolution", {"optimizer": "adam"}, ["--optimizer", "SGD", "--models"]),
        ("evolution", {"kernels": [8, 8, 8]}, ["v1", "2 convolutions, not for 3", "--kernels"]),
        ("classic", {"models": ["ffn"], "kernel_size": 5}, ["--kernel-size", "classic"]),
        ("classic", {"kernels": [8] * 5}, ["cnn", "shrink to nothing", "--kernels"]),
        ("resnet", {"models": ["resnet18"], "dropout": 0.1}, ["--dropout", "resnet"]),
        ("evolution", {"models": ["v0"], "precision": "bf16"}, ["--precision bf16", "NumPy"]),
        ("evolution", {"models": ["v0"], "device": "cuda"}, ["--device cuda", "NumPy"]),
    ],
)
def test_an_option_that_a_recipe_cannot_honour_is_refused(name, options, words):
    message = refusal(name, **options)
    for word in words:
        assert word in message


def test_an_optimizer_is_honoured_where_the_numpy_network_is_left_out():
    changed = with_options(RECIPES["evolution"], {"models": ["v1"], "optimizer": "adam"})
    assert by_name(changed)["v1"].training.optimizer == "adam"


# From a weights file


def weights_of(network: Network) -> dict:
    return {"model": network.name, "config": network.settings, "state_dict": dict(network.build().state_dict())}


SMALL = Network("cnn", "CNN", "CNN", {"kernels": [3, 4], "pool": "stride", "norm": "after", "dense": [5]})


def test_a_network_is_rebuilt_from_its_weights_file():
    content = weights_of(SMALL)
    model = rebuild(content, "cnn.pth")
    x = torch.randn(3, 1, 28, 28)
    original = SMALL.build()
    assert torch.equal(model.eval()(x), original.eval()(x))
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())


def test_resnet18_is_rebuilt_from_its_weights_file():
    content = weights_of(by_name(RECIPES["resnet"])["resnet18"])
    model = rebuild(content, "resnet18.pth").eval()
    assert model(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


@pytest.mark.parametrize(
    "network",
    [
        {},
        {"kind": "VGG"},
        {"kind": ["CNN"]},
        {"kind": "CNN", "kernels": "many"},
        {"kind": "CNN", "kernels": [4] * 5},
        {"kind": "CNN", "kernels": [-4]},
        {"kind": "CNN", "colour": "red"},
        {"kind": "CNN", "pool": "median"},
        {"kind": "FFN", "hidden": [10**30]},
        {"kind": "FFN", "hidden": None},
        None,
        7,
    ],
    ids=str,
)
def test_a_weights_file_that_describes_no_network_is_refused(network):
    with pytest.raises(Refused, match=r"cnn\.pth describes no PyTorch network"):
        rebuild({"model": "cnn", "config": {"network": network}, "state_dict": {}}, "cnn.pth")


def test_a_learner_that_the_numpy_network_cannot_have_is_an_error():
    v0 = by_name(RECIPES["evolution"])["v0"]
    adam = replace(v0, training=replace(v0.training, optimizer="adam"))
    with pytest.raises(ValueError, match="SGD"):
        adam.learner(torch.device("cpu"), "fp32", 100)
