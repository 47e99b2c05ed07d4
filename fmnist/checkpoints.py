"""What a run keeps on disk: the weights that others load, and the checkpoints that a stopped run goes on from."""

import io
import itertools
import json
import pickle
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fmnist.config import LENGTH_MATTERS, TrainConfig
from fmnist.errors import Refused
from fmnist.files import atomic_write

FORMAT = 1
KEPT = 2  # checkpoints per network: should the newest be damaged, the one before it serves


class Damaged(Exception):
    """A file does not hold what it should; the message names it and says what is wrong."""


def save(path: Path, content: dict[str, Any]) -> None:
    """Write `content`, of tensors and plain values only, so that it loads with `weights_only=True`."""
    # Into memory first: torch's own writer turns a full disk into an error that no longer says so.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())


def load(path: Path, *keys: str) -> dict[str, Any]:
    """Read what `save` wrote, running no code from the file. Raises Damaged, also if one of `keys` is not in it."""
    if not Path(path).is_file():  # a pipe would keep us waiting for ever
        raise Damaged(f"{path} is not there, or not a file")
    try:
        _check_sums(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch wonders aloud about a file before it gives it up
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise Damaged(f"{path} is damaged, or holds more than tensors and plain values and was not opened") from None
    except MemoryError:
        raise
    except OSError as error:
        raise Damaged(f"{path} cannot be read ({error.strerror or error})") from None
    except Exception as error:
        # A damaged archive makes torch raise whatever its reader stumbled over: RuntimeError, EOFError, KeyError ...
        raise Damaged(f"{path} is damaged ({type(error).__name__})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or set(keys) - content.keys():
        raise Damaged(f"{path} was not written by this version of the program")
    return content


def _check_sums(path: Path) -> None:
    """Raise what zipfile raises unless the archive that torch wrote is unaltered: torch does not look at its sums."""
    with zipfile.ZipFile(path) as archive:
        packed = [part for part in archive.infolist() if part.compress_type != zipfile.ZIP_STORED]
        if packed or archive.testzip() is not None:  # torch packs nothing: what is packed may unfold to any size
            raise zipfile.BadZipFile


# Weights: NAME.pth


def save_weights(folder: Path, network: Any, recipe: str, state: dict[str, Any]) -> None:
    """Write NAME.pth: which `network` (a recipes.Network) of which recipe it is, its settings and its `state` dict."""
    content = {"format": FORMAT, "model": network.name, "recipe": recipe, "config": network.settings}
    save(folder / f"{network.name}.pth", {**content, "state_dict": state})


def load_weights(path: Path) -> dict[str, Any]:
    """Read NAME.pth. Raises Refused if it is missing, damaged, from elsewhere, or holds a number that is not finite."""
    try:
        content = load(Path(path), "model", "recipe", "config", "state_dict")
    except Damaged as error:
        raise Refused(f"{error}; train it anew or name another file with --weights") from None
    if not isinstance(content["state_dict"], dict):
        raise Refused(f"{path} holds no weights of a network; name another file with --weights")
    for key, tensor in content["state_dict"].items():
        if not _is_finite(tensor):
            raise Refused(f"{path}: {key} holds values that are not finite numbers; train the network anew")
    return content


def _is_finite(value: Any) -> bool:
    """Whether `value` is a tensor of finite numbers, and all of them are there."""
    try:
        # A few bytes in a crafted file may pose as a tensor of any size, all of whose places are the same.
        whole = value.layout == torch.strided and value.untyped_storage().nbytes() >= value.nbytes
        return bool(whole and value.isfinite().all())
    except (AttributeError, RuntimeError):  # not a tensor, or of a kind that cannot be computed with
        return False


def apply_weights(model: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Make the tensors of `state` the weights of `model`, which may be on the meta device.

    Raises Refused, naming every missing, unknown and reshaped key.
    """
    own = model.state_dict()
    faults = [f"{key} is missing" for key in own if key not in state]
    faults += [f"{key} is unknown" for key in state if key not in own]
    faults += [
        f"{key} is {_in_words(state[key])} instead of {_in_words(own[key])}"
        for key in own
        if key in state and _in_words(state[key]) != _in_words(own[key])
    ]
    if faults:
        raise Refused(f"{path} does not fit this network: {', '.join(faults)}; name the weights of this network")
    model.load_state_dict(state, assign=True)


def _in_words(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


# Checkpoints: one file per finished epoch, of which the last few are kept


class Checkpoints:
    """The checkpoints of one network's training: `FOLDER/NAME-epoch0007.pt` after its seventh epoch.

    `config` is what a training must agree on to be resumed: {group: {setting: value}}, of plain values. `options` is
    what the user asked for, kept so that `--resume` need not be told again.
    """

    def __init__(self, folder: Path, name: str, config: dict[str, dict], options: dict[str, Any]) -> None:
        self.folder, self.name, self.config, self.options = Path(folder), name, config, options

    def save(self, epoch: int, learner: dict[str, Any], history: list[dict], selected: dict[str, Any]) -> None:
        """Keep the state after `epoch` epochs, with the weights `selected` so far; then drop all but the last few."""
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {"format": FORMAT, "config": self.config, "options": self.options}
        progress = {"learner": learner, "history": history, "selected": selected}
        save(self.folder / f"{self.name}-epoch{epoch:04d}.pt", settings | progress)
        for path in self.paths()[KEPT:]:
            path.unlink()

    def paths(self) -> list[Path]:
        """The files there are, newest first."""
        return checkpoint_paths(self.folder, self.name)

    def newest(self, log: Callable[[str], None] = print) -> dict[str, Any] | None:
        """Return the newest checkpoint that is sound, or None if this training has none.

        Raises Refused if there are some and all are damaged, or if it was made with other settings.
        """
        content = newest(self.paths(), log)
        if content is not None:
            self._refuse_differences(content)
        return content

    def _refuse_differences(self, content: dict[str, Any]) -> None:
        differences = [
            f"{name} was {theirs.get(name)} and is {ours.get(name)}"
            for group in self.config.keys() | content["config"].keys()
            for ours, theirs in [(self.config.get(group, {}), content["config"].get(group, {}))]
            for name in sorted(ours.keys() | theirs.keys())
            if ours.get(name) != theirs.get(name) and not self._may_differ(name, content)
        ]
        if differences:
            raise Refused(
                f"{self.name} cannot be resumed with other settings: {', '.join(sorted(differences))}; "
                "give --resume the settings it was started with, or leave it out to start anew"
            )

    def _may_differ(self, name: str, content: dict[str, Any]) -> bool:
        """More epochs may be asked for, unless the learning-rate schedule was laid out over their number."""
        training = self.config["training"]
        laid_out = training["schedule"] in LENGTH_MATTERS
        return name == "epochs" and not laid_out and training["epochs"] >= len(content["history"])


class RunState:
    """What a run keeps in `FOLDER/checkpoints` in order to be stopped and resumed.

    `options` are those the user asked for, joined on `resume` to those the run was started with. Raises Refused if
    there is nothing to resume. A new run sets aside the checkpoints of an unfinished one, and drops a finished one's.
    """

    FINISHED = "finished.json"  # the settings of the trainings that the pictures and tables in FOLDER show

    def __init__(self, folder: Path, resume: bool, options: dict[str, Any], log: Callable[[str], None] = print) -> None:
        self.folder, self.resume = Path(folder) / "checkpoints", resume
        self.settings: dict[str, dict] = {}
        if resume:
            content = newest(checkpoint_paths(self.folder), log)
            if content is None:
                raise Refused(f"--resume: there is no checkpoint in {self.folder}; leave it out to start anew")
            self._refuse_other_trainings(content["options"], options)
            options = {**content["options"], **options}
        self.options = options

    @staticmethod
    def _refuse_other_trainings(begun: dict[str, Any], asked: dict[str, Any]) -> None:
        """Raise Refused if other networks or seeds are asked for than were begun: they would start from nothing."""
        for name, usual in (("seed", TrainConfig.seed), ("models", "all of them")):
            there = begun.get(name, usual)
            if asked.get(name, there) != there:
                wish, own = (" ".join(value) if isinstance(value, list) else value for value in (asked[name], there))
                raise Refused(f"--{name} {wish}: the run that is to be resumed has {own}; leave --{name} out")

    def start(self, log: Callable[[str], None] = print) -> None:
        """Make room for a new run, or let one that is resumed count as unfinished again."""
        if self.resume or not self.folder.exists():
            (self.folder / self.FINISHED).unlink(missing_ok=True)
            return
        if checkpoint_paths(self.folder) and not (self.folder / self.FINISHED).exists():
            names = (self.folder.with_name(f"checkpoints.unfinished{n or ''}") for n in itertools.count())
            aside = next(path for path in names if not path.exists())
            self.folder.replace(aside)
            log(f"an unfinished run stood here: its checkpoints are kept in {aside}; named checkpoints, they resume")
        shutil.rmtree(self.folder, ignore_errors=True)

    def plan(self, settings: dict[str, dict]) -> None:
        """Take note of the `settings` of all trainings, by name, before any begins.

        Raises Refused if a training is to be resumed that was started with others.
        """
        self.settings = settings
        if self.resume:
            for name in settings:
                self.checkpoints(name).newest(log=lambda _: None)

    def is_finished(self) -> bool:
        """Whether the run that is to be resumed has nothing left to do: all trainings are done, drawn and reported."""
        try:
            json.loads((self.folder.parent / "metrics.json").read_text())
            return self.resume and json.loads((self.folder / self.FINISHED).read_text()) == self.settings
        except (OSError, ValueError):
            return False

    def finish(self) -> None:
        """Note that everything is done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.folder / self.FINISHED) as file:
            file.write(json.dumps(self.settings).encode())

    def checkpoints(self, name: str) -> Checkpoints:
        """The checkpoints of the training called `name`."""
        return Checkpoints(self.folder, name, self.settings[name], self.options)

    def has_checkpoints(self) -> bool:
        """Whether there is anything to go on from."""
        return bool(checkpoint_paths(self.folder))


def checkpoint_paths(folder: Path, name: str | None = None) -> list[Path]:
    """The checkpoint files in `folder`, of the training `name` or of all, newest first."""
    pattern = re.compile(rf"({re.escape(name) if name else '.+'})-epoch(\d+)\.pt")
    found = [(path, match) for path in Path(folder).glob("*.pt") if (match := pattern.fullmatch(path.name))]
    age = {path: path.stat().st_mtime_ns if name is None else int(match[2]) for path, match in found}
    return sorted(age, key=age.__getitem__, reverse=True)


def newest(paths: list[Path], log: Callable[[str], None] = print) -> dict[str, Any] | None:
    """Load the first sound one of `paths`, warning of any that is not; None if there are none at all.

    Raises Refused if every one is damaged: a training never starts silently from nothing.
    """
    faults = []
    for path in paths:
        try:
            return load(path, "config", "options", "learner", "history", "selected")
        except Damaged as error:
            faults.append(str(error))
            log(f"warning: {error}; looking for the checkpoint before it")
    if faults:
        raise Refused(f"no checkpoint can be read ({'; '.join(faults)}); leave out --resume to start anew")
    return None
