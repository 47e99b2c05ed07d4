"""A Dask cluster on loopback: a scheduler and workers that are processes of their own, and end by themselves.

with cluster(tmp_path, workers=2) as there:
    child.run([..., "--cluster", there.address])
    there.workers[0].kill()
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
LIFETIME = "300"  # seconds, after which all is over though nobody ends it
QUIET = ["--no-dashboard", "--host", "127.0.0.1"]


class Cluster(NamedTuple):
    """What was started, and where it listens."""

    address: str
    scheduler: subprocess.Popen
    workers: list[subprocess.Popen]
    folder: Path


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[Cluster]:
    """Start a scheduler and so many workers, each in one process; end them with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "scheduler.json"
    idle = ["--idle-timeout", LIFETIME]
    there = Cluster("", _started(folder, "scheduler", "--port", "0", "--scheduler-file", file, *idle), [], folder)
    try:
        there = there._replace(address=_address(file, there.scheduler))
        for _ in range(workers):
            add_worker(there)
        yield there
    finally:
        for process in (*there.workers, there.scheduler):
            process.kill()
            process.wait()


def add_worker(there: Cluster, cwd: Path = ROOT, threads: int = 1, **environment: str) -> subprocess.Popen:
    """Start one more worker, in the program's folder or that of another copy of it."""
    words = ["--nthreads", threads, "--no-nanny", "--lifetime", LIFETIME, "--death-timeout", "30"]
    place = ["--local-directory", there.folder]
    process = _started(there.folder, "worker", there.address, *words, *place, cwd=cwd, environment=environment)
    there.workers.append(process)
    return process


def _started(folder: Path, what: str, *words: object, cwd: Path = ROOT, environment: dict | None = None):
    command = [sys.executable, "-m", "dask", what, *QUIET, *map(str, words)]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "", **(environment or {})}
    with open(folder / f"{what}.log", "ab") as log:
        return subprocess.Popen(command, cwd=cwd, env=variables, stdout=log, stderr=log)


def _address(file: Path, scheduler: subprocess.Popen, seconds: float = 60) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end and scheduler.poll() is None:
        try:
            return json.loads(file.read_text())["address"]
        except (OSError, ValueError):
            time.sleep(0.1)
    raise AssertionError("the scheduler did not start")
