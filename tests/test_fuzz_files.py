"""Whatever file comes from outside is either understood or refused in one line: anything else is a fault.

    python -m pytest tests/test_fuzz_*.py --fuzz-examples 20000        a longer search

A few hundred examples of each kind, the same at every run; more of them search further.
"""

import gzip
import io
import math
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume
from hypothesis import strategies as st
from PIL import Image

from fmnist import checkpoints, csv_files, data, download, photograph
from fmnist.config import Network
from fmnist.errors import Refused
from recipes import RECIPES
from tests.helpers import tiny
from tests.helpers.child import ROOT

TINY = tiny.make(train=20, test=10)
SMALL = Network("cnn", "CNN", "cnn:CNN", {"kernels": [2, 3], "dense": [4]})
STATE = SMALL.build().state_dict()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@st.composite
def mangled(draw, body: bytes, focus: int | None = None) -> bytes:
    """`body` with bytes changed, cut out, doubled or put in, and cut short or added to at its end.

    With `focus`, half of the changes fall into so many bytes at the beginning, where a header is.
    """
    body = bytearray(body)
    for _ in range(draw(st.integers(1, 5))):
        limit = min(focus, len(body)) if focus and draw(st.booleans()) else len(body)
        place = draw(st.integers(0, max(0, limit - 1)))
        length = draw(st.sampled_from([1, 1, 1, 2, 4, 16, 200]))
        piece = draw(st.binary(min_size=1, max_size=8))
        match draw(st.sampled_from(["change", "bit", "cut", "insert", "double", "end", "zeros"])):
            case "change":
                body[place : place + len(piece)] = piece
            case "bit" if body:
                body[place] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del body[place : place + length]
            case "insert":
                body[place:place] = piece
            case "double":
                body[place:place] = body[place : place + length]
            case "zeros":
                body[place : place + length] = bytes(length)
            case "end":
                del body[draw(st.integers(0, len(body))) :]
    return bytes(body)


# idx files


def idx_header() -> st.SearchStrategy[bytes]:
    size = st.sampled_from([0, 1, 9, 10, 20, 27, 28, 784, 60_000, 2**31 - 1, 2**31, 2**32 - 1])
    dimensions = st.lists(size.map(lambda n: n.to_bytes(4, "big")), max_size=5).map(b"".join)
    magic = st.tuples(
        *[st.sampled_from([0, 0, 8, 9, 13, 14, 255])] * 2, st.sampled_from([8, 9, 14]), st.integers(0, 255)
    )
    return st.tuples(magic.map(bytes), dimensions, st.binary(max_size=40)).map(b"".join)


def altered_idx() -> st.SearchStrategy[tuple[str, bytes, bool]]:
    """One of the four files, altered or made up, and whether it is gzipped."""

    def of(name: str):
        body = tiny.contents(TINY)[name]
        return st.tuples(st.just(name), mangled(body, focus=16) | idx_header() | st.binary(max_size=64), st.booleans())

    return st.sampled_from(tiny.NAMES).flatmap(of)


@pytest.mark.parametrize("repairable", [False, True])
def test_idx_files(repairable, fuzz, folder, offline, monkeypatch):
    """Altered files are put right from a sound copy, or refused where there is none; they are never read."""
    monkeypatch.setattr(download, "FILES", tiny.files_table(TINY))
    good = tiny.contents(TINY)
    if repairable:
        monkeypatch.setattr(download, "SYSTEM_COPY", tiny.write_idx(TINY, folder / "system"))

    def check(altered) -> None:
        name, body, gzipped = altered
        assume(body != good[name])
        with tempfile.TemporaryDirectory(dir=folder) as root:
            raw = tiny.raw_folder(tiny.write_torchvision(TINY, Path(root)))
            if gzipped:
                (raw / name).unlink()
                (raw / f"{name}.gz").write_bytes(gzip.compress(body, 1) if len(body) % 2 else body)
            else:
                (raw / name).write_bytes(body)
            try:
                loaded = data.load(Path(root), log=lambda _: None)
            except Refused:
                assert not repairable
                raise
            assert repairable, "altered data were taken for the real ones"
            assert (loaded.train_images.numpy() == TINY.train_images).all()
            assert (loaded.test_labels.numpy() == TINY.test_labels).all()

    fuzz(100, altered_idx(), check)


# CSV


def csv_text() -> st.SearchStrategy[bytes]:
    random = np.random.default_rng(1)
    rows = [[n % 10, *random.integers(0, 256, 784)] for n in range(4)]
    good = "\n".join([tiny.HEADER, *(",".join(map(str, row)) for row in rows)]).encode() + b"\n"
    odd = ["", "-1", "256", "1.5", "1e2", "nan", "x", '"5"', " 7", "+8", "007", "9" * 30]
    odd += ["\x00", "é", "0x10", "1_0", "\u0661"]
    cell = st.sampled_from(odd) | st.text(max_size=6) | st.integers(-300, 300).map(str)

    @st.composite
    def one_cell(draw) -> bytes:
        lines = good.decode().split("\n")
        line = draw(st.integers(0, 4))
        cells = lines[line].split(",")
        cells[draw(st.sampled_from([0, 1, 400, 784]))] = draw(cell)
        lines[line] = ",".join(cells)
        return draw(st.sampled_from(["\n", "\r\n", "\r"])).join(lines).encode("utf-8", "surrogatepass")

    return (
        one_cell()
        | mangled(good, focus=40)
        | st.binary(max_size=300)
        | st.text(max_size=100).map(lambda text: (tiny.HEADER + "\n" + text).encode("utf-8", "surrogatepass"))
    )


def test_csv_text(fuzz, folder):
    path = folder / "fashion-mnist_train.csv"

    def check(text: bytes) -> None:
        path.write_bytes(text)
        images, labels = csv_files.read(path)
        assert images.dtype == np.uint8
        assert images.shape == (len(labels), 28, 28)
        assert len(labels) > 0
        assert labels.min() >= 0
        assert labels.max() <= 9

    fuzz(250, csv_text(), check)


# Photographs


def image_files() -> list[tuple[str, bytes]]:
    """Small files of every format, whose mangling reaches their decoders."""
    picture = Image.open(ROOT / "tests" / "photograph.jpg").resize((60, 44))
    forms = [(".jpg", "JPEG", "RGB"), (".png", "PNG", "RGB"), (".png", "PNG", "P"), (".png", "PNG", "LA")]
    forms += [(".png", "PNG", "1"), (".webp", "WEBP", "RGB"), (".bmp", "BMP", "RGB"), (".gif", "GIF", "P")]
    files = []
    for suffix, form, mode in forms:
        buffer = io.BytesIO()
        picture.convert(mode).save(buffer, form, **({"exif": picture.getexif()} if form == "JPEG" else {}))
        files.append((suffix, buffer.getvalue()))
    return files


def altered_images() -> st.SearchStrategy[tuple[str, bytes]]:
    files = st.sampled_from(image_files())
    altered = files.flatmap(lambda file: st.tuples(st.just(file[0]), mangled(file[1], focus=64)))
    suffixes = st.sampled_from([".png", ".jpg", ".tiff", ".txt", ""])
    return altered | st.tuples(suffixes, st.binary(max_size=100)) | st.tuples(suffixes, files.map(lambda file: file[1]))


def test_image_files(fuzz, folder):
    def check(file) -> None:
        path = folder / f"image{file[0]}"
        path.write_bytes(file[1])
        prepared = photograph.prepare(photograph.read(path), path).pixels
        assert (prepared.dtype, prepared.shape) == (np.uint8, (28, 28))

    fuzz(400, altered_images(), check)


def pictures() -> st.SearchStrategy[Image.Image]:
    """Pictures that are no photographs: noise, plain, and tiny or long ones, in every mode."""

    def make(width: int, height: int, mode: str, seed: int, levels: int) -> Image.Image:
        noise = np.random.default_rng(seed).integers(0, levels, (height, width, 3), dtype=np.uint8)
        return Image.fromarray(noise).convert(mode)

    edge = st.integers(1, 60) | st.sampled_from([1, 7, 8, 300])
    modes = st.sampled_from(["RGB", "L", "1", "P", "RGBA", "LA", "I;16"])
    return st.builds(make, edge, edge, modes, st.integers(0, 99), st.sampled_from([1, 2, 40, 256]))


def test_pictures_of_anything(fuzz, folder):
    def check(picture: Image.Image) -> None:
        path = folder / "picture.png"
        picture.save(path)
        prepared = photograph.prepare(photograph.read(path), path).pixels
        assert (prepared.dtype, prepared.shape) == (np.uint8, (28, 28))
        assert prepared.max() == 255

    fuzz(150, pictures(), check)


# Weights


def load_and_rebuild(path: Path) -> None:
    networks = (network for recipe in RECIPES.values() for network in recipe.networks)
    model, _ = checkpoints.rebuild(path, networks)
    with torch.inference_mode():
        assert model(torch.zeros(1, 28, 28, dtype=torch.uint8)).shape == (1, 10)


@pytest.fixture(scope="module")
def saved(folder) -> Path:
    """A sound weights file."""
    checkpoints.save_weights(folder, SMALL, "classic", STATE, "own")
    return folder / "cnn.pth"


def test_mangled_weights_files(fuzz, saved):
    good, path = saved.read_bytes(), saved.with_name("mangled.pth")

    def check(body: bytes) -> None:
        path.write_bytes(body)
        load_and_rebuild(path)

    fuzz(250, mangled(good) | mangled(good, focus=900) | st.binary(max_size=60), check)


def test_weights_files_with_a_mangled_part(fuzz, saved):
    """The archive is sound and its sums are right: what is mangled is the pickle or the like within."""
    path = saved.with_name("part.pth")
    with zipfile.ZipFile(saved) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = st.sampled_from([name for name in parts if name.endswith(("data.pkl", "version", "byteorder", "data/0"))])

    def check(altered: tuple[str, bytes]) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for part, body in (parts | {altered[0]: altered[1]}).items():
                archive.writestr(part, body)
        load_and_rebuild(path)

    fuzz(250, name.flatmap(lambda name: st.tuples(st.just(name), mangled(parts[name]))), check)


def plain() -> st.SearchStrategy:
    numbers = st.integers(-2, 40) | st.sampled_from([0, -1, 2**31, 2**63, 10**30]) | st.floats() | st.booleans()
    leaves = numbers | st.none() | st.text(max_size=8)
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(leaves, inner, max_size=3), max_leaves=6
    )


def tensors() -> st.SearchStrategy[torch.Tensor]:
    kinds = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool])
    kinds |= st.sampled_from([torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2])
    return st.builds(
        lambda shape, kind, value: torch.full(shape, value).to(kind),
        st.lists(st.integers(0, 4), max_size=4),
        kinds,
        st.sampled_from([0.0, 1.5, math.nan, math.inf]),
    )


def nonsense() -> st.SearchStrategy[tuple]:
    """Where in a weights file a value of any kind takes the place of the right one, and that value."""
    names = ["kernels", "kernel_size", "padding", "pool", "pool_after", "dense", "activation", "norm", "dense_norm"]
    names += ["conv_dropout", "dropout", "mean", "std", "size", "hidden", "norm", "seed", "dtype"]
    classes = st.sampled_from(["cnn:CNN", "ffn:FFN", "cnn:ResNet18", "numpy_ffn:NumpyFFN", "os:system", "none", None])
    arguments = st.dictionaries(st.sampled_from(names) | st.text(max_size=4), plain(), max_size=4)
    parts = st.sampled_from(["format", "model", "title", "recipe", "release", "config", "state_dict", "more"])
    keys = st.sampled_from(["features.conv1.weight", "classifier.output.bias", "more", 7])
    return st.one_of(
        st.tuples(st.just("network"), st.builds(lambda name, more: more | {"class": name}, classes, arguments)),
        st.tuples(st.just("arguments"), st.dictionaries(st.sampled_from(names), plain(), min_size=1, max_size=1)),
        st.tuples(st.just("part"), st.dictionaries(parts, plain(), min_size=1, max_size=2)),
        st.tuples(st.just("state"), st.dictionaries(keys, plain() | tensors(), min_size=1, max_size=2)),
        st.tuples(st.just("content"), plain()),
    )


def with_nonsense(content: dict, place: str, value) -> object:
    """The `content` of a sound weights file, changed."""
    network = SMALL.settings["network"]
    changed = {
        "network": lambda: {**content, "config": {"network": value}},
        "arguments": lambda: {**content, "config": {"network": {**network, **value}}},
        "part": lambda: {**content, **value},
        "state": lambda: {**content, "state_dict": {**STATE, **value}},
        "content": lambda: value,
    }
    return changed[place]()


def test_weights_files_with_nonsense(fuzz, saved):
    content, path = torch.load(saved, weights_only=True), saved.with_name("nonsense.pth")

    def check(change) -> None:
        torch.save(with_nonsense(content, *change), path)
        load_and_rebuild(path)

    fuzz(350, nonsense(), check)
