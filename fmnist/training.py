"""The training loop: one for every network, straight, and resumable at every epoch. Never imports matplotlib."""

import math
import time
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from fmnist.checkpoints import Checkpoints
from fmnist.config import TrainConfig
from fmnist.data import TrainingData
from fmnist.device import seed_epoch, synchronize
from fmnist.errors import Diverged, Refused
from fmnist.learners import Learner, log_probabilities
from fmnist.metrics import Epoch


@dataclass(frozen=True)
class Progress:
    """How far a training has come."""

    history: list[Epoch] = field(default_factory=list)  # of each finished epoch
    best_state: dict[str, Tensor] = field(default_factory=dict)  # weights of the best epoch, where one is selected


def fit(
    learner: Learner, training_data: TrainingData, config: TrainConfig, checkpoints: Checkpoints, progress: Progress
) -> Progress:
    """Train `learner` up to `config.epochs` epochs; return the metrics of each, and the weights of the best.

    `training_data` is on the learner's device. `progress` says what was already trained, as `resume` returns it. The
    state is saved after every epoch. Every draw of an epoch follows from (seed, epoch), so that a resumed training
    takes the same steps as an uninterrupted one. Raises Diverged if the loss is no longer finite.
    """
    images, labels, train_indices, validation_indices = training_data
    history, best_state = progress.history, progress.best_state
    if not history:
        checkpoints.save(0, learner.state_dict(), history, best_state)
    for epoch in range(len(history) + 1, config.epochs + 1):
        if is_stalled(history, config.patience):
            print(f"  stopped early: no better validation loss in {config.patience} epochs")
            break
        seed_epoch(config.seed, epoch)
        started = time.perf_counter()
        batches = make_batches(train_indices, config.batch_size)
        losses, correct = torch.zeros(len(batches), device=images.device), 0
        for step, batch in enumerate(tqdm(batches, f"epoch {epoch}", leave=False, disable=None)):
            # images[batch] wakes all of torch's threads, even for 16 images; NumPy's then find no core to run on.
            losses[step], hits = learner.step(images.index_select(0, batch), labels.index_select(0, batch))
            correct += hits
        synchronize(images.device)
        seconds = time.perf_counter() - started
        check_finite(losses, learner.weights(), epoch)

        row = summarise(losses, int(correct), [len(batch) for batch in batches], seconds)
        if len(validation_indices):
            row |= validate(learner, images[validation_indices], labels[validation_indices])
            if not math.isfinite(row["validation_loss"]):
                raise Diverged(
                    f"the validation loss is no longer a finite number after epoch {epoch}; a smaller --lr may help"
                )
        learner.end_epoch(row.get("validation_loss", row["train_loss"]))
        history = [*history, row]
        if selected_epoch(history, config) == epoch:
            best_state = {name: tensor.clone() for name, tensor in learner.weights().items()}
        checkpoints.save(epoch, learner.state_dict(), history, best_state)
        print(describe(epoch, config.epochs, row))
    return Progress(history, best_state)


def resume(learner: Learner, config: TrainConfig, checkpoints: Checkpoints) -> Progress:
    """Bring `learner` to its newest intact checkpoint and return what was trained so far: nothing if there is none.

    Raises Refused if that is of a finished training, of which the scored weights alone are kept, and `config` has it go
    on.
    """
    checkpoint = checkpoints.newest()
    if checkpoint is None:
        return Progress()
    history = checkpoint["history"]
    if not checkpoint["finished"]:
        learner.load_state_dict(checkpoint["learner"])
    elif len(history) >= config.epochs or is_stalled(history, config.patience):
        learner.load_weights(checkpoint["learner"]["model"])
    else:
        raise Refused(
            f"{checkpoints.folder}: a training that has finished keeps no optimizer's state, to go on with after epoch "
            f"{len(history)}: give --epochs {len(history)}, or leave out --resume to start anew"
        )
    return Progress(history, checkpoint["best_state"])


def select(learner: Learner, progress: Progress) -> None:
    """Give `learner` the weights of its best epoch, to be scored; where none is selected, it keeps the last."""
    if progress.best_state:
        learner.load_weights(progress.best_state)


def selected_epoch(history: list[Epoch], config: TrainConfig) -> int | None:
    """Return the epoch, from 1, that is best on the validation images; None where `config` has the last one scored.

    The highest accuracy decides, then the lowest loss. The test images have no say in it.
    """
    validated = {n: row for n, row in enumerate(history, start=1) if "validation_accuracy" in row}
    if not (validated and config.select_best):
        return None
    return max(validated, key=lambda n: (validated[n]["validation_accuracy"], -validated[n]["validation_loss"], n))


def is_stalled(history: list[Epoch], patience: int) -> bool:
    """Whether the validation loss has had no new minimum in the last `patience` epochs; never, if that is 0."""
    losses = [row["validation_loss"] for row in history if "validation_loss" in row]
    return 0 < patience < len(losses) and min(losses[-patience:]) >= min(losses[:-patience])


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
    """Raise Diverged, naming the first step whose loss is not finite, or the last if the `weights` after it are not."""
    finite = torch.isfinite(losses)
    finite[-1] &= all(bool(tensor.isfinite().all()) for tensor in weights.values())
    broken = (~finite).nonzero()
    if len(broken):
        raise Diverged(
            f"the loss is no longer a finite number in epoch {epoch}, step {int(broken[0]) + 1}; the checkpoint of "
            f"epoch {epoch - 1} is kept; a smaller --lr may help"
        )


def summarise(losses: Tensor, correct: int, sizes: list[int], seconds: float) -> Epoch:
    """Return an epoch's metrics from the mean loss [S] of each of its steps, which had batches of `sizes` images."""
    count, weights = sum(sizes), torch.tensor(sizes, device=losses.device)
    return {
        "train_loss": float((losses * weights).sum() / count),
        "train_accuracy": correct / count,
        "train_loss_by_step": [float(part.mean()) for part in losses.cpu().tensor_split(min(20, len(losses)))],
        "steps": len(sizes),
        "seconds": seconds,
        "images_per_second": count / seconds,
    }


def validate(learner: Learner, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Return loss and accuracy on held-out training images."""
    scores, labels = log_probabilities(learner, images), labels.cpu()
    return {
        "validation_loss": float(F.nll_loss(scores, labels)),
        "validation_accuracy": float((scores.argmax(dim=1) == labels).float().mean()),
    }


def describe(epoch: int, epochs: int, row: Epoch) -> str:
    """One line for the log about one epoch."""
    line = f"  epoch {epoch:{len(str(epochs))}}/{epochs}  loss {row['train_loss']:.4f} {row['train_accuracy']:7.2%}"
    if "validation_loss" in row:
        line += f"  validation {row['validation_loss']:.4f} {row['validation_accuracy']:7.2%}"
    return f"{line}  {row['seconds']:6.1f} s  {row['images_per_second']:8,.0f} images/s"
