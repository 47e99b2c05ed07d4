"""Trials side by side in processes: the same bits as one after another, whatever of it is killed, stopped or fails."""

import json
import os
import signal
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest
import torch

from fmnist import processes, workers
from fmnist.device import Machine
from fmnist.errors import Failed
from tests.helpers import child, needs
from tests.helpers.bench import FILES, MACHINE, difference, epochs_saved
from tests.helpers.held import PATCHES, Held, all_end, descendants, is_left_clean, results, shared_memory

JOBS = "SIGKILL of a process that trains beside others, or of the one that started it"


# The same bits


def test_side_by_side_gives_what_one_after_another_gives(bench, tmp_path):
    bench.run("classic", tmp_path, "--jobs", "2")
    assert not difference(results(tmp_path), bench.unbroken("classic"))
    assert is_left_clean(tmp_path)


@needs.linux
@pytest.mark.fault(36, JOBS)
def test_a_process_killed_in_mid_epoch_fails_the_run_in_one_line_and_resume_finishes_it(held, tmp_path):
    held.hold()
    with child.started(**held.settings(tmp_path, "--jobs", "2")) as process:
        first, _ = held.wait_for(2)
        started = descendants(process.pid)
        os.kill(first, signal.SIGKILL)
        line = child.only_line(child.finish(process), 1)
    assert "a process that trains has ended" in line
    assert "--resume" in line
    assert all_end(started)
    assert is_left_clean(tmp_path)
    goes_on(held, tmp_path)


@needs.linux
@pytest.mark.fault(36, JOBS)
def test_the_parent_killed_leaves_no_process_behind(held, tmp_path):
    held.hold()
    with child.started(**held.settings(tmp_path, "--jobs", "2")) as process:
        held.wait_for(2)
        started = descendants(process.pid)
        process.kill()
        process.wait()
    assert all_end(started)
    assert not shared_memory(process.pid)
    goes_on(held, tmp_path)


@needs.linux
@pytest.mark.fault(21, "Ctrl-C once; twice")
def test_ctrl_c_in_a_terminal_saves_every_trial_and_leaves_nothing_behind(held, tmp_path):
    held.hold()
    with child.started(**held.settings(tmp_path, "--jobs", "2")) as process:
        held.wait_for(2)
        started = descendants(process.pid)
        assert shared_memory(process.pid)  # so that it is looked for in the right place
        for pid in (*started, process.pid):  # a terminal sends it to all of them
            os.kill(pid, signal.SIGINT)
        done = child.finish(process)
    assert done.returncode == 130
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "every finished epoch is saved" in done.stderr
    assert all_end(started)
    assert not shared_memory(process.pid)
    assert is_left_clean(tmp_path)
    goes_on(held, tmp_path)


@needs.linux
@pytest.mark.fault(21, "Ctrl-C once; twice")
def test_ctrl_c_while_many_trials_wait_is_answered_in_one_line(held, tmp_path):
    held.hold()
    with child.started(**held.settings(tmp_path, "--jobs", "2", "--seeds", "12")) as process:
        held.wait_for(2)
        started = descendants(process.pid)
        os.kill(process.pid, signal.SIGINT)
        done = child.finish(process)
    assert done.returncode == 130
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert all_end(started)
    assert is_left_clean(tmp_path)


def goes_on(held: Held, output: Path) -> None:
    """Check that both trials are saved as of the epoch before, and end as if nothing had happened."""
    assert epochs_saved(output / "classic" / "checkpoints") == {"net-seed0": 1, "net-seed1": 1}
    held.let_go()
    done = child.run(**held.settings(output, "--resume", "--jobs", "1"))
    assert done.stdout.count("from epoch 2") == 2, done.stderr
    assert not difference(results(output), held.unbroken)
    assert is_left_clean(output)


# What fails


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.fault(23, "the loss becomes NaN")
def test_one_that_diverges_is_left_out_of_a_study_and_the_others_are_compared(jobs, bench, tmp_path):
    """The weights grow by a factor of a thousand in each step of the second combination."""
    words = ["classic", "--models", "ffn", "--hidden", "16", "--epochs", "2", "--batch-size", "20", *MACHINE]
    words += ["--optimizer", "sgd", "--weight-decay", "10", "--vary", "lr=1e-3,100,1e-2", "--jobs", jobs]
    words += ["--data-dir", bench.data, "--output-dir", tmp_path]
    line = child.only_line(child.run(words, files=FILES, patches=PATCHES), 1)
    assert "1 of 3 trials failed, ffn-lr100-seed0 first (the loss is no longer a finite number in epoch " in line
    assert "their combinations are left out, the others compared" in line
    finished = {path.parent.name for path in tmp_path.rglob("trial.json")}
    assert finished == {"ffn-lr0.001-seed0", "ffn-lr0.01-seed0"}
    metrics = json.loads((tmp_path / "classic" / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert list(metrics["models"]) == ["ffn-lr0.001", "ffn-lr0.01"]
    assert metrics["study"]["settings"] == {"lr": [0.001, 100.0, 0.01]}
    assert any("no longer a finite number" in note and "lr 100 (1 of 1 seeds)" in note for note in metrics["notes"])
    assert is_left_clean(tmp_path)
    words = ["classic", "--resume", "--data-dir", bench.data, "--output-dir", tmp_path]
    again = child.run(words, files=FILES, patches=PATCHES)
    assert (again.returncode, "this run is finished" in again.stdout) == (0, True)
    words = ["--compare", tmp_path / "classic", *words[2:]]
    beside = child.run(words, files=FILES, patches=PATCHES)
    assert beside.returncode == 0, beside.stderr
    assert "lr 0.01" in beside.stdout
    assert "lr 100" not in beside.stdout


def test_a_study_of_which_nothing_is_left_fails(bench, tmp_path):
    words = ["classic", "--models", "ffn", "--epochs", "1", "--batch-size", "20", "--optimizer", "sgd", *MACHINE]
    words += ["--weight-decay", "10", "--vary", "lr=90,100", "--data-dir", bench.data, "--output-dir", tmp_path]
    line = child.only_line(child.run(words, files=FILES, patches=PATCHES), 1)
    assert "nothing to compare: no two combinations are trained from every seed; ffn-lr90-seed0 failed first" in line
    assert "no longer a finite number in epoch 1, step " in line
    assert not (tmp_path / "classic" / "metrics.json").exists()


def test_a_process_lost_while_trials_are_handed_out_fails_in_words(tmp_path):
    class Broken:
        def submit(self, *_):
            raise BrokenExecutor

    with pytest.raises(Failed, match="a process that trains has ended"):
        workers._train_by(Broken(), processes.perform, [None], tmp_path)


def test_the_failure_of_the_only_trial_is_told_as_it_is():
    failure = Failed("of some reason")
    with pytest.raises(Failed) as caught:
        workers.raise_first({"ffn-seed0": failure}, 1, "")
    assert caught.value is failure


# How many side by side, by how many threads


@pytest.mark.parametrize(
    ("options", "device", "trials", "side_by_side", "threads"),
    [
        ({}, "cpu", 4, 1, 8),
        ({"jobs": 1}, "cpu", 4, 1, 8),
        ({"jobs": 2}, "cpu", 4, 2, 4),
        ({"jobs": 3}, "cpu", 4, 3, 2),
        ({"jobs": 100}, "cpu", 4, 4, 2),
        ({"jobs": 8}, "cpu", 1, 1, 8),
        ({"jobs": "auto"}, "cpu", 4, 4, 2),
        ({"jobs": "auto"}, "cpu", 100, 8, 1),
        ({"jobs": "auto"}, "cpu", 1, 1, 8),
        ({"jobs": "auto"}, "cuda", 4, 1, 8),  # there is one card for all
        ({"jobs": 2}, "cuda", 4, 2, 4),
        ({"cluster": "tcp://127.0.0.1:1"}, "cpu", 4, 1, 1),
        ({}, "cpu", 0, 1, 8),  # `explore` trains nothing
    ],
)
def test_the_cores_are_shared_out(options, device, trials, side_by_side, threads, monkeypatch):
    """On a machine of eight cores."""
    import joblib

    monkeypatch.setattr(joblib, "cpu_count", lambda: 8)
    machine = Machine(torch.device(device), "fp32", 8)
    assert workers.jobs(options, [machine] * trials) == side_by_side
    assert workers.threads(options, machine, trials) == threads


def test_a_card_is_not_shared_where_numpy_trains_as_well():
    machine = Machine(torch.device("cuda"), "fp32", 2)
    assert workers.jobs({"jobs": "auto"}, [machine.for_numpy, machine, machine]) == 1
