"""The results of a run and of its successor: never mixed, whatever kills either of them, and made again if they go."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from tests.helpers import child
from tests.helpers.bench import TIMES, at_step, difference, interrupted, outcome, resumed
from tests.helpers.needs import SIGKILL, posix

KILLED = "SIGKILL while figures and report are written"
FINISHED = "resume of a finished run"
OTHER = ("--hidden", "16")  # settings of the successor
LAYERS = ("kernels_grid.png", "features_grid.png", "progression.png")


def with_pictures(bench, output: Path, *more: object, patches: tuple[str, ...] = ()) -> dict:
    """What `child.run` takes to run `classic` with all its pictures."""
    settings = bench.settings("classic", output, *more)
    return {**settings, "patches": list(patches)}


def visible(folder: Path) -> dict[str, bytes]:
    """The files that a run has left in `folder` for its user, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}


def listed(folder: Path) -> list[str]:
    """The results that the run in `folder` says it has left."""
    return list(json.loads((folder / "checkpoints" / "run.json").read_text())["files"])


@pytest.fixture(scope="module")
def finished(bench, tmp_path_factory) -> Path:
    """The output folder of a finished run of `classic`, with the pictures of kernel_vis.py; not to be changed."""
    output = tmp_path_factory.mktemp("finished")
    done = child.run(**with_pictures(bench, output))
    assert done.returncode == 0, done.stderr
    draw(bench, output)
    return output


@pytest.fixture
def output(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "output"))


def draw(bench, output: Path, *more: object):
    """Let kernel_vis.py draw the first test image."""
    words = ["--data-dir", bench.data, "--output-dir", output, *more]
    done = child.run(words, script="kernel_vis", files=bench.settings("classic", output)["files"])
    assert done.returncode == 0, done.stderr
    return done


# A run and its successor of other settings


@posix
@pytest.mark.parametrize("number", [SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_stopped_run_leaves_the_earlier_one_usable_and_then_takes_its_place(
    number, finished, bench, output, tmp_path
):
    folder, before = output / "classic", visible(finished / "classic")
    with child.started(**bench.settings("classic", output, *OTHER, patches=(at_step(55),))) as process:
        child.wait_for(process, "waits")
        process.send_signal(number)
        assert process.wait() in (-SIGKILL, 128 + signal.SIGTERM)
    assert visible(folder) == before
    draw(bench, output)
    assert visible(folder).keys() == before.keys()

    done = resumed(bench, output, *OTHER)
    assert "trained already" in done.stdout
    assert f"kept whole in {output / 'classic.before'}" in done.stdout
    assert sorted(visible(folder)) == listed(folder), "a picture of the run before is left"
    assert {"ffn.pth", "cnn.pth", "metrics.json"} <= visible(folder).keys()
    bench.run("classic", tmp_path / "alone", *OTHER)
    assert not difference(outcome(output), outcome(tmp_path / "alone"))

    kept = Path(shutil.copytree(output / "classic.before", tmp_path / "copy" / "classic"))
    assert_whole(kept, finished / "classic")
    done = child.run(**with_pictures(bench, kept.parent, "--resume"))
    assert "this run is finished" in done.stdout
    assert_whole(kept, finished / "classic")


def assert_whole(kept: Path, run: Path) -> None:
    """Check that nothing of a finished run has changed but, drawn anew, its report."""
    ours, theirs = child.snapshot(kept), child.snapshot(run)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] in ([], ["report.html"])


def test_a_run_of_equal_settings_takes_the_place_of_the_earlier_one(bench, output):
    bench.run("classic", output)
    assert sorted(visible(output / "classic")) == listed(output / "classic")
    assert [path.name for path in output.iterdir()] == ["classic"]


# Killed while the results are put in their place

DYING = """
import os, pathlib, signal
finish, left = runs.Run.finish, [{moves}]
def dying(self):
    replace = pathlib.Path.replace
    def move(path, target):
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return replace(path, target)
    pathlib.Path.replace = move
    finish(self)
runs.Run.finish = dying
"""


@posix
@pytest.mark.fault(27, KILLED)
@pytest.mark.parametrize(("moves", "is_late"), [(0, False), (6, False), (6, True)])
@pytest.mark.parametrize("then", ["--resume", "anew"])
def test_killed_while_results_are_put_in_their_place(moves, is_late, then, finished, bench, output):
    """Before any file is moved, among those of the former run, and, once these are away, among the new ones."""
    folder, former = output / "classic", visible(finished / "classic")
    dying = DYING.format(moves=moves + is_late * len(former))
    done = child.run(**bench.settings("classic", output, *OTHER, "--epochs", "1", patches=(dying,)))
    assert done.returncode == -signal.SIGKILL
    if moves == 0:
        assert visible(folder) == former
    if then == "--resume":
        done = resumed(bench, output, *OTHER, "--epochs", "1")
        assert done.returncode == 0, done.stderr
    else:  # to be stopped at once: what comes of the next run is not the question
        interrupted(bench, output, at_step(1), "--hidden", "8")
    if moves or then == "--resume":
        assert sorted(visible(folder)) == ["cnn.pth", "cnn_report.txt", "ffn.pth", "ffn_report.txt", "metrics.json"]
        assert json.loads((folder / "metrics.json").read_text())["models"]["ffn"]["config"]["network"]["hidden"] == [16]
        assert visible(output / "classic.before") == former
    else:
        assert visible(folder) == former
        assert not (output / "classic.before").exists()
    hidden = {path.name for path in output.rglob(".*")} - {".lock", ".results"}
    assert not hidden


# A finished run whose results have gone

NO_TRAINING = "def trains(*_):\n    raise AssertionError('it trains')\nlearners.TorchLearner.step = trains"


@pytest.mark.fault(18, FINISHED)
def test_resume_of_a_finished_run_changes_nothing(bench, finished):
    before = child.snapshot(finished)
    times = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file() and path.name != ".lock"}
    done = resumed(bench, finished, patches=(NO_TRAINING,))
    assert (done.returncode, done.stderr) == (0, "")
    assert "this run is finished" in done.stdout
    assert "FFN" in done.stdout
    assert child.snapshot(finished) == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.fault(18, FINISHED)
def test_what_a_finished_run_has_lost_is_made_again_without_training(bench, finished, output):
    lost = ["cnn.pth", "ffn_confusion.png", "ffn_report.txt", "metrics.json", "report.html"]
    for name in lost:
        (output / "classic" / name).unlink()
    (output / "classic" / "cnn.pth").write_bytes(b"damaged")
    (output / "classic" / "report.html").write_bytes(b"")
    done = child.run(**with_pictures(bench, output, "--resume", patches=(NO_TRAINING,)))
    assert done.returncode == 0, done.stderr
    assert f"made again, as they were missing: {', '.join(lost)}" in done.stdout
    ours, theirs = child.snapshot(output), child.snapshot(finished)
    assert ours.keys() == theirs.keys()
    differ = {name for name in ours if ours[name] != theirs[name]}
    of_their_time = {"classic/metrics.json", "classic/report.html", "classic/checkpoints/run.json"}
    assert differ <= of_their_time  # they say when, and by which command
    figures = [files["classic/report.html"].count(b"<figure") for files in (ours, theirs)]
    assert figures[0] == figures[1], "what kernel_vis.py had drawn is in the report again"
    ours, theirs = (json.loads(files["classic/metrics.json"]) for files in (ours, theirs))
    assert {key for key in ours if ours[key] != theirs[key]} <= TIMES
    assert "finished" in resumed(bench, output).stdout


@pytest.mark.fault(18, FINISHED)
@pytest.mark.parametrize("content", ["[]", "{}"])
def test_a_metrics_json_that_is_none_is_made_again(content, bench, finished, output):
    path = output / "classic" / "metrics.json"
    path.write_text(content)
    done = resumed(bench, output, patches=(NO_TRAINING,))
    assert done.returncode == 0, done.stderr
    assert "made again, as they were missing: metrics.json" in done.stdout
    assert (
        json.loads(path.read_text())["models"]
        == json.loads((finished / "classic" / "metrics.json").read_text())["models"]
    )


@pytest.mark.fault(18, FINISHED)
def test_a_finished_run_is_resumed_with_more_seeds_and_stays_whole(bench, tmp_path):
    bench.run("classic", tmp_path, "--epochs", "1")
    before = child.snapshot(tmp_path / "classic")
    done = resumed(bench, tmp_path, "--epochs", "1", "--seeds", "2")
    assert done.stdout.count("trained already") == 2
    models = json.loads((tmp_path / "classic" / "metrics.json").read_text())["models"]
    assert [seed["seed"] for seed in models["ffn"]["seeds"]] == [0, 1]
    assert models["ffn"]["test_accuracy"] == json.loads(before["metrics.json"])["models"]["ffn"]["test_accuracy"]
    assert child.snapshot(tmp_path / "classic.before") == before
    line = child.only_line(resumed(bench, tmp_path, "--epochs", "2", "--seeds", "2"), 2)
    assert "epochs was 1 and is 2" in line


def test_checkpoints_of_a_finished_run_take_the_space_of_its_weights(finished):
    folder = finished / "classic"
    kept, weights = (sum(path.stat().st_size for path in folder.glob(p)) for p in ("checkpoints/*/*.pt", "*.pth"))
    assert kept < 1.3 * weights


# A picture that a viewer holds open: on Windows it can be neither replaced nor removed

HELD_OPEN = """
import os
def barred(call):
    def guarded(*paths, **options):
        if any(os.path.abspath(path) == {held!r} for path in paths):
            raise PermissionError(13, "Permission denied", str(paths[0]))
        return call(*paths, **options)
    return guarded
os.replace, os.unlink, os.rename = barred(os.replace), barred(os.unlink), barred(os.rename)
"""


ONE_PICTURE = """
def draw(path, title):
    path.write_bytes(os.urandom(9))
album.draw_models = lambda drawn, *_: drawn.add("loss_curves.png", "Loss", draw)
"""


def test_a_picture_that_is_held_open_ends_no_run(bench, output):
    folder, held = output / "classic", output / "classic" / "loss_curves.png"
    before = held.read_bytes()
    patches = (HELD_OPEN.format(held=str(held)) + ONE_PICTURE,)
    done = bench.run("classic", output, *OTHER, "--epochs", "1", patches=patches)
    assert f"{held} cannot be moved" in done.stdout
    assert held.read_bytes() == before
    assert json.loads((folder / "metrics.json").read_text())["models"]["ffn"]["config"]["network"]["hidden"] == [16]

    assert "this run is finished" in resumed(bench, output, *OTHER, "--epochs", "1").stdout
    assert held.read_bytes() != before
    assert sorted(visible(folder)) == listed(folder)


def test_kernel_vis_names_a_picture_that_is_held_open_and_draws_the_others(bench, output):
    folder = output / "classic"
    held = folder / "kernels_grid.png"
    before = {name: (folder / name).stat().st_mtime_ns for name in LAYERS}
    words = ["--data-dir", bench.data, "--output-dir", output, "--index", "3"]
    settings = {"files": bench.settings("classic", output)["files"], "patches": [HELD_OPEN.format(held=str(held))]}
    done = child.run(words, script="kernel_vis", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{held} cannot be replaced" in done.stdout
    assert [name for name in LAYERS if (folder / name).stat().st_mtime_ns == before[name]] == [held.name]
    assert not child.strays(output)
