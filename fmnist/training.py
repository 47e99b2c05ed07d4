"""Training: one loop for every network, and how a PyTorch network takes a step. Never imports matplotlib."""

import copy
import ctypes
import platform
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import lr_scheduler
from tqdm import tqdm

from fmnist import data
from fmnist.checkpoints import Checkpoints
from fmnist.config import LENGTH_MATTERS, TrainConfig
from fmnist.errors import Failed, Refused

EVALUATION_BATCH = 100  # images at once when nothing is learnt: more is no faster on a CPU, and takes more memory


class Learner(Protocol):
    """What the loop needs of a network. `TorchLearner` is one; the network written by hand brings its own."""

    def step(self, images: Tensor, labels: Tensor) -> tuple[float | Tensor, int | Tensor]:
        """Learn from uint8 [B, 28, 28] and int64 [B]; return the mean loss before the step and how many were right."""

    def log_probabilities(self, images: Tensor) -> Tensor:
        """Return float32 [B, 10] for uint8 [B, 28, 28], learning nothing."""

    def end_epoch(self, loss: float) -> None:
        """Take note of an epoch's loss: on the validation images where some are held out, else on the training set."""

    def state_dict(self) -> dict[str, Any]:
        """All that the next epoch depends on, as tensors and plain values; the weights under "model"."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to where `state_dict` was called."""

    def cost(self) -> dict[str, int]:
        """Number of trainable "parameters", and of "multiply_adds" to score one image."""


class TorchLearner:
    """A PyTorch network, its optimizer and its learning-rate schedule on one device in one precision."""

    def __init__(
        self, model: nn.Module, config: TrainConfig, device: torch.device, precision: str, total_steps: int
    ) -> None:
        self.device, self.config = device, config
        # Channels-last is faster on CPU and CUDA; on MPS it makes batch norm's gradients wrong (pytorch issue 175189).
        layout = torch.preserve_format if device.type == "mps" else torch.channels_last
        self.model = model.to(device, memory_format=layout)
        self.precision = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
        self.optimizer = make_optimizer(self.model, config)
        self.schedule = make_schedule(self.optimizer, config, total_steps)
        self.epochs = 0  # that it has learnt

    def step(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if not self.model.training:  # asked first, for it goes through every layer: a fortieth of a step of the FFN
            self.model.train()
        if self.config.augment:
            images = data.augment(images)
        with self.precision:
            scores = self.model(data.normalise(images))
            loss = F.cross_entropy(scores, labels, label_smoothing=self.config.label_smoothing)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.config.schedule in LENGTH_MATTERS:
            self.schedule.step()
        return loss.detach(), (scores.argmax(dim=1) == labels).sum()

    @torch.inference_mode()
    def log_probabilities(self, images: Tensor) -> Tensor:
        self.model.eval()
        with self.precision:
            scores = self.model(data.normalise(images))
        return F.log_softmax(scores.float(), dim=1)

    def end_epoch(self, loss: float) -> None:
        if self.config.schedule == "plateau":
            self.schedule.step(loss)
        self.epochs += 1
        self._freeze_first_layer()

    def _freeze_first_layer(self) -> None:
        """Once it is due, let the first layer be: edges are learnt early (Brock et al., "FreezeOut", 2017)."""
        first = next(layer for layer in self.model.modules() if getattr(layer, "weight", None) is not None)
        first.requires_grad_(not 0 < self.config.freeze_after <= self.epochs)

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "epochs": self.epochs,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.epochs = state["epochs"]
        self._freeze_first_layer()

    def cost(self) -> dict[str, int]:
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return {"parameters": parameters, "multiply_adds": multiply_adds(self.model)}


def multiply_adds(model: nn.Module) -> int:
    """Count the multiply-adds of scoring one image, on the meta device, where shapes flow and nothing is computed."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        copy.deepcopy(model).to("meta").eval()(torch.empty(1, 1, 28, 28, device="meta"))
    return counter.get_total_flops() // 2  # it counts a multiply-add as two operations


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Build the optimizer that `config` names, with one kernel for all parameters where torch has one."""
    parameters, common = model.parameters(), {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=config.momentum, fused=True, **common)
    if config.optimizer == "adadelta":
        return torch.optim.Adadelta(parameters, **common)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    return kind(parameters, fused=True, **common)


def make_schedule(optimizer: torch.optim.Optimizer, config: TrainConfig, total_steps: int) -> Any:
    """Build the learning-rate schedule; cosine and one-cycle move every step, plateau after an epoch."""
    if config.schedule == "one-cycle":
        # The rate alone: momentum stays as configured, and not every optimizer has one.
        rise = {"pct_start": config.warmup, "cycle_momentum": False}
        return lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=total_steps + 1, **rise)
    if config.schedule == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, total_steps)
    if config.schedule == "plateau":
        return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=3)
    return lr_scheduler.ConstantLR(optimizer, factor=1.0)


@dataclass(frozen=True)
class Progress:
    """How far a training has come."""

    history: list[dict[str, Any]] = field(default_factory=list)  # numbers of each finished epoch
    selected: dict[str, Tensor] = field(default_factory=dict)  # weights of the best epoch; without validation none


def fit(
    learner: Learner,
    images: Tensor,
    labels: Tensor,
    split: tuple[Tensor, Tensor],
    config: TrainConfig,
    checkpoints: Checkpoints,
    progress: Progress,
    log: Callable[[str], None] = print,
) -> Progress:
    """Train `learner` up to `config.epochs` epochs; return the numbers of each, and the weights of the best.

    `images` uint8 [N, 28, 28] and `labels` int64 [N] are on the learner's device; `split` holds the indices of those
    to learn from and of those to validate on, of which there may be none. `progress` says what was already trained,
    as `resume` returns it. The state is saved after every epoch. Every draw of an epoch follows from (seed, epoch), so
    that a resumed training takes the very steps of an unbroken one. Raises Failed if the loss is no longer finite.
    """
    (learnt, held_out), history, selected = split, progress.history, progress.selected
    if not history:
        checkpoints.save(0, learner.state_dict(), history, selected)
    for epoch in range(len(history) + 1, config.epochs + 1):
        seed_epoch(config.seed, epoch)
        started = time.perf_counter()
        batches = make_batches(learnt, config.batch_size)
        losses, right = torch.zeros(len(batches), device=images.device), 0
        for step, batch in enumerate(tqdm(batches, f"epoch {epoch}", leave=False, disable=None)):
            # images[batch] wakes all of torch's threads, even for 16 images; NumPy's then find no core to run on.
            losses[step], correct = learner.step(images.index_select(0, batch), labels[batch])
            right += correct
        seconds = time.perf_counter() - started
        check_finite(losses, learner.state_dict()["model"], epoch)

        row = summarise(losses, int(right), [len(batch) for batch in batches], seconds)
        if len(held_out):
            row |= validate(learner, images[held_out], labels[held_out])
        learner.end_epoch(row.get("validation_loss", row["train_loss"]))
        history = [*history, row]
        if len(held_out) and best_epoch(history) == epoch:
            selected = {name: tensor.clone() for name, tensor in learner.state_dict()["model"].items()}
        checkpoints.save(epoch, learner.state_dict(), history, selected)
        log(describe(epoch, config.epochs, row))
    return Progress(history, selected)


def resume(learner: Learner, checkpoints: Checkpoints, log: Callable[[str], None] = print) -> Progress:
    """Bring `learner` to its newest sound checkpoint and return what was trained so far: nothing if there is none."""
    checkpoint = checkpoints.newest(log)
    if checkpoint is None:
        return Progress()
    learner.load_state_dict(checkpoint["learner"])
    return Progress(checkpoint["history"], checkpoint["selected"])


def best_epoch(history: list[dict[str, Any]]) -> int:
    """Return the epoch, from 1, that is best on the validation images; the last one where none are held out.

    The highest accuracy decides, then the lowest loss. The test images have no say in it.
    """

    def merit(epoch: int) -> tuple[float, float, int]:
        row = history[epoch - 1]
        return row.get("validation_accuracy", 0.0), -row.get("validation_loss", 0.0), epoch

    return max(range(1, len(history) + 1), key=merit)


def select(learner: Learner, progress: Progress) -> None:
    """Give `learner` the weights of its best epoch, to be scored; where nothing was held out, it keeps the last."""
    if progress.selected:
        learner.load_state_dict({**learner.state_dict(), "model": progress.selected})


def seed_epoch(seed: int, epoch: int) -> None:
    """Make every draw that follows a function of (seed, epoch) alone; epoch 0 stands for the initial weights."""
    torch.manual_seed(seed * 100_003 + epoch)


def make_batches(indices: Tensor, batch_size: int) -> list[Tensor]:
    """Shuffle int64 `indices` into batches. A last batch of one joins the one before: batch norm needs two."""
    order = torch.randperm(len(indices)).to(indices.device)
    batches = list(indices[order].split(batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1 < batch_size:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def steps_per_epoch(count: int, batch_size: int) -> int:
    """The number of batches that `make_batches` makes of `count` images."""
    return max(1, count // batch_size + (count % batch_size > 1))


def check_finite(losses: Tensor, weights: dict[str, Tensor], epoch: int) -> None:
    """Raise Failed, naming the first step whose loss is not finite, or the last if the `weights` after it are not.

    Called once an epoch: it waits for the device.
    """
    finite = torch.isfinite(losses)
    finite[-1] &= all(bool(tensor.isfinite().all()) for tensor in weights.values())
    broken = (~finite).nonzero()
    if len(broken):
        raise Failed(
            f"the loss is no longer a finite number in epoch {epoch}, step {int(broken[0]) + 1}; the checkpoint of "
            f"epoch {epoch - 1} is kept; a smaller --lr may help"
        )


def summarise(losses: Tensor, right: int, sizes: list[int], seconds: float) -> dict[str, Any]:
    """Return an epoch's numbers from the mean loss [S] of each of its steps, which had batches of `sizes` images."""
    count, weights = sum(sizes), torch.tensor(sizes, device=losses.device)
    return {
        "train_loss": float((losses * weights).sum() / count),
        "train_accuracy": right / count,
        "train_loss_by_step": [float(part.mean()) for part in losses.cpu().tensor_split(min(20, len(losses)))],
        "steps": len(sizes),
        "seconds": seconds,
        "images_per_second": count / seconds,
    }


def log_probabilities(learner: Learner, images: Tensor) -> Tensor:
    """Return the learner's float32 [N, 10] on the CPU for uint8 images [N, 28, 28], scored in big batches."""
    scores = torch.empty(len(images), 10)  # at once: small tensors that stay would splinter the memory of the big ones
    for part, batch in zip(scores.split(EVALUATION_BATCH), images.split(EVALUATION_BATCH), strict=True):
        part.copy_(learner.log_probabilities(batch))
    return scores


def validate(learner: Learner, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Return loss and accuracy on held-out training images."""
    scores, labels = log_probabilities(learner, images), labels.cpu()
    return {
        "validation_loss": float(F.nll_loss(scores, labels)),
        "validation_accuracy": float((scores.argmax(dim=1) == labels).float().mean()),
    }


def describe(epoch: int, epochs: int, row: dict[str, Any]) -> str:
    """One line for the log about one epoch."""
    line = f"  epoch {epoch:{len(str(epochs))}}/{epochs}  loss {row['train_loss']:.4f} {row['train_accuracy']:7.2%}"
    if "validation_loss" in row:
        line += f"  validation {row['validation_loss']:.4f} {row['validation_accuracy']:7.2%}"
    return f"{line}  {row['seconds']:6.1f} s  {row['images_per_second']:8,.0f} images/s"


# The machine


def keep_freed_memory() -> None:
    """Let the C library keep what a training step frees for the next step, instead of giving it back to the system.

    Every step allocates the same tensors of several megabytes. glibc returns such memory at once, and the system hands
    it out again page by page, zeroed. Kept, the steps of the CNNs took 0.65 to 1.05 of the time (six networks, two or
    three pairs each, 2 threads of an AMD EPYC 7003, torch 2.14). Where the C library is not glibc, nothing is done.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt, trim_threshold, mmap_threshold = ctypes.CDLL(None).mallopt, -1, -3  # numbers as in malloc.h
        mallopt(trim_threshold, 2**31 - 1)  # bytes free at the heap's end before it shrinks
        mallopt(mmap_threshold, 32 * 2**20)  # bytes from which a tensor gets a mapping of its own; glibc takes no more


def give_back_memory() -> None:
    """Return to the system what `keep_freed_memory` has kept: what comes next needs other sizes."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is the best there is. Raises Refused if this machine has none such."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    if not available[name]:
        raise Refused(f"--device {name}: there is none on this machine; use --device auto")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> str:
    """Return "bf16" where `name` asks for it, or leaves the choice and the processor has instructions for it."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "mps":
        return "fp32"
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.10 does not say
    return "bf16" if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") else "fp32"
