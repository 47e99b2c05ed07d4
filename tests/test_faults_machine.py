"""Faults of the machine: no room on the disk, no memory, no such device.

Each test asserts that its fault did happen, and then what the user gets.
"""

import errno
import io
import json
import os
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from fmnist import checkpoints, download, files, workers
from fmnist.data import FashionMNIST
from fmnist.learners import TorchLearner
from tests.helpers import child, needs, tiny
from tests.helpers.child import command, strays

pytestmark = pytest.mark.usefixtures("data_is_there")

SMALL = ["classic", "--models", "ffn", "--hidden", 32, "--epochs", 2]


# 12: disk full

FULL_DISK = "disk full: a limit on file size, and a mocked ENOSPC"

LIMITS_THE_SIZE = """
import resource
save = checkpoints.Checkpoints.save
def save_with_less_room(self, epoch, *rest):
    if epoch == 2:
        print("limited", flush=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    save(self, epoch, *rest)
checkpoints.Checkpoints.save = save_with_less_room
"""


@needs.posix
@pytest.mark.fault(12, FULL_DISK)
def test_a_checkpoint_that_finds_no_room_fails_and_the_earlier_one_serves(folders):
    table, arguments = tiny.files_table(tiny.make()), command(folders, *SMALL)
    with child.started(arguments, files=table, patches=[LIMITS_THE_SIZE]) as process:
        child.wait_for(process, "limited")
        done = child.finish(process)
    saved = folders[1] / "classic" / "checkpoints" / "ffn-seed0"
    line = child.only_line(done, 1)
    assert os.strerror(errno.EFBIG) in line
    assert str(saved / "epoch0002.pt") in line
    assert "--resume" in line
    assert not strays(folders[1])
    assert sorted(path.name for path in saved.glob("*.pt")) == ["epoch0000.pt", "epoch0001.pt"]
    assert (saved / "epoch0001.pt").stat().st_size > 100_000, "the limit was in its way"
    assert len(checkpoints.load(saved / "epoch0001.pt")["history"]) == 1


@pytest.mark.fault(12, FULL_DISK)
@pytest.mark.parametrize("name", ["epoch0002.pt", "ffn.pth", "metrics.json", "report.html"])
def test_any_file_that_finds_no_room_fails_by_its_name_and_the_run_can_go_on(
    folders, run_here, no_pictures, monkeypatch, name
):
    full = fill_the_disk_for(monkeypatch, name)
    line = child.only_line(run_here(command(folders, *SMALL)), 1)
    assert full.happened
    assert os.strerror(errno.ENOSPC) in line
    assert f"{name}: " in line
    assert "--resume" in line
    assert not strays(folders[1])
    assert not list(folders[1].rglob(name))

    full.now = False
    done = run_here(command(folders, "classic", "--resume"))
    assert (done.returncode, done.stderr) == (0, "")
    assert list(folders[1].rglob(name))


class Disk:
    """Whether it is full, and whether that was felt."""

    def __init__(self) -> None:
        self.now, self.happened = True, False


def fill_the_disk_for(monkeypatch, name: str) -> Disk:
    """Let there be room for half of what is written at a time into the file called `name`."""
    disk = Disk()

    class Full(io.BufferedWriter):
        def write(self, content) -> None:
            super().write(bytes(content)[: len(content) // 2])
            super().flush()
            disk.happened = os.fstat(self.fileno()).st_size > 0
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def open_file(path: Path, mode: str):
        if disk.now and Path(path).name.startswith(f".{name}."):
            return Full(io.FileIO(path, "w"))
        return open(path, mode)

    monkeypatch.setattr(files, "open", open_file, raising=False)
    return disk


@needs.posix
def test_a_copy_for_the_workers_that_finds_no_room_says_so(tmp_path):
    dataset = FashionMNIST(*map(torch.from_numpy, tiny.make()), "made up", "own")
    with (
        largest_file(10_000),
        pytest.raises(OSError, match="train_images") as caught,
        workers._copied(dataset, tmp_path),
    ):
        pass
    assert caught.value.errno == errno.EFBIG
    assert not (tmp_path / workers.DATA).exists()


@contextmanager
def largest_file(size: int):
    """A real limit on the size of the files that this process writes."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@needs.posix
@pytest.mark.fault(12, FULL_DISK)
def test_data_that_find_no_room_fail_by_their_name(folders, run_here, monkeypatch):
    raw = tiny.raw_folder(folders[0])
    mirror = raw.replace(folders[0].with_name("mirror"))
    monkeypatch.setattr(download, "_download", lambda *_: mirror)
    with largest_file(20_000):
        done = run_here(command(folders))
    line = child.only_line(done, 1)
    assert f"{raw / tiny.NAMES[0]}: {os.strerror(errno.EFBIG)}" in line
    assert not strays(folders[0])
    assert not (raw / tiny.NAMES[0]).exists()


@needs.posix
@pytest.mark.fault(12, FULL_DISK)
def test_a_picture_that_finds_no_room_fails_by_its_name(tmp_path, capfd):
    from fmnist import errors
    from fmnist.figures import style

    picture = tmp_path / "loss_curves.png"

    def draw() -> None:
        with style.sheet(picture, 4, 3, "a title") as figure:
            figure.subplots().plot([1, 2, 3])

    assert errors.run_main(draw) == 0
    before = picture.read_bytes()
    assert len(before) > 5000
    with largest_file(5000):
        assert errors.run_main(draw) == 1
    assert f"error: {picture}: {os.strerror(errno.EFBIG)}" in capfd.readouterr().err
    assert picture.read_bytes() == before
    assert not strays(tmp_path)


# 24: out of memory

OUT_OF_MEMORY = "out of memory (mocked; and under a real limit)"
LIMITS_MEMORY = """
import resource
fit = training.fit
def fit_with_less_memory(*args, **kwargs):
    pages = int(open("/proc/self/statm").read().split()[0])
    print("limited", flush=True)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MORE,) * 2)
    return fit(*args, **kwargs)
training.fit = fit_with_less_memory
"""


@pytest.mark.fault(24, OUT_OF_MEMORY)
def test_no_memory_fails_advising_a_smaller_batch(folders, run_here, monkeypatch):
    def step(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(TorchLearner, "step", step)
    line = child.only_line(run_here(command(folders, *SMALL)), 1)
    assert "out of memory" in line
    assert "--batch-size" in line


@needs.linux
@pytest.mark.fault(24, OUT_OF_MEMORY)
@pytest.mark.parametrize("more", [20, 200, 450])  # megabytes: they run out saving epoch 0, learning, saving epoch 1
def test_no_memory_for_real(folders, more):
    arguments = command(folders, "classic", "--models", "ffn", "--hidden", 4096, 4096, "--epochs", 1, "-b", 600)
    patches = [f"MORE = {more * 10**6}{LIMITS_MEMORY}"]
    with child.started(arguments, files=tiny.files_table(tiny.make()), patches=patches) as process:
        child.wait_for(process, "limited")
        done = child.finish(process)
    line = child.only_line(done, 1)
    assert "out of memory" in line
    assert "--batch-size" in line
    assert not strays(folders[1])


# 31: a device that is not there

NO_DEVICE = "--device cuda where there is none"


@pytest.fixture
def only_a_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.fault(31, NO_DEVICE)
@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(folders, run_here, only_a_cpu, never_loads, device):
    line = child.only_line(run_here(command(folders, *SMALL, "--device", device)), 2)
    assert f"--device {device}: there is none on this machine" in line
    assert child.snapshot(folders[1]) == {}


@pytest.mark.fault(31, NO_DEVICE)
def test_auto_takes_the_cpu_and_says_so(folders, run_here, only_a_cpu, no_pictures):
    done = run_here(command(folders, *SMALL, "--device", "auto"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "on cpu" in done.stdout.splitlines()[0]
    metrics = json.loads((folders[1] / "classic" / "metrics.json").read_text())
    assert metrics["device"] == "cpu"
