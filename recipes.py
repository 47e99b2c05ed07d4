"""Which experiments exist: their networks, training settings and published figures, as data.

To add a network to a recipe, add a `Network` to its tuple: the loop, tables and figures take it from there.
Imports no torch, so that `--help` and `--list` answer at once.
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmnist.config import TrainConfig
from fmnist.errors import Refused

if TYPE_CHECKING:
    import torch

    from fmnist.training import Learner

REFERENCE = Path(__file__).resolve().parent / "outputs" / "reference"  # whole runs that come with the program


@dataclass(frozen=True)
class Network:
    """One network of a recipe: how it is built, how it is trained, and what its author reports."""

    name: str  # on the command line and in file names
    title: str  # in tables and figures
    kind: str  # FFN, CNN, resnet18 or NumpyFFN
    arguments: dict[str, Any] = field(default_factory=dict)  # of its constructor
    training: TrainConfig = TrainConfig()
    published: dict[str, float] = field(default_factory=dict)  # keys as in metrics.json; accuracies as fractions
    change: str = ""  # what distinguishes it from the network before it

    @property
    def is_convolutional(self) -> bool:
        """Whether it has kernels and maps to show."""
        return self.kind not in ("FFN", "NumpyFFN")

    @property
    def run_name(self) -> str:
        """Names this network trained from its seed."""
        return f"{self.name}-seed{self.training.seed}"

    @property
    def settings(self) -> dict[str, dict]:
        """All that decides what training makes of this network, as plain values."""
        return {"network": {"kind": self.kind, **self.arguments}, "training": asdict(self.training)}

    def with_seed(self, seed: int) -> "Network":
        """The same network, to be trained from another seed."""
        return replace(self, training=replace(self.training, seed=seed))

    def build(self) -> Any:
        """Build the network; its weights follow from its seed. Raises Refused, in words, if its settings make none."""
        import cnn
        import ffn
        from fmnist.training import seed_epoch

        kinds = {"FFN": ffn.FFN, "NumpyFFN": ffn.NumpyFFN, "CNN": cnn.CNN, "resnet18": cnn.resnet18}
        seed_epoch(self.training.seed, 0)
        seed = {"seed": self.training.seed} if self.kind == "NumpyFFN" else {}  # it draws with NumPy
        try:
            return kinds[self.kind](**self.arguments, **seed)
        except ValueError as error:
            raise Refused(f"{self.name}: {error}; change --hidden, --kernels, --kernel-size or --pool") from None

    def check(self) -> None:
        """Raise Refused, in words, if the settings make no network, or one that cannot learn from such batches."""
        import torch

        with torch.device("meta"):  # shapes alone
            model = self.build()
            try:
                if self.training.batch_size == 1 and self.kind != "NumpyFFN":
                    model(torch.empty(1, 1, 28, 28))
            except ValueError:  # of batch norm: a single value has no deviation
                raise Refused(f"--batch-size 1: {self.name} has batch norm, which needs 2 or more images") from None

    def learner(self, device: "torch.device", precision: str, images: int) -> "Learner":
        """Build the network together with what trains it, given so many training `images`."""
        import ffn
        from fmnist.training import TorchLearner, steps_per_epoch

        model = self.build()
        learnt = images - round(images * self.training.validation)
        total_steps = self.training.epochs * steps_per_epoch(learnt, self.training.batch_size)
        if self.kind == "NumpyFFN":
            return ffn.NumpyLearner(model, self.training, total_steps)
        return TorchLearner(model, self.training, device, precision, total_steps)


@dataclass(frozen=True)
class Recipe:
    """An experiment: networks trained under like conditions, compared with each other and with what was published."""

    name: str
    title: str
    summary: str
    source: str = ""  # author and repository of what is published
    networks: tuple[Network, ...] = ()
    explores: bool = False  # whether the data set itself is examined
    compares: tuple[str, ...] = ()  # settings in which its networks differ by design: no option may level them
    figures: tuple[str, ...] = ()  # besides those of every recipe: see fmnist.album.EXTRA
    columns: tuple[str, ...] = ()  # of the results table, besides those of every recipe: keys of metrics.json
    compared_with: str = "previous"  # what each network is compared with: the "previous" one, or always the "first"
    notes: tuple[str, ...] = ()  # printed below the results
    findings: tuple[str, ...] = ()  # of whole runs; printed too, unless options have made it another experiment

    def checked(self) -> "Recipe":
        """Return this recipe. Raises Refused, in words, if the settings of one of its networks make none."""
        for network in self.networks:
            network.check()
        return self

    def trainings(self, seeds: int) -> list[Network]:
        """Every network with each of its seeds, which count up from its own."""
        return [network.with_seed(network.training.seed + n) for network in self.networks for n in range(seeds)]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Names of the networks that are compared, two by two."""
        names = [network.name for network in self.networks]
        return list(zip(names if self.compared_with == "previous" else names[:1] * len(names), names[1:], strict=False))


CLASSIC = Recipe(
    name="classic",
    title="FFN against CNN",
    summary="a feed-forward and a convolutional network, as simple as they come",
    networks=(
        Network(
            name="ffn",
            title="FFN",
            kind="FFN",
            arguments={"hidden": [256], "dropout": 0.2},
            published={
                "parameters": 203_530,
                "test_accuracy": 0.8836,
                "train_subset_accuracy": 0.9115,
                "mean_accuracy": 0.8883,
            },
        ),
        Network(
            name="cnn",
            title="CNN",
            kind="CNN",
            arguments={"kernels": [32, 64], "kernel_size": 3, "pool": "max", "dense": [128], "dropout": 0.25},
            published={
                "parameters": 421_642,
                "test_accuracy": 0.9147,
                "train_subset_accuracy": 0.9655,
                "mean_accuracy": 0.9232,
            },
        ),
    ),
)

BATCHNORM = Recipe(
    name="batchnorm",
    title="deeper, normalised networks",
    summary="five linear layers against three convolutions, both with batch norm and a falling learning rate",
    figures=("layers",),
    networks=(
        Network(
            name="ffn",
            title="FFN, batch norm",
            kind="FFN",
            arguments={"hidden": [1024, 512, 256, 128], "dropout": 0.3, "batch_norm": True},
            training=TrainConfig(epochs=15, batch_size=32, schedule="plateau"),
        ),
        Network(
            name="cnn",
            title="CNN, batch norm",
            kind="CNN",
            arguments={"kernels": [64, 128, 256], "norm": "before", "dense": [1024, 512], "dropout": 0.4},
            training=TrainConfig(epochs=12, batch_size=32, lr=3e-3, schedule="plateau"),
        ),
    ),
    notes=("Published of these networks is only that the CNN beats the FFN.",),
)

RESNET = Recipe(
    name="resnet",
    title="a small CNN against ResNet-18",
    summary="the data explored, then accuracy set against parameters, multiply-adds and time",
    explores=True,
    figures=("cost", "layers"),
    columns=("multiply_adds", "seconds_per_epoch"),
    networks=(
        Network(
            name="cnn",
            title="Baseline CNN",
            kind="CNN",
            arguments={
                "kernels": [32, 64],
                "padding": 0,
                "pool_after": [2],
                "dense": [128],
                "conv_dropout": 0.25,
                "dropout": 0.5,
            },
            training=TrainConfig(epochs=5, optimizer="adadelta", lr=1.0),
            published={"parameters": 1_199_882, "test_accuracy": 0.9134, "train_loss": 0.2318},
        ),
        Network(
            name="resnet18",
            title="ResNet-18",
            kind="resnet18",
            training=TrainConfig(epochs=5, lr=1e-4),
            published={"test_accuracy": 0.8947, "train_loss": 0.1571},
        ),
    ),
    findings=(
        "ResNet-18 comes to a lower training loss than published, and to a lower test accuracy: at a constant rate it "
        "overfits.",
    ),
)

ADAMW = TrainConfig(epochs=10, optimizer="adamw", lr=3e-4, weight_decay=0.01, validation=0.1)
V1 = {"kernels": [64, 128], "padding": [1, 0], "norm": "after", "dense": []}
V2 = {**V1, "dense": [1024, 1024], "dense_norm": True, "dropout": 0.0}
V3 = {**V2, "conv_dropout": 0.1, "dropout": 0.1}

EVOLUTION = Recipe(
    name="evolution",
    title="from hand-written backpropagation to a regularised CNN",
    summary="four versions, each with one idea more than the one before",
    figures=("gains", "steps"),
    compares=("dropout",),
    notes=("v0 learns by the squared error; its losses are the cross-entropy of its outputs, for comparison.",),
    findings=(
        "v1 to v3 overfit at a constant rate, so that it matters which epoch is scored: here the best on validation "
        "images. Which it was for the published figures, and what chose it, is not known.",
    ),
    networks=(
        Network(
            name="v0",
            title="v0, NumPy",
            kind="NumpyFFN",
            arguments={"hidden": [300, 100]},
            training=TrainConfig(epochs=20, batch_size=16, lr=0.2, optimizer="sgd", schedule="cosine", validation=0.1),
            published={"parameters": 266_610, "test_accuracy": 0.8748},
            change="fully connected, backpropagation by hand",
        ),
        Network(
            name="v1",
            title="v1, CNN",
            kind="CNN",
            arguments=V1,
            training=ADAMW,
            published={"test_accuracy": 0.9173},
            change="two convolutions with batch norm",
        ),
        Network(
            name="v2",
            title="v2, deeper",
            kind="CNN",
            arguments=V2,
            training=ADAMW,
            published={"test_accuracy": 0.9254},
            change="two hidden layers with layer norm",
        ),
        Network(
            name="v3",
            title="v3, regularised",
            kind="CNN",
            arguments=V3,
            training=ADAMW,
            published={"test_accuracy": 0.9319, "test_loss": 0.2689},
            change="dropout after every block",
        ),
    ),
)

CHOICE = TrainConfig(epochs=6, validation=0.1)
CHOICE_CNN = {
    "kernels": [32, 32, 64, 64],
    "pool_after": [2, 3, 4],
    "norm": "before",
    "dense": [512],
    "conv_dropout": 0.25,
    "dropout": 0.5,
}

CHOICES = Recipe(
    name="choices",
    title="one network, its design choices compared",
    summary="ReLU or LeakyReLU, max-pooling or strided convolution, Adam or SGD with momentum",
    networks=(
        Network(
            name="relu",
            title="ReLU, max-pool, Adam",
            kind="CNN",
            arguments={**CHOICE_CNN, "activation": "relu", "pool": "max"},
            training=CHOICE,
        ),
        Network(
            name="leaky_relu",
            title="LeakyReLU",
            kind="CNN",
            arguments={**CHOICE_CNN, "activation": "leaky_relu", "pool": "max"},
            training=CHOICE,
            change="LeakyReLU for ReLU",
        ),
        Network(
            name="strided",
            title="strided convolution",
            kind="CNN",
            arguments={**CHOICE_CNN, "activation": "relu", "pool": "stride"},
            training=CHOICE,
            change="a stride of two for max-pooling",
        ),
        Network(
            name="sgd",
            title="SGD, momentum 0.9",
            kind="CNN",
            arguments={**CHOICE_CNN, "activation": "relu", "pool": "max"},
            training=replace(CHOICE, optimizer="sgd", lr=0.05, momentum=0.9),
            change="SGD with momentum for Adam",
        ),
    ),
    figures=("best layers",),
    compares=("pool", "optimizer"),
    compared_with="first",
    notes=("Published: every configuration above 90 % test accuracy.",),
)

ONE_CYCLE = TrainConfig(schedule="one-cycle", warmup=0.15)

SPEEDRUN = Recipe(
    name="speedrun",
    title="the published accuracies in a few epochs",
    summary="classic's networks without dropout, in 4 and 2 epochs of a rate that rises and falls once",
    networks=(
        Network(
            name="ffn",
            title="FFN",
            kind="FFN",
            arguments={"hidden": [256], "dropout": 0.0},
            training=replace(ONE_CYCLE, epochs=4, lr=3e-3),
            published={"parameters": 203_530, "test_accuracy": 0.8836},
        ),
        Network(
            name="cnn",
            title="CNN",
            kind="CNN",
            arguments={"kernels": [32, 64], "kernel_size": 3, "pool": "max", "dense": [128], "dropout": 0.0},
            training=replace(ONE_CYCLE, epochs=2, batch_size=32, lr=3e-3, freeze_after=1),
            published={"parameters": 421_642, "test_accuracy": 0.9147},
        ),
    ),
    notes=("Published of the same networks, with dropout and more epochs.",),
    findings=(
        "The number of epochs, batch size, rate, dropout and when the first layer is frozen were chosen on validation "
        "images alone.",
    ),
)

EXPLORE = Recipe(
    name="explore",
    title="the data set alone",
    summary="class counts, pixel statistics, mean images, samples and look-alikes; trains nothing",
    explores=True,
)

RECIPES = {recipe.name: recipe for recipe in (CLASSIC, SPEEDRUN, BATCHNORM, RESNET, EVOLUTION, CHOICES, EXPLORE)}

# Which kinds of network have which of the arguments that options set.
TAKES = {
    "hidden": ("FFN", "NumpyFFN"),
    "kernels": ("CNN",),
    "kernel_size": ("CNN",),
    "pool": ("CNN",),
    "dropout": ("FFN", "CNN"),
}
TRAINING_OPTIONS = ("epochs", "batch_size", "lr", "optimizer", "seed", "validation")


def with_options(recipe: Recipe, options: dict[str, Any]) -> Recipe:
    """Return `recipe` changed by the command line's `options`. Raises Refused for one that it cannot honour."""
    networks = _chosen(recipe, options.get("models"))
    for name in options:
        if not recipe.networks and name != "device":
            raise Refused(f"--{name.replace('_', '-')}: {recipe.name} trains no network")
    for name, value in options.items():
        if name in TAKES or name in TRAINING_OPTIONS:
            networks = _changed(recipe, networks, name, value)
        if name in ("device", "precision") and value not in ("auto", "cpu", "fp32") and networks:
            _check_not_numpy_alone(networks, f"--{name} {value}")
    changed = {name: value for name, value in options.items() if name not in ("models", "seeds", "seed", "device")}
    asked = ", ".join(f"{name} {value}" for name, value in changed.items())
    own = (f"With {asked} of your own: what is published was measured with the recipe's.",) if asked else ()
    findings = () if asked or options.get("models") else recipe.findings
    return replace(recipe, networks=networks, notes=(*recipe.notes, *findings, *own))


def _chosen(recipe: Recipe, names: list[str] | None) -> tuple[Network, ...]:
    known = [network.name for network in recipe.networks]
    unknown = [name for name in names or () if name not in known]
    if unknown:
        there = f"it has {', '.join(known)}" if known else "it trains none"
        raise Refused(f"--models {' '.join(unknown)}: not a network of {recipe.name}; {there}")
    chosen = tuple(network for network in recipe.networks if names is None or network.name in names)
    # Where its partner is left out, a network is compared with another one, and its change alone explains no gain.
    pairs = set(replace(recipe, networks=chosen).pairs) - set(recipe.pairs)
    estranged = [name for _, name in pairs]
    return tuple(replace(network, change="") if network.name in estranged else network for network in chosen)


def _check_not_numpy_alone(networks: tuple[Network, ...], option: str) -> None:
    if all(network.kind == "NumpyFFN" for network in networks):
        raise Refused(f"{option}: the network written in NumPy computes on the CPU, in its own precision; leave it out")


def _changed(recipe: Recipe, networks: tuple[Network, ...], name: str, value: Any) -> tuple[Network, ...]:
    """Set one argument of every network that has it, or one training setting of every network."""
    option = f"--{name.replace('_', '-')}"
    if name in recipe.compares:
        raise Refused(f"{option}: {recipe.name} compares networks that differ in it; choose among them with --models")
    if name in TRAINING_OPTIONS:
        if name == "optimizer" and any(network.kind == "NumpyFFN" for network in networks):
            raise Refused(f"{option}: the network written in NumPy knows plain SGD only; choose others with --models")
        return tuple(replace(n, training=replace(n.training, **{name: value})) for n in networks)
    if not any(network.kind in TAKES[name] for network in networks):
        raise Refused(f"{option}: {recipe.name} trains no network that has it")
    return tuple(replace(n, arguments={**n.arguments, name: value}) if n.kind in TAKES[name] else n for n in networks)


def rebuild(content: dict[str, Any], path: Any) -> Any:
    """Build the PyTorch network that a weights file `content`, read from `path`, describes, and give it its weights.

    Raises Refused if the file describes none, or if the weights do not fit.
    """
    import torch

    from fmnist.checkpoints import apply_weights

    try:
        arguments = dict(content["config"]["network"])
        network = Network(content["model"], content["model"], arguments.pop("kind"), arguments)
        if network.kind == "NumpyFFN":
            raise Refused
        with torch.device("meta"):  # shapes alone, whatever sizes the file asks for, until the weights have passed
            model = network.build()
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError, Refused):
        raise Refused(f"{path} describes no PyTorch network of this program; train one anew") from None
    apply_weights(model, content["state_dict"], path)
    return model
