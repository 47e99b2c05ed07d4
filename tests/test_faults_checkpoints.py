"""Faults of checkpoints: kills and errors while one is written, damaged ones, and none or a wrong one to resume from.

Real processes, signals and files, on the bench of tests/helpers/bench.py.
"""

import random
import shutil
from pathlib import Path

import pytest
import torch

import kernel_vis
from benchmarks.soak import soak
from fmnist import checkpoints
from tests.helpers import child, tiny
from tests.helpers.bench import (
    FILES,
    MADE,
    MOMENTS,
    at_step,
    ends_as_unbroken,
    epochs_saved,
    interrupted,
    kept,
    resumed,
    saving,
)

CUT = "the newest checkpoint cut to 0, 10, 50, 99 %"
KILLED = "SIGKILL before, during and just after a checkpoint is written"
OTHER = "resume with another learning rate, batch size or network"


@pytest.fixture(scope="module")
def stopped(bench, tmp_path_factory) -> Path:
    """The output folder of a run of `classic` killed when its first network was in epoch 4; not to be changed."""
    output = tmp_path_factory.mktemp("stopped")
    interrupted(bench, output, at_step(3 * 10 + 5))
    assert epochs_saved(output / "classic" / "checkpoints") == {"ffn-seed0": 3}
    return output


@pytest.fixture
def output(stopped, tmp_path) -> Path:
    """A copy of the stopped run's folder."""
    return Path(shutil.copytree(stopped, tmp_path / "output"))


@pytest.fixture
def refused(bench, output):
    """Resume the stopped run; return its one line of refusal, after checking that no file has changed."""

    def refused(*more: object) -> str:
        before = child.snapshot(output)
        line = child.only_line(resumed(bench, output, *more), 2)
        assert child.snapshot(output) == before
        return line

    return refused


# Writing a checkpoint


@pytest.mark.fault(10, "writing a checkpoint raises half-way")
@pytest.mark.parametrize("error", ["OSError(5, 'Input/output error')", "ValueError('of any kind')"])
def test_a_checkpoint_that_cannot_be_written_harms_no_other(error, bench, tmp_path):
    """The files as they were when the third checkpoint was begun are copied aside by the child itself."""
    output, copied = tmp_path / "output", tmp_path / "before"
    copy = f"import shutil; shutil.copytree(os.path.dirname(self.file.name), {str(copied)!r}); raise {error}"
    failed = child.run(**bench.settings("classic", output, patches=(saving(4, "half_way", copy),)))
    assert failed.returncode == 1
    if error.startswith("OSError"):
        assert "ffn-seed0/epoch0003.pt: Input/output error" in child.only_line(failed, 1)
    before = child.snapshot(copied)
    (stray,) = [name for name in before if name.endswith(".partial")]  # so it did happen half-way
    del before[stray]
    assert sorted(before) == ["epoch0001.pt", "epoch0002.pt"]
    assert child.snapshot(output / "classic" / "checkpoints" / "ffn-seed0") == before

    assert "from epoch 3" in resumed(bench, output).stdout
    ends_as_unbroken(bench, output)


@pytest.mark.fault(11, KILLED)
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_around_the_writing_of_a_checkpoint(moment, bench, tmp_path):
    interrupted(bench, tmp_path, saving(4, moment))
    folder = tmp_path / "classic" / "checkpoints" / "ffn-seed0"
    epochs = [path.stem[-1] for path in reversed(kept(tmp_path))]
    assert epochs == (["1", "2", "3"] if moment == "after" else ["1", "2"])
    partial = [path.stat().st_size for path in folder.glob(".*.partial")]
    assert len(partial) == (moment in ("half_way", "written"))

    assert f"from epoch {4 if moment == 'after' else 3}" in resumed(bench, tmp_path).stdout
    ends_as_unbroken(bench, tmp_path)


@pytest.mark.fault(11, KILLED)
@pytest.mark.parametrize(("name", "kills"), [("classic", 12), ("numpy", 6), ("batchnorm", 4)])
def test_killed_at_random_moments(name, kills, bench, record_property):
    soak(bench, name, kills, random.Random(name))
    record_property("injections", kills)


# Damaged checkpoints


@pytest.mark.fault(13, CUT)
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


@pytest.mark.fault(13, CUT)
def test_a_checkpoint_cut_anywhere_is_noticed(stopped, tmp_path):
    body = kept(stopped)[0].read_bytes()
    path = tmp_path / "cut.pt"
    lengths = {*range(0, len(body), len(body) // 60), *(len(body) - n for n in (1, 2, 22, 23, 100))}
    for length in sorted(lengths):
        path.write_bytes(body[:length])
        with pytest.raises(checkpoints.Damaged, match=r"cut\.pt is damaged"):
            checkpoints.load(path)


@pytest.mark.fault(13, CUT)
@pytest.mark.parametrize("percent", [0, 10, 50, 99])
def test_a_cut_weights_file_given_by_hand_is_refused(percent, bench, run_here, tmp_path):
    body = (bench.left_alone("classic") / "classic" / "cnn.pth").read_bytes()
    path = tmp_path / "cut.pth"
    path.write_bytes(body[: len(body) * percent // 100])
    done = run_here(["--weights", path, "--output-dir", tmp_path / "output"], main=kernel_vis.main)
    assert str(path) in child.only_line(done, 2)
    assert child.snapshot(tmp_path / "output") == {}


@pytest.mark.fault(14, "every checkpoint corrupt")
@pytest.mark.parametrize("how", ["cut", "altered", "text", "empty"])
def test_nothing_is_started_silently_if_every_checkpoint_is_corrupt(how, output, refused):
    for path in kept(output):
        body = path.read_bytes()
        middle = len(body) // 2
        altered = body[:middle] + bytes(255 - byte for byte in body[middle : middle + 2000]) + body[middle + 2000 :]
        path.write_bytes({"cut": body[:middle], "altered": altered, "text": b"not a checkpoint", "empty": b""}[how])
    line = refused()
    assert "no checkpoint can be read" in line
    assert all(path.name in line for path in kept(output))
    assert "leave out --resume" in line


def test_what_a_killed_run_left_loads_without_running_code(stopped):
    content = torch.load(kept(stopped)[0], weights_only=True)
    assert len(content["history"]) == 3


# What cannot be resumed


@pytest.mark.fault(15, "--resume where nothing can be resumed")
def test_resume_alone_where_nothing_was_begun(bench, tmp_path):
    words = ["--resume", "--data-dir", bench.data, "--output-dir", tmp_path]
    line = child.only_line(child.run(words, files=FILES), 2)
    assert "--resume" in line
    assert str(tmp_path / "classic" / "checkpoints") in line
    assert child.snapshot(tmp_path) == {}


def test_resume_of_a_command_that_was_never_given_begins_it(bench, tmp_path):
    """So that what starts a job, and starts it again after a kill, has one thing to say."""
    assert resumed(bench, tmp_path).returncode == 0
    ends_as_unbroken(bench, tmp_path)


@pytest.mark.fault(17, OTHER)
@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--batch-size", "8"], ["batch_size was 20 and is 8"]),
        (["--hidden", "16", "--lr", "0.01"], ["hidden was [32] and is [16]", "lr was 0.001 and is 0.01"]),
        (["--precision", "bf16"], ["precision was fp32 and is bf16"]),
        (["--epochs", "2"], ["epochs was 4 and is 2"]),
        (["--models", "cnn"], ["--models cnn", "has all of them"]),
        (["--seed", "1"], ["--seed 1", "has 0"]),
    ],
    ids=lambda value: value[0] if value[0].startswith("--") else "",
)
def test_resume_with_other_settings(more, words, refused):
    line = refused(*more)
    assert all(word in line for word in words), line


@pytest.mark.fault(17, OTHER)
def test_resume_on_other_data(refused, tmp_path):
    """The same images in another order: the split would hold out others, and epochs to come learn from those."""
    other = tiny.write_csv(MADE._replace(train_images=MADE.train_images[::-1]), tmp_path / "csv")
    assert "cannot be resumed with other settings: training data was" in refused("--data-dir", other)
