"""The table and report.html against cells, counts and pixels worked out by hand."""

import base64
import json
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import classification_report, precision_recall_fscore_support

from fmnist import captions, files, page, report
from fmnist.evaluation import Predictions
from fmnist.page import CORRECT_SHOWN, add_figures, write_report
from fmnist.tables import MEASURES, OPTIMIZER
from recipes import RECIPES

CLASSES = ("T-shirt/top", "Trouser", "Bag")
LABELS = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2]
PREDICTED = {"ffn": [0, 0, 1, 1, 1, 1, 0, 2, 2, 2, 2, 0], "cnn": [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2]}
CONFUSION = {"ffn": [[2, 2, 0], [1, 2, 0], [1, 0, 4]], "cnn": [[3, 1, 0], [0, 3, 0], [0, 0, 5]]}
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
EVIL = (
    '<img src=x onerror="document.title=1">',
    "</script><script>document.title=2</script>",
    '"><b>{{ 7 * 7 }}</b> & %s',
)


def predictions(name: str) -> Predictions:
    """Image i is predicted with probability 0.60 + i/100; half of the rest goes to each other class."""
    confidence = 0.6 + np.arange(12) / 100
    probabilities = np.repeat((1 - confidence)[:, None] / 2, 3, axis=1)
    probabilities[np.arange(12), PREDICTED[name]] = confidence
    return Predictions(IMAGES, np.array(LABELS), probabilities.astype(np.float32))


def per_class(labels: list, predicted: list) -> dict:
    names = ("precision", "recall", "f1", "support")
    scores = precision_recall_fscore_support(labels, predicted, zero_division=0)
    return {name: values.tolist() for name, values in zip(names, scores, strict=True)}


def network(title: str, accuracy: float, predicted: str = "ffn", **more: object) -> dict:
    return {
        "title": title,
        "change": "",
        "why": "",
        "published": {},
        "reproduction": {},
        "reproduced_epochs": [],
        "parameters": 203530,
        "multiply_adds": 203264,
        "test_accuracy": accuracy,
        "train_subset_accuracy": 0.9,
        "mean_accuracy": 0.85,
        "test_loss": 0.5,
        "train_loss": 0.25,
        "confusion": CONFUSION[predicted],
        "per_class": per_class(LABELS, PREDICTED[predicted]),
        "config": {"network": {"hidden": [256]}, "training": {"seed": 4}},
        "epochs": [{"train_loss": 0.9, "train_accuracy": 0.7}, {"train_loss": 0.25, "train_accuracy": 0.9}],
        "training_seconds": 4.0,
        "seconds_per_epoch": 2.0,
        **more,
    }


def metrics(**more: object) -> dict:
    one_seed = {"test_accuracy": {"verdict": "one seed: no verdict", "n": 1}}
    models = {
        "ffn": network("FFN", 0.8841, published={"test_accuracy": 0.8836}, reproduction=one_seed),
        "cnn": network("CNN", 0.9152, "cnn", parameters=421642),
    }
    comparison = {"a": "ffn", "b": "cnn", "difference": 0.0311, "p_value": 0.0002, "n": 10000, "test": "McNemar"}
    comparison |= {"verdict": "these two trained networks differ (McNemar p < 0.001); one seed says nothing"}
    machine = {"device": "cpu", "precision": "fp32", "threads": 2, "versions": {"torch": "2.14.1"}}
    machine |= {"processor": "M1", "created": "2026-01-02T03:04:05", "command": "python f.py", "commit": "abc"}
    rest = {"source": "", "seed": 0, "data": {"source": "a folder"}, "best": None, "columns": [], "notes": []}
    rest |= {"release": "current", "effects": []}
    return {
        "recipe": "classic",
        "title": "Two",
        "models": models,
        "comparisons": [comparison],
        **machine,
        **rest,
        **more,
    }


def one(model: dict) -> dict:
    return metrics(models={"v": model}, comparisons=[])


def with_seeds(**more: object) -> dict:
    """FFN from five seeds."""
    several = {
        "seeds": [{"seed": 4 + n, "epochs": [{"train_loss": 0.1 * n, "train_accuracy": 0.9}]} for n in range(5)],
        "mean": {"test_accuracy": 0.8850, "train_loss": 0.2, "test_loss": 0.4, "best_epoch": 7.5},
        "std": {"test_accuracy": 0.0012, "test_loss": 0.01, "best_epoch": 0.7071},
        "published": {"test_accuracy": 0.8836, "test_loss": 0.41},
        "reproduction": {
            "test_accuracy": {"verdict": "exceeded", "n": 5},
            "test_loss": {"verdict": "reproduced", "n": 5},
        },
    }
    return network("FFN", 0.8812, best_epoch=8, **several, **more)


def figure(folder: Path, name: str) -> Path:
    from PIL import Image

    Image.new("RGB", (8, 6), "white").save(folder / name, "PNG")
    return folder / name


def write(folder: Path, run: dict | None = None, classes: tuple = CLASSES, figures: tuple = ()) -> str:
    run = run or metrics()
    write_report(folder / "report.html", run, {name: predictions(name) for name in run["models"]}, figures, classes)
    return (folder / "report.html").read_text("utf-8")


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


EFFECTS = [
    {"factors": ["pool"], "low": "max", "high": "stride", "effect": -0.0051, "verdict": "more than noise"},
    {"factors": ["pool", "optimizer"], "low": "", "high": "", "effect": 0.0002, "verdict": "one seed: no verdict"},
]
EFFECTS[0] |= {"interval": [-0.0061, -0.0041], "degrees_of_freedom": 16, "p_value": 1e-4, "p_holm": 2e-4}


def test_effects_have_a_table_of_their_own(tmp_path):
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
    page = write(tmp_path, run)
    assert "Main effects and interactions" in page
    assert "pool: stride for max" in page
    assert "Main effects" not in write(tmp_path, metrics())


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
    recipe = SimpleNamespace(
        name="two", title="FFN and own", summary="in short", source="A. Author", networks=(ffn, own), notes=("A note.",)
    )
    bare = SimpleNamespace(name="explore", title="the data", summary="no network", source="", networks=(), notes=())
    (tmp_path / "two").mkdir()
    files.write_json(tmp_path / "two" / "metrics.json", metrics(models={"ffn": with_seeds(training_seconds=90.0)}))
    monkeypatch.setattr(report, "REFERENCE", tmp_path)
    assert report.listing([recipe, bare]).splitlines() == [
        "two: FFN and own",
        "    in short",
        "    published by A. Author",
        "    trained once in 1.5 minutes on cpu in fp32",
        "    measured before the recipe changed: the networks were ffn",
        "    ffn          FFN                       20 epochs   test accuracy: 88.36 published, 88.50 ± 0.12 measured",
        "    own          Own                        3 epochs   test accuracy:     - published,     - measured",
        "    A note.",
        "",
        "explore: the data",
        "    no network",
    ]


def test_importing_it_imports_nothing_heavy():
    program = "import sys, fmnist.report; print({'torch', 'numpy', 'matplotlib', 'jinja2', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# report.html


def test_a_kill_while_writing_leaves_the_earlier_page(tmp_path):
    (tmp_path / "report.html").write_bytes(b"before")
    program = (
        "import json, os, sys, time; from fmnist.page import write_report\n"
        "os.fsync = lambda file: (print('written', flush=True), time.sleep(60))\n"
        "write_report(sys.argv[1], json.loads(sys.argv[2]), {}, [], [])"
    )
    run = json.dumps(metrics(models={}, comparisons=[]))
    command = [sys.executable, "-c", program, str(tmp_path / "report.html"), run]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "written\n"
        child.kill()
    assert child.returncode == -signal.SIGKILL
    assert (tmp_path / "report.html").read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 2, "the kill came while the new file was beside it"


class Page(HTMLParser):
    """Every tag with its attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def pictures(text: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="pictures">(.*?)</script>', text, re.S)[1])


def test_every_cell_that_counts_something_is_a_button_with_its_number(tmp_path):
    text = write(tmp_path)
    cells = re.findall(
        r'<button type="button" data-network="(\d)" data-true="(\d)" data-predicted="(\d)"[^>]*>(\d+)</button>', text
    )
    expected = {
        tuple(map(str, (number, *place, count)))
        for number, name in enumerate(("ffn", "cnn"))
        for place, count in np.ndenumerate(np.array(CONFUSION[name]))
        if count
    }
    assert sorted(cells) == sorted(expected)
    assert 'aria-label="2 of true class T-shirt/top, predicted Trouser"' in text


def test_the_images_of_a_cell_are_the_right_ones_with_their_probabilities(tmp_path):
    ffn = pictures(write(tmp_path))["images"][0]
    wrong = {tuple(image[:1] + image[2:]) for image in ffn if image[2] != image[3]}
    assert wrong == {(2, 0, 1, 0.62, 0.19), (3, 0, 1, 0.63, 0.185), (6, 1, 0, 0.66, 0.17), (11, 2, 0, 0.71, 0.145)}
    assert len(ffn) == 12, "with few hits, all are there"


def test_each_tile_of_the_sprite_is_its_test_image(tmp_path):
    from PIL import Image

    text = write(tmp_path)
    png = base64.b64decode(re.search(r'\.tile \{ background-image: url\("data:image/png;base64,([^"]+)"\)', text)[1])
    sheet = np.asarray(Image.open(BytesIO(png)))
    data = pictures(text)
    assert sheet.shape == (28, 28 * data["perRow"])
    for index, tile, *_ in data["images"][0] + data["images"][1]:
        np.testing.assert_array_equal(sheet[:, 28 * tile : 28 * tile + 28], IMAGES[index])


def test_the_classification_report_is_scikit_learns(tmp_path):
    text = write(tmp_path, one(network("V", 7 / 12)) | {"models": {"ffn": network("V", 8 / 12)}})
    region = text[text.index('aria-label="Classification report of V"') :]
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", region, re.S)]
    expected = classification_report(LABELS, PREDICTED["ffn"], target_names=CLASSES, digits=3)
    lines = [re.split(r"\s{2,}", line.strip()) for line in expected.splitlines() if line.strip()]
    assert [list(filter(None, row)) for row in rows] == [["class", *lines[0]], *lines[1:]]


def test_figures_go_to_their_networks_and_the_drawn_confusion_gives_way_to_the_table(tmp_path):
    names = ("loss_curves.png", "ffn_loss.png", "cnn_examples.png", "cnn_confusion.png")
    files = [figure(tmp_path, name) for name in names]
    text = write(tmp_path, figures=tuple((f"title of {file.stem}", file) for file in files))
    places = [text.index(f"<b>title of {Path(name).stem}</b>") for name in names[:3]]
    sections = [text.index(f'<section id="{name}">') for name in ("figures", "network-1", "network-2")]
    assert sections[0] < places[0] < sections[1] < places[1] < sections[2] < places[2]
    assert "title of cnn_confusion" not in text
    assert base64.b64encode(files[0].read_bytes()).decode() in text


def test_the_page_fetches_nothing_and_needs_no_script_for_tables(tmp_path):
    text = write(tmp_path, figures=(("a", figure(tmp_path, "loss_curves.png")),))
    page = Page(text)
    links = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert not re.search("https?://", text)
    assert "default-src 'none'" in text
    assert not page.all("link")
    body = " ".join("".join(page.text).split())
    assert all(
        words in body
        for words in (
            "88.41",
            "+0.05",
            "CNN - FFN: +3.11 points: these two trained networks differ (McNemar p < 0.001)",
        )
    )


def evil_run(folder: Path) -> str:
    """A page in which everything that comes from outside is markup."""
    image, script, quote = EVIL
    run = metrics(title=script, notes=list(EVIL), data={"source": image}, versions={quote: script}, seed=quote)
    run |= dict.fromkeys(("source", "created", "command", "commit", "processor", "release", "device"), image)
    run["models"]["ffn"] |= {
        "title": image,
        "change": script,
        "config": {"arguments": {quote: [image]}, "training": {}},
    }
    run["comparisons"][0]["verdict"] = script
    run["statistics"] = {image: script, "rows": [{quote: image}]}
    names = ("<img src=x onerror=alert(1)>.png", 'ffn_"><script>.png', "ffn_loss.png")
    files = [figure(folder, name) for name in names]
    write(folder, run, EVIL, tuple(zip((image, script, quote), files, strict=True)))
    add_figures(folder / "report.html", [(script, files[0])])
    return (folder / "report.html").read_text("utf-8")


@pytest.mark.fault(35, "markup in a file name or class name shown in report.html")
def test_markup_from_outside_is_escaped_everywhere(tmp_path):
    text = evil_run(tmp_path)
    page = Page(text)
    assert len(page.all("script")) == 2
    assert len(page.all("img")) == 4
    assert all(attributes["src"].startswith("data:") for attributes in page.all("img"))
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    assert "document.title=2</script>" not in text
    assert "<b>49</b>" not in text
    assert pictures(text)["classes"] == list(EVIL), "escaped, and yet the same names"


def test_an_exploration_has_figures_and_statistics_only(tmp_path):
    run = metrics(recipe="explore", models={}, comparisons=[], statistics={"pixel mean": 0.286})
    write_report(tmp_path / "report.html", run, {}, [("Counts", figure(tmp_path, "counts.png"))], CLASSES)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "0.2860" in text
    assert "<b>Counts</b>" in text
    assert not re.search('<script|class="confusion"', text)


def test_a_network_without_predictions_still_shows_its_confusion(tmp_path):
    write_report(tmp_path / "report.html", metrics(), {}, [], CLASSES)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert text.count('class="confusion"') == 2
    assert "<button" not in text


def test_of_several_seeds_the_page_names_the_one_it_shows(tmp_path):
    text = " ".join(write(tmp_path, metrics(models={"ffn": with_seeds()}, comparisons=[], seed=4)).split())
    assert "<dt>Seeds</dt><dd>4 to 8</dd>" in text
    assert "<dt>Test accuracy, %, mean of 5 seeds</dt><dd>88.50 ± 0.12</dd>" in text
    assert "Confusion matrix, scores by class and images are of seed 4, 88.12 %, as are the weights in ffn.pth." in text


def test_the_page_says_how_it_was_made(tmp_path):
    run = metrics(release="first")
    text = write(tmp_path, run)
    said = (*(run[key] for key in ("created", "command", "commit", "processor")), "torch 2.14.1", "a folder")
    assert all(f"<dd>{value}</dd>" in text for value in said)
    assert "<strong>Warning: measured on the first release" in text


# Figures added later


def alternatives(text: str) -> dict[str, str]:
    """The alternative text of each figure, by its file."""
    return {attributes["title"]: attributes["alt"] for attributes in Page(text).all("img")}


def test_figures_added_later_take_the_place_of_those_added_before(tmp_path):
    before = write(tmp_path)
    page, first, second = (
        tmp_path / "report.html",
        figure(tmp_path, "kernels_grid.png"),
        figure(tmp_path, "photograph.png"),
    )
    add_figures(page, [("CNN: kernels of <conv1>", first)])
    once = page.read_text("utf-8")
    assert "<b>CNN: kernels of &lt;conv1&gt;</b>" in once
    assert alternatives(once) == {"kernels_grid.png": captions.WITHOUT_NUMBERS["kernels_grid"]}
    add_figures(page, [("A photograph", second)])
    twice = page.read_text("utf-8")
    assert list(alternatives(twice)) == ["photograph.png"]
    assert twice.count('<section id="layers">') == 1
    add_figures(page, [("CNN: kernels of <conv1>", first)])
    assert page.read_text("utf-8") == once
    added = re.sub(r"(<!-- layer figures -->).*(<!-- end of layer figures -->)", r"\1\2", once, flags=re.S)
    assert added == before, "nothing else has changed"


def test_figures_are_added_to_no_page_that_has_no_place_for_them(tmp_path):
    picture = figure(tmp_path, "kernels_grid.png")
    add_figures(tmp_path / "report.html", [("a", picture)])
    assert not (tmp_path / "report.html").exists()
    (tmp_path / "report.html").write_bytes(b"<html>of an earlier version")
    add_figures(tmp_path / "report.html", [("a", picture)])
    assert (tmp_path / "report.html").read_bytes() == b"<html>of an earlier version"
    page = write(tmp_path)
    with pytest.raises(FileNotFoundError, match="missing"):
        add_figures(tmp_path / "report.html", [("a", tmp_path / "missing.png")])
    assert (tmp_path / "report.html").read_text("utf-8") == page


def test_errors_that_are_not_embedded_are_counted_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "INCORRECT_SHOWN", 1)
    text = write(tmp_path)
    embedded = [sum(image[2] != image[3] for image in shown) for shown in pictures(text)["images"]]
    assert embedded == [3, 1], "the FFN takes two images of class 0 for class 1"
    assert re.findall(r'data-errors="(\d+)"', text) == ["4", "1"]


def test_two_networks_of_the_usual_accuracy_stay_small_even_where_images_do_not_compress(tmp_path):
    generator = np.random.default_rng(1)
    images = generator.integers(0, 256, (10000, 28, 28), dtype=np.uint8)
    labels = np.arange(10000) % 10
    made = {}
    for name, accuracy in (("ffn", 0.88), ("cnn", 0.91)):
        predicted = np.where(generator.random(10000) < accuracy, labels, generator.integers(0, 10, 10000))
        probabilities = np.full((10000, 10), 0.01, np.float32)
        probabilities[np.arange(10000), predicted] = 0.91
        made[name] = Predictions(images, labels, probabilities)
    write_report(tmp_path / "report.html", metrics(), made, [], "abc")
    text = (tmp_path / "report.html").read_text("utf-8")
    assert len(text) < 6e6
    for (name, own), shown in zip(made.items(), pictures(text)["images"], strict=True):
        assert sum(image[2] != image[3] for image in shown) == (~own.correct).sum(), f"{name}: all errors are there"
        assert sum(image[2] == image[3] for image in shown) == 10 * CORRECT_SHOWN
