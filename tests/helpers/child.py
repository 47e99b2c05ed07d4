"""Runs a script of the project as a user does, in a process of its own, on data made on the spot.

    done = child.run(["classic", "--epochs", "1"], files=tiny.files_table(data))
    with child.started([...], files=..., patches=["files.os.replace = lambda *_: here('saving')"]) as process:
        child.wait_for(process, "saving")
        process.kill()

The product has no back door: the child puts the checksums of the made-up data in the place of the published ones,
runs the test's `patches`, Python code that sees this project's modules under their names, and calls the script's
`main` as the script does. In a patch, `here(word)` prints `word` and waits there to be killed.

A child is forked from a server that has imported torch, and is up in a tenth of a second; a new interpreter takes
five. It is started with `fresh=True`, with an `env` of its own, and on systems without fork.
"""

import importlib
import json
import multiprocessing
import os
import pkgutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).parents[2]
TIMEOUT = 120  # seconds, after which a child counts as hanging
CAN_FORK = "forkserver" in multiprocessing.get_all_start_methods()
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
EARLIER_RUN = {"explore/report.html": b"an earlier run"}  # what the fixture `earlier_run` leaves in the output folder

# A patch that puts every source of the data out of reach.
OFFLINE = """
def out_of_reach(*_):
    raise download.Unavailable("out of reach")
download._download = download._fetch_package = out_of_reach
download.SYSTEM_COPY = download.Path("/nonexistent/fashion-mnist")
"""

# Patches that leave out the pictures, and the page that shows them, where a test is not about them: they take seconds.
NO_PICTURES = """
from fmnist.figures import album
album.draw_dataset = album.draw_models = lambda *_: None
album.networks_to_look_into = lambda *_: []
"""
NO_REPORT = "page.write_report = lambda *_: None"


def command(folders: Sequence[object], *words: object) -> list[object]:
    """The arguments of a run, `explore` without `words`, on these two folders: of the data, and for output."""
    return [*(words or ["explore"]), "--data-dir", folders[0], "--output-dir", folders[1]]


class Forked:
    """A forked child, with as much of `subprocess.Popen` as the tests need."""

    def __init__(self, job: dict[str, Any]) -> None:
        (stdout, out), (stderr, err) = (_server().Pipe(duplex=False) for _ in range(2))
        self._process = _server().Process(target=_in_fork, args=(job, out, err))
        self._process.start()
        out.close()
        err.close()
        self.stdout, self.stderr = (os.fdopen(os.dup(pipe.fileno())) for pipe in (stdout, stderr))
        self.args, self.pid = job["arguments"], self._process.pid

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        self.stdout.close()
        self.stderr.close()

    @property
    def returncode(self) -> int | None:
        """The exit code; negative if a signal ended the child, None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Do nothing if the child has ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Wait for the child's end and return its exit code. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode


@contextmanager
def started(
    arguments: Sequence[object], *, fresh: bool = False, env: dict[str, str | None] | None = None, **more: Any
) -> Iterator[Forked | subprocess.Popen]:
    """Start a script with `arguments`; when the block ends, the child is killed if it still runs.

    `more` may hold `script`, its name [fashionmnist], `files` in the place of `fmnist.download.FILES`, and `patches`.
    `env` adds to the environment; None takes a variable away.
    """
    job = {"script": "fashionmnist", "arguments": [str(word) for word in arguments], "files": None, "patches": []}
    job |= more
    process = Forked(job) if CAN_FORK and not fresh and env is None else _interpreter(job, env or {})
    with process:
        try:
            yield process
        finally:
            process.kill()


def run(arguments: Sequence[object], timeout: float = TIMEOUT, **settings: Any) -> subprocess.CompletedProcess:
    """Run a script to its end; `settings` are those of `started`."""
    with started(arguments, **settings) as process:
        return finish(process, timeout)


def finish(process: Forked | subprocess.Popen, timeout: float = TIMEOUT) -> subprocess.CompletedProcess:
    """Wait for the end of a started child. Raises subprocess.TimeoutExpired if it does not come."""
    # Not `communicate`: it would miss what `wait_for` has drawn into the buffer beyond its line.
    with ThreadPoolExecutor() as readers:
        stdout, stderr = (readers.submit(stream.read) for stream in (process.stdout, process.stderr))
        try:
            process.wait(timeout)
        finally:
            process.kill()  # one that hangs; another has ended
    return subprocess.CompletedProcess(process.args, process.returncode, stdout.result(), stderr.result())


def wait_for(process: Forked | subprocess.Popen, word: str, timeout: float = TIMEOUT) -> list[str]:
    """Read the child's output up to the line that holds `word`, and return those lines."""
    lines = []
    watch = threading.Timer(timeout, process.kill)
    watch.start()
    try:
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if word in line:
                return lines
    finally:
        watch.cancel()
    raise AssertionError(f"the child ended without a word of {word!r}: {lines}\n{process.stderr.read()}")


# What a child must have done


def only_line(done: subprocess.CompletedProcess, exit_code: int) -> str:
    """Check that the run ended with `exit_code` and one line of error; return that line."""
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    assert done.returncode == exit_code, (done.returncode, done.stdout, done.stderr)
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: "), done.stderr
    return lines[0]


def refused(done: subprocess.CompletedProcess, folders: Sequence[Path]) -> str:
    """Check that the run was refused in one line and left the earlier output alone; return that line."""
    line = only_line(done, 2)
    assert snapshot(folders[1]) == EARLIER_RUN
    return line


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` with its content, but for the lock: what "untouched" is checked with."""
    files = (path for path in sorted(Path(folder).rglob("*")) if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def strays(folder: Path) -> list[Path]:
    """Files that were left half-written."""
    return list(folder.rglob(".*.partial"))


# How a child is started


@cache
def _server() -> BaseContext:
    """Start the server that forks; it ends with this process. It computes with one thread: a fork would lose others."""
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.helpers.imports"])
    with mock.patch.dict(os.environ, ENVIRONMENT):
        forkserver.ensure_running()
    return context


def _interpreter(job: dict[str, Any], env: dict[str, str | None]) -> subprocess.Popen:
    environment = {name: value for name, value in {**os.environ, **ENVIRONMENT, **env}.items() if value is not None}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.child", json.dumps(job)],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# In the child


def here(word: str) -> None:
    """Tell the test where this process is, and wait there to be killed."""
    print(word, flush=True)
    while True:
        time.sleep(1)


def _in_fork(job: dict[str, Any], out: Connection, err: Connection) -> None:
    for number, pipe in ((1, out), (2, err)):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    sys.stdout, sys.stderr = (os.fdopen(number, "w", errors="backslashreplace", closefd=False) for number in (1, 2))
    sys.exit(_main(job))


def _main(job: dict[str, Any]) -> int:
    import fmnist
    from fmnist import errors

    script = importlib.import_module(job["script"])
    names = {"here": here, job["script"]: script}
    wanted = " ".join([*job["patches"], "download" * bool(job["files"])])
    modules = (module.name for module in pkgutil.iter_modules(fmnist.__path__))
    names |= {name: importlib.import_module(f"fmnist.{name}") for name in modules if name in wanted}
    if job["files"]:
        names["download"].FILES = {name: tuple(facts) for name, facts in job["files"].items()}
    for patch in job["patches"]:
        exec(patch, names)
    sys.argv = [f"{job['script']}.py", *job["arguments"]]
    return errors.run_main(script.main)


if __name__ == "__main__":
    sys.exit(_main(json.loads(sys.argv[1])))
