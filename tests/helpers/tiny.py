"""A data set of the form of Fashion-MNIST, made on the spot: small, learnable, and with checksums of its own.

Each class is a blob of light in a place of its own among noise. Tests put `files_table` in the place of
`fmnist.download.FILES`, in their own process or, with `tests.helpers.child`, in another.
"""

import gzip
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CSV_NAMES = ("fashion-mnist_train.csv", "fashion-mnist_test.csv")
HEADER = ",".join(["label", *(f"pixel{number}" for number in range(1, 785))])


class Tiny(NamedTuple):
    """Images uint8 [N, 28, 28] and labels uint8 [N], as NumPy arrays, in the order of NAMES."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def make(train: int = 600, test: int = 200, seed: int = 0) -> Tiny:
    """Make so many training and test images, of each of ten classes equally many, in random order."""
    random = np.random.default_rng(seed)
    return Tiny(*_images(train, random), *_images(test, random))


def _images(count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    labels = random.permutation(np.arange(count) % 10).astype(np.uint8)
    angle = 2 * np.pi * labels / 10
    centre = 13.5 + 8 * np.stack([np.sin(angle), np.cos(angle)]) + random.normal(0, 1, (2, count))
    pixels = np.arange(28)
    distance = (pixels[:, None] - centre[0][:, None, None]) ** 2 + (pixels - centre[1][:, None, None]) ** 2
    images = 180 * np.exp(-distance / 18) + random.uniform(0, 70, (count, 28, 28))
    return images.astype(np.uint8), labels


def idx_bytes(array: np.ndarray) -> bytes:
    """The idx form of a uint8 array: 0, 0, type 8, number of dimensions, the sizes big-endian, the values."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


def contents(data: Tiny) -> dict[str, bytes]:
    """The four idx files, {name: bytes}."""
    return {name: idx_bytes(array) for name, array in zip(NAMES, data, strict=True)}


def files_table(data: Tiny) -> dict[str, tuple[int, str]]:
    """What takes the place of `fmnist.download.FILES`: {name: (size, SHA-256)}."""
    return {name: (len(body), hashlib.sha256(body).hexdigest()) for name, body in contents(data).items()}


def raw_folder(root: Path) -> Path:
    """Where torchvision keeps the idx files below `root`."""
    return Path(root) / "FashionMNIST" / "raw"


def write_idx(data: Tiny, folder: Path, gzipped: bool = False) -> Path:
    """Write the four idx files into `folder` itself, plain or each as NAME.gz, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in contents(data).items():
        path = folder / (f"{name}.gz" if gzipped else name)
        path.write_bytes(gzip.compress(body) if gzipped else body)
    return folder


def write_torchvision(data: Tiny, root: Path, gzipped: bool = False) -> Path:
    """Write the four idx files below `root` as torchvision lays them out, and return `root`."""
    write_idx(data, raw_folder(root), gzipped)
    return root


def write_csv(data: Tiny, folder: Path) -> Path:
    """Write the pair of CSV files into `folder`, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, images, labels in zip(CSV_NAMES, data[::2], data[1::2], strict=True):
        table = np.column_stack([labels, images.reshape(len(images), -1)])
        rows = [HEADER, *(",".join(map(str, row)) for row in table.tolist())]
        (folder / name).write_text("\n".join(rows) + "\n")
    return folder
