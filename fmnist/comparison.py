"""Runs set beside each other from what their trials have stored: a table, comparisons, and what only one gets right.

Trials of equal settings are one network from several seeds, whatever runs they were trained in. Trains nothing.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from fmnist import runs, statistics, trials
from fmnist.data import FashionMNIST
from fmnist.errors import Refused, at_most
from fmnist.metrics import Comparison, Record
from fmnist.study_results import Spread, scored_epoch, spread, written

MOST_PAIRED = 6  # networks that are all compared with each other; of more, each with the best or the first
COUNTED_ONCE = 3  # trials that were found twice, by name; of more, how many


@dataclass(frozen=True)
class StoredTrial:
    """A trial as it was stored: `fmnist.statistics` compares such."""

    folder: Path
    record: Record
    images: np.ndarray  # uint8 [T, 28, 28], the test images

    @property
    def run(self) -> Path:
        """The folder of its run."""
        return self.folder.parent.parent

    @property
    def seed(self) -> int:
        """The seed that it was trained from."""
        return self.record["seed"]

    @property
    def test_accuracy(self) -> float:
        """A fraction."""
        return self.record["summary"]["test_accuracy"]

    @property
    def predictions(self) -> trials.StoredPredictions:
        """What it made of the test images, read when it is asked for."""
        return trials.StoredPredictions(self.folder, self.images)

    @property
    def row(self) -> dict[str, Any]:
        """Its numbers: a row of comparison.csv."""
        epochs, summary = self.record["epochs"], self.record["summary"]
        scored = scored_epoch(epochs)
        validated = {key: epochs[scored - 1].get(key) for key in ("validation_accuracy", "validation_loss")}
        return {
            "run": str(self.run),
            "seed": self.seed,
            "epochs": len(epochs),
            "scored_epoch": scored,
            **validated,
            **{key: summary[key] for key in ("test_accuracy", "test_loss")},
            "parameters": self.record["cost"]["parameters"],
            "training_seconds": summary["training_seconds"],
        }


@dataclass(frozen=True)
class Entry:
    """One network of a comparison, trained from one seed or several."""

    name: str  # of its own
    title: str
    trials: Sequence[StoredTrial]  # by seed

    @property
    def runs(self) -> list[str]:
        """The names of the folders that its trials are from."""
        return list(dict.fromkeys(trial.run.name for trial in self.trials))

    @property
    def settings(self) -> dict[str, Any]:
        """How the network is built and trained, but for the seed."""
        settings = self.trials[0].record["settings"]
        both = settings["network"] | settings["training"] | {"precision": settings["machine"].get("precision")}
        return {name: value for name, value in both.items() if name != "seed"}

    @property
    def validation(self) -> Spread | None:
        """Accuracy on validation images over the seeds, where some were held out."""
        values = [trial.row["validation_accuracy"] for trial in self.trials]
        return None if None in values else spread(values)

    def over(self, key: str) -> Spread:
        """A number of its trials over the seeds."""
        return spread([trial.row[key] for trial in self.trials])


@dataclass(frozen=True)
class Compared:
    """Networks of finished runs, trained and tested on the same data."""

    entries: Sequence[Entry]
    notes: Sequence[str]  # what was counted once, or left out of the comparisons

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds that all the networks were trained from, ascending."""
        own = [{trial.seed for trial in entry.trials} for entry in self.entries]
        return sorted(set.intersection(*own))

    def first(self, entry: Entry) -> StoredTrial:
        """The trial that stands for a network where its images are shown: of the first seed that all have, if any."""
        return next((trial for trial in entry.trials if trial.seed in self.seeds[:1]), entry.trials[0])

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Every network with every other, or of many with the best; over the seeds that all have.

        Where they have fewer than two in common, one trained network is compared with another.
        """
        runs = {entry.name: [trial for trial in entry.trials if trial.seed in self.seeds] for entry in self.entries}
        if len(self.seeds) < 2:
            runs = {entry.name: [self.first(entry)] for entry in self.entries}
        return statistics.compare(self._pairs(), runs)

    def _pairs(self) -> list[tuple[str, str]]:
        names = [entry.name for entry in self.entries]
        if len(names) <= MOST_PAIRED:
            return list(combinations(names, 2))
        return [(self.best, name) for name in names if name != self.best]

    @property
    def best(self) -> str:
        """The network with the highest validation accuracy; the first one, where not all have one."""
        validated = {entry.name: entry.validation for entry in self.entries}
        if None in validated.values():
            return self.entries[0].name
        return max(validated, key=lambda name: validated[name].mean)

    def differences(self) -> dict[str, dict[str, str]]:
        """Of each network the settings in which the networks differ, as they are typed."""
        names = dict.fromkeys(name for entry in self.entries for name in entry.settings)
        told = [name for name in names if len({json.dumps(e.settings.get(name)) for e in self.entries}) > 1]
        return {
            entry.name: {name: written(entry.settings[name]) for name in told if name in entry.settings}
            for entry in self.entries
        }


# From folders to networks


def read(folders: Iterable[Path], dataset: FashionMNIST) -> Compared:
    """Return the networks of the finished runs in `folders`, with the test images of `dataset`.

    Raises Refused, naming the folder, where it holds no finished run, where runs were trained or tested on other data
    than each other or than `dataset`, and where there is but one network.
    """
    places: list[Path] = []
    for folder in folders:
        place = Path(os.path.realpath(folder))  # which, unlike resolve, takes a loop of links as it is
        if place in places:
            raise Refused(f"--compare {folder}: stands there twice; name it once")
        places.append(place)
    images = dataset.test_images.cpu().numpy()
    stored = [trial for place in places for trial in _stored(place, images)]
    _check_data(stored, dataset)
    merged, notes = _merged(stored)
    if len(merged) < 2:
        raise Refused(f"--compare {folder}: holds one network, and nothing to compare it with; name more folders")
    compared = Compared(_named(merged), notes)
    return Compared(compared.entries, [*notes, *_about_seeds(compared)])


def _stored(folder: Path, images: np.ndarray) -> list[StoredTrial]:
    """The trials of the finished run in `folder`."""
    kept = []
    for place in runs.finished_trials(folder):
        record = trials.read_record(place)
        if record is None:
            raise Refused(f"--compare {folder}: {place.name} is missing or damaged there; --resume that run")
        if not trials.is_auditor(record):  # which is not of the networks compared
            kept.append(StoredTrial(place, record, images))
    if not kept:
        raise Refused(f"--compare {folder}: that run has trained no network; leave it out")
    return kept


def _check_data(stored: Sequence[StoredTrial], dataset: FashionMNIST) -> None:
    """Raise Refused unless all trials learnt from the same images, and were tested on those of `dataset`."""
    first = stored[0]
    for trial in stored:
        if trial.record["release"] != first.record["release"]:
            what = "another release of the data set"
        elif trial.record["settings"]["data"] != first.record["settings"]["data"]:
            ours, theirs = trial.record["settings"]["data"], first.record["settings"]["data"]
            what = f"other {' and '.join(name for name in theirs if theirs[name] != ours.get(name))}"
        else:
            continue
        raise Refused(f"--compare {trial.run}: was run with {what} than {first.run}; leave one of them out")
    labels = dataset.test_labels.cpu().numpy()
    if first.record["settings"]["data"] != dataset.digests():
        raise Refused(f"--data-dir: is not the data set of {first.run}; name the one that these runs were trained on")
    for trial in stored:
        if not np.array_equal(trial.predictions.labels, labels):
            raise Refused(f"--compare {trial.run}: {trial.folder.name} was scored on other test images; leave it out")


def _merged(stored: Iterable[StoredTrial]) -> tuple[list[list[StoredTrial]], list[str]]:
    """The trials of equal settings together, by seed; and a note on what was there twice."""
    groups: dict[str, dict[int, StoredTrial]] = {}
    twice = []
    for trial in stored:
        group = groups.setdefault(json.dumps(Entry("", "", [trial]).settings, sort_keys=True), {})
        if trial.seed in group:
            twice.append(f"{trial.folder.name} of {trial.run.name}")
        group.setdefault(trial.seed, trial)
    merged = [[group[seed] for seed in sorted(group)] for group in groups.values()]
    if not twice:
        return merged, []
    named = ", ".join(at_most(COUNTED_ONCE, twice))
    return merged, [f"Trained twice with the same settings and seed, and counted once: {named}"]


def _named(merged: Sequence[Sequence[StoredTrial]]) -> list[Entry]:
    """The networks, those of equal names told apart by their runs."""

    def unique(own: str) -> list[str]:
        names = [group[0].record[own] for group in merged]
        beside = [f"{name} ({group[0].run.name})" for name, group in zip(names, merged, strict=True)]
        names = [far if names.count(name) > 1 else name for name, far in zip(names, beside, strict=True)]
        return [f"{name} {names[:n].count(name) + 1}" if name in names[:n] else name for n, name in enumerate(names)]

    return [Entry(*own) for own in zip(unique("name"), unique("title"), merged, strict=True)]


def _about_seeds(compared: Compared) -> list[str]:
    """What is to be said where the networks were not all trained from the same seeds."""
    own = [[trial.seed for trial in entry.trials] for entry in compared.entries]
    if max(map(len, own)) == 1 or all(seeds == compared.seeds for seeds in own):
        return []
    if len(compared.seeds) < 2:
        return ["The networks have fewer than two seeds in common: only one trained network is compared with another"]
    return [f"Compared over the seeds that all have: {', '.join(map(str, compared.seeds))}"]


# What is written


def content(compared: Compared) -> dict[str, Any]:
    """What comparison.json holds."""
    settings = compared.differences()
    return {
        "release": compared.entries[0].trials[0].record["release"],
        "models": {
            entry.name: {
                "title": entry.title,
                "runs": [str(run) for run in dict.fromkeys(trial.run for trial in entry.trials)],
                "settings": settings[entry.name],
                "seeds": [trial.row for trial in entry.trials],
            }
            for entry in compared.entries
        },
        "comparisons": compared.comparisons,
        "notes": list(compared.notes),
    }


def rows(compared: Compared) -> list[dict[str, Any]]:
    """A row per trial, for comparison.csv."""
    return [{"name": entry.name, **trial.row} for entry in compared.entries for trial in entry.trials]


def in_words(settings: Mapping[str, str]) -> str:
    """Settings as they stand in a table."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items())
