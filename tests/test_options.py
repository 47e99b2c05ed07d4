"""The command line against TrainConfig's fields, and what each option changes in a recipe, or is refused with."""

import argparse
import json
from dataclasses import fields, replace

import pytest

from fmnist import options
from fmnist.config import Network, Recipe, TrainConfig
from fmnist.errors import Refused
from fmnist.options import NETWORK_OPTIONS, RUN_OPTIONS, as_words, asked_for, changed, nearest, option, read_again
from recipes import RECIPES
from tests.helpers.needs import posix


def parsed(*words: str) -> argparse.Namespace:
    parser = options.Parser()
    parser.add_argument("recipe", nargs="?", choices=["classic"])
    options.add_experiment_options(parser)
    return parser.parse_args(words)


def refused(*words: str) -> str:
    with pytest.raises(Refused) as caught:
        parsed(*words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# From words to values

FIELDS = [pytest.param(field, id=field.name) for field in fields(TrainConfig)]


@pytest.mark.parametrize("field", FIELDS)
def test_every_training_setting_is_an_option_within_its_limits(field):
    name, low, high = option(field.name), field.metadata["low"], field.metadata["high"]
    assert getattr(parsed(), field.name) is None, "what is left out is as the recipe has it"
    if field.type is bool:
        assert getattr(parsed(name), field.name) is True
        assert getattr(parsed(f"--no-{name[2:]}"), field.name) is False
    elif field.type is str:
        for choice in field.metadata["choices"]:
            assert getattr(parsed(name, choice), field.name) == choice
        assert name in refused(name, "magic")
    else:
        for value in (low, high):
            given = getattr(parsed(name, str(value)), field.name)
            assert (given, type(given)) == (value, field.type)
        step = 1 if field.type is int else 1e-12
        for word in (low - step, high + 1, "x", "nan", "inf", "-inf", "", "1e999"):
            assert f"{low:,} to {high:,}" in refused(f"{name}={word}")
        if field.type is int:
            assert "a whole number" in refused(name, str(low + 0.5))


def test_defaults_are_within_the_limits_and_every_setting_is_explained():
    for field in fields(TrainConfig):
        meaning = field.metadata
        assert meaning["help"]
        if meaning["choices"]:
            assert field.default in meaning["choices"]
        elif field.type is not bool:
            assert meaning["low"] <= field.default <= meaning["high"]


@pytest.mark.parametrize(
    ("words", "limits"),
    [
        (["--hidden", "0"], "from 1 to 16,384"),
        (["--hidden", "64", "16385"], "from 1 to 16,384"),
        (["--kernels", "0"], "from 1 to 4,096"),
        (["--kernels", "9" * 5000], "from 1 to 4,096"),
        (["--kernel-size", "29"], "from 1 to 28"),
        (["--dropout", "0.96"], "from 0 to 0.95"),
        (["--seeds", "0"], "from 1 to 1,000"),
        (["--pool", "median"], "max"),
        (["--device", "tpu"], "cuda"),
        (["--precision", "fp8"], "fp32"),
        (["--models"], "--models"),
        (["--epochs"], "--epochs"),
    ],
    ids=lambda value: " ".join(value)[:20] if isinstance(value, list) else "",
)
def test_the_other_options_have_limits_too(words, limits):
    message = refused(*words)
    assert words[0] in message
    assert limits in message


ALL = {
    **{"epochs": 3, "batch_size": 16, "lr": 1e-9, "optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1 + 0.2},
    **{"schedule": "one-cycle", "warmup": 0.15, "label_smoothing": 0.1, "augment": False, "shift": 1},
    **{"nesterov": True, "decay_norms": False, "cutout": 12},
    **{"validation": 1 / 3, "patience": 5, "select_best": True, "seed": 7, "hidden": [512, 256], "kernels": [8]},
    **{"kernel_size": 5, "pool": "avg", "dropout": 0.25, "models": ["ffn", "cnn"], "network": "my net.py:Net"},
    **{
        "seeds": 5,
        "vary": ["lr=0.001,0.003", "hidden=8,8+4"],
        "one_at_a_time": True,
        "jobs": 2,
        "cluster": "tls://10.0.0.1:8786",
    },
    **{"audit": True, "device": "cpu", "precision": "bf16"},
}


def test_what_was_asked_for_comes_back_through_words_and_through_json():
    assert ALL.keys() == {field.name for field in fields(TrainConfig)} | NETWORK_OPTIONS.keys() | RUN_OPTIONS.keys()
    assert asked_for(parsed(*as_words(ALL))) == ALL
    assert read_again(json.loads(json.dumps(ALL))) == ALL
    assert asked_for(parsed()) == read_again({}) == {}
    for name, value in ALL.items():
        assert asked_for(parsed(*as_words({name: value}))) == {name: value}


def test_models_may_be_named_together_or_one_by_one():
    assert parsed("--models", "ffn", "cnn").models == ["ffn", "cnn"]
    assert parsed("--models", "ffn", "--models", "cnn").models == ["ffn", "cnn"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--learning-rate", "--lr"),
        ("--learning_rate=0.1", "--lr"),
        ("--epoch-count", "--epochs"),
        ("--batchsize", "--batch-size"),
        ("--optimiser", "--optimizer"),
        ("--kernelsize", "--kernel-size"),
        ("-lr", "--lr"),
        ("-e", None),
        ("--magic", None),
        ("extra", None),
    ],
)
def test_an_unknown_option_names_the_one_that_was_probably_meant(word, meant):
    message = refused(word, *([] if "=" in word or not meant else ["3"]))
    assert word in message
    assert (f"did you mean {meant}?" in message) if meant else ("did you mean" not in message)
    assert "--help shows all options" in message


def test_the_nearest_option_is_one_that_there_is():
    known = ["--lr", "--epochs"]
    assert nearest("--learning-rate", known) == "--lr"
    assert nearest("--learning-rate", ["--epochs"]) is None
    assert nearest("--lr", []) is None


# From values to recipes


def by_name(recipe: Recipe) -> dict[str, Network]:
    return {network.name: network for network in recipe.networks}


def refusal(name: str, **asked) -> str:
    with pytest.raises(Refused) as caught:
        changed(RECIPES[name], asked).checked()
    assert "\n" not in str(caught.value)
    return str(caught.value)


SETTINGS = {"epochs": 2, "batch_size": 256, "lr": 3e-3, "seed": 7, "optimizer": "sgd", "momentum": 0.5}


def test_training_options_reach_every_network():
    for before, after in zip(RECIPES["classic"].networks, changed(RECIPES["classic"], SETTINGS).networks, strict=True):
        assert after.training == replace(before.training, **SETTINGS)
        assert after.arguments == before.arguments
    assert by_name(RECIPES["classic"])["cnn"].training.lr == 1e-3, "the recipe itself stays"


def test_network_options_reach_the_networks_that_have_them():
    asked = {"hidden": [512, 256], "kernels": [16, 32, 64], "dropout": 0.1, "kernel_size": 5, "pool": "avg"}
    nets = by_name(changed(RECIPES["classic"], asked))
    ffn, cnn = nets["ffn"].build(), nets["cnn"].build()
    assert [layer.out_features for layer in ffn if hasattr(layer, "out_features")] == [512, 256, 10]
    assert [tuple(cnn.features.get_submodule(f"conv{n}").weight.shape) for n in (1, 2, 3)] == [
        (16, 1, 5, 5),
        (32, 16, 5, 5),
        (64, 32, 5, 5),
    ]
    assert type(cnn.features.pool1).__name__ == "AvgPool2d"
    assert (ffn.dropout2.p, cnn.classifier.dropout1.p) == (0.1, 0.1)
    v0 = by_name(changed(RECIPES["evolution"], {"hidden": [50]}))["v0"].build()
    assert [weight.shape for weight in v0.weights] == [(784, 50), (50, 10)]


def test_models_chooses_and_keeps_the_recipes_order():
    assert list(by_name(changed(RECIPES["evolution"], {"models": ["v3", "v0"]}))) == ["v0", "v3"]


def test_a_change_is_told_only_beside_what_it_changed():
    def told(recipe, *names):
        chosen = by_name(changed(RECIPES[recipe], {"models": names}))
        return [name for name, network in chosen.items() if network.change]

    assert told("evolution", "v0", "v1", "v3") == ["v0", "v1"]  # v3 against v1 is two changes
    assert told("evolution", "v2", "v3") == ["v2", "v3"]


def test_options_of_ones_own_are_noted_beside_what_is_published():
    *_, note = changed(RECIPES["classic"], {"epochs": 2, "seed": 3, "device": "cpu"}).notes
    assert "epochs 2" in note
    assert "seed" not in note
    assert "the published figures were measured with" in note
    assert changed(RECIPES["classic"], {"seed": 3, "models": ["cnn"]}).notes == RECIPES["classic"].notes


@pytest.mark.parametrize("asked", [{"epochs": 1}, {"models": ["v1"]}])
def test_what_whole_runs_have_found_is_not_said_of_another_experiment(asked):
    recipe = replace(RECIPES["evolution"], findings=("v3 learns best.",))
    assert changed(recipe, {"seed": 3}).findings == recipe.findings
    assert changed(recipe, asked).findings == ()


def test_no_word_is_said_of_published_figures_where_none_is_shown(tmp_path):
    (tmp_path / "my_net.py").write_text("from torch import nn\nclass Net(nn.Module): pass\n")
    *_, note = changed(RECIPES["classic"], {"network": f"{tmp_path / 'my_net.py'}:Net", "epochs": 2}).notes
    assert "epochs 2" in note
    assert "published" not in note


# Refused

TWO = Recipe(
    "two",
    "two networks",
    "that differ in all that can differ",
    networks=(
        Network("a", "A", "cnn:CNN", {"kernels": [4], "dropout": 0.1}, TrainConfig(validation=0.1)),
        Network(
            "b",
            "B",
            "cnn:CNN",
            {"kernels": [8], "kernel_size": 5, "pool": "avg", "dropout": 0.2},
            TrainConfig(
                **{"batch_size": 8, "lr": 0.1, "optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1, "epochs": 3},
                **{"schedule": "one-cycle", "warmup": 0.1, "label_smoothing": 0.1, "augment": True, "shift": 3},
                **{"nesterov": True, "decay_norms": False, "cutout": 8},
                **{"validation": 0.2, "patience": 2, "select_best": False, "seed": 1},
            ),
        ),
    ),
)
DIFFER = {name: value for name, value in ALL.items() if name not in (*RUN_OPTIONS, "epochs", "hidden")}


@pytest.mark.parametrize("name", DIFFER)
def test_a_setting_in_which_networks_differ_by_design_is_not_levelled(name):
    with pytest.raises(Refused, match=f"{option(name)}: networks of two differ in it by design; .* with --models"):
        changed(TWO, {name: DIFFER[name]})
    (network,) = changed(TWO, {name: DIFFER[name], "models": ["b"]}).networks
    assert (network.arguments | network.settings["training"])[name] == DIFFER[name]


def test_the_number_of_epochs_is_nobodys_design():
    assert {network.training.epochs for network in changed(TWO, {"epochs": 1}).networks} == {1}


def test_no_recipe_is_levelled_by_the_learning_rate_that_it_sets_for_each_network():
    for recipe in RECIPES.values():
        if len({network.training.lr for network in recipe.networks}) > 1:
            assert "--lr" in refusal(recipe.name, lr=1e-3)
            for network in recipe.networks:
                alone = changed(recipe, {"lr": 1e-3, "models": [network.name]})
                assert alone.networks[0].training.lr == 1e-3


@pytest.mark.parametrize(
    ("name", "asked", "words"),
    [
        ("classic", {"models": ["v1", "cnn"]}, ["--models v1", "classic", "ffn, cnn"]),
        ("explore", {"models": ["cnn"]}, ["--models", "explore trains no network"]),
        ("explore", {"epochs": 3}, ["--epochs", "explore trains no network"]),
        ("explore", {"precision": "fp32"}, ["--precision", "explore trains no network"]),
        ("explore", {"device": "cuda"}, ["--device cuda", "explore computes on the CPU"]),
        ("explore", {"audit": True, "seed": 3}, ["--seed", "the audit trains the same networks always"]),
        ("explore", {"network": "my_net.py:Net"}, ["--network", "explore trains no network"]),
        ("classic", {"models": ["cnn"], "hidden": [64]}, ["--hidden", "cnn", "none has hidden layers"]),
        ("record", {"network": f"{__file__}:Auditor"}, ["--network", "record has an auditor", "rename the class"]),
        ("classic", {"models": ["ffn"], "kernels": [8]}, ["--kernels", "ffn", "none has convolutions"]),
        ("classic", {"models": ["ffn"], "kernel_size": 5}, ["--kernel-size", "ffn", "none has convolutions"]),
        ("classic", {"models": ["ffn"], "pool": "avg"}, ["--pool", "ffn", "none has downsampling"]),
        ("resnet", {"models": ["resnet18"], "dropout": 0.1}, ["--dropout", "resnet18", "none has dropout"]),
        ("record-small", {"dropout": 0.1}, ["--dropout", "cnn", "behind hidden dense layers"]),
        ("record", {"dropout": 0.1}, ["--dropout", "cnn", "behind hidden dense layers"]),
        ("classic", {"kernels": [8] * 5}, ["cnn", "shrink to nothing", "--kernels"]),
        ("evolution", {"models": ["v1"], "kernels": [8, 8, 8]}, ["v1", "2 convolutions, not for 3", "--kernels"]),
        ("classic", {"momentum": 0.9}, ["--momentum", "--optimizer sgd"]),
        ("classic", {"warmup": 0.1}, ["--warmup", "--schedule one-cycle"]),
        ("classic", {"shift": 0}, ["--shift", "--augment"]),
        ("classic", {"patience": 3}, ["--patience", "--validation"]),
        ("classic", {"select_best": True}, ["--select-best", "--validation"]),
        ("evolution", {"models": ["v0"], "augment": True}, ["--augment", "v0", "NumPy"]),
        ("evolution", {"label_smoothing": 0.1}, ["--label-smoothing", "v0", "NumPy", "--models"]),
        ("evolution", {"models": ["v0"], "schedule": "plateau"}, ["--schedule", "v0", "NumPy"]),
        ("evolution", {"models": ["v0"], "precision": "bf16"}, ["--precision bf16", "NumPy"]),
        ("evolution", {"models": ["v0"], "device": "cuda"}, ["--device cuda", "NumPy"]),
        ("batchnorm", {"models": ["ffn"], "batch_size": 1}, ["--batch-size 1", "ffn", "2 or more"]),
    ],
    ids=str,
)
def test_an_option_that_a_recipe_cannot_honour_is_refused(name, asked, words):
    message = refusal(name, **asked)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("classic", {"optimizer": "sgd", "momentum": 0.9}),
        ("classic", {"schedule": "one-cycle", "warmup": 0.1}),
        ("classic", {"validation": 0.1, "patience": 3, "select_best": True}),
        ("classic", {"momentum": 0.0, "patience": 0}),
        ("classic", {"augment": True, "shift": 0}),
        ("classic", {"models": ["ffn"], "batch_size": 1}),
        ("evolution", {"models": ["v1"], "optimizer": "adam", "augment": True}),
        ("evolution", {"models": ["v0"], "schedule": "constant", "lr": 0.1, "precision": "fp32", "device": "cpu"}),
        ("explore", {"device": "cpu"}),
        ("explore", {"audit": True, "precision": "fp32", "device": "cuda"}),
        ("record", {"pool": "stride", "kernels": [4] * 7, "dropout": 0.0}),
    ],
    ids=str,
)
def test_and_where_it_can_be_honoured_it_is(name, asked):
    recipe = changed(RECIPES[name], asked).checked()
    for network in recipe.networks:
        settings = network.settings["training"]
        wanted = {key: value for key, value in asked.items() if key in settings}
        assert {key: settings[key] for key in wanted} == wanted


def test_what_dense_means_to_a_network_of_ones_own_is_not_known(tmp_path):
    path = tmp_path / "my_net.py"
    path.write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, dense=False, dropout=0.1):\n"
        "        super().__init__()\n"
    )
    (network,) = changed(RECIPES["record"], {"network": f"{path}:Net", "dropout": 0.2}).networks
    assert network.arguments == {"dropout": 0.2}


@posix
def test_a_loop_of_links_is_left_to_what_opens_it(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    asked = argparse.Namespace(recipe="classic", name=None, output_dir=tmp_path / "loop", data_dir=tmp_path / "loop")
    assert options.run_folder(asked, RECIPES) == tmp_path / "loop" / "classic"


@pytest.mark.parametrize(
    ("place", "is_there"), [("classic", True), ("classic/set", True), (".", False), ("set", False)]
)
def test_the_data_set_may_not_lie_in_the_folder_of_the_run(place, is_there, tmp_path):
    asked = argparse.Namespace(recipe="classic", name=None, output_dir=tmp_path, data_dir=tmp_path / place)
    if is_there:
        with pytest.raises(Refused, match=r"--data-dir .*: is in the folder of the run, .*classic; name another"):
            options.run_folder(asked, RECIPES)
    else:
        assert options.run_folder(asked, RECIPES) == tmp_path / "classic"
