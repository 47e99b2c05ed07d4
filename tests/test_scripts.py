"""The two scripts as a user runs them: on made-up data, every recipe; on the real data, with a bar to pass."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import kernel_vis
import recipes
from fmnist import data
from fmnist.checkpoints import load_weights, save_weights
from tests.helpers import tiny

ROOT = Path(__file__).parents[1]
PHOTOGRAPH = Path(__file__).with_name("photograph.jpg")
TRAINED = [name for name, recipe in recipes.RECIPES.items() if recipe.networks]
OF_EACH = ("loss.png", "confusion.png", "examples.png", "correct.png", "incorrect.png")
LAYERS = ("kernels_grid.png", "features_grid.png", "progression.png")


def as_a_user(script: str, *arguments: object) -> subprocess.CompletedProcess:
    """Run a script in a process of its own, from another folder."""
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=600)


def is_picture(path: Path) -> bool:
    """Whether `path` is a PNG of some size on which something is drawn."""
    with Image.open(path) as image:
        return image.format == "PNG" and min(image.size) > 200 and np.asarray(image.convert("L")).std() > 5


@pytest.fixture(scope="module")
def csv_folder(tmp_path_factory, made_up) -> Path:
    """The made-up data in the one form that the product takes without a published checksum."""
    return tiny.write_csv(made_up, tmp_path_factory.mktemp("csv"))


@pytest.fixture(scope="module")
def classic(tmp_path_factory, csv_folder) -> Path:
    """The folder of a finished run of `classic`."""
    outputs = tmp_path_factory.mktemp("outputs")
    done = as_a_user("fashionmnist.py", "--epochs", 2, "--data-dir", csv_folder, "--output-dir", outputs)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return outputs / "classic"


def test_a_run_leaves_every_file_behind(classic):
    names = ["loss_curves.png", "accuracy_curves.png", *(f"{n}_{file}" for n in ("ffn", "cnn") for file in OF_EACH)]
    assert all(is_picture(classic / name) for name in names)
    assert {"metrics.json", "report.html", "ffn.pth", "cnn.pth"} < {path.name for path in classic.iterdir()}
    assert not list(classic.rglob("*.partial"))


def test_metrics_agree_with_themselves(classic, made_up):
    def no_constant(word: str) -> None:
        raise AssertionError(f"{word} is not strict JSON")

    metrics = json.loads((classic / "metrics.json").read_text(), parse_constant=no_constant)
    assert {"recipe", "seed", "device", "precision", "versions", "models"} <= metrics.keys()
    assert {name: model["parameters"] for name, model in metrics["models"].items()} == {"ffn": 203_530, "cnn": 421_642}
    for model in metrics["models"].values():
        confusion = np.array(model["confusion"])
        assert confusion.sum(axis=1).tolist() == np.bincount(made_up.test_labels, minlength=10).tolist()
        assert model["test_accuracy"] == pytest.approx(np.trace(confusion) / 200)
        # The subset is all 600 training images here: there are fewer than 2,000.
        pooled = (200 * model["test_accuracy"] + 600 * model["train_subset_accuracy"]) / 800
        assert model["mean_accuracy"] == pytest.approx(pooled)
        assert len(model["epochs"]) == 2
        assert model["epochs"][1]["train_loss"] < model["epochs"][0]["train_loss"]
        assert model["per_class"]["recall"] == pytest.approx((np.diag(confusion) / confusion.sum(axis=1)).tolist())
        assert {"test_accuracy", "train_subset_accuracy", "mean_accuracy"} <= model["published"].keys()


def test_weights_load_without_running_code(classic):
    content = torch.load(classic / "cnn.pth", weights_only=True)
    assert {"model", "config", "state_dict"} <= content.keys()
    assert sum(tensor.numel() for tensor in content["state_dict"].values()) == 421_642


def test_kernel_vis_draws_a_photograph(classic):
    done = as_a_user("kernel_vis.py", "--image", PHOTOGRAPH, "--output-dir", classic.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("%") == 3, "the three likeliest classes are printed"
    assert all(is_picture(classic / name) for name in (*LAYERS, "photograph.png"))


@pytest.mark.parametrize(("named", "folder"), [([], "resnet"), (["choices"], "choices")])
def test_kernel_vis_draws_into_the_folder_of_the_recipe_that_the_weights_are_of(named, folder, run_here, tmp_path):
    network = next(network for network in recipes.RESNET.networks if network.name == "cnn")
    save_weights(tmp_path, network, "resnet", network.build().state_dict())
    words = [*named, "--weights", tmp_path / "cnn.pth", "--image", PHOTOGRAPH, "--output-dir", tmp_path / "out"]
    done = run_here(words, main=kernel_vis.main)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == [folder]


def test_networks_of_the_users_own(run_here, csv_folder, tmp_path):
    options = ["--hidden", "64", "32", "--kernels", "8", "16", "12", "--kernel-size", "5", "--pool", "avg"]
    options += ["--epochs", "1", "--batch-size", "50", "--lr", "3e-3", "--seed", "7", "--validation", "0.1"]
    folders = ["--data-dir", csv_folder, "--output-dir", tmp_path]
    assert run_here([*options, *folders]).returncode == 0
    metrics = json.loads((tmp_path / "classic" / "metrics.json").read_text())
    assert metrics["seed"] == 7
    ffn, cnn = metrics["models"]["ffn"], metrics["models"]["cnn"]
    assert ffn["parameters"] == 784 * 64 + 64 + 64 * 32 + 32 + 32 * 10 + 10
    convolutions = (25 * 8 + 8) + (25 * 8 * 16 + 16) + (25 * 16 * 12 + 12)
    assert cnn["parameters"] == convolutions + (12 * 9 * 128 + 128) + (128 * 10 + 10)
    assert cnn["epochs"][0]["steps"] == 11, "a tenth of 600 is held out: ten batches of 50, and one of 40"
    assert "validation_accuracy" in cnn["epochs"][0]

    drawn = run_here(["--layer", "features.pool2", *folders], main=kernel_vis.main)
    assert drawn.returncode == 0, drawn.stderr
    assert all(is_picture(tmp_path / "classic" / name) for name in LAYERS)


def test_the_weights_that_are_kept_and_scored_are_those_of_the_best_epoch(run_here, made_up, csv_folder, tmp_path):
    options = ["--models", "ffn", "--epochs", "4", "--validation", "0.3", "--lr", "0.4"]  # at such a rate it unlearns
    done = run_here([*options, "--data-dir", csv_folder, "--output-dir", tmp_path])
    assert done.returncode == 0, done.stderr
    ffn = json.loads((tmp_path / "classic" / "metrics.json").read_text())["models"]["ffn"]
    accuracies = [row["validation_accuracy"] for row in ffn["epochs"]]
    best = ffn["best_epoch"]
    assert accuracies[best - 1] == max(accuracies) > accuracies[-1], "the last is the best, so nothing is told apart"
    assert f"epoch {best} is the best on validation" in done.stdout

    model = recipes.rebuild(load_weights(tmp_path / "classic" / "ffn.pth"), "ffn.pth").eval()
    images, labels = torch.from_numpy(made_up.test_images), torch.from_numpy(made_up.test_labels).long()
    _, held_out = data.split(len(made_up.train_images), 0.3, 0)
    validation = torch.from_numpy(made_up.train_images)[held_out], torch.from_numpy(made_up.train_labels)[held_out]
    with torch.no_grad():
        test, validated = (
            (model(data.normalise(x)).argmax(1) == y).float().mean() for x, y in ((images, labels), validation)
        )
    assert ffn["test_accuracy"] == pytest.approx(test.item())
    assert accuracies[best - 1] == pytest.approx(validated.item())


@pytest.mark.parametrize("name", TRAINED)
def test_every_recipe_runs_and_every_convolution_is_drawn(name, run_here, csv_folder, tmp_path):
    folders = ["--data-dir", csv_folder, "--output-dir", tmp_path]
    done = run_here([name, "--epochs", "1", *folders])
    assert done.returncode == 0, done.stderr
    for network in recipes.RECIPES[name].networks:
        assert all(is_picture(tmp_path / name / f"{network.name}_{file}") for file in OF_EACH)
        drawn = run_here([name, "--model", network.name, *folders], main=kernel_vis.main)
        if network.is_convolutional:
            assert drawn.returncode == 0, drawn.stderr
            assert all(is_picture(tmp_path / name / file) for file in LAYERS)
        else:
            assert drawn.returncode == 2
            assert network.name in drawn.stderr


def test_explore_trains_nothing(run_here, csv_folder, tmp_path):
    done = run_here(["explore", "--data-dir", csv_folder, "--output-dir", tmp_path])
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "explore" / "metrics.json").read_text())
    assert metrics["models"] == {}
    assert [row["training images"] for row in metrics["statistics"]["classes"]] == [60] * 10
    assert len(list((tmp_path / "explore").glob("*.png"))) == 6
    assert sum(metrics["data"]["pixel_histogram"]) == 600 * 28 * 28
    assert np.diag(metrics["data"]["look_alikes"]) == pytest.approx(1)
    means = np.array(metrics["data"]["class_means"]).mean(axis=1) / 255
    assert means == pytest.approx([row["pixel mean"] for row in metrics["statistics"]["classes"]], abs=1e-4)


def test_several_seeds_give_mean_and_std(run_here, csv_folder, tmp_path):
    run_here(["--seeds", "3", "--epochs", "1", "--data-dir", csv_folder, "--output-dir", tmp_path])
    metrics = json.loads((tmp_path / "classic" / "metrics.json").read_text())
    for model in metrics["models"].values():
        accuracies = [run["test_accuracy"] for run in model["seeds"]]
        assert [run["seed"] for run in model["seeds"]] == [0, 1, 2]
        assert model["mean"]["test_accuracy"] == pytest.approx(np.mean(accuracies))
        assert model["std"]["test_accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
    assert metrics["comparisons"][0]["test"] == "paired t"


def test_kernel_vis_names_the_command_to_run_first(run_here, tmp_path):
    done = run_here(["resnet", "--output-dir", tmp_path], main=kernel_vis.main)
    assert done.returncode == 2
    assert "python fashionmnist.py resnet" in done.stderr


@pytest.mark.parametrize("script", ["fashionmnist.py", "kernel_vis.py"])
def test_help_answers_at_once(script):
    seconds = []  # of work, which other programs do not lengthen much
    for _ in range(3):
        before = os.times()
        assert as_a_user(script, "--help").returncode == 0
        after = os.times()
        seconds.append(after.children_user - before.children_user + after.children_system - before.children_system)
    assert 0 < min(seconds) < 0.5


def test_list_tells_recipes_and_published_figures():
    listed = as_a_user("fashionmnist.py", "--list").stdout
    assert all(name in listed for name in recipes.RECIPES)
    assert "88.36%" in listed


def test_real_data_pass_the_bar_after_one_epoch(real_folder, tmp_path):
    """What both networks must reach in the end, 80 %, they reach in their first epoch, and the CNN is ahead."""
    done = as_a_user("fashionmnist.py", "--epochs", 1, "--data-dir", real_folder, "--output-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    models = json.loads((tmp_path / "classic" / "metrics.json").read_text())["models"]
    assert 0.80 < models["ffn"]["test_accuracy"] < models["cnn"]["test_accuracy"]
    for model in models.values():
        pooled = (10_000 * model["test_accuracy"] + 2_000 * model["train_subset_accuracy"]) / 12_000
        assert model["mean_accuracy"] == pytest.approx(pooled)
    assert as_a_user("kernel_vis.py", "--data-dir", real_folder, "--output-dir", tmp_path).returncode == 0
