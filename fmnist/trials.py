"""One network from one seed on one data set, as a unit of work: trained or resumed, scored, and stored.

    RECIPE/checkpoints/NAME-seedN/epoch0007.pt      where its training goes on from
    RECIPE/checkpoints/NAME-seedN/predictions.npz   of the test images: probabilities float32 [T, 10], labels int64 [T]
    RECIPE/checkpoints/NAME-seedN/trial.json        all its numbers; written last: a trial that has it is finished

A run is a list of trials and what is made of them. They know nothing of each other: they may be trained one after
another, side by side (`fmnist.workers`), or on other machines (`fmnist.cluster`), and end in the same bits at an equal
number of threads.
"""

import json
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fmnist import data, device, evaluation, learners, metrics, training
from fmnist.checkpoints import Checkpoints
from fmnist.config import Network, Recipe, TrainConfig
from fmnist.data import FashionMNIST
from fmnist.device import Machine
from fmnist.errors import Diverged, Failed, Refused, in_words, kind_and_line
from fmnist.evaluation import Evaluation, Predictions
from fmnist.files import atomic_write, write_json

FORMAT = 1
RECORD, PREDICTIONS = "trial.json", "predictions.npz"
SCORES = ("test_accuracy", "test_loss", "train_subset_accuracy", "mean_accuracy")  # of a summary, in an Evaluation


@dataclass(frozen=True)
class Trial:
    """What one training takes, as plain values that any process can be handed."""

    network: Network  # with its seed
    recipe: str
    release: str  # of the data set
    digests: Mapping[str, str]  # of the data set's parts
    machine: Machine
    checkpoints_folder: Path  # RECIPE/checkpoints
    part: int | None = None  # of the training images: what it does not learn from but judges, in an audit

    @property
    def name(self) -> str:
        """Names it within its run."""
        return self.network.run_name

    @property
    def folder(self) -> Path:
        """Where its checkpoints and its results are."""
        return self.checkpoints_folder / self.name

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """All that its results follow from, as plain values."""
        judged = {} if self.part is None else {"part judged": self.part}
        return {**self.network.settings, "machine": self.machine.settings, "data": {**self.digests, **judged}}

    @property
    def checkpoints(self) -> Checkpoints:
        """Where its training is saved."""
        return Checkpoints(self.checkpoints_folder, self.name, self.settings)

    def is_finished(self) -> bool:
        """Whether its results are there."""
        record = read_record(self.folder)
        settings = json.loads(json.dumps(self.settings))  # as they come back from a file
        return record is not None and record["settings"] == settings and zipfile.is_zipfile(self.folder / PREDICTIONS)


@dataclass(frozen=True)
class Trained:
    """What is kept of a network that was trained from one seed."""

    network: Network
    history: list[metrics.Epoch]
    best_epoch: int | None  # from 1; None where the last one was scored
    evaluation: Evaluation
    cost: dict[str, int]  # parameters, and multiply_adds of one image

    @property
    def summary(self) -> metrics.Summary:
        """The numbers that a table compares."""
        seconds = sum(epoch["seconds"] for epoch in self.history)
        summary: metrics.Summary = {
            "test_accuracy": self.evaluation.test_accuracy,
            "train_subset_accuracy": self.evaluation.train_subset_accuracy,
            "mean_accuracy": self.evaluation.mean_accuracy,
            "test_loss": self.evaluation.test_loss,
            "train_loss": self.history[-1]["train_loss"],
            "training_seconds": seconds,
            "seconds_per_epoch": seconds / len(self.history),
        }
        if self.best_epoch:
            summary["best_epoch"] = self.best_epoch
        if calibration := self.evaluation.calibration:
            summary |= {key: calibration[key] for key in ("temperature", "ece", "ece_after")}
        if self.evaluation.mirrored_accuracy is not None:
            summary["mirrored_accuracy"] = self.evaluation.mirrored_accuracy
        return summary

    @property
    def epochs(self) -> list[metrics.Epoch]:
        """The history, with a mark on the epoch that was chosen."""
        return [row | {"best": True} if n == self.best_epoch else row for n, row in enumerate(self.history, start=1)]


def is_auditor(record: metrics.Record) -> bool:
    """Whether it is of one of an audit's networks."""
    return "part judged" in record["settings"]["data"]


def plan(recipe: Recipe, seeds: int, dataset: FashionMNIST, machine: Machine, checkpoints_folder: Path) -> list[Trial]:
    """Every network of `recipe` with each of its seeds, and its auditors, one for each part of the training images.

    Raises Refused if one would have nothing to learn from.
    """
    for network in recipe.networks:
        data.training_data(dataset, network.training.validation, network.training.seed)
    if recipe.auditors:
        data.without_part(dataset, 0)
    about_data = recipe.name, dataset.release, dataset.digests()
    folder = Path(checkpoints_folder).absolute()

    def trial(network: Network, part: int | None = None) -> Trial:
        return Trial(network, *about_data, machine if network.is_torch else machine.for_numpy, folder, part)

    auditors = [trial(network, part) for part, network in enumerate(recipe.auditors)]
    return [trial(network) for network in recipe.trainings(seeds)] + auditors


def train(trial: Trial, dataset: FashionMNIST, is_wanted: Callable[[], bool] = lambda: True) -> None:
    """Train the trial's network, or what is left of its training, score it on the test images, once, and store that.

    Once the trial is no longer wanted, it ends with the epoch under way. Raises Failed then, or if the training cannot
    go on; Refused for damaged checkpoints.
    """
    with _held(trial):
        if trial.is_finished():
            trial.checkpoints.finish()  # where a kill came before it
            print(f"{trial.network.title}, seed {trial.network.training.seed}, trained already")
        else:
            with _ones_own_in_words(trial.network):
                _train(trial, dataset, is_wanted)


def tidy(trial: Trial) -> None:
    """Drop what a finished `trial` need not keep, where a kill came before that, or a worker is about to do so."""
    if len(trial.checkpoints.paths()) > 1:
        with _held(trial):
            trial.checkpoints.finish()


@contextmanager
def _held(trial: Trial) -> Iterator[None]:
    """Hold a trial's folder for this process alone; wait for one that was given up and is still at it."""
    from filelock import FileLock

    lock = trial.folder / ".lock"
    trial.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        yield
        with suppress(OSError):  # on Windows nobody removes an open file; FileLock does so there once it has let go
            lock.unlink()  # while it is held: whoever takes it next would else lose the file, and a third one not wait


class _Watched(Checkpoints):
    """Checkpoints of a trial that somebody may have given up."""

    def __init__(self, trial: Trial, is_wanted: Callable[[], bool]) -> None:
        super().__init__(trial.checkpoints_folder, trial.name, trial.settings)
        self.is_wanted = is_wanted

    def save(self, epoch: int, *state: Any) -> None:
        super().save(epoch, *state)
        if not self.is_wanted():
            raise Failed(f"given up after epoch {epoch}, which is saved")


def _train(trial: Trial, dataset: FashionMNIST, is_wanted: Callable[[], bool]) -> None:
    network, config, kept = trial.network, trial.network.training, _Watched(trial, is_wanted)
    device.prepare(trial.machine)
    dataset = dataset.to(trial.machine.device)
    if trial.part is not None:
        dataset = data.without_part(dataset, trial.part)
    training_data = data.training_data(dataset, config.validation, config.seed)
    steps = config.epochs * training.steps_per_epoch(len(training_data.train_indices), config.batch_size)
    learner = learners.make_learner(network.build(), config, trial.machine, steps)
    progress = training.resume(learner, config, kept)
    print(f"{network.title}, seed {config.seed}{_where(progress.history, config)}")
    progress = training.fit(learner, training_data, config, kept, progress)
    training.select(learner, progress)
    best = training.selected_epoch(progress.history, config)
    if best:
        print(f"  epoch {best} is the best on validation: its weights are scored")
    device.give_back_memory()
    indices = training_data.train_indices, training_data.validation_indices
    scored = evaluation.evaluate(learner, dataset, *indices, mirrored=config.augment)
    if not math.isfinite(scored.test_loss):  # the weights are: so large that they overflow
        raise Diverged("the test loss is no longer a finite number; start anew with a smaller --lr")
    store(trial, Trained(network, progress.history, best, scored, learner.cost()))


@contextmanager
def _ones_own_in_words(network: Network) -> Iterator[None]:
    """Say in one line what goes wrong in a network of the user's own, so that it ends no other trial."""
    try:
        yield
    except (Failed, Refused):
        raise
    except Exception as error:
        if not network.is_users_own or in_words(error):
            raise
        raise Failed(f"{network.class_path}: cannot be trained ({kind_and_line(error)})") from error


def _where(history: list[metrics.Epoch], config: TrainConfig) -> str:
    if len(history) >= config.epochs or training.is_stalled(history, config.patience):
        return ", trained already"
    return f", from epoch {len(history) + 1}" if history else ""


# Stored


def store(trial: Trial, trained: Trained) -> None:
    """Write the results of a trial, the record last; then drop what of its checkpoints is of no more use."""
    predictions = trained.evaluation.predictions
    with atomic_write(trial.folder / PREDICTIONS) as file:
        np.savez(file, probabilities=predictions.probabilities, labels=predictions.labels)
    record: metrics.Record = {
        "format": FORMAT,
        "name": trial.network.name,
        "title": trial.network.title,
        "recipe": trial.recipe,
        "seed": trial.network.training.seed,
        "release": trial.release,
        "settings": trial.settings,
        "summary": trained.summary,
        "cost": trained.cost,
        "epochs": trained.epochs,
        **({"calibration": calibration} if (calibration := trained.evaluation.calibration) else {}),
    }
    write_json(trial.folder / RECORD, record)
    trial.checkpoints.finish()


def read_record(folder: Path) -> metrics.Record | None:
    """The content of a trial.json; None if there is none that this version of the program has written."""
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
        sound = record["format"] == FORMAT and record.keys() >= metrics.Record.__required_keys__
        sound = sound and record["summary"].keys() >= metrics.Summary.__required_keys__
        sound = sound and isinstance(record["epochs"], list) and len(record["epochs"]) > 0
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return record if sound else None


def read_predictions(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities, float32 [T, 10], and labels, int64 [T]. Raises Refused if the file is damaged."""
    path = folder / PREDICTIONS
    try:
        return _arrays(path, path.stat().st_mtime_ns)
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
        raise Refused(f"{path} is missing or damaged: remove it, then --resume to score the network again") from None


@lru_cache(maxsize=4)
def _arrays(path: Path, _changed: int) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        probabilities, labels = arrays["probabilities"], arrays["labels"]
    if probabilities.shape != (len(labels), len(data.CLASSES)):
        raise ValueError
    return probabilities, labels


class StoredPredictions:
    """`Predictions` that stay in their file until something of them is asked for: a run of many trials draws few."""

    def __init__(self, folder: Path, images: np.ndarray) -> None:
        self.folder, self.images = folder, images

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        probabilities, labels = read_predictions(self.folder)
        return getattr(Predictions(self.images, labels, probabilities), name)


def read(trial: Trial, images: np.ndarray) -> Trained:
    """What was stored of a finished trial, with the test `images`. Raises Refused if that is damaged."""
    record = read_record(trial.folder)
    if record is None:
        raise Refused(f"{trial.folder / RECORD} is missing or damaged; --resume to make it again")
    summary = record["summary"]
    scores = {name: summary[name] for name in SCORES}
    extras = {"calibration": record.get("calibration"), "mirrored_accuracy": summary.get("mirrored_accuracy")}
    scored = Evaluation(StoredPredictions(trial.folder, images), **scores, **extras)
    return Trained(trial.network, record["epochs"], summary.get("best_epoch"), scored, record["cost"])


def read_all(trials: Iterable[Trial], dataset: FashionMNIST) -> dict[str, list[Trained]]:
    """What was stored of all trials, one for each seed, by their networks' names; but for those of an audit."""
    trained: dict[str, list[Trained]] = {}
    images = dataset.test_images.cpu().numpy()
    for trial in trials:
        if trial.part is None:
            trained.setdefault(trial.network.name, []).append(read(trial, images))
    return trained


def read_judgements(trials: Iterable[Trial]) -> list[np.ndarray]:
    """The probabilities that each trial of an audit gave the images of its part and the test images; empty if none."""
    return [read_predictions(trial.folder)[0] for trial in trials if trial.part is not None]


def weights(trial: Trial) -> dict[str, torch.Tensor]:
    """The weights of a finished trial that were scored. Raises Refused if they are not there."""
    checkpoint, record = trial.checkpoints.newest(), read_record(trial.folder)
    if checkpoint is None:
        raise Refused(f"{trial.folder} holds no weights any more; leave out --resume to start anew")
    if record and len(checkpoint["history"]) < len(record["epochs"]):  # the last is damaged
        raise Refused(
            f"{trial.folder} no longer holds the weights that were scored, but those of an earlier epoch: remove "
            f"{trial.folder / RECORD}, then --resume to train the rest once more"
        )
    return checkpoint["best_state"] or checkpoint["learner"]["model"]


def temperature(trial: Trial) -> float | None:
    """The temperature that calibrates a finished trial's probabilities; None if no validation images gave one."""
    record = read_record(trial.folder)
    return record["summary"].get("temperature") if record else None
