"""Faults of checkpoints: kills and errors while one is written, damaged ones, and none or a wrong one to resume from.

Real processes, signals and files, on the bench of tests/soak.py.
"""

import itertools
import random
import shutil
import signal
from pathlib import Path

import pytest
import torch

from benchmarks.soak import AT_STEP, MADE, MOMENTS, ends_as_unbroken, epochs_saved, kept, resumed, saving, soak
from fmnist import checkpoints
from fmnist.errors import Refused
from tests.helpers import child, tiny


@pytest.fixture(scope="module")
def stopped(bench, tmp_path_factory) -> Path:
    """The output folder of a run of `classic` killed when its first network was in epoch 4; not to be changed."""
    output = tmp_path_factory.mktemp("stopped")
    with child.started(**bench.settings("classic", output, patches=(AT_STEP.format(step=3 * 10 + 5),))) as process:
        child.wait_for(process, "in a step")
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert epochs_saved(output / "classic" / "checkpoints") == {"ffn-seed0": 3}
    return output


@pytest.fixture
def output(stopped, tmp_path) -> Path:
    """A copy of the stopped run's folder."""
    return Path(shutil.copytree(stopped, tmp_path / "output"))


# Writing a checkpoint


@pytest.mark.fault(10, "writing a checkpoint raises half-way")
@pytest.mark.parametrize("error", ["OSError(5, 'Input/output error')", "ValueError('of any kind')"])
def test_a_checkpoint_that_cannot_be_written_harms_no_other(error, bench, tmp_path):
    """The files as they were when the third checkpoint was begun are copied aside by the child itself."""
    copy = f"import shutil; shutil.copytree(path.parent, {str(tmp_path / 'before')!r}); raise {error}"
    copy = copy.replace("path.parent", "os.path.dirname(self.file.name)")
    output = tmp_path / "output"
    failed = child.run(**bench.settings("classic", output, patches=(saving(4, "half_way", copy),)))
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
    with child.started(**bench.settings("classic", tmp_path, patches=(saving(4, moment),))) as process:
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
    done = child.run(["--weights", path, "--output-dir", tmp_path / "output"], script="kernel_vis")
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


@pytest.mark.fault(17, "resume with another learning rate, batch size or network")
def test_resume_on_other_data(bench, output, tmp_path):
    """The same images in another order: the split would hold out others, and epochs to come learn from those."""
    other = tiny.write_csv(MADE._replace(train_images=MADE.train_images[::-1]), tmp_path / "csv")
    before = child.snapshot(output)
    line = child.only_line(resumed(bench, output, "--data-dir", other), 2)
    assert "ffn-seed0 cannot be resumed with other settings: training data was" in line
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
    assert done.stdout.count("trained already") == 2
    ends_as_unbroken(bench, output)


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
