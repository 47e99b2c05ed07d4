"""The numbers of a run, put together: what becomes metrics.json, and what the tables and figures show."""

import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

from fmnist.evaluation import Evaluation, compare, mean_and_std, scores
from fmnist.exploration import Exploration, drawn, statistics
from fmnist.training import best_epoch

LIBRARIES = ("torch", "torchvision", "numpy", "scipy", "matplotlib")


@dataclass(frozen=True)
class Trained:
    """What is kept of a network (a recipes.Network) that was trained from one seed."""

    network: Any
    history: list[dict[str, Any]]  # numbers of each epoch
    evaluation: Evaluation
    cost: dict[str, int]  # parameters, and multiply_adds of one image

    @property
    def best_epoch(self) -> int | None:
        """The epoch, from 1, that was chosen on validation images; None where none were held out."""
        return best_epoch(self.history) if "validation_accuracy" in self.history[-1] else None

    @property
    def summary(self) -> dict[str, float]:
        """The numbers that a table compares."""
        seconds = sum(epoch["seconds"] for epoch in self.history)
        return {
            **scores(self.evaluation),
            "train_loss": self.history[-1]["train_loss"],
            "training_seconds": seconds,
            "seconds_per_epoch": seconds / len(self.history),
            **({"best_epoch": self.best_epoch} if self.best_epoch else {}),
        }


def collect(
    recipe: Any,
    trained: dict[str, list[Trained]],
    found: Exploration | None,
    source: str,
    machine: dict[str, str],
) -> dict[str, Any]:
    """Return the content of metrics.json for a run of `recipe` (a recipes.Recipe).

    `trained` holds each network's results, one per seed; `found` what is known of the data set, where the recipe
    explores it; `source` says where it came from; `machine` names device and precision.
    """
    evaluations = {name: [result.evaluation for result in runs] for name, runs in trained.items()}
    return {
        "recipe": recipe.name,
        "title": recipe.title,
        "seed": min((run.network.training.seed for runs in trained.values() for run in runs), default=0),
        **machine,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        "data": {"source": source, **(drawn(found) if found else {})},
        **({"statistics": statistics(found)} if found else {}),
        "models": {name: _model(runs) for name, runs in trained.items()},
        "best": best_on_validation(trained),
        "comparisons": [compare(a, b, evaluations) for a, b in recipe.pairs],
        "columns": list(recipe.columns),
        "notes": list(recipe.notes),
    }


def best_on_validation(trained: dict[str, list[Trained]]) -> str | None:
    """Return the network with the highest validation accuracy in its best epoch; None without a validation split.

    Of several seeds the first counts: its weights are the ones that are kept. The test images have no say in it.
    """
    chosen = {name: runs[0].history[epoch - 1] for name, runs in trained.items() if (epoch := runs[0].best_epoch)}
    return max(chosen, key=lambda name: chosen[name]["validation_accuracy"], default=None)


def _model(runs: list[Trained]) -> dict[str, Any]:
    """One network's part: its first run in full, and what several seeds made of it."""
    first, network = runs[0], runs[0].network
    several = [{"seed": run.network.training.seed, **run.summary} for run in runs]
    return {
        "title": network.title,
        "change": network.change,
        "published": network.published,
        **first.cost,
        **first.summary,
        "confusion": first.evaluation.confusion.tolist(),
        "per_class": first.evaluation.per_class,
        "config": network.settings,
        "epochs": [row | {"best": True} if n == first.best_epoch else row for n, row in enumerate(first.history, 1)],
        **({"seeds": several, **mean_and_std(several)} if len(runs) > 1 else {}),
    }
