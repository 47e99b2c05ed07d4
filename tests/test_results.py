"""What a run has found, as metrics.json holds it, against what went in and the types that it promises."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import torch

from fmnist import exploration, metrics, results
from fmnist.data import FashionMNIST
from fmnist.device import Machine
from fmnist.evaluation import Evaluation, Predictions
from fmnist.files import plain
from fmnist.options import changed
from fmnist.trials import Trained
from recipes import RECIPES
from tests.helpers import tiny
from tests.helpers.typed import misfits

ROOT = Path(__file__).parents[1]
MACHINE = Machine(torch.device("cpu"), "fp32", threads=3)
MADE = tiny.make(train=40, test=30)
DATASET = FashionMNIST(*(torch.from_numpy(array) for array in MADE), "made up", "first")
CLASSIC = RECIPES["classic"]


def scored(test_accuracy: float = 0.7, calibration: metrics.Calibration | None = None) -> Evaluation:
    probabilities = np.eye(10, dtype=np.float32)[MADE.test_labels]
    wrong = round(30 * (1 - test_accuracy))
    probabilities[:wrong] = np.roll(probabilities[:wrong], 1, axis=1)
    return Evaluation(
        Predictions(MADE.test_images, MADE.test_labels, probabilities), test_accuracy, 0.5, 0.8, 0.75, calibration
    )


def calibrated(temperature: float) -> metrics.Calibration:
    bins = {"confidence": [0.6, 0.9], "accuracy": [0.5, 0.9], "count": [10, 20]}
    errors = {"ece": temperature / 10, "ece_after": 0.01, "nll": 0.5, "nll_after": 0.4}
    return {"temperature": temperature, "validation_images": 4, **errors, "bins": bins, "bins_after": bins}


def epochs(*accuracies: float | None) -> list[dict]:
    """A history of epochs with these accuracies on held-out images; None where none are held out."""
    rows = []
    for n, accuracy in enumerate(accuracies, start=1):
        held_out = {} if accuracy is None else {"validation_accuracy": accuracy, "validation_loss": 1 - accuracy}
        row = {"train_loss": 1 / n, "train_accuracy": 0.5, "train_loss_by_step": [1.0], "steps": 3, "seconds": n + 0.5}
        rows.append({**row, "images_per_second": 9.0, **held_out})
    return rows


def trained(network, seed: int, history: list[dict], best: int | None = None, accuracy: float = 0.7) -> Trained:
    cost = {"parameters": 5, "multiply_adds": 6}
    return Trained(network.with_seed(seed), history, best, scored(accuracy), cost)


def collect(runs: dict[str, list], explored=None, dataset=DATASET, recipe=CLASSIC) -> metrics.Metrics:
    return results.collect(recipe, runs, dataset, MACHINE, explored)


def both(seeds=(4, 5)) -> dict[str, list]:
    return {
        network.name: [trained(network, seed, epochs(None, None), accuracy=round(0.6 + seed / 50, 2)) for seed in seeds]
        for network in CLASSIC.networks
    }


def test_what_is_said_of_a_run():
    collected = collect(both())
    assert [collected[key] for key in ("recipe", "title", "source", "seed")] == [
        *("classic", CLASSIC.title, CLASSIC.source, 4)
    ]
    assert [collected[key] for key in ("device", "precision", "threads")] == ["cpu", "fp32", 3]
    assert (collected["release"], collected["data"]["source"]) == ("first", "made up")
    assert collected["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert collected["versions"]["python"] == sys.version.split()[0]
    assert timedelta() <= datetime.now(timezone.utc) - datetime.fromisoformat(collected["created"]) < timedelta(1)
    assert collected["command"].startswith("python ")
    assert collected["processor"]


def test_the_commit_is_that_of_the_program(monkeypatch, tmp_path):
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    assert collect(both())["commit"] == subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert collect(both())["commit"] == "", "there is no git"


def test_what_is_published_is_judged_by_the_same_experiment_alone():
    own = changed(CLASSIC, {"epochs": 2})
    other_data, other_settings = collect(both()), collect(both(), None, DATASET._replace(release="current"), own)
    assert other_data["models"]["cnn"]["reproduction"] == other_settings["models"]["cnn"]["reproduction"] == {}


def test_what_is_published_on_the_first_release_is_judged_there_as_on_todays():
    recipe = RECIPES["evolution"]
    runs = {network.name: [trained(network, 0, epochs(None, None))] for network in recipe.networks}
    for release, judged in (("first", True), ("current", True), ("own", False)):
        collected = collect(runs, None, DATASET._replace(release=release), recipe)
        assert bool(collected["models"]["v3"]["reproduction"]) is judged, release


def test_what_is_said_of_a_network_from_several_seeds():
    collected = collect(both(), dataset=DATASET._replace(release="current"))
    cnn, network = collected["models"]["cnn"], CLASSIC.networks[1]
    first = scored(0.68)
    assert (cnn["title"], cnn["published"]) == (network.title, network.published)
    assert (cnn["parameters"], cnn["multiply_adds"]) == (5, 6)
    assert (cnn["training_seconds"], cnn["seconds_per_epoch"], cnn["train_loss"]) == (1.5 + 2.5, 2.0, 0.5)
    assert (cnn["test_accuracy"], cnn["test_loss"], cnn["train_subset_accuracy"], cnn["mean_accuracy"]) == (
        *(0.68, 0.5, 0.8, 0.75),
    )
    assert cnn["confusion"] == first.confusion.tolist()
    assert cnn["per_class"] == first.per_class
    assert cnn["config"] == network.with_seed(4).settings
    assert cnn["epochs"] == epochs(None, None)
    assert [(seed["seed"], seed["test_accuracy"]) for seed in cnn["seeds"]] == [(4, 0.68), (5, 0.7)]
    assert cnn["mean"]["test_accuracy"] == pytest.approx(0.69)
    assert cnn["std"]["test_accuracy"] == pytest.approx(0.02 / math.sqrt(2))
    (comparison,) = collected["comparisons"]
    assert (comparison["a"], comparison["b"], comparison["n"], comparison["test"]) == ("ffn", "cnn", 2, "paired t")
    assert cnn["reproduction"].keys() == network.published.keys()
    assert (cnn["reproduced_epochs"], collected["effects"]) == ([], [])
    assert "total_gain" not in collected
    assert collected["best"] is None
    assert "best_epoch" not in cnn, "nothing was held out"


def test_what_is_published_of_all_networks_is_of_the_same_experiment_alone():
    recipe = replace(CLASSIC, published_minimum=0.9)
    current = DATASET._replace(release="current")
    assert collect(both(), None, current, recipe)["published_minimum"] == 0.9
    assert "published_minimum" not in collect(both(), None, current, changed(recipe, {"epochs": 2}))
    assert "published_minimum" not in collect(both(), None, DATASET._replace(release="first"), recipe)


def test_what_whole_runs_have_found_is_not_said_of_other_data():
    recipe = replace(CLASSIC, notes=("A note.",), findings=("v3 learns best.",))
    assert collect(both(), None, DATASET._replace(release="current"), recipe)["notes"] == ["A note.", "v3 learns best."]
    assert collect(both(), None, DATASET._replace(release="first"), recipe)["notes"] == ["A note."]


def test_published_losses_of_epochs_are_judged_one_by_one():
    losses = [{"train_loss": 1.0}, {"train_loss": 0.9}, {"train_loss": 0.1}]  # measured: 1 and 0.5
    network = replace(CLASSIC.networks[0], published={"epochs": losses})
    runs = [trained(network, seed, epochs(None, None)) for seed in range(5)]
    recipe = replace(CLASSIC, networks=(network,))
    model = collect({"ffn": runs}, None, DATASET._replace(release="current"), recipe)["models"]["ffn"]
    assert model["reproduction"] == {}
    judged = [(epoch["train_loss"]["verdict"], epoch["train_loss"]["n"]) for epoch in model["reproduced_epochs"]]
    assert judged == [("reproduced", 5), ("exceeded", 5)]


def test_versions_that_build_on_each_other_have_a_total_gain():
    names = ("v0", "v1", "v2", "v3")
    runs = {
        name: [trained(network, 0, epochs(None, None), accuracy=0.6 + n / 10)]
        for n, (name, network) in enumerate(zip(names, RECIPES["evolution"].networks, strict=True))
    }
    collected = collect(runs, recipe=RECIPES["evolution"])
    total = collected["total_gain"]
    assert (total["a"], total["b"], total["difference"]) == ("v0", "v3", pytest.approx(0.3))
    assert [model["why"] for model in collected["models"].values()] == [n.why for n in RECIPES["evolution"].networks]


def test_a_full_factorial_has_its_effects():
    accuracy = {"max": 0.9, "stride": 0.7}
    networks = RECIPES["choices"].networks
    runs = {n.name: [trained(n, 0, epochs(None, None), accuracy=accuracy[n.arguments["pool"]])] for n in networks}
    effects = collect(runs, recipe=RECIPES["choices"])["effects"]
    assert {tuple(effect["factors"]): round(effect["effect"], 9) + 0 for effect in effects[:3]} == {
        ("activation",): 0,
        ("pool",): -0.2,
        ("optimizer",): 0,
    }


def test_one_seed_has_neither_mean_nor_spread():
    cnn = collect(both(seeds=[0]))["models"]["cnn"]
    assert not {"seeds", "mean", "std"} & cnn.keys()


def test_the_best_network_and_epoch_are_chosen_on_validation():
    network = CLASSIC.networks[0]
    # The FFN ends higher, the CNN was higher; a second seed has no weights that are kept, and so no say.
    ffn = [trained(network, 0, epochs(0.5, 0.7, 0.8), 3), trained(network, 1, epochs(0.2, 0.99, 0.1), 2)]
    cnn = [trained(network, 0, epochs(0.5, 0.9, 0.6), 2), trained(network, 1, epochs(0.3, 0.2, 0.1), 1)]
    collected = collect({"ffn": ffn, "cnn": cnn})
    assert collected["best"] == "cnn"
    model = collected["models"]["ffn"]
    assert (model["best_epoch"], model["mean"]["best_epoch"]) == (3, 2.5)
    assert [row.get("best") for row in model["epochs"]] == [None, None, True]
    assert [row.get("best") for row in model["seeds"][1]["epochs"]] == [None, True, None]


def test_calibration_is_told_of_the_first_seed_and_its_numbers_of_all():
    network = CLASSIC.networks[0]
    runs = [trained(network, seed, epochs(0.5), 1) for seed in (0, 1)]
    runs = [replace(run, evaluation=scored(0.7, calibrated(1.0 + n))) for n, run in enumerate(runs)]
    model = collect({"ffn": runs, "cnn": both()["cnn"]})["models"]["ffn"]
    assert model["calibration"] == calibrated(1.0)
    assert [(seed["temperature"], seed["ece"]) for seed in model["seeds"]] == [(1.0, 0.1), (2.0, 0.2)]
    assert (model["mean"]["temperature"], model["mean"]["ece"]) == (1.5, pytest.approx(0.15))
    assert not {"calibration", "temperature", "ece"} & collect(both())["models"]["cnn"].keys()


# Types


@pytest.mark.parametrize("explores", [False, True])
@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)], ids=len)
def test_every_key_is_declared_with_its_type(seeds, explores):
    runs = (
        both(seeds)
        if not explores
        else {
            network.name: [
                replace(trained(network, seed, epochs(0.5, 0.6), 2), evaluation=scored(0.7, calibrated(1.5)))
                for seed in seeds
            ]
            for network in CLASSIC.networks
        }
    )
    collected = collect(runs, exploration.explore(DATASET) if explores else None)
    read = json.loads(json.dumps(plain(collected), allow_nan=False))
    assert misfits(read, metrics.Metrics) == []
    assert ("statistics" in read) is explores
    del read["seed"]
    read["models"]["cnn"]["epochs"][0]["steps"] = "3"
    assert misfits(read, metrics.Metrics) == [
        "metrics.seed is missing",
        "metrics.models.cnn.epochs[].steps is '3', no int",
    ], "the check finds nothing, so nothing is checked"
