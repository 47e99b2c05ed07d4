"""live.html in a real browser: it computes what PyTorch computes, and it is drawn on, pointed at and silenced."""

import copy
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cnn import CNN
from ffn import FFN
from fmnist import live
from fmnist.data import OWN, FashionMNIST, Sample
from fmnist.layers import Pixels
from fmnist.photograph import Step
from recipes import RECIPES
from tests.helpers import tiny
from tests.test_report_browser import BROWSER, CONTRAST, REPORT, told

pytestmark = pytest.mark.skipif(not BROWSER and not os.environ.get("CI"), reason="no chromium on this machine")

IMAGES = tiny.make(600, 1000, seed=1)
MINUS = "\N{MINUS SIGN}"  # as the page writes it

# Frames wait for the machine, and the browser's virtual clock does not wait for frames.
WATCH = """<script>
window.requestAnimationFrame = (act) => setTimeout(act);
const troubles = [];
addEventListener("error", (event) => troubles.push(event.message));
addEventListener("unhandledrejection", (event) => troubles.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => troubles.push(event.blockedURI));
for (const kind of ["error", "warn"]) console[kind] = (...words) => troubles.push(words.join(" "));
</script>"""

HANDS = """
const pause = (ms = 40) => new Promise((done) => setTimeout(done, ms));
const at = (selector) => document.querySelector(selector);
const map = (layer, channel) => views.find((view) => view.layer.name === layer).maps[channel].canvas;
const on = (canvas, x, y, kind, more = {}) => {
  const box = canvas.getBoundingClientRect();
  canvas.dispatchEvent(new PointerEvent(kind, {bubbles: true, cancelable: true, pointerType: "mouse",
    clientX: box.left + (x + 0.5) * box.width / canvas.width, clientY: box.top + (y + 0.5) * box.height / canvas.height,
    ...more}));
};
const press = (key, more = {}) => {
  const event = new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true, ...more});
  document.activeElement.dispatchEvent(event);
  return event.defaultPrevented;
};
const answer = () => [...document.querySelectorAll("#bars .figure")].map((e) => e.textContent);
const rounded = (values) => values.map(percent);
"""


def lively(network: nn.Module) -> nn.Module:
    """Give a fresh network weights and averages with which it is sure of something, and batch norm does something."""
    torch.manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.05, 0.5)
        for weights in network.parameters():
            weights.mul_(2)
    return network.eval()


def probabilities(network: nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network(torch.from_numpy(images)).softmax(dim=1).numpy()


def opened(folder: Path, text: str, script: str, *flags: str) -> object:
    """Open a page and let a script act on it as a reader would. It tells what it sees, and nothing goes wrong."""
    acting = f"""<script>{REPORT}(async () => {{ {HANDS} await pause(); {script} }})()
      .then((seen) => told({{seen, troubles}}), (error) => told({{seen: null, troubles: [error.stack]}}));</script>"""
    text = text.replace("<title>", f"{WATCH}<title>", 1)
    before, after = text.rsplit("</body>", 1)
    (folder / "acting.html").write_text(f"{before}{acting}</body>{after}", "utf-8")
    result = told(folder / "acting.html", folder / "profile", *flags)
    assert result["troubles"] == []
    return result["seen"]


# It computes what PyTorch computes


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """The CNN of `classic`, trained for a moment."""
    torch.manual_seed(0)
    network = RECIPES["classic"].networks[1].build()
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    images, labels = torch.from_numpy(IMAGES.train_images), torch.from_numpy(IMAGES.train_labels).long()
    for batch in torch.arange(600).split(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
        optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def classic(trained, tmp_path_factory) -> str:
    """Its page, with test images."""
    path = tmp_path_factory.mktemp("classic") / "live.html"
    tensors = [torch.from_numpy(array) for array in IMAGES]
    dataset = FashionMNIST(tensors[0], tensors[1].long(), tensors[2], tensors[3].long(), "made up", OWN)
    live.write(
        path,
        trained,
        Sample(IMAGES.train_images[0], "boot.jpg", (Step("shrunk", IMAGES.train_images[0]),)),
        dataset,
        "CNN, live",
    )
    return path.read_text("utf-8")


def test_on_a_thousand_images_the_page_gives_the_classes_and_probabilities_of_pytorch(trained, classic, tmp_path):
    script = f"""
    const images = new Uint8Array(unpackedBytes("{live._base64(IMAGES.test_images)}"));
    return Array.from({{length: 1000}}, (_, n) => window.classify(images.subarray(784 * n, 784 * n + 784)));
    """
    ours, theirs = np.array(opened(tmp_path, classic, script)), probabilities(trained, IMAGES.test_images)
    assert (theirs.argmax(axis=1) == IMAGES.test_labels).mean() > 0.8
    assert np.array_equal(ours.argmax(axis=1), theirs.argmax(axis=1))
    assert np.abs(ours - theirs).max() < 1e-3


def distinct_networks() -> dict[str, nn.Module]:
    """One of each architecture of the recipes, and of others that options and users make."""
    made = {}
    for recipe in RECIPES.values():
        for network in recipe.networks:
            arguments = {
                key: value
                for key, value in network.arguments.items()
                if key not in ("mean", "std") and "dropout" not in key
            }
            if network.is_torch and network.name != "resnet18":
                made.setdefault(f"{network.class_path} {arguments}", network.build)
    networks = {name: build() for name, build in made.items()}
    networks["kernels of 5, averages"] = CNN([8, 12], kernel_size=5, pool="avg", activation="leaky_relu")
    networks["even kernels"] = CNN([6, 9, 10], kernel_size=4, padding=1, pool_after=[2], norm="before")
    networks["enlarged"] = CNN([5], size=41)
    networks["shrunk"] = CNN([7], size=11)
    networks["deep"] = FFN([33, 21, 7], norm="foldable")
    networks["a user's"] = nn.Sequential(
        Pixels(),
        nn.Conv2d(1, 6, (3, 5), stride=(2, 1), padding=(0, 2), bias=False),
        nn.BatchNorm2d(6, affine=False),
        nn.LeakyReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(6, 5, 3, padding="same"),
        nn.Dropout2d(),
        nn.LayerNorm((5, 6, 13), elementwise_affine=False),
        nn.AdaptiveAvgPool2d((3, 1)),
        nn.Identity(),
        nn.Flatten(),
        nn.Linear(15, 10, bias=False),
    )
    return {name: lively(network) for name, network in networks.items()}


def computing(content: list[dict]) -> str:
    """A page that can compute the networks of these descriptions, and shows nothing."""
    return f"""<!DOCTYPE html><html><head><title>networks</title></head><body>
    <script type="application/json" id="networks">{json.dumps(content)}</script>
    <script>{live._source("layers.js")}
    const percent = String, views = [];</script></body></html>"""


def test_every_architecture_gives_the_probabilities_of_pytorch(tmp_path):
    networks, images = distinct_networks(), np.concatenate([IMAGES.test_images[:3], live._noise(1)])
    content = [{"layers": live.describe(network, images[0])} for network in networks.values()]
    script = f"""
    const images = {images.reshape(-1, 784).tolist()};
    return JSON.parse(at("#networks").textContent).map(unpacked).map((n) => images.map((i) => classifyWith(n, i)));
    """
    for (name, network), ours in zip(networks.items(), opened(tmp_path, computing(content), script), strict=True):
        theirs = probabilities(network, images)
        assert np.abs(np.array(ours) - theirs).max() < 1e-3, name
        assert np.array_equal(np.argmax(ours, axis=1), theirs.argmax(axis=1)), name
        assert theirs.max(axis=1).mean() > 0.13, f"{name} is sure of nothing, and the test of little"


# It is drawn on, pointed at, silenced


@pytest.fixture(scope="module")
def small() -> nn.Module:
    """A network whose every value depends on all that it sees: nothing is cut off at zero, no maximum hides others."""
    return lively(CNN([4, 5], kernel_size=3, pool="avg", activation="leaky_relu", norm="after", dense=[6], size=32))


@pytest.fixture(scope="module")
def page(small, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("small") / "live.html"
    live.write(path, small, Sample(IMAGES.test_images[0], "test image 0, Bag"), None, "CNN, live")
    return path.read_text("utf-8")


def test_drawing_erasing_and_shifting_change_the_image_and_the_answer(classic, tmp_path):
    script = """
    const paper = at("#drawing"), seen = {}, shown = () => {
      const data = paper.getContext("2d").getImageData(0, 0, 28, 28).data;
      return Array.from({length: 784}, (_, n) => data[4 * n]);
    };
    const look = async (name) => {
      await pause();
      const bytes = Array.from(state.bytes);
      seen[name] = {bytes, shown: shown(), answer: answer(), own: rounded(classify(bytes))};
    };
    await look("original");
    at("#clear").click();
    await look("clear");
    on(paper, 5, 8, "pointerdown");
    on(paper, 20, 8, "pointermove");
    on(paper, 20, 8, "pointerup");
    on(paper, 20, 20, "pointermove");
    await look("drawn");
    press("ArrowDown");
    await look("shifted");
    at('[value="erase"]').click();
    on(paper, 12, 9, "pointerdown");
    on(paper, 12, 9, "pointerup");
    await look("erased");
    at('[value="shift"]').click();
    on(paper, 2, 2, "pointerdown");
    on(paper, 5, 2, "pointermove");
    on(paper, 5, 2, "pointerup");
    at('[data-shift="0,-1"]').click();
    await look("dragged");
    for (const _ of [1, 2, 3]) at("#undo").click();
    await look("undone");
    at('[value="draw"]').click();
    paper.focus();
    const taken = ["w", "d", " ", "Tab"].map((key) => press(key));
    await look("by keyboard");
    at("#original").click();
    await look("again");
    return {seen, taken};
    """
    result = opened(tmp_path, classic, script)
    seen = {name: np.array(one["bytes"]).reshape(28, 28) for name, one in result["seen"].items()}
    for name, one in result["seen"].items():
        assert one["bytes"] == one["shown"], name
        assert one["answer"] == one["own"], name
    assert np.array_equal(seen["original"], IMAGES.train_images[0])
    assert not seen["clear"].any()
    rows, columns = seen["drawn"].nonzero()
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (7, 9, 4, 21), "a pen of two pixels, a soft rim"
    assert (seen["drawn"][8, 5:21] == 240).all()
    assert np.array_equal(seen["shifted"], np.roll(seen["drawn"], 1, axis=0))
    assert seen["erased"][9, 12] == 0
    assert seen["erased"][9, 8] == 240
    assert np.array_equal(seen["dragged"], np.roll(seen["erased"], (-1, 3), axis=(0, 1)))
    assert np.array_equal(seen["undone"], seen["shifted"])
    assert seen["by keyboard"][13, 15] == 240, "the pen began at row 14, column 14"
    assert result["taken"] == [True, True, True, False], "Tab leaves the image"
    assert np.array_equal(seen["again"], seen["original"])


def test_undo_goes_back_in_the_image_that_is_picked_and_by_what_has_changed_it(classic, tmp_path):
    script = """
    const paper = at("#drawing"), tiles = document.querySelectorAll("#strip button"), seen = {};
    const look = async (name) => {
      await pause();
      seen[name] = {bytes: Array.from(state.bytes), idle: at("#undo").disabled, about: at("#about").textContent};
    };
    await look("first");
    at("#clear").click();
    tiles[5].click();
    await look("picked");
    at("#undo").click();
    await look("undone");
    at('[value="shift"]').click();
    on(paper, 5, 5, "pointerdown");
    on(paper, 5, 5, "pointerup");
    await look("clicked");
    on(paper, 5, 5, "pointerdown");
    for (const x of [6, 7, 8]) on(paper, x, 5, "pointermove");
    on(paper, 8, 5, "pointerup");
    await look("dragged");
    at("#undo").click();
    await look("back");
    return seen;
    """
    seen = opened(tmp_path, classic, script)
    picked, dragged = (np.array(seen[name]["bytes"]).reshape(28, 28) for name in ("picked", "dragged"))
    assert seen["first"]["idle"], "nothing is there to go back to"
    assert seen["picked"] == seen["undone"] == seen["clicked"] == seen["back"]
    assert seen["picked"]["idle"]
    assert seen["picked"]["about"] != seen["first"]["about"]
    assert np.array_equal(dragged[:, 3:], picked[:, :-3])
    assert not seen["dragged"]["idle"]


def test_a_silenced_kernel_is_missed_by_what_follows_and_by_nothing_else(small, page, tmp_path):
    script = """
    const look = async () => {
      await pause();
      return {now: softmax(state.made.at(-1)), classified: classify(state.bytes), answer: answer(),
        own: rounded(softmax(state.made.at(-1))), loss: at("#loss").textContent, hidden: at("#silenced").hidden,
        pressed: [...document.querySelectorAll(".silence[aria-pressed=true]")].map((e) => e.ariaLabel)};
    };
    const toggle = (name) => at(`[aria-label="Silence ${name}"]`).click();
    const seen = [await look()];
    toggle("kernel 2 of features.conv1");
    seen.push(await look());
    toggle("kernel 4 of features.conv2");
    seen.push(await look());
    map("features.conv2", 3).focus();
    press("s");
    map("pixels", 0).focus();
    press("s");  // no kernel: nothing happens
    at("#silent-list button").click();
    seen.push(await look());
    at("#restore").click();
    seen.push(await look());
    return seen;
    """
    seen = opened(tmp_path, page, script)
    image = IMAGES.test_images[:1]
    whole = probabilities(small, image)[0]
    for one, silent in zip(seen, [{}, {1: [2]}, {1: [2], 2: [4]}, {2: [3, 4]}, {}], strict=True):
        assert np.abs(one["now"] - without(small, image, silent)).max() < 1e-3
        assert np.abs(one["classified"] - whole).max() < 1e-3, "classify is of the whole network"
        assert one["answer"] == one["own"]
        labels = [f"Silence kernel {kernel} of features.conv{n}" for n in silent for kernel in silent[n]]
        assert sorted(one["pressed"]) == sorted(labels)
        assert one["hidden"] == (not silent)
    best = whole.argmax()
    points = 100 * (seen[2]["now"][best] - whole[best])
    assert f"{abs(points):.1f} points" in seen[2]["loss"]
    assert (MINUS if points < 0 else "+") in seen[2]["loss"]


def test_a_norm_hands_on_nothing_of_a_silenced_kernel(tmp_path):
    norms, silent = ("before", "after", "foldable"), {"features.conv1": [2], "features.conv2": [4]}
    networks = [lively(CNN([4, 6], dense=[5], norm=norm)) for norm in norms]
    image = IMAGES.test_images[:1]
    script = f"""
    const image = {image.ravel().tolist()}, silent = {json.dumps(silent)};
    return JSON.parse(at("#networks").textContent).map(unpacked).map((network) => {{
      const silenced = network.layers.map((layer) => new Set(silent[layer.name]));
      return softmax(runSilenced(network, run(network, image), silenced).at(-1));
    }});
    """
    seen = opened(tmp_path, computing([{"layers": live.describe(network, image[0])} for network in networks]), script)
    for norm, network, ours in zip(norms, networks, seen, strict=True):
        theirs, whole = np.log(without(network, image, {1: [2], 2: [4]})), np.log(probabilities(network, image)[0])
        assert np.abs(np.log(ours) - theirs).max() < 1e-2, norm  # logarithms, for it is too sure of one class
        assert np.abs(whole - theirs).max() > 0.5, f"{norm}: nothing was lost"


def without(network: CNN, image: np.ndarray, silent: dict[int, list[int]]) -> np.ndarray:
    """The probabilities where what follows has no weights for the `silent` kernels of convolutions 1 and 2."""
    lamed = copy.deepcopy(network)
    with torch.no_grad():
        lamed.features.conv2.weight[:, silent.get(1, [])] = 0
        linear = lamed.classifier.linear1
        linear.weight.view(linear.out_features, lamed.features.conv2.out_channels, -1)[:, silent.get(2, [])] = 0
    return probabilities(lamed, image)[0]


def receptive_field(network: nn.Module, name: str, index: int) -> list[list[int]]:
    """Rows and columns, [first, end], of the pixels of the image on which value `index` of the layer `name` depends."""
    made = {}
    handles = [
        network.get_submodule(layer).register_forward_hook(lambda _m, _i, out, layer=layer: made.update({layer: out}))
        for layer in {name, "pixels"}
    ]
    images = torch.rand(1, 28, 28, generator=torch.Generator().manual_seed(0)).requires_grad_()
    network(images)  # floats flow through Pixels as bytes do
    for handle in handles:
        handle.remove()
    (gradient,) = torch.autograd.grad(made[name].flatten()[index], images)
    rows, columns = gradient[0].nonzero().T
    return [[int(places.min()), int(places.max()) + 1] for places in (rows, columns)]


def values_of(network: nn.Module, image: np.ndarray) -> dict[str, np.ndarray]:
    """What every layer makes of the image."""
    values = torch.from_numpy(image)[None]
    made = {}
    with torch.inference_mode():
        for name, layer in ((name, module) for name, module in network.named_modules() if not list(module.children())):
            values = layer(values)
            made[name] = values[0].numpy()
    return made


def test_what_lights_up_is_what_a_value_depends_on(small, page, tmp_path):
    names = [name for name, module in small.named_modules() if not list(module.children())]
    script = """
    return network.layers.map((layer, number) => {
      const size = layer.output.reduce((a, b) => a * b);
      return [0, 1, Math.floor(size / 3), Math.floor(0.61 * size), size - 1].map((index) =>
        [index, fieldsOf(network.layers, number, placeOf(layer.output, index))[-1]]);
    });
    """
    for name, fields in zip(names, opened(tmp_path, page, script), strict=True):
        for index, field in fields:
            assert [field["rows"], field["columns"]] == receptive_field(small, name, index), (name, index)


def test_a_value_that_is_pointed_at_is_added_up_and_its_field_lights_up(small, page, tmp_path):
    script = """
    const boxes = (selector) => [...document.querySelectorAll(selector)].map((e) => {
      const style = getComputedStyle(e, "::after"), frame = e.getBoundingClientRect();
      const sides = ["top", "right", "bottom", "left"].map((side) => parseFloat(style[side]));
      const scale = frame.width / 100;
      return sides.map((side) => side / scale);
    });
    const numbers = (text) => text.replaceAll("\\u2212", "-").match(/-?[0-9]+[.][0-9]+/g).map(Number);
    const look = async () => {
      await pause();
      return {place: at("#place").textContent, sum: at("#explained").innerText.replaceAll("\\u2212", "-"),
        products: [...document.querySelectorAll('[aria-label^="Products"]')].map((e) => numbers(e.ariaLabel)),
        lit: views.filter((view) => view.section.classList.contains("lit")).map((view) => view.layer.name),
        maps: views.map((view) => view.section.querySelectorAll(".map.lit").length),
        image: boxes("#sheet.lit")[0], held: at("#hold").ariaPressed, total: at(".total")?.textContent};
    };
    const seen = {};
    on(map("features.conv1", 3), 10, 4, "pointermove");
    seen.hovered = await look();
    on(map("features.conv2", 1), 0, 15, "pointermove");
    seen.corner = await look();
    on(map("features.conv2", 1), 0, 15, "click");
    on(map("features.conv1", 0), 5, 5, "pointermove");
    seen.held = await look();
    at(".add").click();
    await pause(90);
    seen.adding = [document.querySelectorAll(".adding").length, at(".total").textContent];
    map("features.conv2", 1).focus();
    press("ArrowRight");
    press("ArrowUp");
    seen.moved = await look();
    press("PageDown");
    seen.next = await look();
    seen.focus = document.activeElement.ariaLabel;
    press("Escape");
    seen.none = {lit: document.querySelectorAll(".lit").length};
    await pause();
    seen.none.lit = document.querySelectorAll(".lit").length;
    seen.none.left = at("#explained").children.length;
    seen.none.shown = ["hold", "silence", "close-up"].filter((id) => !at("#" + id).hidden);
    seen.none.place = at("#place").textContent;
    on(map("classifier.output", 0), 3, 0, "pointermove");
    seen.unit = await look();
    return seen;
    """
    seen = opened(tmp_path, page, script)
    values = values_of(small, IMAGES.test_images[0])
    hovered = seen["hovered"]
    value = values["features.conv1"][3, 4, 10]
    assert hovered["place"].replace(MINUS, "-") == f"Kernel 3, row 4, column 10 = {value:.3f}"
    bias = float(small.features.conv1.bias.detach()[3])
    assert sum(map(sum, hovered["products"])) + bias == pytest.approx(float(value), abs=0.05)
    assert f"Bias: {bias:.3f}" in hovered["sum"]
    assert f"Sum: {value:.3f}" in hovered["sum"]
    assert hovered["lit"] == ["pixels", "features.conv1"]
    (rows, columns) = receptive_field(small, "features.conv1", 3 * 32 * 32 + 4 * 32 + 10)
    expected = [rows[0], 28 - columns[1], 28 - rows[1], columns[0]]
    assert hovered["image"] == pytest.approx([100 * side / 28 for side in expected], abs=0.5)

    corner = seen["corner"]
    assert corner["maps"][:7] == [1, 4, 4, 4, 4, 1, 0], "all maps before, and of its own layer the one"
    assert float(corner["sum"].split("Sum: ")[1].split()[0]) == pytest.approx(
        float(values["features.conv2"][1, 15, 0]), abs=6e-4
    )
    assert seen["held"]["place"] == corner["place"]
    assert seen["held"]["held"] == "true"
    assert seen["adding"][0] == 1
    assert "→" in seen["adding"][1]
    assert seen["moved"]["place"].startswith("Kernel 1, row 14, column 1 =")
    assert seen["next"]["place"].startswith("Kernel 2, row 14, column 1 =")
    assert seen["focus"] == "features.conv2, kernel 2"
    assert (seen["none"]["lit"], seen["none"]["left"], seen["none"]["shown"]) == (0, 0, [])
    assert seen["none"]["place"].startswith("Point at a value")
    assert seen["unit"]["place"].replace(MINUS, "-") == f"Unit 3 = {values['classifier.output'][3]:.3f}"
    assert seen["unit"]["image"] == [0, 0, 0, 0]


def test_images_are_picked_by_group_mouse_and_keyboard(trained, classic, tmp_path):
    script = """
    const select = at("#group"), strip = at("#strip"), seen = {};
    const names = () => [...strip.querySelectorAll("button")].map((button) => button.ariaLabel);
    seen.groups = [...select.options].map((option) => option.text);
    seen.all = names();
    select.value = 1;
    select.dispatchEvent(new Event("change"));
    seen.mistakes = names();
    strip.querySelectorAll("button")[2].click();
    await pause();
    seen.picked = Array.from(state.bytes);
    seen.about = at("#about").textContent;
    seen.likeliest = at("#likeliest").textContent;
    strip.querySelectorAll("button")[2].focus();
    press("ArrowRight");
    seen.focus = document.activeElement.ariaLabel;
    seen.stops = strip.querySelectorAll('button[tabindex="0"]').length;
    return seen;
    """
    seen = opened(tmp_path, classic, script)
    assert seen["groups"][:2] == ["all images (201)", f"the network's surest mistakes ({len(seen['mistakes'])})"]
    assert seen["all"][0] == "Photograph boot.jpg"
    assert len(seen["all"]) == 201
    assert seen["mistakes"] == seen["all"][1 : 1 + len(seen["mistakes"])]
    own = probabilities(trained, IMAGES.test_images)
    wrong = np.flatnonzero(own.argmax(axis=1) != IMAGES.test_labels)
    third = wrong[np.argsort(-own.max(axis=1)[wrong], kind="stable")][2]
    assert seen["about"].startswith(f"Test image {third}: ")
    assert seen["picked"] == IMAGES.test_images[third].ravel().tolist()
    assert "In truth it is" in seen["likeliest"]
    assert seen["focus"] == seen["mistakes"][3]
    assert seen["stops"] == 1


WIDTHS = (400, 700, 1000, 1600)


def test_the_page_is_no_wider_than_the_screen(classic, tmp_path):
    act = """on(map("features.conv2", 3), 5, 5, "click"); at('[aria-label^="Silence kernel 2 of"]').click();
    setTimeout(() => parent.postMessage([innerWidth, document.documentElement.scrollWidth], "*"), 300);"""
    before, after = classic.rsplit("</body>", 1)
    (tmp_path / "inner.html").write_text(f"{before}<script>{{ {HANDS} {act} }}</script></body>{after}", "utf-8")
    frames = "".join(
        f'<iframe src="inner.html" style="width: {w}px; height: 900px; border: 0"></iframe>' for w in WIDTHS
    )
    (tmp_path / "frames.html").write_text(
        f"<body><script>{REPORT} const all = []; addEventListener('message', (message) => {{"
        f"all.push(message.data); if (all.length === {len(WIDTHS)}) told(all); }});</script>{frames}",
        "utf-8",
    )
    seen = told(tmp_path / "frames.html", tmp_path / "profile")
    assert sorted(inner for inner, _ in seen) == list(WIDTHS)
    assert all(needed <= inner for inner, needed in seen), seen


@pytest.mark.parametrize("flags", [[], ["--blink-settings=preferredColorScheme=0"]], ids=["light", "dark"])
def test_words_stand_out_and_everything_has_a_name(flags, classic, tmp_path):
    script = f"""
    at('[aria-label="Silence kernel 2 of features.conv1"]').click();
    on(map("features.conv2", 3), 5, 5, "click");
    await pause();
    {CONTRAST}
    const named = "button, canvas[tabindex], input, select, [role=application], section";
    const nameless = [...document.querySelectorAll(named)].filter((e) =>
      !(e.ariaLabel || e.getAttribute("aria-labelledby") || e.textContent.trim() || e.labels?.length));
    const spoken = [...document.querySelectorAll("[aria-live=polite]")].map((e) => e.id);
    map("features.conv2", 3).focus();
    const places = [];
    for (const key of ["", "ArrowRight", "ArrowDown"]) {{
      if (key) press(key);
      await pause();
      places.push(at("#place").textContent);
    }}
    const bare = nameless.map((e) => e.outerHTML.slice(0, 99));
    return {{words, spoken, places, ground: ground(document.body), nameless: bare}};
    """
    seen = opened(tmp_path, classic, script, *flags)
    assert (sum(seen["ground"]) < 384) == bool(flags)
    assert seen["words"][0] >= 4.5, seen["words"]
    assert seen["nameless"] == []
    assert {"likeliest", "loss", "place"} <= {*seen["spoken"]}
    assert len({*seen["places"]}) == 3, "arrow keys come to another value, which is said there"
