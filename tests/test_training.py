"""The training loop against a plain one written out here: same seeds, same batches, equal weights."""

import json
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from cnn import CNN
from ffn import FFN
from fmnist import data, training
from fmnist.checkpoints import Checkpoints
from fmnist.config import TrainConfig
from fmnist.errors import Failed
from fmnist.training import Progress, TorchLearner, best_epoch, fit, make_batches, seed_epoch, steps_per_epoch
from tests.helpers import tiny

ROOT = Path(__file__).parents[1]

CPU = torch.device("cpu")
MADE = tiny.make(train=70, test=10)
IMAGES = torch.from_numpy(MADE.train_images)
LABELS = torch.from_numpy(MADE.train_labels).long()


def learner(config: TrainConfig, model: torch.nn.Module | None = None, precision: str = "fp32") -> TorchLearner:
    seed_epoch(config.seed, 0)
    steps = config.epochs * -(-len(data.split(len(IMAGES), config.validation, config.seed)[0]) // config.batch_size)
    return TorchLearner(model or FFN([16], dropout=0.3), config, CPU, precision, steps)


def progressed(config: TrainConfig, folder, model=None, **settings) -> tuple[TorchLearner, Progress]:
    """Train as the product does; return the learner and how far it came."""
    own = learner(config, model, **settings)
    split = data.split(len(IMAGES), config.validation, config.seed)
    kept = Checkpoints(folder, "net", {"training": {"schedule": config.schedule, "epochs": config.epochs}}, {})
    return own, fit(own, IMAGES, LABELS, split, config, kept, Progress(), log=lambda _: None)


def trained(config: TrainConfig, folder, model=None, **settings) -> tuple[TorchLearner, list[dict]]:
    """Train as the product does; return the learner and the history."""
    own, progress = progressed(config, folder, model, **settings)
    return own, progress.history


def equal_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


# The loop


def plain_loop(model: torch.nn.Module, optimizer: torch.optim.Optimizer, config: TrainConfig, schedule=None) -> list:
    """Train `model` with no more than PyTorch's tutorial has; return each epoch's loss per image, and accuracy."""
    rows = []
    learnt, _ = data.split(len(IMAGES), 0, config.seed)
    for epoch in range(1, config.epochs + 1):
        torch.manual_seed(config.seed * 100_003 + epoch)
        order = learnt[torch.randperm(len(IMAGES))]
        total, right = 0.0, 0
        model.train()
        for start in range(0, len(order), config.batch_size):
            batch = order[start : start + config.batch_size]
            inputs = (IMAGES[batch][:, None].float() / 255 - 0.2860) / 0.3530
            scores = model(inputs)
            loss = F.cross_entropy(scores, LABELS[batch], label_smoothing=config.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if schedule:
                schedule.step()
            total += float(loss.detach()) * len(batch)
            right += int((scores.argmax(1) == LABELS[batch]).sum())
        rows.append((total / len(IMAGES), right / len(IMAGES)))
    return rows


OPTIMIZERS = {
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.05}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.001}),
    "adadelta": (torch.optim.Adadelta, {}),
}


@pytest.mark.parametrize("kind", ["ffn", "cnn"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fit_takes_the_steps_of_a_plain_loop(optimizer, kind, tmp_path):
    """To 1e-4 only: the normalisation and the fused optimizers round otherwise than the ones written out."""
    make, settings = OPTIMIZERS[optimizer]
    lr = 1.0 if optimizer == "adadelta" else 0.01
    config = TrainConfig(epochs=3, batch_size=16, lr=lr, optimizer=optimizer, label_smoothing=0.1, seed=4, **settings)
    build = {"ffn": lambda: FFN([16], dropout=0.3), "cnn": lambda: CNN([3, 4], dense=[8], dropout=0.2)}[kind]
    own, history = trained(config, tmp_path, seeded(build, config))
    plain = seeded(build, config)
    assert equal_weights(plain, seeded(build, config))
    rows = plain_loop(plain, make(plain.parameters(), lr=lr, **settings), config)
    for (name, given), wanted in zip(own.model.state_dict().items(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(given, wanted, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")
    for row, (loss, accuracy) in zip(history, rows, strict=True):
        assert row["train_loss"] == pytest.approx(loss, rel=1e-4)
        assert row["train_accuracy"] == pytest.approx(accuracy)


def seeded(build, config: TrainConfig) -> torch.nn.Module:
    torch.manual_seed(config.seed * 100_003)
    return build()


def test_equal_weights_bit_for_bit_where_the_plain_loop_computes_alike(tmp_path):
    """Same batches, same dropout, same arithmetic: nothing in `fit` adds to or leaves out a step."""
    config = TrainConfig(epochs=2, batch_size=16, optimizer="sgd", lr=0.1, seed=2)
    own, _ = trained(config, tmp_path)
    plain = seeded(lambda: FFN([16], dropout=0.3), config)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, fused=True)
    for epoch in (1, 2):
        seed_epoch(2, epoch)
        for batch in data.split(70, 0, 2)[0][torch.randperm(70)].split(16):
            optimizer.zero_grad()
            F.cross_entropy(plain(data.normalise(IMAGES[batch])), LABELS[batch]).backward()
            optimizer.step()
    assert equal_weights(own.model, plain)


def test_losses_are_weighted_by_sample_when_the_last_batch_is_ragged(tmp_path):
    """70 images in batches of 64 and 6: with a rate of almost nothing, the epoch's loss is that of the whole set."""
    config = TrainConfig(epochs=1, batch_size=64, lr=1e-9, optimizer="sgd")
    own, history = trained(config, tmp_path, FFN([16], dropout=0))
    with torch.no_grad():
        losses = F.cross_entropy(own.model(data.normalise(IMAGES)), LABELS, reduction="none")
    assert history[0]["train_loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
    seed_epoch(0, 1)
    order = data.split(70, 0, 0)[0][torch.randperm(70)]
    unweighted = (losses[order[:64]].mean() + losses[order[64:]].mean()).item() / 2
    assert abs(unweighted - losses.mean().item()) > 1e-4, "the two means agree, so nothing is told apart"


def test_history_of_an_epoch(tmp_path):
    lines = []
    config = TrainConfig(epochs=2, batch_size=32, validation=0.2)
    kept = Checkpoints(tmp_path, "net", {}, {})
    split = data.split(70, 0.2, 0)
    history = fit(learner(config), IMAGES, LABELS, split, config, kept, Progress(), log=lines.append).history
    assert [set(row) for row in history] == [
        {
            *("train_loss", "train_accuracy", "train_loss_by_step", "steps", "seconds", "images_per_second"),
            *("validation_loss", "validation_accuracy"),
        }
    ] * 2
    assert history[0]["steps"] == len(history[0]["train_loss_by_step"]) == 2  # 56 images: a step of 32 and one of 24
    assert history[0]["train_loss"] == pytest.approx(
        (32 * history[0]["train_loss_by_step"][0] + 24 * history[0]["train_loss_by_step"][1]) / 56
    )
    assert history[0]["images_per_second"] == pytest.approx(56 / history[0]["seconds"])
    json.dumps(history, allow_nan=False)
    assert len(lines) == 2
    for line, row in zip(lines, history, strict=True):
        for words in (f"{row['train_loss']:.4f}", f"{row['validation_loss']:.4f}", "images/s"):
            assert words in line


# Validation


def test_the_validation_images_are_never_trained_on(tmp_path):
    seen = []

    class Spy(TorchLearner):
        def step(self, images, labels):
            seen.extend(images[:, 0, 0].tolist())
            return super().step(images, labels)

    marked = IMAGES.clone()
    marked[:, 0, 0] = torch.arange(70, dtype=torch.uint8)  # the first pixel says which image it is
    config = TrainConfig(epochs=3, batch_size=16, validation=0.3, augment=False)
    learnt, held_out = data.split(70, 0.3, 0)
    assert len(held_out) == 21
    spy = Spy(FFN([8]), config, CPU, "fp32", 12)
    kept = Checkpoints(tmp_path, "net", {}, {})
    fit(spy, marked, LABELS, (learnt, held_out), config, kept, Progress(), log=lambda _: None)
    assert sorted(seen) == sorted(learnt.tolist() * 3)
    assert not set(seen) & set(held_out.tolist())


def test_validation_figures_by_hand(tmp_path):
    config = TrainConfig(epochs=1, batch_size=16, validation=0.3)
    own, history = trained(config, tmp_path)
    _, held_out = data.split(70, 0.3, 0)
    with torch.no_grad():
        scores = own.model.eval()(data.normalise(IMAGES[held_out]))
    assert history[0]["validation_loss"] == pytest.approx(F.cross_entropy(scores, LABELS[held_out]).item(), rel=1e-5)
    assert history[0]["validation_accuracy"] == pytest.approx(
        (scores.argmax(1) == LABELS[held_out]).float().mean().item()
    )


@pytest.mark.parametrize(
    ("accuracies", "losses", "best"),
    [
        ([0.7, 0.9, 0.8], [0.5, 0.4, 0.3], 2),  # the accuracy decides
        ([0.9, 0.8, 0.9, 0.9], [0.3, 0.1, 0.2, 0.4], 3),  # of equals, the loss
        ([0.9, 0.9], [0.2, 0.2], 2),
        ([0.0], [9.9], 1),
    ],
)
def test_which_epoch_is_the_best(accuracies, losses, best):
    named = [{"validation_accuracy": a, "validation_loss": b} for a, b in zip(accuracies, losses, strict=True)]
    assert best_epoch(named) == best
    assert best_epoch([{"train_loss": loss} for loss in losses]) == len(losses)


SEESAW = TrainConfig(epochs=7, batch_size=16, lr=0.3, optimizer="sgd", validation=0.3, seed=6)  # best: its fifth epoch


def test_the_best_epoch_is_scored_as_if_training_had_ended_there(tmp_path):
    own, progress = progressed(SEESAW, tmp_path)
    best = best_epoch(progress.history)
    assert 1 < best < SEESAW.epochs, "the best is the first or the last, so nothing is told apart"
    short, _ = trained(replace(SEESAW, epochs=best), tmp_path / "short")
    assert not equal_weights(own.model, short.model)
    training.select(own, progress)
    assert equal_weights(own.model, short.model)


def test_without_validation_the_last_epoch_is_scored(tmp_path):
    own, progress = progressed(replace(SEESAW, validation=0.0), tmp_path)
    last = {name: tensor.clone() for name, tensor in own.model.state_dict().items()}
    training.select(own, progress)
    assert progress.selected == {}
    assert all(torch.equal(last[name], tensor) for name, tensor in own.model.state_dict().items())


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


def test_batch_norm_meets_no_batch_of_one():
    config = TrainConfig(epochs=1, batch_size=23)  # 70 = 3 * 23 + 1
    model = FFN([8], batch_norm=True)
    own = TorchLearner(model, config, CPU, "fp32", 3)
    for batch in make_batches(torch.arange(70), 23):
        own.step(IMAGES[batch], LABELS[batch])
    assert int(model.norm1.num_batches_tracked) == 3


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 31, 32, 33, 54_000])
@pytest.mark.parametrize("batch_size", [1, 2, 11, 16])
def test_the_schedule_knows_the_number_of_batches(count, batch_size):
    assert steps_per_epoch(count, batch_size) == len(make_batches(torch.arange(count), batch_size))


# What goes wrong


def test_a_loss_that_is_no_number_is_named_with_epoch_and_step(tmp_path):
    class Breaks(TorchLearner):
        steps = 0

        def step(self, images, labels):
            self.steps += 1
            loss, right = super().step(images, labels)
            return (loss * float("nan") if self.steps == 8 else loss), right

    config = TrainConfig(epochs=3, batch_size=16)  # five steps an epoch: the eighth is the third of the second
    own, kept = Breaks(FFN([8]), config, CPU, "fp32", 15), Checkpoints(tmp_path, "net", {}, {})
    with pytest.raises(Failed, match=r"epoch 2, step 3; the checkpoint of epoch 1 is kept; a smaller --lr") as caught:
        fit(own, IMAGES, LABELS, data.split(70, 0, 0), config, kept, Progress(), log=lambda _: None)
    assert "\n" not in str(caught.value)
    assert [path.name for path in kept.paths()] == ["net-epoch0001.pt", "net-epoch0000.pt"]
    assert all(tensor.isfinite().all() for tensor in kept.newest()["learner"]["model"].values())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_the_first_loss_that_is_not_finite_counts(bad):
    with pytest.raises(Failed, match="epoch 7, step 2;"):
        training.check_finite(torch.tensor([1.0, bad, 2.0, bad]), {}, 7)
    with pytest.raises(Failed, match="epoch 7, step 3;"):
        training.check_finite(torch.ones(3), {"counter": torch.tensor(1), "weight": torch.tensor([1.0, bad])}, 7)
    training.check_finite(torch.tensor([1.0, 1e38]), {"weight": torch.tensor([1e38])}, 7)


PAGE_FAULTS = """
import resource, torch
from fmnist import training

def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        torch.ones(2_000_000)  # 8 MB, or 1,953 pages of 4 KB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

training.keep_freed_memory()
faults(1)
kept = faults(20)
training.give_back_memory()
print(kept, faults(1))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to keep")
def test_memory_that_a_step_frees_is_kept_until_it_is_given_back():
    said = subprocess.run([sys.executable, "-c", PAGE_FAULTS], cwd=ROOT, check=True, capture_output=True, text=True)
    kept, after = map(int, said.stdout.split())
    assert kept < 2 * 1953  # of 20 * 1953
    assert after > 1000


# Resume, in-process; tests/test_faults_training.py kills real processes


@pytest.mark.parametrize(
    "settings",
    [*({"schedule": name} for name in ("constant", "plateau", "cosine", "one-cycle")), {"freeze_after": 1}],
    ids=str,
)
def test_a_stop_and_a_resume_end_in_the_same_weights_and_optimizer(settings, tmp_path):
    config = TrainConfig(epochs=5, batch_size=16, lr=0.01, augment=True, validation=0.2, seed=3, **settings)
    split = data.split(70, 0.2, 3)
    whole, unbroken = progressed(config, tmp_path / "whole")

    kept = Checkpoints(tmp_path / "parts", "net", {"training": {}}, {})
    first = learner(config)
    fit(first, IMAGES, LABELS, split, replace(config, epochs=2), kept, Progress(), log=lambda _: None)
    torch.rand(9)  # another process would have drawn other numbers
    second = learner(replace(config, seed=8), FFN([16], dropout=0.3))
    resumed = training.resume(second, kept, log=lambda _: None)
    assert len(resumed.history) == 2
    resumed = fit(second, IMAGES, LABELS, split, config, kept, resumed, log=lambda _: None)

    assert equal_weights(second.model, whole.model)
    for ours, theirs in zip(second.optimizer.state.values(), whole.optimizer.state.values(), strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(torch.as_tensor(ours[key]), torch.as_tensor(theirs[key])) for key in ours)
    assert second.schedule.state_dict() == whole.schedule.state_dict()
    times = {"seconds", "images_per_second"}
    assert [{key: row[key] for key in row.keys() - times} for row in resumed.history] == [
        {key: row[key] for key in row.keys() - times} for row in unbroken.history
    ]
    assert resumed.selected.keys() == unbroken.selected.keys() == whole.model.state_dict().keys()
    assert all(torch.equal(resumed.selected[key], unbroken.selected[key]) for key in unbroken.selected)


def test_weights_selected_before_a_stop_are_still_there_after_it(tmp_path):
    _, unbroken = progressed(SEESAW, tmp_path / "whole")
    progressed(replace(SEESAW, epochs=6), tmp_path / "parts")
    kept = Checkpoints(tmp_path / "parts", "net", {"training": {"schedule": "constant", "epochs": 7}}, {})
    own = learner(SEESAW)
    progress = training.resume(own, kept)
    assert best_epoch(progress.history) < 6
    progress = fit(own, IMAGES, LABELS, data.split(70, 0.3, SEESAW.seed), SEESAW, kept, progress, log=lambda _: None)
    assert best_epoch(progress.history) == best_epoch(unbroken.history)
    assert all(torch.equal(progress.selected[name], unbroken.selected[name]) for name in own.model.state_dict())


def test_nothing_to_resume_is_no_progress(tmp_path):
    assert training.resume(learner(TrainConfig()), Checkpoints(tmp_path, "net", {}, {})) == Progress()
