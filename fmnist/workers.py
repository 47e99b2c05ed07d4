"""Trials trained one after another, or side by side: in processes here, or on the workers of a cluster.

Side by side each trial is trained by `fmnist.trials.train` as well, and ends in the same bits at an equal number of
threads. The workers read the data set from one copy on disk. What a kill leaves are the trials' checkpoints.
"""

import queue
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fmnist import cluster, data, processes, trials
from fmnist.checkpoints import Checkpoints
from fmnist.data import FashionMNIST
from fmnist.device import Machine
from fmnist.errors import Diverged, Failed, Refused
from fmnist.trials import Trial

DATA = ".data"  # beside the run's results: the copy of the data set that workers read
WATCHED = 64  # trials whose epochs are looked for on disk; of a cluster's many more, finished ones are counted
PROCESS_LOST = (
    "a process that trains has ended; what was trained is kept: --resume, with fewer --jobs if memory is short"
)
SCHEDULER_LOST = (
    "the cluster's scheduler has ended; what was trained is kept: start one, then --resume with its address"
)


def jobs(options: Mapping[str, Any], machines: Sequence[Machine]) -> int:
    """How many trials --jobs asks to be trained side by side; `machines` has that of each trial."""
    asked = options.get("jobs", 1)
    if asked == "auto":
        from joblib import cpu_count

        # Networks this small gain less by a second thread than a second trial does by a core of its own. A card has
        # one memory for all, of which each process takes hundreds of megabytes before it trains anything.
        asked = cpu_count() if all(machine.device.type == "cpu" for machine in machines) else 1
    return max(1, min(asked, len(machines)))


def threads(options: Mapping[str, Any], machine: Machine, count: int) -> int:
    """By how many threads each of `count` trials is computed; `machine` has as many as a single one would take."""
    if "cluster" in options:
        return 1  # a worker has one core
    side_by_side = jobs(options, [machine] * count)
    if side_by_side == 1:
        return machine.threads
    from joblib import cpu_count

    return max(1, min(machine.threads, cpu_count() // side_by_side))


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
    if "cluster" not in options and jobs(options, [trial.machine for trial in planned]) == 1:
        return _train_in_turn(planned, dataset)
    left = []
    for trial in planned:
        if trial.is_finished():
            trials.tidy(trial)
        else:
            left.append(trial)
    if len(left) < len(planned):
        print(f"{len(planned) - len(left)} of {len(planned)} trials are trained already")
    if not left:
        return {}
    with _copied(dataset, folder) as place, _workers(options, left, place) as (executor, task):
        return _train_by(executor, task, left, place)


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


# Side by side


@contextmanager
def _copied(dataset: FashionMNIST, folder: Path) -> Iterator[Path]:
    """Write the data set where every worker can read it, for as long as the block takes; yield the place."""
    place = folder.absolute() / DATA  # as a worker's working directory is another
    place.mkdir(exist_ok=True)
    try:
        data.write_copy(dataset, place)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _workers(
    options: Mapping[str, Any], left: Sequence[Trial], place: Path
) -> AbstractContextManager[tuple[Executor, Callable]]:
    """What trains the trials that are `left`: an executor, and what it is to call with each of them and `place`."""
    if "cluster" in options:
        files = {trial.network.class_path.rpartition(":")[0] for trial in left if trial.network.is_users_own}
        return cluster.connected(options["cluster"], place, files)
    return processes.started(jobs(options, [trial.machine for trial in left]), left[0].machine.threads, place.parent)


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
