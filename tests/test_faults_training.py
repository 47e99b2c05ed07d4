"""Faults that befall a training as it runs: a stop, Ctrl-C, SIGTERM, a loss that is no number; and its numbers, twice.

Real processes and signals, on the bench of tests/soak.py.
"""

import json
import re
import shlex
import shutil
import signal
import time
from pathlib import Path

import pytest

from benchmarks.soak import (
    AT_STEP,
    EXPERIMENTS,
    STEPS,
    Bench,
    difference,
    ends_as_unbroken,
    epochs_of,
    kept,
    outcome,
    resumed,
    saving,
)
from fmnist import checkpoints
from tests.helpers import child

# A stop and a resume


@pytest.mark.fault(7, "N epochs in one go, against k, a stop, and resume")
@pytest.mark.parametrize("name", ["classic", "batchnorm"])
def test_k_epochs_a_stop_and_the_rest_are_n_epochs(name, bench, tmp_path):
    bench.run(name, tmp_path, "--epochs", "2")
    done = bench.run(name, tmp_path, "--resume", "--epochs", str(epochs_of(name)))
    assert "from epoch 3" in done.stdout
    ours, unbroken = outcome(tmp_path), bench.unbroken(name)
    assert {"optimizer", "schedule", "model"} <= next(unbroken[key] for key in unbroken if key.startswith("ffn-seed0"))[
        "learner"
    ].keys()
    assert not difference(ours, unbroken)


@pytest.mark.fault(7, "N epochs in one go, against k, a stop, and resume")
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_stop_within_an_epoch_costs_that_epoch_alone(name, bench, tmp_path):
    step = "ffn.NumpyLearner" if name == "numpy" else "training.TorchLearner"
    patch = "import ffn\n" + AT_STEP.format(step=2 * STEPS[name] + 4).replace("training.TorchLearner", step)
    with child.started(**bench.settings(name, tmp_path, patches=(patch,))) as process:
        child.wait_for(process, "in a step")
        process.kill()
        assert process.wait() == -signal.SIGKILL
    done = resumed(bench, tmp_path, name=name)
    assert done.returncode == 0, done.stderr
    assert "from epoch 3" in done.stdout
    ends_as_unbroken(bench, tmp_path, name)


AUGMENTED = """
import zlib
from dataclasses import replace
import recipes
classic = recipes.RECIPES["classic"]
networks = tuple(replace(n, training=replace(n.training, augment=True)) for n in classic.networks)
recipes.RECIPES["classic"] = replace(classic, networks=networks)
augment = data.augment
def told(images):
    images = augment(images)
    print("batch", zlib.crc32(images.numpy().tobytes()))
    return images
data.augment = told
"""


@pytest.mark.fault(8, "as 7, with dropout and augmentation")
def test_the_same_augmented_batches_come_in_the_same_order(bench, tmp_path):
    whole = bench.run("classic", tmp_path / "whole", patches=(AUGMENTED,))
    batches = re.findall(r"^batch \d+$", whole.stdout, re.MULTILINE)
    assert len(batches) == 2 * 4 * 10
    assert len(set(batches)) == 2 * 4 * 10 - 4  # the first batch of an epoch is the same for both networks

    parts = tmp_path / "parts"
    settings = bench.settings("classic", parts, patches=(AUGMENTED, AT_STEP.format(step=5 * 10 + 5)))
    with child.started(**settings) as process:  # in the second epoch of the second network
        lines = child.wait_for(process, "in a step")
        process.kill()
        process.wait()
    before = [line for line in lines if line.startswith("batch")]
    assert before == batches[: 5 * 10 + 4]
    rest = bench.run("classic", parts, "--resume", patches=(AUGMENTED,))
    assert re.findall(r"^batch \d+$", rest.stdout, re.MULTILINE) == batches[5 * 10 :]
    assert not difference(outcome(parts), outcome(tmp_path / "whole"))


UNSEEDED = "seed = training.seed_epoch\ntraining.seed_epoch = lambda s, epoch: None if epoch else seed(s, epoch)"


@pytest.mark.fault(9, "control: the seeding of epochs is switched off")
def test_without_seeding_every_epoch_the_comparison_fails(bench, tmp_path):
    for name in ("first", "second"):
        bench.run("classic", tmp_path / name, patches=(UNSEEDED,))
    first = outcome(tmp_path / "first")
    assert not difference(first, outcome(tmp_path / "second"))  # so a difference comes from the stop

    bench.run("classic", tmp_path / "parts", "--epochs", "2", patches=(UNSEEDED,))
    bench.run("classic", tmp_path / "parts", "--resume", "--epochs", "4", patches=(UNSEEDED,))
    assert "state_dict" in difference(outcome(tmp_path / "parts"), first)


# Ctrl-C and SIGTERM


def advised(stderr: str) -> list[str]:
    """The arguments of the command that the one line on standard error advises."""
    (line,) = stderr.splitlines()
    assert line.startswith("stopped: every finished epoch is saved; to go on: python fashionmnist.py ")
    return shlex.split(line.split("python fashionmnist.py ")[1])


def goes_on_as_advised(bench: Bench, done, output: Path) -> None:
    settings = bench.settings("classic", output)
    rest = child.run(**{**settings, "arguments": advised(done.stderr)})
    assert rest.returncode == 0, rest.stderr
    ends_as_unbroken(bench, output)


def test_the_advice_holds_what_the_run_was_resumed_with(bench, tmp_path):
    """A stop before any checkpoint knows of it: without the words, the advised command would end at two epochs."""
    bench.run("classic", tmp_path, "--epochs", "2")
    settings = bench.settings("classic", tmp_path, "--resume", "--epochs", "4", patches=(AT_STEP.format(step=3),))
    with child.started(**settings) as process:
        child.wait_for(process, "in a step")
        process.send_signal(signal.SIGINT)
        done = child.finish(process)
    assert {"--resume", "--epochs", "4"} <= set(advised(done.stderr))
    goes_on_as_advised(bench, done, tmp_path)


EVALUATING = "evaluation.log_probabilities = lambda *_: here('evaluating')"


@pytest.mark.parametrize(
    ("number", "patch", "word"),
    [
        pytest.param(2, AT_STEP.format(step=15), "in a step", marks=pytest.mark.fault(21, "Ctrl-C once; twice")),
        pytest.param(2, saving(4, "half_way"), "saving", marks=pytest.mark.fault(21, "Ctrl-C once; twice")),
        pytest.param(
            15, AT_STEP.format(step=55), "in a step", marks=pytest.mark.fault(22, "SIGTERM, training and evaluating")
        ),
        pytest.param(15, EVALUATING, "evaluating", marks=pytest.mark.fault(22, "SIGTERM, training and evaluating")),
    ],
    ids=["SIGINT-step", "SIGINT-saving", "SIGTERM-step", "SIGTERM-evaluating"],
)
def test_one_signal_saves_and_says_how_to_go_on(number, patch, word, bench, tmp_path):
    output = tmp_path / "a folder's name"
    with child.started(**bench.settings("classic", output, patches=(patch,))) as process:
        child.wait_for(process, word)
        process.send_signal(number)
        done = child.finish(process)
    assert done.returncode == 128 + number
    assert not list(output.rglob("*.partial"))
    goes_on_as_advised(bench, done, output)


@pytest.mark.fault(21, "Ctrl-C once; twice")
def test_a_second_ctrl_c_ends_it_at_once(bench, tmp_path):
    unwinding = "checkpoints.RunState.has_checkpoints = lambda _: here('unwinding')"
    settings = bench.settings("classic", tmp_path, patches=(AT_STEP.format(step=15), unwinding))
    with child.started(**settings) as process:
        child.wait_for(process, "in a step")
        process.send_signal(signal.SIGINT)
        child.wait_for(process, "unwinding")
        assert process.returncode is None
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        done = child.finish(process)
    assert time.monotonic() - sent < 2
    assert (done.returncode, done.stderr) == (130, "")
    assert all(checkpoints.load(path) for path in kept(tmp_path))
    assert "from epoch 2" in resumed(bench, tmp_path).stdout
    ends_as_unbroken(bench, tmp_path)


# Broken numbers

NAN = """
step = training.TorchLearner.step
taken = [0]
def poisoned(self, images, labels):
    taken[0] += 1
    if taken[0] == {step} and {early}:
        next(self.model.parameters()).data[0, 0] = float("nan")
    done = step(self, images, labels)
    if taken[0] == {step} and not {early}:
        next(self.model.parameters()).data[0, 0] = float("nan")
    return done
training.TorchLearner.step = poisoned
"""


@pytest.mark.fault(23, "the loss becomes NaN")
@pytest.mark.parametrize(
    ("step", "early", "words", "last"),
    [
        (2 * 10 + 4, True, "epoch 3, step 4", 2),
        (1, True, "epoch 1, step 1", 0),
        (2 * 10, False, "epoch 2, step 10", 1),  # the weights break with the last step: no loss tells of it
        (4 * 10, False, "epoch 4, step 10", 3),
    ],
)
def test_a_loss_that_is_no_number(step, early, words, last, bench, tmp_path):
    """In a folder with the results of an earlier run, which stay as they are."""
    bench.unbroken("classic")
    output = Path(shutil.copytree(bench.folder / "unbroken" / "classic", tmp_path / "output"))
    before = {name: body for name, body in child.snapshot(output).items() if "checkpoints" not in name}
    settings = bench.settings("classic", output, patches=(NAN.format(step=step, early=early),))
    line = child.only_line(child.run(**settings), 1)
    assert words in line
    assert f"the checkpoint of epoch {last} is kept" in line
    after = {name: body for name, body in child.snapshot(output).items() if "checkpoints" not in name}
    assert after == before
    json.loads((output / "classic" / "metrics.json").read_text(), parse_constant=pytest.fail)
    newest = kept(output)[0]
    assert newest.name == f"ffn-seed0-epoch{last:04d}.pt"
    assert all(tensor.isfinite().all() for tensor in checkpoints.load(newest)["learner"]["model"].values())


@pytest.mark.fault(23, "the loss becomes NaN")
def test_sigmoids_that_have_all_underflowed_still_give_numbers(bench, tmp_path):
    """At this rate the network in NumPy ends with ten outputs of 0: its weights are finite, and so is its own loss."""
    done = child.run(**bench.settings("numpy", tmp_path, "--lr", "100"))
    assert (done.returncode, done.stderr) == (0, "")
    numbers = json.loads((tmp_path / "evolution" / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert numbers["models"]["v0"]["test_loss"] > 2.3
    assert all(row["validation_loss"] > 2.3 for row in numbers["models"]["v0"]["epochs"])


# The same numbers


@pytest.mark.fault(33, "the same seed twice; another number of threads")
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_same_seed_twice_gives_the_same_numbers(name, bench, tmp_path):
    bench.run(name, tmp_path)
    assert not difference(outcome(tmp_path), bench.unbroken(name))


@pytest.mark.fault(33, "the same seed twice; another number of threads")
def test_another_seed_gives_others(bench, tmp_path):
    bench.run("classic", tmp_path, "--seed", "1")
    assert difference(outcome(tmp_path), bench.unbroken("classic"))


@pytest.mark.fault(33, "the same seed twice; another number of threads")
def test_another_number_of_threads_agrees_within_a_tolerance(bench, tmp_path):
    bench.run("classic", tmp_path / "one", "--epochs", "2")
    bench.run("classic", tmp_path / "two", "--epochs", "2", patches=("import torch\ntorch.set_num_threads(2)",))
    one, two = (json.loads((tmp_path / n / "classic" / "metrics.json").read_text()) for n in ("one", "two"))
    assert (one["threads"], two["threads"]) == (1, 2)
    one, two = one["models"]["cnn"], two["models"]["cnn"]
    assert two["test_accuracy"] == pytest.approx(one["test_accuracy"], abs=0.05)  # 3 of 60 images
    for own, other in zip(two["epochs"], one["epochs"], strict=True):
        assert own["train_loss"] == pytest.approx(other["train_loss"], rel=0.01)
