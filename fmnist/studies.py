"""Studies: `--vary SETTING=VALUE,VALUE` makes a network of every combination of the values, and plans their training.

With `--one-at-a-time`, as in an ablation, it makes one of every value alone, beside the network as the recipe has it. A
combination is a `Network` like any other: resumed, scored and kept as those of a recipe. Imports nothing heavy until
networks are to be measured.
"""

import difflib
import hashlib
import inspect
import itertools
import math
import re
import types
import typing
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from fmnist.config import Network, Recipe, TrainConfig
from fmnist.errors import Diverged, Failed, Refused

if TYPE_CHECKING:
    from fmnist.data import FashionMNIST
    from fmnist.device import Machine
    from fmnist.trials import Trial

HELD_OUT = 0.1  # of the training images, to select on, where nothing else is asked for
MOST_COMBINATIONS = 10_000
MOST_FACTORS = 3  # settings whose interactions are told, where each has two values
LONGEST_NAME = 120  # characters; a file system takes 255 for a file, and more is put behind the name
MEASURED_SECONDS = 10.0  # of training steps, for all networks together, to estimate the time of a study
LONGEST_MEASUREMENT = 0.5  # seconds of steps of one network
CHOOSE = "choose from "  # begins the reason why a word is no value
NEVER_VARIED = {
    "seed": "seeds are not compared, but averaged over: --seeds N",
    "validation": "it selects, on the same images for every combination: --validation FRACTION",
}
SPEED_SETTINGS = ("batch_size", "optimizer", "augment", "cutout")  # of training: what a step's time depends on


# From words to values


def assignment(word: str) -> tuple[str, list[str]]:
    """Split "kernel-size=3,5" into the setting, "kernel_size", and the texts of its values.

    Raises ValueError, in words for the user, if it is not of this form.
    """
    name, equals, values = word.partition("=")
    texts = [text.strip() for text in values.split(",")]
    if not (equals and name.replace("-", "_").isidentifier() and all(texts)):
        raise ValueError(f"{word[:60]!r} is not of the form SETTING=VALUE,VALUE, as in lr=1e-3,3e-3")
    return name.replace("-", "_"), texts


def assignments(words: Iterable[str]) -> dict[str, list[str]]:
    """The texts of the values of every setting. Raises Refused for one that stands there twice."""
    settings: dict[str, list[str]] = {}
    for name, texts in map(assignment, words):
        if name in settings:
            raise Refused(f"--vary {spoken(name)}: stands there twice; name all its values at once")
        settings[name] = texts
    return settings


def read(kind: Any, text: str) -> Any:
    """Return what `text` says as a value of the annotation `kind`: numbers, words, true, false, none, 32+64 for a list.

    "none" is an empty list where it can be nothing else.

    Raises ValueError if it is no such value, TypeError if `kind` is one that has no words.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _read_one_of(inner, text)
    if origin is Literal:
        return _chosen(text, {str(choice): choice for choice in inner})
    if kind is bool:
        return _chosen(text, {"true": True, "false": False})
    if kind is types.NoneType:
        return _chosen(text, {"none": None})
    if isinstance(origin, type) and issubclass(origin, Sequence) and inner:
        return _read_list(inner[0], text)
    if kind not in (int, float, str):
        raise TypeError(kind)
    value = kind(text)
    if kind is float and not math.isfinite(value):
        raise ValueError("not a finite number")
    return value


def _read_list(kind: Any, text: str) -> list[Any]:
    try:
        return [read(kind, part) for part in text.split("+")]
    except ValueError:
        if text == "none":
            return []
        raise


def _read_one_of(kinds: Iterable[Any], text: str) -> Any:
    reasons = []
    # Lists come last, as "none" is one only where nothing else takes it.
    for kind in sorted(kinds, key=lambda kind: typing.get_origin(kind) not in (None, Literal)):
        try:
            return read(kind, text)
        except ValueError as error:
            reasons.append(str(error))
    choices = [reason.removeprefix(CHOOSE) for reason in reasons if reason.startswith(CHOOSE)]
    raise ValueError(f"{CHOOSE}{', '.join(choices)}" if len(choices) == len(reasons) else "none of these")


def _chosen(text: str, choices: Mapping[str, Any]) -> Any:
    if text not in choices:
        raise ValueError(f"{CHOOSE}{', '.join(choices)}")
    return choices[text]


def written(value: Any) -> str:
    """`value` as it is typed behind --vary: 256+128 for a list, 0.001, true, none; none for an empty list as well."""
    if isinstance(value, (list, tuple)):
        return "+".join(map(written, value)) or "none"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def spoken(name: str) -> str:
    """A setting as it is typed: kernel-size."""
    return name.replace("_", "-")


# Every combination of the values, a network each


def expanded(recipe: Recipe, words: Sequence[str], read_option: Callable[[str, str], Any]) -> Recipe:
    """Return `recipe` with every combination of the values in `words` in the place of each network that has them all.

    `read_option(name, text)` reads a value of a setting that is an option as well; it is asked for those alone. Raises
    Refused for a setting that no network has, a value that is none, and one that comes twice.
    """
    settings = assignments(words)
    chosen = _having(recipe, settings)
    for name, texts in settings.items():
        if len(texts) < 2:
            raise Refused(
                f"--vary {spoken(name)}={texts[0][:40]}: has one value, and nothing to compare it with; name two or "
                "more, or compare it with the recipe's own: --one-at-a-time"
            )
    networks, study = [], {}
    for network in chosen:
        values = {name: _values(network, name, texts, read_option) for name, texts in settings.items()}
        if math.prod(map(len, values.values())) > MOST_COMBINATIONS:
            raise Refused(f"--vary: more than {MOST_COMBINATIONS:,} combinations; name fewer values")
        combinations = itertools.product(*values.values())
        networks += [variant(network, dict(zip(values, combination, strict=True))) for combination in combinations]
        study = study or values
    title = f"study of {', '.join(name.replace('_', ' ') for name in settings)}"
    factors = tuple(settings) if len(chosen) == 1 < len(settings) <= MOST_FACTORS else ()
    what = replace(recipe, title=title, networks=tuple(networks), study=study, factors=factors)
    return replace(
        what, figures=_figures(recipe), source="", baseline="", notes=_left_out(recipe, chosen, settings), findings=()
    )


def one_at_a_time(recipe: Recipe, words: Sequence[str], read_option: Callable[[str, str], Any]) -> Recipe:
    """Return `recipe` with its network as it is, the baseline, and one for every value in `words`, set alone.

    Raises Refused as `expanded` does, for more networks than one, and for a value that the network has already.
    """
    settings = assignments(words)
    chosen = _having(recipe, settings)
    if len(chosen) > 1:
        names = ", ".join(network.name for network in chosen)
        raise Refused(f"--one-at-a-time: changes one network; choose it by --models among {names}")
    (network,) = chosen
    own, values = {name: network.value_of(name) for name in settings}, {}
    for name, texts in settings.items():
        values[name] = _values(network, name, texts, read_option)
        for value in values[name]:
            if written(value) == written(own[name]):
                raise Refused(f"--vary {spoken(name)}={written(value)}: {network.name} has that already; leave it out")
    changes = [{name: value} for name, several in values.items() for value in several]
    study = {name: [own[name], *several] for name, several in values.items()}
    networks = tuple(variant(network, change, own) for change in [{}, *changes])
    what = replace(recipe, title=f"{network.title}, changed one thing at a time", networks=networks, study=study)
    notes = _left_out(recipe, chosen, settings)
    return replace(
        what, figures=_figures(recipe), source="", baseline=networks[0].name, factors=(), notes=notes, findings=()
    )


def _figures(recipe: Recipe) -> tuple[str, ...]:
    """The recipe's figures, without `gains`, which needs successive versions; layers of the best network alone."""
    return tuple("best layers" if name == "layers" else name for name in recipe.figures if name != "gains")


def _left_out(recipe: Recipe, chosen: Collection[Network], settings: Iterable[str]) -> tuple[str, ...]:
    """A note on the networks of `recipe` that are not `chosen`, if there are some."""
    out = [network.name for network in recipe.networks if network not in chosen]
    return (f"Left out, as there is nothing to vary of {_listed(settings)}: {', '.join(out)}.",) if out else ()


def _having(recipe: Recipe, settings: Mapping[str, Any]) -> list[Network]:
    """The networks of `recipe` that have every one of the `settings`. Raises Refused if there is none."""
    own = {network.name: _settings(network) for network in recipe.networks}
    for name in settings:
        if name in NEVER_VARIED:
            raise Refused(f"--vary {spoken(name)}: {NEVER_VARIED[name]}")
        if not any(name in known for known in own.values()):
            raise Refused(_unknown(name, own))
    chosen = [network for network in recipe.networks if settings.keys() <= own[network.name]]
    if not chosen:
        raise Refused(f"--vary: no network of {recipe.name} has all of {_listed(settings)}; vary them one by one")
    return chosen


def _unknown(name: str, own: Mapping[str, set[str]]) -> str:
    known = sorted(set().union(*own.values()))
    near = nearest(name, known)
    meant = f" (did you mean {spoken(near)}?)" if near else f"; there is {_listed(known)}"
    return f"--vary {spoken(name)}: no setting of {', '.join(own)}{meant}"


def nearest(name: str, known: Sequence[str]) -> str | None:
    """Return which of the `known` names an unknown `name` probably means, such as lr for learning-rate; or None."""
    initials = "".join(part[:1] for part in re.split("[-_]", name))
    if len(initials) > 1 and initials in known:
        return initials
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.55)), None)


def _settings(network: Network) -> set[str]:
    """What of `network` can be varied: how it is trained, and the arguments of its constructor."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    arguments = {name for name, parameter in network.signature.items() if parameter.kind in named}
    return (arguments | TrainConfig.__dataclass_fields__.keys()) - NEVER_VARIED.keys()


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(spoken, names))


def _values(network: Network, name: str, texts: Sequence[str], read_option: Callable[[str, str], Any]) -> list[Any]:
    """Read the values of one setting of `network`. Raises Refused for what is none, and for one that comes twice."""
    values: list[Any] = []
    for text in texts:
        value = _value(network, name, text, read_option)
        if value in values:
            raise Refused(f"--vary {spoken(name)}={text}: the value stands there twice; leave one out")
        values.append(value)
    return values


def _value(network: Network, name: str, text: str, read_option: Callable[[str, str], Any]) -> Any:
    try:
        return read_option(name, text)
    except KeyError:  # no option of the command line
        pass
    kind = _annotation(network, name)
    try:
        return read(kind, text)
    except ValueError as error:
        described = getattr(kind, "__name__", str(kind)).replace("collections.abc.", "").replace("typing.", "")
        reason = f"it takes {described}" if not str(error).startswith(CHOOSE) else str(error)
        raise Refused(f"--vary {spoken(name)}={text[:40]}: not a value of it; {reason}") from None
    except TypeError:
        raise Refused(f"--vary {spoken(name)}: its values cannot be written on the command line") from None


def _annotation(network: Network, name: str) -> Any:
    """The type of a constructor's argument: its annotation, else that of its default."""
    from fmnist.config import import_class

    parameter = network.signature[name]
    try:
        return typing.get_type_hints(import_class(network.class_path).__init__)[name]
    except Exception:  # none, or whatever a network of the user's own has for one
        pass
    default = parameter.default
    if isinstance(default, (list, tuple)) and default:
        return Sequence[type(default[0])]
    return type(default) if isinstance(default, (bool, int, float, str)) else None


def variant(network: Network, varied: Mapping[str, Any], own: Mapping[str, Any] | None = None) -> Network:
    """`network` with the values of `varied` set, named after them: "ffn-hidden64-lr0.001".

    `own` are the settings that it has already and that other combinations of the study change.
    """
    training = {name: value for name, value in varied.items() if name in TrainConfig.__dataclass_fields__}
    arguments = {name: value for name, value in varied.items() if name not in training}
    return replace(
        network,
        name=_file_name(f"{network.name}{''.join(f'-{spoken(n)}{written(v)}' for n, v in varied.items())}"),
        title=", ".join([network.title, *(f"{n.replace('_', ' ')} {written(v)}" for n, v in varied.items())]),
        arguments={**network.arguments, **arguments},
        training=replace(network.training, **training),
        published={},
        change="",
        why="",
        varied={**(own or {}), **varied},
        variant_of=network.name,
    )


def _file_name(name: str) -> str:
    """`name` as files can be called; one that is altered or cut keeps apart by a digest."""
    plain = re.sub(r"[^A-Za-z0-9.+_-]", "_", name)[:LONGEST_NAME]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def without_diverged(
    recipe: Recipe, planned: "Sequence[Trial]", diverged: Mapping[str, Diverged]
) -> "tuple[Recipe, Sequence[Trial]]":
    """Leave out of a study, with a note, the combinations of which a trial is among the `diverged`.

    Raises Failed, with the first trial's reason, if nothing is left to compare.
    """
    lost = Counter(trial.network.name for trial in planned if trial.name in diverged)
    if not lost:
        return recipe, planned
    networks = tuple(network for network in recipe.networks if network.name not in lost)
    if len(networks) < 2 or recipe.baseline in lost:
        what = "the baseline is not" if recipe.baseline in lost else "no two combinations are"
        name, error = next(iter(diverged.items()))
        raise Failed(f"nothing to compare: {what} trained from every seed; {name} failed first ({error})")
    seeds = Counter(trial.network.name for trial in planned)
    titles = [
        f"{network.title} ({lost[network.name]} of {seeds[network.name]} seeds)"
        for network in recipe.networks
        if network.name in lost
    ]
    note = f"Left out, as the loss was no longer a finite number: {'; '.join(titles)}."
    left = [trial for trial in planned if trial.network.name not in lost]
    return replace(recipe, networks=networks, factors=(), notes=(*recipe.notes, note)), left


# The estimate: what is to be trained, before the first is


class Estimate(NamedTuple):
    """What a study amounts to."""

    combinations: int
    trials: int
    parameters: tuple[int, int]  # the fewest and the most
    seconds: float  # of all trials, one after the other, on this machine as it is now

    def __str__(self) -> str:
        fewest, most = (f"{count:,}" for count in self.parameters)
        parameters = fewest if fewest == most else f"{fewest} to {most}"
        counts = f"{self.combinations:,} combinations, {self.trials:,} trials, {parameters} parameters"
        return f"study: {counts}; about {_duration(self.seconds)} of training, one trial after the other"


def estimate(recipe: Recipe, seeds: int, dataset: "FashionMNIST", machine: "Machine") -> Estimate:
    """Count the trials of a study, and estimate their time from a few steps of each network that differs in speed."""
    counts, seconds = [], 0.0
    by_speed: dict[str, list[Network]] = {}
    for network in recipe.networks:
        by_speed.setdefault(_speed(network), []).append(network)
    budget = min(LONGEST_MEASUREMENT, MEASURED_SECONDS / len(by_speed))
    for alike in by_speed.values():
        parameters, step = _measured(alike[0], dataset, machine, budget)
        counts.append(parameters)
        seconds += step * seeds * sum(_steps(network, dataset) for network in alike)
    return Estimate(len(recipe.networks), len(recipe.networks) * seeds, (min(counts), max(counts)), seconds)


def _speed(network: Network) -> str:
    """What the time of a training step depends on, as text: equal for networks that are equally fast."""
    training = [getattr(network.training, name) for name in SPEED_SETTINGS]
    return repr((network.class_path, sorted(network.arguments.items()), training))


def _steps(network: Network, dataset: "FashionMNIST") -> int:
    from fmnist import training

    config = network.training
    images = round(len(dataset.train_images) * (1 - config.validation))
    return config.epochs * training.steps_per_epoch(images, config.batch_size)


def _measured(network: Network, dataset: "FashionMNIST", machine: "Machine", budget: float) -> tuple[int, float]:
    """Number of parameters, and seconds of a training step, from at least two steps and as many as fit in `budget`."""
    import time

    from fmnist import device, learners

    learner = learners.make_learner(network.build(), network.training, machine, 10_000)
    images, labels = (tensor[: network.training.batch_size] for tensor in dataset[:2])
    learner.step(images, labels)  # the first allocates
    device.synchronize(machine.device)
    steps, started = 0, time.perf_counter()
    while steps < 2 or time.perf_counter() - started < budget:
        learner.step(images, labels)
        device.synchronize(machine.device)
        steps += 1
    return learner.cost()["parameters"], (time.perf_counter() - started) / steps


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
