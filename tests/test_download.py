"""The four files: found wherever they lie, and read there as they are; fetched with words, a limit and a bar.

Damaged files are in test_faults_data.py, bad mirrors and kills in test_faults_download.py.
"""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import pytest

from fmnist import data, download
from fmnist.errors import Refused
from tests.helpers import child, tiny


def find(folder: Path) -> tuple[download.Found, list[str]]:
    lines = []
    return download.find(folder, lines.append), lines


# Where they may lie


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("below", ["FashionMNIST/raw", "."])
def test_finds_the_files_as_torchvision_lays_them_out_or_in_the_folder_itself(tmp_path, offline, gzipped, below):
    tiny.write_idx(offline, tmp_path / below, gzipped)
    before = child.snapshot(tmp_path)
    found, lines = find(tmp_path)
    assert found == (tiny.contents(offline), str(tmp_path))
    assert lines == []
    assert child.snapshot(tmp_path) == before
    assert not (tmp_path / ".lock").exists()


def test_finds_files_of_which_some_are_gzipped(tmp_path, offline):
    tiny.write_torchvision(offline, tmp_path, gzipped=True)
    plain = tiny.write_idx(offline, tmp_path / "elsewhere")
    (plain / tiny.NAMES[0]).rename(tmp_path / tiny.NAMES[0])
    (tiny.raw_folder(tmp_path) / f"{tiny.NAMES[0]}.gz").unlink()
    assert find(tmp_path)[0].contents == tiny.contents(offline)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_a_pipe_in_the_place_of_a_file_does_not_hang(tmp_path, offline):
    path = tiny.raw_folder(tiny.write_torchvision(offline, tmp_path)) / tiny.NAMES[0]
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(Refused, match=f"{tiny.NAMES[0]} is not a file"):
        find(tmp_path)


def as_another_user(call) -> None:
    """Run `call` in a fork that root's rights are taken from; it must not fail. All it imports is imported here."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            call()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.fixture
def share():
    """A folder for all to read, and its owner's alone to write; pytest's own are hidden from other users."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o700)
    shutil.rmtree(folder)


def make_read_only(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)


def assert_read_only(folder: Path) -> None:
    with pytest.raises(PermissionError):
        (folder / "mine").touch()


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="another user is a fork that gives up its rights")


@needs_fork
@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize(("below", "named"), [("FashionMNIST/raw", "."), (".", "."), ("FashionMNIST/raw",) * 2])
def test_a_read_only_folder_is_read_by_another_user(share, offline, gzipped, below, named):
    tiny.write_idx(offline, share / below, gzipped)
    make_read_only(share)

    def read() -> None:
        assert_read_only(share / named)
        dataset = data.load(share / named, log=lambda _: None)
        assert dataset.train_images.numpy().tobytes() == offline.train_images.tobytes()
        assert dataset.test_labels.tolist() == offline.test_labels.tolist()

    as_another_user(read)


@needs_fork
def test_what_must_be_fetched_into_a_read_only_folder_is_refused(share, offline):
    import filelock  # noqa: F401

    (tiny.write_idx(offline, share) / tiny.NAMES[0]).unlink()
    make_read_only(share)

    def read() -> None:
        with pytest.raises(Refused) as refusal:
            data.load(share, log=lambda _: None)
        message = str(refusal.value)
        assert message.startswith(f"{share}: the data set cannot be fetched into it (Permission denied)")
        assert f"{tiny.NAMES[0]} is not there" in message
        assert message.endswith("name another --data-dir")

    as_another_user(read)


# The sources


def test_reads_the_system_copy_and_writes_nothing(tmp_path, offline, monkeypatch):
    system = tiny.write_idx(offline, tmp_path / "system", gzipped=True)
    monkeypatch.setattr(download, "SYSTEM_COPY", system)
    before = child.snapshot(tmp_path)
    found, lines = find(tmp_path / "mine")
    assert found == (tiny.contents(offline), f"the system copy in {system}")
    assert lines == [f"data: not from {tmp_path / 'mine'}: {tiny.NAMES[0]} is not there"]
    assert child.snapshot(tmp_path) == before
    assert not (tmp_path / "mine").exists()


def test_the_order_of_the_sources(tmp_path, offline, monkeypatch):
    """Each source in turn is the only one to have the data; those before it were asked, those after it were not."""
    asked = []

    def source(name: str, has: str):
        def fetch(private, _log):
            asked.append(name)
            if name == has:
                return tiny.write_idx(offline, private / "found", gzipped=True)
            raise download.Unavailable(f"{name} has nothing")

        return fetch

    for has, before in (("download", ["download"]), ("package", ["download", "package"])):
        asked.clear()
        monkeypatch.setattr(download, "_download", source("download", has))
        monkeypatch.setattr(download, "_fetch_package", source("package", has))
        folder = tmp_path / has
        found, lines = find(folder)
        assert found.contents == tiny.contents(offline)
        assert asked == before
        titles = [folder, f"the system copy in {download.SYSTEM_COPY}", "torchvision's download"][: len(before) + 1]
        assert [line.split(": ")[1] for line in lines] == [f"not from {title}" for title in titles]
        assert child.snapshot(tiny.raw_folder(folder)) == tiny.contents(offline), "the next run finds them"
        assert sorted(os.listdir(folder)) == [".lock", "FashionMNIST"], "what was private to the source is gone"


def test_no_source_at_all_is_refused_with_each_and_its_reason(tmp_path, offline):
    with pytest.raises(Refused) as refusal:
        find(tmp_path)
    message = str(refusal.value)
    order = ["train-images-idx3-ubyte is not there", "system copy", "torchvision's download: out", "package"]
    assert [message.index(part) for part in order] == sorted(message.index(part) for part in order)
    assert str(tiny.raw_folder(tmp_path)) in message
    assert "--data-dir" in message


def test_the_mirror_is_that_of_torchvision():
    from torchvision.datasets import FashionMNIST

    assert FashionMNIST.mirrors == [download.MIRROR]


# A step of fetching

WRITES = "import pathlib, time; pathlib.Path('it.gz').write_bytes(bytes(750_000)); time.sleep(0.5)"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_a_step_says_what_it_does_and_draws_a_bar_on_a_terminal_alone(tmp_path, monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream())
    lines = []
    step = download.Step("fetching it from there", [sys.executable, "-c", WRITES], "**/*.gz", 1_000_000)
    assert download._run(step, tmp_path, lines.append) == tmp_path
    assert lines == ["data: fetching it from there, up to 5 minutes"]
    drawn = sys.stderr.getvalue()
    assert ("75%" in drawn and "750k/1.00M" in drawn) if stream is Terminal else drawn == "", drawn


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print('one\\n\\ntwo\\nthree\\nfour'); raise SystemExit(3)", "^two / three / four$"),
        ("raise SystemExit(3)", "ended with exit code 3$"),
        ("import time; time.sleep(60)", "^no answer within 0 seconds$"),
    ],
)
def test_a_step_that_fails_says_why(tmp_path, monkeypatch, code, said):
    monkeypatch.setattr(download, "TIME_LIMIT", 0.3)
    with pytest.raises(download.Unavailable, match=said):
        download._run(download.Step("trying", [sys.executable, "-c", code], "*"), tmp_path, print)


def test_a_command_that_is_not_there_is_no_source(tmp_path):
    with pytest.raises(download.Unavailable, match="No such file or directory: 'nowhere'"):
        download._run(download.Step("trying", ["nowhere"], "*"), tmp_path, print)


# Debian's package, from an archive on this disk


@pytest.fixture
def archive(tmp_path, offline, monkeypatch) -> Path:
    """An archive with the package, the only one that apt knows of, and hooks that leave a file named `hooked`."""
    root = tmp_path / "package"
    tiny.write_idx(offline, root / download.SYSTEM_COPY.relative_to("/"), gzipped=True)
    (root / "DEBIAN").mkdir()
    control = f"Package: {download.APT_PACKAGE}\nVersion: 1\nArchitecture: all\nMaintainer: me\nDescription: it\n"
    (root / "DEBIAN" / "control").write_text(control)
    archive = tmp_path / "archive"
    archive.mkdir()
    subprocess.run(["dpkg-deb", "--build", root, archive / "it.deb"], check=True, stdout=subprocess.DEVNULL)
    body = (archive / "it.deb").read_bytes()
    facts = f"Filename: ./it.deb\nSize: {len(body)}\nSHA256: {hashlib.sha256(body).hexdigest()}\n"
    (archive / "Packages").write_text(control + facts)
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] file:{archive} ./\n")
    hooks = ("APT::Update::Pre-Invoke", "APT::Update::Post-Invoke", "APT::Update::Post-Invoke-Success")
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list"; Dir::Etc::sourceparts "/dev/null";\n'
        + "".join(f'{hook} {{ "touch {tmp_path}/hooked"; }};\n' for hook in (*hooks, "DPkg::Post-Invoke"))
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    return archive


REAL_FETCH_PACKAGE = download._fetch_package
needs_apt = pytest.mark.skipif(not (shutil.which("apt-get") and shutil.which("dpkg-deb")), reason="needs apt-get")


@needs_apt
@pytest.mark.parametrize("cleared", [True, False])
def test_the_package_is_fetched_without_the_hooks_of_the_machine(tmp_path, offline, archive, monkeypatch, cleared):
    """As root as well. The control shows that the hooks would have run."""
    if not cleared:
        monkeypatch.setattr(download, "NO_HOOKS", "")
    monkeypatch.setattr(download, "_fetch_package", REAL_FETCH_PACKAGE)
    found, lines = find(tmp_path / "data")
    assert found == (tiny.contents(offline), f"Debian's package {download.APT_PACKAGE}")
    assert (tmp_path / "hooked").exists() != cleared
    assert [line.split(",")[0] for line in lines[3:]] == [
        "data: fetching the lists of packages with apt-get",
        "data: fetching 31 MB",
        f"data: unpacking {download.APT_PACKAGE}_1_all.deb",
    ]
