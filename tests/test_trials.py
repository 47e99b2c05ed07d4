"""One network from one seed, as a unit of work: what is stored of it, when it is finished, and what damage costs."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch.nn import functional as F

from fmnist import checkpoints, data, evaluation, metrics, results, trials, workers
from fmnist.config import Network, Recipe, TrainConfig
from fmnist.data import FashionMNIST
from fmnist.device import Machine
from fmnist.errors import Diverged, Failed, Refused
from fmnist.learners import TorchLearner
from fmnist.trials import Trial, read_predictions
from recipes import RECIPES
from tests.helpers import tiny
from tests.helpers.typed import misfits
from tests.test_training import without_times

MADE = [torch.from_numpy(array) for array in tiny.make(train=120, test=40)]
DATASET = FashionMNIST(MADE[0], MADE[1].long(), MADE[2], MADE[3].long(), "made up")
NETWORK = Network("ffn", "FFN", "ffn:FFN", {"hidden": [8]}, TrainConfig(epochs=3, batch_size=20, validation=0.2))
RECIPE = Recipe("small", "", "", networks=(NETWORK,))
MACHINE = Machine(torch.device("cpu"), "fp32", threads=1)
IMAGES = MADE[2].numpy()


def planned(folder: Path, seeds: int = 1, recipe: Recipe = RECIPE) -> list[Trial]:
    return trials.plan(recipe, seeds, DATASET, MACHINE, folder)


@pytest.fixture
def trial(tmp_path) -> Trial:
    """A finished trial."""
    (trial,) = planned(tmp_path)
    trials.train(trial, DATASET)
    return trial


@pytest.fixture
def no_steps(monkeypatch):
    monkeypatch.setattr(TorchLearner, "step", lambda *_: pytest.fail("it trains"))


@pytest.fixture
def no_scores(monkeypatch, no_steps):
    monkeypatch.setattr(evaluation, "evaluate", lambda *_: pytest.fail("it is scored once more"))


# What is stored


def test_a_finished_trial_is_all_in_its_folder(trial):
    files = {path.name for path in trial.folder.iterdir()}
    assert files == {"trial.json", "predictions.npz", "epoch0003.pt"}
    assert trial.folder.name == "ffn-seed0"
    assert trial.is_finished()


def test_the_record_holds_what_it_promises(trial):
    record = json.loads((trial.folder / "trial.json").read_text(), parse_constant=pytest.fail)
    assert misfits(record, metrics.Record, "record") == []
    facts = ("format", "name", "title", "recipe", "seed", "release")
    assert [record[key] for key in facts] == [1, "ffn", "FFN", "small", 0, "own"]
    assert record["settings"] == {
        **json.loads(json.dumps(NETWORK.settings)),
        "machine": {"device": "cpu", "precision": "fp32", "threads": 1},
        "data": DATASET.digests(),
    }
    assert record["cost"]["parameters"] == 784 * 8 + 8 + 8 * 10 + 10
    assert len(record["epochs"]) == 3
    best = record["summary"]["best_epoch"]
    assert best == next(n for n, row in enumerate(record["epochs"], 1) if row.get("best"))
    held_out = data.training_data(DATASET, 0.2, 0).validation_indices
    model = NETWORK.build().eval()
    model.load_state_dict(trials.weights(trial))
    correct = model(MADE[0][held_out]).argmax(dim=1) == DATASET.train_labels[held_out]
    assert record["epochs"][best - 1]["validation_accuracy"] == pytest.approx(correct.float().mean().item())


def test_predictions_are_those_of_the_weights_that_were_scored(trial):
    """Against the network, rebuilt by hand from the checkpoint."""
    model = NETWORK.build().eval()
    model.load_state_dict(trials.weights(trial))
    with torch.inference_mode():
        logits = model(MADE[2])
    probabilities, labels = read_predictions(trial.folder)
    assert (probabilities.dtype, labels.dtype) == (np.float32, np.int64)
    np.testing.assert_allclose(probabilities, logits.softmax(dim=1).numpy(), atol=1e-6)
    assert labels.tolist() == MADE[3].tolist()
    record = trials.read_record(trial.folder)
    assert record["summary"]["test_loss"] == pytest.approx(
        F.cross_entropy(logits, DATASET.test_labels).item(), rel=1e-5
    )


def test_what_is_read_again_is_what_was_stored(trial, monkeypatch, tmp_path):
    told = []
    monkeypatch.setattr(trials, "store", lambda _trial, trained: told.append(trained))
    (again,) = planned(tmp_path / "again")
    trials.train(again, DATASET)
    (own,), read = told, trials.read(trial, IMAGES)
    assert (read.network, read.best_epoch, read.cost) == (own.network, own.best_epoch, own.cost)
    assert without_times(read.epochs) == without_times(own.epochs)
    for name in trials.SCORES:
        assert getattr(read.evaluation, name) == getattr(own.evaluation, name)
    assert (read.evaluation.confusion == own.evaluation.confusion).all()
    assert read.evaluation.per_class == own.evaluation.per_class
    for name in ("images", "labels", "probabilities", "classes", "correct"):
        assert (getattr(read.evaluation.predictions, name) == getattr(own.evaluation.predictions, name)).all()


def test_a_trial_whose_test_loss_is_not_finite_has_diverged(tmp_path, monkeypatch):
    evaluate = evaluation.evaluate
    monkeypatch.setattr(evaluation, "evaluate", lambda *a, **b: replace(evaluate(*a, **b), test_loss=float("nan")))
    (one,) = planned(tmp_path)
    with pytest.raises(Diverged, match="test loss is no longer a finite number"):
        trials.train(one, DATASET)
    assert not one.is_finished()


def test_predictions_stay_in_their_file_until_they_are_asked_for(tmp_path, monkeypatch):
    """Of several seeds only the first one's are: a run of 10,000 trials would not fit into memory."""
    both = planned(tmp_path, seeds=3)
    for trial in both:
        trials.train(trial, DATASET)
    read, load = [], np.load
    monkeypatch.setattr(np, "load", lambda path, **more: (read.append(Path(path).parent.name), load(path, **more))[1])
    trained = trials.read_all(both, DATASET)
    assert [run.network.training.seed for run in trained["ffn"]] == [0, 1, 2]
    assert read == []
    results.collect(RECIPE, trained, DATASET, MACHINE, None)
    assert set(read) == {"ffn-seed0"}


def test_another_trial_in_the_place_of_one_that_was_read_is_read_anew(trial):
    before = read_predictions(trial.folder)[0]
    np.savez(trial.folder / "predictions.npz", probabilities=1 - before, labels=MADE[3].numpy())
    assert (read_predictions(trial.folder)[0] == 1 - before).all()


# When it is finished


def test_a_finished_trial_is_not_touched(trial, no_scores, capsys):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in trial.folder.iterdir()}
    trials.train(trial, DATASET)
    assert "FFN, seed 0, trained already" in capsys.readouterr().out
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in trial.folder.iterdir()} == before


@pytest.mark.parametrize("options", [{}, {"jobs": 2}], ids=["in turn", "side by side"])
def test_what_a_kill_kept_a_finished_trial_from_dropping_is_dropped_by_the_next_run(options, tmp_path, monkeypatch):
    (one,) = planned(tmp_path)
    with monkeypatch.context() as killed:
        killed.setattr(checkpoints.Checkpoints, "finish", lambda _: None)
        trials.train(one, DATASET)
    assert one.is_finished()
    assert len(one.checkpoints.paths()) > 1
    assert workers.train_all([one], DATASET, options, tmp_path) == {}
    (path,) = one.checkpoints.paths()
    assert checkpoints.load(path, "finished")["finished"]


@pytest.mark.parametrize(
    "change",
    [
        {"network": replace(NETWORK, arguments={"hidden": [9]})},
        {"machine": MACHINE._replace(threads=2)},
        {"digests": {"training data": "x"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_it_is_finished_by_its_own_settings_alone(change, trial):
    assert not replace(trial, **change).is_finished()


RECORDS = ["", "{", "[]", "7", "null", "[" * 100_000, "{}", '{"format": 1}']


@pytest.mark.parametrize("name", ["trial.json", "predictions.npz"])
@pytest.mark.parametrize("content", [None, *RECORDS], ids=range(len(RECORDS) + 1))
def test_a_damaged_result_is_made_again_from_the_weights(name, content, trial, no_steps):
    path = trial.folder / name
    before = {path.name: path.read_bytes() for path in trial.folder.iterdir()}
    path.unlink() if content is None else path.write_text(content)
    assert not trial.is_finished()
    trials.train(trial, DATASET)
    assert trial.is_finished()
    assert {path.name: path.read_bytes() for path in trial.folder.iterdir()} == before


@pytest.mark.parametrize("key", ["summary", "epochs", "settings", "format"])
@pytest.mark.parametrize("value", [None, 7, [], {}], ids=str)
def test_a_crafted_record_is_none(key, value, trial):
    record = json.loads((trial.folder / "trial.json").read_text())
    (trial.folder / "trial.json").write_text(json.dumps(record | {key: value}))
    assert not trial.is_finished()


def test_a_kill_before_the_optimizers_state_has_gone_is_made_up_for(tmp_path, monkeypatch):
    (trial,) = planned(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "finish", lambda _self: None)
        trials.train(trial, DATASET)
    assert len(trial.checkpoints.paths()) == 2
    trials.train(trial, DATASET)
    (path,) = trial.checkpoints.paths()
    assert checkpoints.load(path)["learner"].keys() == {"model"}


def test_damaged_predictions_are_refused_in_one_line_when_they_are_drawn(trial):
    path = trial.folder / "predictions.npz"
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
    with pytest.raises(Refused, match=r"predictions\.npz is missing or damaged: remove it, then --resume") as caught:
        _ = trials.read(trial, IMAGES).evaluation.confusion
    assert "\n" not in str(caught.value)
    np.savez(path, probabilities=np.zeros((3, 10)), labels=np.zeros(4))
    with pytest.raises(Refused):
        read_predictions(trial.folder)


def test_weights_that_have_gone_are_refused_in_one_line(trial):
    (trial.folder / "epoch0003.pt").unlink()
    with pytest.raises(Refused, match="holds no weights any more; leave out --resume"):
        trials.weights(trial)


def test_weights_of_an_earlier_epoch_are_not_taken_for_those_that_were_scored(tmp_path, monkeypatch):
    """A kill came before the checkpoints were tidied, and the newest has been damaged."""
    (trial,) = planned(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "finish", lambda _self: None)
        trials.train(trial, DATASET)
    newest, _ = trial.checkpoints.paths()
    newest.write_bytes(newest.read_bytes()[:-500])
    with pytest.raises(Refused, match=r"an earlier epoch: remove .*trial\.json, then --resume"):
        trials.weights(trial)
    (trial.folder / "trial.json").unlink()
    trials.train(trial, DATASET)
    assert trials.weights(trial).keys() == NETWORK.build().state_dict().keys()


# Alone, and as long as it is wanted


def test_a_trial_waits_for_another_process_that_is_still_at_it(trial, no_scores):
    with FileLock(trial.folder / ".lock"):
        waits = threading.Thread(target=trials.train, args=(trial, DATASET), daemon=True)
        waits.start()
        waits.join(0.3)
        assert waits.is_alive()
    waits.join(10)
    assert not waits.is_alive()
    assert not (trial.folder / ".lock").exists()


def test_a_trial_that_is_given_up_is_saved_and_goes_on_later(trial, tmp_path):
    (other,) = planned(tmp_path / "other")
    epochs = iter([True, True, False])
    with pytest.raises(Failed, match="given up after epoch 2, which is saved"):
        trials.train(other, DATASET, is_wanted=lambda: next(epochs))
    assert not other.is_finished()
    trials.train(other, DATASET)
    whole, parts = (trials.read(one, IMAGES) for one in (trial, other))
    assert without_times(parts.epochs) == without_times(whole.epochs)
    assert (other.folder / "predictions.npz").read_bytes() == (trial.folder / "predictions.npz").read_bytes()


def test_what_numpy_trains_says_the_same_of_its_machine_whatever_torch_computes_on(tmp_path):
    """So that --compare takes equal networks for equal, and --resume asks for no card."""
    evolution = RECIPES["evolution"]
    machine = Machine(torch.device("cuda"), "bf16", threads=3)
    by_hand, *others = trials.plan(evolution, 1, DATASET, machine, tmp_path)
    assert by_hand.machine == Machine(torch.device("cpu"), "fp32", threads=3)
    assert {trial.machine for trial in others} == {machine}


def test_nothing_to_learn_from_is_refused_before_any_trial_is_planned(tmp_path):
    network = replace(NETWORK, training=replace(NETWORK.training, validation=0.001))
    with pytest.raises(Refused, match="--validation"):
        planned(tmp_path, recipe=replace(RECIPE, networks=(network,)))
    assert not any(tmp_path.iterdir())
