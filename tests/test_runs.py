"""The folder of a run: what is kept, replaced, resumed and refused, also where a run is stopped at any step."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from fmnist.checkpoints import Checkpoints
from fmnist.config import TrainConfig
from fmnist.errors import Failed, Refused
from fmnist.metrics import Metrics
from fmnist.runs import Run, note_drawn
from fmnist.trials import RECORD
from tests.helpers import child

RESULTS = ("cnn.pth", "cnn_loss.png", "metrics.json", "report.html")


def trainings(seeds=(0,), network: str = "cnn", **settings) -> dict[str, dict]:
    training = {"epochs": 2, **settings}
    return {
        f"{network}-seed{seed}": {
            "network": {"class": "cnn:CNN", "kernels": [4]},
            "training": asdict(TrainConfig(**training, seed=seed)),
            "machine": {"device": "cpu", "precision": "fp32"},
        }
        for seed in seeds
    }


A, B, C = trainings(), trainings(lr=0.5), trainings(lr=0.7)


def begun(folder: Path, plan: dict, resume: bool = False, **options) -> Run:
    run = Run(folder, resume, options)
    run.plan(plan)
    return run


def train(run: Run, epochs: int = 2, finished: bool = True) -> None:
    """What fashionmnist.py does between start and finish, without learning anything: `mark` says by which settings."""
    mark = f"lr {next(iter(run.trainings.values()))['training']['lr']}"
    run.start()
    for name in run.trainings:
        kept = Checkpoints(run.checkpoints, name, run.trainings[name])
        done = len((kept.newest() or {"history": []})["history"])
        for epoch in range(done, epochs + 1) if done < epochs else ():
            kept.save(epoch, {"model": {"w": torch.ones(2)}, "optimizer": torch.ones(99)}, [{}] * epoch, {})
        if finished:
            (kept.folder / RECORD).touch()
            kept.finish()
    if finished:
        metrics = {**dict.fromkeys(Metrics.__required_keys__, mark)}
        for name in RESULTS:
            (run.results / name).write_text(json.dumps(metrics) if name == "metrics.json" else mark)
        run.finish()


def whole_run(folder: Path, plan: dict, resume: bool = False) -> Run:
    run = begun(folder, plan, resume)
    if not run.is_finished():
        train(run)
    return run


def shown(folder: Path) -> dict[str, str]:
    """The results that a user sees in `folder`, by name, each with the settings that made it."""
    files = [path for path in folder.glob("*") if path.is_file() and not path.name.startswith(".")]
    texts = {path.name: path.read_text() for path in files}
    return {name: json.loads(text)["title"] if name == "metrics.json" else text for name, text in texts.items()}


def all_of(plan: dict) -> dict[str, str]:
    return dict.fromkeys(RESULTS, f"lr {next(iter(plan.values()))['training']['lr']}")


def is_whole(folder: Path, plan: dict) -> bool:
    """Whether `folder` holds the results and the checkpoints of the finished run `plan`, and can be resumed."""
    return shown(folder) == all_of(plan) and begun(folder, plan, resume=True).is_finished()


@pytest.fixture
def folder(tmp_path) -> Path:
    """RECIPE, which holds a finished run of A."""
    folder = tmp_path / "classic"
    folder.mkdir()
    whole_run(folder, A)
    return folder


# One run after another


def test_a_finished_run_is_finished_when_it_is_resumed(folder):
    assert is_whole(folder, A)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*RESULTS, "checkpoints"])
    assert not begun(folder, A).is_finished(), "a new run is not"


@pytest.mark.skipif(os.name != "posix", reason="on Windows a link takes rights")
def test_of_a_folder_that_is_a_link_the_run_before_is_kept_where_it_leads(folder, tmp_path):
    link = tmp_path / "here" / "classic"
    link.parent.mkdir()
    link.symlink_to(folder)
    whole_run(link, B)
    assert is_whole(folder, B)
    assert all_of(A) == shown(folder.with_name("classic.before"))
    assert [path.name for path in link.parent.iterdir()] == ["classic"]


def test_no_room_for_a_copy_of_the_finished_run_is_told_in_words(folder, monkeypatch):
    def full(source, place, **_):
        place.mkdir()
        raise shutil.Error([(str(source), str(place), "[Errno 28] No space left on device")])

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(
        Failed, match=r"checkpoints.finished: cannot be written \(.*No space left on device\); .*--resume"
    ):
        begun(folder, trainings(seeds=(0, 1)), resume=True).start()
    assert is_whole(folder, A)
    assert not (folder / "checkpoints.finished").exists(), "half a copy"


def test_a_kill_while_the_finished_run_is_copied_leaves_no_half_of_it(folder, monkeypatch):
    def killed(_source, place, **_):
        place.mkdir()
        (place / "run.json").write_bytes((folder / "checkpoints" / "run.json").read_bytes())
        raise Killed

    run = begun(folder, trainings(seeds=(0, 1)), resume=True)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", killed)
        with pytest.raises(Killed):
            run.start()
    assert not (folder / "checkpoints.finished").exists()
    train(begun(folder, trainings(seeds=(0, 1)), resume=True))
    assert is_whole(folder, trainings(seeds=(0, 1)))
    assert not (folder / ".copying").exists()


@pytest.mark.parametrize(
    ("plan", "resume"), [(B, False), (trainings(seeds=(0, 1)), True)], ids=["another run", "more seeds"]
)
def test_a_disk_of_its_own_keeps_its_run(folder, monkeypatch, plan, resume):
    """Nothing can be moved out of it in one step: this is said before hours of training, not behind them."""
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == folder)
    with pytest.raises(Refused, match="a disk of its own"):
        begun(folder, plan, resume).start()
    assert is_whole(folder, A)


def test_a_disk_of_its_own_takes_a_first_run_unless_it_holds_files_already(tmp_path, monkeypatch):
    disk = tmp_path / "classic"
    disk.mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == disk)
    whole_run(disk, A)
    assert is_whole(disk, A)
    disk = tmp_path / "formatted"
    (disk / "lost+found").mkdir(parents=True)
    with pytest.raises(Refused, match="a disk of its own"):
        begun(disk, A).start()


def test_until_a_run_finishes_the_results_before_it_stay_as_they_are(folder):
    before = shown(folder)
    train(begun(folder, B), finished=False)
    assert shown(folder) == before
    train(begun(folder, B, resume=True))
    assert is_whole(folder, B)


def test_finished_runs_of_other_settings_are_kept_whole(folder, capsys):
    for plan in (B, C):
        whole_run(folder, plan)
    assert is_whole(folder, C)
    said = capsys.readouterr().out
    for name, plan in (("classic.before", A), ("classic.before2", B)):
        assert is_whole(folder.with_name(name), plan)
        assert f"kept whole in {folder.with_name(name)}\n" in said
    assert sorted(path.name for path in folder.parent.iterdir()) == ["classic", "classic.before", "classic.before2"]


def test_pictures_that_were_drawn_later_go_with_the_network_that_they_show(folder):
    (folder / "kernels_grid.png").write_text("lr 0.001")
    whole_run(folder, B)
    assert shown(folder) == all_of(B)
    assert "kernels_grid.png" in shown(folder.with_name("classic.before"))


def test_a_finished_run_of_equal_settings_is_replaced(folder):
    whole_run(folder, A)
    assert is_whole(folder, A)
    assert [path.name for path in folder.parent.iterdir()] == ["classic"]


def test_of_a_finished_run_of_equal_settings_what_others_put_there_is_kept(folder):
    (folder / "kernels_grid.png").write_text("of the network that was here")
    whole_run(folder, A)
    assert is_whole(folder, A)
    assert [path.name for path in folder.with_name("classic.before").iterdir()] == ["kernels_grid.png"]


def test_what_was_found_in_another_data_set_is_kept_whole(tmp_path):
    """Of a run that trains nothing the data are all that its results follow from."""
    (tmp_path / "explore").mkdir()
    for digest in ("one", "another", "another"):
        run = Run(tmp_path / "explore", False, {})
        run.plan({}, {"training data": digest})
        run.start()
        (run.results / "metrics.json").write_text(digest)
        run.finish()
    kept = {path.name: (path / "metrics.json").read_text() for path in tmp_path.iterdir()}
    assert kept == {"explore": "another", "explore.before": "one"}


def test_pictures_drawn_of_a_run_go_when_another_of_equal_settings_replaces_it(folder):
    (folder / "kernels_grid.png").write_text("of the network that was here")
    note_drawn(folder, [("CNN: kernels", folder / "kernels_grid.png")])
    whole_run(folder, A)
    assert is_whole(folder, A)
    assert [path.name for path in folder.parent.iterdir()] == ["classic"]


def test_unfinished_runs_are_set_aside_with_their_checkpoints(folder, capsys):
    for epochs in (2, 1):
        train(begun(folder, B), epochs, finished=False)
    whole_run(folder, C)
    aside = [folder / "checkpoints.unfinished", folder / "checkpoints.unfinished2"]
    assert [len(list(place.glob("*/*.pt"))) for place in aside] == [2, 2]
    said = capsys.readouterr().out
    assert all(f"{place};" in said for place in aside)
    shutil.rmtree(folder / "checkpoints")
    aside[0].replace(folder / "checkpoints")
    assert not begun(folder, B, resume=True).is_finished()


def test_a_run_that_never_came_to_a_checkpoint_leaves_nothing(folder):
    begun(folder, B).start()
    whole_run(folder, C)
    assert not (folder / "checkpoints.unfinished").exists()


# Stopped at any step


class Killed(BaseException):
    pass


OPERATIONS = [
    (Path, "replace"),
    (Path, "rmdir"),
    (Path, "mkdir"),
    (Path, "unlink"),
    (os, "replace"),
    (shutil, "rmtree"),
]


def killed_at(step: int, monkeypatch, call) -> bool:
    """Call it, but let the program end before its operation number `step` on files; False if it has not so many."""
    left = step

    def counted(operation):
        def wrapped(*arguments, **settings):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return operation(*arguments, **settings)

        return wrapped

    with monkeypatch.context() as patch:
        for place, name in OPERATIONS:
            patch.setattr(place, name, counted(getattr(place, name)))
        try:
            call()
        except Killed:
            return True
    return False


def each_step(folder: Path, monkeypatch, prepare, call):
    """Yield after `call`, of what `prepare` returns, was killed before its first, second ... operation."""
    template = folder.with_name("template")
    folder.replace(template)
    step = 0
    while True:
        for path in [path for path in folder.parent.iterdir() if path != template]:
            shutil.rmtree(path)
        shutil.copytree(template, folder)
        run = prepare()
        if not killed_at(step, monkeypatch, lambda run=run: call(run)):
            break
        visible = set(shown(folder).values())
        assert len(visible) <= 1, f"step {step} shows the results of two runs: {visible}"
        yield step
        step += 1
    assert step > 5, "there was nothing to kill"
    shutil.rmtree(template)


def trained(folder: Path, plan: dict) -> Run:
    """A run that has trained everything and written its results, and must only finish."""
    run = begun(folder, plan)
    finish, run.finish = run.finish, lambda: None
    train(run)
    run.finish = finish
    return run


def kept_runs(folder: Path) -> list[Path]:
    return [path for path in folder.parent.iterdir() if path.name.startswith("classic.before")]


@pytest.mark.parametrize("afterwards", ["it is resumed", "another follows"])
def test_a_run_killed_while_it_finishes_loses_and_mixes_nothing(afterwards, folder, monkeypatch):
    for step in each_step(folder, monkeypatch, lambda: trained(folder, B), Run.finish):
        plan = B if afterwards == "it is resumed" else C
        whole_run(folder, plan, resume=afterwards == "it is resumed")
        assert is_whole(folder, plan), f"step {step}"
        kept = {name for name, run in (("A", A), ("B", B)) for place in kept_runs(folder) if is_whole(place, run)}
        unfinished = any((folder / "checkpoints.unfinished").glob("*/*.pt"))
        assert "A" in kept, f"step {step} loses the run before"
        assert plan is B or ("B" in kept) != unfinished, f"step {step} loses the run, or doubles it"
        assert len(kept_runs(folder)) == len(kept)


def test_a_run_killed_while_it_replaces_its_equal_leaves_one_of_them(folder, monkeypatch):
    for step in each_step(folder, monkeypatch, lambda: trained(folder, A), Run.finish):
        whole_run(folder, A, resume=True)
        assert is_whole(folder, A), f"step {step}"
        assert not kept_runs(folder), f"step {step} keeps both"


def test_a_run_killed_while_it_starts_leaves_the_finished_one(folder, monkeypatch):
    for step in each_step(folder, monkeypatch, lambda: begun(folder, B), Run.start):
        assert shown(folder) == all_of(A), f"step {step}"
        whole_run(folder, C)
        assert is_whole(folder.with_name("classic.before"), A), f"step {step}"
        assert is_whole(folder, C)


def test_a_run_killed_while_it_mends_is_mended_by_the_next(folder, monkeypatch):
    for name in RESULTS[1:]:
        (folder / name).unlink()
    for step in each_step(folder, monkeypatch, lambda: begun(folder, A, resume=True), train):
        whole_run(folder, A, resume=True)
        assert is_whole(folder, A), f"step {step}"


# Results that are no longer there


@pytest.mark.parametrize("lost", [["cnn.pth"], ["report.html", "cnn_loss.png"], ["metrics.json"]], ids=" ".join)
def test_what_is_missing_is_made_again_and_nothing_else(lost, folder, capsys):
    for name in RESULTS:
        (folder / name).unlink() if name in lost else os.utime(folder / name, (1, 1))
    checkpoints = child.snapshot(folder / "checkpoints")
    run = begun(folder, A, resume=True)
    assert sorted(run.missing()) == sorted(lost)
    train(run)
    assert is_whole(folder, A)
    assert {name for name in RESULTS if (folder / name).stat().st_mtime > 1} == set(lost)
    assert child.snapshot(folder / "checkpoints") == checkpoints
    assert f"made again, as they were missing: {', '.join(sorted(lost))}" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["[]", "{}", "", "{", "null", '{"models": {}}', "[" * 100_000, "\0"], ids=range(8))
def test_metrics_that_no_run_has_written_are_made_again(content, folder):
    (folder / "metrics.json").write_text(content)
    run = begun(folder, A, resume=True)
    assert not run.is_finished()
    assert run.missing() == ["metrics.json"]
    train(run)
    assert is_whole(folder, A)


# Resuming


def refusal(folder: Path, plan: dict, **options) -> str:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(Refused) as caught:
        begun(folder, plan, resume=True, **options)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    return str(caught.value)


@pytest.fixture
def stopped(tmp_path) -> Path:
    """RECIPE, which holds a run of A that was stopped after its second epoch of two, and begun by options."""
    folder = tmp_path / "classic"
    folder.mkdir()
    train(begun(folder, A, epochs=2, lr=0.001), finished=False)
    return folder


def test_nothing_to_resume_is_refused(tmp_path):
    assert f"no run to resume in {tmp_path / 'checkpoints'}" in refusal(tmp_path, A)


def test_options_are_remembered_and_may_be_added_to(stopped):
    assert begun(stopped, A, resume=True).options == {"epochs": 2, "lr": 0.001}
    assert begun(stopped, A, resume=True, seeds=2).options == {"epochs": 2, "lr": 0.001, "seeds": 2}
    train(begun(stopped, trainings(range(2)), resume=True, seeds=2), finished=False)
    assert begun(stopped, A, resume=True).options["seeds"] == 2


@pytest.mark.parametrize(
    ("begun_by", "asked"),
    [({}, {"seed": 1}), ({"seed": 2}, {"seed": 0}), ({}, {"models": ["cnn"]}), ({"models": ["a"]}, {"models": ["b"]})],
    ids=str,
)
def test_trainings_that_were_never_begun_are_not_started_by_resuming(begun_by, asked, tmp_path):
    train(begun(tmp_path, A, **begun_by), finished=False)
    assert f"--{next(iter(asked))} " in refusal(tmp_path, A, **asked)
    assert "the run that is to be resumed has" in refusal(tmp_path, A, **asked)


def test_networks_may_be_named_in_another_order(tmp_path):
    train(begun(tmp_path, A, models=["ffn", "cnn"]), finished=False)
    assert begun(tmp_path, A, resume=True, models=["cnn", "ffn"]).resume


def test_a_file_of_the_users_own_is_named_again_to_be_run_again(tmp_path):
    train(begun(tmp_path, A, network="my_net.py:Net"), finished=False)
    assert "begun with --network my_net.py:Net; say so again" in refusal(tmp_path, A)
    assert begun(tmp_path, A, resume=True, network="my_net.py:Net").options["network"] == "my_net.py:Net"


def changed(group: str, **settings) -> dict:
    return {name: {**training, group: {**training.get(group, {}), **settings}} for name, training in A.items()}


def test_a_run_goes_on_by_as_many_threads_as_it_was_begun_by(tmp_path):
    plan = changed("machine", threads=3)
    train(begun(tmp_path, plan), finished=False)
    assert begun(tmp_path, plan, resume=True).threads == 3
    assert Run(tmp_path / "new", False, {}).threads is None


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (changed("training", lr=0.2), ["lr was 0.001 and is 0.2"]),
        (changed("training", lr=0.2, batch_size=16), ["lr was 0.001 and is 0.2", "batch_size was 64 and is 16"]),
        (changed("network", kernels=[5]), ["kernels was [4] and is [5]"]),
        (changed("network", dropout=0.5), ["dropout was None and is 0.5"]),
        (changed("network", sha256="another file"), ["sha256 was None and is another file"]),
        (changed("machine", precision="bf16"), ["precision was fp32 and is bf16"]),
        (changed("machine", card="another"), ["card was None and is another"]),
        (changed("training", epochs=1), ["epochs was 2 and is 1"]),
        (changed("data", digest="x"), ["digest was None and is x"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_other_settings_are_refused_with_every_difference(plan, words, stopped):
    message = refusal(stopped, plan)
    assert message.startswith("a run cannot be resumed with other settings: ")
    assert message.count(" was ") - 1 == len(words)  # one more: "it was started with"
    assert all(word in message for word in words)


def test_more_epochs_are_allowed_for_an_unfinished_run_alone(stopped):
    train(begun(stopped, changed("training", epochs=5), resume=True), epochs=3, finished=False)
    assert "epochs was 5 and is 2" in refusal(stopped, A), "three are trained"
    train(begun(stopped, changed("training", epochs=3), resume=True), epochs=3)
    message = refusal(stopped, changed("training", epochs=9))
    assert message.startswith("a finished trial keeps no optimizer's state, so a run cannot be resumed")
    assert "epochs was 3 and is 9" in message


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle"])
def test_more_epochs_are_not_allowed_where_the_schedule_is_laid_out_over_them(schedule, tmp_path):
    train(begun(tmp_path, trainings(schedule=schedule)), epochs=1, finished=False)
    assert "epochs was 2 and is 5" in refusal(tmp_path, trainings(schedule=schedule, epochs=5))


def test_more_seeds_are_trained_beside_those_that_are_finished(folder):
    first = (folder / "checkpoints" / "cnn-seed0" / "epoch0002.pt").read_bytes()
    more = trainings(range(3))
    run = begun(folder, more, resume=True)
    assert not run.is_finished()
    train(run, finished=False)
    assert (folder / "checkpoints" / "cnn-seed0" / "epoch0002.pt").read_bytes() == first
    assert "epochs was 2 and is 5" in refusal(folder, trainings(range(3), epochs=5)), "seed 0 has no optimizer's state"
    train(begun(folder, more, resume=True))
    assert is_whole(folder, more)


def crafted(key: str, value) -> dict:
    notes = {"format": 2, "options": {}, "trainings": A, "files": {}}
    return notes | {key: value}


NOTES = [
    *["", "{", "[]", "7", "[" * 100_000, "{}", '{"format": 1}'],
    *(crafted("format", value) for value in (1, None, [])),
    *(crafted("options", value) for value in (None, [], {"epochs": "many"}, {"epochs": 0}, {"epochs": None})),
    *(crafted("options", value) for value in ({"seeds": [1, 2]}, {"help": True}, {"colour": "red"})),
    *(crafted("options", value) for value in ({"lr": {"a": 1}}, {"augment": "yes"}, {"models": []}, {"": 1})),
    *(crafted("trainings", value) for value in (None, [], {"cnn-seed0": 5}, {"cnn-seed0": {"training": 5}})),
    *(crafted("files", value) for value in (None, 5, [5], [["cnn.pth"]])),
    *(crafted("trainings", {name: {}}) for name in ("../cnn-seed0", "..", "a/b", "")),
]


@pytest.mark.parametrize("notes", NOTES, ids=range(len(NOTES)))
def test_a_damaged_or_crafted_run_json_is_refused(notes, stopped):
    text = notes if isinstance(notes, str) else json.dumps(notes)
    (stopped / "checkpoints" / "run.json").write_text(text)
    assert "run.json is missing or damaged; leave it out to start anew" in refusal(stopped, A)
    whole_run(stopped, B)
    assert any((stopped / "checkpoints.unfinished").glob("*/*.pt")), "its checkpoints are kept all the same"


def test_a_crafted_run_json_cannot_name_a_file_to_be_imported(stopped):
    notes = crafted("options", {"network": "os.py:system"})
    (stopped / "checkpoints" / "run.json").write_text(json.dumps(notes))
    assert "--network os.py:system; say so again" in refusal(stopped, A)


def test_a_run_that_trains_nothing_is_not_resumed_on_other_data(tmp_path):
    def planned(digest: str, resume: bool) -> Run:
        run = Run(tmp_path, resume, {})
        run.plan({}, {"training data": digest})
        return run

    run = planned("one", resume=False)
    run.start()
    (run.results / "metrics.json").write_text("{}")
    run.finish()
    assert planned("one", resume=True).is_finished()
    with pytest.raises(Refused, match="--data-dir: is another data set than this run's"):
        planned("another", resume=True)
