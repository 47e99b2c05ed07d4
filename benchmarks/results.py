"""Print what the whole runs that come with the program, in outputs/reference, measured.

    python -m benchmarks.results > docs/results.md    the page of results
    python -m benchmarks.results --readme             the README's table of all recipes

No figure of these pages is typed, but in the recipes' notes.
"""

import sys
from dataclasses import replace

from benchmarks.measure import ROOT, table
from fmnist import captions, report, tables
from fmnist.config import Recipe
from fmnist.metrics import Metrics
from recipes import RECIPES

HEAD = """# Results

What whole runs of the recipes measured. This page is printed by `python -m benchmarks.results` from the `metrics.json`
of each run in [outputs/reference](../outputs/reference); no figure is typed, but in the recipes' notes. Seconds compare
within a table only: the machines are shared, and their speed drifts.

One seed each compares two trained networks, not two recipes. From five seeds, a published figure is *reproduced* if it
lies inside the 95 % prediction interval for one more seed, *exceeded* if what was measured is better than that."""


def page() -> str:
    """The whole page: a section for each recipe that has a run in outputs/reference, then one for each ablation."""
    runs = {
        path.parent.name: report.reference_run(path.parent) for path in sorted(report.REFERENCE.glob("*/metrics.json"))
    }
    recipes = [section(RECIPES[name], runs[name]) for name in RECIPES if name in runs]
    ablations = [ablation(name, run) for name, run in runs.items() if "baseline" in run.get("study", {})]
    return "\n\n".join([HEAD, *recipes, *ablations])


def overview() -> str:
    """The README's table: a row for each recipe that trains, with the test accuracies of its networks in per cent.

    A star marks those of a recipe that has changed since.
    """
    rows = []
    for recipe in RECIPES.values():
        run = report.reference_run(report.REFERENCE / recipe.name)
        published = [report.published_accuracy(recipe, network) for network in recipe.networks]
        models = run["models"] if run else {}
        mark = "\\*" if run and report.changes_since(run, recipe) else ""
        measured = [
            f"{tables.accuracy_text(models[network.name])}{mark}" if network.name in models else tables.NOTHING
            for network in recipe.networks
        ]
        rows.append([f"`{recipe.name}`", recipe.summary, _listed(published), _listed(measured)])
    written = table(["Recipe", "What it shows", "Test %, published", "measured"], rows)
    return f"{written}\n\n\\*: of an earlier version of the recipe." if "\\*" in written else written


def _listed(cells: list[str]) -> str:
    return cells[0] if len(set(cells)) == 1 < len(cells) else ", ".join(cells)


def section(recipe: Recipe, run: Metrics) -> str:
    """One recipe: how it was run, its table and remarks, and the pictures that come with it."""
    parts = [f"## `{recipe.name}`: {recipe.title}", f"{recipe.summary.capitalize()}.", how(run)]
    parts += changed_since(report.changes_since(run, recipe))
    return "\n\n".join([*parts, report.results_table(run), *pictures(recipe.name, run)])


def ablation(name: str, run: Metrics) -> str:
    """What each ingredient of a recipe gives: the network as it is beside each change alone, on its own schedule."""
    baseline = run["models"][run["study"]["baseline"]]
    (network,) = (one for one in RECIPES[run["recipe"]].networks if one.name == baseline["variant_of"])
    own = {name: baseline["config"]["training"][name] for name in ("epochs", "validation")}
    changes = report.changes_of_network(replace(network, training=replace(network.training, **own)), baseline["config"])
    parts = [f"## `{run['recipe']}`: {run['title']}", how(run), *changed_since(changes)]
    return "\n\n".join([*parts, report.results_table(run), *pictures(name, run)])


def changed_since(changes: list[str]) -> list[str]:
    """A line that warns of the `changes`, if there are some."""
    return [f"**A run of the recipe as it was; it has changed since:** {'; '.join(changes)}."] if changes else []


def how(run: Metrics) -> str:
    """By which command a run was made, when, and where."""
    version = f"torch {run['versions']['torch']}" + (f", commit {run['commit'][:7]}" if run["commit"] else "")
    threads = f"{run['threads']} thread{'s' if run['threads'] > 1 else ''}"
    machine = f"{run['processor']}, {threads}, {run['precision']}"
    return f"`{run['command']}` on {run['created'][:10]}: {machine}, {version}."


def pictures(name: str, run: Metrics) -> list[str]:
    """The pictures of a run, as Markdown."""
    shown = []
    for path in sorted((report.REFERENCE / name).glob("*.png")):
        owner, kind = captions.owner_and_kind(path.stem, run["models"])
        models = {owner: run["models"][owner]} if owner else run["models"]
        words = captions.alternative(kind, models, run.get("statistics", {}))
        shown.append(f"![{words}](../{path.relative_to(ROOT).as_posix()})")
    return shown


if __name__ == "__main__":
    if "--readme" in sys.argv:
        print(overview())
    else:
        print(page())
