"""Trials in processes of their own on this machine, which share one copy of the data set in memory."""

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from tqdm import tqdm

from fmnist import trials
from fmnist.data import FashionMNIST, read_copy
from fmnist.errors import in_silence, warnings_in
from fmnist.files import remove_partial
from fmnist.trials import Trial

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@contextmanager
def started(count: int, each: int, folder: Path) -> Iterator[tuple[Executor, Callable]]:
    """Start `count` processes with `each` threads apiece; yield an executor on them, and what they are to call.

    Whatever ends the block ends them all.
    """
    from joblib.externals.loky import ProcessPoolExecutor

    # What watches over the pool's semaphores warns of them when this process is killed, and removes them: no news.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
    environment = dict.fromkeys(THREADS, str(each))
    executor = ProcessPoolExecutor(count, env=environment, initializer=_set_up, initargs=(os.getpid(),))
    try:
        yield executor, perform
        executor.shutdown()
    except BaseException:
        with warnings.catch_warnings(), _threads_silenced():
            warnings.simplefilter("ignore")  # where there is no pgrep loky looks for no grandchildren; there are none
            executor.shutdown(kill_workers=True)
        remove_partial(folder)
        raise


@contextmanager
def _threads_silenced() -> Iterator[None]:
    """Print nothing of what ends other threads: loky's looks for a waiting trial that it has already forgotten."""
    before, threading.excepthook = threading.excepthook, lambda _: None
    try:
        yield
    finally:
        threading.excepthook = before


def _set_up(parent: int) -> None:
    """Make this process a worker: one that ends when its `parent` has, as nobody else would if that is killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    tqdm.set_lock(threading.RLock())  # its own is one for many processes, and outlives a killed one
    if os.name == "posix":
        threading.Thread(target=watch, daemon=True).start()


# In such a process


def perform(trial: Trial, place: Path) -> list[str]:
    """Train one trial on the data set in `place`; return the warnings that were printed."""
    with in_silence() as said:
        trials.train(trial, _mapped(place, trial.release, trial.machine.device))
    return warnings_in(said)


@lru_cache(maxsize=1)
def _mapped(place: Path, release: str, device: torch.device) -> FashionMNIST:
    return read_copy(place, release, is_mapped=True).to(device)
