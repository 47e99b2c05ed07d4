"""What a learner does with its settings: learning rates, optimizers, augmentation, dropout, device and precision."""

import numpy as np
import pytest
import torch

from cnn import CNN
from ffn import FFN, NumpyFFN, NumpyLearner
from fmnist import data, training
from fmnist.config import TrainConfig
from fmnist.errors import Refused
from fmnist.training import TorchLearner, make_schedule
from tests.test_training import CPU, IMAGES, LABELS, OPTIMIZERS, learner

# Schedules


def rates(config: TrainConfig, total_steps: int, losses: list[float] = ()) -> list[float]:
    """The learning rate of each step, and after the last; one step an epoch where `losses` are given."""
    own = TorchLearner(FFN([4]), config, CPU, "fp32", total_steps)
    seen = [own.optimizer.param_groups[0]["lr"]]
    for step in range(total_steps):
        own.step(IMAGES[:4], LABELS[:4])
        if losses:
            own.end_epoch(losses[step])
        seen.append(own.optimizer.param_groups[0]["lr"])
    return seen


def test_a_constant_rate_stays():
    assert rates(TrainConfig(lr=0.02, optimizer="sgd"), 5, [1, 1, 1, 1, 1]) == [0.02] * 6


def test_cosine_falls_along_a_cosine_to_nothing():
    seen = rates(TrainConfig(lr=0.02, optimizer="sgd", schedule="cosine"), 8)
    np.testing.assert_allclose(seen, 0.01 * (1 + np.cos(np.pi * np.arange(9) / 8)), atol=1e-9)


def test_one_cycle_rises_to_its_peak_and_falls_to_nothing():
    seen = rates(TrainConfig(lr=0.02, optimizer="sgd", schedule="one-cycle"), 20)
    assert max(seen) == pytest.approx(0.02, rel=0.01)  # the peak may lie between two steps
    peak = seen.index(max(seen))
    assert seen[: peak + 1] == sorted(seen[: peak + 1])
    assert seen[peak:] == sorted(seen[peak:], reverse=True)
    assert (seen[0], seen[-1]) == (pytest.approx(0.02 / 25), pytest.approx(0.02 / 25e4))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_cycle_moves_the_rate_of_every_optimizer_and_nothing_else(optimizer):
    settings = OPTIMIZERS[optimizer][1]
    config = TrainConfig(lr=0.02, optimizer=optimizer, schedule="one-cycle", **settings)
    own = TorchLearner(FFN([4]), config, CPU, "fp32", 9)
    before = {key: value for key, value in own.optimizer.param_groups[0].items() if key not in ("params", "lr")}
    rate = own.optimizer.param_groups[0]["lr"]
    own.step(IMAGES[:4], LABELS[:4])
    assert {key: own.optimizer.param_groups[0][key] for key in before} == before
    assert own.optimizer.param_groups[0]["lr"] > rate


@pytest.mark.parametrize("share", [0.15, 0.5])
def test_one_cycle_has_its_peak_where_the_warmup_ends(share):
    seen = rates(TrainConfig(lr=0.02, optimizer="sgd", schedule="one-cycle", warmup=share), 100)
    assert seen.index(max(seen)) == pytest.approx(100 * share, abs=1)


def test_a_frozen_first_layer_keeps_its_weights_and_the_others_learn_on():
    own = TorchLearner(CNN([4, 4], dense=[8]), TrainConfig(lr=0.01, freeze_after=2), CPU, "fp32", 9)
    for epoch in range(1, 4):
        before = {name: tensor.clone() for name, tensor in own.model.state_dict().items()}
        own.step(IMAGES[:8], LABELS[:8])
        own.end_epoch(1.0)
        still = {name for name, tensor in own.model.state_dict().items() if torch.equal(tensor, before[name])}
        assert still == ({"features.conv1.weight", "features.conv1.bias"} if epoch == 3 else set())


def test_the_numpy_learner_says_the_cross_entropy_before_its_step():
    own = NumpyLearner(NumpyFFN((8,)), TrainConfig(lr=0.1, optimizer="sgd"), 1)
    expected = float(torch.nn.functional.nll_loss(own.log_probabilities(IMAGES[:8]), LABELS[:8]))
    loss, right = own.step(IMAGES[:8], LABELS[:8])
    assert loss == pytest.approx(expected, rel=1e-5)
    assert 0 <= right <= 8


def test_plateau_cuts_by_ten_once_the_loss_has_stalled_for_more_than_three_epochs():
    config = TrainConfig(lr=0.02, optimizer="sgd", schedule="plateau")
    falling = rates(config, 6, [6, 5, 4, 3, 2, 1])
    assert falling == [0.02] * 7
    stalled = rates(config, 7, [1, 2, 2, 2, 2, 2, 2])
    assert stalled == pytest.approx([0.02] * 5 + [0.002] * 3)


def test_numpy_network_is_given_the_configured_rates():
    seen = []
    model = NumpyFFN((8,))
    model.step = lambda images, labels, lr: seen.append(lr) or 0.0
    model.activations = [np.zeros((4, 10))]  # no answer at all must not make the loss infinite
    config = TrainConfig(lr=0.2, optimizer="sgd", schedule="cosine")
    own = NumpyLearner(model, config, 4)
    for _ in range(4):
        own.step(IMAGES[:4], LABELS[:4])
    assert seen == pytest.approx([0.2, 0.1 * (1 + 0.5**0.5), 0.1, 0.1 * (1 - 0.5**0.5)])


@pytest.mark.parametrize("settings", [{"optimizer": "adam"}, {"optimizer": "sgd", "schedule": "plateau"}])
def test_numpy_network_refuses_what_it_cannot(settings):
    with pytest.raises(ValueError, match="SGD"):
        NumpyLearner(NumpyFFN(), TrainConfig(**settings), 1)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_are_as_configured(name):
    kind, settings = OPTIMIZERS[name]
    config = TrainConfig(optimizer=name, lr=0.0123, **settings)
    optimizer = training.make_optimizer(FFN([4]), config)
    assert type(optimizer) is kind
    for key, value in {"lr": 0.0123, **settings}.items():
        assert optimizer.param_groups[0][key] == value


def test_adam_of_classic_has_no_weight_decay():
    assert training.make_optimizer(FFN([4]), TrainConfig()).param_groups[0]["weight_decay"] == 0


def test_schedules_are_laid_out_over_all_steps_of_the_training():
    config = TrainConfig(lr=0.02, optimizer="sgd", schedule="cosine")
    optimizer = training.make_optimizer(FFN([4]), config)
    assert make_schedule(optimizer, config, 123).T_max == 123


# Augmentation, smoothing and modes


def test_augmentation_is_asked_for_and_shifts_the_training_images_alone(monkeypatch):
    calls = []
    monkeypatch.setattr(data, "augment", lambda images: calls.append(len(images)) or images)
    own = TorchLearner(FFN([4]), TrainConfig(augment=True), CPU, "fp32", 1)
    own.step(IMAGES[:6], LABELS[:6])
    own.log_probabilities(IMAGES[:6])
    assert calls == [6]
    TorchLearner(FFN([4]), TrainConfig(), CPU, "fp32", 1).step(IMAGES[:6], LABELS[:6])
    assert calls == [6]


def test_scoring_learns_nothing_and_has_no_dropout():
    own = learner(TrainConfig(), FFN([16], dropout=0.9, batch_norm=True))
    before = {key: tensor.clone() for key, tensor in own.model.state_dict().items()}
    first, second = own.log_probabilities(IMAGES), own.log_probabilities(IMAGES)
    assert torch.equal(first, second)
    assert all(torch.equal(before[key], tensor) for key, tensor in own.model.state_dict().items())
    torch.testing.assert_close(first.exp().sum(dim=1), torch.ones(70))


def test_scores_in_big_batches_are_those_of_the_images_one_by_one():
    own = learner(TrainConfig(), CNN([3, 4], dense=[8]))
    together = training.log_probabilities(own, IMAGES.repeat(4, 1, 1))
    assert together.shape == (280, 10)  # more than one batch of 100
    torch.testing.assert_close(together[:70], torch.cat([own.log_probabilities(image[None]) for image in IMAGES]))
    assert torch.equal(together[:70].argmax(1), together[210:].argmax(1))


# The machine


def test_auto_takes_the_best_device_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert training.choose_device("auto") == CPU
    for name in ("cuda", "mps"):
        with pytest.raises(Refused, match=f"--device {name}: there is none on this machine; use --device auto"):
            training.choose_device(name)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert training.choose_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert training.choose_device("auto").type == "cuda"
    assert training.choose_device("cpu") == CPU


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({}, "fp32"),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
    ],
)
def test_auto_precision_follows_the_processors_flags(capabilities, precision, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert training.choose_precision("auto", CPU) == precision
    assert training.choose_precision("fp32", CPU) == "fp32"
    assert training.choose_precision("bf16", CPU) == "bf16"


def test_auto_precision_on_other_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
    assert training.choose_precision("auto", torch.device("cuda")) == "bf16"
    assert training.choose_precision("auto", torch.device("mps")) == "fp32"


def test_bf16_computes_in_bfloat16_and_keeps_its_weights_in_float32():
    seen = []
    model = FFN([8])
    model.linear1.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    own = learner(TrainConfig(), model, precision="bf16")
    loss, _ = own.step(IMAGES[:8], LABELS[:8])
    assert seen == [torch.bfloat16]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert own.log_probabilities(IMAGES[:8]).dtype == torch.float32
    assert loss.isfinite()


def test_weights_are_channels_last_on_the_cpu():
    own = learner(TrainConfig(), CNN([3, 4], dense=[8]))
    assert own.model.features.conv2.weight.is_contiguous(memory_format=torch.channels_last)
