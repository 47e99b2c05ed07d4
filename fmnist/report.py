"""What a run has found, as text: the results table with its verdicts and notes, and what --list says of the recipes.

Made from the content of metrics.json. Imports nothing heavy, for --list's sake.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmnist.config import TrainConfig
from fmnist.files import plain, read_json
from fmnist.remarks import release_warnings, remarks
from fmnist.tables import (
    NOTHING,
    accuracy_text,
    bullets,
    cell,
    effects_columns,
    legend,
    markdown,
    mean_of,
    percent,
    results_columns,
    statistics_columns,
)

if TYPE_CHECKING:
    from fmnist.config import Network, Recipe
    from fmnist.metrics import Metrics, Model

REFERENCE = Path(__file__).resolve().parents[1] / "outputs" / "reference"  # whole runs that come with the program


def results_table(metrics: "Metrics") -> str:
    """Return the results as Markdown that reads well in a terminal: a row per network, comparisons, notes.

    Accuracies in per cent, published figures in the column after the measured one, differences in points.
    """
    metrics = plain(metrics)
    columns = results_columns(metrics)
    facts, rows = statistics_columns(metrics)
    effects = effects_columns(metrics)
    tables = (markdown(columns), " ".join(legend(columns)), markdown(effects), " ".join(legend(effects)))
    of_data = (bullets(f"{name}: {value}" for name, value in facts), markdown(rows))
    parts = (*tables, *of_data, bullets([*release_warnings(metrics), *remarks(metrics)]))
    return "\n\n".join(filter(None, parts))


# --list


def listing(recipes: "Iterable[Recipe]") -> str:
    """Return what --list prints: the recipes, their networks, what was published of them and what was measured."""
    return "\n\n".join(_recipe_block(recipe, reference_run(REFERENCE / recipe.name)) for recipe in recipes)


def reference_run(folder: Path) -> "Metrics | None":
    """Return the metrics.json of the whole run in `folder`; None where there is none."""
    return read_json(folder / "metrics.json")


def changes_since(run: "Metrics", recipe: "Recipe") -> list[str]:
    """What of `recipe` has changed since `run`, in words: such as "v1: conv_dropout was not set, is 0.1"."""
    if run["models"].keys() != {network.name for network in recipe.networks}:
        return [f"the networks were {', '.join(run['models'])}"]
    models = [(network, run["models"][network.name]) for network in recipe.networks]
    return [change for network, model in models for change in changes_of_network(network, model["config"])]


def changes_of_network(network: "Network", config: "Mapping[str, Mapping[str, Any]]") -> list[str]:
    """What of `network` is not as it was in the `config` of a run.

    A training setting that was not there yet had its default; one that is no longer there is not asked about.
    """
    now, then, training = network.settings, config["network"], asdict(TrainConfig()) | config["training"]
    pairs = [(now["network"], then), (now["training"], {key: training[key] for key in now["training"]})]
    return [
        f"{network.name}: {key} was {then.get(key, 'not set')}, is {now.get(key, 'not set')}"
        for now, then in pairs
        for key in sorted(now.keys() | then.keys())
        if now.get(key) != then.get(key)
    ]


def _recipe_block(recipe: "Recipe", reference: "Metrics | None") -> str:
    measured = reference["models"] if reference else {}
    lines = [f"{recipe.name}: {recipe.title}", recipe.summary]
    if recipe.source:
        lines.append(f"published by {recipe.source}")
    if measured:
        minutes = sum(mean_of(model, "training_seconds") for model in measured.values()) / 60
        lines.append(f"trained once in {minutes:.1f} minutes on {reference['device']} in {reference['precision']}")
        if changes := changes_since(reference, recipe):
            lines.append(f"measured before the recipe changed: {'; '.join(changes)}")
    lines += [_network_line(recipe, network, measured.get(network.name)) for network in recipe.networks]
    return "\n    ".join([*lines, *recipe.notes])


def published_accuracy(recipe: "Recipe", network: "Network") -> str:
    """The published test accuracy of a network in per cent; "> 90", where one is published of all alike."""
    if recipe.published_minimum is not None:
        return f"> {100 * recipe.published_minimum:g}"
    return cell(network.published.get("test_accuracy"), percent)


def _network_line(recipe: "Recipe", network: "Network", model: "Model | None") -> str:
    published = published_accuracy(recipe, network)
    measured = accuracy_text(model) if model else NOTHING
    widest = (max(len(getattr(one, key)) for one in recipe.networks) for key in ("name", "title"))
    name, title = (f"{getattr(network, key):<{width}}" for key, width in zip(("name", "title"), widest, strict=True))
    epochs = f"{network.training.epochs:>3} epoch{' ' if network.training.epochs == 1 else 's'}"
    return f"{name}  {title}  {epochs}   test accuracy: {published:>5} published, {measured:>5} measured"
