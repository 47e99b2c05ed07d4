"""Fashion-MNIST as tensors in memory: loaded, told apart by release, copied for workers, split and augmented."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fmnist import csv_files, download
from fmnist.errors import Refused
from fmnist.files import atomic_write

if TYPE_CHECKING:
    from fmnist.photograph import Step

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
PARTS = 5  # of the training images, for an audit: each is judged by a network that has learnt from the others
MINIMUM = 2  # images to train on: batch norm takes the variance over a batch
CSV_FILES = ("fashion-mnist_train.csv", "fashion-mnist_test.csv")

# On 2017-08-31 the authors replaced all four files (github.com/zalandoresearch/fashion-mnist, commit 658ec8c): ten test
# images were among the training images, and others came twice. The CSV pair that is passed around is the first release.
CURRENT, FIRST, OWN = "current", "first", "own"
RELEASES = {
    CURRENT: "the current release of the data set",
    FIRST: "the first release of the data set: its test images are partly today's training images; "
    "accuracies are not comparable",
    OWN: "a data set of your own; accuracies are not comparable",
}
# A release is known by its labels: SHA-256 of the labels as bytes, in the order of the file.
TRAIN_LABELS = {
    "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7": CURRENT,
    "08234e4721389732c9ebcb39c414f1950e8c825032ff57f19f6f3a7790b2a04d": FIRST,
}
TEST_LABELS = {
    "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9": CURRENT,
    "d4d3815b46ea2e06fde4f5b2ce0510a726fc01155a36a0dd781bfc474e0b74a6": FIRST,
}


class FashionMNIST(NamedTuple):
    """The data set in memory: images uint8 [N, 28, 28], labels int64 [N]."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    source: str  # where it came from and which release it is, in words
    release: str = OWN  # CURRENT, FIRST or OWN

    def to(self, device: torch.device) -> "FashionMNIST":
        """Return the same data set with its tensors on `device`."""
        return FashionMNIST(*(tensor.to(device) for tensor in self[:4]), self.source, self.release)

    def digests(self) -> dict[str, str]:
        """Return the first digits of the SHA-256 of the images and labels, in their order, of each part of the set."""
        parts = {"training data": self[:2], "test data": self[2:4]}
        return {name: self._digest(*tensors) for name, tensors in parts.items()}

    @staticmethod
    def _digest(images: Tensor, labels: Tensor) -> str:
        content = hashlib.sha256(images.cpu().numpy())
        content.update(labels.cpu().numpy())
        return content.hexdigest()[:16]


class Sample(NamedTuple):
    """An image that is shown to a network."""

    pixels: np.ndarray  # uint8 [28, 28], prepared as the training images are
    title: str
    steps: "tuple[Step, ...]" = ()  # of a user's photograph: from what was taken to `pixels`
    warning: str | None = None  # what makes the photograph doubtful


def test_image(dataset: FashionMNIST, index: int) -> Sample:
    """Return the test image number `index`. Raises Refused if there are not so many."""
    if index >= len(dataset.test_images):
        raise Refused(f"--index {index}: the test images are numbered 0 to {len(dataset.test_images) - 1}")
    true_class = CLASSES[dataset.test_labels[index]]
    return Sample(dataset.test_images[index].cpu().numpy(), f"test image {index}, {true_class}")


def load(data_dir: Path | str, log: Callable[[str], None] = print, fetch: bool = True) -> FashionMNIST:
    """Return the data set from the first source that has it unaltered, and log which one that was.

    The order: `data_dir` (idx files, plain or gzipped, or the CSV pair), Debian's system copy, torchvision's
    download, Debian's package; see `fmnist.download`. Without `fetch` the last two are left out. Raises Refused,
    naming every source and why it failed, if none has it, and if the training images are of one release and the test
    images of another.
    """
    folder = Path(data_dir)
    tensors, place = _read_csv(folder) if _has_csv(folder) else _read_idx(folder, log, fetch)
    release = _release(*tensors[1::2], place)
    dataset = FashionMNIST(*tensors, f"{place}, {RELEASES[release]}", release)
    counts = f"{len(dataset.train_images):,} training and {len(dataset.test_images):,} test images"
    log(f"data: {counts} from {dataset.source}")
    return dataset


def load_release(data_dir: Path, release: str, log: Callable[[str], None] = print) -> FashionMNIST:
    """Return the data set as `load` does, if it is of the `release` that a network was trained on.

    The test images of another release are partly its training images. Raises Refused as `load` does, and for those.
    """
    dataset = load(data_dir, log)
    if dataset.release != release:
        raise Refused(f"--data-dir {data_dir}: {RELEASES[dataset.release]}, and the network was trained on another")
    return dataset


def write_copy(dataset: FashionMNIST, folder: Path) -> None:
    """Write the data set into `folder` as it is in memory, for `read_copy`."""
    for name, tensor in zip(FashionMNIST._fields, dataset[:4], strict=False):
        array = tensor.cpu().contiguous().numpy()
        with atomic_write(folder / f"{name}.npy") as file:  # np.save itself does not say that a disk is full
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
            file.write(array.data)


def read_copy(folder: Path, release: str, is_mapped: bool) -> FashionMNIST:
    """Return the copy of the data set in `folder`; mapped into memory, all workers on one machine share it."""
    paths = [folder / f"{name}.npy" for name in FashionMNIST._fields[:4]]
    mode = "c" if is_mapped else None  # not written to, but torch would warn of what cannot be
    tensors = [torch.from_numpy(np.load(path, mmap_mode=mode, allow_pickle=False)) for path in paths]
    return FashionMNIST(*tensors, str(folder), release)


def _has_csv(folder: Path) -> bool:
    """Whether to read the CSV form: where one of its files is there, and no idx files are."""
    try:
        return any((folder / name).exists() for name in CSV_FILES) and not download.has_idx_files(folder)
    except OSError as error:
        raise Refused(f"{folder}: cannot be read ({error.strerror}); name another --data-dir") from None


def _read_csv(folder: Path) -> tuple[list[Tensor], str]:
    """Read the CSV pair. It may be a data set of one's own, so no checksum is asked of it: every row is checked."""
    tensors = [torch.from_numpy(array) for name in CSV_FILES for array in csv_files.read(folder / name)]
    return tensors, f"the CSV pair in {folder}"


def _read_idx(folder: Path, log: Callable[[str], None], fetch: bool) -> tuple[list[Tensor], str]:
    """Parse the very bytes that were verified.

    torchvision's FashionMNIST would open the files once more, and reads FashionMNIST/processed/*.pt, of whatever
    content, in their place where these exist.
    """
    contents, source = download.find(folder, log, fetch)
    images, labels, test_images, test_labels = (_tensor(contents[name]) for name in download.FILES)
    return [images, labels.long(), test_images, test_labels.long()], source


def _tensor(content: bytearray) -> Tensor:
    """Return the uint8 array that a verified idx file holds, in the memory of `content`.

    The form: 0, 0, 8 for uint8, the number of dimensions, each size in four bytes from the highest, the values.
    """
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", dimensions, offset=4)
    return torch.frombuffer(content, dtype=torch.uint8, offset=4 + 4 * dimensions).view(*shape.tolist())


def _release(train_labels: Tensor, test_labels: Tensor, place: str) -> str:
    """Return the release that the labels are of; raise Refused if each part is of another one."""
    train = TRAIN_LABELS.get(_digest(train_labels), OWN)
    test = TEST_LABELS.get(_digest(test_labels), OWN)
    if {train, test} == {CURRENT, FIRST}:
        raise Refused(
            f"{place}: the training images are of the {train} release of the data set, the test images of the {test} "
            "one, which have images in common; get both files from one place"
        )
    return train if train == test else OWN


def _digest(labels: Tensor) -> str:
    return hashlib.sha256(labels.to(torch.uint8).numpy().tobytes()).hexdigest()


# Tensors to train with


class TrainingData(NamedTuple):
    """What `fit` learns from: the training images, and which of them are trained on and which validate."""

    images: Tensor  # uint8 [N, 28, 28]
    labels: Tensor  # int64 [N]
    train_indices: Tensor  # int64
    validation_indices: Tensor  # int64, none of them in train_indices; may be empty


def training_data(dataset: FashionMNIST, fraction: float, seed: int) -> TrainingData:
    """Hold out a `fraction` of the training images, drawn at random from `seed`, to validate on.

    Raises Refused, naming --validation, if a `fraction` above 0 holds out nothing or leaves less than MINIMUM images to
    train on, and if there are fewer than that in all.
    """
    images, labels = dataset.train_images, dataset.train_labels
    if len(images) < MINIMUM:
        raise Refused(f"{len(images)} training image is too little to train on; name a larger data set with --data-dir")
    train_indices, validation_indices = split(len(images), fraction, seed)
    if fraction > 0 and len(validation_indices) == 0:
        raise Refused(f"--validation {fraction:g} holds out none of {len(images):,} training images; try more, or 0")
    if len(train_indices) < MINIMUM:
        left = f"{len(train_indices)} of {len(images):,} training images"
        raise Refused(f"--validation {fraction:g} leaves {left} to train on, at least {MINIMUM} are needed; try less")
    return TrainingData(images, labels, train_indices.to(images.device), validation_indices.to(images.device))


def split(count: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split `count` training images at random: int64 indices to train on, and the `fraction` held out to validate."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    held_out = round(count * fraction)
    return order[held_out:], order[:held_out]


def part_indices(count: int, part: int) -> Tensor:
    """Return the indices, int64, of one of the five equal parts that `count` training images fall into at random."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[part::PARTS]


def without_part(dataset: FashionMNIST, part: int) -> FashionMNIST:
    """Return the data set without one part of its training images: they are test images now, before the others.

    Raises Refused if that leaves too few to train on.
    """
    images, labels = dataset.train_images, dataset.train_labels
    if len(images) < PARTS * MINIMUM:
        raise Refused(f"--data-dir: {len(images)} training images are too few to judge their labels; name a larger set")
    held_out = part_indices(len(images), part).to(images.device)
    kept = torch.ones(len(images), dtype=torch.bool, device=images.device)
    kept[held_out] = False
    return dataset._replace(
        train_images=images[kept],
        train_labels=labels[kept],
        test_images=torch.cat([images[held_out], dataset.test_images]),
        test_labels=torch.cat([labels[held_out], dataset.test_labels]),
    )


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


def cut_out(images: Tensor, size: int) -> Tensor:
    """Blacken a square of `size` pixels in each image of uint8 [B, 28, 28], wherever its centre falls in the image.

    DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", arXiv 1708.04552: near
    the border a part of the square lies outside.
    """
    count, height, width = images.shape
    device = images.device
    top = torch.randint(height, (count, 1, 1), device=device) - size // 2
    left = torch.randint(width, (count, 1, 1), device=device) - size // 2
    rows, columns = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    inside = (rows >= top) & (rows < top + size) & (columns >= left) & (columns < left + size)
    return images.masked_fill(inside, 0)
