"""--compare: finished runs from stored trials, against counts and tests worked out elsewhere; the page in a browser."""

import csv
import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from fmnist import comparison, comparison_page, runs, trials
from fmnist.config import TrainConfig
from fmnist.data import CLASSES, FashionMNIST
from fmnist.errors import Refused
from fmnist.files import write_json
from tests.test_report_browser import BROWSER, told

COUNT = 300
LABELS = np.arange(COUNT) % 10
EVIL = '</script><script>document.title="bad"</script><b>'


@pytest.fixture(scope="module")
def dataset() -> FashionMNIST:
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 28, 28), dtype=np.uint8)
    tensors = [torch.from_numpy(array) for array in (images[:20], LABELS[:20], images, LABELS)]
    return FashionMNIST(*tensors, "made up", "current")


class Writer:
    """Writes runs of trials as `fmnist.trials` stores them."""

    def __init__(self, folder: Path, dataset: FashionMNIST) -> None:
        self.folder, self.data = folder, dataset.digests()

    def run(self, name: str, *trained: dict, finished: bool = True) -> Path:
        kept = self.folder / name / "checkpoints"
        for trial in trained:
            self._trial(kept, **trial)
        trainings = {f"{trial['name']}-seed{trial.get('seed', 0)}": {} for trial in trained}
        files = {"metrics.json": "0"} if finished else {}
        kept.mkdir(parents=True, exist_ok=True)
        write_json(kept / "run.json", {"format": runs.FORMAT, "files": files, "options": {}, "trainings": trainings})
        return self.folder / name

    def _trial(self, kept: Path, name: str, wrong: np.ndarray, seed: int = 0, **more: object) -> None:
        folder = kept / f"{name}-seed{seed}"
        folder.mkdir(parents=True)
        probabilities = np.full((COUNT, 10), 0.02, np.float32)
        probabilities[np.arange(COUNT), np.where(wrong, (LABELS + 1) % 10, LABELS)] = 0.82
        np.savez(folder / "predictions.npz", probabilities=probabilities, labels=LABELS)
        training = asdict(TrainConfig(seed=seed)) | more.get("training", {})
        network = {"class": "ffn:FFN", "hidden": more.get("hidden", [256])}
        machine = {"device": "cpu", "precision": "fp32", "threads": 1}
        accuracy = float(1 - wrong.mean())
        scores = dict.fromkeys(("train_subset_accuracy", "mean_accuracy"), 0.9) | {"test_accuracy": accuracy}
        times = {"training_seconds": 2.0, "seconds_per_epoch": 1.0, "train_loss": 0.3, "test_loss": 1 - accuracy}
        validated = {"validation_accuracy": more["validation"], "validation_loss": 0.5} if "validation" in more else {}
        record = {
            **{
                "format": trials.FORMAT,
                "name": name,
                "title": more.get("title", name.upper()),
                "recipe": "classic",
                "seed": seed,
            },
            "release": more.get("release", "current"),
            "settings": {
                **{"network": network, "training": training, "machine": machine},
                "data": self.data | more.get("data", {}),
            },
            **{"summary": scores | times, "cost": {"parameters": 1000, "multiply_adds": 900}},
            "epochs": [{"train_loss": 0.3, **validated}, {"train_loss": 0.2, **validated}],
        }
        write_json(folder / "trial.json", record)


@pytest.fixture
def writer(tmp_path, dataset) -> Writer:
    return Writer(tmp_path / "out", dataset)


def wrong(fraction: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(COUNT) < fraction


def refusal(folders: list[Path], dataset: FashionMNIST) -> str:
    with pytest.raises(Refused) as caught:
        comparison.read(folders, dataset)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is compared


def test_seeds_of_equal_settings_are_one_network_whatever_runs_they_are_from(writer, dataset):
    array = [writer.run(f"s{n}", {"name": "ffn", "seed": n, "wrong": wrong(0.2, n)}) for n in (2, 0, 1)]
    wide = [{"name": "ffn", "seed": n, "wrong": wrong(0.1, 9 + n), "hidden": [512]} for n in range(3)]
    compared = comparison.read([*array, writer.run("wide", *wide)], dataset)
    assert [(entry.name, [trial.seed for trial in entry.trials]) for entry in compared.entries] == [
        ("ffn (s0)", [0, 1, 2]),
        ("ffn (wide)", [0, 1, 2]),
    ]
    assert compared.differences() == {"ffn (s0)": {"hidden": "256"}, "ffn (wide)": {"hidden": "512"}}
    (found,) = compared.comparisons
    accuracies = [[trial.test_accuracy for trial in entry.trials] for entry in compared.entries]
    expected = stats.ttest_rel(accuracies[1], accuracies[0])
    assert found["p_value"] == pytest.approx(expected.pvalue)
    assert found["difference"] == pytest.approx(np.mean(accuracies[1]) - np.mean(accuracies[0]))
    assert compared.notes == []


def test_one_seed_is_compared_by_the_images(writer, dataset):
    a, b = wrong(0.3, 1), wrong(0.2, 2)
    folders = [
        writer.run("one", {"name": "ffn", "wrong": a}),
        writer.run("two", {"name": "cnn", "wrong": b, "hidden": []}),
    ]
    (found,) = comparison.read(folders, dataset).comparisons
    only_a, only_b = int((b & ~a).sum()), int((a & ~b).sum())
    assert found["test"] == "McNemar"
    assert found["p_value"] == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue)


def test_the_auditors_of_a_run_are_not_compared(writer, dataset):
    auditors = [{"name": "auditor", "seed": n, "wrong": wrong(0.1, n), "data": {"part judged": n}} for n in range(2)]
    folders = [
        writer.run("record", {"name": "cnn", "wrong": wrong(0.2)}, *auditors),
        writer.run("record-small", {"name": "cnn", "wrong": wrong(0.3, 1), "hidden": []}, *auditors),
    ]
    assert len(comparison.read(folders, dataset).entries) == 2
    alone = writer.run("explore", *auditors)
    assert "that run has trained no network" in refusal([folders[0], alone], dataset)


def test_of_many_networks_each_is_compared_with_the_best_on_validation(writer, dataset):
    own = [
        {"name": f"v{n}", "hidden": [n], "wrong": wrong(0.1 + n / 50, n), "validation": 0.8 + (n == 5) / 10}
        for n in range(1, 9)
    ]
    compared = comparison.read([writer.run("study", *own)], dataset)
    assert [(one["a"], one["b"]) for one in compared.comparisons] == [("v5", f"v{n}") for n in (1, 2, 3, 4, 6, 7, 8)]


def test_unequal_seeds_are_told_and_only_what_can_be_paired_is(writer, dataset):
    def run(name: str, seeds: list[int], hidden: int) -> Path:
        own = [{"name": name, "seed": n, "wrong": wrong(0.2, hidden + n), "hidden": [hidden]} for n in seeds]
        return writer.run(name, *own)

    some = comparison.read([run("a", [0, 1, 2], 1), run("b", [1, 2, 3], 2)], dataset)
    assert (some.comparisons[0]["test"], some.comparisons[0]["n"]) == ("paired t", 2)
    assert some.notes == ["Compared over the seeds that all have: 1, 2"]
    none = comparison.read([run("c", [0, 1], 3), run("d", [2, 3], 4)], dataset)
    assert none.comparisons[0]["test"] == "McNemar"
    assert "fewer than two seeds in common" in none.notes[0]


def test_a_trial_that_two_runs_have_counts_once(writer, dataset):
    same = {"name": "ffn", "wrong": wrong(0.2)}
    other = {"name": "cnn", "wrong": wrong(0.1, 4), "hidden": [9]}
    compared = comparison.read([writer.run("a", same), writer.run("b", same, other)], dataset)
    assert [len(entry.trials) for entry in compared.entries] == [1, 1]
    assert "counted once: ffn-seed0 of b" in compared.notes[0]


# Refused


def test_what_cannot_be_compared_is_refused_by_its_folder(writer, dataset, tmp_path):
    fine = writer.run("fine", {"name": "ffn", "wrong": wrong(0.2)})
    other = {"name": "cnn", "wrong": wrong(0.2), "hidden": [3]}
    cases = {
        "holds no finished run": writer.run("unfinished", other, finished=False),
        "another release": writer.run("first", {**other, "release": "first"}),
        "other training data": writer.run("mine", {**other, "data": {"training data": "0"}}),
        "other test data": writer.run("tested", {**other, "data": {"test data": "0"}}),
        "trained no network": writer.run("explore"),
        "stands there twice": fine,
    }
    for words, folder in cases.items():
        message = refusal([fine, folder], dataset)
        assert words in message
        assert folder.name in message
    assert "holds no finished run" in refusal([fine, tmp_path / "nowhere"], dataset)
    assert "nothing to compare it with" in refusal([fine], dataset)
    elsewhere = dataset._replace(test_images=255 - dataset.test_images)
    assert "--data-dir" in refusal([fine, writer.run("more", other)], elsewhere)


def test_a_damaged_trial_is_named(writer, dataset):
    fine, hurt = (
        writer.run(name, {"name": name, "wrong": wrong(0.2), "hidden": [n]}) for n, name in enumerate(["a", "b"], 1)
    )
    path = hurt / "checkpoints" / "b-seed0" / "predictions.npz"
    path.write_bytes(path.read_bytes()[:-40])
    assert str(path) in refusal([fine, hurt], dataset)
    (path.parent / "trial.json").write_text("{}")
    assert "b-seed0 is missing or damaged" in refusal([fine, hurt], dataset)


# The page


def page(writer: Writer, dataset: FashionMNIST, a: np.ndarray, b: np.ndarray) -> Path:
    one = writer.run("one", {"name": "ffn", "wrong": a, "title": EVIL})
    two = writer.run("two", {"name": "cnn", "wrong": b, "hidden": [3], "title": "CNN"})
    third = writer.run("three", {"name": "v", "wrong": wrong(0.5, 7), "hidden": [4], "title": "V"})
    compared = comparison.read([one, two, third], dataset)
    content = comparison.content(compared)
    words = comparison_page.tell(compared, content)
    assert comparison_page.table(words).count("\n| ") == 4
    comparison_page.write(writer.folder / "c.html", compared, words, CLASSES)
    return writer.folder / "c.html"


def test_the_page_holds_the_images_that_some_get_right_and_others_do_not(writer, dataset):
    a, b = wrong(0.3, 1), wrong(0.2, 2)
    text = page(writer, dataset, a, b).read_text("utf-8")
    assert "default-src 'none'" in text
    assert "<script>document.title" not in text
    assert f"kernel_vis.py --weights {writer.folder / 'one' / 'ffn.pth'} --index NUMBER" in text
    embedded = json.loads(re.search(r'id="pictures">(.*?)</script>', text)[1])
    all_wrong = np.array([a, b, wrong(0.5, 7)])
    assert embedded["indices"] == np.flatnonzero(all_wrong.any(0) & ~all_wrong.all(0)).tolist()
    assert [network["correct"] for network in embedded["networks"]] == (~all_wrong).sum(1).tolist()


@pytest.mark.skipif(not BROWSER, reason="no chromium on this machine")
def test_any_two_networks_are_chosen_and_the_table_is_sorted_in_a_browser(writer, dataset, tmp_path):
    a, b = wrong(0.3, 1), wrong(0.2, 2)
    place = page(writer, dataset, a, b)
    script = """<script>
    const told = (value) => document.body.append(Object.assign(document.createElement("pre"),
      {id: "told", textContent: JSON.stringify(value)}));
    const numbers = (id) => [...document.querySelectorAll("#" + id + " .index")]
      .map((place) => Number(place.textContent.slice(4)));
    const choose = (id, value) => {
      document.getElementById(id).value = value;
      document.getElementById(id).dispatchEvent(new Event("change"));
    };
    const column = () => [...document.querySelectorAll(".results tbody tr")].map((row) => row.cells[0].textContent);
    const first = {a: numbers("only-a"), b: numbers("only-b"), words: document.getElementById("counts").textContent};
    choose("truth", "3");
    const dresses = numbers("only-a");
    choose("truth", "");
    choose("a", "1");
    choose("b", "0");
    const turned = {a: numbers("only-a"), b: numbers("only-b"), title: document.getElementById("title-a").textContent};
    const headers = [...document.querySelectorAll(".results thead button")];
    const test = headers.find((button) => button.textContent === "Test %");
    test.click();
    const up = column(), said = test.parentElement.getAttribute("aria-sort");
    test.click();
    told({first, dresses, turned, up, said, down: column(), headers: headers.length, title: document.title,
      hidden: document.querySelectorAll(".needs-script").length});
    </script>"""
    before, after = place.read_text("utf-8").rsplit("</body>", 1)
    (tmp_path / "clicked.html").write_text(f"{before}{script}</body>{after}", "utf-8")
    seen = told(tmp_path / "clicked.html", tmp_path / "profile")

    only_a, only_b = np.flatnonzero(b & ~a).tolist(), np.flatnonzero(a & ~b).tolist()
    assert (sorted(seen["first"]["a"]), sorted(seen["first"]["b"])) == (only_a, only_b)
    p = stats.binomtest(len(only_a), len(only_a) + len(only_b)).pvalue
    both, neither = int((~a & ~b).sum()), int((a & b).sum())
    words = seen["first"]["words"]
    assert f"both get {both} right" in words
    assert f"neither {neither}" in words
    assert f"alone {len(only_b)}" in words
    assert ("p < 0.001" if p < 0.001 else f"p = {p:.3f}") in words
    assert sorted(seen["dresses"]) == [n for n in only_a if LABELS[n] == 3]
    assert (sorted(seen["turned"]["a"]), seen["turned"]["title"]) == (only_b, "Only CNN")
    accuracy = {EVIL: 1 - a.mean(), "CNN": 1 - b.mean(), "V": 1 - wrong(0.5, 7).mean()}
    assert seen["up"] == sorted(accuracy, key=accuracy.get)
    assert seen["down"] == seen["up"][::-1]
    assert seen["said"] == "ascending"
    assert seen["title"] == "Runs compared"
    assert seen["hidden"] == 0
    assert seen["headers"] == 9


# From end to end


def test_runs_by_name_are_compared_by_the_command_line(run_here, folders, data_is_there, no_pictures):
    where = ["--data-dir", folders[0], "--output-dir", folders[1]]
    for seed in (0, 1):
        run_here(["--models", "ffn", "--epochs", "1", "--seed", seed, "--name", f"s{seed}", *where])
    run_here(["--models", "ffn", "--epochs", "1", "--seeds", "2", "--hidden", "8", "--name", "small", *where])
    named = [folders[1] / name for name in ("s0", "s1", "small")]
    done = run_here(["--compare", *named, *where])
    assert done.returncode == 0, done.stderr
    assert "paired t" in done.stdout
    assert {path.name for path in (folders[1] / "comparison").iterdir()} >= {"comparison.html", "comparison.json"}
    with open(folders[1] / "comparison" / "comparison.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    accuracies = {(row["name"], row["seed"]): float(row["test_accuracy"]) for row in rows}
    metrics = json.loads((folders[1] / "s1" / "metrics.json").read_text())
    assert accuracies["ffn (s0)", "1"] == metrics["models"]["ffn"]["test_accuracy"]
    assert len(rows) == 4

    def said(*words: object) -> str:
        refused = run_here([*words, *where])
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1
        return refused.stderr

    assert "leave out --epochs 3 --resume" in said("--compare", *named, "--epochs", "3", "--resume")
    assert "leave out resnet --resume" in said("resnet", "--compare", *named, "--resume")
    assert "is the folder of a run" in said("--compare", *named, "--name", "small")
    assert "is the folder of a run" in said("--compare", *named, "--name", "classic")
    assert "holds no finished run" in said("--compare", named[0], folders[1])
