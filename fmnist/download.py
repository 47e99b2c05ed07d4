"""The four idx files of Fashion-MNIST: found, fetched, and verified by SHA-256.

A folder that has the files is only ever read, as it is: plain or gzipped, torchvision's layout or not, read-only or
not. What is hashed are the very bytes that are handed on, so nothing that lies beside the files, and no change to them
after the check, can take their place. Only where the files must be fetched is the folder written to.
"""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fmnist.errors import Refused
from fmnist.files import atomic_write, remove_partial

if TYPE_CHECKING:
    from tqdm import tqdm

Log = Callable[[str], None]

# Uncompressed size in bytes and SHA-256 of the four files.
FILES = {
    "train-images-idx3-ubyte": (47_040_016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    "train-labels-idx1-ubyte": (60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    "t10k-images-idx3-ubyte": (7_840_016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    "t10k-labels-idx1-ubyte": (10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
}
RAW = Path("FashionMNIST", "raw")  # where torchvision keeps the files, below its root
SYSTEM_COPY = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts them
APT_PACKAGE = "dataset-fashion-mnist"
MIRROR = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"  # the authors' own, as torchvision has it
PRIVATE = ".fashion-mnist-fetch-"  # begins the name of the folder that a source fetches into
FETCHED_BYTES = 30_900_000  # the four files gzipped; the package has the same size
TIME_LIMIT = 300  # seconds for each step of fetching
STALL_SECONDS = 10  # a server that sends nothing for so long is given up
DOWNLOAD_ATTEMPTS = 2


class Found(NamedTuple):
    """The four files, verified."""

    contents: dict[str, bytearray]  # uncompressed, by the names in FILES
    source: str  # where they came from, in words


class Unavailable(Exception):
    """A source does not have the files unaltered; the message says why."""


def find(folder: Path, log: Log, fetch: bool = True) -> Found:
    """Return the four files from the first source that has them unaltered.

    The order: `folder`, Debian's system copy, torchvision's download, Debian's package; a download comes to lie in
    FashionMNIST/raw of `folder`; without `fetch` only the first two are asked. `log` is told of each source that fails,
    and before each wait. Raises Refused, naming every source and why it failed, if none has the files or what must be
    fetched cannot be written.
    """
    failures = []
    for title, place in ((str(folder), folder), (f"the system copy in {SYSTEM_COPY}", SYSTEM_COPY)):
        try:
            return Found(read_files(place, log), title)
        except Unavailable as reason:
            _note(f"{title}: {reason}", failures, log)
    if not fetch:
        raise Refused(f"the data set is not on this machine ({'; '.join(failures)}); name its folder with --data-dir")
    with _locked(folder, failures, log):
        return _fetch(folder, failures, log)


def has_idx_files(folder: Path) -> bool:
    """Whether the training images lie in `folder` in the idx form. Raises OSError if it cannot be looked into."""
    return any(path.exists() for path in _places(folder, next(iter(FILES))))


def _note(failure: str, failures: list[str], log: Log) -> None:
    failures.append(failure)
    log(f"data: not from {failure}")


# Reading


def read_files(folder: Path, log: Log = lambda _: None) -> dict[str, bytearray]:
    """Return the bytes of the four files below `folder`, plain or gzipped, by name.

    `log` is told of an altered copy that another one beside it makes up for. Raises Unavailable, naming the file, if
    one is missing or every copy of it is altered.
    """
    return {name: _read_any(name, folder, log) for name in FILES}


def _read_any(name: str, folder: Path, log: Log) -> bytearray:
    faults = []
    for path in _places(folder, name):
        try:
            content = read_file(path)
        except FileNotFoundError:
            continue
        except Unavailable as fault:
            faults.append(str(fault))
            continue
        for fault in faults:
            log(f"data: {fault}; read {path} instead")
        return content
    raise Unavailable("; ".join(faults) or f"{name} is not there")


def _places(folder: Path, name: str) -> list[Path]:
    """Where the file `name` may lie below `folder`, in the order in which it is looked for."""
    return [place / file for file in (name, f"{name}.gz") for place in (folder / RAW, folder)]


def read_file(path: Path) -> bytearray:
    """Return the uncompressed bytes of the idx file at `path`.

    Raises Unavailable if they are not the published ones or cannot be read, FileNotFoundError if there are none.
    """
    size, digest = FILES[path.name.removesuffix(".gz")]
    try:
        if path.exists() and not path.is_file():
            raise Unavailable(f"{path} is not a file")  # opening a pipe would wait for ever
        content = _read(path, size)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except (OSError, EOFError, zlib.error) as error:
        raise Unavailable(f"{path} cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if len(content) > size:
        raise Unavailable(f"{path} is longer than {size:,} bytes")
    if len(content) < size:
        raise Unavailable(f"{path} is cut short: {len(content):,} bytes instead of {size:,}")
    if hashlib.sha256(content).hexdigest() != digest:
        raise Unavailable(f"{path} is altered: its SHA-256 is not the published one")
    return content


def _read(path: Path, size: int) -> bytearray:
    """Read block by block, so that memory holds the content once, up to one block more than `size` bytes."""
    content = bytearray()
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        while len(content) <= size and (block := file.read(1 << 20)):
            content += block
    return content


# Fetching


@contextmanager
def _locked(folder: Path, failures: list[str], log: Log) -> Iterator[None]:
    """Hold `folder` for this process; of two runs on an empty folder the second waits for what the first fetches."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")
    try:
        (folder / RAW).mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            log(f"data: another run is fetching into {folder} (its lock is {lock.lock_file}); waiting")
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise Refused(
            f"{folder}: the data set cannot be fetched into it ({getattr(error, 'strerror', None) or error}) "
            f"and is nowhere else ({'; '.join(failures)}); name another --data-dir"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _fetch(folder: Path, failures: list[str], log: Log) -> Found:
    """Fetch the files into `folder`, whose lock the caller holds, after `failures` of the sources before."""
    with suppress(Unavailable):  # another run fetched them while this one waited for the lock
        return Found(read_files(folder), str(folder))
    _remove_leftovers(folder)
    for title, fetch in (("torchvision's download", _download), (f"Debian's package {APT_PACKAGE}", _fetch_package)):
        with tempfile.TemporaryDirectory(prefix=PRIVATE, dir=folder, ignore_cleanup_errors=True) as private:
            try:
                contents = read_files(fetch(Path(private).resolve(), log))
            except Unavailable as reason:
                _note(f"{title}: {reason}", failures, log)
                continue
        _install(contents, folder / RAW)
        return Found(contents, title)
    raise Refused(
        f"no source has the data set unaltered ({'; '.join(failures)}); "
        f"put the four idx files into {folder / RAW} or name their folder with --data-dir"
    )


def _remove_leftovers(folder: Path) -> None:
    """Remove what a run that was killed while fetching left behind."""
    remove_partial(folder / RAW)
    for stray in folder.glob(f"{PRIVATE}*"):
        shutil.rmtree(stray, ignore_errors=True)


def _install(contents: dict[str, bytearray], raw: Path) -> None:
    """Write the files into `raw`. What lies altered in the place of one is kept as NAME.altered."""
    for name, content in contents.items():
        path = raw / name
        with suppress(Unavailable, FileNotFoundError):
            read_file(path)
            continue
        if os.path.lexists(path):
            path.replace(path.with_name(f"{name}.altered"))
        with atomic_write(path) as file:
            file.write(content)


# Each source takes an empty folder of its own, fetches into it, and returns the folder that holds the files.

DOWNLOAD = """
import socket, sys
from torchvision.datasets import FashionMNIST
socket.setdefaulttimeout(float(sys.argv[2]))
FashionMNIST.mirrors = [sys.argv[3]]
try:
    FashionMNIST(sys.argv[1], download=True)
except Exception as error:
    sys.exit(str(error) or type(error).__name__)
"""


def _download(private: Path, log: Log) -> Path:
    """Download with torchvision, in a child process: torchvision itself knows no time limit."""
    command = [sys.executable, "-c", DOWNLOAD, str(private), str(STALL_SECONDS), MIRROR]
    title = f"fetching {FETCHED_BYTES / 1e6:.0f} MB with torchvision from {MIRROR}"
    for attempt in range(1, DOWNLOAD_ATTEMPTS + 1):
        again = f" (attempt {attempt} of {DOWNLOAD_ATTEMPTS})" if attempt > 1 else ""
        try:
            return _run(Step(f"{title}{again}", command, "**/*.gz", FETCHED_BYTES), private, log)
        except Unavailable:
            if attempt == DOWNLOAD_ATTEMPTS:
                raise
    raise AssertionError("at least one attempt is made")


# Read after the machine's own configuration: apt-get runs none of the hooks that are set there.
NO_HOOKS = "#clear APT::Update;\n#clear DPkg;\n#clear AptCli;\n"


def _fetch_package(private: Path, log: Log) -> Path:
    """Fetch Debian's package with apt-get and unpack it. Needs no root; nothing on the system is changed or run."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Unavailable("this machine has no apt-get")
    for folder in ("lists/partial", "cache/archives/partial"):
        (private / folder).mkdir(parents=True)
    (private / "apt.conf").write_text(NO_HOOKS, encoding="ascii")
    options = [f"Dir::State::Lists={private}/lists", f"Dir::Cache={private}/cache", "Debug::NoLocking=true"]
    options += [f"Acquire::{method}::Timeout={STALL_SECONDS}" for method in ("http", "https")]
    apt = ["apt-get", "-q", "-c", f"{private}/apt.conf", *(word for option in options for word in ("-o", option))]
    title = f"fetching {FETCHED_BYTES / 1e6:.0f} MB, Debian's package {APT_PACKAGE}, with apt-get"
    _run(Step("fetching the lists of packages with apt-get", [*apt, "update"], "lists/**/*"), private, log)
    _run(Step(title, [*apt, "download", APT_PACKAGE], "**/*.deb", FETCHED_BYTES), private, log)
    package = next(private.glob("*.deb"))
    _run(Step(f"unpacking {package.name}", ["dpkg-deb", "-x", str(package), "unpacked"], "unpacked/**/*"), private, log)
    return private / "unpacked" / SYSTEM_COPY.relative_to("/")


class Step(NamedTuple):
    """A command that takes its time, and what to show of it."""

    title: str  # what it does, in words
    command: list[str]
    pattern: str  # of the files whose growth is its progress
    size: int | None = None  # bytes they will have in the end, where that is known


def _run(step: Step, folder: Path, log: Log) -> Path:
    """Run a step in `folder`, and return that.

    `log` is told what it does and how long that may take; on a terminal a bar shows its progress. Raises Unavailable,
    with the command's last words, if it fails or exceeds the time limit.
    """
    log(f"data: {step.title}, up to {TIME_LIMIT / 60:.0f} minutes")
    with tempfile.TemporaryFile() as output:
        try:
            exit_code = _wait(step, folder, output.fileno())
        except OSError as error:
            raise Unavailable(str(error)) from None
        output.seek(0)
        lines = [line.strip() for line in output.read().decode("utf-8", "replace").splitlines() if line.strip()]
    if exit_code:
        raise Unavailable(" / ".join(lines[-3:]) or f"{step.command[0]} ended with exit code {exit_code}")
    return folder


def _wait(step: Step, folder: Path, output: int) -> int:
    """Run the command, draw its progress, and return its exit code; it is killed where this function is left early."""
    from tqdm import tqdm

    end = time.monotonic() + TIME_LIMIT
    streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
    look = {"unit": "B", "unit_scale": True, "leave": False, "disable": None}  # None: where stderr is no terminal
    with subprocess.Popen(step.command, cwd=folder, **streams) as process, tqdm(total=step.size, **look) as bar:
        try:
            while process.poll() is None:
                if time.monotonic() > end:
                    raise Unavailable(f"no answer within {TIME_LIMIT:.0f} seconds")
                _advance(bar, folder, step.pattern)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
        finally:
            process.kill()
    return process.returncode


def _advance(bar: "tqdm", folder: Path, pattern: str) -> None:
    """Let `bar` show how many bytes the files in `folder` have by now."""
    if not bar.disable:
        with suppress(OSError):  # where a file was renamed meanwhile
            bar.update(sum(path.stat().st_size for path in folder.glob(pattern)) - bar.n)
