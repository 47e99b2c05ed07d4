"""The data set in memory: equal bit for bit to its files, its release known, split and augmented; the published one's
facts. Where it may lie and how it is fetched is tested in test_download.py."""

import hashlib
import time

import numpy as np
import pytest
import torch

from fmnist import data, layers
from fmnist.errors import Refused
from tests.helpers import tiny


def assert_equal(dataset: data.FashionMNIST, written: tiny.Tiny) -> None:
    """Check every number, and the form that the rest of the program relies on."""
    for tensor, array in zip(dataset[:4], written, strict=True):
        assert tensor.dtype == (torch.uint8 if array.ndim == 3 else torch.int64)
        assert tensor.is_contiguous()
        np.testing.assert_array_equal(tensor.numpy(), array)


def load(folder) -> tuple[data.FashionMNIST, list[str]]:
    lines = []
    return data.load(folder, log=lines.append), lines


def test_reads_the_idx_files(tmp_path, offline):
    dataset, lines = load(tiny.write_torchvision(offline, tmp_path))
    assert_equal(dataset, offline)
    assert dataset.source == f"{tmp_path}, a data set of your own; accuracies are not comparable"
    assert lines == [f"data: 600 training and 200 test images from {dataset.source}"]


def test_reads_the_csv_pair(tmp_path, offline):
    dataset, lines = load(tiny.write_csv(offline, tmp_path))
    assert_equal(dataset, offline)
    assert lines == [f"data: 600 training and 200 test images from the CSV pair in {tmp_path}, {data.RELEASES['own']}"]


def test_idx_files_go_before_the_csv_pair(tmp_path, offline):
    tiny.write_csv(tiny.make(20, 10, seed=5), tmp_path)
    tiny.write_torchvision(offline, tmp_path, gzipped=True)
    assert_equal(load(tmp_path)[0], offline)


def test_what_moves_to_a_device_keeps_its_source_and_release(made_up):
    dataset = data.FashionMNIST(*map(torch.from_numpy, made_up), "somewhere", data.FIRST)
    moved = dataset.to(torch.device("meta"))
    assert {tensor.device.type for tensor in moved[:4]} == {"meta"}
    assert moved[4:] == ("somewhere", "first")


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path, offline, place):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(Refused, match="--data-dir"):
        load(tmp_path / place)


def test_a_folder_that_cannot_be_looked_into_is_refused(tmp_path, offline):
    with pytest.raises(Refused, match=r"File name too long.*name another --data-dir"):
        load(tmp_path / ("x" * 300))


# What is verified is what is loaded


def test_processed_tensors_are_not_loaded_in_the_place_of_the_verified_files(tmp_path, offline):
    """torchvision itself prefers them."""
    from torchvision.datasets import FashionMNIST

    processed = tiny.write_torchvision(offline, tmp_path) / "FashionMNIST" / "processed"
    processed.mkdir()
    for name, images in (("training.pt", offline.train_images), ("test.pt", offline.test_images)):
        torch.save((torch.from_numpy(images), torch.zeros(len(images), dtype=torch.int64)), processed / name)
    assert FashionMNIST(tmp_path).targets.max() == 0, "the trap works"
    assert_equal(load(tmp_path)[0], offline)


def test_a_file_that_changes_once_it_was_verified_is_not_read_again(tmp_path, offline, monkeypatch):
    raw = tiny.raw_folder(tiny.write_torchvision(offline, tmp_path))
    sha256 = hashlib.sha256

    def verify_and_change(content: bytearray):
        digest = sha256(content)
        for name in tiny.NAMES:
            if tiny.contents(offline)[name] == content:
                (raw / name).write_bytes(bytes(len(content)))
        return digest

    monkeypatch.setattr(hashlib, "sha256", verify_and_change)
    assert_equal(load(tmp_path)[0], offline)
    assert not any((raw / name).read_bytes().strip(b"\0") for name in tiny.NAMES), "every file was changed"


# Releases


def digest(labels: np.ndarray) -> str:
    """SHA-256 of the labels as bytes, in file order, as shared/systems.md states the releases' own."""
    return hashlib.sha256(bytes(labels.tolist())).hexdigest()


@pytest.fixture
def releases(offline, monkeypatch) -> dict[str, tiny.Tiny]:
    """The made-up data count as the current release, others as the first one."""
    both = {"current": offline, "first": tiny.make(60, 20, seed=1)}
    monkeypatch.setattr(data, "TRAIN_LABELS", {digest(part.train_labels): name for name, part in both.items()})
    monkeypatch.setattr(data, "TEST_LABELS", {digest(part.test_labels): name for name, part in both.items()})
    return both


@pytest.mark.parametrize("name", ["current", "first"])
def test_the_release_of_a_csv_pair_is_known_by_its_labels(tmp_path, releases, name):
    dataset, lines = load(tiny.write_csv(releases[name], tmp_path))
    assert dataset.release == name
    assert dataset.source == f"the CSV pair in {tmp_path}, {data.RELEASES[name]}"
    assert f"the {name} release" in lines[-1]
    assert ("not comparable" in lines[-1]) == (name == "first")


def test_the_release_of_idx_files_is_known_by_their_labels(tmp_path, releases):
    assert load(tiny.write_torchvision(releases["current"], tmp_path))[0].release == "current"


def test_other_labels_are_a_data_set_of_ones_own(tmp_path, releases):
    current = releases["current"]
    for number, part in enumerate((current._replace(train_labels=current.train_labels[::-1]), tiny.make(20, 10))):
        assert load(tiny.write_csv(part, tmp_path / str(number)))[0].release == "own"


@pytest.mark.parametrize(("train", "test"), [("current", "first"), ("first", "current")])
def test_a_pair_of_two_releases_is_refused(tmp_path, releases, train, test):
    mixed = tiny.Tiny(*releases[train][:2], *releases[test][2:])
    with pytest.raises(Refused) as refusal:
        load(tiny.write_csv(mixed, tmp_path))
    said = f"the training images are of the {train} release of the data set, the test images of the {test} one"
    assert said in str(refusal.value)
    assert str(tmp_path) in str(refusal.value)


# The published data set


def test_the_facts_of_the_published_data(real_data):
    assert [tuple(tensor.shape) for tensor in real_data[:4]] == [(60000, 28, 28), (60000,), (10000, 28, 28), (10000,)]
    assert real_data.train_labels.bincount().tolist() == [6000] * 10
    assert real_data.test_labels.bincount().tolist() == [1000] * 10
    pixels = real_data.train_images.numpy() / 255.0
    assert pixels.mean() == pytest.approx(layers.MEAN, abs=5e-5)
    assert pixels.std() == pytest.approx(layers.STD, abs=5e-5)
    assert data.CLASSES[real_data.train_labels[0]] == "Ankle boot"
    assert real_data.release == "current"


def test_the_published_data_load_in_under_a_second(real_folder):
    """Verified by SHA-256 each time. The best of three, for the machine may be busy."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        load(real_folder)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 1, seconds


# Tensors to train with


@pytest.mark.parametrize(
    ("count", "fraction", "held_out"), [(600, 0.1, 60), (60000, 0.1, 6000), (7, 0, 0), (9, 0.3, 3)]
)
def test_split_is_disjoint_and_complete(count, fraction, held_out):
    train, validation = data.split(count, fraction, seed=3)
    assert (len(train), len(validation)) == (count - held_out, held_out)
    assert sorted([*train.tolist(), *validation.tolist()]) == list(range(count))


def test_split_follows_from_its_seed_alone():
    torch.manual_seed(1)
    one = data.split(100, 0.2, seed=3)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    same, other = data.split(100, 0.2, seed=3), data.split(100, 0.2, seed=4)
    assert torch.equal(torch.get_rng_state(), state), "the split draws from a generator of its own"
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[1], other[1])


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_split_is_drawn_at_random(fraction):
    """The held-out indices are spread over the whole: their mean is near the middle."""
    _, validation = data.split(10_000, fraction, seed=0)
    assert float(validation.float().mean()) == pytest.approx(5000, abs=5 * 2887 / len(validation) ** 0.5)


def dataset_of(count: int) -> data.FashionMNIST:
    images = torch.arange(count, dtype=torch.uint8)[:, None, None].expand(count, 28, 28)
    return data.FashionMNIST(images, torch.arange(count) % 10, images[:0], torch.empty(0, dtype=torch.int64), "nowhere")


def test_what_an_audits_network_judges_it_does_not_learn_from():
    dataset, judged = dataset_of(50), []
    for part in range(data.PARTS):
        without = data.without_part(dataset, part)
        learnt, asked = without.train_images[:, 0, 0].tolist(), without.test_images[:, 0, 0].tolist()
        assert sorted(learnt + asked) == list(range(50))
        assert without.train_labels.tolist() == [number % 10 for number in learnt]
        assert without.test_labels.tolist() == [number % 10 for number in asked]
        judged += asked
    assert sorted(judged) == list(range(50))


def test_training_data_are_the_images_and_the_split():
    dataset = dataset_of(50)
    training = data.training_data(dataset, 0.1, seed=3)
    assert training.images is dataset.train_images
    assert training.labels is dataset.train_labels
    # torch.randperm(50) from seed 3: a checkpoint relies on the same split ever after.
    assert training.validation_indices.tolist() == [36, 4, 27, 3, 32]
    assert sorted([*training.train_indices.tolist(), *training.validation_indices.tolist()]) == list(range(50))
    assert len(data.training_data(dataset, 0, seed=3).validation_indices) == 0


@pytest.mark.parametrize(
    ("count", "fraction", "said"),
    [
        (50, 0.001, "--validation 0.001 holds out none of 50"),
        (50, 0.99, "--validation 0.99 leaves 0 of 50"),
        (2, 0.5, "--validation 0.5 leaves 1 of 2"),
        (1, 0, "1 training image is too little to train on; name a larger data set with --data-dir"),
        (1, 0.1, "1 training image"),
    ],
)
def test_too_few_images_to_train_on_or_to_hold_out_are_refused(count, fraction, said):
    with pytest.raises(Refused, match=said):
        data.training_data(dataset_of(count), fraction, seed=0)


def shifted(image: np.ndarray, down: int, right: int, flip: bool) -> np.ndarray:
    """One image moved pixel by pixel, black where nothing comes from, then mirrored or not."""
    moved = np.zeros_like(image)
    for y in range(28):
        for x in range(28):
            if 0 <= y - down < 28 and 0 <= x - right < 28:
                moved[y, x] = image[y - down, x - right]
    return moved[:, ::-1] if flip else moved


def test_augment_against_a_loop_over_images_each_drawn_on_its_own(made_up):
    images = made_up.train_images[:200]
    torch.manual_seed(0)
    result = data.augment(torch.from_numpy(images.copy()))
    assert result.shape == (200, 28, 28)
    assert result.dtype == torch.uint8

    drawn = []
    for before, after in zip(images, result.numpy(), strict=True):
        moves = [(y, x, flip) for y in range(-2, 3) for x in range(-2, 3) for flip in (False, True)]
        fitting = [move for move in moves if np.array_equal(shifted(before, *move), after)]
        assert len(fitting) == 1, fitting
        drawn += fitting
    assert len(set(drawn)) > 40, "200 draws from 50 moves: each image has its own"
    assert 70 < sum(flip for *_, flip in drawn) < 130
    for axis in (0, 1):
        assert {move[axis] for move in drawn} == {-2, -1, 0, 1, 2}


def test_augment_follows_from_the_seed_and_leaves_the_images_as_they_were(made_up):
    images = torch.from_numpy(made_up.train_images[:50].copy())
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(data.augment(images))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    np.testing.assert_array_equal(images.numpy(), made_up.train_images[:50])


def test_augment_shifts_as_far_as_asked(made_up):
    images = torch.from_numpy(made_up.train_images[:20].copy())
    still = data.augment(images, shift=0)
    for before, after in zip(images, still, strict=True):
        assert torch.equal(after, before) or torch.equal(after, before.flip(1))


def blackened(image: np.ndarray, size: int, y: int, x: int) -> np.ndarray:
    """One image with a square around (y, x) blackened, as far as it lies in the image."""
    changed = image.copy()
    top, left = y - size // 2, x - size // 2
    changed[max(0, top) : max(0, top + size), max(0, left) : max(0, left + size)] = 0
    return changed


@pytest.mark.parametrize("size", [1, 12, 13])
def test_cut_out_against_a_loop_over_images_each_drawn_on_its_own(size):
    images = np.random.default_rng(size).integers(1, 256, (100, 28, 28), dtype=np.uint8)
    torch.manual_seed(0)
    result = data.cut_out(torch.from_numpy(images.copy()), size).numpy()
    assert result.dtype == np.uint8
    drawn = []
    for before, after in zip(images, result, strict=True):
        places = [(y, x) for y in range(28) for x in range(28)]
        drawn += [place for place in places if np.array_equal(blackened(before, size, *place), after)][:1]
    assert len(drawn) == 100, "every image has a square whose centre is in it"
    assert len(set(drawn)) > 80, "100 draws from 784 places: each image has its own"
