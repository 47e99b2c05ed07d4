"""The results table, the remarks below it, and --list, against cells worked out by hand."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from fmnist import files, report
from fmnist.tables import MEASURES, OPTIMIZER
from recipes import RECIPES
from tests.helpers.runs import EFFECTS, metrics, network, one, with_seeds


def table(run: dict) -> list[list[str]]:
    lines = [line for line in report.results_table(run).splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1, "the bars do not stand below each other"
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def remarks(run: dict) -> list[str]:
    return [line for line in report.results_table(run).splitlines() if line.startswith("- ")]


# The results table


def test_table_has_the_published_figure_and_the_difference_beside_the_measured_one():
    header, _, ffn, cnn = table(metrics())
    expected = "Network Parameters Test_% published points Train_%_(2,000_images) Pooled_% Test_loss Seconds"
    assert [name.replace(" ", "_") for name in header] == expected.split()
    assert ffn == ["FFN", "203,530", "88.41", "88.36", "+0.05", "90.00", "85.00", "0.5000", "4.0"]
    assert cnn == ["CNN", "421,642", "91.52", "-", "-", "90.00", "85.00", "0.5000", "4.0"]


def test_every_published_measure_gets_its_column_and_the_training_loss_only_then():
    published = {"parameters": 203530, "test_loss": 0.2689, "train_loss": 0.2318, "mean_accuracy": 0.8883}
    header, _, row = table(one(network("V", 0.88, published=published)))
    beside = {name: (row[i], row[i + 1]) for i, name in enumerate(header) if header[i + 1 : i + 2] == ["published"]}
    assert beside == {
        "Parameters": ("203,530", "203,530"),
        "Pooled %": ("85.00", "88.83"),
        "Test loss": ("0.5000", "0.2689"),
        "Train loss": ("0.2500", "0.2318"),
    }


def test_several_seeds_give_mean_std_and_verdicts_on_the_published_figures():
    run = one(with_seeds())
    header, _, row = table(run)
    cells = dict(zip(header, row, strict=True))
    assert cells["Test %"] == "88.50 ± 0.12"
    assert cells["Epoch"] == "7.5 ± 0.7"
    assert (cells["points"], cells["Seeds"], cells["Pooled %"]) == ("+0.14", "5", "85.00")
    assert remarks(run) == [
        "- Weights kept, confusion matrices and images: FFN of seed 4, 88.12 %",
        "- FFN (5 seeds): test accuracy 88.36 published, 88.50 ± 0.12 measured: exceeded; "
        "test loss 0.4100 published, 0.4000 ± 0.0100 measured: reproduced",
    ]


@pytest.mark.parametrize(("ffn", "words"), [(0.9001, "all, the lowest 90.01"), (0.9, "1 of 2, the lowest 90.00")])
def test_what_is_published_of_all_networks_is_held_against_the_lowest(ffn, words):
    run = metrics(published_minimum=0.9)
    run["models"]["ffn"] |= {"test_accuracy": ffn, "reproduction": {}}
    assert f"- Published: every network above 90.00 % test accuracy; measured: {words} %" in remarks(run)


def test_calibration_is_told_below_the_table_where_it_was_measured():
    calibrated = {"calibration": {"validation_images": 6000}, "temperature": 1.62, "ece": 0.0431, "ece_after": 0.0087}
    assert remarks(one(network("CNN", 0.9, **calibrated))) == [
        "- CNN: expected calibration error on the test images 4.31 %; "
        "at temperature 1.62, fitted on 6,000 validation images, 0.87 %"
    ]
    seeds = with_seeds()
    seeds["mean"] |= {"temperature": 1.5, "ece": 0.04, "ece_after": 0.01}
    seeds["std"] |= {"temperature": 0.1, "ece": 0.002, "ece_after": 0.001}
    assert remarks(one({**seeds, **calibrated}))[-1] == (
        "- FFN: expected calibration error on the test images 4.00 ± 0.20 %; "
        "at temperature 1.50 ± 0.10, fitted on 6,000 validation images, 1.00 ± 0.10 %"
    )


def test_a_training_loss_of_smoothed_labels_is_told_apart_from_a_test_loss():
    smoothed = {"config": {"network": {}, "training": {"seed": 0, "label_smoothing": 0.2}}}
    target = (1 - 0.2) * torch.eye(10)[:1] + 0.2 / 10  # what a perfect prediction would be
    least = F.cross_entropy(target.log(), torch.tensor([0]), label_smoothing=0.2).item()
    (line,) = remarks(one(network("CNN", 0.9, **smoothed)))
    assert f"labels smoothed by 0.2 cannot fall below {least:.4f}" in line
    assert remarks(one(network("CNN", 0.9))) == []


def test_columns_of_some_runs_only():
    """The epoch that was chosen, where one was, and what a recipe asks for."""
    usual = table(metrics())[0]
    assert not {"Epoch", "Multiply-adds", "Seconds/epoch"} & set(usual)
    run = metrics(columns=["multiply_adds", "seconds_per_epoch"])
    run["models"]["cnn"] |= {"multiply_adds": 4_241_152, "best_epoch": 137}
    header, _, *rows = table(run)
    ffn, cnn = (dict(zip(header, row, strict=True)) for row in rows)
    assert (cnn["Multiply-adds"], cnn["Epoch"], ffn["Seconds/epoch"]) == ("4,241,152", "137", "2.0")
    assert "Epoch: the best on the validation images" in report.results_table(run)


def test_every_column_that_a_recipe_asks_for_is_one_of_the_table():
    asked = {key for recipe in RECIPES.values() for key in recipe.columns}
    assert asked <= {OPTIMIZER, *(measure.key for measure in MEASURES if measure.if_asked)}


def test_a_recipe_that_asks_for_it_names_optimizer_and_loss():
    run = metrics(columns=["optimizer"])
    for name, optimizer, lr in (("ffn", "adadelta", 1.0), ("cnn", "adam", 1e-4)):
        run["models"][name]["config"] = {"network": {}, "training": {"optimizer": optimizer, "lr": lr}}
    header, _, *rows = table(run)
    assert header[1] == "Optimizer"
    assert [row[1] for row in rows] == ["adadelta, 1", "adam, 0.0001"]
    assert "the loss is the cross-entropy" in report.results_table(run)
    assert "Optimizer" not in table(metrics())[0]


def test_below_the_table_stand_warnings_verdicts_changes_comparisons_source_and_notes():
    run = metrics(notes=["A note\nof two lines."], source="A. Author, github.com/a/b", release="first")
    run["models"]["cnn"]["change"] = "convolutions"
    assert remarks(run) == [
        "- Warning: measured on the first release of the data set, whose test images are partly today's training "
        "images; accuracies are not comparable",
        "- Fewer than 5 seeds: no verdict on the published figures (--seeds 5)",
        "- CNN: convolutions (+3.11 points)",
        "- CNN - FFN: +3.11 points: these two trained networks differ (McNemar p < 0.001); one seed says nothing",
        "- Published figures: A. Author, github.com/a/b",
        "- A note of two lines.",
    ]
    assert "Warning" not in report.results_table(run | {"release": "current"})


def test_a_comparison_stands_with_its_interval():
    run = metrics()
    verdict = "no more than noise at 5 seeds; about 36 would tell (95 % interval; paired t p = 0.201)"
    run["comparisons"][0] |= {"difference": 0.0012, "interval": [-0.0010, 0.0034], "verdict": verdict}
    assert remarks(run)[-1] == f"- CNN - FFN: +0.12 points, -0.10 to +0.34: {verdict}"


def test_changes_say_why_and_what_they_gained_in_all():
    comparison = metrics()["comparisons"][0]
    run = metrics(total_gain=comparison | {"difference": 0.05})
    run["models"]["cnn"] |= {"change": "convolutions", "why": "a kernel sees neighbours"}
    lines = remarks(run)
    assert "- CNN: convolutions (+3.11 points): a kernel sees neighbours" in lines
    assert lines[2].startswith("- Total gain, CNN - FFN: +5.00 points: these two trained networks differ")


def test_published_losses_by_epoch_stand_beside_the_measured_ones_with_a_verdict_over_several_seeds():
    published = {"epochs": [{"train_loss": 0.05}, {"train_loss": 0.04}]}
    one_seed = remarks(one(network("CNN", 0.9, published=published)))
    assert one_seed == ["- CNN, training loss by epoch: 0.0500, 0.0400 published, 0.9000, 0.2500 measured"]
    verdicts = [{"train_loss": {"verdict": "reproduced", "n": 5}}]
    several = with_seeds(reproduced_epochs=verdicts) | {"published": published, "reproduction": {}}
    line = "- FFN, training loss by epoch: 0.0500, 0.0400 published, 0.2000 ± 0.1581 measured"
    assert f"{line}: reproduced" in remarks(one(several))
    several["seeds"] = several["seeds"][:4]
    assert line.replace("0.2000 ± 0.1581", "0.1500 ± 0.1291") in remarks(one(several))


def test_effects_have_a_table_of_their_own():
    run = metrics(effects=EFFECTS)
    lines = report.results_table(run).splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("| Effect"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start : start + 4]]
    assert rows[0] == ["Effect", "difference", "95 % interval", "verdict"]
    assert rows[2:] == [
        ["pool: stride for max", "-0.51", "-0.61 to -0.41", "more than noise"],
        ["pool x optimizer", "+0.02", "-", "one seed: no verdict"],
    ]
    assert "of one value in place of the other" in report.results_table(run)


def test_numbers_that_are_not_finite_are_left_out():
    header, _, row = table(one(network("A|B", float("nan"), test_loss=float("inf"))))
    assert row[0] == "A\\|B"
    assert not {"Test %", "Test loss"} & set(header)


def test_statistics_stand_alone_where_no_network_was_trained():
    rows = [
        {"class": "Bag", "images": 6000, "pixel deviation": 0.35},
        {"class": "Coat", "images": 6000, "pixel deviation": 0.4},
    ]
    statistics = {"pixel mean": 0.286, "classes": rows}
    lines = report.results_table(metrics(models={}, comparisons=[], statistics=statistics)).splitlines()
    assert lines[0] == "- pixel mean: 0.2860"
    assert "pixel standard deviation |" in lines[2]
    assert [cell.strip() for cell in lines[-1].split("|")] == ["", "Coat", "6,000", "0.4000", ""]


# --list


def test_the_list_says_of_each_recipe_what_was_published_by_whom_and_measured(tmp_path, monkeypatch):
    ffn = SimpleNamespace(
        name="ffn", title="FFN", training=SimpleNamespace(epochs=20), published={"test_accuracy": 0.8836}
    )
    own = SimpleNamespace(name="own", title="Own", training=SimpleNamespace(epochs=3), published={})
    how = {"summary": "in short", "source": "A. Author", "notes": ("A note.",), "published_minimum": None}
    recipe = SimpleNamespace(name="two", title="FFN and own", networks=(ffn, own), **how)
    of_all = SimpleNamespace(name="all", title="own", networks=(own,), **how | {"notes": (), "published_minimum": 0.9})
    bare = SimpleNamespace(name="explore", title="the data", summary="no network", source="", networks=(), notes=())
    (tmp_path / "two").mkdir()
    files.write_json(tmp_path / "two" / "metrics.json", metrics(models={"ffn": with_seeds(training_seconds=90.0)}))
    monkeypatch.setattr(report, "REFERENCE", tmp_path)
    assert report.listing([recipe, of_all, bare]).splitlines() == [
        "two: FFN and own",
        "    in short",
        "    published by A. Author",
        "    trained once in 1.5 minutes on cpu in fp32",
        "    measured before the recipe changed: the networks were ffn",
        "    ffn  FFN   20 epochs   test accuracy: 88.36 published, 88.50 ± 0.12 measured",
        "    own  Own    3 epochs   test accuracy:     - published,     - measured",
        "    A note.",
        "",
        "all: own",
        "    in short",
        "    published by A. Author",
        "    own  Own    3 epochs   test accuracy:  > 90 published,     - measured",
        "",
        "explore: the data",
        "    no network",
    ]


def test_importing_it_imports_nothing_heavy():
    program = "import sys, fmnist.report; print({'torch', 'numpy', 'matplotlib', 'jinja2', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
