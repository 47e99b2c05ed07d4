"""report.html against cells, counts and pixels worked out by hand."""

import base64
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import classification_report

from fmnist import captions, page
from fmnist.evaluation import Predictions
from fmnist.page import CORRECT_SHOWN, add_figures, write_report
from tests.helpers.needs import KILLED
from tests.helpers.runs import (
    CLASSES,
    CONFUSION,
    EFFECTS,
    IMAGES,
    LABELS,
    PREDICTED,
    metrics,
    network,
    one,
    predictions,
    with_seeds,
)

EVIL = (
    '<img src=x onerror="document.title=1">',
    "</script><script>document.title=2</script>",
    '"><b>{{ 7 * 7 }}</b> & %s',
)


def figure(folder: Path, name: str) -> Path:
    from PIL import Image

    Image.new("RGB", (8, 6), "white").save(folder / name, "PNG")
    return folder / name


def write(folder: Path, run: dict | None = None, classes: tuple = CLASSES, figures: tuple = ()) -> str:
    run = run or metrics()
    write_report(folder / "report.html", run, {name: predictions(name) for name in run["models"]}, figures, classes)
    return (folder / "report.html").read_text("utf-8")


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
    assert child.returncode == KILLED
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


def test_effects_have_a_table_where_there_are_some(tmp_path):
    text = write(tmp_path, metrics(effects=EFFECTS))
    assert "Main effects and interactions" in text
    assert "pool: stride for max" in text
    assert "Main effects" not in write(tmp_path, metrics())


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
    assert "<dt>Epochs</dt><dd>1</dd>" in text, "those of the seeds"
    assert "Confusion matrix, scores by class and images are of seed 4, 88.12 %, as are the weights in ffn.pth." in text


def test_the_page_says_how_it_was_made(tmp_path):
    run = metrics(release="first")
    text = write(tmp_path, run)
    said = (*(run[key] for key in ("created", "command", "commit", "processor")), "torch 2.14.1", "a folder")
    assert all(f"<dd>{value}</dd>" in text for value in said)
    assert "<strong>Warning: measured on the first release" in text


@pytest.mark.parametrize(
    ("network_class", "words"),
    [
        ("cnn:CNN", "--weights FOLDER/cnn.pth --index NUMBER"),
        ("my_net.py:Net", "--weights FOLDER/cnn.pth --network my_net.py:Net --index NUMBER"),
        ("numpy_ffn:NumpyFFN", "--weights FOLDER/ffn.pth --index NUMBER"),
        ("no_such_module:Net", "--weights FOLDER/cnn.pth --index NUMBER"),  # nothing is imported
    ],
)
def test_the_page_says_how_to_look_at_one_of_its_images(tmp_path, network_class, words):
    run = metrics()
    run["models"]["cnn"]["config"] = {"network": {"class": network_class}, "training": {}}
    assert f"<code>python kernel_vis.py {words}</code>" in write(tmp_path, run)


def test_an_audit_says_that_networks_were_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "remarks", lambda _: [])  # they want its numbers
    for more, said in (({}, "before any network is trained"), ({"audit": {}}, "networks that had not seen them")):
        run = metrics(recipe="explore", models={}, comparisons=[], **more)
        assert said in write(tmp_path, run)
        assert "kernel_vis.py --weights" not in write(tmp_path, run)


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
