"""Faults that befall a training: signals, damaged checkpoints, broken losses. Real processes, signals and files."""

import itertools
import json
import random
import re
import shlex
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from fmnist import checkpoints
from fmnist.errors import Refused
from tests import child, forks
from tests.soak import EXPERIMENTS, STEPS, Bench, difference, epochs_saved, outcome, soak

# Patches for the child. `here` says where it is and waits there for the test's signal.

AT_STEP = """
step = training.TorchLearner.step
taken = [0]
def waits(self, images, labels):
    taken[0] += 1
    if taken[0] == {step}:
        here("in a step")
    return step(self, images, labels)
training.TorchLearner.step = waits
"""
SAVING = """
import os
from contextlib import contextmanager
whole, saved = files.whole_file, [0]
class Slow:
    def __init__(self, file): self.file = file
    def write(self, body):
        body = bytes(body)
        self.file.write(body[:len(body) // 2])
        self.file.flush()
        {half_way}
        self.file.write(body[len(body) // 2:])
@contextmanager
def slow(path):
    saved[0] += 1
    if saved[0] != {nth}:
        with whole(path) as file:
            yield file
        return
    {before}
    replace = os.replace
    def late(*paths):
        {written}
        replace(*paths)
        {after}
    os.replace = late
    with whole(path) as file:
        yield Slow(file)
    os.replace = replace
checkpoints.whole_file = slow
"""
MOMENTS = ("before", "half_way", "written", "after")


def saving(nth: int, moment: str, does: str = "here('saving')") -> str:
    """A patch that does something at one moment of writing the nth file of a run; the first is that of epoch 0."""
    return SAVING.format(nth=nth, **{name: does if name == moment else "pass" for name in MOMENTS})


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def stopped(bench, tmp_path_factory) -> Path:
    """The output folder of a run of `classic` killed when its first network was in epoch 4; not to be changed."""
    output = tmp_path_factory.mktemp("stopped")
    with forks.started(**bench.settings("classic", output, patches=(AT_STEP.format(step=3 * 10 + 5),))) as process:
        child.wait_for(process, "in a step")
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert epochs_saved(output / "classic" / "checkpoints") == {"ffn-seed0": 3}
    return output


@pytest.fixture
def output(stopped, tmp_path) -> Path:
    """A copy of the stopped run's folder."""
    return Path(shutil.copytree(stopped, tmp_path / "output"))


def kept(output: Path) -> list[Path]:
    """The checkpoints, newest first."""
    return checkpoints.checkpoint_paths(output / "classic" / "checkpoints", "ffn-seed0")


def resumed(bench: Bench, output: Path, *more: object, name: str = "classic"):
    return forks.run(**bench.settings(name, output, "--resume", *more))


def ends_as_unbroken(bench: Bench, output: Path, name: str = "classic") -> None:
    assert not difference(outcome(output), bench.unbroken(name))
    assert not list(output.rglob("*.partial"))


# A stop and a resume


@pytest.mark.fault(7, "N epochs in one go, against k, a stop, and resume")
@pytest.mark.parametrize("name", ["classic", "batchnorm"])
def test_k_epochs_a_stop_and_the_rest_are_n_epochs(name, bench, tmp_path):
    bench.run(name, tmp_path, "--epochs", "2")
    done = bench.run(name, tmp_path, "--resume", "--epochs", EXPERIMENTS[name][EXPERIMENTS[name].index("--epochs") + 1])
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
    with forks.started(**bench.settings(name, tmp_path, patches=(patch,))) as process:
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
    with forks.started(**settings) as process:  # in the second epoch of the second network
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


# Writing a checkpoint


@pytest.mark.fault(10, "writing a checkpoint raises half-way")
@pytest.mark.parametrize("error", ["OSError(5, 'Input/output error')", "ValueError('of any kind')"])
def test_a_checkpoint_that_cannot_be_written_harms_no_other(error, bench, tmp_path):
    """The files as they were when the third checkpoint was begun are copied aside by the child itself."""
    copy = f"import shutil; shutil.copytree(path.parent, {str(tmp_path / 'before')!r}); raise {error}"
    copy = copy.replace("path.parent", "os.path.dirname(self.file.name)")
    output = tmp_path / "output"
    failed = forks.run(**bench.settings("classic", output, patches=(saving(4, "half_way", copy),)))
    assert failed.returncode == 1
    if error.startswith("OSError"):
        line = child.only_line(failed, 1)
        assert "ffn-seed0-epoch0003.pt: Input/output error" in line
    before = child.snapshot(tmp_path / "before")
    (stray,) = [name for name in before if name.endswith(".partial")]  # so it did happen half-way
    del before[stray]
    assert sorted(before) == ["ffn-seed0-epoch0001.pt", "ffn-seed0-epoch0002.pt"]
    assert child.snapshot(output / "classic" / "checkpoints") == before

    assert "from epoch 3" in resumed(bench, output).stdout
    ends_as_unbroken(bench, output)


@pytest.mark.fault(11, "SIGKILL before, during and just after a checkpoint is written")
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_around_the_writing_of_a_checkpoint(moment, bench, tmp_path):
    with forks.started(**bench.settings("classic", tmp_path, patches=(saving(4, moment),))) as process:
        child.wait_for(process, "saving")
        process.kill()
        assert process.wait() == -signal.SIGKILL
    folder = tmp_path / "classic" / "checkpoints"
    names = sorted(path.name for path in folder.glob("*.pt"))
    assert names == [f"ffn-seed0-epoch000{n}.pt" for n in (1, 2, 3)[: 3 if moment == "after" else 2]]
    partial = [path.stat().st_size for path in folder.glob(".*.partial")]
    assert len(partial) == (moment in ("half_way", "written"))

    done = resumed(bench, tmp_path)
    assert f"from epoch {4 if moment == 'after' else 3}" in done.stdout
    ends_as_unbroken(bench, tmp_path)


@pytest.mark.fault(11, "SIGKILL before, during and just after a checkpoint is written")
@pytest.mark.parametrize(("name", "kills"), [("classic", 12), ("numpy", 6), ("batchnorm", 4)])
def test_killed_at_random_moments(name, kills, tmp_path, bench, record_property):
    shutil.rmtree(bench.folder / "timed" / name, ignore_errors=True)
    soak(bench, name, kills, random.Random(name))
    record_property("injections", kills)


# Damaged checkpoints


@pytest.mark.fault(13, "the newest checkpoint cut to 0, 10, 50, 99 %")
@pytest.mark.parametrize("percent", [0, 10, 50, 99])
def test_the_checkpoint_before_a_cut_one_serves(percent, bench, output):
    newest, before = kept(output)
    body = newest.read_bytes()
    newest.write_bytes(body[: len(body) * percent // 100])
    done = resumed(bench, output)
    assert done.returncode == 0, done.stderr
    assert f"warning: {newest} is damaged" in done.stdout
    assert "from epoch 3" in done.stdout
    assert before.name.endswith("epoch0002.pt")
    ends_as_unbroken(bench, output)


@pytest.mark.fault(13, "the newest checkpoint cut to 0, 10, 50, 99 %")
@pytest.mark.parametrize("percent", [0, 10, 50, 99])
def test_a_cut_weights_file_given_by_hand_is_refused(percent, bench, tmp_path):
    bench.unbroken("classic")
    body = (bench.folder / "unbroken" / "classic" / "classic" / "cnn.pth").read_bytes()
    path = tmp_path / "cut.pth"
    path.write_bytes(body[: len(body) * percent // 100])
    done = forks.run(["--weights", path, "--output-dir", tmp_path / "output"], script="kernel_vis")
    assert str(path) in child.only_line(done, 2)
    assert child.snapshot(tmp_path / "output") == {}


@pytest.mark.fault(14, "every checkpoint corrupt")
@pytest.mark.parametrize("how", ["cut", "altered", "text", "empty"])
def test_nothing_is_started_silently_if_every_checkpoint_is_corrupt(how, bench, output):
    for path in kept(output):
        body = path.read_bytes()
        middle = len(body) // 2
        altered = body[:middle] + bytes(255 - byte for byte in body[middle : middle + 2000]) + body[middle + 2000 :]
        path.write_bytes({"cut": body[:middle], "altered": altered, "text": b"not a checkpoint", "empty": b""}[how])
    before = child.snapshot(output)
    line = child.only_line(resumed(bench, output), 2)
    assert "no checkpoint can be read" in line
    assert all(path.name in line for path in kept(output))
    assert "leave out --resume" in line
    assert child.snapshot(output) == before


@pytest.mark.fault(15, "--resume where nothing can be resumed")
def test_resume_where_nothing_was_begun(bench, tmp_path):
    line = child.only_line(resumed(bench, tmp_path / "nowhere"), 2)
    assert "--resume" in line
    assert str(tmp_path / "nowhere" / "classic" / "checkpoints") in line
    assert child.snapshot(tmp_path / "nowhere") == {}


@pytest.mark.fault(17, "resume with another learning rate, batch size or network")
@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--lr", "0.01"], ["lr was 0.001 and is 0.01"]),
        (["--batch-size", "8"], ["batch_size was 20 and is 8"]),
        (["--hidden", "16"], ["hidden was [32] and is [16]"]),
        (["--hidden", "16", "--lr", "0.01"], ["hidden was [32] and is [16]", "lr was 0.001 and is 0.01"]),
        (["--precision", "bf16"], ["precision was fp32 and is bf16"]),
        (["--validation", "0.1"], ["validation was 0.0 and is 0.1"]),
        (["--epochs", "2"], ["epochs was 4 and is 2"]),
    ],
    ids=lambda value: value[0] if value[0].startswith("--") else "",
)
def test_resume_with_other_settings(more, words, bench, output):
    before = child.snapshot(output)
    line = child.only_line(resumed(bench, output, *more), 2)
    assert "ffn-seed0 cannot be resumed with other settings" in line
    for word in words:
        assert word in line
    assert child.snapshot(output) == before


@pytest.mark.fault(18, "resume of a finished run")
def test_resume_of_a_finished_run_changes_nothing(bench):
    bench.unbroken("classic")
    output = bench.folder / "unbroken" / "classic"
    before = child.snapshot(output)
    times = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file() and path.name != ".lock"}
    done = resumed(bench, output)
    assert (done.returncode, done.stderr) == (0, "")
    assert "finished" in done.stdout
    assert "FFN" in done.stdout
    assert child.snapshot(output) == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.fault(18, "resume of a finished run")
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_resume_of_a_finished_run_whose_numbers_are_lost_writes_them_again(damage, bench, tmp_path):
    bench.unbroken("classic")
    output = Path(shutil.copytree(bench.folder / "unbroken" / "classic", tmp_path / "output"))
    path = output / "classic" / "metrics.json"
    path.write_bytes(path.read_bytes()[:100])
    if damage == "missing":
        path.unlink()
    done = resumed(bench, output)
    assert done.returncode == 0, done.stderr
    ends_as_unbroken(bench, output)


# Ctrl-C and SIGTERM


def advised(stderr: str) -> list[str]:
    """The arguments of the command that the one line on standard error advises."""
    (line,) = stderr.splitlines()
    assert line.startswith("stopped: every finished epoch is saved; to go on: python fashionmnist.py ")
    return shlex.split(line.split("python fashionmnist.py ")[1])


def goes_on_as_advised(bench: Bench, done, output: Path) -> None:
    settings = bench.settings("classic", output)
    rest = forks.run(**{**settings, "arguments": advised(done.stderr)})
    assert rest.returncode == 0, rest.stderr
    ends_as_unbroken(bench, output)


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
    with forks.started(**bench.settings("classic", output, patches=(patch,))) as process:
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
    with forks.started(**settings) as process:
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
    line = child.only_line(forks.run(**settings), 1)
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
    done = forks.run(**bench.settings("numpy", tmp_path, "--lr", "100"))
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


# In this process: files that no child is needed for


@pytest.mark.fault(13, "the newest checkpoint cut to 0, 10, 50, 99 %")
def test_a_checkpoint_cut_anywhere_is_noticed(stopped, tmp_path):
    body = kept(stopped)[0].read_bytes()
    path = tmp_path / "cut.pt"
    lengths = {*range(0, len(body), len(body) // 60), *(len(body) - n for n in (1, 2, 22, 23, 100))}
    for length in sorted(lengths):
        path.write_bytes(body[:length])
        with pytest.raises(checkpoints.Damaged, match=r"cut\.pt is damaged"):
            checkpoints.load(path)


@pytest.mark.fault(14, "every checkpoint corrupt")
def test_corrupt_checkpoints_are_all_named(output):
    for path, body in zip(kept(output), itertools.cycle([b"", b"PK\3\4"]), strict=False):
        path.write_bytes(body)
    warnings = []
    with pytest.raises(Refused, match="no checkpoint can be read"):
        checkpoints.newest(kept(output), warnings.append)
    assert len(warnings) == 2


def test_what_a_killed_run_left_loads_without_running_code(stopped):
    content = torch.load(kept(stopped)[0], weights_only=True)
    assert len(content["history"]) == 3
