"""Faults of the machine: no room, no memory, no display, folders that cannot be used, kills while files are written.

Each test asserts that its fault did happen, and then what the user gets.
"""

import errno
import io
import json
import os
import resource
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image

from fmnist import checkpoints, data, files, training
from tests import child, forks, tiny

SMALL = ["classic", "--models", "ffn", "--hidden", 32, "--epochs", 2]


@pytest.fixture
def folders(tmp_path, offline):
    """The data folder, with the data, and a folder for output."""
    return tiny.write_torchvision(offline, tmp_path / "data"), tmp_path / "out"


def command(folders, *words: object) -> list[object]:
    return [*(words or ["explore"]), "--data-dir", folders[0], "--output-dir", folders[1]]


def strays(folder: Path) -> list[Path]:
    return list(folder.rglob(".*.partial"))


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


@pytest.mark.fault(12, FULL_DISK)
def test_a_checkpoint_that_finds_no_room_fails_and_the_earlier_one_serves(folders):
    table, arguments = tiny.files_table(tiny.make()), command(folders, *SMALL)
    with forks.started(arguments, files=table, patches=[LIMITS_THE_SIZE]) as process:
        child.wait_for(process, "limited")
        done = child.finish(process)
    saved = folders[1] / "classic" / "checkpoints"
    line = child.only_line(done, 1)
    assert os.strerror(errno.EFBIG) in line
    assert str(saved / "ffn-seed0-epoch0002.pt") in line
    assert "--resume" in line
    assert not strays(folders[1])
    assert [path.name for path in checkpoints.checkpoint_paths(saved, "ffn-seed0")] == [
        "ffn-seed0-epoch0001.pt",
        "ffn-seed0-epoch0000.pt",
    ]
    assert (saved / "ffn-seed0-epoch0001.pt").stat().st_size > 100_000, "the limit was in its way"
    assert len(checkpoints.load(saved / "ffn-seed0-epoch0001.pt")["history"]) == 1


@pytest.mark.fault(12, FULL_DISK)
@pytest.mark.parametrize("name", ["ffn-seed0-epoch0002.pt", "ffn.pth", "metrics.json", "report.html", "finished.json"])
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


@contextmanager
def largest_file(size: int):
    """A real limit on the size of the files that this process writes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.fault(12, FULL_DISK)
def test_data_that_find_no_room_fail_by_their_name(folders, run_here, offline):
    raw = tiny.raw_folder(folders[0])
    for path in raw.iterdir():
        path.unlink()
    tiny.write_idx(offline, raw, gzipped=True)
    with largest_file(20_000):
        done = run_here(command(folders))
    line = child.only_line(done, 1)
    assert f"{raw / tiny.NAMES[0]}: {os.strerror(errno.EFBIG)}" in line
    assert not strays(folders[0])
    assert not (raw / tiny.NAMES[0]).exists()


@pytest.mark.fault(12, FULL_DISK)
def test_a_picture_that_finds_no_room_fails_by_its_name(tmp_path, capfd):
    from fmnist import drawing, errors

    picture = tmp_path / "loss_curves.png"

    def draw() -> None:
        with drawing.sheet(picture, 4, 3, "a title") as figure:
            figure.subplots().plot([1, 2, 3])

    assert errors.run(draw) == 0
    before = picture.read_bytes()
    assert len(before) > 5000
    with largest_file(5000):
        assert errors.run(draw) == 1
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
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 5.05 GB)"),
        MemoryError(),
    ],
)
def test_no_memory_fails_advising_a_smaller_batch(folders, run_here, monkeypatch, error):
    asked = []

    def step(*_):
        asked.append(True)
        raise error

    monkeypatch.setattr(training.TorchLearner, "step", step)
    line = child.only_line(run_here(command(folders, *SMALL)), 1)
    assert asked
    assert "out of memory" in line
    assert "--batch-size" in line


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell how much memory is in use")
@pytest.mark.fault(24, OUT_OF_MEMORY)
@pytest.mark.parametrize("more", [5_000_000, 200_000_000, 600_000_000])  # found out by building, saving, learning
def test_no_memory_for_real(folders, more):
    arguments = command(folders, "classic", "--models", "ffn", "--hidden", 8192, 8192, "--epochs", 1)
    patches = [f"MORE = {more}{LIMITS_MEMORY}"]
    with forks.started(arguments, files=tiny.files_table(tiny.make()), patches=patches) as process:
        child.wait_for(process, "limited")
        done = child.finish(process)
    line = child.only_line(done, 1)
    assert "out of memory" in line
    assert "--batch-size" in line
    assert not strays(folders[1])


# 25: the output folder is a file, or not writable

BAD_FOLDER = "the output folder is a file, or not writable"


@pytest.fixture
def never_loads(monkeypatch):
    """A run that gets as far as loading the data fails the test."""
    monkeypatch.setattr(data, "load", lambda *_: pytest.fail("the run went on"))


@pytest.mark.fault(25, BAD_FOLDER)
@pytest.mark.parametrize("place", ["out", "out/explore", "out/explore/.lock/x"])
def test_a_file_in_the_place_of_the_output_folder_is_refused(folders, run_here, never_loads, place):
    path = folders[1].parent / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    before = child.snapshot(folders[1].parent)
    line = child.only_line(run_here(command(folders)), 2)
    assert str(folders[1]) in line
    assert "--output-dir" in line
    assert child.snapshot(folders[1].parent) == before


@contextmanager
def as_nobody():
    """Root may write anywhere: go on as the user nobody."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.fault(25, BAD_FOLDER)
@pytest.mark.parametrize("below", ["", "explore"])
def test_a_folder_that_is_not_writable_is_refused(folders, run_here, never_loads, below):
    with tempfile.TemporaryDirectory() as place:
        output = Path(place) / "out"
        (output / below).mkdir(parents=True)
        for path in (Path(place), output, output / below):
            path.chmod(0o555)
        with as_nobody():
            with pytest.raises(PermissionError):
                (output / below / "x").touch()
            done = run_here(command((folders[0], output)))
        Path(place).chmod(0o755)
        for path in (output, output / below):
            path.chmod(0o755)
        assert str(output) in child.only_line(done, 2)
        assert "--output-dir" in done.stderr
        assert child.snapshot(Path(place)) == {}


@pytest.mark.fault(25, BAD_FOLDER)
def test_a_data_folder_that_may_not_be_read_is_refused(folders, run_here):
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        for name in ("data", "out"):
            (Path(place) / name).mkdir()
        (Path(place) / "data").chmod(0)
        (Path(place) / "out").chmod(0o777)
        with as_nobody():
            done = run_here(command((Path(place) / "data", Path(place) / "out")))
        (Path(place) / "data").chmod(0o755)
        assert f"{place}/data: cannot be read" in child.only_line(done, 2)
        assert "--data-dir" in done.stderr


# 26: a second run into an output folder in use

IN_USE = "a second run into an output folder in use; a lock left by a killed run"


@pytest.mark.fault(26, IN_USE)
def test_a_folder_in_use_is_refused_and_free_again_once_its_run_is_killed(folders, run_here, no_pictures):
    holds = "data.load = lambda *_: here('holding')"
    with forks.started(command(folders), files=tiny.files_table(tiny.make()), patches=[holds]) as process:
        child.wait_for(process, "holding")
        before = child.snapshot(folders[1])
        line = child.only_line(run_here(command(folders)), 2)
        assert f"{folders[1] / 'explore'}: another run is writing here" in line
        assert "--output-dir" in line
        assert child.snapshot(folders[1]) == before
        assert run_here(command((folders[0], folders[1].with_name("other")))).returncode == 0, "elsewhere is free"
        process.kill()
        assert process.wait(20) == -9
    assert (folders[1] / "explore" / ".lock").exists(), "the killed run left its lock"
    done = run_here(command(folders))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.fault(26, IN_USE)
def test_kernel_vis_does_not_write_into_a_folder_in_use(folders, run_here, no_pictures):
    import kernel_vis

    trained = run_here(command(folders, "classic", "--models", "cnn", "--kernels", 2, 2, "--epochs", 1))
    assert trained.returncode == 0, trained.stderr
    before = child.snapshot(folders[1])
    holds = "data.load = lambda *_: here('holding')"
    with forks.started(command(folders, "classic"), files=tiny.files_table(tiny.make()), patches=[holds]) as process:
        child.wait_for(process, "holding")
        line = child.only_line(run_here(command(folders, "classic"), main=kernel_vis.main), 2)
    assert "another run is writing here" in line
    assert child.snapshot(folders[1]) == before


# 27: SIGKILL while figures and report are written

KILLED_WRITING = "SIGKILL while figures and report are written"
HALF_WRITTEN = """
import io, os
class Half(io.BufferedWriter):
    def flush(self):
        super().flush()
        self.raw.truncate(os.fstat(self.fileno()).st_size // 2)
        here("half written")
def open_half(path, mode):
    if data.Path(path).name.startswith("." + NAME + "."):
        return Half(io.FileIO(path, "w"))
    return open(path, mode)
files.open = open_half
"""


def assert_whole(path: Path) -> None:
    """Check that a file that a run writes can be read to its end."""
    if path.suffix == ".png":
        with Image.open(path) as picture:
            picture.load()
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".html":
        assert path.read_text().rstrip().endswith("</html>")
    elif path.suffix in (".pth", ".pt"):
        checkpoints.load(path)
    else:
        raise AssertionError(f"a file of no known kind: {path}")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The data, and what a whole run leaves: a CNN trained, its pictures and its report."""
    folders = [tmp_path_factory.mktemp("finished") / name for name in ("data", "out")]
    written = tiny.make()
    tiny.write_torchvision(written, folders[0])
    table = tiny.files_table(written)
    done = forks.run(command(folders, *RUN), files=table)
    assert (done.returncode, done.stderr) == (0, "")
    return folders[0], child.snapshot(folders[1]), table


RUN = ["classic", "--models", "cnn", "--kernels", 2, 2, "--epochs", 1]


@pytest.mark.fault(27, KILLED_WRITING)
@pytest.mark.parametrize("name", ["loss_curves.png", "cnn_confusion.png", "metrics.json", "report.html", "cnn.pth"])
def test_a_kill_while_a_file_is_written_leaves_each_whole_or_as_before(tmp_path, finished, name):
    data_folder, before, table = finished
    output = tmp_path / "out"
    for file, content in before.items():
        (output / file).parent.mkdir(parents=True, exist_ok=True)
        (output / file).write_bytes(content)
    arguments = [*command((data_folder, output), *RUN), "--seed", 1]
    patches = [f"NAME = {name!r}{HALF_WRITTEN}"]
    with forks.started(arguments, files=table, patches=patches) as process:
        child.wait_for(process, "half written")
        process.kill()
        assert process.wait(20) == -9
    (stray,) = strays(output)
    assert stray.name.startswith(f".{name}.")
    assert 0 < stray.stat().st_size < len(before[f"classic/{name}"])

    after = child.snapshot(output)
    del after[str(stray.relative_to(output))]
    assert after[f"classic/{name}"] == before[f"classic/{name}"]
    for file in after:
        assert_whole(output / file)
    assert {file for file in before if "checkpoints" not in file} <= set(after), "nothing that stood here has gone"

    done = forks.run([*command((data_folder, output), "classic"), "--resume"], files=table)
    assert (done.returncode, done.stderr) == (0, "")
    assert not strays(output)
    assert child.snapshot(output)[f"classic/{name}"] != before[f"classic/{name}"]


# 28: no display


@pytest.mark.fault(28, "no DISPLAY, and MPLBACKEND=TkAgg")
def test_pictures_are_written_without_a_display(folders):
    env = {"DISPLAY": None, "WAYLAND_DISPLAY": None, "MPLBACKEND": "TkAgg"}
    done = child.run(command(folders), files=tiny.files_table(tiny.make()), env=env)
    assert (done.returncode, done.stderr) == (0, "")
    pictures = list(folders[1].rglob("*.png"))
    assert pictures
    for path in pictures:
        assert_whole(path)


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


# Not in the list: a path that is no UTF-8


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="only Linux has such names")
def test_a_path_of_any_bytes_is_as_good_as_another(tmp_path, offline, run_here):
    folder = tmp_path / os.fsdecode(b"caf\xe9 <b>")
    tiny.write_torchvision(offline, folder / "data")
    done = run_here(command((folder / "data", folder / "out")))
    assert (done.returncode, done.stderr) == (0, "")
    assert r"caf\udce9 <b>" in done.stdout
    for file in child.snapshot(folder / "out"):
        assert_whole(folder / "out" / file)
