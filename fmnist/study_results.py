"""What a study has found: a row per trial for study.csv, a row per combination for its table, and which is best.

Made from the content of metrics.json. Imports nothing heavy.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

from fmnist.studies import written

if TYPE_CHECKING:
    from fmnist.metrics import Comparison, Epoch, Metrics, Model, Study

MEASURED = ("validation_accuracy", "validation_loss", "test_accuracy", "test_loss")  # of a trial


class Spread(NamedTuple):
    """A figure over the seeds of a combination."""

    mean: float
    std: float | None  # sample standard deviation; None of one seed


class Combination(NamedTuple):
    """One combination of a study's settings."""

    name: str  # in metrics.json
    network: str  # of the recipe, that was varied
    values: dict[str, str]  # by setting, as they are typed
    validation: Spread  # accuracy at the epochs whose weights were scored
    test: Spread  # accuracy
    parameters: int
    seconds: float  # of training, the mean over the seeds
    comparison: "Comparison | None"  # with the study's baseline or, without one, its best; None for that one


def trials(models: "Mapping[str, Model]") -> list[dict[str, Any]]:
    """Return a row for each trial of a study: what was varied, the seed, and what came of it."""
    return [_trial(name, model, training) for name, model in models.items() for training in trainings_of(model)]


def trainings_of(model: "Model") -> Sequence[Mapping[str, Any]]:
    """What each seed made of a network: that of a single one stands in the model itself."""
    return model.get("seeds", [model])


def _trial(name: str, model: "Model", training: Mapping[str, Any]) -> dict[str, Any]:
    settings = {setting: written(value) for setting, value in model["varied"].items()}
    row = {
        "name": name,
        "network": model["variant_of"],
        **settings,
        "seed": training["seed"] if "seeds" in model else model["config"]["training"]["seed"],
        "epochs": len(training["epochs"]),
        "scored_epoch": scored_epoch(training["epochs"]),
        **{key: _scored(training)[key] for key in MEASURED[:2]},
        **{key: training[key] for key in MEASURED[2:]},
        "parameters": model["parameters"],
        "training_seconds": training["training_seconds"],
    }
    return row | settings  # where the number of epochs is varied, it is not that of those trained


def scored_epoch(epochs: "Sequence[Epoch]") -> int:
    """The epoch, from 1, whose weights were scored: the best on validation, else the last."""
    return next((n for n, row in enumerate(epochs, start=1) if row.get("best")), len(epochs))


def validation_accuracy(model: "Model") -> Spread:
    """Of one network at the epochs whose weights were scored, over its seeds."""
    return spread([_scored(training)["validation_accuracy"] for training in trainings_of(model)])


def _scored(training: Mapping[str, Any]) -> "Epoch":
    return training["epochs"][scored_epoch(training["epochs"]) - 1]


def best_on_validation(models: "Mapping[str, Model]") -> str:
    """The combination of the highest validation accuracy, the mean over its seeds; then of the lowest loss."""

    def rank(name: str) -> tuple[float, float]:
        losses = [_scored(training)["validation_loss"] for training in trainings_of(models[name])]
        return validation_accuracy(models[name]).mean, -fmean(losses)

    return max(models, key=rank)


def describe(
    settings: Mapping[str, list[Any]], best: str, baseline: str, comparisons: "Sequence[Comparison]"
) -> "Study":
    """What metrics.json says of a study: what was varied, and what no test tells from the `baseline`, or the `best`."""
    from fmnist.statistics import SIGNIFICANT

    alike = [comparison["b"] for comparison in comparisons if comparison["p_holm"] >= SIGNIFICANT]
    study: Study = {"settings": {name: list(values) for name, values in settings.items()}, "best": best, "alike": alike}
    return study | {"baseline": baseline} if baseline else study


def reference(study: "Study") -> str:
    """The combination that each other is compared with: the baseline, where one was changed, else the best."""
    return study.get("baseline", study["best"])


def change(own: Mapping[str, str], values: Mapping[str, str]) -> str:
    """In words which of a baseline's `own` settings are others in `values`: "cutout: 0 for 4"; "none" where none is."""
    changed = [f"{name.replace('_', ' ')}: {values[name]} for {own[name]}" for name in own if values[name] != own[name]]
    return ", ".join(changed) or "none"


def combinations(metrics: "Metrics") -> list[Combination]:
    """The combinations of a study: the one that each other is compared with first, then by validation accuracy."""
    by_other = {comparison["b"]: comparison for comparison in metrics["comparisons"]}
    rows = [_combination(name, model, by_other.get(name)) for name, model in metrics["models"].items()]
    first, best = reference(metrics["study"]), metrics["study"]["best"]
    return sorted(rows, key=lambda one: (one.name != first, one.name != best, -one.validation.mean))


def _combination(name: str, model: "Model", comparison: "Comparison | None") -> Combination:
    rows = trials({name: model})
    return Combination(
        name=name,
        network=model["variant_of"],
        values={setting: written(value) for setting, value in model["varied"].items()},
        validation=validation_accuracy(model),
        test=spread([row["test_accuracy"] for row in rows]),
        parameters=model["parameters"],
        seconds=fmean(row["training_seconds"] for row in rows),
        comparison=comparison,
    )


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation of at least one value."""
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None)
