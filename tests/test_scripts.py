"""The two scripts as a user runs them: on made-up data, every recipe; on the real data, with a bar to pass."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import fashionmnist
import kernel_vis
from benchmarks import measure
from fmnist import data, options
from fmnist.checkpoints import rebuild, save_weights
from fmnist.config import Network
from fmnist.data import CLASSES, CURRENT, OWN
from fmnist.errors import Refused
from fmnist.figures import album
from recipes import RECIPES
from tests.helpers import child, garments, tiny
from tests.helpers.bench import FILES, at_step, difference, outcome

ROOT = Path(__file__).parents[1]
PHOTOGRAPH = Path(__file__).with_name("photograph.jpg")
ELSEWHERE = ("classic", "speedrun", "explore")  # run by tests of their own
CNN = RECIPES["classic"].networks[1]
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


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text(), parse_constant=pytest.fail)  # strict JSON has no NaN


@pytest.fixture(scope="module")
def csv_folder(tmp_path_factory, made_up) -> Path:
    """The made-up data in the one form that the product takes without a published checksum."""
    return tiny.write_csv(made_up, tmp_path_factory.mktemp("csv"))


@pytest.fixture(scope="module")
def small_csv(tmp_path_factory) -> Path:
    return tiny.write_csv(tiny.make(train=60, test=30), tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def classic(tmp_path_factory, csv_folder) -> Path:
    """The folder of a finished run of `classic`."""
    outputs = tmp_path_factory.mktemp("outputs")
    done = as_a_user("fashionmnist.py", "--epochs", 2, "--data-dir", csv_folder, "--output-dir", outputs)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return outputs / "classic"


@pytest.fixture
def look(run_here):
    """Run kernel_vis.py to a good end in this process."""

    def look(*arguments: object) -> subprocess.CompletedProcess:
        done = run_here(arguments, main=kernel_vis.main)
        assert done.returncode == 0, done.stderr
        return done

    return look


# What a run leaves behind


def test_a_run_leaves_every_file_behind(classic):
    names = ["loss_curves.png", "accuracy_curves.png", *(f"{n}_{file}" for n in ("ffn", "cnn") for file in OF_EACH)]
    assert all(is_picture(classic / name) for name in names)
    more = {"metrics.json", "report.html", "ffn.pth", "cnn.pth", "ffn_report.txt", "cnn_report.txt"}
    assert {path.name for path in classic.iterdir() if path.is_file()} == {*names, *more, ".lock"}


def test_metrics_agree_with_themselves(classic, made_up):
    metrics = metrics_of(classic)
    assert {"recipe", "seed", "device", "precision", "threads", "versions", "models"} <= metrics.keys()
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


def test_what_is_trained_in_bfloat16_is_scored_in_single_precision(
    run_here, no_pictures, look, made_up, csv_folder, tmp_path
):
    """Whoever reloads cnn.pth, reads the report or looks at one image meets the same numbers."""
    folders, classic = ["--data-dir", csv_folder, "--output-dir", tmp_path], tmp_path / "classic"
    options = ["--hidden", "16", "--kernels", "4", "8", "--epochs", "1", "-b", "20", "--precision", "bf16"]
    assert run_here([*options, *folders]).returncode == 0
    metrics = metrics_of(classic)
    assert metrics["precision"] == "bf16"
    model, content = rebuild(classic / "cnn.pth", RECIPES["classic"].networks)
    assert list(content["classes"]) == list(CLASSES)
    with torch.inference_mode():
        logits = model(torch.from_numpy(made_up.test_images))
    labels = torch.from_numpy(made_up.test_labels).long()
    assert metrics["models"]["cnn"]["test_accuracy"] == (logits.argmax(1) == labels).double().mean().item()
    assert metrics["models"]["cnn"]["test_loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)

    page = (classic / "report.html").read_text()
    embedded = json.loads(re.search(r'id="pictures">(.*?)</script>', page, re.DOTALL)[1])
    rows = embedded["images"][list(metrics["models"]).index("cnn")]
    index, _, _, predicted, probability, _ = min(rows, key=lambda row: row[4])  # where rounding would show most
    drawn = look("--index", index, *folders)
    (line,) = (line for line in drawn.stdout.splitlines() if line.startswith("CNN, "))
    likeliest, percent = re.search(r": ([^:]+?) ([\d.]+)%", line).groups()
    assert likeliest == CLASSES[predicted]
    assert float(percent) == pytest.approx(100 * probability, abs=0.06)


def test_options_reach_the_networks(run_here, look, no_pictures, csv_folder, tmp_path):
    options = ["--hidden", "64", "32", "--kernels", "8", "16", "12", "--kernel-size", "5", "--pool", "avg"]
    options += ["--epochs", "1", "--batch-size", "50", "--lr", "3e-3", "--seed", "7", "--validation", "0.1"]
    folders = ["--data-dir", csv_folder, "--output-dir", tmp_path]
    assert run_here([*options, *folders]).returncode == 0
    metrics = metrics_of(tmp_path / "classic")
    assert metrics["seed"] == 7
    ffn, cnn = metrics["models"]["ffn"], metrics["models"]["cnn"]
    assert ffn["parameters"] == 784 * 64 + 64 + 64 * 32 + 32 + 32 * 10 + 10
    convolutions = (25 * 8 + 8) + (25 * 8 * 16 + 16) + (25 * 16 * 12 + 12)
    assert cnn["parameters"] == convolutions + (12 * 9 * 128 + 128) + (128 * 10 + 10)
    assert cnn["epochs"][0]["steps"] == 11, "a tenth of 600 is held out: ten batches of 50, and one of 40"
    assert "validation_accuracy" in cnn["epochs"][0]
    look("--layer", "features.pool2", *folders)
    assert all(is_picture(tmp_path / "classic" / name) for name in LAYERS)


def test_the_weights_that_are_kept_and_scored_are_those_of_the_best_epoch(
    run_here, no_pictures, made_up, csv_folder, tmp_path
):
    options = ["--models", "ffn", "--epochs", "4", "--validation", "0.3", "--lr", "0.4"]  # at such a rate it unlearns
    done = run_here([*options, "--data-dir", csv_folder, "--output-dir", tmp_path])
    assert done.returncode == 0, done.stderr
    ffn = metrics_of(tmp_path / "classic")["models"]["ffn"]
    accuracies = [row["validation_accuracy"] for row in ffn["epochs"]]
    best = ffn["best_epoch"]
    assert accuracies[best - 1] == max(accuracies) > accuracies[-1], "the last is the best, so nothing is told apart"
    assert f"epoch {best} is the best on validation" in done.stdout

    model, content = rebuild(tmp_path / "classic" / "ffn.pth", RECIPES["classic"].networks)
    assert content["temperature"] == ffn["calibration"]["temperature"] == ffn["temperature"]
    held_out = torch.randperm(600, generator=torch.Generator().manual_seed(0))[:180]
    for images, labels, expected in (
        (made_up.test_images, made_up.test_labels, ffn["test_accuracy"]),
        (made_up.train_images[held_out], made_up.train_labels[held_out], accuracies[best - 1]),
    ):
        with torch.inference_mode():
            correct = model(torch.from_numpy(images)).argmax(1) == torch.from_numpy(labels)
        assert expected == pytest.approx(correct.double().mean().item())


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in ELSEWHERE])
def test_every_other_recipe_runs_and_its_layers_are_drawn(name, run_here, look, small_csv, monkeypatch, tmp_path):
    monkeypatch.setattr(album, "_draw_predictions", lambda *_: None)  # the same as of `classic`, and they take seconds
    recipe, folder = RECIPES[name], tmp_path / name
    folders = ["--data-dir", small_csv, "--output-dir", tmp_path]
    done = run_here([name, "--epochs", "1", *folders])
    assert done.returncode == 0, done.stderr
    assert {f"{network.name}_loss.png" for network in recipe.networks} < {path.name for path in folder.glob("*.png")}
    assert all(map(is_picture, folder.glob("*.png")))
    flipped = [net.name for net in recipe.networks if net.training.augment]
    assert [net for net, model in metrics_of(folder)["models"].items() if "mirrored_accuracy" in model] == flipped
    assert ("mirror image are averaged" in done.stdout) == bool(flipped)
    if recipe.auditor:
        made, confusion = (metrics_of(folder)["models"]["cnn"][key] for key in ("mistakes", "confusion"))
        assert made["count"] == np.sum(confusion) - np.trace(confusion) > 0
        assert f"{made['count']} mistakes on test images; the labels of {made['suspected']} of them" in done.stdout
    if "layers" in recipe.figures:
        drawn = [network.name for network in recipe.networks if network.is_convolutional]
        assert all(is_picture(folder / f"{network}_{file}") for network in drawn for file in LAYERS)
    else:
        look(name, "--model", recipe.networks[-1].name, *folders)
        assert all(is_picture(folder / file) for file in LAYERS)
    plain = next((net.name for net in recipe.networks if net.is_torch and not net.is_convolutional), None)
    if plain:
        assert "has no convolution" in look(name, "--model", plain, *folders).stdout
        assert is_picture(folder / "explanation.png")


def test_explore_trains_nothing(run_here, csv_folder, tmp_path):
    done = run_here(["explore", "--data-dir", csv_folder, "--output-dir", tmp_path])
    assert done.returncode == 0, done.stderr
    metrics = metrics_of(tmp_path / "explore")
    assert metrics["models"] == {}
    assert [row["training images"] for row in metrics["statistics"]["classes"]] == [60] * 10
    assert len(list((tmp_path / "explore").glob("*.png"))) == 6
    assert sum(metrics["data"]["pixel_histogram"]) == 600 * 28 * 28
    assert np.diag(metrics["data"]["look_alikes"]) == pytest.approx(1)
    means = np.array(metrics["data"]["class_means"]).mean(axis=1) / 255
    assert means == pytest.approx([row["pixel mean"] for row in metrics["statistics"]["classes"]], abs=1e-4)


def test_several_seeds_give_mean_and_std(run_here, no_pictures, csv_folder, tmp_path):
    run_here(["speedrun", "--seeds", "3", "--epochs", "1", "--data-dir", csv_folder, "--output-dir", tmp_path])
    metrics = metrics_of(tmp_path / "speedrun")
    for model in metrics["models"].values():
        accuracies = [run["test_accuracy"] for run in model["seeds"]]
        assert [run["seed"] for run in model["seeds"]] == [0, 1, 2]
        assert model["mean"]["test_accuracy"] == pytest.approx(np.mean(accuracies))
        assert model["std"]["test_accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
        assert model["test_accuracy"] == accuracies[0], "the weights that are kept are the first seed's"
    assert metrics["comparisons"][0]["test"] == "paired t"


# kernel_vis.py


def test_a_photograph_is_classified_and_drawn(classic, look):
    done = look("--image", PHOTOGRAPH, "--output-dir", classic.parent)
    (likeliest,) = [line for line in done.stdout.splitlines() if line.startswith("CNN, ")]
    assert likeliest.count("%") == 3, "the three likeliest classes are printed"
    assert all(
        is_picture(classic / name)
        for name in (*LAYERS, "explanation.png", "photograph.png", "photograph_photograph.jpg.png")
    )


def test_photographs_leave_each_other_alone_and_enter_the_report(classic, look, tmp_path):
    pictures = []
    for garment in (garments.boot, garments.shirt):
        image = tmp_path / f"my {garment.__name__}.png"
        garments.grey(255 - 255 * garments.placed(garment())).save(image)
        look("--image", image, "--output-dir", classic.parent)
        pictures.append(classic / f"photograph_{image.name}.png")
    assert all(map(is_picture, pictures))
    assert pictures[0].read_bytes() != pictures[1].read_bytes() == (classic / "photograph.png").read_bytes()
    assert all(
        embedded(classic / name, classic / "report.html") for name in (*LAYERS, "explanation.png", "photograph.png")
    )
    assert not embedded(pictures[0], classic / "report.html")


def embedded(picture: Path, page: Path) -> bool:
    return base64.b64encode(picture.read_bytes()).decode() in page.read_text()


def test_weights_are_taken_from_the_output_folder_or_else_from_where_runs_usually_write(
    classic, look, csv_folder, monkeypatch, tmp_path
):
    home, mine = tmp_path / "home", tmp_path / "mine"
    monkeypatch.setattr(kernel_vis, "HERE", home)
    usual = home / "outputs" / "classic"
    shutil.copytree(classic, usual)
    before = child.snapshot(home)
    drawn = look("--output-dir", mine, "--data-dir", csv_folder)
    assert f"weights: {usual / 'cnn.pth'}" in drawn.stdout
    assert all(is_picture(mine / "classic" / name) for name in LAYERS)
    assert child.snapshot(home) == before

    save_weights(mine / "classic", CNN, "classic", CNN.build().state_dict(), OWN)
    drawn = look("--output-dir", mine, "--data-dir", csv_folder)
    assert f"weights: {mine / 'classic' / 'cnn.pth'}" in drawn.stdout


def test_the_command_that_the_report_prints_shows_an_image_wherever_the_run_stands(classic, look, csv_folder, tmp_path):
    mine = shutil.copytree(classic, tmp_path / "out" / "of five")
    page = (mine / "report.html").read_text("utf-8")
    (command,) = re.findall(r"<code>python kernel_vis.py (.*? NUMBER)</code>", page)
    words = [word.replace("FOLDER", str(mine)).replace("NUMBER", "7") for word in command.split()]
    drawn = look(*words, "--output-dir", tmp_path / "out", "--data-dir", csv_folder)
    assert "CNN, test image 7, " in drawn.stdout
    assert all(is_picture(mine / name) for name in LAYERS)


def test_a_network_of_a_study_is_named_by_model(monkeypatch, tmp_path):
    monkeypatch.setattr(kernel_vis, "HERE", tmp_path / "home")
    weights = tmp_path / "classic" / "cnn-lr0.001.pth"
    weights.parent.mkdir()
    weights.touch()

    def found(*words: str) -> Path:
        return kernel_vis.find_weights(kernel_vis.parse_arguments([*words, "--output-dir", str(tmp_path)]), [])

    with pytest.raises(Refused, match=r"cnn.pth is not there; that run has cnn-lr0.001: name one by --model"):
        found()
    with pytest.raises(Refused, match=r"cnn-lr0.01.pth is not there; that run has cnn-lr0.001: name one by --model"):
        found("--model", "cnn-lr0.01")
    assert found("--model", "cnn-lr0.001") == weights
    for n in range(10):
        weights.with_stem(f"cnn-{n}").touch()
    with pytest.raises(Refused, match=r"that run has cnn-0, .*, cnn-7, 3 more: name one"):
        found()
    with pytest.raises(Refused, match="--model v1: batchnorm has ffn, cnn"):
        found("batchnorm", "--model", "v1")


def test_the_only_network_is_shown_without_being_built():
    assert kernel_vis.network_to_show([Network("net", "Net", "nowhere.py:Net")], "classic") == "net"


def test_a_comparison_is_of_no_recipe(tmp_path):
    asked = fashionmnist.parse_arguments(["resnet", "--compare", str(tmp_path)])
    with pytest.raises(Refused, match="--compare: trains nothing; leave out resnet"):
        options.comparison_folder(asked, RECIPES)


def test_weights_of_another_class_than_the_network_that_is_named(run_here, tmp_path):
    save_weights(tmp_path, CNN, "classic", CNN.build().state_dict(), OWN)
    (tmp_path / "net.py").write_text("from torch import nn\nclass Net(nn.Module): pass\n")
    words = ("--weights", tmp_path / "cnn.pth", "--network", f"{tmp_path / 'net.py'}:Net", "--image", PHOTOGRAPH)
    line = child.only_line(run_here((*words, "--output-dir", tmp_path / "out"), main=kernel_vis.main), 2)
    assert "is of another class; leave it out" in line


def test_pictures_of_another_network_do_not_enter_the_report_of_a_run(classic, look, tmp_path):
    mine = shutil.copytree(classic, tmp_path / "out" / "classic")
    kept = [mine / "report.html", mine / "checkpoints" / "run.json"]
    before = [path.read_bytes() for path in kept]
    save_weights(tmp_path, CNN, "classic", CNN.build().state_dict(), OWN)
    look("--weights", tmp_path / "cnn.pth", "--image", PHOTOGRAPH, "--output-dir", tmp_path / "out")
    assert is_picture(mine / "progression.png")
    assert [path.read_bytes() for path in kept] == before


@pytest.mark.parametrize(("named", "folder"), [([], "resnet"), (["choices"], "choices")])
def test_pictures_go_to_the_folder_of_the_recipe_that_the_weights_are_of(named, folder, look, tmp_path):
    save_weights(tmp_path, CNN, "resnet", CNN.build().state_dict(), OWN)
    look(*named, "--weights", tmp_path / "cnn.pth", "--image", PHOTOGRAPH, "--output-dir", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [folder]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet"], ["cnn.pth is not there", "python fashionmnist.py resnet"]),
        (["--name", "a wide"], ["cnn.pth is not there", "python fashionmnist.py classic --name 'a wide'"]),
        (["--weights", "cnn.pth", "--explain", "hat"], ["--explain hat", "T-shirt/top", "0 to 9"]),
        (["--index", "0", "--image", PHOTOGRAPH], ["--image", "not allowed with", "--index"]),
        (["--weights", "cnn.pth"], ["the first release of the data set", "trained on another"]),
    ],
    ids=["weights", "run", "class", "index and image", "release"],
)
def test_what_kernel_vis_refuses(arguments, words, run_here, csv_folder, monkeypatch, tmp_path):
    monkeypatch.setattr(kernel_vis, "HERE", tmp_path / "home")
    monkeypatch.chdir(tmp_path)
    save_weights(tmp_path, CNN, "classic", CNN.build().state_dict(), CURRENT)
    monkeypatch.setattr(data, "_release", lambda *_: data.FIRST)
    done = run_here([*arguments, "--output-dir", "out", "--data-dir", csv_folder], main=kernel_vis.main)
    line = child.only_line(done, 2)
    assert all(word in line for word in words), line
    assert child.snapshot(tmp_path / "out") == {}


# A network of the user's own


def test_a_network_of_the_users_own(bench, look, run_here, tmp_path):
    """The README's: trained, killed, resumed bit for bit, scored and drawn; its file runs only if it is named."""
    example = re.search(
        r"```python\n(from torch import nn\n.*?class Net.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    mine = tmp_path / "my_net.py"
    mine.write_text(example[1] + f"\n\nopen({str(tmp_path / 'imported')!r}, 'w').close()\n")
    name = ["--network", f"{mine}:Net"]
    settings = {"files": FILES, "patches": [child.NO_PICTURES, child.NO_REPORT]}
    words = ["--epochs", "3", "-b", "20", "--data-dir", bench.data, "--output-dir"]
    whole = child.run([*name, *words, tmp_path / "whole"], **settings)
    assert whole.returncode == 0, whole.stderr

    output = tmp_path / "killed"
    with child.started([*name, *words, output], files=FILES, patches=[*settings["patches"], at_step(15)]) as process:
        child.wait_for(process, "waits")
        process.kill()
    (tmp_path / "imported").unlink()
    line = child.only_line(child.run(["--resume", *words, output], **settings), 2)
    assert f"this run was begun with --network {mine}:Net; say so again" in line
    resumed = child.run(["--resume", *name, *words, output], **settings)
    assert "from epoch 2" in resumed.stdout
    assert not difference(outcome(output), outcome(tmp_path / "whole"))
    model = metrics_of(output / "classic")["models"]["net"]
    assert model["parameters"] == 16 * 9 + 16 + 16 * 13 * 13 * 10 + 10
    assert model["test_accuracy"] > 0.5

    (tmp_path / "imported").unlink()
    photograph = ["--image", PHOTOGRAPH, "--output-dir", output]
    refused = run_here(["--weights", output / "classic" / "net.pth", *photograph], main=kernel_vis.main)
    assert "add --network my_net.py:Net" in child.only_line(refused, 2)
    assert not (tmp_path / "imported").exists()
    assert "Net, photograph.jpg: " in look(*name, *photograph).stdout
    assert all(is_picture(output / "classic" / picture) for picture in LAYERS)


# Both


@pytest.mark.parametrize("script", ["fashionmnist.py", "kernel_vis.py"])
def test_help_answers_at_once(script):
    seconds = []  # of work, which other programs do not lengthen much
    for _ in range(3):
        before = os.times()
        assert as_a_user(script, "--help").returncode == 0
        after = os.times()
        seconds.append(after.children_user - before.children_user + after.children_system - before.children_system)
    assert 0 < min(seconds) < 0.5


def test_list_tells_recipes_and_published_figures(run_here):
    listed = run_here(["--list"], main=fashionmnist.main).stdout
    assert all(name in listed for name in RECIPES)
    assert "88.36" in listed


def test_real_data_pass_the_bar_after_one_epoch(real_folder, tmp_path):
    """What both networks must reach in the end, 80 %, they reach in their first epoch, and the CNN is ahead."""
    folders = ("--data-dir", real_folder, "--output-dir", tmp_path)
    done = measure.run(sys.executable, ROOT / "fashionmnist.py", "--epochs", 1, "--device", "cpu", *folders)
    # In MB, of torch and the pictures too: classic is to run on a small machine. More epochs take no more
    # (docs/performance.md).
    assert done.megabytes is None or done.megabytes < 1_250
    models = metrics_of(tmp_path / "classic")["models"]
    assert 0.80 < models["ffn"]["test_accuracy"] < models["cnn"]["test_accuracy"]
    for model in models.values():
        pooled = (10_000 * model["test_accuracy"] + 2_000 * model["train_subset_accuracy"]) / 12_000
        assert model["mean_accuracy"] == pytest.approx(pooled)
    assert as_a_user("kernel_vis.py", *folders).returncode == 0
