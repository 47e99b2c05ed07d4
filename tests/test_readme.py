"""README.md against the whole runs that come with the program: its tables are theirs, and they are of these recipes."""

import json
import re
from pathlib import Path

import pytest

from fmnist import report
from recipes import RECIPES, REFERENCE, with_options

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def numbers(name: str) -> dict:
    return json.loads((REFERENCE / name / "metrics.json").read_text())


@pytest.mark.parametrize("name", RECIPES)
def test_a_table_is_what_the_program_prints_of_the_run(name):
    assert report.results_table(numbers(name)) in README


@pytest.mark.parametrize("name", RECIPES)
def test_the_run_was_of_the_recipe_as_it_is(name):
    recipe, run = with_options(RECIPES[name], {}), numbers(name)
    assert (run["recipe"], run["title"], run["notes"]) == (recipe.name, recipe.title, list(recipe.notes))
    of_the_run = {key: (model["title"], model["config"]) for key, model in run["models"].items()}
    assert of_the_run == {network.name: (network.title, network.settings) for network in recipe.networks}


def test_every_picture_is_there_and_none_is_there_in_vain():
    shown = {ROOT / path for path in re.findall(r"\]\((outputs/reference/[^)]+\.png)\)", README)}
    assert shown == set(REFERENCE.rglob("*.png"))
