"""The training loop against a plain one written out here: same seeds, same batches, equal weights."""

import json
from dataclasses import replace
from itertools import count

import pytest
import torch
import torch.nn.functional as F

from cnn import CNN
from ffn import FFN
from fmnist import data, training
from fmnist.checkpoints import Checkpoints
from fmnist.config import SCHEDULES, TrainConfig
from fmnist.device import Machine, seed_epoch
from fmnist.errors import Diverged, Failed, Refused
from fmnist.learners import TorchLearner
from fmnist.training import Progress, fit, is_stalled, make_batches, selected_epoch, steps_per_epoch
from tests.helpers import tiny

CPU = torch.device("cpu")
FP32 = Machine(CPU, "fp32")
MADE = tiny.make(train=70, test=10)
IMAGES = torch.from_numpy(MADE.train_images)
LABELS = torch.from_numpy(MADE.train_labels).long()
SETTINGS = {"network": {"class": "ffn:FFN"}, "training": {}}


def split(config: TrainConfig) -> data.TrainingData:
    return data.TrainingData(IMAGES, LABELS, *data.split(len(IMAGES), config.validation, config.seed))


def learner(config: TrainConfig, model: torch.nn.Module | None = None, precision: str = "fp32") -> TorchLearner:
    seed_epoch(config.seed, 0)
    steps = config.epochs * steps_per_epoch(len(split(config).train_indices), config.batch_size)
    return TorchLearner(model or FFN([16], dropout=0.3), config, Machine(CPU, precision), steps)


def trained(config: TrainConfig, folder, model=None) -> tuple[TorchLearner, Progress]:
    """Train as the product does; return the learner and how far it came."""
    own = learner(config, model)
    return own, fit(own, split(config), config, Checkpoints(folder, "net", SETTINGS), Progress())


def gone_on_with(own: TorchLearner, config: TrainConfig, folder) -> Progress:
    """Resume the training in `folder` with another learner."""
    kept = Checkpoints(folder, "net", SETTINGS)
    return fit(own, split(config), config, kept, training.resume(own, config, kept))


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def without_times(history: list[dict]) -> list[dict]:
    return [{key: row[key] for key in row.keys() - {"seconds", "images_per_second"}} for row in history]


# The loop


def plain_loop(model: torch.nn.Module, optimizer: torch.optim.Optimizer, config: TrainConfig) -> list:
    """Train `model` with no more than PyTorch's tutorial has; return each epoch's loss per image, and accuracy."""
    rows = []
    train_indices, _ = data.split(len(IMAGES), 0, config.seed)
    model.pixels = torch.nn.Identity()
    for epoch in range(1, config.epochs + 1):
        torch.manual_seed(config.seed * 100_003 + epoch)
        order = train_indices[torch.randperm(len(IMAGES))]
        total, correct = 0.0, 0
        model.train()
        for start in range(0, len(order), config.batch_size):
            batch = order[start : start + config.batch_size]
            logits = model((IMAGES[batch][:, None].float() / 255 - 0.2860) / 0.3530)
            loss = F.cross_entropy(logits, LABELS[batch], label_smoothing=config.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(batch)
            correct += int((logits.argmax(1) == LABELS[batch]).sum())
        rows.append((total / len(IMAGES), correct / len(IMAGES)))
    return rows


def seeded(build, config: TrainConfig) -> torch.nn.Module:
    torch.manual_seed(config.seed * 100_003)
    return build()


OPTIMIZERS = {
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.05}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.001}),
    "adadelta": (torch.optim.Adadelta, {}),
}
BUILDS = {"ffn": lambda: FFN([16], dropout=0.3), "cnn": lambda: CNN([3, 4], dense=[8], dropout=0.2)}


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fit_takes_the_steps_of_a_plain_loop(optimizer, build, tmp_path):
    """To 1e-4 only: `Pixels` and the fused optimizers round otherwise than the ones written out."""
    make, settings = OPTIMIZERS[optimizer]
    lr = 1.0 if optimizer == "adadelta" else 0.01
    config = TrainConfig(epochs=3, batch_size=16, lr=lr, optimizer=optimizer, label_smoothing=0.1, seed=4, **settings)
    own, progress = trained(config, tmp_path, seeded(build, config))
    plain = seeded(build, config)
    rows = plain_loop(plain, make(plain.parameters(), lr=lr, **settings), config)
    torch.testing.assert_close(own.model.state_dict(), plain.state_dict(), rtol=1e-3, atol=1e-4)
    for row, (loss, accuracy) in zip(progress.history, rows, strict=True):
        assert row["train_loss"] == pytest.approx(loss, rel=1e-4)
        assert row["train_accuracy"] == pytest.approx(accuracy)


def test_equal_weights_bit_for_bit_where_the_plain_loop_computes_alike(tmp_path):
    """Same batches, same dropout, same arithmetic: nothing in `fit` adds to or leaves out a step."""
    config = TrainConfig(epochs=2, batch_size=16, optimizer="sgd", lr=0.1, seed=2)
    own, _ = trained(config, tmp_path)
    plain = seeded(BUILDS["ffn"], config)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, fused=True)
    for epoch in (1, 2):
        seed_epoch(2, epoch)
        for batch in data.split(70, 0, 2)[0][torch.randperm(70)].split(16):
            optimizer.zero_grad()
            F.cross_entropy(plain(IMAGES[batch]), LABELS[batch]).backward()
            optimizer.step()
    assert equal(own.model.state_dict(), plain.state_dict())


def test_losses_are_weighted_by_image_when_the_last_batch_is_ragged(tmp_path):
    """70 images in batches of 64 and 6: with a rate of almost nothing, the epoch's loss is that of the whole set."""
    config = TrainConfig(epochs=1, batch_size=64, lr=1e-9, optimizer="sgd")
    own, progress = trained(config, tmp_path, FFN([16], dropout=0))
    with torch.no_grad():
        losses = F.cross_entropy(own.model(IMAGES), LABELS, reduction="none")
    assert progress.history[0]["train_loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
    seed_epoch(0, 1)
    order = data.split(70, 0, 0)[0][torch.randperm(70)]
    unweighted = (losses[order[:64]].mean() + losses[order[64:]].mean()).item() / 2
    assert abs(unweighted - losses.mean().item()) > 1e-4, "the two means agree, so nothing is told apart"


def test_history_of_an_epoch(tmp_path, capsys):
    _, progress = trained(TrainConfig(epochs=2, batch_size=32, validation=0.2), tmp_path)
    first = progress.history[0]
    assert [row.keys() for row in progress.history] == [
        {
            *("train_loss", "train_accuracy", "train_loss_by_step", "steps", "seconds", "images_per_second"),
            *("validation_loss", "validation_accuracy"),
        }
    ] * 2
    assert first["steps"] == len(first["train_loss_by_step"]) == 2  # 56 images: a step of 32 and one of 24
    by_step = first["train_loss_by_step"]
    assert first["train_loss"] == pytest.approx((32 * by_step[0] + 24 * by_step[1]) / 56)
    assert first["images_per_second"] == pytest.approx(56 / first["seconds"])
    json.dumps(progress.history, allow_nan=False)
    lines = capsys.readouterr().out.splitlines()
    for line, row in zip(lines, progress.history, strict=True):
        for words in (f"{row['train_loss']:.4f}", f"{row['validation_loss']:.4f}", "images/s"):
            assert words in line


@pytest.mark.parametrize(("validation", "key"), [(0.2, "validation_loss"), (0.0, "train_loss")])
def test_the_learner_is_told_of_the_loss_of_every_epoch(validation, key, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(TorchLearner, "end_epoch", lambda _, loss: told.append(loss))
    config = TrainConfig(epochs=3, batch_size=16, schedule="plateau", validation=validation)
    _, progress = trained(config, tmp_path)
    assert told == [row[key] for row in progress.history]


def test_seconds_are_taken_when_the_device_has_done_its_work(tmp_path, monkeypatch):
    """A device computes while Python goes on: each read of this clock is a second, waiting for the device nine more."""
    clock = count()

    def wait(_device) -> None:
        for _ in range(9):
            next(clock)

    monkeypatch.setattr(training, "synchronize", wait)
    monkeypatch.setattr(training.time, "perf_counter", lambda: float(next(clock)))
    _, progress = trained(TrainConfig(epochs=2), tmp_path)
    assert [row["seconds"] for row in progress.history] == [10, 10]


# Validation


def test_the_validation_images_are_never_trained_on(tmp_path):
    seen = []

    class Spy(TorchLearner):
        def step(self, images, labels):
            seen.extend(images[:, 0, 0].tolist())
            return super().step(images, labels)

    marked = IMAGES.clone()
    marked[:, 0, 0] = torch.arange(70, dtype=torch.uint8)  # the first pixel says which image it is
    config = TrainConfig(epochs=3, batch_size=16, validation=0.3)
    _, _, train_indices, validation_indices = split(config)
    assert len(validation_indices) == 21
    training_data = data.TrainingData(marked, LABELS, train_indices, validation_indices)
    fit(Spy(FFN([8]), config, FP32, 12), training_data, config, Checkpoints(tmp_path, "net", SETTINGS), Progress())
    assert sorted(seen) == sorted(train_indices.tolist() * 3)
    assert not set(seen) & set(validation_indices.tolist())


def test_validation_figures_by_hand(tmp_path):
    config = TrainConfig(epochs=1, batch_size=16, validation=0.3)
    own, progress = trained(config, tmp_path)
    held_out = split(config).validation_indices
    with torch.no_grad():
        logits = own.model.eval()(IMAGES[held_out])
    assert progress.history[0]["validation_loss"] == pytest.approx(
        F.cross_entropy(logits, LABELS[held_out]).item(), rel=1e-5
    )
    correct = (logits.argmax(1) == LABELS[held_out]).float().mean().item()
    assert progress.history[0]["validation_accuracy"] == pytest.approx(correct)


def rows(losses: list[float], accuracies: list[float] | None = None) -> list[dict]:
    pairs = zip(losses, accuracies or losses, strict=True)
    return [{"validation_loss": loss, "validation_accuracy": accuracy} for loss, accuracy in pairs]


@pytest.mark.parametrize(
    ("accuracies", "losses", "best"),
    [
        ([0.7, 0.9, 0.8], [0.5, 0.4, 0.3], 2),  # the accuracy decides
        ([0.9, 0.8, 0.9, 0.9], [0.3, 0.1, 0.2, 0.4], 3),  # of equals, the loss
        ([0.9, 0.9, 0.1], [0.2, 0.2, 0.1], 2),  # of equals in both, the later
        ([0.0], [9.9], 1),
    ],
)
def test_which_epoch_is_selected(accuracies, losses, best):
    history = rows(losses, accuracies)
    assert selected_epoch(history, TrainConfig()) == best
    assert selected_epoch(history, TrainConfig(select_best=False)) is None
    assert selected_epoch([{"train_loss": loss} for loss in losses], TrainConfig()) is None


SEESAW = TrainConfig(epochs=7, batch_size=16, lr=0.3, optimizer="sgd", validation=0.3, seed=6)  # best: its fifth epoch


def test_the_best_epoch_is_scored_as_if_training_had_ended_there(tmp_path):
    own, progress = trained(SEESAW, tmp_path)
    best = selected_epoch(progress.history, SEESAW)
    assert 1 < best < SEESAW.epochs, "the best is the first or the last, so nothing is told apart"
    short, _ = trained(replace(SEESAW, epochs=best), tmp_path / "short")
    assert not equal(own.weights(), short.weights())
    training.select(own, progress)
    assert equal(own.weights(), short.weights())


@pytest.mark.parametrize("settings", [{"validation": 0.0}, {"select_best": False}], ids=str)
def test_the_last_epoch_is_scored_where_none_is_selected(settings, tmp_path):
    own, progress = trained(replace(SEESAW, **settings), tmp_path)
    last = {name: tensor.clone() for name, tensor in own.weights().items()}
    training.select(own, progress)
    assert progress.best_state == {}
    assert equal(own.weights(), last)


# Stopping early


@pytest.mark.parametrize(
    ("losses", "patience", "stalled"),
    [
        ([3, 2, 1], 1, False),
        ([3, 2, 2], 1, True),  # as good is not better
        ([3, 1, 2], 2, False),
        ([3, 1, 2, 1.5], 2, True),
        ([3, 1, 2, 0.9], 2, False),
        ([1, 2], 2, False),  # there must be something to fall behind of
        ([1, 2, 3], 0, False),
        ([], 1, False),
    ],
)
def test_training_is_stalled_after_so_many_epochs_without_a_new_minimum(losses, patience, stalled):
    assert is_stalled(rows(losses), patience) is stalled
    assert not is_stalled([{"train_loss": 1.0}] * 5, patience)


PATIENT = replace(SEESAW, epochs=30, patience=2)


def epochs_by_hand(losses: list[float], patience: int) -> int:
    """After how many epochs a training ends that counts how long ago its best was."""
    best, since = float("inf"), 0
    for epoch, loss in enumerate(losses, start=1):
        best, since = (loss, 0) if loss < best else (best, since + 1)
        if since == patience:
            return epoch
    return len(losses)


def test_a_training_without_progress_stops_and_stays_stopped_when_it_is_resumed(tmp_path):
    _, endless = trained(replace(PATIENT, patience=0), tmp_path / "endless")
    expected = epochs_by_hand([row["validation_loss"] for row in endless.history], 2)
    assert 2 < expected < 30, "it never stalls, so nothing is told apart"
    own, progress = trained(PATIENT, tmp_path)
    assert without_times(progress.history) == without_times(endless.history[:expected])

    again = learner(PATIENT)
    resumed = gone_on_with(again, PATIENT, tmp_path)
    assert resumed.history == progress.history
    assert equal(again.weights(), own.weights())


# Batches


def test_every_image_is_in_one_batch_and_the_order_follows_from_seed_and_epoch():
    indices = torch.arange(100, 170)
    seed_epoch(1, 5)
    first = make_batches(indices, 16)
    assert [len(batch) for batch in first] == [16, 16, 16, 16, 6]
    assert sorted(torch.cat(first).tolist()) == list(range(100, 170))
    seed_epoch(1, 5)
    assert all(torch.equal(a, b) for a, b in zip(first, make_batches(indices, 16), strict=True))
    for seed, epoch in ((1, 6), (2, 5)):
        seed_epoch(seed, epoch)
        assert not torch.equal(first[0], make_batches(indices, 16)[0])


def test_a_last_batch_of_one_joins_the_one_before():
    assert [len(batch) for batch in make_batches(torch.arange(33), 16)] == [16, 17]
    assert [len(batch) for batch in make_batches(torch.arange(1), 16)] == [1]
    assert [len(batch) for batch in make_batches(torch.arange(3), 1)] == [1, 1, 1]


def test_batch_norm_meets_no_batch_of_one(tmp_path):
    model = FFN([8], norm="before")
    trained(TrainConfig(epochs=1, batch_size=23), tmp_path, model)  # 70 = 3 * 23 + 1
    assert int(model.norm1.num_batches_tracked) == 3


@pytest.mark.parametrize("images", [1, 2, 15, 16, 17, 31, 32, 33, 54_000])
@pytest.mark.parametrize("batch_size", [1, 2, 11, 16])
def test_the_schedule_knows_the_number_of_batches(images, batch_size):
    assert steps_per_epoch(images, batch_size) == len(make_batches(torch.arange(images), batch_size))


# What goes wrong


def test_a_loss_that_is_no_number_is_named_with_epoch_and_step(tmp_path):
    class Breaks(TorchLearner):
        steps = 0

        def step(self, images, labels):
            self.steps += 1
            loss, correct = super().step(images, labels)
            return (loss * float("nan") if self.steps == 8 else loss), correct

    config = TrainConfig(epochs=3, batch_size=16)  # five steps an epoch: the eighth is the third of the second
    own, kept = Breaks(FFN([8]), config, FP32, 15), Checkpoints(tmp_path, "net", SETTINGS)
    with pytest.raises(Failed, match=r"epoch 2, step 3; the checkpoint of epoch 1 is kept; a smaller --lr") as caught:
        fit(own, split(config), config, kept, Progress())
    assert "\n" not in str(caught.value)
    assert [path.name for path in kept.paths()] == ["epoch0001.pt", "epoch0000.pt"]
    assert all(tensor.isfinite().all() for tensor in kept.newest()["learner"]["model"].values())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_the_first_loss_that_is_not_finite_counts(bad):
    with pytest.raises(Failed, match="epoch 7, step 2;"):
        training.check_finite(torch.tensor([1.0, bad, 2.0, bad]), {}, 7)
    with pytest.raises(Failed, match="epoch 7, step 3;"):
        training.check_finite(torch.ones(3), {"counter": torch.tensor(1), "weight": torch.tensor([1.0, bad])}, 7)
    training.check_finite(torch.tensor([1.0, 1e38]), {"weight": torch.tensor([1e38])}, 7)


def test_a_validation_loss_that_is_not_finite_ends_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "validate", lambda *_: {"validation_loss": float("inf"), "validation_accuracy": 0.1})
    with pytest.raises(Diverged, match="validation loss is no longer a finite number after epoch 1"):
        trained(SEESAW, tmp_path)


# Resume, in-process; tests/test_faults_training.py kills real processes


@pytest.mark.parametrize(
    "settings",
    [*({"schedule": name} for name in SCHEDULES), {"cutout": 5}],
    ids=str,
)
def test_a_stop_and_a_resume_end_in_the_same_weights_and_optimizer(settings, tmp_path):
    config = TrainConfig(epochs=5, batch_size=16, lr=0.01, augment=True, validation=0.2, seed=3, **settings)
    whole, unbroken = trained(config, tmp_path / "whole")

    kept = Checkpoints(tmp_path / "parts", "net", SETTINGS)
    fit(learner(config), split(config), replace(config, epochs=2), kept, Progress())
    torch.rand(9)  # another process would have drawn other numbers
    second = learner(config, FFN([16], dropout=0.3))
    resumed = gone_on_with(second, config, tmp_path / "parts")

    assert equal(second.weights(), whole.weights())
    for ours, theirs in zip(second.optimizer.state.values(), whole.optimizer.state.values(), strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(torch.as_tensor(ours[key]), torch.as_tensor(theirs[key])) for key in ours)
    assert second.schedule.state_dict() == whole.schedule.state_dict()
    assert without_times(resumed.history) == without_times(unbroken.history)
    assert resumed.best_state.keys() == whole.weights().keys()
    assert equal(resumed.best_state, unbroken.best_state)


def test_weights_selected_before_a_stop_are_still_there_after_it(tmp_path):
    _, unbroken = trained(SEESAW, tmp_path / "whole")
    trained(replace(SEESAW, epochs=6), tmp_path / "parts")
    resumed = gone_on_with(learner(SEESAW), SEESAW, tmp_path / "parts")
    assert selected_epoch(resumed.history, SEESAW) == selected_epoch(unbroken.history, SEESAW) < 6
    assert equal(resumed.best_state, unbroken.best_state)


def test_of_a_finished_training_the_scored_weights_are_had_again(tmp_path):
    own, progress = trained(SEESAW, tmp_path)
    training.select(own, progress)
    Checkpoints(tmp_path, "net", SETTINGS).finish()
    again = learner(SEESAW, FFN([16], dropout=0.3))
    resumed = gone_on_with(again, SEESAW, tmp_path)
    training.select(again, resumed)
    assert equal(again.weights(), own.weights())
    assert resumed.history == progress.history


def test_a_finished_training_does_not_go_on_as_its_optimizer_is_gone(tmp_path):
    trained(SEESAW, tmp_path)
    Checkpoints(tmp_path, "net", SETTINGS).finish()
    with pytest.raises(Refused, match="to go on with after epoch 7: give --epochs 7"):
        gone_on_with(learner(SEESAW), replace(SEESAW, epochs=9), tmp_path)


def test_a_training_that_was_stopped_early_is_finished_with_fewer_epochs(tmp_path):
    impatient = replace(SEESAW, epochs=50, patience=1)
    _, progress = trained(impatient, tmp_path)
    assert len(progress.history) < 50
    Checkpoints(tmp_path, "net", SETTINGS).finish()
    assert gone_on_with(learner(impatient), impatient, tmp_path).history == progress.history


def test_nothing_to_resume_is_no_progress(tmp_path):
    assert training.resume(learner(TrainConfig()), TrainConfig(), Checkpoints(tmp_path, "net", SETTINGS)) == Progress()
