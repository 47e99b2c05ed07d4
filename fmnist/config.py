"""The training settings, each in one place with its meaning. Imports nothing heavy: `--help` reads the choices."""

from dataclasses import dataclass

OPTIMIZERS = ("adam", "adamw", "sgd", "adadelta")
SCHEDULES = ("constant", "plateau", "cosine", "one-cycle")
LENGTH_MATTERS = ("cosine", "one-cycle")  # laid out over all epochs, and moved at every step
POOLS = ("max", "avg", "stride")
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class TrainConfig:
    """How one network is trained. Everything here is stored in its checkpoints and must agree on resume."""

    epochs: int = 20
    batch_size: int = 64
    lr: float = 1e-3  # peak learning rate, where the schedule has one
    optimizer: str = "adam"  # one of OPTIMIZERS
    momentum: float = 0.0  # SGD only
    weight_decay: float = 0.0
    schedule: str = "constant"  # one of SCHEDULES; "plateau" cuts by ten in the fourth epoch without a better loss
    warmup: float = 0.3  # share of the steps before the peak; one-cycle only
    freeze_after: int = 0  # epochs after which the first layer learns no more, which saves its backward pass; 0: never
    label_smoothing: float = 0.0  # share of the target spread over all classes
    augment: bool = False  # each training image flipped and shifted by up to two pixels, drawn per image
    validation: float = 0.0  # share of the training images held out; they select, the test images never do
    seed: int = 0  # initial weights, split, order of batches, dropout and augmentation all follow from it
