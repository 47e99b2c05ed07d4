"""Fashion-MNIST as tensors in memory: found, fetched, verified, split, normalised and augmented."""

import gzip
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fmnist import csv_files
from fmnist.errors import Refused
from fmnist.files import atomic_write, remove_partial

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
MEAN, STD = 0.2860, 0.3530  # of the training pixels, on the 0..1 scale

# Uncompressed size in bytes and SHA-256 of the four files that are Fashion-MNIST.
FILES = {
    "train-images-idx3-ubyte": (
        47_040_016,
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    "train-labels-idx1-ubyte": (60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    "t10k-images-idx3-ubyte": (
        7_840_016,
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    "t10k-labels-idx1-ubyte": (10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
}
CSV_FILES = ("fashion-mnist_train.csv", "fashion-mnist_test.csv")
SYSTEM_COPY = Path("/usr/share/datasets/fashion-mnist")
APT_PACKAGE = "dataset-fashion-mnist"
STALL_SECONDS = 10  # a mirror that says nothing for so long is given up
DOWNLOAD_SECONDS = 300  # one attempt at the download may take so long in all
DOWNLOAD_ATTEMPTS = 2
PRIVATE = ".fashion-mnist-fetch-"  # begins the name of the folder that a source fetches into


class FashionMNIST(NamedTuple):
    """The data set in memory: images uint8 [N, 28, 28], labels int64 [N]."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    source: str  # where it came from, in words

    def to(self, device: torch.device) -> "FashionMNIST":
        """Return the same data set with its tensors on `device`."""
        return FashionMNIST(*(tensor.to(device) for tensor in self[:4]), self.source)

    def digest(self) -> str:
        """Return the first digits of the SHA-256 of the training images and labels, in their order."""
        content = hashlib.sha256(self.train_images.cpu().numpy().tobytes())
        content.update(self.train_labels.cpu().numpy().tobytes())
        return content.hexdigest()[:16]


class Sample(NamedTuple):
    """An image that is shown to a network."""

    pixels: np.ndarray  # uint8 [28, 28], prepared as the training images are
    title: str
    photograph: np.ndarray | None = None  # uint8 [h, w, 3], the user's picture before it was prepared


def test_image(dataset: FashionMNIST, index: int) -> Sample:
    """Return the test image number `index`. Raises Refused if there are not so many."""
    if index >= len(dataset.test_images):
        raise Refused(f"--index {index}: the test images are numbered 0 to {len(dataset.test_images) - 1}")
    true_class = CLASSES[dataset.test_labels[index]]
    return Sample(dataset.test_images[index].cpu().numpy(), f"test image {index}, {true_class}")


class Unavailable(Exception):
    """A source of the data set does not have it; the message says why."""


def load(data_dir: Path | str, log: Callable[[str], None] = print) -> FashionMNIST:
    """Return the data set from the first source that has it unaltered, and log which one that was.

    The order: `data_dir` (idx files, plain or gzipped, or the CSV pair), Debian's system copy, torchvision's
    download, Debian's package. Whatever the source, the idx files come to lie verified in the folder
    FashionMNIST/raw of `data_dir`, and torchvision reads them from there. Raises Refused, naming every source and why
    it failed, if none has it.
    """
    folder = Path(data_dir)
    try:
        has_csv = any((folder / name).exists() for name in CSV_FILES) and not _places(folder, next(iter(FILES)))
    except OSError as error:
        raise Refused(f"{folder}: cannot be read ({error.strerror}); name another --data-dir") from None
    if has_csv:
        dataset = _load_csv(folder)
    else:
        root, source = _provide(folder, log)
        dataset = _load_idx(root, source)
    counts = f"{len(dataset.train_images):,} training and {len(dataset.test_images):,} test images"
    log(f"data: {counts} from {dataset.source}")
    return dataset


def _load_csv(folder: Path) -> FashionMNIST:
    """Read the CSV pair. It has no published checksum (its rows are shuffled): its content is checked row by row."""
    train, test = (tuple(map(torch.from_numpy, csv_files.read(folder / name))) for name in CSV_FILES)
    return FashionMNIST(*train, *test, source=f"the CSV pair in {folder}")


def _load_idx(root: Path, source: str) -> FashionMNIST:
    from torchvision import datasets

    train, test = (datasets.FashionMNIST(root, train=train) for train in (True, False))
    return FashionMNIST(train.data, train.targets, test.data, test.targets, source)


# Finding and fetching


def _provide(folder: Path, log: Callable[[str], None]) -> tuple[Path, str]:
    """Return a torchvision root that holds the four verified files, and in words where they came from."""
    from filelock import FileLock

    raw = folder / "FashionMNIST" / "raw"
    if all(_fault(raw / name) is None for name in FILES):
        return folder, str(raw)
    try:
        raw.mkdir(parents=True, exist_ok=True)
        # Two runs on an empty folder: the second waits, then finds what the first fetched.
        held = FileLock(folder / ".lock").acquire()
    except OSError as error:
        raise Refused(f"{folder}: cannot be written ({error}); name another --data-dir") from None
    with held:
        return folder, _fetch(folder, raw, log)


def _fetch(folder: Path, raw: Path, log: Callable[[str], None]) -> str:
    """Fill `raw` from the first source that has all four files unaltered; return that source in words."""
    _remove_leftovers(folder)
    sources = (
        (f"{folder}", lambda _: folder),
        (f"the system copy in {SYSTEM_COPY}", lambda _: SYSTEM_COPY),
        ("torchvision's download", _download),
        (f"Debian's package {APT_PACKAGE}", _fetch_package),
    )
    failures = []
    for title, find in sources:
        with tempfile.TemporaryDirectory(prefix=PRIVATE, dir=folder) as private:
            try:
                _install(find(Path(private).resolve()), raw)
                return title
            except Unavailable as reason:
                failures.append(f"{title}: {reason}")
                log(f"data: not from {failures[-1]}")
    raise Refused(
        f"no source has the data set unaltered ({'; '.join(failures)}); "
        f"put the four idx files into {raw} or name their folder with --data-dir"
    )


def _remove_leftovers(folder: Path) -> None:
    """Remove what a run that was killed while fetching left behind. The caller holds the folder's lock."""
    remove_partial(folder / "FashionMNIST" / "raw")
    for stray in folder.glob(f"{PRIVATE}*"):
        shutil.rmtree(stray, ignore_errors=True)


def _places(folder: Path, name: str) -> list[Path]:
    """Where the idx file `name` may stand below `folder`, plain before gzipped; existing files only."""
    folders = (folder / "FashionMNIST" / "raw", folder)
    candidates = [place / file for file in (name, f"{name}.gz") for place in folders]
    return [path for path in candidates if path.is_file()]


def _install(folder: Path, raw: Path) -> None:
    """Put each of the four files, found plain or gzipped below `folder`, verified into `raw`.

    Raises Unavailable, naming the file, if one is missing or every copy of it is altered. A file of the user's that is
    to be replaced is kept beside, as NAME.altered.
    """
    for name in FILES:
        if _fault(raw / name) is None:
            continue
        faults = []
        for path in _places(folder, name):
            fault = _unpack(path, raw / name)
            if fault is None:
                break
            faults.append(fault)
        else:
            raise Unavailable("; ".join(faults) or f"{name} is not there")


def _unpack(source: Path, target: Path) -> str | None:
    """Copy `source`, unzipping it if need be, to `target` if its content is right; else say what is wrong with it."""
    fault = _fault(source)
    if fault is None and source != target:
        if target.exists():
            target.replace(target.with_name(f"{target.name}.altered"))
        with _open(source) as packed, atomic_write(target) as plain:
            shutil.copyfileobj(packed, plain)
    return fault


def _open(path: Path):
    return gzip.open(path) if path.suffix == ".gz" else open(path, "rb")


def _fault(path: Path) -> str | None:
    """Say what is wrong with the idx file at `path`, plain or gzipped, or None if it is the published one."""
    size, digest = FILES[path.name.removesuffix(".gz")]
    actual, seen = hashlib.sha256(), 0
    try:
        if path.exists() and not path.is_file():
            return f"{path} is not a file"
        with _open(path) as file:
            while block := file.read(1 << 20):
                actual.update(block)
                seen += len(block)
                if seen > size:
                    return f"{path} is longer than {size:,} bytes"
    except FileNotFoundError:
        return f"{path} is not there"
    except (OSError, EOFError, gzip.zlib.error) as error:
        return f"{path} cannot be read ({error})"
    if seen != size:
        return f"{path} is cut short: {seen:,} bytes instead of {size:,}"
    return None if actual.hexdigest() == digest else f"{path} is altered: its SHA-256 is not the published one"


DOWNLOAD = """
import socket, sys
from torchvision.datasets import FashionMNIST as Published
socket.setdefaulttimeout(float(sys.argv[2]))
Published.mirrors = sys.argv[3:]
try:
    Published(sys.argv[1], download=True)
except Exception as error:
    sys.exit(str(error) or type(error).__name__)
"""


def _download(private: Path) -> Path:
    """Download with torchvision into `private`, in a child process that can be given a time limit."""
    from torchvision.datasets import FashionMNIST as Published

    command = [sys.executable, "-c", DOWNLOAD, str(private), str(STALL_SECONDS), *Published.mirrors]
    for attempt in range(1, DOWNLOAD_ATTEMPTS + 1):
        try:
            return _run(command, private, DOWNLOAD_SECONDS)
        except Unavailable:
            if attempt == DOWNLOAD_ATTEMPTS:
                raise
    raise AssertionError("at least one attempt is made")


def _fetch_package(private: Path) -> Path:
    """Fetch Debian's package with apt into `private` and unpack it there: no root, nothing on the system changed."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Unavailable("this machine has no apt-get")
    for folder in ("lists/partial", "cache/archives/partial"):
        (private / folder).mkdir(parents=True)
    apt = ["apt-get", "-q", "-o", f"Dir::State::Lists={private}/lists", "-o", f"Dir::Cache={private}/cache"]
    apt += ["-o", "Debug::NoLocking=true", "-o", f"Acquire::http::Timeout={STALL_SECONDS}"]
    _run([*apt, "update"], private, DOWNLOAD_SECONDS)
    _run([*apt, "download", APT_PACKAGE], private, DOWNLOAD_SECONDS)
    package = next(private.glob("*.deb"))
    _run(["dpkg-deb", "-x", str(package), "unpacked"], private, DOWNLOAD_SECONDS)
    return private / "unpacked" / SYSTEM_COPY.relative_to("/")


def _run(command: list[str], folder: Path, seconds: float) -> Path:
    """Run `command` in `folder` and return that; raise Unavailable with the command's last words if it fails."""
    try:
        done = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"no answer within {seconds:.0f} seconds") from None
    except OSError as error:
        raise Unavailable(str(error)) from None
    if done.returncode:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        raise Unavailable(" / ".join(lines[-3:]) or f"{command[0]} ended with exit code {done.returncode}")
    return folder


# Tensors to train with


def normalise(images: Tensor) -> Tensor:
    """Turn uint8 [B, 28, 28] into what the networks eat: float32 [B, 1, 28, 28] of mean 0 and deviation 1."""
    return images.unsqueeze(1).float().mul_(1 / (255 * STD)).sub_(MEAN / STD)


def split(count: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split `count` training images at random: int64 indices to train on, and the `fraction` held out to validate."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    held_out = round(count * fraction)
    return order[held_out:], order[:held_out]


def augment(images: Tensor, shift: int = 2) -> Tensor:
    """Flip each image of uint8 [B, 28, 28] or not, and shift it by up to `shift` pixels; both drawn per image."""
    count, height, width = images.shape
    device = images.device
    padded = torch.nn.functional.pad(images, (shift,) * 4)
    corner = torch.randint(0, 2 * shift + 1, (2, count, 1, 1), device=device)
    rows = corner[0] + torch.arange(height, device=device)[:, None]
    columns = corner[1] + torch.arange(width, device=device)
    flipped = torch.rand(count, 1, 1, device=device) < 0.5
    columns = torch.where(flipped, columns.flip(-1), columns)
    return padded[torch.arange(count, device=device)[:, None, None], rows, columns]
