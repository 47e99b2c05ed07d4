"""README.md and docs/ against the whole runs that come with the program: their tables are those runs'."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import results
from fmnist import options, report
from fmnist.config import TrainConfig
from recipes import RECIPES

ROOT = Path(__file__).resolve().parent.parent
README, RESULTS, STUDIES = (
    (ROOT / name).read_text("utf-8") for name in ("README.md", "docs/results.md", "docs/studies.md")
)


def test_the_readme_is_read_in_ten_minutes():
    assert len(README) < 12_000


def test_tables_are_what_the_program_prints():
    assert results.overview() in README
    assert f"{results.page()}\n" == RESULTS
    assert report.results_table(report.reference_run(report.REFERENCE / "study")) in STUDIES


RUNS = {name: run for name in RECIPES if (run := report.reference_run(report.REFERENCE / name))}


@pytest.mark.parametrize("name", RUNS)
def test_the_run_was_of_the_recipe_as_it_is_or_the_page_says_what_has_changed(name):
    recipe, run = options.changed(RECIPES[name], {}), RUNS[name]
    assert (run["recipe"], run["title"]) == (recipe.name, recipe.title)
    defaults, of_the_run = asdict(TrainConfig()), {}
    for key, model in run["models"].items():
        training = {name: model["config"]["training"].get(name, default) for name, default in defaults.items()}
        of_the_run[key] = (model["title"], {**model["config"], "training": training})
    is_of_the_recipe = of_the_run == {network.name: (network.title, network.settings) for network in recipe.networks}
    section = RESULTS.partition(f"## `{name}`")[2].partition("\n## ")[0]
    assert is_of_the_recipe == ("it has changed since" not in section)
    if is_of_the_recipe:
        assert run["notes"] == [*recipe.notes, *recipe.findings]


def test_every_picture_and_page_that_is_linked_is_there_and_no_picture_is_there_in_vain():
    links = {ROOT / path for path in re.findall(r"\]\(([^):]+)\)", README)}
    for page in (ROOT / "docs").glob("*.md"):
        links |= {(ROOT / "docs" / path).resolve() for path in re.findall(r"\]\(([^):]+)\)", page.read_text("utf-8"))}
    assert all(path.exists() for path in links)
    assert {path for path in links if path.suffix == ".png"} == set(report.REFERENCE.rglob("*.png"))
