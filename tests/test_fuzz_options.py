"""Whatever is asked for on the command line is either understood or refused in one line: anything else is a fault.

    python -m pytest tests/test_fuzz_*.py --fuzz-examples 20000        a longer search

A few hundred examples of each kind, the same at every run; more of them search further.
"""

import contextlib
import io
import shlex

from hypothesis import strategies as st

import fashionmnist
from fmnist.options import NETWORK_OPTIONS, RUN_OPTIONS, TRAINING_OPTIONS, asked_for, changed, option
from recipes import RECIPES


def command_lines() -> st.SearchStrategy[list[str]]:
    numbers = (
        st.integers(-3, 70_000).map(str)
        | st.floats().map(str)
        | st.sampled_from(["0", "1", "3", "1e9", "\uff11", "1_0"])
    )
    words = st.text(max_size=6) | st.sampled_from(
        ["max", "adam", "sgd", "cpu", "fp32", "classic", "v0", "cnn", "--", "-1"]
    )
    values = st.lists(numbers | words, max_size=4)
    settings = [option(name) for name in (*TRAINING_OPTIONS, *NETWORK_OPTIONS, *RUN_OPTIONS)]
    others = ["-b", "--data-dir", "--output-dir", "--resume", "--list", "--no-augment", "--l", "--kernel", "--nothing"]
    names = st.sampled_from([*settings, *others])
    small = {"--hidden": ["8", "4"], "--kernels": ["2", "3"], "--kernel-size": ["1", "2", "5", "28"]}
    sound = {"--pool": ["max", "avg", "stride"], "--optimizer": ["adam", "sgd"], "--epochs": ["1", "2"]} | small
    sound |= {"--batch-size": ["1", "2", "64"], "--models": ["cnn", "ffn", "v0", "v1"], "--dropout": ["0", "0.5"]}
    good = st.sampled_from(list(sound)).flatmap(
        lambda o: st.tuples(st.just(o), st.lists(st.sampled_from(sound[o]), max_size=6))
    )
    pairs = good | st.tuples(names, values)
    recipe = st.sampled_from([[], *([name] for name in RECIPES)])
    return st.builds(
        lambda name, pairs: name + [w for o, v in pairs for w in (o, *v)], recipe, st.lists(pairs, max_size=4)
    )


def test_command_lines(fuzz):
    def check(words: list[str]) -> None:
        given = fashionmnist.parse_arguments(words)
        asked = asked_for(given)
        recipe = changed(RECIPES[given.recipe], asked)
        wide = max(asked.get("hidden") or [0]) > 100 and not all(network.is_torch for network in recipe.networks)
        if not wide:  # NumPy has no shapes without numbers
            recipe.checked()
        recipe.trainings(min(asked.get("seeds", 1), 3))
        again = fashionmnist.parse_arguments(shlex.split(fashionmnist.how_to_resume(given))[2:])
        assert vars(again) == {**vars(given), "resume": True, "is_recipe_named": True, "list": False}

    with contextlib.redirect_stdout(io.StringIO()):
        fuzz(350, command_lines(), check)
