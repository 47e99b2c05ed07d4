"""report.html in a real browser: by mouse and keyboard, in the dark, and on a phone."""

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from fmnist.evaluation import Predictions
from fmnist.page import write_report
from tests.helpers.runs import metrics, network
from tests.test_page import EVIL, evil_run, write

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
const cell = (network, truth, predicted) => document.querySelector(
  `button[data-network="${network}"][data-true="${truth}"][data-predicted="${predicted}"]`);
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


def told(page: Path, profile: Path, *flags: str) -> object:
    """Open `page` in the browser and return what its script told."""
    command = [BROWSER or "chromium", *FLAGS, *flags, f"--user-data-dir={profile}", page.as_uri()]
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
    told({first, wrong, other, correct: panel(1)});
    """
    seen = told(with_script(tmp_path, write(tmp_path), script), tmp_path / "profile")
    first, wrong, correct = seen["first"], seen["wrong"], seen["correct"]
    assert first["title"] == "Most confident errors"
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
    assert seen["other"]["title"] == "Most confident errors", "the other network's panel stays as it was"
    assert len(correct["tiles"]) == 5
    assert correct["words"].startswith("5 images of class Bag, predicted correctly")


def test_one_tab_stop_a_matrix_arrows_move_in_it_enter_goes_to_the_images_and_escape_comes_back(tmp_path):
    script = """
    const where = () => document.activeElement.ariaLabel || document.activeElement.className;
    const press = (key, more = {}) => {
      const event = new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true, ...more});
      document.activeElement.dispatchEvent(event);
      return [where(), event.defaultPrevented];
    };
    const stops = () => [...document.querySelectorAll(".confusion button")].filter((b) => b.tabIndex === 0)
      .map((b) => [b.dataset.network, b.dataset.true, b.dataset.predicted].join(""));
    const before = stops();
    cell(1, 0, 0).focus();
    const walk = ["Right", "Down", "Down", "Left", "Up", "Right"].map((way) => press("Arrow" + way));
    const browsers = press("ArrowLeft", {altKey: true});
    const after = stops();
    cell(0, 1, 0).focus();
    const entered = press("Enter"), title = panel(0).title, back = press("Escape");
    const other = press("x");
    cell(0, 2, 0).focus();
    told({before, walk, browsers, after, entered, title, back, other, leap: press("ArrowRight")[0]});
    """
    seen = told(with_script(tmp_path, write(tmp_path), script), tmp_path / "profile")
    assert seen["before"] == ["000", "100"]
    labels = [label.replace(" of true class", "").replace("T-shirt/top", "top") for label, _ in seen["walk"]]
    assert labels == [
        "1 top, predicted Trouser",
        "3 Trouser, predicted Trouser",
        "3 Trouser, predicted Trouser",  # nothing is counted below it, nor on its left
        "3 Trouser, predicted Trouser",
        "1 top, predicted Trouser",
        "1 top, predicted Trouser",
    ]
    assert all(prevented for _, prevented in seen["walk"]), "the page must not scroll"
    assert seen["browsers"] == [seen["walk"][-1][0], False], "back in the browser's history is not ours"
    assert seen["after"] == ["000", "101"], "the tab stop follows the focus"
    assert seen["entered"] == ["tiles", True]
    assert seen["title"] == "Trouser → T-shirt/top"
    assert seen["back"] == ["1 of true class Trouser, predicted T-shirt/top", True]
    assert seen["other"] == [seen["back"][0], False]
    assert seen["leap"] == "4 of true class Bag, predicted Bag", "over a cell that counts nothing"


@pytest.mark.fault(35, "markup in a file name or class name shown in report.html")
def test_markup_in_names_does_nothing_in_a_browser_but_show(tmp_path):
    script = """
    cell(0, 0, 1).click();
    setTimeout(() => told({title: document.title, shown: panel(0).title, scripts: document.scripts.length}), 500);
    """
    seen = told(with_script(tmp_path, evil_run(tmp_path), script), tmp_path / "profile")
    assert seen == {"title": EVIL[1], "shown": f"{EVIL[0]} → {EVIL[1]}", "scripts": 3}


NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def ten_classes(folder: Path) -> str:
    """A page as wide as pages get: the data set's names, counts of four digits, a class of which all are errors."""
    labels = np.repeat(np.arange(10), 1000)
    predicted = np.where(np.arange(10000) % 1000 < 100, np.arange(10000) % 10, labels)
    predicted[labels >= 8] = 9
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (labels, predicted), 1)
    scores = dict.fromkeys(("precision", "recall", "f1"), [0.888] * 9 + [1.0])
    model = {"confusion": confusion, "per_class": {**scores, "support": [1000] * 10}}
    run = metrics(models={"ffn": network("FFN", 0.81, **model), "cnn": network("CNN", 0.81, **model)}, release="first")
    own = Predictions(np.zeros((10000, 28, 28), np.uint8), labels, np.eye(10, dtype=np.float32)[predicted])
    write_report(folder / "report.html", run, {"ffn": own, "cnn": own}, [], NAMES)
    return (folder / "report.html").read_text("utf-8")


WIDTHS = (360, 400, 800, 1600)


def test_the_page_is_no_wider_than_the_screen(tmp_path):
    script = """
    const cells = [...document.querySelectorAll(".confusion th, .confusion td")];
    const cut = cells.filter((cell) => cell.scrollWidth > cell.clientWidth);
    parent.postMessage([innerWidth, document.documentElement.scrollWidth, cut.map((e) => e.textContent)], "*");
    """
    page = with_script(tmp_path, ten_classes(tmp_path), f"cell(0, 0, 1).click(); {script}")
    frames = "".join(
        f'<iframe src="{page.name}" style="width: {w}px; height: 900px; border: 0"></iframe>' for w in WIDTHS
    )
    (tmp_path / "frames.html").write_text(
        f"<body><script>{REPORT} const all = []; addEventListener('message', (message) => {{"
        f"all.push(message.data); if (all.length === {len(WIDTHS)}) told(all); }});</script>{frames}",
        "utf-8",
    )
    seen = told(tmp_path / "frames.html", tmp_path / "profile")
    assert sorted(inner for inner, _, _ in seen) == list(WIDTHS)
    assert all(needed <= inner for inner, needed, _ in seen)
    assert all(cut == [] for _, _, cut in seen)


CONTRAST = """
const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
const over = ([r, g, b, a = 1], [x, y, z]) => [r * a + x * (1 - a), g * a + y * (1 - a), b * a + z * (1 - a)];
const ground = (e) => e === null ? [255, 255, 255]
  : over(channels(getComputedStyle(e).backgroundColor), ground(e.parentElement));
const light = (c) => c.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0.05);
const contrast = (e, colour) => {
  const pair = [light(over(channels(colour), ground(e))), light(ground(e))];
  return Math.max(...pair) / Math.min(...pair);
};
const seen = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility());
const worded = seen.filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
const worst = (pairs) => pairs.reduce((a, b) => a[0] < b[0] ? a : b);
const words = worst(worded.map((e) => [contrast(e, getComputedStyle(e).color), e.outerHTML.slice(0, 200)]));
"""
CONTRASTS = (
    CONTRAST
    + """
const line = (e) => {
  const style = getComputedStyle(e);
  return parseFloat(style.borderTopWidth) ? style.borderTopColor : style.borderBottomColor;
};
const lined = seen.filter((e) => e.matches("#results td, .errors, .panel, h2"));
told({
  words,
  lines: worst(lined.map((e) => [contrast(e.parentElement, line(e)), e.outerHTML.slice(0, 99)])),
  count: worded.length,
  ground: ground(document.body),
  scrolling: getComputedStyle(document.documentElement).scrollBehavior,
});
"""
)


@pytest.mark.parametrize(
    ("flags", "is_dark", "scrolling"),
    [
        ([], False, "smooth"),
        (["--blink-settings=preferredColorScheme=0", "--force-prefers-reduced-motion"], True, "auto"),
    ],
    ids=["light", "dark and reduced motion"],
)
def test_words_and_lines_stand_out_and_motion_is_as_the_reader_wants_it(tmp_path, flags, is_dark, scrolling):
    script = f"cell(0, 8, 9).click(); {CONTRASTS}"
    seen = told(with_script(tmp_path, ten_classes(tmp_path), script), tmp_path / "profile", *flags)
    assert (sum(seen["ground"]) < 384) == is_dark
    assert seen["scrolling"] == scrolling
    assert seen["count"] > 300
    assert seen["words"][0] >= 4.5, seen["words"]
    assert seen["lines"][0] >= 3, seen["lines"]
