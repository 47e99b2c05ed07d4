"""What a run has found: of each network, of all compared, and where and when; the content of metrics.json."""

import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmnist.errors import command
from fmnist.metrics import Metrics, Model, Published, Reproduction, Seed
from fmnist.studies import written

if TYPE_CHECKING:
    import numpy as np

    from fmnist.config import Recipe
    from fmnist.data import FashionMNIST
    from fmnist.device import Machine
    from fmnist.exploration import Exploration
    from fmnist.trials import Trained

LIBRARIES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "matplotlib", "seaborn")


def collect(
    recipe: "Recipe",
    trained: "dict[str, list[Trained]]",
    dataset: "FashionMNIST",
    machine: "Machine",
    exploration: "Exploration | None",
    suspected: "np.ndarray | None" = None,
) -> Metrics:
    """Return the content of metrics.json for a run of `recipe`.

    `trained` holds each network's results, one per seed; `exploration` what is known of the data set, where the recipe
    explores it; `suspected` the indices of the test images whose labels look wrong, where networks have judged them.
    """
    from fmnist import audit, statistics, study_results  # with scipy.stats, a second: not before the first step

    evaluations = {name: [run.evaluation for run in runs] for name, runs in trained.items()}
    accuracies = [[evaluation.test_accuracy for evaluation in several] for several in evaluations.values()]
    # Other settings or data make another experiment of it; but today's release is what everyone has.
    judged = recipe.is_published and dataset.release in ("current", recipe.published_release)
    models = {name: _model(runs, judged) for name, runs in trained.items()}
    best, pairs = best_kept(trained), recipe.pairs
    levels = {name: [written(level) for level in own] for name, own in recipe.levels.items()}
    if recipe.study:
        best = study_results.best_on_validation(models)
        first = recipe.baseline or best
        pairs = [(first, other) for other in models if other != first]
    metrics: Metrics = {
        "recipe": recipe.name,
        "title": recipe.title,
        "source": recipe.source,
        "seed": min((run.network.training.seed for runs in trained.values() for run in runs), default=0),
        "device": machine.device.type,
        "precision": machine.precision,
        "threads": machine.threads,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        **_provenance(),
        **_about_data(dataset, exploration),
        "models": models,
        "best": best,
        "comparisons": statistics.compare(pairs, evaluations),
        "effects": statistics.factorial_effects(levels, accuracies),
        "columns": list(recipe.columns),
        "notes": [*recipe.notes, *(recipe.findings if dataset.release == "current" else ())],
    }
    if recipe.study:
        metrics["study"] = study_results.describe(recipe.study, best, recipe.baseline, metrics["comparisons"])
    if judged and recipe.published_minimum is not None:
        metrics["published_minimum"] = recipe.published_minimum
    if recipe.ends:
        (metrics["total_gain"],) = statistics.compare([recipe.ends], evaluations)
    if suspected is not None:
        for name, runs in trained.items():
            models[name]["mistakes"] = audit.surest_mistakes(runs[0].evaluation.predictions, suspected)
    return metrics


def _about_data(dataset: "FashionMNIST", exploration: "Exploration | None") -> dict[str, Any]:
    """Which data set it was, and what is known of it where the recipe explores it."""
    about: dict[str, Any] = {"release": dataset.release, "data": {"source": dataset.source}}
    if exploration is None:
        return about
    from fmnist import audit
    from fmnist.exploration import figure_data, statistics

    about["data"] |= figure_data(exploration)
    about["statistics"] = statistics(exploration)
    return about | {"audit": audit.summary(exploration.audit)} if exploration.audit else about


def _provenance() -> dict[str, str]:
    """When this run was, by which command, of which version of the program, on which processor."""
    from fmnist.device import processor

    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git, or a copy of the program without its history
        commit = ""
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command(Path(sys.argv[0]).name, *sys.argv[1:]),
        "commit": commit,
        "processor": processor(),
    }


def looked_into(metrics: Metrics) -> list[str]:
    """The networks that are looked into one by one: of a study the best on validation alone."""
    return [metrics["study"]["best"]] if "study" in metrics else list(metrics["models"])


def best_kept(trained: "dict[str, list[Trained]]") -> str | None:
    """Return the network whose kept weights are best on validation images; None where none are held out.

    Of several seeds the first counts: its weights are the ones that are kept. The test images have no say in it.
    """
    chosen = {name: runs[0].history[epoch - 1] for name, runs in trained.items() if (epoch := runs[0].best_epoch)}
    return max(chosen, key=lambda name: chosen[name]["validation_accuracy"], default=None)


def _model(runs: "list[Trained]", judged: bool) -> Model:
    """One network's part: its first seed in full, what several seeds made of it, and verdicts on what is published."""
    from fmnist import statistics

    first, network = runs[0], runs[0].network
    seeds: list[Seed] = [{"seed": run.network.training.seed, **run.summary, "epochs": run.epochs} for run in runs]
    measured = {
        key: [seed.get(key, first.cost.get(key)) for seed in seeds]
        for key in network.published
        if judged and key != "epochs"
    }
    model: Model = {
        "title": network.title,
        "change": network.change,
        "why": network.why,
        "published": network.published,
        "reproduction": {
            key: statistics.reproduction(key, network.published[key], values) for key, values in measured.items()
        },
        "reproduced_epochs": _reproduced_epochs(network.published, seeds) if judged else [],
        **first.cost,
        **first.summary,
        "confusion": first.evaluation.confusion.tolist(),
        "per_class": first.evaluation.per_class,
        "config": network.settings,
        "epochs": first.epochs,
    }
    if network.varied:
        model |= {"varied": dict(network.varied), "variant_of": network.variant_of}
    if calibration := first.evaluation.calibration:
        model["calibration"] = calibration
    return model | {"seeds": seeds, **statistics.mean_and_std(seeds)} if len(runs) > 1 else model


def _reproduced_epochs(published: Published, seeds: list[Seed]) -> list[dict[str, Reproduction]]:
    """Verdicts on the figures of single epochs that every seed was trained for."""
    from fmnist import statistics

    epochs = zip(published.get("epochs", []), *(seed["epochs"] for seed in seeds), strict=False)
    return [
        {key: statistics.reproduction(key, figure[key], [epoch[key] for epoch in measured]) for key in figure}
        for figure, *measured in epochs
    ]
