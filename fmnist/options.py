"""The command line: what may be asked, within which limits, and what it changes in a recipe.

Every mistake is said in one line. An option stands in one place: a training setting is a field of `TrainConfig`, the
others stand below.
"""

import argparse
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import Any

from fmnist import studies
from fmnist.config import DEVICES, POOLS, PRECISIONS, Network, Recipe, TrainConfig
from fmnist.errors import Refused


def whole(low: int, high: int) -> Callable[[str], int]:
    """An argument's type: a whole number from `low` to `high`."""
    return _within(int, "a whole number", low, high)


def number(low: float, high: float) -> Callable[[str], float]:
    """An argument's type: a number from `low` to `high`."""
    return _within(float, "a number", low, high)


def _within(kind: type, what: str, low: float, high: float) -> Callable[[str], float]:
    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not {what} from {low:,} to {high:,}")
        return value

    return convert


def assignment(text: str) -> str:
    """An argument's type: SETTING=VALUE,VALUE, whose values are options' where the setting is an option as well."""
    try:
        name, values = studies.assignment(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if name in (*TRAINING_OPTIONS, *NETWORK_OPTIONS):
        for value in values:
            read_setting(name, value)
    return text


def jobs(text: str) -> int | str:
    """An argument's type: a number of processes, or auto."""
    return text if text == "auto" else whole(1, 1024)(text)


def address(text: str) -> str:
    """An argument's type: where a scheduler listens, such as tls://10.0.0.1:8786."""
    match = re.fullmatch(r"(?:(?:tcp|tls)://)?(?:[\w.-]+|\[[\da-fA-F:.]+\]):(\d{1,5})", text)
    if not match or not 0 < int(match[1]) < 65_536:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not HOST:PORT, tcp://HOST:PORT or tls://HOST:PORT")
    return text if "://" in text else f"tcp://{text}"


# Arguments of the networks' constructors: what of a network they set, and how they are read. An option changes every
# network of the recipe that has the argument.
NETWORK_OPTIONS = {
    "hidden": (
        "hidden layers",
        {
            "type": whole(1, 16_384),
            "nargs": "+",
            "metavar": "N",
            "help": "units of the FFN's hidden layers, e.g. 512 256",
        },
    ),
    "kernels": (
        "convolutions",
        {"type": whole(1, 4096), "nargs": "+", "metavar": "N", "help": "kernels of each layer of the CNN, e.g. 32 64"},
    ),
    "kernel_size": (
        "convolutions",
        {"type": whole(1, 28), "metavar": "N", "help": "height and width of the CNN's kernels"},
    ),
    "pool": ("downsampling", {"choices": POOLS, "help": "downsampling of the CNN"}),
    "dropout": (
        "dropout",
        {"type": number(0, 0.95), "metavar": "P", "help": "fraction of the hidden units that is dropped at each step"},
    ),
}
# What else shapes a run.
RUN_OPTIONS = {
    "models": {"nargs": "+", "action": "extend", "metavar": "NAME", "help": "train only these networks of the recipe"},
    "network": {"metavar": "FILE.py:CLASS", "help": "train your own network in place of the recipe's"},
    "seeds": {
        "type": whole(1, 1000),
        "metavar": "N",
        "help": "train every network from N seeds: mean and standard deviation",
    },
    "vary": {
        "type": assignment,
        "nargs": "+",
        "action": "extend",
        "metavar": "SETTING=VALUE,VALUE",
        "help": "train every combination of these values: training settings and arguments of the networks, "
        "e.g. lr=1e-3,3e-3 hidden=128,256+128",
    },
    "one_at_a_time": {
        "action": "store_true",
        "default": None,
        "help": "with --vary: in place of every combination, the network as the recipe has it beside each value alone",
    },
    "jobs": {
        "type": jobs,
        "metavar": "N",
        "help": "train so many networks side by side, each with its share of the threads; auto: one for each CPU core, "
        "or one on a GPU [1: one after another]",
    },
    "cluster": {
        "type": address,
        "metavar": "ADDRESS",
        "help": "train on the workers of the Dask scheduler there, e.g. tcp://127.0.0.1:8786; see docs/cluster.md",
    },
    "audit": {
        "action": "store_true",
        "default": None,
        "help": "look for labels that look wrong, by five networks, and for near-duplicate images (explore only)",
    },
    "device": {"choices": DEVICES, "help": "where to compute [auto: the best there is]"},
    "precision": {"choices": PRECISIONS, "help": "number format of the training [auto: what the processor is fast at]"},
}
TRAINING_OPTIONS = {field.name: field for field in fields(TrainConfig)}
# A weights file and a run's notes may not make the program import a file: the command line must say it each time.
SAID_AGAIN = ("network",)
FORGOTTEN = ("cluster",)  # nor connect to another machine; without it the run goes on here
SPREAD = {"jobs", "cluster"}  # where trials are trained, and never what comes of them: only one of the two
SAME_EXPERIMENT = {"models", "seeds", "seed", "device", "audit", *SPREAD}  # with these, published figures still apply


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error is said, and names the option that was probably meant."""

    def parse_known_args(self, args=None, namespace=None):
        """Look for unknown options first: argparse would take the value behind one for the recipe."""
        known = [word for action in self._actions for word in action.option_strings]
        for word in sys.argv[1:] if args is None else args:
            name = word.split("=")[0]
            is_option = name.startswith("--") or (name[:1] == "-" and name[1:2].isalpha())  # not a negative number
            if is_option and name[:2] not in known and not any(option.startswith(name) for option in known):
                near = nearest(name, known)
                self.error(f"unrecognized arguments: {word}" + (f" (did you mean {near}?)" if near else ""))
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> None:
        raise Refused(f"{message}; --help shows all options")


def nearest(word: str, known: list[str]) -> str | None:
    """Return which of the `known` options an unknown `word` probably means, such as --lr for --learning-rate."""
    name = word.lstrip("-").replace("_", "-")
    near = studies.nearest(name, [option[2:] for option in known if option.startswith("--")])
    return f"--{near}" if near else None


def folder_name(text: str) -> str:
    """An argument's type: the name of a folder in --output-dir, which every system can have."""
    plain = re.fullmatch(r"[^\W.][\w.+=@ -]{0,99}", text) and not re.search(r"[. ]$|\.before\d*$", text)
    plain = plain and not re.match(r"(con|prn|aux|nul|(com|lpt)\d)(\.|$)", text, re.IGNORECASE)  # Windows' devices
    if not plain:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not the plain name of a folder, as in wide-or-deep")
    return text


def add_folders(parser: argparse.ArgumentParser, home: Path) -> None:
    """Add where the data set is read and where results are written; by default in the program's own folder, `home`."""
    parser.add_argument("--data-dir", type=Path, default=home / "data", help="data directory [data]")
    words = "where results are written, in a folder for each recipe [outputs]"
    parser.add_argument("--output-dir", type=Path, default=home / "outputs", help=words)
    words = "the run's folder there, in place of the recipe's name"
    parser.add_argument("--name", type=folder_name, metavar="NAME", help=words)


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Add what sets finished runs beside each other in place of training one."""
    words = "set these finished runs beside each other, in comparison.html, and exit; written to --name [comparison]"
    parser.add_argument("--compare", nargs="+", type=Path, metavar="FOLDER", help=words)


def comparison_folder(asked: argparse.Namespace, recipes: Iterable[str]) -> Path:
    """Where a comparison is written. Raises Refused if more is asked for than one, or if a run is there."""
    named, resumed = [asked.recipe] * asked.is_recipe_named, ["--resume"] * asked.resume
    if words := [*named, *as_words(asked_for(asked)), *resumed]:
        raise Refused(f"--compare: trains nothing; leave out {' '.join(words)}")
    folder = asked.output_dir / (asked.name or "comparison")
    if asked.name in recipes or any((folder / name).exists() for name in ("checkpoints", "metrics.json")):
        raise Refused(f"--name {folder.name}: is the folder of a run; choose another name for the comparison")
    return folder


def run_folder(asked: argparse.Namespace, recipes: Iterable[str]) -> Path:
    """The folder of the run that is asked for. Raises Refused if it is another recipe's, or holds the data set."""
    if asked.name in {*recipes} - {asked.recipe}:
        raise Refused(f"--name {asked.name}: is the folder of the recipe {asked.name}; choose another name")
    folder = asked.output_dir / (asked.name or asked.recipe)
    data_dir = Path(os.path.realpath(asked.data_dir))  # which, unlike resolve, takes a loop of links as it is
    if data_dir.is_relative_to(os.path.realpath(folder)):  # it would be set aside with what the run has written
        raise Refused(f"--data-dir {asked.data_dir}: is in the folder of the run, {folder}; name another --output-dir")
    return folder


def add_experiment_options(parser: argparse.ArgumentParser) -> None:
    """Add every option that changes what a recipe trains."""
    group = parser.add_argument_group("training; what is left out is as the recipe has it")
    for field in TRAINING_OPTIONS.values():
        short = ["-b"] if field.name == "batch_size" else []
        group.add_argument(option(field.name), *short, **_how_to_read(field))
    group = parser.add_argument_group("networks")
    for name, (_, how) in NETWORK_OPTIONS.items():
        group.add_argument(option(name), **how)
    group = parser.add_argument_group("the run")
    for name, how in RUN_OPTIONS.items():
        group.add_argument(option(name), **how)


def _how_to_read(field: Field) -> dict[str, Any]:
    """What argparse is told of a training setting."""
    meaning = field.metadata
    default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default).lower()
    how: dict[str, Any] = {"help": f"{meaning['help']} [{default}, unless the recipe sets it]"}
    if field.type is bool:
        return how | {"action": argparse.BooleanOptionalAction}
    if meaning["choices"]:
        return how | {"choices": meaning["choices"]}
    kind = {int: whole, float: number}[field.type]
    return how | {"type": kind(meaning["low"], meaning["high"]), "metavar": "N" if field.type is int else "X"}


def option(name: str) -> str:
    """How the command line calls a setting."""
    return f"--{name.replace('_', '-')}"


def read_setting(name: str, text: str) -> Any:
    """Return the value that `text` says for a setting that is an option, within its limits; 256+128 is a list.

    Raises KeyError if there is no such option, Refused for what is no value of it.
    """
    how = NETWORK_OPTIONS[name][1] if name in NETWORK_OPTIONS else _how_to_read(TRAINING_OPTIONS[name])
    convert = how.get("type", str)
    try:
        if "action" in how:
            return studies.read(bool, text)
        value = [convert(part) for part in text.split("+")] if "nargs" in how else convert(text)
        if value not in how.get("choices", [value]):
            raise ValueError(f"{text[:40]!r} is none of {', '.join(how['choices'])}")
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise Refused(f"--vary {studies.spoken(name)}={text[:40]}: {error}") from None
    return value


def asked_for(options: argparse.Namespace) -> dict[str, Any]:
    """The options given that shape the run, and that a resumption must therefore know of."""
    known = (*TRAINING_OPTIONS, *NETWORK_OPTIONS, *RUN_OPTIONS)
    return {name: value for name in known if (value := getattr(options, name)) is not None}


def describes_run(options: argparse.Namespace) -> bool:
    """Whether the command line says which run is meant: so much that a run can be begun by it."""
    return options.is_recipe_named or bool(asked_for(options))


def as_words(options: Mapping[str, Any]) -> list[str]:
    """The words of a command line that asks for `options`."""
    words = []
    for name, value in options.items():
        if isinstance(value, bool):
            words.append(option(name) if value else option(f"no_{name}"))
        else:
            words += [option(name), *map(str, value if isinstance(value, list) else [value])]
    return words


def read_again(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return `options` from a file as the command line takes them. Raises Refused for what it would not take."""
    parser = Parser(add_help=False)
    add_experiment_options(parser)
    return asked_for(parser.parse_args(as_words(options)))


def changed(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    """Return `recipe` changed by the `options` that were given. Raises Refused for one that it cannot honour."""
    if "audit" in options and (recipe.networks or recipe.auditor is None):
        raise Refused(f"--audit: is no option of {recipe.name}; it examines the data set alone, as explore --audit")
    if not ("audit" in options or recipe.networks) or "vary" in options:  # a study compares, and judges no labels
        recipe = replace(recipe, auditor=None)
    _check_together(recipe, options)
    changes = {name: value for name, value in options.items() if name not in SAME_EXPERIMENT}
    if changes or "models" in options:
        recipe = replace(recipe, findings=())
    recipe = _chosen(recipe, options.get("models"))
    if "network" in options:
        recipe = _with_users_own(recipe, options["network"])
    for name, value in options.items():
        if name in TRAINING_OPTIONS:
            recipe = _with_training(recipe, name, value)
        elif name in NETWORK_OPTIONS:
            recipe = _with_argument(recipe, name, value)
    if "vary" in options:
        recipe = _varied(recipe, options)
    _check_honoured(recipe, options)
    return replace(recipe, notes=(*recipe.notes, *_note_on(changes, recipe)), is_published=not changes)


def _check_together(recipe: Recipe, options: Mapping[str, Any]) -> None:
    """Raise Refused for options that the recipe, or another option, rules out."""
    if not recipe.networks:
        honoured = {"device", "audit", *(SPREAD if recipe.auditor else ())}
        trained = f"{recipe.name} trains no network"
        if "audit" in options:
            honoured, trained = {*honoured, "precision"}, "the audit trains the same networks always"
        elif options.get("device", "auto") not in ("auto", "cpu"):
            raise Refused(f"--device {options['device']}: {recipe.name} computes on the CPU; leave it out")
        for name in options:
            if name not in honoured:
                raise Refused(f"{option(name)}: {trained}")
    if options.keys() >= SPREAD:
        raise Refused("--jobs, --cluster: one or the other; a cluster has as many jobs as workers")
    if "one_at_a_time" in options and "vary" not in options:
        raise Refused("--one-at-a-time: changes what --vary names; name it as well, as in --vary dropout=0")


def _note_on(changes: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """What to say of `changes` below the results of the `recipe` that they have made; nothing where there are none."""
    if not changes:
        return []
    compared = "vary" not in changes and any(network.published for network in recipe.networks)
    measured = "; the published figures were measured with the recipe's settings" if compared else ""
    return [f"Run with {' '.join(as_words(changes))}{measured}."]


def _chosen(recipe: Recipe, models: list[str] | None) -> Recipe:
    """Keep the networks that --models names."""
    known = [network.name for network in recipe.networks]
    unknown = [name for name in models or () if name not in known]
    if unknown:
        raise Refused(f"--models {' '.join(unknown)}: not a network of {recipe.name}; it has {', '.join(known)}")
    chosen = replace(recipe, networks=tuple(n for n in recipe.networks if models is None or n.name in models))
    # Where its partner is left out, a network is compared with another one, and its change alone explains no gain.
    partners = {b for _, b in set(chosen.pairs) - set(recipe.pairs)}
    networks = tuple(replace(n, change="") if n.name in partners else n for n in chosen.networks)
    return replace(chosen, networks=networks)


def users_own(class_path: str, training: TrainConfig | None = None) -> Network:
    """The network that --network names, to be trained by these settings. Raises Refused if it names none."""
    file, _, name = class_path.rpartition(":")
    if not (file.endswith(".py") and name.isidentifier()):
        raise Refused(f"--network {class_path}: name a file and a class in it, as in my_net.py:Net")
    if not Path(file).is_file():
        raise Refused(f"--network {class_path}: there is no such file")
    return Network(name.lower(), name, f"{Path(file).resolve()}:{name}", training=training or TrainConfig())


def _with_users_own(recipe: Recipe, class_path: str) -> Recipe:
    """Put the network that --network names in the place of the recipe's, to be trained as the last of them is."""
    network = users_own(class_path, recipe.networks[-1].training)
    if recipe.auditor and network.name == recipe.auditor.name:
        raise Refused(f"--network {class_path}: {recipe.name} has an {network.name}; rename the class")
    return replace(recipe, networks=(network,), baseline="", factors=())


def _with_training(recipe: Recipe, name: str, value: Any) -> Recipe:
    """Set one training setting of every network."""
    _check_no_design(recipe, name)
    networks = (replace(n, training=replace(n.training, **{name: value})) for n in recipe.networks)
    return replace(recipe, networks=tuple(networks))


def _with_argument(recipe: Recipe, name: str, value: Any) -> Recipe:
    """Set one constructor argument of every network that has it."""
    if not any(name in network.signature for network in recipe.networks):
        chosen, what = ", ".join(network.name for network in recipe.networks), NETWORK_OPTIONS[name][0]
        raise Refused(
            f"{option(name)}: of the chosen networks ({chosen}) none has {what} to set; "
            "leave it out or choose other --models"
        )
    _check_no_design(recipe, name)
    networks = (
        replace(n, arguments={**n.arguments, name: value}) if name in n.signature else n for n in recipe.networks
    )
    return replace(recipe, networks=tuple(networks))


def _varied(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    """Put every combination of what --vary names in the place of the networks; hold out images to select on."""
    settings = studies.assignments(options["vary"])
    for name in settings:
        if name in options:
            raise Refused(f"{_varying(name)}: is set by {option(name)} as well; leave one out")
        _check_no_design(recipe, name, _varying)
    if options.get("validation") == 0:
        raise Refused("--validation 0: a study selects on validation images; leave it out for a tenth")
    if "validation" not in options:
        recipe = _with_training(recipe, "validation", studies.HELD_OUT)
    expanded = studies.one_at_a_time if "one_at_a_time" in options else studies.expanded
    recipe = expanded(recipe, options["vary"], read_setting)
    own = recipe.networks[0].varied if recipe.baseline else {}  # what of it is not changed need not be of use
    for network in recipe.networks:
        asked = {name: value for name, value in network.varied.items() if name not in own or value != own[name]}
        _check_honoured(replace(recipe, networks=(network,)), asked, _varying)
    return recipe


def _varying(name: str) -> str:
    """How the command line says that a setting is varied."""
    return f"--vary {studies.spoken(name)}"


def _check_no_design(recipe: Recipe, name: str, said: Callable[[str], str] = option) -> None:
    """Raise Refused if an option would level what the networks of the recipe differ in by design."""
    if recipe.differs_in(name):
        raise Refused(
            f"{said(name)}: networks of {recipe.name} differ in it by design; choose among them with --models"
        )


def _drops(network: Network) -> bool:
    """Whether `network` has a layer behind which its argument `dropout` acts, as far as is known of its class."""
    known = network.signature
    return "dropout" in known and (network.is_users_own or "dense" not in known or bool(network.argument("dense")))


def _check_honoured(recipe: Recipe, options: Mapping[str, Any], said: Callable[[str], str] = option) -> None:
    """Raise Refused for an option that would change nothing, or that a network's own way of learning does not know.

    `said` tells how the command line says it.
    """
    trainings = [network.training for network in recipe.networks]
    needs = {
        "momentum": ("--optimizer sgd", lambda training: training.optimizer == "sgd"),
        "nesterov": ("--optimizer sgd --momentum", lambda one: one.optimizer == "sgd" and one.momentum > 0),
        "decay_norms": ("--weight-decay", lambda training: training.weight_decay > 0),
        "warmup": ("--schedule one-cycle or linear", lambda training: training.schedule in ("one-cycle", "linear")),
        "shift": ("--augment", lambda training: training.augment),
        "patience": ("--validation", lambda training: training.validation > 0),
        "select_best": ("--validation", lambda training: training.validation > 0),
    }
    for name, (needed, honours) in needs.items():
        # 0 and no are what they are anyway, but for those that are on by default.
        asked = name in options and (options[name] or TRAINING_OPTIONS[name].default)
        if asked and not any(map(honours, trainings)):
            raise Refused(f"{said(name)}: is of use with {needed} only")
    if options.get("dropout") and not any(map(_drops, recipe.networks)):
        names = dict.fromkeys(network.variant_of or network.name for network in recipe.networks)
        what = f"acts behind hidden dense layers, and {', '.join(names)} has none"
        raise Refused(f"{said('dropout')}: {what}; leave it out")
    _check_numpy(recipe, options, said)


def _check_numpy(recipe: Recipe, options: Mapping[str, Any], said: Callable[[str], str]) -> None:
    """Raise Refused for an option that a network in NumPy cannot honour."""
    by_hand = [network for network in recipe.networks if not network.is_torch]
    if not by_hand:
        return
    from fmnist.learners import NumpyLearner

    for network in by_hand:
        for name in options.keys() & TRAINING_OPTIONS.keys():
            if not NumpyLearner.honours(name, options[name]):
                raise Refused(f"{said(name)}: {network.name}, in NumPy, has no such setting; choose other --models")
    if len(by_hand) == len(recipe.networks):
        for name in ("device", "precision"):
            if options.get(name, "auto") not in ("auto", "cpu", "fp32"):
                raise Refused(f"{option(name)} {options[name]}: NumPy computes on the CPU, in fp32; leave it out")
