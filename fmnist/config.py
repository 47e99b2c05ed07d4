"""What an experiment is made of: training settings, networks and recipes; and how a network is built from its words.

Imports nothing heavy, and no network until one is built: `--help` and `--list` read it.
"""

import hashlib
import importlib
import importlib.util
import inspect
import itertools
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmnist.errors import Refused, kind_and_line, one_line

if TYPE_CHECKING:
    from fmnist.metrics import Published

ROOT = Path(__file__).resolve().parents[1]  # the folder of this program
OPTIMIZERS = ("adam", "adamw", "sgd", "adadelta")
SCHEDULES = ("constant", "plateau", "cosine", "one-cycle", "linear")
LENGTH_MATTERS = ("cosine", "one-cycle", "linear")  # laid out over all epochs, and moved at every step
POOLS = ("max", "avg", "stride")
WITHOUT_TORCH = ("numpy_ffn:NumpyFFN",)  # the classes of networks that bring their own backward pass
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")
REPRODUCTION_SEEDS = 5  # from fewer, a published figure is not judged


def _option(default: Any, words: str, low: float | None = None, high: float | None = None, choices=None) -> Any:
    """A field of TrainConfig, which is an option of the command line as well: its meaning, and limits or choices."""
    return field(default=default, metadata={"help": words, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True)
class TrainConfig:
    """How one network is trained. All of it is stored in its checkpoints.

    On resume it must agree; an unfinished training may be given more epochs, where the schedule does not rest on them.
    """

    epochs: int = _option(20, "passes over the training images", 1, 10_000)
    batch_size: int = _option(64, "images per step", 1, 60_000)
    lr: float = _option(1e-3, "learning rate; its peak, where the schedule has one", 1e-9, 100)
    optimizer: str = _option("adam", "optimizer", choices=OPTIMIZERS)
    momentum: float = _option(0.0, "momentum of SGD", 0, 0.9999)
    nesterov: bool = _option(False, "Nesterov momentum in SGD")
    weight_decay: float = _option(0.0, "weight decay", 0, 10)
    decay_norms: bool = _option(True, "apply weight decay to norms and biases too, not to kernels and matrices alone")
    schedule: str = _option(
        "constant",
        "learning-rate schedule; plateau cuts by ten after more than 3 epochs without a better loss",
        choices=SCHEDULES,
    )
    warmup: float = _option(0.3, "fraction of the steps before the peak of a one-cycle or linear schedule", 0.01, 0.99)
    label_smoothing: float = _option(0.0, "fraction of the target that is spread over all classes", 0, 0.99)
    augment: bool = _option(False, "mirror each training image left to right at random, and shift it")
    shift: int = _option(2, "pixels by which augmentation shifts an image at the most, down and across", 0, 27)
    cutout: int = _option(0, "side, in pixels, of a square that is blackened in each training image", 0, 28)
    validation: float = _option(0.0, "fraction of the training images held out for validation", 0, 0.9)
    patience: int = _option(0, "epochs without a better validation loss before training stops; 0: never", 0, 10_000)
    select_best: bool = _option(True, "score the weights of the epoch that is best on the validation images, if any")
    seed: int = _option(0, "seed of the initial weights, split, batches, dropout and augmentation", 0, 1_000_000)


@dataclass(frozen=True)
class Network:
    """One network of a recipe: how it is built, how it is trained, and what its author reports."""

    name: str  # on the command line and in file names
    title: str  # in tables and figures
    class_path: str  # "module:Class", or "path/file.py:Class" for a network of the user's own
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of its constructor
    training: TrainConfig = TrainConfig()
    published: "Published" = field(default_factory=dict)  # keys as in metrics.json; accuracies as fractions
    change: str = ""  # what distinguishes it from the network before it
    varied: Mapping[str, Any] = field(default_factory=dict)  # of a study: the settings of this combination
    variant_of: str = ""  # of a study: the network that was varied
    why: str = ""  # why that should help

    @property
    def run_name(self) -> str:
        """Names this network trained from its seed."""
        return f"{self.name}-seed{self.training.seed}"

    @property
    def is_users_own(self) -> bool:
        """Whether its class stands in a file that the user named."""
        return ".py:" in self.class_path

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """All that decides what training makes of this network, as plain values.

        Of the sources of a user's own it has the digest of the file that is named, not of others that this imports.
        """
        file, _, name = self.class_path.rpartition(":")
        described = {"class": f"{Path(file).name}:{name}", **self.arguments}
        if self.is_users_own:  # a class can be rewritten between a run and its resumption
            described["sha256"] = _digest(file)
        return {"network": described, "training": asdict(self.training)}

    @property
    def signature(self) -> Mapping[str, inspect.Parameter]:
        """The parameters of its constructor, by name."""
        return inspect.signature(import_class(self.class_path)).parameters

    @property
    def is_torch(self) -> bool:
        """Whether PyTorch trains it; else it is one that brings its own backward pass."""
        from torch import nn

        return issubclass(import_class(self.class_path), nn.Module)

    def argument(self, name: str) -> Any:
        """The value of a constructor's argument, its default where the recipe says nothing."""
        value = self.arguments.get(name, self.signature[name].default)
        return list(value) if isinstance(value, tuple) else value

    def value_of(self, name: str) -> Any:
        """The value of a training setting or of a constructor's argument."""
        trained_by = name in TrainConfig.__dataclass_fields__
        return getattr(self.training, name) if trained_by else self.argument(name)

    def with_seed(self, seed: int) -> "Network":
        """The same network, to be trained from another seed."""
        return replace(self, training=replace(self.training, seed=seed))

    def build(self) -> Any:
        """Build the network; its weights follow from its seed. Raises Refused, in words, if its settings make none."""
        from fmnist.device import seed_epoch

        seed_epoch(self.training.seed, 0)
        return self._construct()

    def outline(self) -> Any:
        """Build it on the meta device, where shapes are inferred, and nothing is computed or drawn. Raises as `build`.

        A network of the user's own is built as it is: not all that users write can be run there, and what it draws
        besides its weights must be what it drew when it was trained.
        """
        import torch

        if self.is_users_own:
            return self.build()
        with torch.device("meta"):
            return self._construct()

    def _construct(self) -> Any:
        seed = {"seed": self.training.seed} if "seed" in self.signature else {}  # of one that draws without torch
        try:
            return import_class(self.class_path)(**self.arguments, **seed)
        except (Exception, SystemExit) as error:
            if self.is_users_own and not isinstance(error, MemoryError):
                raise Refused(f"{self.class_path}: cannot be built ({kind_and_line(error)})") from None
            torchs_own = (ArithmeticError, RuntimeError, TypeError)  # of numbers that are not for networks
            if isinstance(error, ValueError) or (self.varied and isinstance(error, torchs_own)):
                advice = "change --vary" if self.varied else "change --hidden, --kernels, --kernel-size or --pool"
                raise Refused(f"{self.name}: {one_line(error)}; {advice}") from None
            raise

    @property
    def is_convolutional(self) -> bool:
        """Whether it has kernels and feature maps to show."""
        from torch import nn

        return self.is_torch and any(isinstance(layer, nn.Conv2d) for layer in self.outline().modules())

    def check(self) -> None:
        """Raise Refused, in words, if the settings make no network, or one that cannot learn from such batches."""
        import torch

        model = self.outline()
        if not self.is_torch:
            return
        weights = list(model.parameters())
        if any(map(torch.nn.parameter.is_lazy, weights)):
            raise Refused(f"{self.class_path}: has lazy layers; write their sizes out")
        if not any(weight.requires_grad for weight in weights):
            raise Refused(f"{self.class_path}: has no weights to train")
        if self.training.batch_size > 1 and not self.is_users_own:
            return  # the recipes' own networks take such images; asking a network on the meta device costs 150 MB
        if not all(map(torch.is_tensor, model.state_dict().values())):
            raise Refused(f"{self.class_path}: its state holds more than tensors; leave out get_extra_state")
        images = torch.zeros(min(2, self.training.batch_size), 28, 28, dtype=torch.uint8, device=weights[0].device)
        for is_training in (True, False):
            self._check_logits(model.train(is_training), images)
        self._check_logits(model, images[:1])  # in evaluation, where a batch may be of one

    def _check_logits(self, model: Any, images: Any) -> None:
        """Raise Refused if `model` cannot make logits [B, 10] of `images`."""
        try:
            logits = model(images)
        except Exception as error:
            if self.training.batch_size == 1 and isinstance(error, ValueError):  # of batch norm: one value has no std
                raise Refused(f"--batch-size 1: {self.name} has batch norm, which needs 2 or more images") from None
            if not self.is_users_own:
                raise
            what = f"cannot take uint8 images [B, 28, 28] ({kind_and_line(error)})"
            raise Refused(f"{self.class_path}: {what}; let fmnist.layers.Pixels be its first stage") from None
        if getattr(logits, "shape", None) != (len(images), 10):
            raise Refused(f"{self.class_path}: its output is not the logits of ten classes, [B, 10]")
        if model.training and not logits.requires_grad:
            raise Refused(f"{self.class_path}: its output has no gradient; leave out no_grad and detach")


def import_class(class_path: str) -> type:
    """Import the class that "module:Class" or "path/file.py:Class" names. Raises Refused if it cannot be had."""
    module_path, _, name = class_path.rpartition(":")
    module = _import_file(module_path) if module_path.endswith(".py") else importlib.import_module(module_path)
    attribute = getattr(module, name, None)
    if not isinstance(attribute, type):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        there = [key for key in classes if vars(module)[key].__module__ == module.__name__]
        raise Refused(f"{class_path}: there is no class {name}; {module_path} has {', '.join(there) or 'none'}")
    if module_path.endswith(".py"):
        from torch import nn

        if not issubclass(attribute, nn.Module):
            raise Refused(f"{class_path}: {name} is no torch.nn.Module")
    return attribute


@cache
def _digest(path: str) -> str:
    """The SHA-256 of the file at `path` as it was when it was imported: it is not read again either."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@cache
def _import_file(path: str) -> Any:
    """Import the Python file at `path`, which may import its neighbours."""
    file = Path(path).resolve()
    spec = importlib.util.spec_from_file_location(f"users_own_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # as an import does: dataclasses and TorchScript look a class's module up
    beside = (one.stem for one in ROOT.glob("*.py") if any((file.parent / n).exists() for n in (one.name, one.stem)))
    named_like_ours = set(beside) if file.parent != ROOT else set()
    ours = {name: sys.modules.pop(name) for name in named_like_ours & sys.modules.keys()}
    sys.path.insert(0, str(file.parent))
    try:
        _digest(path)  # now, before it is read: it may be edited while the data set is fetched
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script without a guard around its main ends with the latter
        raise Refused(f"{path}: cannot be imported ({kind_and_line(error)})") from None
    finally:
        sys.path.remove(str(file.parent))
        for name in named_like_ours:  # they would be taken for this program's from now on
            sys.modules.pop(name, None)
        sys.modules.update(ours)
    return module


@dataclass(frozen=True)
class Recipe:
    """An experiment: networks trained under like conditions, compared with each other and with what was published."""

    name: str
    title: str
    summary: str
    source: str = ""  # author and repository of what is published
    networks: tuple[Network, ...] = ()
    explores: bool = False  # whether the data set itself is examined
    auditor: Network | None = None  # trained once per part left out, to find labels that look wrong: in the whole data
    # set if the recipe has no networks, else among the test images that its networks get wrong
    figures: tuple[str, ...] = ()  # besides those of every recipe: see fmnist.figures.album.EXTRA
    columns: tuple[str, ...] = ()  # of the results table, besides every recipe's: keys of metrics.json, "optimizer"
    baseline: str = ""  # the network that each other is compared with; without one it is the network before it
    factors: tuple[str, ...] = ()  # settings and arguments, of two values each, that the networks combine in every way
    notes: tuple[str, ...] = ()  # printed below the results
    findings: tuple[str, ...] = ()  # of whole runs; printed too, where options or data make no other experiment of it
    published_minimum: float | None = None  # test accuracy that all its networks surpass, as their author reports
    published_release: str = "current"  # of the data set, on which the published figures were measured
    study: Mapping[str, list[Any]] = field(default_factory=dict)  # settings that are varied, with all their values
    is_published: bool = True  # whether its networks are trained as published, and not by settings of the user's own

    def checked(self) -> "Recipe":
        """Return this recipe. Raises Refused, in words, if the settings of one of its networks make none."""
        for network in self.networks:
            network.check()
        return self

    def trainings(self, seeds: int) -> list[Network]:
        """Every network with each of its seeds, which count up from its own."""
        return [network.with_seed(network.training.seed + n) for network in self.networks for n in range(seeds)]

    @property
    def auditors(self) -> list[Network]:
        """The networks of an audit, each from a seed of its own; none where there is no audit."""
        from fmnist.data import PARTS

        return [self.auditor.with_seed(part) for part in range(PARTS)] if self.auditor else []

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Names of the networks that are compared, two by two."""
        names = [network.name for network in self.networks]
        if self.baseline in names:
            return [(self.baseline, name) for name in names if name != self.baseline]
        return list(itertools.pairwise(names))

    @property
    def ends(self) -> tuple[str, str] | None:
        """Names of the first and the last network, where each of three or more builds on the one before."""
        builds_up = not self.baseline and len(self.networks) > 2 and all(network.change for network in self.networks)
        return (self.networks[0].name, self.networks[-1].name) if builds_up else None

    @property
    def levels(self) -> dict[str, list[Any]]:
        """The value of each factor in each of the networks, in their order."""
        return {name: [network.value_of(name) for network in self.networks] for name in self.factors}

    def differs_in(self, name: str) -> bool:
        """Whether networks of this recipe differ by design in the training setting or constructor argument `name`.

        Arguments are compared among networks of one class. The number of epochs is nobody's design: it may be cut.
        """
        if name in TrainConfig.__dataclass_fields__:
            values = [[getattr(network.training, name) for network in self.networks]] if name != "epochs" else []
        else:
            classes = {network.class_path for network in self.networks if name in network.signature}
            values = [[n.argument(name) for n in self.networks if n.class_path == one] for one in classes]
        return any(value != group[0] for group in values for value in group)
