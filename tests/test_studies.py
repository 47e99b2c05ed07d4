"""--vary: from words to networks, their plan, and what is found, against an analysis of study.csv of our own."""

import copy
import csv
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, stdev
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
import torch
from scipy import stats

from fmnist import data, files, options, remarks, studies, study_results, tables
from fmnist.config import Network, Recipe
from fmnist.device import Machine
from fmnist.errors import Diverged, Failed, Refused
from fmnist.figures import studies as pictures
from fmnist.options import as_words, asked_for, changed, read_again, read_setting
from recipes import RECIPES
from tests.helpers.figure_checks import check_picture, texts


def parsed(*words: str) -> dict:
    parser = options.Parser()
    options.add_experiment_options(parser)
    return asked_for(parser.parse_args(words))


def study(recipe: str, *words: str, **more: object) -> Recipe:
    return changed(RECIPES[recipe], {"vary": list(words), **more}).checked()


def refusal(recipe: str, *words: str, **more: object) -> str:
    with pytest.raises(Refused) as caught:
        study(recipe, *words, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("setting", "more"),
    [
        ("optimizer=sgd,adam", {"momentum": 0.9}),
        ("schedule=linear,one-cycle", {"warmup": 0.2}),
        ("augment=true,false", {"shift": 1}),
        ("lr=1e-3,1e-2", {"patience": 3}),
    ],
)
def test_an_option_that_a_study_honours_is_taken(setting, more):
    recipe = study("classic", setting, models=["cnn"], **more)
    assert all(network.settings["training"].items() >= more.items() for network in recipe.networks)


def test_a_number_that_torch_cannot_hold_is_refused_in_one_line():
    line = refusal("classic", f"dense={10**20},128", models=["cnn"])
    assert line.endswith("change --vary")
    assert len(line) < 300


@pytest.mark.parametrize("annotation", ["List", "'units of the hidden layer'", "'np.Foo'"])
def test_of_an_annotation_that_cannot_be_read_the_default_says_what_to_read(annotation, tmp_path):
    program = f"""
from typing import List
import torch
from torch import nn
from fmnist.layers import Pixels
class Net(nn.Sequential):
    def __init__(self, width: {annotation} = 8):
        super().__init__(Pixels(), nn.Flatten(), nn.Linear(784, width), nn.Linear(width, 10))
"""
    (tmp_path / "net.py").write_text(program)
    words = ("classic", "width=4,8")
    own = {"network": f"{tmp_path / 'net.py'}:Net"}
    if annotation == "List":
        assert "cannot be written on the command line" in refusal(*words, **own)
    else:
        assert [network.arguments["width"] for network in study(*words, **own).networks] == [4, 8]


def test_a_study_draws_no_gains_from_version_to_version_and_the_layers_of_its_best_alone():
    assert "gains" in RECIPES["evolution"].figures
    assert "gains" not in study("evolution", "dropout=0,0.1", models=["v2"]).figures
    assert RECIPES["batchnorm"].figures == ("layers",)
    for more in ({}, {"one_at_a_time": True}):
        assert study("batchnorm", "lr=1e-3,1e-2", models=["cnn"], **more).figures == ("best layers",)


# Words and values


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "3", 3),
        (float, "3e-4", 0.0003),
        (str, "gelu", "gelu"),
        (bool, "false", False),
        (bool, "true", True),
        (Sequence[int], "32+64", [32, 64]),
        (list[float], "0.5", [0.5]),
        (Sequence[int], "none", []),
        (Sequence[int] | None, "none", None),
        (Sequence[int] | Literal["none", "all"], "none", "none"),
        (Literal["none", "batch"] | None, "none", "none"),
        (Sequence[str], "none", ["none"]),
        (int | Sequence[int] | None, "2", 2),
        (int | Sequence[int] | None, "2+1", [2, 1]),
        (int | Sequence[int] | None, "none", None),
        (Literal["before", "after"] | None, "after", "after"),
    ],
)
def test_a_value_is_read_by_its_annotation_and_written_as_it_was(kind, text, value):
    read = studies.read(kind, text)
    assert (read, type(read)) == (value, type(value))
    assert studies.read(kind, studies.written(read)) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [(int, "3.5"), (float, "nan"), (float, "inf"), (bool, "yes"), (Sequence[int], "32+"), (Literal["a"] | None, "b")],
)
def test_what_is_no_value_is_refused(kind, text):
    with pytest.raises(ValueError, match=r"."):
        studies.read(kind, text)


@pytest.mark.parametrize("value", [0.1 + 0.2, 1e-5, 3e-4, 1.0, [256, 128], True, None, "max", 12345678.5])
def test_no_two_values_are_written_alike(value):
    text = studies.written(value)
    assert "," not in text
    if isinstance(value, float):
        assert float(text) == value


def test_the_settings_may_follow_one_vary_or_several_and_are_remembered():
    together = parsed("--vary", "hidden=64,256", "kernel-size=3,5")
    assert together == parsed("--vary", "hidden=64,256", "--vary", "kernel-size=3,5")
    assert read_again(json.loads(json.dumps(together))) == together
    assert parsed(*as_words(together)) == together


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("lr", "SETTING=VALUE,VALUE"),
        ("lr=", "SETTING=VALUE,VALUE"),
        ("=1,2", "SETTING=VALUE,VALUE"),
        ("lr=1,,2", "SETTING=VALUE,VALUE"),
        ("lr=1,1000", "'1000' is not a number from 1e-09 to 100"),
        ("epochs=1,1.5", "a whole number"),
        ("hidden=64,0", "from 1 to 16,384"),
        ("hidden=64,64+x", "from 1 to 16,384"),
        ("pool=max,median", "none of max, avg, stride"),
        ("augment=true,1", "choose from true, false"),
    ],
)
def test_a_wrong_word_is_refused_before_anything_is_imported(word, said):
    with pytest.raises(Refused) as caught:
        parsed("--vary", word)
    assert said in str(caught.value)
    assert "--vary" in str(caught.value)


# Networks


def test_every_combination_is_a_network_of_its_own():
    recipe = study("classic", "hidden=64,256+128", "lr=3e-4,1e-3,3e-3", models=["ffn"])
    expected = list(itertools.product([[64], [256, 128]], [3e-4, 1e-3, 3e-3]))
    assert [(n.arguments["hidden"], n.training.lr) for n in recipe.networks] == expected
    assert [n.varied for n in recipe.networks] == [{"hidden": hidden, "lr": lr} for hidden, lr in expected]
    assert recipe.networks[3].name == "ffn-hidden256+128-lr0.0003"
    assert recipe.networks[3].title == "FFN, hidden 256+128, lr 0.0003"
    widths = [[layer.out_features for layer in n.build() if hasattr(layer, "out_features")] for n in recipe.networks]
    assert widths == [[*hidden, 10] for hidden, _ in expected]
    assert len({network.name for network in recipe.networks}) == 6
    assert {network.training.validation for network in recipe.networks} == {0.1}
    assert {network.variant_of for network in recipe.networks} == {"ffn"}
    assert not any(network.published for network in recipe.networks)


def test_what_is_said_otherwise_holds_for_all_of_them():
    recipe = study("classic", "activation=relu,leaky_relu", "norm=none,before", validation=0.2, epochs=3, kernels=[8])
    assert {(n.training.validation, n.training.epochs) for n in recipe.networks} == {(0.2, 3)}
    assert [n.arguments["norm"] for n in recipe.networks] == [None, "before"] * 2
    assert all(n.arguments["kernels"] == [8] for n in recipe.networks)


def test_a_network_without_the_argument_is_left_out_with_a_word():
    recipe = study("classic", "kernels=4+4,8", "lr=1e-3,1e-2")
    assert {network.variant_of for network in recipe.networks} == {"cnn"}
    assert any("Left out" in note and "ffn" in note for note in recipe.notes)
    both = study("classic", "dropout=0,0.5")
    assert [network.name for network in both.networks] == [
        "ffn-dropout0",
        "ffn-dropout0.5",
        "cnn-dropout0",
        "cnn-dropout0.5",
    ]
    assert not any("Left out" in note for note in both.notes)


MANY = [f"lr={','.join(f'{n}e-6' for n in range(1, 200))}", f"hidden={','.join(map(str, range(1, 99)))}"]


@pytest.mark.parametrize(
    ("recipe", "words", "more", "said"),
    [
        ("classic", ["learning-rate=1,2"], {}, ["learning-rate", "did you mean lr?"]),
        ("classic", ["optimiser=adam,sgd"], {}, ["did you mean optimizer?"]),
        ("classic", ["kernels=4,8", "hidden=4,8"], {}, ["no network of classic has all of kernels, hidden"]),
        ("classic", ["kernels=4,8"], {"models": ["ffn"]}, ["kernels", "ffn"]),
        ("classic", ["lr=1,1.0"], {}, ["lr=1.0", "twice"]),
        ("classic", ["lr=1,2", "lr=3,4"], {}, ["lr", "twice"]),
        ("classic", ["lr=1,2"], {"lr": 3}, ["--lr"]),
        ("classic", ["seed=1,2"], {}, ["--seeds N"]),
        ("classic", ["validation=0.1,0.2"], {}, ["--validation"]),
        ("classic", ["lr=1,2"], {"validation": 0}, ["--validation 0", "a study selects"]),
        ("classic", ["activation=relu,tanh"], {}, ["activation=tanh", "relu, leaky_relu"]),
        ("classic", ["conv-dropout=0.1,1.5"], {}, ["cnn-conv-dropout1.5"]),
        ("classic", ["size=28,-1"], {}, ["cnn-size-1"]),
        ("classic", ["kernels=8,8+8+8+8+8"], {}, ["cnn-kernels8+8+8+8+8", "shrink to nothing", "--vary"]),
        ("classic", ["optimizer=adam,sgd", "momentum=0.5,0.9"], {}, ["--vary momentum", "--optimizer sgd"]),
        ("evolution", ["dropout=0.1,0.2"], {}, ["--vary dropout", "by design"]),
        ("evolution", ["hidden=8,9", "augment=true,false"], {}, ["--vary augment", "v0", "NumPy"]),
        ("evolution", ["dtype=a,b"], {}, ["dtype", "cannot be written"]),
        ("explore", ["lr=1,2"], {}, ["explore trains no network"]),
        ("classic", MANY, {}, ["10,000"]),
        ("classic", ["lr=1"], {}, ["lr=1", "has one value", "--one-at-a-time"]),
        ("classic", ["learning-rate=1"], {}, ["learning-rate", "did you mean lr?"]),
        ("classic", ["lr=1"], {"one_at_a_time": True}, ["changes one network", "ffn, cnn"]),
        ("record", ["cutout=0", "cutout=8"], {"one_at_a_time": True}, ["twice"]),
        ("record", ["nesterov=false,true"], {"one_at_a_time": True}, ["nesterov=true", "cnn has that already"]),
        ("record", ["lr=1"], {"one_at_a_time": True, "lr": 3}, ["--vary lr", "--lr as well"]),
        ("classic", ["nesterov=true"], {"models": ["ffn"], "one_at_a_time": True}, ["--vary nesterov", "--momentum"]),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_cannot_be_studied_is_refused_before_anything_is_trained(recipe, words, more, said):
    message = refusal(recipe, *words, **more)
    for word in said:
        assert word in message


def test_what_one_change_makes_useless_of_another_setting_does_not_matter():
    recipe = study("record", "momentum=0", "nesterov=false", one_at_a_time=True)
    assert [network.name for network in recipe.networks] == ["cnn", "cnn-momentum0", "cnn-nesterovfalse"]
    assert recipe.networks[0].training == replace(RECIPES["record"].networks[0].training, validation=0.1)
    with pytest.raises(Refused, match="--one-at-a-time: changes what --vary names"):
        changed(RECIPES["record"], {"one_at_a_time": True})


def test_nothing_can_be_compared_with_a_baseline_that_diverged():
    recipe = study("record", "cutout=0,8", one_at_a_time=True)
    planned = [
        SimpleNamespace(name=f"{n.name}-seed{s}", network=n.with_seed(s)) for n in recipe.networks for s in (0, 1)
    ]
    reason = Diverged("in step 7")
    assert studies.without_diverged(recipe, planned, {}) == (recipe, planned)
    left, finished = studies.without_diverged(recipe, planned, {"cnn-cutout8-seed1": reason})
    assert [network.name for network in left.networks] == ["cnn", "cnn-cutout0"]
    assert [trial.name for trial in finished] == ["cnn-seed0", "cnn-seed1", "cnn-cutout0-seed0", "cnn-cutout0-seed1"]
    assert "cutout 8 (1 of 2 seeds)" in left.notes[-1]
    for lost in ({"cnn-seed0": reason}, {"cnn-cutout0-seed0": reason, "cnn-cutout8-seed1": reason}):
        with pytest.raises(Failed, match=rf"nothing to compare.* {next(iter(lost))} failed first \(in step 7\)"):
            studies.without_diverged(recipe, planned, lost)


def test_a_network_of_ones_own_can_be_varied(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\nfrom fmnist.layers import Pixels\nclass Net(nn.Sequential):\n"
        "    def __init__(self, width=8, act='relu', sizes=(3, 4)):\n"
        "        super().__init__(Pixels(), nn.Flatten(), nn.Linear(784, width), nn.Linear(width, 10))\n"
    )
    own = f"{tmp_path / 'mine.py'}:Net"
    recipe = study("classic", "width=4,16", "sizes=1+2,3", "act=a/b,a:b", network=own)
    assert [n.arguments["width"] for n in recipe.networks] == [4] * 4 + [16] * 4
    assert recipe.networks[0].arguments["sizes"] == [1, 2]
    names = [network.name for network in recipe.networks]
    assert len(set(names)) == 8
    assert not any(set(name) & set("/:\\ ") for name in names), "they are names of files"
    assert "width=x" in refusal("classic", "width=4,x", network=own)


def test_a_long_name_is_cut_and_stays_apart():
    network = Network("ffn", "FFN", "ffn:FFN")
    long = [studies.variant(network, {"hidden": [64] * 60 + [n]}).name for n in (1, 2)]
    assert len(set(long)) == 2
    assert max(map(len, long)) < 140


def test_reading_an_option_asks_only_for_options():
    with pytest.raises(KeyError):
        read_setting("activation", "relu")
    assert read_setting("hidden", "256+128") == [256, 128]
    assert read_setting("augment", "true") is True


# The plan


def test_the_estimate_counts_trials_and_parameters_and_takes_time_to_grow_with_epochs(made_up):
    dataset = data.FashionMNIST(*map(torch.from_numpy, made_up), "made up")
    dataset = dataset._replace(train_labels=dataset.train_labels.long(), test_labels=dataset.test_labels.long())
    machine = Machine(torch.device("cpu"), "fp32")
    recipe = study("classic", "hidden=4,8", "lr=0.001,0.01", models=["ffn"], epochs=2)
    plan = studies.estimate(recipe, 3, dataset, machine)
    assert (plan.combinations, plan.trials) == (4, 12)
    assert plan.parameters == (785 * 4 + 5 * 10, 785 * 8 + 9 * 10)
    assert 0 < plan.seconds < 60
    longer = studies.estimate(study("classic", "hidden=4,8", models=["ffn"], epochs=1000), 3, dataset, machine)
    assert longer.seconds > 20 * plan.seconds
    assert str(plan).startswith("study: 4 combinations, 12 trials, 3,190 to 6,370 parameters; about ")


# What is found


def model(name: str, varied: dict, validation: list[float], test: list[float], **more: object) -> dict:
    """A combination as metrics.json has it, whose second of three epochs was scored."""
    seeds = [
        {
            "seed": n,
            "test_accuracy": t,
            "test_loss": 1 - t,
            "training_seconds": 2.0 + n,
            "epochs": [
                {"validation_accuracy": v - 0.2, "validation_loss": 9.0},
                {"validation_accuracy": v, "validation_loss": 1 - v, "best": True},
                {"validation_accuracy": v - 0.1, "validation_loss": 9.0},
            ],
        }
        for n, (v, t) in enumerate(zip(validation, test, strict=True))
    ]
    title = f"FFN, {' '.join(map(str, varied))}"
    config = {"training": {"seed": 0}}
    first = {
        "title": title,
        "variant_of": "ffn",
        "varied": varied,
        "parameters": 10,
        "config": config,
        **seeds[0],
        **more,
    }
    return {**first, "seeds": seeds} if len(seeds) > 1 else first


MODELS = {
    "a": model("a", {"hidden": [64], "lr": 0.001}, [0.80, 0.84], [0.81, 0.79]),
    "b": model("b", {"hidden": [256, 128], "lr": 0.001}, [0.90, 0.86], [0.85, 0.87]),
    "c": model("c", {"hidden": [64], "lr": 0.01}, [0.88, 0.88], [0.88, 0.88]),
}


def test_a_row_per_trial_reads_back_from_the_csv(tmp_path):
    files.write_csv(tmp_path / "study.csv", study_results.trials(MODELS))
    with open(tmp_path / "study.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["seed"]) for row in rows] == [(n, s) for n in "abc" for s in "01"]
    assert rows[2]["hidden"] == "256+128"
    assert list(rows[0]) == [
        *("name", "network", "hidden", "lr", "seed", "epochs", "scored_epoch", "validation_accuracy"),
        *("validation_loss", "test_accuracy", "test_loss", "parameters", "training_seconds"),
    ]
    assert (rows[0]["epochs"], rows[0]["scored_epoch"]) == ("3", "2")
    assert [float(row["validation_accuracy"]) for row in rows[:2]] == [0.80, 0.84]
    assert list(tmp_path.iterdir()) == [tmp_path / "study.csv"]


def test_varied_epochs_stand_in_the_csv_as_they_were_typed_and_the_picture_finds_them(tmp_path):
    """Both networks were trained for three epochs: patience may end a training early."""
    varied = {f"e{n}": model(f"e{n}", {"epochs": n}, [0.8, 0.9], [0.8, 0.9]) for n in (3, 30)}
    rows = study_results.trials(varied)
    assert [row["epochs"] for row in rows] == ["3", "3", "30", "30"]
    study = pictures.Study(rows, {"epochs": [3, 30]}, "e3")
    check_picture(lambda path: pictures.draw(path, study, "Study"), tmp_path)
    check_picture(lambda path: pictures.draw(path, study._replace(baseline="e3"), "Study"), tmp_path)


def test_the_best_is_chosen_on_validation_alone_and_a_tie_by_the_loss():
    for loss, best in ((0.05, "c"), (0.5, "b")):
        models = copy.deepcopy(MODELS)  # b and c are as accurate
        for seed in models["c"]["seeds"]:
            seed["epochs"][1]["validation_loss"] = loss
        assert study_results.best_on_validation(models) == best
    alone = {"x": model("x", {"lr": 1}, [0.8], [0.9]), "y": model("y", {"lr": 2}, [0.9], [0.8])}
    assert study_results.best_on_validation(alone) == "y"


def found(models: dict, comparisons: list[dict], baseline: str = "") -> dict:
    study = study_results.describe({"hidden": [[64], [256, 128]], "lr": [0.001, 0.01]}, "b", baseline, comparisons)
    return {
        "models": models,
        "comparisons": comparisons,
        "study": study,
        "notes": [],
        "columns": [],
        "release": "current",
    }


def compared(b: str, p: float, **more: object) -> dict:
    return {"a": "b", "b": b, "difference": -0.06, "p_value": p / 2, "p_holm": p, "test": "paired t", "n": 2, **more}


def test_the_table_has_the_best_first_and_says_what_is_not_told_from_it():
    metrics = found(
        MODELS,
        [compared("a", 0.04, interval=[-0.1, -0.02], seeds_needed=7), compared("c", 0.06, interval=[-0.2, 0.01])],
    )
    assert metrics["study"]["alike"] == ["c"]
    columns = {column.header: column.cells for column in tables.results_columns(metrics)}
    assert columns["hidden"][0] == "256+128"
    assert columns["Against the best"] == ["best on validation", "not told apart", "worse"]
    assert columns["Validation %"] == ["88.00 ± 2.83", "88.00 ± 0.00", "82.00 ± 2.83"]
    assert columns["Test %"][0] == f"86.00 ± {100 * stdev([0.85, 0.87]):.2f}"
    assert columns["Points"] == ["-", "-6.00", "-6.00"]
    assert columns["95 % interval"] == ["-", "-20.00 to +1.00", "-10.00 to -2.00"]
    assert columns["p"] == ["-", "0.060", "0.040"]
    assert columns["Seeds needed"] == ["-", "-", "7"]
    assert tables.legend(tables.results_columns(metrics))[-1] == "±: standard deviation over the seeds."
    said = remarks.remarks(metrics)
    assert said[0].startswith("Best on validation: FFN")
    assert "No test tells 1 of 2 others" in said[1]
    assert "Holm over 2" in said[1]


def test_against_a_baseline_all_others_are_compared_with_it_and_it_stands_first():
    gained = compared("b", 0.03, interval=[0.01, 0.09]) | {"a": "a", "difference": 0.06}
    metrics = found(MODELS, [gained, compared("c", 0.2, interval=[-0.2, 0.1]) | {"a": "a"}], baseline="a")
    columns = {column.header: column.cells for column in tables.results_columns(metrics)}
    assert columns["Change"] == ["none", "hidden: 256+128 for 64", "lr: 0.01 for 0.001"]
    assert sorted(columns["Against the baseline"]) == ["better on test", "not told apart", "the baseline"]
    assert columns["Against the baseline"][0] == "the baseline"
    assert study_results.combinations(metrics)[1].name == "b"  # the best, though "c" has the same accuracy
    said = remarks.remarks(metrics)
    assert said[0].startswith("Best on validation: ")
    assert "No test tells 1 of 2 others from the baseline" in said[1]


# Pictures


def drawn(settings: dict, networks: Sequence[str] = ("ffn",), seeds: int = 2) -> pictures.Study:
    random, rows = np.random.default_rng(0), []
    for network, values in itertools.product(networks, itertools.product(*settings.values())):
        texts = dict(zip(settings, map(studies.written, values), strict=True))
        for seed in range(seeds):
            accuracy = {"validation_accuracy": random.uniform(0.85, 0.92), "test_accuracy": random.uniform(0.85, 0.9)}
            rows.append({"name": f"{network}{values}", "network": network, **texts, "seed": seed, **accuracy})
    return pictures.Study(rows, settings, rows[0]["name"])


def changes(settings: dict, seeds: int = 3) -> pictures.Study:
    """A study of one thing at a time, whose baseline has the first value of each setting."""
    every = drawn(settings, seeds=seeds)
    own = {name: studies.written(values[0]) for name, values in settings.items()}
    rows = [row for row in every.trials if sum(row[name] != value for name, value in own.items()) < 2]
    return every._replace(trials=rows, baseline=rows[0]["name"])


RATES, WIDTHS, LISTS = [3e-4, 1e-3, 3e-3, 1e-2], [[64], [256], [1024]], [[64], [256, 128], [32, 32, 32]]
NUMBERS = drawn({"lr": RATES})
WITHOUT_ONE = drawn({"hidden": LISTS, "lr": RATES})
FORMS = {
    "a combination diverged": WITHOUT_ONE._replace(trials=[t for t in WITHOUT_ONE.trials if t["lr"] != "0.01"]),
    "a value diverged": NUMBERS._replace(trials=[t for t in NUMBERS.trials if t["lr"] != "0.01"]),
    "numbers": drawn({"hidden": WIDTHS}),
    "of two networks": drawn({"lr": RATES}, ("ffn", "cnn"), 5),
    "zero and decades": drawn({"weight_decay": [0, 1e-4, 1e-3, 1e-2]}),
    "zero and many": drawn({"label_smoothing": [0.0, *(n / 100 for n in range(1, 13))]}, seeds=1),
    "numbers too near to be named": drawn({"batch_size": [63, 64, 65, 1000]}, seeds=1),
    "very many": drawn({"epochs": [*range(1, 41)]}, seeds=1),
    "hundreds": drawn({"dropout": [n / 1000 for n in range(300)]}, seeds=1),
    "long lists": drawn({"kernels": [[16] * n for n in range(5, 11)]}, ("ffn", "cnn")),
    "words": drawn({"pool": ["max", "avg", "stride"]}, ("cnn", "other"), 1),
    "two settings": drawn({"hidden": LISTS, "lr": RATES}),
    "of one seed and two networks": drawn({"optimizer": ["adam", "sgd"], "lr": RATES}, ("ffn", "cnn"), 1),
    "three settings": drawn({"hidden": LISTS, "lr": RATES, "augment": [True, False]}),
    "long names of panels": drawn(
        {"pool": ["max", "avg"], "epochs": [1, 2], "weight_decay": [0.0001, 0.0002]}, ("narrow", "convolutional, deep")
    ),
    "a long list as a panel": drawn({"pool": ["max", "avg"], "epochs": [1, 2], "kernels": [[16] * 12, [32]]}),
    "four settings": drawn(
        {
            "weight_decay": [0.0, 1e-4, 1e-3, 1e-2],
            "label_smoothing": [0, 0.01, 0.02, 0.05],
            "kernels": [[16, 32], [16, 32, 64], [8, 16, 32, 64]],
            "optimizer": ["adam", "adamw", "sgd", "rmsprop", "nadam"],
        },
        seeds=1,
    ),
    "many panels": drawn({"lr": RATES[:2], "dropout": [0.0, 0.5], "epochs": [1, 2, 3, 4, 5]}),
    "changes": changes({"lr": RATES[:3], "augment": [True, False], "kernels": LISTS, "label_smoothing": [0.1, 0]}),
    "changes from one seed": changes({"augment": [True, False]}, seeds=1),
    "five settings": drawn({"hidden": LISTS, "lr": RATES, "a": [1, 2], "b": ["x", "y"], "c": [True, False]}),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_picture_is_whole_and_readable(form, tmp_path):
    check_picture(lambda path: pictures.draw(path, FORMS[form], "Study"), tmp_path)


def test_the_picture_of_many_values_grows_no_wider_than_a_sheet(tmp_path):
    assert pictures.draw(tmp_path / "s.png", FORMS["hundreds"], "Study").get_figwidth() <= 2 * pictures.WIDEST


def test_changes_are_drawn_as_differences_from_the_baseline_seed_by_seed(tmp_path):
    study = FORMS["changes"]
    first, axes = pictures.draw(tmp_path / "s.png", study, "Study").axes
    labels = [label.get_text() for label in first.get_yticklabels()]
    before = [row["test_accuracy"] for row in study.of(name=study.baseline)]
    after = [row["test_accuracy"] for row in study.of(label_smoothing="0")]
    rings = [line for line in axes.lines if line.get_markersize() == 4.5]
    assert len(rings) == len(labels) == 6
    place = labels.index("label smoothing: 0 for 0.1")
    np.testing.assert_allclose(rings[place].get_xdata(), 100 * (np.array(after) - before))


def test_a_heatmap_shows_the_mean_of_every_combination(tmp_path):
    study = FORMS["two settings"]
    shown = texts(pictures.draw(tmp_path / "s.png", study, "Study"))
    for first, second in zip(study.trials[::2], study.trials[1::2], strict=True):
        accuracies = [100 * row["validation_accuracy"] for row in (first, second)]
        assert f"{fmean(accuracies):.2f}\n± {stdev(accuracies):.2f}" in shown


def test_an_axis_is_logarithmic_where_the_values_span_more_than_a_decade(tmp_path):
    scales = [
        pictures.draw(tmp_path / "s.png", drawn({"lr": values}), "Study").axes[0].get_xscale()
        for values in ([0.001, 0.1], [0.01, 0.1], [1, 2, 3], [0, 0.5], [0, 0.01, 0.2], [-1, 0.1, 50])
    ]
    assert scales == ["log", "linear", "linear", "linear", "symlog", "linear"]


def test_numbers_are_joined_by_their_size_and_words_stand_as_they_were_typed(tmp_path):
    rates = pictures.draw(tmp_path / "s.png", drawn({"lr": [3e-3, 3e-4, 1e-3]}, seeds=1), "Study").axes[0]
    assert rates.lines[0].get_xdata().tolist() == [3e-4, 1e-3, 3e-3]
    assert [label.get_text() for label in rates.get_xticklabels()] == ["0.0003", "0.001", "0.003"]
    words = pictures.draw(tmp_path / "s.png", drawn({"pool": ["stride", "avg"]}), "Study").axes[0]
    assert [label.get_text() for label in words.get_xticklabels()] == ["stride", "avg"]


def test_numbers_too_near_to_be_named_stand_at_equal_distances(tmp_path):
    axes = pictures.draw(tmp_path / "s.png", FORMS["numbers too near to be named"], "Study").axes[0]
    assert axes.get_xticks().tolist() == [0, 1, 2, 3]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["63", "64", "65", "1000"]


# From end to end


def test_a_study_is_trained_told_and_analysed_alike_elsewhere(run_here, folders, data_is_there, no_pictures):
    words = ["--vary", "hidden=2,24", "lr=3e-4,1e-2", "--models", "ffn", "--seeds", "3", "--epochs", "2"]
    where = ["--data-dir", folders[0], "--output-dir", folders[1], "--name", "grid"]
    done = run_here([*words, *where])
    assert done.returncode == 0, done.stderr
    assert "study: 4 combinations, 12 trials" in done.stdout
    folder = folders[1] / "grid"
    metrics = json.loads((folder / "metrics.json").read_text())
    with open(folder / "study.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12

    by_name: dict[str, list[dict]] = {}
    for row in rows:
        by_name.setdefault(row["name"], []).append(row)
    best = max(by_name, key=lambda name: fmean(float(row["validation_accuracy"]) for row in by_name[name]))
    assert metrics["study"]["best"] == best
    tests = {name: np.array([float(row["test_accuracy"]) for row in by_name[name]]) for name in by_name}
    others = [name for name in by_name if name != best]
    p_values = {name: stats.ttest_rel(tests[name], tests[best]).pvalue for name in others}
    order, worst, alike = sorted(p_values, key=p_values.get), 0.0, set()
    for place, name in enumerate(order):
        worst = max(worst, (len(order) - place) * p_values[name])
        alike |= {name} if not worst < 0.05 and not math.isnan(worst) else set()
    assert set(metrics["study"]["alike"]) == alike
    assert {comparison["a"] for comparison in metrics["comparisons"]} == {best}

    again = run_here(["--resume", *where])
    assert "this run is finished" in again.stdout
    assert metrics["models"][best]["varied"].keys() == {"hidden", "lr"}


def test_one_thing_at_a_time_is_changed_and_compared_with_the_network_as_it_was(run_here, folders, data_is_there):
    where = ["--data-dir", folders[0], "--output-dir", folders[1], "--name", "ablation"]
    words = ["--vary", "dropout=0", "hidden=8,4+4", "--one-at-a-time", "--hidden", "16"]
    assert "--hidden" in run_here([*words, "--models", "ffn", *where]).stderr  # it is varied as well
    words = words[:-2]
    assert "choose it by --models" in run_here(["--vary", "dropout=0", "--one-at-a-time", *where]).stderr
    done = run_here([*words, "--models", "ffn", "--seeds", "2", "--epochs", "1", *where])
    assert done.returncode == 0, done.stderr
    metrics = json.loads((folders[1] / "ablation" / "metrics.json").read_text())
    assert list(metrics["models"]) == ["ffn", "ffn-dropout0", "ffn-hidden8", "ffn-hidden4+4"]
    assert metrics["study"]["baseline"] == "ffn"
    assert {(one["a"], one["b"]) for one in metrics["comparisons"]} == {
        ("ffn", name) for name in metrics["models"] if name != "ffn"
    }
    assert metrics["models"]["ffn-dropout0"]["varied"] == {"dropout": 0.0, "hidden": [256]}
    assert {path.name for path in (folders[1] / "ablation").glob("study.*")} == {"study.png", "study.csv"}
    assert "one thing changed at a time" in (folders[1] / "ablation" / "report.html").read_text()
    assert "this run is finished" in run_here(["--resume", *where]).stdout


def test_of_a_study_the_best_alone_is_looked_into(run_here, folders, data_is_there):
    where = ["--data-dir", folders[0], "--output-dir", folders[1]]
    done = run_here(["--vary", "hidden=2,16", "--models", "ffn", "--epochs", "1", *where])
    assert done.returncode == 0, done.stderr
    folder = folders[1] / "classic"
    best = json.loads((folder / "metrics.json").read_text())["study"]["best"]
    drawn = {path.name for path in folder.glob("*.png")}
    assert {"study.png", "loss_curves.png", f"{best}_confusion.png"} <= drawn
    assert not any(name.startswith("ffn-") and not name.startswith(f"{best}_") for name in drawn)
    assert {path.stem for path in folder.glob("*.pth")} == {"ffn-hidden2", "ffn-hidden16"}
    page = (folder / "report.html").read_text()
    assert "results sortable" in page
    assert page.count('<section id="network-') == 1


def test_a_run_has_the_folder_that_name_says(run_here, folders, data_is_there, no_pictures):
    where = ["--data-dir", folders[0], "--output-dir", folders[1]]
    for name in ("../x", ".x", "a/b", "x.", "x.before", "", "con\x00", "Con", "aux.1", "lpt1"):
        done = run_here(["--name", name, *where])
        assert done.returncode == 2, name
        assert "--name" in done.stderr
    assert "the folder of the recipe resnet" in run_here(["--name", "resnet", *where]).stderr
    assert run_here(["--name", "my run-2", "--models", "ffn", "--epochs", "1", *where]).returncode == 0
    assert {path.name for path in folders[1].iterdir()} == {"my run-2"}


def test_a_word_that_is_none_of_the_choices_is_answered_with_all_of_them():
    with pytest.raises(ValueError, match=r"^choose from before, after, none$"):
        studies.read(Literal["before", "after"] | None, "pooled")
