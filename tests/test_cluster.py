"""Trials on a Dask cluster: real processes on loopback, one killed in mid-epoch, and workers that will not do."""

import os
import platform
import shutil
import signal
from pathlib import Path

import pytest

from fmnist import cluster
from fmnist.cluster import ROOT
from fmnist.errors import Refused
from tests.helpers import child, dask, needs
from tests.helpers.bench import difference
from tests.helpers.held import is_left_clean, results

CLUSTER = "SIGKILL of a cluster's worker in mid-epoch, of its scheduler, or of the run that handed it work"


@pytest.mark.parametrize(
    ("error", "start", "end"),
    [
        (
            TypeError("code expected at most 16 arguments,\ngot 18"),
            "does not understand this program (TypeError: code expected",
            f"got 18): start it by Python {platform.python_version()}",
        ),
        (PermissionError(13, "Permission denied"), "cannot be asked (PermissionError: ", "look at its log"),
    ],
    ids=["another Python", "a file it may not read"],
)
def test_a_worker_that_cannot_even_be_asked_is_refused_in_words(tmp_path, error, start, end):
    class Client:
        def wait_for_workers(self, *_, **__): ...
        def run(self, _question, on_error):
            assert on_error == "return"
            return {"tcp://a:1": error, "tcp://b:1": None}

        def nthreads(self):
            return {"tcp://a:1": 1, "tcp://b:1": 1}

    with pytest.raises(Refused) as caught:
        cluster._check(Client(), {}, tmp_path)
    assert str(caught.value).startswith(f"the worker tcp://a:1 {start}")
    assert str(caught.value).endswith(end)
    assert "tcp://b" not in str(caught.value)


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A scheduler and two workers."""
    if not os.environ.get("CI"):
        pytest.importorskip("distributed", reason="Dask is not installed: pip install -r requirements-cluster.txt")
    with dask.cluster(tmp_path_factory.mktemp("cluster"), workers=2) as there:
        yield there


@pytest.mark.fault(37, CLUSTER)
def test_the_work_of_a_killed_worker_is_resumed_and_not_repeated(held, there, tmp_path):
    held.hold()
    words = ("--resume", "--cluster", there.address)  # a run that never began is begun by it
    with child.started(**held.settings(tmp_path, *words)) as process:
        first, _ = held.wait_for(2)
        killed = next(worker for worker in there.workers if worker.pid == first)
        killed.kill()
        killed.wait()
        held.let_go()
        done = child.finish(process)
    assert (done.returncode, done.stderr) == (0, "")
    assert not difference(results(tmp_path), held.unbroken)
    assert is_left_clean(tmp_path)
    whole, repeated = 2 * 4 * 10, 5  # of the second epoch, whose fifth step the killed worker had begun
    assert held.steps == whole + repeated


@pytest.mark.fault(37, CLUSTER)
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (needs.SIGKILL, -needs.SIGKILL)])
def test_the_same_command_goes_on_after_the_run_was_ended(number, exit_code, held, there, tmp_path):
    """Its trials are still under way on the workers."""
    held.hold()
    again = held.settings(tmp_path, "--resume", "--cluster", there.address)
    with child.started(**again) as process:
        held.wait_for(len([worker for worker in there.workers if worker.poll() is None]))
        process.send_signal(number)
        assert child.finish(process).returncode == exit_code
    held.let_go()
    done = child.run(**again)
    assert (done.returncode, done.stderr) == (0, "")
    assert not difference(results(tmp_path), held.unbroken)
    assert is_left_clean(tmp_path)


# What is refused


@needs.linux
def test_workers_that_would_not_do_are_named_in_one_line(held, there, tmp_path):
    """One runs another version of the program; one sees another folder at the same path, as another machine might."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "fmnist", copy / "fmnist")
    for path in ROOT.glob("*.py"):
        shutil.copy(path, copy)
    with open(copy / "ffn.py", "a") as file:
        file.write("\n")
    output = f"/proc/self/cwd/{os.path.relpath(tmp_path, os.getcwd())}/output"
    others = [dask.add_worker(there, cwd=copy), dask.add_worker(there, cwd=tmp_path, PYTHONPATH=str(ROOT))]
    try:
        wait_for_workers(there, sum(worker.poll() is None for worker in there.workers))
        done = child.run(**held.settings(Path(output), "--cluster", there.address))
    finally:
        for worker in others:
            worker.kill()
            worker.wait()
    line = child.only_line(done, 2)
    assert "has another version of the program: sources " in line
    assert f"cannot write in {output}" in line
    assert "name an --output-dir that is shared with it" in line


def wait_for_workers(there: dask.Cluster, count: int) -> None:
    """Wait until the scheduler knows of so many workers."""
    from distributed import Client

    with Client(there.address, timeout=30, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=60)


def test_without_a_scheduler_there_is_one_line(held, tmp_path):
    pytest.importorskip("distributed") if not os.environ.get("CI") else None
    run = held.settings(tmp_path, "--cluster", "127.0.0.1:1")
    line = child.only_line(child.run(**run | {"patches": [*run["patches"], "cluster.PATIENCE = 0.5"]}), 2)
    assert "--cluster tcp://127.0.0.1:1: no scheduler answers (" in line
    assert "see docs/cluster.md" in line


def test_without_dask_there_is_one_line(held, tmp_path):
    run = held.settings(tmp_path, "--cluster", "127.0.0.1:1")
    hidden = "import sys; sys.modules['distributed'] = None"
    line = child.only_line(child.run(**run | {"patches": [*run["patches"], hidden]}), 2)
    assert line == "error: --cluster: needs Dask: pip install -r requirements-cluster.txt"


def test_each_version_and_file_that_differs_is_named(tmp_path, monkeypatch):
    own = tmp_path / "net.py"
    own.write_text("here")
    theirs = {**cluster.program(), "torch": "0.1", str(own): "another"}
    told = cluster.fault(theirs, str(tmp_path))
    assert told.startswith("has another version of the program: torch ")
    assert "instead of 0.1" in told
    assert f"{own} " in told
    assert cluster.fault(cluster.program(str(own)), str(tmp_path)) is None


def test_a_worker_tells_the_sources_that_it_has_imported_and_not_those_on_the_disk_now(tmp_path, monkeypatch):
    own = tmp_path / "my_net.py"
    assert cluster.program(str(own))[str(own)] == "missing"
    own.write_text("of the user's own")
    before = cluster.program(str(own))
    own.write_text("changed")
    (tmp_path / "cnn.py").write_text("changed")
    monkeypatch.setattr(cluster, "ROOT", tmp_path)
    assert cluster.program(str(own)) == before
    (tmp_path / "another.py").write_text("of the user's own as well")
    assert cluster.program(str(tmp_path / "another.py"))["sources"] == before["sources"]


def test_no_folder_to_write_in_is_told(tmp_path):
    assert cluster.fault(cluster.program(), str(tmp_path / "nowhere")).startswith(f"cannot write in {tmp_path}: ")


@pytest.mark.fault(37, CLUSTER)
def test_the_end_of_the_scheduler_ends_the_run_in_one_line(held, there, tmp_path):
    """The last of these tests, as it takes the cluster away."""
    held.hold()
    with child.started(**held.settings(tmp_path, "--cluster", there.address)) as process:
        held.wait_for(sum(worker.poll() is None for worker in there.workers))
        there.scheduler.kill()
        there.scheduler.wait()
        line = child.only_line(child.finish(process), 1)
    assert "the cluster's scheduler has ended" in line
    assert is_left_clean(tmp_path)
    for worker in there.workers:
        worker.kill()
        worker.wait()
    held.let_go()
    done = child.run(**held.settings(tmp_path, "--resume"))
    assert (done.returncode, done.stderr) == (0, "")
    assert not difference(results(tmp_path), held.unbroken)
