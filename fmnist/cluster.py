"""Trials on the workers of a Dask cluster, which may be on other machines.

A worker shares two things with this process: the program, of the same version, and the run's folder, under the same
path. If a worker dies, the scheduler hands its trial to another one, which goes on from the newest checkpoint in that
folder. Imports nothing heavy: a worker is asked whether it will do before it imports torch.
"""

import asyncio
import hashlib
import logging
import os
import platform
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from fmnist.config import ROOT
from fmnist.errors import Failed, Refused, at_most, in_silence, kind_and_line, one_line, warnings_in

if TYPE_CHECKING:
    from distributed import Client

    from fmnist.data import FashionMNIST
    from fmnist.trials import Trial

LIBRARIES = ("torch", "torchvision", "numpy", "scipy", "distributed")  # what numbers, or the cluster, depend on
PATIENCE = 20  # seconds for the scheduler to answer, and then for a first worker to be there
NO_PROGRAM = "cannot import this program ({}): start it in a copy of the program's folder"
_ONE_AT_A_TIME = threading.Lock()  # in a worker: seeds and threads are those of its process


@contextmanager
def connected(address: str, place: Path, files: Iterable[str] = ()) -> Iterator[tuple[Executor, Callable]]:
    """Connect to the scheduler at `address`; yield an executor on its workers, and what they are to call.

    `place` holds the copy of the data set, `files` are the networks of the user's own. Raises Refused, in one line, if
    there is no scheduler or no worker there, or one that would not do.
    """
    client, ours = _connect(address), program(*files)
    try:
        _check(client, ours, place)
        yield client.get_executor(pure=False), partial(perform, ours)
    except Refused as error:
        raise Refused(f"--cluster {address}: {error}") from None
    finally:
        client.close(timeout=5)


def _connect(address: str) -> "Client":
    try:
        from distributed import Client
    except ImportError:
        raise Refused("--cluster: needs Dask: pip install -r requirements-cluster.txt") from None
    for name in ("distributed", "distributed.client", "distributed.core", "distributed.comm"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what goes wrong is said in one line, here
    try:
        return Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, asyncio.TimeoutError, ValueError, TypeError, RuntimeError) as error:
        reason = one_line(error, 120)
        raise Refused(f"--cluster {address}: no scheduler answers ({reason}); see docs/cluster.md") from None


def _check(client: "Client", ours: dict[str, str], place: Path) -> None:
    """Raise Refused unless all workers of the scheduler will do; the message names those that will not."""
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except (TimeoutError, asyncio.TimeoutError):  # two before Python 3.11
        raise Refused("there are no workers; start some, see docs/cluster.md") from None
    answers = client.run(_question(ours, str(place)), on_error="return")
    faults = {
        worker: _in_words(answer) if isinstance(answer, Exception) else answer for worker, answer in answers.items()
    }
    faults |= {
        worker: f"has {count} threads, and one process has one seed: start it with --nthreads 1"
        for worker, count in client.nthreads().items()
        if count != 1
    }
    told = [f"the worker {worker} {fault}" for worker, fault in sorted(faults.items()) if fault]
    if told:
        raise Refused("; ".join(at_most(3, told, of="worker")))


def _in_words(error: Exception) -> str:
    """Why a worker could not even be asked: a question is Python's own code, which another Python does not read."""
    reason = kind_and_line(error, 120)
    if isinstance(error, OSError):  # of the connection, or of a file that it may not read
        return f"cannot be asked ({reason}): look at its log"
    return f"does not understand this program ({reason}): start it by Python {platform.python_version()}"


def _question(ours: dict[str, str], place: str) -> Callable[[], str | None]:
    """What a worker is asked. A function within one: Dask sends it whole, and not its name in a module."""

    no_program = NO_PROGRAM

    def answer() -> str | None:
        try:
            from fmnist import cluster
        except ImportError as error:
            return no_program.format(error)
        return cluster.fault(ours, place)

    return answer


def fault(theirs: dict[str, str], place: str) -> str | None:
    """How the program here differs from `theirs`, so that numbers may differ, or why it cannot write; or None."""
    ours = program(*(name for name in theirs if name.endswith(".py")))
    others = [f"{name} {ours[name]} instead of {theirs[name]}" for name in theirs if ours[name] != theirs[name]]
    if others:
        return f"has another version of the program: {', '.join(others)}"
    if not Path(place).is_dir() or not os.access(place, os.W_OK):
        folder = Path(place).parent
        return f"cannot write in {folder}: name an --output-dir that is shared with it, under the same path"
    return None


def program(*files: str) -> dict[str, str]:
    """What a trial's numbers depend on beside its settings, and in which version it is here.

    Python, the libraries, this program's own sources, and the `files` that the user adds to them.
    """
    versions = {"sources": _sources(), "python": platform.python_version()}
    versions |= {name: _version(name) for name in LIBRARIES}
    return versions | {name: _imported(name) if Path(name).is_file() else "missing" for name in files}


# What a process has once imported stays as it was then, whatever becomes of the files.


@cache
def _imported(name: str) -> str:
    return _digest(Path(name))


@cache
def _sources() -> str:
    return _digest(*sorted([*ROOT.glob("*.py"), *ROOT.glob("fmnist/*.py")]))


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "missing"


def _digest(*paths: Path) -> str:
    content = hashlib.sha256()
    for path in paths:
        content.update(f"{path.name}\n".encode() + path.read_bytes().replace(b"\r\n", b"\n"))
    return content.hexdigest()[:12]


# In a worker


def perform(theirs: dict[str, str], trial: "Trial", place: Path) -> list[str]:
    """Train one trial on the data set in `place`; return the warnings that were printed.

    Raises Refused if this worker, which may have come later than the question, will not do.
    """
    if words := fault(theirs, str(place)):
        raise Refused(f"a worker on {platform.node()} {words}")
    from fmnist import device, trials

    device.choose_device(trial.machine.device.type)
    with _ONE_AT_A_TIME, in_silence() as said:
        trials.train(trial, _dataset(trial, place), is_wanted=place.exists)  # it is there for as long as the run
    return warnings_in(said)


_kept: dict[tuple[str, ...], "FashionMNIST"] = {}  # by its digests, the last data set that was read


def _dataset(trial: "Trial", place: Path) -> "FashionMNIST":
    """Read the data set, once for all trials of it. Not mapped: another machine may remove the file."""
    from fmnist.data import read_copy

    key = (*trial.digests.values(), trial.machine.device.type)
    if key not in _kept:
        dataset = read_copy(place, trial.release, is_mapped=False)
        if dataset.digests() != trial.digests:
            raise Refused(f"a worker on {platform.node()} reads other data in {place} than were written there")
        _kept.clear()
        _kept[key] = dataset.to(trial.machine.device)
    return _kept[key]


def explained(error: Exception) -> Failed:
    """What a trial has failed of on a cluster, in words. Raises `error` itself if there are none for it."""
    if type(error).__name__ == "KilledWorker":
        return Failed("every worker that tried it has died; is their memory short?")
    if isinstance(error, ImportError):
        return Failed(f"a worker {NO_PROGRAM.format(error)}")
    raise error
