"""Faults in the data set: files cut or altered, bad mirrors, kills, two runs at once, bad CSV.

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
from tests import child, forks, tiny

TRAIN = tiny.NAMES[0]
ONLY_LOADS = "fashionmnist.experiment = lambda options, folder: data.load(options.data_dir)"
OFFLINE = """
def out_of_reach(_private):
    raise data.Unavailable("out of reach")
data._download = data._fetch_package = out_of_reach
data.SYSTEM_COPY = data.Path("/nonexistent/fashion-mnist")
"""


@pytest.fixture
def folders(tmp_path):
    """The data folder, and an output folder in which an earlier run left something."""
    (tmp_path / "out" / "explore").mkdir(parents=True)
    (tmp_path / "out" / "explore" / "report.html").write_text("an earlier run")
    return tmp_path / "data", tmp_path / "out"


def command(folders, recipe: str = "explore") -> list[object]:
    return [recipe, "--data-dir", folders[0], "--output-dir", folders[1]]


def refused(done, folders) -> str:
    """Check that the run was refused in one line and left the earlier output alone; return that line."""
    line = child.only_line(done, 2)
    assert child.snapshot(folders[1]) == {"explore/report.html": b"an earlier run"}
    return line


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def alter(path: Path) -> None:
    """Change one bit in the middle."""
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def damaged(folders, written, name: str, damage) -> Path:
    """Write the data and damage one file; the damage is asserted here."""
    path = tiny.raw_folder(tiny.write_torchvision(written, folders[0])) / name
    size, digest = data.FILES[name]
    assert (path.stat().st_size, sha256(path)) == (size, digest)
    damage(path)
    assert sha256(path) != digest
    assert path.stat().st_size == (size // 2 if damage is cut else size)
    return path


# 1, 2: a raw file is cut in half, or one byte of it altered

CUT, ALTERED = pytest.mark.fault(1, "a raw idx file is cut in half"), pytest.mark.fault(2, "one byte of it altered")
BOTH = [pytest.param(cut, "cut short", marks=CUT), pytest.param(alter, "altered", marks=ALTERED)]


@pytest.mark.parametrize("name", tiny.NAMES)
@pytest.mark.parametrize(("damage", "said"), BOTH)
def test_a_damaged_file_is_refused_where_nothing_can_be_fetched(folders, offline, run_here, damage, said, name):
    path = damaged(folders, offline, name, damage)
    before = child.snapshot(folders[0])
    line = refused(run_here(command(folders)), folders)
    assert f"{path} is {said}" in line
    assert "--data-dir" in line
    assert child.snapshot(folders[0]) == before


@pytest.mark.parametrize(("damage", "said"), BOTH)
def test_a_damaged_file_is_fetched_anew(folders, offline, run_here, only_loads, monkeypatch, tmp_path, damage, said):
    path = damaged(folders, offline, TRAIN, damage)
    broken = path.read_bytes()
    monkeypatch.setattr(data, "SYSTEM_COPY", tiny.write_idx(offline, tmp_path / "system", gzipped=True))
    done = run_here(command(folders))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{path} is {said}" in done.stdout
    assert f"from the system copy in {tmp_path / 'system'}" in done.stdout
    assert sha256(path) == data.FILES[TRAIN][1]
    assert path.with_name(f"{TRAIN}.altered").read_bytes() == broken, "the user's own file is kept"


@pytest.mark.parametrize(("damage", "said"), BOTH)
def test_a_damaged_file_is_unpacked_anew_where_the_gzipped_one_stands_beside_it(
    folders, offline, run_here, only_loads, damage, said
):
    path = damaged(folders, offline, TRAIN, damage)
    path.with_name(f"{TRAIN}.gz").write_bytes(gzip.compress(tiny.contents(offline)[TRAIN]))
    done = run_here(command(folders))
    assert (done.returncode, done.stderr) == (0, "")
    assert sha256(path) == data.FILES[TRAIN][1]


@pytest.mark.parametrize(("damage", "said"), [*BOTH, pytest.param(lambda path: path.write_bytes(b""), "", marks=CUT)])
def test_a_damaged_gzipped_file_is_refused(folders, offline, run_here, damage, said):
    path = tiny.raw_folder(tiny.write_torchvision(offline, folders[0], gzipped=True)) / f"{TRAIN}.gz"
    before = sha256(path)
    damage(path)
    assert sha256(path) != before
    assert str(path) in refused(run_here(command(folders)), folders)
    assert not (path.parent / TRAIN).exists()


@CUT
def test_a_user_sees_one_line_for_a_file_cut_in_half(folders, offline):
    path = damaged(folders, offline, TRAIN, cut)
    done = child.run(command(folders), files=tiny.files_table(offline), patches=[OFFLINE])
    assert f"{path} is cut short" in refused(done, folders)


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
    [(HALF_UNPACKED, "half unpacked", "FashionMNIST/raw/.*.partial"), (HALF_FETCHED, "half fetched", ".fetch-*")],
)
def test_the_run_after_a_kill_mends_the_data_by_itself(
    folders, offline, run_here, only_loads, monkeypatch, tmp_path, patch, word, stray
):
    if word == "half unpacked":
        tiny.write_torchvision(offline, folders[0], gzipped=True)
    files = tiny.files_table(offline)
    with forks.started(command(folders), files=files, patches=[OFFLINE, patch]) as process:
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
        forks.started(command(folders), files=files, patches=patches) as first,
        forks.started(other, files=files, patches=patches) as second,
    ):
        for process in (first, second):
            child.wait_for(process, "at the lock")
        assert not list(tiny.raw_folder(folders[0]).iterdir()), "both began before there were any data"
        (tmp_path / "go").touch()
        both = [child.finish(process) for process in (first, second)]
    assert [(done.returncode, done.stderr) for done in both] == [(0, ""), (0, "")]
    assert sorted("fetching" in done.stdout for done in both) == [False, True], "one fetched, the other waited"
    assert child.snapshot(tiny.raw_folder(folders[0])) == tiny.contents(offline)


# 32: the CSV form


def edit(line: int, change):
    """A function that changes one line, from 1 as an editor counts, of the training CSV's lines."""

    def damage(lines: list[str]) -> list[str]:
        lines[line - 1] = change(lines[line - 1])
        return lines

    return damage


def cell(number: int, text: str):
    """A function that puts `text` in the place of a row's cell; 0 is the label."""
    return lambda row: ",".join([*row.split(",")[:number], text, *row.split(",")[number + 1 :]])


@pytest.mark.fault(32, "CSV with a short row, a letter, a pixel of 256, a label of 10, no header, no rows")
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (edit(7, lambda row: row.rsplit(",", 1)[0]), "line 7: has 784 values instead of 785"),
        (edit(3, cell(5, "x")), "line 3: pixel5 is 'x', not a whole number from 0 to 255"),
        (edit(9, cell(784, "256")), "line 9: pixel784 is '256', not a whole number from 0 to 255"),
        (edit(2, cell(0, "10")), "line 2: label is '10', not a whole number from 0 to 9"),
        (lambda lines: lines[1:], "line 1: is "),
        (lambda lines: lines[:1], "no rows"),
        (lambda lines: [], "is empty"),
    ],
)
@pytest.mark.parametrize("name", tiny.CSV_NAMES)
def test_bad_csv_is_refused_with_file_line_and_what_is_wrong(folders, offline, run_here, damage, said, name):
    path = tiny.write_csv(tiny.make(20, 10), folders[0]) / name
    path.write_text("".join(f"{line}\n" for line in damage(path.read_text().splitlines())))
    line = refused(run_here(command(folders)), folders)
    assert str(path) in line
    assert said in line


@pytest.mark.fault(32, "CSV with a short row, a letter, a pixel of 256, a label of 10, no header, no rows")
@pytest.mark.parametrize("missing", tiny.CSV_NAMES)
def test_one_csv_file_of_the_pair_is_refused(folders, offline, run_here, missing):
    (tiny.write_csv(tiny.make(20, 10), folders[0]) / missing).unlink()
    assert str(folders[0] / missing) in refused(run_here(command(folders)), folders)
