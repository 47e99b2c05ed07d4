"""Trials trained one after another, or side by side: in processes here, or on the workers of a cluster.

Side by side each trial is trained by `fmnist.trials.train` as well, and ends in the same bits at an equal number of
threads. The workers read the data set from one copy on disk. What a kill leaves are the trials' checkpoints.
"""

import os
import queue
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import lru_cache
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from fmnist import cluster, trials
from fmnist.checkpoints import Checkpoints
from fmnist.data import FashionMNIST
from fmnist.errors import Diverged, Failed, Refused, in_words
from fmnist.files import atomic_write, remove_partial
from fmnist.trials import Trial

DATA = ".data"  # beside the run's results: the copy of the data set that workers read
WATCHED = 64  # trials whose epochs are looked for on disk; of a cluster's many more, finished ones are counted
PROCESS_LOST = (
    "a process that trains has ended; what was trained is kept: --resume, with fewer --jobs if memory is short"
)
SCHEDULER_LOST = (
    "the cluster's scheduler has ended; what was trained is kept: start one, then --resume with its address"
)
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def jobs(options: Mapping[str, Any], count: int) -> int:
    """How many of `count` trials --jobs asks to be trained side by side."""
    asked = options.get("jobs", 1)
    if asked != "auto":
        return asked
    from joblib import cpu_count

    # Networks this small gain less by a second thread than a second trial does by a core of its own.
    return max(1, min(count, cpu_count()))


def threads(options: Mapping[str, Any], count: int) -> int | None:
    """By how many threads each of `count` trials is computed; None for as many as torch takes for one alone."""
    if "cluster" in options:
        return 1  # a worker has one core
    side_by_side = jobs(options, count)
    if side_by_side == 1:
        return None
    from joblib import cpu_count

    return max(1, min(torch.get_num_threads(), cpu_count() // side_by_side))


def train_all(
    planned: Sequence[Trial], dataset: FashionMNIST, options: Mapping[str, Any], folder: Path
) -> dict[str, Diverged]:
    """Train every trial of the run in `folder` that is not finished, where --jobs or --cluster say.

    One that fails ends no other. Raises Failed or Refused in the end, naming the first that did; of a study those that
    have diverged, by name, are returned, as the others can be compared without them.
    """
    failures = _failures(planned, dataset, options, folder)
    if not ("vary" in options and all(isinstance(error, Diverged) for error in failures.values())):
        raise_first(failures, len(planned), "the others are kept, and --resume tries again")
    return failures


def _failures(
    planned: Sequence[Trial], dataset: FashionMNIST, options: Mapping[str, Any], folder: Path
) -> dict[str, Exception]:
    """Train every trial that is not finished; return the errors of those that failed, by name."""
    side_by_side = jobs(options, len(planned))
    if "cluster" not in options and side_by_side == 1:
        return _train_in_turn(planned, dataset)
    left = [trial for trial in planned if not trial.is_finished()]
    if len(left) < len(planned):
        print(f"{len(planned) - len(left)} of {len(planned)} trials are trained already")
    if not left:
        return {}
    with _copied(dataset, folder) as data_folder:
        if "cluster" in options:
            files = {trial.network.class_path.rpartition(":")[0] for trial in left if trial.network.is_users_own}
            with cluster.connected(options["cluster"], data_folder, files) as (executor, task):
                return _train_by(executor, task, left, data_folder)
        else:
            with _processes(min(side_by_side, len(left)), left[0].machine.threads, folder) as executor:
                return _train_by(executor, perform, left, data_folder)


def _train_in_turn(planned: Sequence[Trial], dataset: FashionMNIST) -> dict[str, Exception]:
    failures: dict[str, Exception] = {}
    for trial in planned:
        try:
            trials.train(trial, dataset)
        except Failed as error:  # what is refused is for the user to decide before anything else is trained
            failures[trial.name] = error
            if len(planned) > 1:
                print(f"  {trial.name} failed: {error}")
    return failures


def raise_first(failures: Mapping[str, Exception], count: int, of_others: str) -> None:
    """Raise Failed or Refused if any of `count` trials has failed.

    The message names the first, its reason, and what is `of_others`.
    """
    if not failures:
        return
    name, error = next(iter(failures.items()))
    if count == 1:
        raise error
    what = f"{len(failures)} of {count} trials failed, {name} first ({error})"
    raise type(error)(f"{what}; {of_others}")


# The data set


@contextmanager
def _copied(dataset: FashionMNIST, folder: Path) -> Iterator[Path]:
    """Write the data set where every worker can read it, for as long as the block takes; yield the place."""
    place = folder.absolute() / DATA  # as a worker's working directory is another
    place.mkdir(exist_ok=True)
    try:
        for name, tensor in zip(FashionMNIST._fields, dataset[:4], strict=False):
            array = tensor.cpu().contiguous().numpy()
            with atomic_write(place / f"{name}.npy") as file:  # np.save itself does not say that a disk is full
                np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
                file.write(array.data)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def read_copy(place: Path, release: str, is_mapped: bool) -> FashionMNIST:
    """Return the copy of the data set in `place`; mapped into memory, all workers on one machine share it."""
    paths = [place / f"{name}.npy" for name in FashionMNIST._fields[:4]]
    mode = "c" if is_mapped else None  # not written to, but torch would warn of what cannot be
    tensors = [torch.from_numpy(np.load(path, mmap_mode=mode, allow_pickle=False)) for path in paths]
    return FashionMNIST(*tensors, str(place), release)


@lru_cache(maxsize=1)
def _mapped(place: Path, release: str, device: torch.device) -> FashionMNIST:
    return read_copy(place, release, is_mapped=True).to(device)


# In a worker


def perform(trial: Trial, place: Path) -> list[str]:
    """Train one trial on the data set in `place`; return the warnings that were printed."""
    with in_silence() as said:
        trials.train(trial, _mapped(place, trial.release, trial.machine.device))
    return warnings_in(said)


@contextmanager
def in_silence() -> Iterator[StringIO]:
    """Keep what is printed; put what a user can cause in words, as not every exception comes through a pipe."""
    said = StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            yield said
    except (OSError, MemoryError, RuntimeError) as error:
        words = in_words(error)
        if words is None:
            raise
        raise Failed(words) from None


def warnings_in(said: StringIO) -> list[str]:
    """The lines that warn of something."""
    return [line for line in said.getvalue().splitlines() if line.startswith("warning")]


# Processes here


@contextmanager
def _processes(count: int, each: int, folder: Path) -> Iterator[Executor]:
    """Yield an executor of `count` processes of `each` so many threads; whatever ends the block ends them all."""
    from joblib.externals.loky import ProcessPoolExecutor

    # What watches over the pool's semaphores warns of them when this process is killed, and removes them: no news.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
    environment = dict.fromkeys(THREADS, str(each))
    executor = ProcessPoolExecutor(count, env=environment, initializer=_set_up, initargs=(os.getpid(),))
    try:
        yield executor
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


@contextmanager
def _signals_held() -> Iterator[None]:
    """Let processes that are started here ignore Ctrl-C, which a terminal sends to all: this process ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# Side by side


def _train_by(executor: Executor, task: Callable, left: Sequence[Trial], place: Path) -> dict[str, Exception]:
    """Let `executor` train every trial that is `left`; return the errors of those that failed, by name.

    Raises Failed if nothing can be trained any more.
    """
    ended: queue.SimpleQueue[tuple[Trial, Future]] = queue.SimpleQueue()
    with _signals_held():
        for trial in left:
            try:
                future = executor.submit(task, trial, place)
            except BrokenExecutor:  # by the death of a process that trains already
                raise Failed(PROCESS_LOST) from None
            future.add_done_callback(lambda future, trial=trial: ended.put((trial, future)))
    failures: dict[str, Exception] = {}
    with ProgressBar(left) as progress:
        for trial, future in _as_they_end(ended, progress):
            try:
                progress.say(*future.result())
                progress.finished(trial)
            except (Failed, Refused) as error:
                failures[trial.name] = error
                progress.failed(trial, error)
            except BrokenExecutor:
                raise Failed(PROCESS_LOST) from None
            except CancelledError:
                raise Failed(SCHEDULER_LOST) from None
            except Exception as error:
                failures[trial.name] = cluster.explained(error)
                progress.failed(trial, failures[trial.name])
    return failures


def _as_they_end(ended: queue.SimpleQueue, progress: "ProgressBar") -> Iterator[tuple[Trial, Future]]:
    """Yield every trial of `progress` when it has ended, and show how far all have come in between."""
    while progress.left:
        try:
            yield ended.get(timeout=1)
        except queue.Empty:
            progress.look()


class ProgressBar:
    """One line for all trials: how many have ended, how many epochs are trained, and how long the rest will take.

    In a terminal it stays in its place; in a file or pipe a line is printed each time a twentieth of the trials has
    ended.
    """

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.left = {trial.name: trial for trial in trials}
        self.count = len(trials)
        self.epochs = {trial.name: Checkpoints(trial.checkpoints_folder, trial.name, {}).epochs for trial in trials}
        total = sum(trial.network.training.epochs for trial in trials)
        before = sum(self.epochs.values())
        self.bar = tqdm(total=total, initial=before, unit="epoch", smoothing=0, leave=False, disable=None)
        self.begun = time.monotonic()
        self.before, self.total, self.trained = before, total, before

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def look(self) -> None:
        """Look on disk how far the trials have come that are under way."""
        for name, trial in islice(self.left.items(), WATCHED):
            self._note(name, Checkpoints(trial.checkpoints_folder, name, {}).epochs)
        self.bar.refresh()

    def finished(self, trial: Trial) -> None:
        """Count a trial that is finished, though it may have stopped early."""
        self._end(trial, trial.network.training.epochs)

    def failed(self, trial: Trial, error: Exception) -> None:
        """Count a trial that is given up, and say why."""
        self.say(f"{trial.name} failed: {error}")
        self._end(trial, trial.network.training.epochs)

    def say(self, *lines: str) -> None:
        """Print lines above the one of progress."""
        for line in lines:
            self.bar.write(line) if not self.bar.disable else print(line)

    def _note(self, name: str, epochs: int) -> None:
        self.trained += epochs - self.epochs[name]
        self.bar.update(epochs - self.epochs[name])
        self.epochs[name] = epochs

    def _end(self, trial: Trial, epochs: int) -> None:
        self._note(trial.name, epochs)
        del self.left[trial.name]
        ended = self.count - len(self.left)
        self.bar.set_description(f"{ended} of {self.count} trials")
        if self.bar.disable and (ended * 20 // self.count > (ended - 1) * 20 // self.count):
            print(f"{ended} of {self.count} trials, {self.trained} of {self.total} epochs, {self._time_left()} left")

    def _time_left(self) -> str:
        seconds = time.monotonic() - self.begun
        return tqdm.format_interval(seconds * (self.total - self.trained) / max(1, self.trained - self.before))
