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

from fmnist import download
from tests.helpers import child, tiny
from tests.helpers.child import OFFLINE, command, refused

pytestmark = pytest.mark.usefixtures("earlier_run")

TRAIN = tiny.NAMES[0]
ONLY_LOADS = "fashionmnist.experiment = lambda options, folder: data.load(options.data_dir)"


# 3, 4: bad mirrors


class Mirror(ThreadingHTTPServer):
    """A loopback server that answers requests for the training images as `answers` says one after another, later ones
    as the last of them, and sends the other files whole. Torchvision asks twice for a file: where it is, and for it."""

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
        number = min(server.requests.count(name), len(server.answers) - 1)
        server.requests.append(name)
        answer = server.answers[number] if name == f"{TRAIN}.gz" else "whole"
        body = server.bodies.get(name, b"")
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


REAL_DOWNLOAD = download._download


@pytest.fixture
def mirrored(offline, monkeypatch, tmp_path):
    """Torchvision's real download, from a mirror that answers as the test says; its process takes the made-up MD5."""
    monkeypatch.setattr(download, "_download", REAL_DOWNLOAD)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    packed = {f"{name}.gz": gzip.compress(body, mtime=0) for name, body in tiny.contents(offline).items()}
    resources = [(name, hashlib.md5(body).hexdigest()) for name, body in packed.items()]
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(
        f"import torchvision\ntorchvision.datasets.FashionMNIST.resources = {resources}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))

    @contextmanager
    def mirror(answers: list[str]):
        with Mirror(answers, packed) as server:
            monkeypatch.setattr(download, "MIRROR", server.address)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                yield server
            finally:
                server.over.set()
                server.shutdown()

    return mirror


@pytest.mark.fault(3, "a mirror cuts the download short")
def test_a_download_cut_short_is_tried_again(folders, offline, mirrored, run_here, only_loads):
    with mirrored(["whole", "cut", "whole"]) as server:
        done = run_here(command(folders))
    assert server.requests.count(f"{TRAIN}.gz") == 4
    assert (done.returncode, done.stderr) == (0, "")
    asked = f"data: fetching 31 MB with torchvision from {server.address}"
    assert f"{asked}, up to 5 minutes\n{asked} (attempt 2 of 2), up to 5 minutes\n" in done.stdout
    assert "images from torchvision's download" in done.stdout
    assert child.snapshot(tiny.raw_folder(folders[0])) == tiny.contents(offline)


@pytest.mark.fault(3, "a mirror cuts the download short")
def test_after_the_last_download_cut_short_comes_the_next_source(
    folders, offline, mirrored, run_here, only_loads, monkeypatch
):
    standing = []  # what lies under a final name when the download has been given up

    def package(private: Path, _log) -> Path:
        standing.extend(os.listdir(tiny.raw_folder(folders[0])))
        return tiny.write_idx(offline, private / "unpacked", gzipped=True)

    monkeypatch.setattr(download, "_fetch_package", package)
    monkeypatch.setattr(download, "DOWNLOAD_ATTEMPTS", 1)
    with mirrored(["cut"]) as server:
        done = run_here(command(folders))
    assert server.requests == [f"{TRAIN}.gz"] * 2
    assert standing == []
    assert (done.returncode, done.stderr) == (0, "")
    assert "data: not from torchvision's download: " in done.stdout
    assert "images from Debian's package" in done.stdout
    assert sorted(os.listdir(folders[0])) == [".lock", "FashionMNIST"]
    assert child.snapshot(tiny.raw_folder(folders[0])) == tiny.contents(offline)


@pytest.mark.fault(4, "the mirror answers 404, an HTML page, or never")
@pytest.mark.parametrize(
    ("answer", "reason"), [("404", "HTTP Error 404"), ("page", "corrupted"), ("never", "timed out")]
)
def test_a_mirror_without_the_data_is_given_up_with_its_reason(
    folders, mirrored, run_here, monkeypatch, answer, reason
):
    monkeypatch.setattr(download, "DOWNLOAD_ATTEMPTS", 1)
    monkeypatch.setattr(download, "STALL_SECONDS", 1)
    with mirrored([answer]) as server:
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


# 5: SIGKILL while the data are unpacked

FETCHES = """
def fetch(private, _log):
    return download.Path(SYSTEM)
download._download = fetch
"""
HALF_WRITTEN = "files.os.replace = lambda *_: here('half written')"
HALF_FETCHED = """
def fetch_half(private, _log):
    (private / "train-images-idx3-ubyte.gz").write_bytes(b"half")
    here("half fetched")
download._download = fetch_half
"""


@pytest.mark.fault(5, "SIGKILL while the data are fetched or unpacked")
@pytest.mark.parametrize(
    ("patches", "word", "stray"),
    [
        ([FETCHES, HALF_WRITTEN], "half written", "FashionMNIST/raw/.*.partial"),
        ([HALF_FETCHED], "half fetched", ".fashion-mnist-fetch-*"),
    ],
)
def test_the_run_after_a_kill_mends_the_data_by_itself(
    folders, offline, run_here, only_loads, monkeypatch, tmp_path, patches, word, stray
):
    elsewhere = tiny.write_idx(offline, tmp_path / "elsewhere", gzipped=True)
    files, patches = tiny.files_table(offline), [OFFLINE, f"SYSTEM = {str(elsewhere)!r}", *patches]
    with child.started(command(folders), files=files, patches=patches) as process:
        child.wait_for(process, word)
        process.kill()
        assert process.wait() == -9
    assert len(list(folders[0].glob(stray))) == 1
    assert not (tiny.raw_folder(folders[0]) / TRAIN).exists()

    monkeypatch.setattr(download, "_fetch_package", lambda _private, _log: elsewhere)
    done = run_here(command(folders))
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(folders[0].glob(stray))
    assert child.snapshot(tiny.raw_folder(folders[0])) == tiny.contents(offline)


# 6: two runs start on an empty data folder

FETCHES_SLOWLY = """
def fetch(private, _log):
    print("fetching", flush=True)
    import time
    while not download.Path(GO).exists():
        time.sleep(0.01)
    return download.Path(SYSTEM)
download._download = fetch
"""


@pytest.mark.fault(6, "two runs start on an empty data folder")
def test_two_runs_on_an_empty_data_folder_both_succeed(folders, offline, tmp_path):
    elsewhere = tiny.write_idx(offline, tmp_path / "elsewhere", gzipped=True)
    names = f"GO, SYSTEM = {str(tmp_path / 'go')!r}, {str(elsewhere)!r}"
    files, patches = tiny.files_table(offline), [ONLY_LOADS, OFFLINE, names + FETCHES_SLOWLY]
    other = [*command(folders)[:-1], tmp_path / "other"]
    with child.started(command(folders), files=files, patches=patches) as first:
        child.wait_for(first, "fetching")
        with child.started(other, files=files, patches=patches) as second:
            waiting = child.wait_for(second, "waiting")[-1]
            lock = f"its lock is {folders[0] / '.lock'}"
            assert waiting == f"data: another run is fetching into {folders[0]} ({lock}); waiting"
            assert not list(tiny.raw_folder(folders[0]).iterdir()), "both began before there were any data"
            (tmp_path / "go").touch()
            both = [child.finish(process) for process in (first, second)]
    assert [(done.returncode, done.stderr) for done in both] == [(0, ""), (0, "")]
    assert "fetching" not in both[1].stdout, "the second run found what the first one fetched"
    assert child.snapshot(tiny.raw_folder(folders[0])) == tiny.contents(offline)
