"""report.html in a real browser: a click on a cell shows its images, and the page fits a phone."""

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fmnist import report
from tests.test_report import EVIL, evil_run, metrics, write

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=3000",
    "--dump-dom",
]

pytestmark = pytest.mark.skipif(not BROWSER and not os.environ.get("CI"), reason="no chromium on this machine")

REPORT = """
const told = (value) => document.body.append(Object.assign(document.createElement("pre"),
  {id: "told", textContent: JSON.stringify(value)}));
const cell = (network, truth, answer) => document.querySelector(
  `button[data-network="${network}"][data-true="${truth}"][data-predicted="${answer}"]`);
const panel = (network) => {
  const made = document.getElementById("panel-" + network);
  return {
    title: made.querySelector("h4").textContent,
    words: made.querySelector("p").textContent,
    tiles: [...made.querySelectorAll("li")].map((item) => item.innerText.split("\\n")),
    places: [...made.querySelectorAll(".tile")].map((tile) => getComputedStyle(tile).backgroundPosition),
    pictures: [...made.querySelectorAll(".tile")].map((tile) => getComputedStyle(tile).backgroundImage.slice(0, 27)),
    pressed: [...document.querySelectorAll(`button[data-network="${network}"][aria-pressed=true]`)].map(
      (button) => button.textContent),
    height: made.getBoundingClientRect().height,
  };
};
"""


def told(page: Path, profile: Path) -> object:
    """Open `page` in the browser and return what its script told."""
    command = [BROWSER or "chromium", *FLAGS, f"--user-data-dir={profile}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stderr[-2000:]
    return json.loads(unescape(found[1]))


def with_script(folder: Path, text: str, script: str) -> Path:
    """A copy of the page at whose end a script clicks, as a reader would, and tells what it sees."""
    before, after = text.rsplit("</body>", 1)
    copy = folder / "clicked.html"
    copy.write_text(f"{before}<script>{REPORT}{script}</script></body>{after}", "utf-8")
    return copy


def test_a_click_on_a_cell_shows_its_images(tmp_path):
    script = """
    const first = panel(0);
    cell(0, 0, 1).click();
    const wrong = panel(0), other = panel(1);
    cell(1, 2, 2).click();
    cell(1, 2, 2).focus();
    told({first, wrong, other, right: panel(1), focused: document.activeElement.textContent});
    """
    seen = told(with_script(tmp_path, write(tmp_path), script), tmp_path / "profile")
    first, wrong, right = seen["first"], seen["wrong"], seen["right"]
    assert first["title"] == "Surest mistakes"
    assert [tile[0] for tile in first["tiles"]] == ["71.0\u00a0%", "66.0\u00a0%", "63.0\u00a0%", "62.0\u00a0%"]
    assert first["tiles"][0][1:] == ["Bag → T-shirt/top", "true: 14.5\u00a0%", "no. 11"]
    assert wrong["title"] == "T-shirt/top → Trouser"
    assert wrong["tiles"] == [
        ["63.0\u00a0%", "true: 18.5\u00a0%", "no. 3"],
        ["62.0\u00a0%", "true: 19.0\u00a0%", "no. 2"],
    ]
    assert wrong["places"] == ["-252px 0px", "-168px 0px"], "tiles 3 and 2, each 84 pixels wide"
    assert set(wrong["pictures"]) == {'url("data:image/png;base64,'}
    assert wrong["pressed"] == ["2"]
    assert wrong["height"] > 100
    assert seen["other"]["title"] == "Surest mistakes", "the other network's panel stays as it was"
    assert len(right["tiles"]) == 5
    assert right["words"].startswith("5 images of class Bag, answered correctly")
    assert seen["focused"] == "5", "a cell can be reached by keyboard"


@pytest.mark.fault(35, "markup in a file name or class name shown in report.html")
def test_markup_in_names_does_nothing_in_a_browser_but_show(tmp_path):
    script = """
    cell(0, 0, 1).click();
    setTimeout(() => told({title: document.title, shown: panel(0).title, scripts: document.scripts.length}), 500);
    """
    seen = told(with_script(tmp_path, evil_run(tmp_path), script), tmp_path / "profile")
    assert seen == {"title": EVIL[1], "shown": f"{EVIL[0]} → {EVIL[1]}", "scripts": 3}


def ten_classes(folder: Path) -> str:
    """A page as wide as pages get: ten classes with the data set's names, and counts of four digits."""
    names = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
    labels = np.repeat(np.arange(10), 1000)
    answers = np.where(np.arange(10000) % 1000 < 100, np.arange(10000) % 10, labels)
    answers[labels == 9] = 9
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (labels, answers), 1)
    shares = dict.fromkeys(("precision", "recall", "f1"), [0.888] * 9 + [1.0])
    evaluation = SimpleNamespace(
        probabilities=np.eye(10, dtype=np.float32)[answers], labels=labels, confusion=confusion, per_class=shares
    )
    images = np.zeros((10000, 28, 28), np.uint8)
    report.write_report(folder / "report.html", metrics(), {"ffn": evaluation, "cnn": evaluation}, images, [], names)
    return (folder / "report.html").read_text("utf-8")


@pytest.mark.parametrize("width", [360, 400, 800, 1280])
def test_the_page_is_no_wider_than_the_screen(tmp_path, width):
    script = """
    const cells = [...document.querySelectorAll(".confusion th, .confusion td")];
    const cut = cells.filter((cell) => cell.scrollWidth > cell.clientWidth);
    parent.postMessage([innerWidth, document.documentElement.scrollWidth, cut.map((e) => e.textContent)], "*");
    """
    page = with_script(tmp_path, ten_classes(tmp_path), f"cell(0, 0, 1).click(); {script}")
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"<body><script>{REPORT} addEventListener('message', (message) => told(message.data));</script>"
        f'<iframe src="{page.name}" style="width: {width}px; height: 900px; border: 0"></iframe>',
        "utf-8",
    )
    inner, needed, cut = told(frame, tmp_path / "profile")
    assert inner == width
    assert needed <= width
    assert cut == []
