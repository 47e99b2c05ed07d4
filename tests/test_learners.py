"""What a learner does with its settings: learning rates, optimizers, augmentation, dropout and precision."""

import math
import threading
from dataclasses import fields

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnn import CNN
from ffn import FFN
from fmnist import data, learners
from fmnist.config import OPTIMIZERS as OPTIMIZER_NAMES
from fmnist.config import SCHEDULES, TrainConfig
from fmnist.device import Machine
from fmnist.layers import Pixels
from fmnist.learners import NumpyLearner, TorchLearner
from numpy_ffn import NumpyFFN
from tests.test_training import FP32, IMAGES, LABELS, OPTIMIZERS, equal, learner


def small(total_steps: int = 9, **settings) -> TorchLearner:
    return TorchLearner(FFN([4]), TrainConfig(**settings), FP32, total_steps)


# Schedules


def rates(total_steps: int, losses: list[float] = (), **settings) -> list[float]:
    """The learning rate of each step of SGD, and after the last; one step an epoch where `losses` are given."""
    own = small(total_steps, lr=0.02, optimizer="sgd", **settings)
    seen = [own.optimizer.param_groups[0]["lr"]]
    for step in range(total_steps):
        own.step(IMAGES[:4], LABELS[:4])
        if losses:
            own.end_epoch(losses[step])
        seen.append(own.optimizer.param_groups[0]["lr"])
    return seen


def test_a_constant_rate_stays():
    assert rates(5, [1, 1, 1, 1, 1]) == [0.02] * 6


def test_cosine_falls_along_a_cosine_to_nothing():
    np.testing.assert_allclose(rates(8, schedule="cosine"), 0.01 * (1 + np.cos(np.pi * np.arange(9) / 8)), atol=1e-9)


def test_one_cycle_rises_to_its_peak_and_falls_to_nothing():
    seen = rates(20, schedule="one-cycle")
    assert max(seen) == pytest.approx(0.02, rel=0.01)  # the peak may lie between two steps
    peak = seen.index(max(seen))
    assert seen[: peak + 1] == sorted(seen[: peak + 1])
    assert seen[peak:] == sorted(seen[peak:], reverse=True)
    assert (seen[0], seen[-1]) == (pytest.approx(0.02 / 25), pytest.approx(0.02 / 25e4))


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.5), (3, 0.25), (4, 0.2), (9, 0.1)])
def test_one_cycle_of_one_step_of_warmup_begins_at_its_peak(steps, warmup):
    seen = rates(steps, schedule="one-cycle", warmup=warmup)
    assert seen[0] == pytest.approx(0.02)
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize("warmup", [0.15, 0.5])
def test_one_cycle_has_its_peak_where_the_warmup_ends(warmup):
    seen = rates(100, schedule="one-cycle", warmup=warmup)
    assert seen.index(max(seen)) == pytest.approx(100 * warmup, abs=1)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_cycle_moves_the_rate_of_every_optimizer_and_nothing_else(optimizer):
    own = small(lr=0.02, optimizer=optimizer, schedule="one-cycle", **OPTIMIZERS[optimizer][1])
    before = {key: value for key, value in own.optimizer.param_groups[0].items() if key not in ("params", "lr")}
    rate = own.optimizer.param_groups[0]["lr"]
    own.step(IMAGES[:4], LABELS[:4])
    assert {key: own.optimizer.param_groups[0][key] for key in before} == before
    assert own.optimizer.param_groups[0]["lr"] > rate


def test_linear_rises_to_its_peak_and_falls_along_straight_lines_to_one_step_before_nothing():
    rise, fall = [0.25, 0.5, 0.75, 1], [1 - n / 17 for n in range(1, 17)]
    np.testing.assert_allclose(rates(20, schedule="linear", warmup=0.2), 0.02 * np.array([*rise, *fall, 0]), atol=1e-12)


def test_plateau_cuts_by_ten_once_the_loss_has_stalled_for_more_than_three_epochs():
    assert rates(6, [6, 5, 4, 3, 2, 1], schedule="plateau") == [0.02] * 7
    assert rates(7, [1, 2, 2, 2, 2, 2, 2], schedule="plateau") == pytest.approx([0.02] * 5 + [0.002] * 3)


# Optimizers


@pytest.mark.parametrize("name", OPTIMIZER_NAMES)
def test_optimizers_are_as_configured(name):
    kind, settings = OPTIMIZERS[name]
    optimizer = learners.make_optimizer(FFN([4]), TrainConfig(optimizer=name, lr=0.0123, **settings))
    assert type(optimizer) is kind
    wanted = {"lr": 0.0123, "weight_decay": 0, **settings}
    assert {key: optimizer.param_groups[0][key] for key in wanted} == wanted


def test_momentum_is_nesterovs_where_it_is_asked_for():
    for settings, wanted in (({}, False), ({"nesterov": True}, True), ({"nesterov": True, "momentum": 0.0}, False)):
        config = TrainConfig(**{"optimizer": "sgd", "momentum": 0.9, **settings})
        assert learners.make_optimizer(FFN([4]), config).param_groups[0]["nesterov"] is wanted


def test_norms_and_biases_are_spared_from_decay_where_it_is_asked_for():
    own = small(optimizer="sgd", lr=0.1, weight_decay=0.5, decay_norms=False)
    own.model = CNN([3], norm="before", dense=[4])
    own.optimizer = learners.make_optimizer(own.model, own.config)
    before = {name: parameter.detach().clone() for name, parameter in own.model.named_parameters()}
    for parameter in own.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    own.optimizer.step()
    for name, parameter in own.model.named_parameters():
        is_decayed = name.endswith("weight") and "norm" not in name
        torch.testing.assert_close(parameter.detach(), before[name] * (0.95 if is_decayed else 1))


@pytest.mark.parametrize("decay_norms", [True, False])
@pytest.mark.parametrize("name", OPTIMIZER_NAMES)
def test_weights_move_bit_for_bit_as_by_the_optimizers_own_step(name, decay_norms):
    """One parameter has no gradient at first, one has none any more later, and the rate changes on the way."""
    config = TrainConfig(**{"optimizer": name, "lr": 0.1, **OPTIMIZERS[name][1], "decay_norms": decay_norms})
    values = [torch.linspace(-1, 1, math.prod(shape)).view(shape) for shape in ((3,), (7, 10), (5,))]
    ours, theirs = ([nn.Parameter(value.clone()) for value in values] for _ in range(2))
    optimizers = [learners.make_optimizer(nn.ParameterList(parameters), config) for parameters in (ours, theirs)]
    for step in range(6):
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 / (step + 1)
            late = step == 0 and name != "sgd"  # torch's fused SGD takes no parameter on later
            learning = parameters[:2] if late else parameters[1:] if step > 3 else parameters
            sum((parameter * (parameter + step)).sin().sum() for parameter in learning).backward()
        learners.move_weights(optimizers[0])
        optimizers[1].step()
        optimizers[1].zero_grad()
        assert all(parameter.grad is None for parameter in ours)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    states = [optimizer.state_dict()["state"] for optimizer in optimizers]
    torch.testing.assert_close(*states, rtol=0, atol=0)


# The first layer, frozen

FIRST = {"features.conv1.weight", "features.conv1.bias"}


def learns(own: TorchLearner) -> set[str]:
    """Take an epoch of one step; return the names of the tensors that it changed."""
    before = {name: tensor.clone() for name, tensor in own.weights().items()}
    own.step(IMAGES[:8], LABELS[:8])
    own.end_epoch(1.0)
    return {name for name, tensor in own.weights().items() if not torch.equal(tensor, before[name])}


def test_what_a_network_has_frozen_by_itself_stays_frozen():
    model = CNN([4, 4], dense=[8])
    model.features.conv1.requires_grad_(False)
    own = TorchLearner(model, TrainConfig(lr=0.01), FP32, 9)
    assert [learns(own) & FIRST for _ in range(2)] == [set(), set()]


# Augmentation, modes and precision


def test_augmentation_is_asked_for_and_shifts_the_training_images_alone(monkeypatch):
    calls = []
    monkeypatch.setattr(data, "augment", lambda images, shift: calls.append((len(images), shift)) or images)
    own = small(augment=True, shift=1)
    own.step(IMAGES[:6], LABELS[:6])
    own.log_probabilities(IMAGES[:6])
    small().step(IMAGES[:6], LABELS[:6])
    assert calls == [(6, 1)]


def test_squares_are_blackened_after_the_shift_in_the_training_images_alone(monkeypatch):
    calls = []
    monkeypatch.setattr(data, "augment", lambda images, shift: calls.append("augment") or images)
    monkeypatch.setattr(data, "cut_out", lambda images, size: calls.append(size) or images)
    own = small(augment=True, cutout=9)
    own.step(IMAGES[:6], LABELS[:6])
    own.log_probabilities(IMAGES[:6])
    assert calls == ["augment", 9]


def test_scoring_learns_nothing_and_has_no_dropout():
    own = learner(TrainConfig(), FFN([16], dropout=0.9, norm="before"))
    before = {key: tensor.clone() for key, tensor in own.weights().items()}
    first, second = own.log_probabilities(IMAGES), own.log_probabilities(IMAGES)
    assert torch.equal(first, second)
    assert equal(own.weights(), before)
    torch.testing.assert_close(first.exp().sum(dim=1), torch.ones(70))


def test_scores_in_big_batches_are_those_of_the_images_one_by_one():
    own = learner(TrainConfig(), CNN([3, 4], dense=[8]))
    together = learners.log_probabilities(own, IMAGES.repeat(4, 1, 1))
    assert together.shape == (280, 10)  # more than one batch of 100
    torch.testing.assert_close(together[:70], torch.cat([own.log_probabilities(image[None]) for image in IMAGES]))
    assert torch.equal(together[:70].argmax(1), together[210:].argmax(1))


def test_bf16_computes_in_bfloat16_and_keeps_its_weights_in_float32():
    seen = []
    model = FFN([8])
    own = learner(TrainConfig(), model, precision="bf16")
    model.linear1.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    loss, _ = own.step(IMAGES[:8], LABELS[:8])
    assert seen == [torch.bfloat16]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert loss.isfinite()


def test_scores_are_taken_in_single_precision_whatever_was_trained_in():
    own = learner(TrainConfig(lr=0.01), CNN([3, 4], dense=[8]), precision="bf16")
    for _ in range(3):
        own.step(IMAGES, LABELS)
    with torch.no_grad():
        expected = F.log_softmax(own.model.eval()(IMAGES), dim=1)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = F.log_softmax(own.model(IMAGES).float(), dim=1)
    assert torch.equal(own.log_probabilities(IMAGES), expected)
    assert (rounded - expected).abs().max() > 1e-4, "both precisions agree, so nothing is told apart"


def test_weights_are_channels_last_on_the_cpu():
    own = learner(TrainConfig(), CNN([3, 4], dense=[8]))
    assert own.model.features.conv2.weight.is_contiguous(memory_format=torch.channels_last)


class Viewing(nn.Module):
    """A network that flattens as many do."""

    def __init__(self):
        super().__init__()
        self.pixels, self.conv, self.output = Pixels(), nn.Conv2d(1, 3, 3), nn.Linear(3 * 26 * 26, 10)

    def forward(self, images):
        maps = self.conv(self.pixels(images))
        return self.output(maps.view(maps.size(0), -1))


class ViewingToLearn(Viewing):
    """One that does so in training alone, as networks with auxiliary outputs do."""

    def forward(self, images):
        return super().forward(images) if self.training else self.output(self.conv(self.pixels(images)).flatten(1))


class Caching(Viewing):
    """A network that makes a tensor at its first call, and keeps it."""

    scale = None

    def forward(self, images):
        if self.scale is None:
            self.scale = torch.linspace(1, 2, 26)
        return self.output((self.conv(self.pixels(images)) * self.scale).flatten(1))


class Uncopyable(Viewing):
    """A network that holds what cannot be copied."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("network", "layout"),
    [(Viewing, "own"), (ViewingToLearn, "own"), (Caching, "channels last"), (Uncopyable, "own")],
)
def test_a_network_that_flattens_by_view_learns_in_torchs_own_layout(network, layout):
    own = learner(TrainConfig(lr=0.01), network())
    assert own.model.conv.weight.stride() == {"own": (9, 9, 3, 1), "channels last": (9, 1, 3, 1)}[layout]
    assert own.model.training
    losses = [float(own.step(IMAGES, LABELS)[0]) for _ in range(3)]
    assert losses[2] < losses[0]


def test_on_mps_weights_keep_their_layout():
    """Where channels-last makes batch norm's gradients wrong."""
    asked = []

    class Net(FFN):
        def to(self, device, memory_format):
            asked.append((device.type, memory_format))
            return self

    TorchLearner(Net([4]), TrainConfig(optimizer="adadelta"), Machine(torch.device("mps"), "fp32"), 1)
    assert asked == [("mps", torch.preserve_format)]


# NumPy


def by_hand(hidden=(8,), total_steps: int = 4, **settings) -> NumpyLearner:
    return NumpyLearner(NumpyFFN(hidden), TrainConfig(**{"optimizer": "sgd", "lr": 0.2, **settings}), total_steps)


def test_the_numpy_network_reports_the_cross_entropy_before_its_step():
    own = by_hand()
    scores = own.log_probabilities(IMAGES[:8])
    loss, correct = own.step(IMAGES[:8], LABELS[:8])
    assert loss == pytest.approx(F.nll_loss(scores, LABELS[:8]).item(), rel=1e-5)
    assert correct == (scores.argmax(1) == LABELS[:8]).sum()


def test_the_numpy_network_is_given_the_configured_rates():
    own, seen = by_hand(schedule="cosine"), []
    own.model.step = lambda images, labels, lr: seen.append(lr)
    own.model.activations = [np.zeros((4, 10))]  # no prediction at all must not make the loss infinite
    losses = [own.step(IMAGES[:4], LABELS[:4])[0] for _ in range(4)]
    assert seen == pytest.approx([0.2, 0.1 * (1 + 0.5**0.5), 0.1, 0.1 * (1 - 0.5**0.5)])
    assert np.isfinite(losses).all()


def test_the_numpy_network_goes_on_where_it_stopped():
    whole, stopped, resumed = by_hand(schedule="cosine"), by_hand(schedule="cosine"), by_hand(schedule="cosine")
    for _ in range(4):
        whole.step(IMAGES, LABELS)
    for _ in range(2):
        stopped.step(IMAGES, LABELS)
    resumed.load_state_dict(stopped.state_dict())
    for _ in range(2):
        resumed.step(IMAGES, LABELS)
    assert equal(resumed.weights(), whole.weights())


@pytest.mark.parametrize("settings", [{"optimizer": "adam"}, {"schedule": "plateau"}], ids=str)
def test_the_numpy_network_refuses_what_it_cannot(settings):
    with pytest.raises(ValueError, match="SGD"):
        by_hand(**settings)


def test_the_settings_that_the_numpy_learner_honours_are_those_that_it_or_the_loop_reads():
    unknown = {"optimizer", "momentum", "nesterov", "weight_decay", "decay_norms", "warmup"}
    unknown |= {"label_smoothing", "augment", "shift", "cutout"}
    for field in fields(TrainConfig):
        if field.name != "schedule":
            assert NumpyLearner.honours(field.name, field.default) is (field.name not in unknown)
    assert {name for name in SCHEDULES if NumpyLearner.honours("schedule", name)} == {"constant", "cosine"}
    for schedule in ("constant", "cosine"):
        by_hand(schedule=schedule)
