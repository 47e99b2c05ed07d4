"""The structure that docs/design.md promises: dependencies point one way, and no module depends on itself."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS, NETWORKS = {"fashionmnist", "kernel_vis"}, {"ffn", "cnn", "numpy_ffn"}


def modules() -> dict[str, Path]:
    paths = [*ROOT.glob("*.py"), *(ROOT / "fmnist").rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imported(path: Path, known: set[str]) -> set[str]:
    """The modules of `known` that the file names in its imports: within functions and for types alone as well."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names & known


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    paths = modules()
    # A Dask worker is asked by a function that imports the module it stands in.
    return {name: imported(path, paths.keys() - {name, "fmnist", "fmnist.figures"}) for name, path in paths.items()}


def test_no_module_depends_on_itself_by_way_of_others(imports):
    assert "fmnist.config" in imports["recipes"], "the check reads no imports"
    TopologicalSorter(imports).prepare()  # raises CycleError, with the modules


def test_only_scripts_import_recipes_nothing_imports_a_script_or_by_its_name_a_network(imports):
    for name, others in imports.items():
        assert not others & SCRIPTS, name
        assert not others & NETWORKS, name
        assert name in SCRIPTS or "recipes" not in others, name
