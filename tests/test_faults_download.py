"""Faults while the data are fetched: bad mirrors, kills, two runs at once.

Each test asserts that its fault did happen, and then what the user gets. Whatever fails in this process would be a
traceback in the user's: `run_here` calls the scripts' `main` as they do.
"""

import gzip
import hashlib
import os
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torchvision

from fmnist import data
from tests.helpers import child, tiny
from tests.helpers.child import OFFLINE, command, refused

pytestmark = pytest.mark.usefixtures("earlier_run")

TRAIN = tiny.NAMES[0]
ONLY_LOADS = "fashionmnist.experiment = lambda options, folder: data.load(options.data_dir)"


# 3, 4: bad mirrors


class Mirror(ThreadingHTTPServer):
    """A loopback server that answers the first requests as `answers` says, the later ones as the last of them."""

    daemon_threads = True

    def __init__(self, answers: list[str], bodies: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.answers, self.bodies = answers, bodies
        self.requests: list[str] = []
        self.over = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Answer(BaseHTTPRequestHandler):
    """Cut short, 404, an HTML page, never, or the file itself."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        server, name = self.server, self.path.strip("/")
        number = len([1 for request in server.requests if request == f"{self.command} {name}"])
        server.requests.append(f"{self.command} {name}")
        answer, body = server.answers[min(number, len(server.answers) - 1)], server.bodies.get(name, b"")
        if answer == "never":
            server.over.wait()
            return
        if answer == "page":
            body = b"<!DOCTYPE html><title>Sign in to the hotel's network</title>"
        self.send_response(404 if answer == "404" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if answer == "cut" else body)

    def log_message(self, *_) -> None:
        """Say nothing."""


@contextmanager
def mirror(answers, written):
    bodies = {f"{name}.gz": gzip.compress(body, mtime=0) for name, body in tiny.contents(written).items()}
    with Mirror(answers, bodies) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()


@pytest.fixture
def download(offline, monkeypatch, tmp_path):
    """Torchvision's real download, from mirrors that the test names; its child process takes the made-up files' MD5."""
    monkeypatch.setattr(data, "_download", REAL_DOWNLOAD)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    packed = {f"{name}.gz": gzip.compress(body, mtime=0) for name, body in tiny.contents(offline).items()}
    resources = [(name, hashlib.md5(body).hexdigest()) for name, body in packed.items()]
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(
        f"import torchvision\ntorchvision.datasets.FashionMNIST.resources = {resources}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))

    def use(*addresses: str) -> None:
        monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", list(addresses))

    return use


REAL_DOWNLOAD = data._download


@pytest.mark.fault(3, "a mirror cuts the download short")
def test_a_download_cut_short_is_tried_again(folders, offline, download, run_here, only_loads):
    with mirror(["cut", "whole"], offline) as server:
        download(server.address)
        done = run_here(command(folders))
    assert server.requests.count(f"GET {TRAIN}.gz") >= 2
    assert (done.returncode, done.stderr) == (0, "")
    assert "from torchvision's download" in done.stdout
    assert child.snapshot(tiny.raw_folder(folders[0])) == tiny.contents(offline)


@pytest.mark.fault(3, "a mirror cuts the download short")
def test_after_two_downloads_cut_short_comes_the_next_source(
    folders, offline, download, run_here, only_loads, monkeypatch
):
    standing = []  # what lies under a final name when the download has been given up

    def package(private: Path) -> Path:
        standing.extend(os.listdir(tiny.raw_folder(folders[0])))
        return tiny.write_idx(offline, private / "unpacked", gzipped=True)

    monkeypatch.setattr(data, "_fetch_package", package)
    with mirror(["cut"], offline) as server:
        download(server.address)
        done = run_here(command(folders))
    assert server.requests.count(f"GET {TRAIN}.gz") >= 2
    assert standing == []
    assert (done.returncode, done.stderr) == (0, "")
    assert "data: not from torchvision's download: " in done.stdout
    assert "from Debian's package" in done.stdout
    assert sorted(os.listdir(folders[0])) == [".lock", "FashionMNIST"]
    assert child.snapshot(tiny.raw_folder(folders[0])) == tiny.contents(offline)


@pytest.mark.fault(4, "the mirror answers 404, an HTML page, or never")
@pytest.mark.parametrize(
    ("answer", "reason"), [("404", "HTTP Error 404"), ("page", "corrupted"), ("never", "timed out")]
)
def test_a_mirror_without_the_data_is_given_up_with_its_reason(
    folders, offline, download, run_here, monkeypatch, answer, reason
):
    monkeypatch.setattr(data, "DOWNLOAD_ATTEMPTS", 1)
    monkeypatch.setattr(data, "STALL_SECONDS", 1)
    with mirror([answer], offline) as server:
        download(server.address)
        done = run_here(command(folders))
    assert server.requests, "the mirror was asked"
    line = refused(done, folders)
    sources = [f"{folders[0]}: ", "system copy", "torchvision's download: ", "Debian's package"]
    assert [line.index(part) for part in sources] == sorted(line.index(part) for part in sources)
    download_said = line[line.index("torchvision's download: ") : line.index("Debian's package")]
    assert reason in download_said
    assert not any(sign in download_said for sign in ("^", 'File "', "raise ")), download_said
    assert sorted(os.listdir(folders[0])) == [".lock", "FashionMNIST"]
    assert os.listdir(tiny.raw_folder(folders[0])) == []


@pytest.mark.fault(4, "the mirror answers 404, an HTML page, or never")
def test_a_download_that_goes_on_for_ever_is_ended(folders, offline, download, run_here, monkeypatch):
    monkeypatch.setattr(data, "DOWNLOAD_ATTEMPTS", 1)
    monkeypatch.setattr(data, "DOWNLOAD_SECONDS", 0.2)
    download("http://127.0.0.1:9/")
    assert "torchvision's download: no answer within" in refused(run_here(command(folders)), folders)


# 5: SIGKILL while the data are unpacked

HALF_UNPACKED = """
def copy_half(source, target):
    target.write(source.read(1000))
    target.flush()
    here("half unpacked")
data.shutil.copyfileobj = copy_half
"""
HALF_FETCHED = """
def fetch_half(private):
    (private / "train-images-idx3-ubyte.gz").write_bytes(b"half")
    here("half fetched")
data._download = fetch_half
"""


@pytest.mark.fault(5, "SIGKILL while the data are fetched or unpacked")
@pytest.mark.parametrize(
    ("patch", "word", "stray"),
    [
        (HALF_UNPACKED, "half unpacked", "FashionMNIST/raw/.*.partial"),
        (HALF_FETCHED, "half fetched", ".fashion-mnist-fetch-*"),
    ],
)
def test_the_run_after_a_kill_mends_the_data_by_itself(
    folders, offline, run_here, only_loads, monkeypatch, tmp_path, patch, word, stray
):
    if word == "half unpacked":
        tiny.write_torchvision(offline, folders[0], gzipped=True)
    files = tiny.files_table(offline)
    with child.started(command(folders), files=files, patches=[OFFLINE, patch]) as process:
        child.wait_for(process, word)
        process.kill()
        assert process.wait() == -9
    assert len(list(folders[0].glob(stray))) == 1
    assert not (tiny.raw_folder(folders[0]) / TRAIN).exists()

    monkeypatch.setattr(data, "SYSTEM_COPY", tiny.write_idx(offline, tmp_path / "system", gzipped=True))
    done = run_here(command(folders))
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(folders[0].glob(stray))
    plain = {name: (tiny.raw_folder(folders[0]) / name).read_bytes() for name in tiny.NAMES}
    assert plain == tiny.contents(offline)


# 6: two runs start on an empty data folder

FETCHES_SLOWLY = """
def fetch(private):
    print("fetching", flush=True)
    import time
    while not data.Path(GO).exists():
        time.sleep(0.01)
    return data.Path(SYSTEM)
data._download = fetch
"""
SAYS_IT_WAITS = """
import filelock
acquire = filelock.FileLock.acquire
def say_and_acquire(self, *args, **kwargs):
    if data.Path(self.lock_file).parent.name == "data":
        print("at the lock", flush=True)
    return acquire(self, *args, **kwargs)
filelock.FileLock.acquire = say_and_acquire
"""


@pytest.mark.fault(6, "two runs start on an empty data folder")
def test_two_runs_on_an_empty_data_folder_both_succeed(folders, offline, tmp_path):
    system = tiny.write_idx(offline, tmp_path / "system", gzipped=True)
    names = f"GO, SYSTEM = {str(tmp_path / 'go')!r}, {str(system)!r}"
    files, patches = tiny.files_table(offline), [ONLY_LOADS, OFFLINE, names + FETCHES_SLOWLY, SAYS_IT_WAITS]
    other = [*command(folders)[:-1], tmp_path / "other"]
    with (
        child.started(command(folders), files=files, patches=patches) as first,
        child.started(other, files=files, patches=patches) as second,
    ):
        for process in (first, second):
            child.wait_for(process, "at the lock")
        assert not list(tiny.raw_folder(folders[0]).iterdir()), "both began before there were any data"
        (tmp_path / "go").touch()
        both = [child.finish(process) for process in (first, second)]
    assert [(done.returncode, done.stderr) for done in both] == [(0, ""), (0, "")]
    assert sorted("fetching" in done.stdout for done in both) == [False, True], "one fetched, the other waited"
    assert child.snapshot(tiny.raw_folder(folders[0])) == tiny.contents(offline)
