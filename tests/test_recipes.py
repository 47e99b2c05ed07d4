"""The recipes: what their authors report, and that every network is built, exported and described as it is."""

import re
import warnings
from dataclasses import fields

import pytest
import torch
from torch import nn
from torchvision.transforms.functional import resize

from cnn import CNN, ResNet18
from ffn import FFN
from fmnist.config import WITHOUT_TORCH, Network, Recipe, TrainConfig
from recipes import RECIPES


def by_name(recipe: str) -> dict[str, Network]:
    return {network.name: network for network in RECIPES[recipe].networks}


# What is published


def test_the_recipes_and_their_networks():
    assert {name: list(by_name(name)) for name in RECIPES} == {
        "classic": ["ffn", "cnn"],
        "speedrun": ["ffn", "cnn"],
        "batchnorm": ["ffn", "cnn"],
        "resnet": ["cnn", "resnet18"],
        "evolution": ["v0", "v1", "v2", "v3"],
        "choices": [
            *("relu_max_adam", "relu_max_sgd", "relu_stride_adam", "relu_stride_sgd"),
            *("leaky_relu_max_adam", "leaky_relu_max_sgd", "leaky_relu_stride_adam", "leaky_relu_stride_sgd"),
        ],
        "record": ["cnn"],
        "record-small": ["cnn"],
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


def test_every_recipe_of_networks_names_its_source():
    ours = {"record", "record-small"}
    assert all(bool(recipe.source) == bool(recipe.networks) for name, recipe in RECIPES.items() if name not in ours)
    assert not any(RECIPES[name].source or network.published for name in ours for network in RECIPES[name].networks)


@pytest.mark.parametrize(("recipe", "most"), [("record", 1_000_000), ("record-small", 100_000)])
def test_records_are_of_networks_of_so_many_parameters_that_learn_from_all_images(recipe, most):
    (network,) = RECIPES[recipe].networks
    assert sum(parameter.numel() for parameter in network.outline().parameters()) < most
    assert network.training.validation == 0


def test_the_published_mean_accuracy_is_that_of_the_pooled_images():
    for network in RECIPES["classic"].networks:
        published = network.published
        pooled = (10_000 * published["test_accuracy"] + 2_000 * published["train_subset_accuracy"]) / 12_000
        assert published["mean_accuracy"] == pytest.approx(pooled, abs=5e-5)


def test_speedrun_trains_the_networks_of_classic_normalised_and_without_dropout_in_few_epochs():
    classic = by_name("classic")
    for name, network in by_name("speedrun").items():
        theirs = {key: value for key, value in classic[name].arguments.items() if key != "dropout"}
        own = {"dropout": 0.0, "norm": "foldable"} | ({"cosines": True} if name == "cnn" else {})
        assert network.arguments == {key: theirs[key] for key in theirs.keys() - {"mean", "std"}} | own
        assert network.training.epochs < classic[name].training.epochs / 4


def test_training_settings_are_those_of_the_authors():
    batchnorm, resnet = by_name("batchnorm"), by_name("resnet")
    for network in by_name("classic").values():
        assert network.training == TrainConfig(epochs=20, batch_size=64, lr=1e-3, optimizer="adam")
    assert batchnorm["ffn"].training == TrainConfig(epochs=15, batch_size=32, lr=1e-3, schedule="plateau")
    assert batchnorm["cnn"].training == TrainConfig(epochs=12, batch_size=32, lr=3e-3, schedule="plateau")
    assert resnet["cnn"].training == TrainConfig(epochs=5, batch_size=64, lr=1.0, optimizer="adadelta")
    assert resnet["resnet18"].training == TrainConfig(epochs=5, batch_size=64, lr=1e-4, optimizer="adam")
    for version in ("v1", "v2", "v3"):
        settings = by_name("evolution")[version].training
        assert (settings.optimizer, settings.lr, settings.batch_size) == ("adamw", 3e-4, 64)
        assert (settings.epochs, settings.validation, settings.select_best) == (10, 0.1, False)
        assert (settings.schedule, settings.weight_decay) == ("constant", 0.01)
    for network in by_name("choices").values():
        settings = network.training
        assert (settings.epochs, settings.batch_size, settings.patience, settings.validation) == (25, 128, 5, 0.1)
        rates = {"adam": (1e-3, 0.0), "sgd": (0.01, 0.9)}
        assert (settings.lr, settings.momentum) == rates[settings.optimizer]


def test_choices_are_every_combination_of_the_two_activations_two_ways_of_downsampling_and_two_optimizers():
    networks = by_name("choices").values()
    combinations = {(n.arguments["activation"], n.arguments["pool"], n.training.optimizer) for n in networks}
    assert len(combinations) == len(networks) == 8
    assert [len(set(levels)) for levels in zip(*combinations, strict=True)] == [2, 2, 2]
    rest = [{**n.arguments, "activation": "", "pool": ""} for n in networks]
    assert all(arguments == rest[0] for arguments in rest)


def scaled(x: torch.Tensor, recipe: str) -> torch.Tensor:
    """What the author of `recipe` makes of bytes, as systems lists it."""
    x = x / 255
    ours = dict.fromkeys(("speedrun", "record", "record-small"), (x - 0.2860) / 0.3530)
    scales = {"evolution": x * 0.99 + 0.01, "choices": x, **ours}
    return scales.get(recipe, (x - 0.5) / 0.5)


@pytest.mark.parametrize("recipe", [name for name, recipe in RECIPES.items() if recipe.networks])
def test_pixels_are_prepared_as_the_author_has_them(recipe):
    image = torch.arange(784, dtype=torch.float64).remainder(256).reshape(1, 28, 28)
    for network in by_name(recipe).values():
        if network.is_torch:
            size = 32 if network.name == "resnet18" else 28
            wanted = resize(scaled(image, recipe)[:, None], [size, size], antialias=True)
            torch.testing.assert_close(network.build().pixels(image.byte()).double(), wanted, rtol=0, atol=2e-6)


# Every network

NETWORKS = {f"{recipe.name}-{network.name}": network for recipe in RECIPES.values() for network in recipe.networks}


def test_every_recipe_can_be_run():
    for recipe in RECIPES.values():
        assert recipe.checked() is recipe


@pytest.mark.parametrize("field", [field for field in fields(TrainConfig) if "low" in field.metadata])
def test_every_setting_is_one_that_the_command_line_would_take(field):
    for network in NETWORKS.values():
        value, meaning = getattr(network.training, field.name), field.metadata
        assert isinstance(value, field.type)
        assert meaning["choices"] is None or value in meaning["choices"]
        assert meaning["low"] is None or meaning["low"] <= value <= meaning["high"]


def distinct() -> dict[str, Network]:
    """The PyTorch networks whose layers are not another's."""
    layers = {(network.class_path, str(sorted(network.arguments.items()))): key for key, network in NETWORKS.items()}
    return {key: NETWORKS[key] for key in layers.values() if NETWORKS[key].is_torch}


@pytest.mark.parametrize("network", [pytest.param(network, id=key) for key, network in distinct().items()])
def test_every_network_is_exported_and_scripted(network):
    model = network.build().eval()
    images = torch.randint(0, 256, (3, 28, 28), dtype=torch.uint8)
    exported = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, but still asked for
        scripted = torch.jit.script(model)
    with torch.no_grad():
        for batch in (images, images.repeat(2, 1, 1)):
            logits = model(batch)
            torch.testing.assert_close(exported.module()(batch), logits)
            torch.testing.assert_close(scripted(batch), logits)


# What the docstrings print


def outputs(model: nn.Module) -> list[tuple[str, str, list[int]]]:
    """Name, kind and output shape, without the batch, of each leaf module, in the order of computation."""
    rows = []
    for name, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(
                lambda module, _inputs, output, name=name: rows.append(
                    (name, type(module).__name__, list(output.shape)[1:])
                )
            )
    model.eval()(torch.zeros(2, 28, 28, dtype=torch.uint8))
    return rows


@pytest.mark.parametrize("kind", [FFN, CNN])
def test_a_docstring_prints_the_layers_that_there_are(kind):
    table = re.findall(r"^ {8}(\S+) +(\w+) +\[B, ([\d, ]+)\]$", kind.__doc__, re.MULTILINE)
    printed = [(name, layer, [int(size) for size in shape.split(",")]) for name, layer, shape in table]
    assert printed == outputs(kind())


@pytest.mark.parametrize("kind", [FFN, CNN, ResNet18])
def test_a_docstring_counts_the_parameters_and_explains_every_argument(kind):
    (count,) = re.findall(r"([\d,]+) parameters", kind.__doc__)
    assert int(count.replace(",", "")) == sum(tensor.numel() for tensor in kind().parameters())
    for name in Network("", "", f"{kind.__module__}:{kind.__name__}").signature:
        assert re.search(rf"(^ {{4}}|^ {{4}}mean, |`){name}\b", kind.__doc__, re.MULTILINE), name


def test_a_recipe_without_networks_is_a_recipe_too():
    assert Recipe("r", "", "").checked().trainings(3) == []


def test_the_classes_that_do_without_torch_are_known_by_name():
    assert {network.class_path for network in NETWORKS.values() if not network.is_torch} == {*WITHOUT_TORCH}
