"""Faults that befall a training as it runs: a stop, Ctrl-C, SIGTERM, a loss that is no number; and its numbers, twice.

Real processes and signals, on the bench of tests/helpers/bench.py.
"""

import json
import re
import shlex
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from fmnist import checkpoints
from tests.helpers import child
from tests.helpers.bench import (
    EXPERIMENTS,
    FILES,
    STEPS,
    at_step,
    difference,
    ends_as_unbroken,
    interrupted,
    kept,
    outcome,
    resumed,
    saving,
)

STOPPED = "N epochs in one go, against k, a stop, and resume"
CTRL_C = "Ctrl-C once; twice"
SIGTERM = "SIGTERM, training and evaluating"
NO_NUMBER = "the loss becomes NaN"
SAME_SEED = "the same seed twice; another number of threads"
ALL_THREADS = {"OMP_NUM_THREADS": None, "OMP_WAIT_POLICY": "PASSIVE"}  # which do not spin where other programs run
EVALUATING = "evaluation.log_probabilities = lambda *_: here('waits')"

# A stop and a resume


@pytest.mark.fault(7, STOPPED)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_stop_within_an_epoch_costs_that_epoch_alone(name, bench, tmp_path):
    learner = "NumpyLearner" if name == "numpy" else "TorchLearner"
    interrupted(bench, tmp_path, at_step(2 * STEPS[name] + 4, learner), name=name)
    assert "from epoch 3" in resumed(bench, tmp_path, name=name).stdout
    ends_as_unbroken(bench, tmp_path, name)


@pytest.mark.fault(7, STOPPED)
def test_k_epochs_a_stop_and_the_rest_are_n_epochs(bench, tmp_path):
    """All that keeps a state goes on: batch norm, the plateau schedule, the optimizer's moments."""
    interrupted(bench, tmp_path, EVALUATING, "--epochs", "2", name="batchnorm")
    assert "from epoch 3" in resumed(bench, tmp_path, "--epochs", "6", name="batchnorm").stdout
    ends_as_unbroken(bench, tmp_path, "batchnorm")


BATCHES = """
import zlib
augment = data.augment
def told(images, shift):
    images = augment(images, shift)
    print("batch", zlib.crc32(images.numpy().tobytes()))
    return images
data.augment = told
"""


@pytest.mark.fault(8, "as 7, with dropout and augmentation")
def test_the_same_augmented_batches_come_in_the_same_order(bench, tmp_path):
    whole = bench.run("classic", tmp_path / "whole", "--augment", patches=(BATCHES,))
    batches = re.findall(r"^batch \d+$", whole.stdout, re.MULTILINE)
    assert len(batches) == 2 * 4 * 10
    assert len(set(batches)) == 2 * 4 * 10 - 4  # the first batch of an epoch is the same for both networks

    parts = tmp_path / "parts"  # stopped in the second epoch of the second network
    lines = interrupted(bench, parts, BATCHES + at_step(5 * 10 + 5), "--augment")
    assert [line for line in lines if line.startswith("batch")] == batches[: 5 * 10 + 4]
    rest = bench.run("classic", parts, "--resume", "--augment", patches=(BATCHES,))
    assert re.findall(r"^batch \d+$", rest.stdout, re.MULTILINE) == batches[5 * 10 :]
    assert not difference(outcome(parts), outcome(tmp_path / "whole"))


UNSEEDED = "training.seed_epoch = lambda seed, epoch: None"


@pytest.mark.fault(9, "control: the seeding of epochs is switched off")
def test_without_seeding_every_epoch_the_comparison_fails(bench, tmp_path):
    for name in ("first", "second"):
        bench.run("classic", tmp_path / name, patches=(UNSEEDED,))
    first = outcome(tmp_path / "first")
    assert not difference(first, outcome(tmp_path / "second"))  # so a difference comes from the stop

    interrupted(bench, tmp_path / "parts", UNSEEDED + "\n" + at_step(25))
    bench.run("classic", tmp_path / "parts", "--resume", patches=(UNSEEDED,))
    assert difference(outcome(tmp_path / "parts")["ffn.pth"], first["ffn.pth"]).startswith("/state_dict")


# Ctrl-C and SIGTERM


def advised(stderr: str) -> list[str]:
    """The arguments of the command that the one line on standard error advises."""
    (line,) = stderr.splitlines()
    assert line.startswith("stopped: every finished epoch is saved; to go on: python fashionmnist.py ")
    return shlex.split(line.split("python fashionmnist.py ")[1])


def signalled(bench, output: Path, number: int, patch: str, *more: object):
    """Start `classic`, send it a signal where `patch` has it wait, and return how it ended."""
    with child.started(**bench.settings("classic", output, *more, patches=(patch,))) as process:
        child.wait_for(process, "waits")
        process.send_signal(number)
        return child.finish(process)


def goes_on_as_advised(bench, done, output: Path) -> None:
    rest = child.run(**{**bench.settings("classic", output), "arguments": advised(done.stderr)})
    assert rest.returncode == 0, rest.stderr
    ends_as_unbroken(bench, output)


@pytest.mark.parametrize(
    ("number", "patch"),
    [
        pytest.param(signal.SIGINT, at_step(15), marks=pytest.mark.fault(21, CTRL_C)),
        pytest.param(signal.SIGINT, saving(4, "half_way"), marks=pytest.mark.fault(21, CTRL_C)),
        pytest.param(signal.SIGTERM, at_step(55), marks=pytest.mark.fault(22, SIGTERM)),
        pytest.param(signal.SIGTERM, EVALUATING, marks=pytest.mark.fault(22, SIGTERM)),
    ],
    ids=["SIGINT-step", "SIGINT-saving", "SIGTERM-step", "SIGTERM-evaluating"],
)
def test_one_signal_saves_and_says_how_to_go_on(number, patch, bench, tmp_path):
    output = tmp_path / "a folder's name"
    done = signalled(bench, output, number, patch)
    assert done.returncode == 128 + number
    assert not child.strays(output)
    goes_on_as_advised(bench, done, output)


@pytest.mark.fault(21, CTRL_C)
def test_the_advice_holds_what_the_run_was_resumed_with(bench, tmp_path):
    """A stop before any checkpoint knows of it: without the words, the advised command would end at two epochs."""
    interrupted(bench, tmp_path, at_step(5), "--epochs", "2")
    done = signalled(bench, tmp_path, signal.SIGINT, at_step(3), "--resume", "--epochs", "4")
    assert {"--resume", "--epochs", "4"} <= set(advised(done.stderr))
    goes_on_as_advised(bench, done, tmp_path)


@pytest.mark.fault(21, CTRL_C)
def test_a_second_ctrl_c_ends_it_at_once(bench, tmp_path):
    unwinding = "fashionmnist.how_to_resume = lambda _: here('unwinding')\n"
    with child.started(**bench.settings("classic", tmp_path, patches=(unwinding + at_step(15),))) as process:
        child.wait_for(process, "waits")
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

# Makes a weight NaN at one step: before it, or, so that no loss tells of it, after it.
NAN = """
step, taken = learners.TorchLearner.step, [0]
def poisoned(self, images, labels):
    taken[0] += 1
    weight = next(self.model.parameters()).data
    if taken[0] == {step} and not {after}:
        weight[0, 0] = float("nan")
    done = step(self, images, labels)
    if taken[0] == {step} and {after}:
        weight[0, 0] = float("nan")
    return done
learners.TorchLearner.step = poisoned
"""


@pytest.mark.fault(23, NO_NUMBER)
@pytest.mark.parametrize(
    ("step", "after", "words", "last"),
    [(1, False, "epoch 1, step 1", 0), (24, False, "epoch 3, step 4", 2), (40, True, "epoch 4, step 10", 3)],
)
def test_a_loss_that_is_no_number(step, after, words, last, bench, tmp_path):
    """In a folder with the results of an earlier run, which stay as they are."""
    bench.unbroken("classic")
    output = Path(shutil.copytree(bench.folder / "unbroken" / "classic", tmp_path / "output"))
    before = {name: body for name, body in child.snapshot(output).items() if "checkpoints" not in name}
    done = child.run(**bench.settings("classic", output, patches=(NAN.format(step=step, after=after),)))
    line = child.only_line(done, 1)
    assert words in line
    assert f"the checkpoint of epoch {last} is kept" in line
    assert before == {name: body for name, body in child.snapshot(output).items() if "checkpoints" not in name}
    json.loads((output / "classic" / "metrics.json").read_text(), parse_constant=pytest.fail)
    newest = kept(output)[0]
    assert newest.name == f"epoch{last:04d}.pt"
    assert all(tensor.isfinite().all() for tensor in checkpoints.load(newest)["learner"]["model"].values())


def test_sigmoids_that_have_all_underflowed_still_give_numbers(bench, tmp_path):
    """At this rate the network in NumPy ends with ten outputs of 0: its weights are finite, and so is its own loss."""
    bench.run("numpy", tmp_path, "--lr", "100")
    metrics = json.loads((tmp_path / "evolution" / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert metrics["models"]["v0"]["test_loss"] > 2.3
    assert all(row["validation_loss"] > 2.3 for row in metrics["models"]["v0"]["epochs"])


# The same numbers


@pytest.mark.fault(33, SAME_SEED)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_same_seed_twice_gives_the_same_numbers(name, bench, tmp_path):
    bench.run(name, tmp_path)
    ends_as_unbroken(bench, tmp_path, name)


@pytest.mark.fault(33, SAME_SEED)
def test_whole_processes_as_the_program_ships_give_the_same_numbers(bench, tmp_path):
    """All threads, device and precision as the program chooses them, another hash seed in each process."""
    for name in ("first", "second"):
        words = ["--epochs", "1", "--data-dir", bench.data, "--output-dir", tmp_path / name]
        patches = [child.NO_PICTURES, child.NO_REPORT]
        done = child.run(words, timeout=300, files=FILES, patches=patches, env=ALL_THREADS)
        assert done.returncode == 0, done.stderr
    assert not difference(outcome(tmp_path / "first"), outcome(tmp_path / "second"))


def test_another_seed_gives_others(bench, tmp_path):
    bench.run("classic", tmp_path, "--seed", "1")
    paths = [folder / "classic" / "ffn.pth" for folder in (tmp_path, bench.left_alone("classic"))]
    first, second = (torch.load(path, weights_only=True)["state_dict"] for path in paths)
    assert not any(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.fault(33, SAME_SEED)
def test_another_number_of_threads_agrees_within_a_tolerance(bench, tmp_path):
    bench.run("classic", tmp_path, patches=("import torch\ntorch.set_num_threads(2)",))
    one, two = (
        json.loads((at / "classic" / "metrics.json").read_text()) for at in (bench.left_alone("classic"), tmp_path)
    )
    assert (one["threads"], two["threads"]) == (1, 2)
    one, two = one["models"]["cnn"], two["models"]["cnn"]
    assert two["test_accuracy"] == pytest.approx(one["test_accuracy"], abs=0.05)  # 3 of 60 images
    for own, other in zip(two["epochs"], one["epochs"], strict=True):
        assert own["train_loss"] == pytest.approx(other["train_loss"], rel=0.01)
