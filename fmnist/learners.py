"""How a network takes a step: with PyTorch, its optimizers and schedules, or by a backward pass of its own in NumPy."""

import copy
import itertools
import math
from contextlib import nullcontext
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.adam import adam

from fmnist import data
from fmnist.config import LENGTH_MATTERS, TrainConfig
from fmnist.device import Machine

ADAM_SETTINGS = ("lr", "weight_decay", "eps", "amsgrad", "maximize", "fused", "decoupled_weight_decay")
EVALUATION_BATCH = 100  # images at once in evaluation: more is no faster on a CPU, and takes more memory


class Learner(Protocol):
    """What the loop needs of a network: `TorchLearner` and `NumpyLearner` are such."""

    def step(self, images: Tensor, labels: Tensor) -> tuple[float | Tensor, int | Tensor]:
        """Learn from uint8 [B, 28, 28] and int64 [B]; return the mean loss before the step, and the number correct."""

    def log_probabilities(self, images: Tensor) -> Tensor:
        """Return float32 [B, 10] for uint8 [B, 28, 28], in single precision, learning nothing."""

    def end_epoch(self, loss: float) -> None:
        """Take note of an epoch's loss: on the validation images where some are held out, else on the training set."""

    def weights(self) -> dict[str, Tensor]:
        """The weights as they are, not copied."""

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Take over what `weights` returned."""

    def state_dict(self) -> dict[str, Any]:
        """All that the next epoch depends on, as tensors and plain values; the weights under "model"."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to where `state_dict` was called."""

    def cost(self) -> dict[str, int]:
        """Number of "parameters", and of "multiply_adds" to score one image."""


def make_learner(model: Any, config: TrainConfig, machine: Machine, total_steps: int) -> Learner:
    """Return what trains `model` for `total_steps` steps."""
    if isinstance(model, nn.Module):
        return TorchLearner(model, config, machine, total_steps)
    return NumpyLearner(model, config, total_steps)


def log_probabilities(learner: Learner, images: Tensor) -> Tensor:
    """Return the learner's float32 [N, 10] on the CPU for uint8 images [N, 28, 28], scored in batches."""
    scores = torch.empty(len(images), 10)  # at once: small tensors that stay would splinter the memory of the big ones
    for part, batch in zip(scores.split(EVALUATION_BATCH), images.split(EVALUATION_BATCH), strict=True):
        part.copy_(learner.log_probabilities(batch))
    return scores


# PyTorch


class TorchLearner:
    """A PyTorch network, its optimizer and its learning-rate schedule on one device in one precision."""

    def __init__(self, model: nn.Module, config: TrainConfig, machine: Machine, total_steps: int) -> None:
        self.config = config
        # Channels-last is faster on CPU and CUDA; on MPS it makes batch norm's gradients wrong (pytorch issue 175189).
        layout = torch.preserve_format if machine.device.type == "mps" else torch.channels_last
        self.model = model.to(machine.device, memory_format=layout)
        if layout is torch.channels_last and not _computes(self.model, machine.device):
            self.model.to(memory_format=torch.contiguous_format)  # a `view` that flattens maps takes no other
        bf16 = machine.precision == "bf16"
        self.precision = torch.autocast(machine.device.type, torch.bfloat16) if bf16 else nullcontext()
        self.optimizer = make_optimizer(self.model, config)
        self.schedule = make_schedule(self.optimizer, config, total_steps)

    def step(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if not self.model.training:  # asked first: it goes through every layer, which a small network notices
            self.model.train()
        if self.config.augment:
            images = data.augment(images, self.config.shift)
        if self.config.cutout:
            images = data.cut_out(images, self.config.cutout)
        with self.precision:
            logits = self.model(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        loss.backward()
        move_weights(self.optimizer)
        if self.config.schedule in LENGTH_MATTERS:
            self.schedule.step()
        return loss.detach(), (logits.argmax(dim=1) == labels).sum()

    @torch.inference_mode()
    def log_probabilities(self, images: Tensor) -> Tensor:
        # In single precision whatever it was trained in: rounded logits tie, and ties would decide.
        return F.log_softmax(self.model.eval()(images).float(), dim=1)

    def end_epoch(self, loss: float) -> None:
        if self.config.schedule == "plateau":
            self.schedule.step(loss)

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        self.model.load_state_dict(weights)

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.weights(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.load_weights(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])

    def cost(self) -> dict[str, int]:
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return {"parameters": parameters, "multiply_adds": multiply_adds(self.model)}


@torch.no_grad()
def _computes(model: nn.Module, device: torch.device) -> bool:
    """Whether `model` makes anything of two images, in training as in evaluation: tried on a copy, which may change."""
    images = torch.zeros(2, 28, 28, dtype=torch.uint8, device=device)
    try:
        tried = copy.deepcopy(model)
        for is_training in (True, False):
            tried.train(is_training)(images)
    except Exception:  # also where it cannot be copied; what is truly wrong with it shows in its first step
        return False
    return True


def multiply_adds(model: nn.Module) -> int:
    """Count the multiply-adds of scoring one image."""
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.zeros(1, 28, 28, dtype=torch.uint8, device=next(model.parameters()).device)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.eval()(image)
    return counter.get_total_flops() // 2  # it counts a multiply-add as two operations


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Build the optimizer that `config` names, with one kernel for all parameters where torch has one."""
    parameters, common = parameter_groups(model, config), {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.optimizer == "sgd":
        momentum = {"momentum": config.momentum, "nesterov": config.nesterov and config.momentum > 0}
        return torch.optim.SGD(parameters, **momentum, fused=True, **common)
    if config.optimizer == "adadelta":
        return torch.optim.Adadelta(parameters, **common)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    return kind(parameters, fused=True, **common)


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Split the parameters into those of two or more dimensions and the others, where these are not to decay."""
    if config.decay_norms:
        return [{"params": list(model.parameters())}]
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    return [{"params": weights}, {"params": others, "weight_decay": 0.0}]


def move_weights(optimizer: torch.optim.Optimizer) -> None:
    """Do what the `step` and the `zero_grad` of an optimizer of `make_optimizer` do.

    Of Adam and AdamW it calls torch's functional form alone: their `step` asks hooks, profiler and compiler as well,
    every time, which a small network notices.
    """
    learning = [[p for p in group["params"] if p.grad is not None] for group in optimizer.param_groups]
    states = [optimizer.state.get(parameter) for parameters in learning for parameter in parameters]
    if isinstance(optimizer, torch.optim.Adam) and all(states):  # AdamW is one; the first step of all makes the states
        for group, parameters in zip(optimizer.param_groups, learning, strict=True):
            if parameters:
                _adam_step(optimizer, group, parameters)
    else:
        optimizer.step()
    for parameter in itertools.chain(*learning):
        parameter.grad = None


def _adam_step(optimizer: torch.optim.Adam, group: dict[str, Any], learning: list[nn.Parameter]) -> None:
    """Move the parameters of a `group` that are `learning`."""
    states = [optimizer.state[parameter] for parameter in learning]
    means, squares, steps = ([state[key] for state in states] for key in ("exp_avg", "exp_avg_sq", "step"))
    (beta1, beta2), settings = group["betas"], {name: group[name] for name in ADAM_SETTINGS}
    gradients = [parameter.grad for parameter in learning]
    with torch.no_grad():
        adam(learning, gradients, means, squares, [], steps, beta1=beta1, beta2=beta2, **settings)


def make_schedule(optimizer: torch.optim.Optimizer, config: TrainConfig, total_steps: int) -> Any:
    """Build the learning-rate schedule; plateau is updated after an epoch, those of LENGTH_MATTERS at every step."""
    if config.schedule == "one-cycle":
        # OneCycleLR divides by zero if the warm-up is exactly one step.
        warmup = config.warmup if config.warmup * (total_steps + 1) != 1 else config.warmup * (1 - 1e-9)
        # The rate alone: momentum stays as configured, and not every optimizer has one.
        rise = {"pct_start": warmup, "cycle_momentum": False}
        return lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=total_steps + 1, **rise)
    if config.schedule == "linear":
        peak = max(1, round(config.warmup * total_steps))
        # The last step is taken at a rate above zero, or it would be for nothing.
        return lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / peak, (total_steps - step) / (total_steps + 1 - peak))
        )
    if config.schedule == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, total_steps)
    if config.schedule == "plateau":
        return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=3)
    return lr_scheduler.ConstantLR(optimizer, factor=1.0)


# NumPy


class NumpyLearner:
    """Lets the loop train a network of NumPy arrays, which takes its steps by itself.

    It is handed arrays for tensors, and a learning rate for each step. torch is used for nothing but to exchange and to
    save the numbers.
    """

    SCHEDULES = ("constant", "cosine")
    SETTINGS = ("epochs", "batch_size", "lr", "validation", "patience", "select_best", "seed")

    def __init__(self, model: Any, config: TrainConfig, total_steps: int) -> None:
        if config.optimizer != "sgd" or config.schedule not in self.SCHEDULES:
            raise ValueError("the network written by hand learns by SGD, at a constant rate or along a cosine")
        self.model, self.config, self.total_steps, self.steps = model, config, total_steps, 0

    @classmethod
    def honours(cls, name: str, value: Any) -> bool:
        """Whether it can train with the setting `name` of TrainConfig at `value`."""
        allowed = {"schedule": cls.SCHEDULES, "optimizer": ("sgd",)}
        return value in allowed[name] if name in allowed else name in cls.SETTINGS

    def step(self, images: Tensor, labels: Tensor) -> tuple[float, int]:
        rate = self.config.lr
        if self.config.schedule == "cosine":
            rate *= (1 + math.cos(math.pi * self.steps / self.total_steps)) / 2
        self.steps += 1
        images, labels = images.cpu().numpy(), labels.cpu().numpy()
        self.model.step(images, labels, rate)
        outputs = self.model.activations[-1]  # as they were before the step
        # It descends the squared error, but reports the cross-entropy, by which every network is compared.
        loss = -np.log(self.model.normalised(outputs)[np.arange(len(labels)), labels]).mean()
        return float(loss), int((outputs.argmax(axis=1) == labels).sum())

    def log_probabilities(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self.model.probabilities(images.cpu().numpy())).log()

    def end_epoch(self, loss: float) -> None:
        """Nothing to do: no schedule of this network's looks at the loss."""

    def weights(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(array) for name, array in self.model.parameters().items()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        self.model.load_state_dict({name: tensor.numpy() for name, tensor in weights.items()})

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.weights(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.load_weights(state["model"])
        self.steps = state["steps"]

    def cost(self) -> dict[str, int]:
        parameters = self.model.parameters()
        weights = sum(array.size for name, array in parameters.items() if name.startswith("weight"))
        return {"parameters": sum(array.size for array in parameters.values()), "multiply_adds": weights}
