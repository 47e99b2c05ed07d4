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

from fmnist import report
from fmnist.report import MEASURES
from recipes import RECIPES

CLASSES = ("T-shirt/top", "Trouser", "Bag")
LABELS = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2]
ANSWERS = {"ffn": [0, 0, 1, 1, 1, 1, 0, 2, 2, 2, 2, 0], "cnn": [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2]}
CONFUSION = {"ffn": [[2, 2, 0], [1, 2, 0], [1, 0, 4]], "cnn": [[3, 1, 0], [0, 3, 0], [0, 0, 5]]}
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
EVIL = (
    '<img src=x onerror="document.title=1">',
    "</script><script>document.title=2</script>",
    '"><b>{{ 7 * 7 }}</b> & %s',
)


def evaluation(name: str) -> SimpleNamespace:
    """Image i is answered with probability 0.60 + i/100; half of the rest goes to each other class."""
    sure = 0.6 + np.arange(12) / 100
    probabilities = np.repeat((1 - sure)[:, None] / 2, 3, axis=1)
    probabilities[np.arange(12), ANSWERS[name]] = sure
    third = {"precision": [0.5, 0.5, 1.0], "recall": [0.5, 2 / 3, 0.8], "f1": [0.5, 4 / 7, 8 / 9]}
    return SimpleNamespace(
        probabilities=probabilities.astype(np.float32),
        labels=np.array(LABELS),
        confusion=np.array(CONFUSION[name]),
        per_class=third,
    )


def network(title: str, accuracy: float, **more: object) -> dict:
    return {
        "title": title,
        "parameters": 203530,
        "test_accuracy": accuracy,
        "train_subset_accuracy": 0.9,
        "mean_accuracy": 0.85,
        "test_loss": 0.5,
        "epochs": [{"train_loss": 0.9, "seconds": 2.0}, {"train_loss": 0.25, "seconds": 2.0}],
        "training_seconds": 4.0,
        "seconds_per_epoch": 2.0,
        **more,
    }


def metrics(**more: object) -> dict:
    models = {
        "ffn": network("FFN", 0.8841, published={"test_accuracy": 0.8836}),
        "cnn": network("CNN", 0.9152, parameters=421642),
    }
    comparison = {"a": "ffn", "b": "cnn", "difference": 0.0311, "p_value": 0.0002, "n": 10000}
    comparison |= {"test": "McNemar", "verdict": "more than noise"}
    return {"recipe": "classic", "title": "Two", "models": models, "comparisons": [comparison], **more}


def figure(folder: Path, name: str) -> Path:
    from PIL import Image

    Image.new("RGB", (8, 6), "white").save(folder / name, "PNG")
    return folder / name


def write(folder: Path, run: dict | None = None, classes: tuple = CLASSES, figures: tuple = ()) -> str:
    evaluations = {name: evaluation(name) for name in ("ffn", "cnn")}
    report.write_report(folder / "report.html", run or metrics(), evaluations, IMAGES, figures, classes)
    return (folder / "report.html").read_text("utf-8")


def table(run: dict) -> list[list[str]]:
    lines = [line for line in report.results_table(run).splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1, "the bars do not stand below each other"
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


# The results table


def test_table_has_the_published_figure_and_the_difference_beside_the_measured_one():
    header, _, ffn, cnn = table(metrics())
    expected = "Network Parameters Test_% published points Subset_% Mean_% Test_loss Seconds"
    assert [name.replace(" ", "_") for name in header] == expected.split()
    assert ffn == ["FFN", "203,530", "88.41", "88.36", "+0.05", "90.00", "85.00", "0.5000", "4.0"]
    assert cnn == ["CNN", "421,642", "91.52", "-", "-", "90.00", "85.00", "0.5000", "4.0"]


def test_every_published_measure_gets_its_column_and_the_training_loss_only_then():
    published = {"parameters": 203530, "test_loss": 0.2689, "train_loss": 0.2318, "mean_accuracy": 0.8883}
    header, _, row = table({"models": {"v": network("V", 0.88, published=published)}})
    beside = {name: (row[i], row[i + 1]) for i, name in enumerate(header) if header[i + 1 : i + 2] == ["published"]}
    assert beside == {
        "Parameters": ("203,530", "203,530"),
        "Mean %": ("85.00", "88.83"),
        "Test loss": ("0.5000", "0.2689"),
        "Train loss": ("0.2500", "0.2318"),
    }


def test_several_seeds_give_mean_spread_and_their_number():
    several = {
        "seeds": [{"seed": 0}, {"seed": 1}, {"seed": 2}],
        "mean": {"test_accuracy": 0.8850, "test_loss": 0.4},
        "std": {"test_accuracy": 0.0012, "test_loss": 0.01},
        "published": {"test_accuracy": 0.8836},
    }
    header, _, row = table({"models": {"ffn": network("FFN", 0.7, **several)}})
    cells = dict(zip(header, row, strict=True))
    assert cells["Test %"] == "88.50 ± 0.12"
    assert cells["Test loss"] == "0.4000 ± 0.0100"
    assert (cells["points"], cells["Seeds"], cells["Subset %"]) == ("+0.14", "3", "90.00")


def test_the_epoch_that_was_chosen_has_a_column_where_one_was():
    chosen = {"models": {"v1": network("V1", 0.9, best_epoch=8), "v2": network("V2", 0.9, best_epoch=137)}}
    header, _, *rows = table(chosen)
    assert [row[header.index("Epoch")] for row in rows] == ["8", "137"]
    assert "Epoch: the best on the validation images" in report.results_table(chosen)
    several = network("V1", 0.9, best_epoch=8, seeds=[{}, {}], mean={"best_epoch": 7.5}, std={"best_epoch": 0.7071})
    header, _, row = table({"models": {"v1": several}})
    assert row[header.index("Epoch")] == "7.5 ± 0.7"


def test_columns_that_a_recipe_asks_for_are_shown_and_no_others():
    usual = report.results_table(metrics()).splitlines()[0]
    assert "Multiply-adds" not in usual
    numbers = metrics(columns=["multiply_adds", "seconds_per_epoch"])
    numbers["models"]["cnn"]["multiply_adds"] = 4_241_152
    header, _, ffn, cnn = report.results_table(numbers).splitlines()[:4]
    assert "Multiply-adds" in header
    assert "Seconds/epoch" in header
    assert "4,241,152" in cnn
    assert " 2.0 |" in ffn


def test_every_column_that_a_recipe_asks_for_is_one_of_the_table():
    asked = {key for recipe in RECIPES.values() for key in recipe.columns}
    assert asked <= {measure.key for measure in MEASURES if measure.if_asked}


def test_below_the_table_stand_changes_comparisons_and_notes():
    run = metrics(notes=["A note\nof two lines."])
    run["models"]["cnn"]["change"] = "convolutions"
    lines = report.results_table(run).splitlines()
    assert lines[-3:] == [
        "- CNN: convolutions (+3.11 points)",
        "- CNN - FFN: +3.11 points, McNemar p < 0.001, n = 10,000: more than noise",
        "- A note of two lines.",
    ]
    run["comparisons"][0]["p_value"] = 0.25
    assert "McNemar p = 0.250, n = 10,000" in report.results_table(run)


def test_numbers_that_are_missing_or_not_finite_are_left_out():
    header, _, row = table({"models": {"v": network("A|B", float("nan"), test_loss=None)}})
    assert row[0] == "A\\|B"
    assert not {"Test %", "Test loss"} & set(header)


def test_statistics_stand_alone_where_no_network_was_trained():
    rows = [{"class": "Bag", "images": 6000, "mean": 0.35}, {"class": "Coat", "images": 6000, "mean": 0.4}]
    text = report.results_table({"models": {}, "statistics": {"pixel mean": 0.286, "classes": rows}})
    assert text.splitlines()[0] == "- pixel mean: 0.2860"
    assert text.splitlines()[-1] == "| Coat  |  6,000 | 0.4000 |"


# Files written whole


@pytest.mark.parametrize("file", ["metrics.json", "report.html"])
def test_a_kill_while_writing_leaves_the_earlier_file(tmp_path, file):
    (tmp_path / file).write_bytes(b"before")
    program = (
        "import os, sys, time; from pathlib import Path; from fmnist import files; from tests import test_report\n"
        "os.fsync = lambda file: (print('written', flush=True), time.sleep(60))\n"
        "folder = Path(sys.argv[1])\n"
        "files.write_json(folder / 'metrics.json', {}) if 'json' in sys.argv[2] else test_report.write(folder)"
    )
    command = [sys.executable, "-c", program, str(tmp_path), file]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "written\n"
        child.kill()
    assert child.returncode == -signal.SIGKILL
    assert (tmp_path / file).read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 2, "the kill came while the new file was beside it"


# report.html


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
    assert 'aria-label="2 of class T-shirt/top, answered Trouser"' in text


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


def test_margins_show_precision_recall_and_f1(tmp_path):
    margins = re.findall(r'<td class="margin">([^<]*)</td>', write(tmp_path))[:9]
    assert margins == ["50", "67", "80", "50", "50", "100", "50", "57", "89"]


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
    assert all(words in body for words in ("88.41", "+0.05", "CNN - FFN: +3.11 points, McNemar p < 0.001"))


def evil_run(folder: Path) -> str:
    """A page in which everything that comes from outside is markup."""
    image, script, quote = EVIL
    run = metrics(title=script, notes=list(EVIL), data={"source": image}, versions={quote: script}, seed=quote)
    run["models"]["ffn"] |= {"title": image, "change": script, "config": {"arguments": {quote: [image]}}}
    run["statistics"] = {image: script, "rows": [{quote: image}]}
    files = [figure(folder, "<img src=x onerror=alert(1)>.png"), figure(folder, 'ffn_"><script>.png')]
    return write(folder, run, EVIL, tuple(zip((image, script), files, strict=True)))


@pytest.mark.fault(35, "markup in a file name or class name shown in report.html")
def test_markup_from_outside_is_escaped_everywhere(tmp_path):
    text = evil_run(tmp_path)
    page = Page(text)
    assert len(page.all("script")) == 2
    assert len(page.all("img")) == 2
    assert all(attributes["src"].startswith("data:") for attributes in page.all("img"))
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    assert "document.title=2</script>" not in text
    assert "<b>49</b>" not in text
    assert pictures(text)["classes"] == list(EVIL), "escaped, and yet the same names"


def test_an_exploration_has_figures_and_statistics_only(tmp_path):
    run = {"recipe": "explore", "models": {}, "statistics": {"pixel mean": 0.286}}
    report.write_report(tmp_path / "report.html", run, {}, None, [("Counts", figure(tmp_path, "counts.png"))], CLASSES)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "0.2860" in text
    assert "<b>Counts</b>" in text
    assert not re.search('<script|class="confusion"', text)


def test_a_network_without_images_still_shows_its_confusion(tmp_path):
    run = {"models": {"ffn": network("FFN", 0.66, confusion=CONFUSION["ffn"])}}
    report.write_report(tmp_path / "report.html", run, {}, None, [], CLASSES)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert 'class="confusion"' in text
    assert "<button" not in text


def test_two_networks_of_the_usual_accuracy_stay_small_even_where_images_do_not_compress(tmp_path):
    generator = np.random.default_rng(1)
    images = generator.integers(0, 256, (10000, 28, 28), dtype=np.uint8)
    labels = np.arange(10000) % 10
    evaluations = {}
    for name, accuracy in (("ffn", 0.88), ("cnn", 0.91)):
        answers = np.where(generator.random(10000) < accuracy, labels, generator.integers(0, 10, 10000))
        confusion = np.zeros((10, 10), int)
        np.add.at(confusion, (labels, answers), 1)
        probabilities = np.full((10000, 10), 0.01, np.float32)
        probabilities[np.arange(10000), answers] = 0.91
        arrays = {"probabilities": probabilities, "labels": labels, "confusion": confusion}
        evaluations[name] = SimpleNamespace(**arrays, per_class={})
    report.write_report(tmp_path / "report.html", metrics(), evaluations, images, [], "abcdefghij")
    text = (tmp_path / "report.html").read_text("utf-8")
    assert len(text) < 6e6
    for (name, scored), shown in zip(evaluations.items(), pictures(text)["images"], strict=True):
        off_diagonal = scored.confusion.sum() - np.trace(scored.confusion)
        assert sum(image[2] != image[3] for image in shown) == off_diagonal, f"{name}: all mistakes are there"
        assert sum(image[2] == image[3] for image in shown) == 10 * report.CORRECT_SHOWN


def test_importing_it_imports_nothing_heavy():
    program = "import sys, fmnist.report; print({'torch', 'matplotlib', 'jinja2', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
