"""Runs a script of the project as a user does, in a process of its own, on data made on the spot.

    done = child.run(["classic", "--epochs", "1"], files=tiny.files_table(data))
    with child.started([...], files=..., patches=["files.os.replace = lambda *_: here('saving')"]) as process:
        child.wait_for(process, "saving")
        process.kill()

The product has no back door: the child puts the checksums of the made-up data in the place of the published ones,
runs the test's `patches`, Python code that sees this project's modules under their names, and calls the script's
`main` as the script does. In a patch, `here(word)` prints `word` and waits there to be killed.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TIMEOUT = 60  # seconds, after which a child counts as hanging
MODULES = ("data", "download", "files", "checkpoints", "training", "evaluation", "metrics", "report", "figures")
EARLIER_RUN = {"explore/report.html": b"an earlier run"}  # what the fixture `earlier_run` leaves in the output folder

# A patch that puts every source of the data out of reach.
OFFLINE = """
def out_of_reach(_private, _log):
    raise download.Unavailable("out of reach")
download._download = download._fetch_package = out_of_reach
download.SYSTEM_COPY = download.Path("/nonexistent/fashion-mnist")
"""


def command(folders: Sequence[object], *words: object) -> list[object]:
    """The arguments of a run, `explore` without `words`, on these two folders: of the data, and for output."""
    return [*(words or ["explore"]), "--data-dir", folders[0], "--output-dir", folders[1]]


@contextmanager
def started(
    arguments: Sequence[object],
    script: str = "fashionmnist",
    files: dict[str, tuple[int, str]] | None = None,
    patches: Sequence[str] = (),
    env: dict[str, str | None] | None = None,
    **settings: Any,
) -> Iterator[subprocess.Popen]:
    """Start `script` with `arguments`; when the block ends, it is killed if it still runs.

    `files` takes the place of `fmnist.download.FILES`. `env` adds to the environment; None takes a variable away.
    """
    job = {"script": script, "arguments": [str(word) for word in arguments], "files": files, "patches": list(patches)}
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(ROOT),
        **(env or {}),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.child", json.dumps(job)],
        cwd=ROOT,
        env={name: value for name, value in environment.items() if value is not None},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def run(arguments: Sequence[object], timeout: float = TIMEOUT, **settings: Any) -> subprocess.CompletedProcess:
    """Run a script to its end; `settings` are those of `started`."""
    with started(arguments, **settings) as process:
        return finish(process, timeout)


def finish(process: subprocess.Popen, timeout: float = TIMEOUT) -> subprocess.CompletedProcess:
    """Wait for the end of a started child; raises subprocess.TimeoutExpired if it does not come."""
    # Not `communicate`: it would miss what `wait_for` has drawn into the buffer beyond its line.
    with ThreadPoolExecutor() as readers:
        stdout, stderr = (readers.submit(stream.read) for stream in (process.stdout, process.stderr))
        try:
            process.wait(timeout)
        finally:
            process.kill()  # one that hangs; another has ended
    return subprocess.CompletedProcess(process.args, process.returncode, stdout.result(), stderr.result())


def wait_for(process: subprocess.Popen, word: str, timeout: float = TIMEOUT) -> list[str]:
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


def only_line(done: subprocess.CompletedProcess, exit_code: int) -> str:
    """Return the one line of error that the user gets, after checking that it is one and `exit_code` is right."""
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
    """What was written half and left."""
    return list(folder.rglob(".*.partial"))


# In the child


def here(word: str) -> None:
    """Tell the test where this process is, and wait there to be killed."""
    print(word, flush=True)
    while True:
        signal.pause()


def _main(job: dict[str, Any]) -> int:
    from fmnist import errors

    script = importlib.import_module(job["script"])
    names = {"here": here, job["script"]: script}
    wanted = " ".join([*job["patches"], "download" * bool(job["files"])])
    names |= {name: importlib.import_module(f"fmnist.{name}") for name in MODULES if name in wanted}
    if job["files"]:
        names["download"].FILES = {name: tuple(facts) for name, facts in job["files"].items()}
    for patch in job["patches"]:
        exec(patch, names)
    sys.argv = [f"{job['script']}.py", *job["arguments"]]
    return errors.run(script.main)


if __name__ == "__main__":
    sys.exit(_main(json.loads(sys.argv[1])))
