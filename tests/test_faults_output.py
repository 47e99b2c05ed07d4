"""Faults of the output: folders that cannot be used or are in use, kills while files are written, no display.

Each test asserts that its fault did happen, and then what the user gets.
"""

import json
import os
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from fmnist import checkpoints
from tests.helpers import child, needs, tiny
from tests.helpers.child import command, strays

pytestmark = pytest.mark.usefixtures("data_is_there")


# 25: the output folder is a file, or not writable

BAD_FOLDER = "the output folder is a file, or not writable"


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


@needs.posix
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


@needs.posix
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


@needs.posix
@pytest.mark.fault(26, IN_USE)
def test_a_folder_in_use_is_refused_and_free_again_once_its_run_is_killed(folders, run_here, no_pictures):
    holds = "data.load = lambda *_: here('holding')"
    with child.started(command(folders), files=tiny.files_table(tiny.make()), patches=[holds]) as process:
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
    with child.started(command(folders, "classic"), files=tiny.files_table(tiny.make()), patches=[holds]) as process:
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
    elif path.suffix == ".txt":
        assert "accuracy" in path.read_text()
    elif path.suffix == ".npz":
        assert zipfile.ZipFile(path).testzip() is None
    else:
        raise AssertionError(f"a file of no known kind: {path}")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The data, and what a whole run leaves: a CNN trained, its pictures and its report."""
    folders = [tmp_path_factory.mktemp("finished") / name for name in ("data", "out")]
    written = tiny.make()
    tiny.write_torchvision(written, folders[0])
    table = tiny.files_table(written)
    done = child.run(command(folders, *RUN), files=table)
    assert (done.returncode, done.stderr) == (0, "")
    return folders[0], child.snapshot(folders[1]), table


RUN = ["classic", "--models", "cnn", "--kernels", 2, 2, "--epochs", 1]


@needs.posix
@pytest.mark.fault(27, KILLED_WRITING)
@pytest.mark.parametrize("name", ["loss_curves.png", "metrics.json", "report.html", "cnn.pth"])
def test_a_kill_while_a_file_is_written_leaves_each_whole_or_as_before(tmp_path, finished, name):
    data_folder, before, table = finished
    output = tmp_path / "out"
    for file, content in before.items():
        (output / file).parent.mkdir(parents=True, exist_ok=True)
        (output / file).write_bytes(content)
    arguments = [*command((data_folder, output), *RUN), "--seed", 1]
    quick = [] if name.endswith(".png") else [child.NO_PICTURES]
    with child.started(arguments, files=table, patches=[f"NAME = {name!r}{HALF_WRITTEN}", *quick]) as process:
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

    done = child.run([*command((data_folder, output), "classic"), "--resume"], files=table, patches=quick)
    assert (done.returncode, done.stderr) == (0, "")
    assert not strays(output)
    assert child.snapshot(output)[f"classic/{name}"] != before[f"classic/{name}"]


# 28: no display


@pytest.mark.fault(28, "no DISPLAY, and MPLBACKEND=TkAgg")
def test_pictures_are_written_without_a_display(folders):
    env = {"DISPLAY": None, "WAYLAND_DISPLAY": None, "MPLBACKEND": "TkAgg"}
    tells = f"import os\nprint('told', [os.environ.get(name) for name in {list(env)}])"
    done = child.run(command(folders), files=tiny.files_table(tiny.make()), env=env, patches=[tells])
    assert (done.returncode, done.stderr) == (0, "")
    assert "told [None, None, 'TkAgg']" in done.stdout
    pictures = list(folders[1].rglob("*.png"))
    assert pictures
    for path in pictures:
        assert_whole(path)


# Not in the list: a path that is no UTF-8


@needs.linux
def test_a_path_of_any_bytes_is_as_good_as_another(tmp_path, offline, run_here):
    folder = tmp_path / os.fsdecode(b"caf\xe9 <b>")
    tiny.write_torchvision(offline, folder / "data")
    done = run_here(command((folder / "data", folder / "out")))
    assert (done.returncode, done.stderr) == (0, "")
    assert r"caf\udce9 <b>" in done.stdout
    for file in child.snapshot(folder / "out"):
        assert_whole(folder / "out" / file)
