"""Weights and checkpoints on disk: what others load, and what a stopped training goes on from."""

import io
import math
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fmnist.config import Network
from fmnist.data import CLASSES
from fmnist.errors import Refused, at_most
from fmnist.files import atomic_write

FORMAT = 1
FILE = re.compile(r"epoch(\d+)\.pt")
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
            warnings.simplefilter("ignore")  # torch warns of a file before it gives it up
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
    own = isinstance(content, dict) and type(content.get("format")) is int and content["format"] == FORMAT
    if not own or set(keys) - content.keys():
        raise Damaged(f"{path} was not written by this version of the program")
    return content


def _check_sums(path: Path) -> None:
    """Raise what zipfile raises unless the archive that torch wrote is unaltered: torch does not look at its sums."""
    with zipfile.ZipFile(path) as archive:
        packed = [part for part in archive.infolist() if part.compress_type != zipfile.ZIP_STORED]
        if packed or archive.testzip() is not None:  # torch packs nothing: what is packed may unfold to any size
            raise zipfile.BadZipFile


# Weights: NAME.pth


def save_weights(
    folder: Path,
    network: Network,
    recipe: str,
    state: dict[str, torch.Tensor],
    release: str,
    temperature: float | None = None,
) -> None:
    """Write NAME.pth: which `network` of which recipe it is, its settings, its `state` dict, on the CPU, and what is
    needed elsewhere: the names of its ten outputs, on which `release` of the data set it was trained, and, where it is
    known, the `temperature` that calibrates its probabilities: softmax(logits / temperature).
    """
    content = {
        "format": FORMAT,
        "model": network.name,
        "title": network.title,
        "recipe": recipe,
        "config": network.settings,
        "classes": list(CLASSES),
        "release": release,
        "state_dict": {name: tensor.detach().cpu() for name, tensor in state.items()},
        **({"temperature": temperature} if temperature else {}),
    }
    save(folder / f"{network.name}.pth", content)


def load_weights(path: Path) -> dict[str, Any]:
    """Read NAME.pth. Raises Refused if it is missing, damaged, from elsewhere, or holds a number that is not finite."""
    try:
        content = load(Path(path))
    except Damaged as error:
        raise Refused(f"{error}; train it anew or name another file with --weights") from None
    if "learner" in content:
        weights = f"{Path(path).resolve().parent.name.rpartition('-seed')[0] or 'NAME'}.pth"
        raise Refused(
            f"{path} is a checkpoint of a training; name the weights of its run, {weights} beside checkpoints/"
        )
    texts, state = [content.get(key) for key in ("model", "title", "recipe", "release")], content.get("state_dict")
    named = content.get("classes") == list(CLASSES)
    temperature = content.get("temperature", 1.0)  # missing where no validation images were held out
    if not (
        named
        and isinstance(temperature, float)
        and 0 < temperature < math.inf
        and all(isinstance(text, str) and text.isprintable() for text in texts)
        and isinstance(content.get("config"), dict)
    ):
        raise Refused(f"{path} was not written by this version of the program; train it anew")
    if not isinstance(state, dict):
        raise Refused(f"{path} holds no weights of a network; name another file with --weights")
    for key, tensor in state.items():
        if not _is_finite(tensor):
            raise Refused(f"{path}: {key} holds values that are not finite numbers; train the network anew")
    return content


def _is_finite(value: Any) -> bool:
    """Whether `value` is a tensor of finite numbers, and all of them are there."""
    try:
        # A few bytes in a crafted file may pose as a tensor of any size, all of whose places are the same.
        plain = value.layout == torch.strided and not value.is_neg() and not value.is_conj()
        whole = plain and value.untyped_storage().nbytes() >= value.nbytes
        return bool(whole and value.isfinite().all())
    except (AttributeError, RuntimeError):  # not a tensor, or of a kind that cannot be computed with
        return False


def rebuild(path: Path, networks: Iterable[Network]) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Build the PyTorch network that the weights file at `path` describes; return it with the file's content.

    Only classes that `networks` name are ever imported, whatever the file asks for. Raises Refused if it describes
    none, or if the weights do not fit.
    """
    content = load_weights(path)
    described = content["config"].get("network")
    asked = described.get("class") if isinstance(described, dict) else None
    if not isinstance(asked, str):
        raise Refused(f"{path} describes no network; train it anew")
    network = {network.settings["network"]["class"]: network for network in networks}.get(asked)
    if network is None:
        raise Refused(f"{path} is of a class that no recipe names; if it is your own, add --network {asked[:100]}")
    network = replace(network, arguments={key: described[key] for key in described.keys() - {"class", "sha256"}})
    if not network.is_torch:
        what = "a network written in NumPy, which has no layers to look into"
        raise Refused(f"{path} holds {what}; change --model or --weights")
    model = _outline(network, most_settings=100 + len(content["state_dict"]))  # every layer has a weight
    if model is None:
        raise Refused(f"{path} describes no network of this program; train it anew")
    apply_weights(model, content["state_dict"], path)
    return model.eval(), content


def _outline(network: Network, most_settings: int) -> torch.nn.Module | None:
    """Build a network of arguments from anywhere, in shapes alone until weights have fitted; None if they make none."""
    try:
        return network.outline() if _size(network.arguments) <= most_settings else None
    except MemoryError:
        raise
    except Exception:  # whatever its constructor stumbled over
        return None


def _size(value: Any) -> int:
    """How many plain values `value` holds."""
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, (list, tuple)) else 1


def apply_weights(model: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Make the tensors of `state` the weights of `model`, which may be on the meta device.

    Raises Refused, naming the missing, unknown and reshaped keys, ten at the most.
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
        told = ", ".join(at_most(10, faults))
        raise Refused(f"{path} does not fit this network: {told}; name the weights of this network")
    model.load_state_dict(state, assign=True)


def _in_words(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


# Checkpoints: one file per finished epoch, of which the last few are kept


class Checkpoints:
    """The checkpoints of one network's training: `FOLDER/NAME/epoch0007.pt` after its seventh epoch.

    `settings` is what the training follows from: {group: {setting: value}}, of plain values.
    """

    def __init__(self, folder: Path, name: str, settings: dict[str, dict]) -> None:
        self.folder, self.settings = Path(folder) / name, settings

    def save(self, epoch: int, learner: dict[str, Any], history: list, best_state: dict[str, torch.Tensor]) -> None:
        """Keep the state after `epoch` epochs, with the weights of the best so far; then drop all but the last few."""
        self._write(epoch, {"learner": learner, "history": history, "best_state": best_state, "finished": False})
        # Others by their names, not by their number: where a file of an earlier run could not be removed, the fresh one
        # is not taken for the oldest.
        kept = {self._path(number) for number in range(epoch - KEPT + 1, epoch + 1)}
        self._drop([path for path in self.paths() if path not in kept])

    def finish(self) -> None:
        """Keep of a finished training its history and the weights that were scored: what takes space goes."""
        newest, *older = self.paths() or [None]
        if not older:  # done already
            return
        try:
            content = load(newest, "learner", "history", "best_state")
        except Damaged:  # a resumption will say so, should it ever need it
            return
        learner = {"model": content["best_state"] or content["learner"]["model"]}
        content |= {"learner": learner, "best_state": {}, "finished": True}
        self._write(len(content["history"]), content)
        self._drop(older)

    def _path(self, epoch: int) -> Path:
        return self.folder / f"epoch{epoch:04d}.pt"

    def _write(self, epoch: int, content: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        save(self._path(epoch), {"format": FORMAT, "settings": self.settings, **content})

    @staticmethod
    def _drop(paths: list[Path]) -> None:
        for path in paths:
            with suppress(OSError):  # open in another program, on Windows
                path.unlink()

    def paths(self) -> list[Path]:
        """The files there are, newest first."""
        numbers = {path: int(match[1]) for path in self.folder.glob("*.pt") if (match := FILE.fullmatch(path.name))}
        return sorted(numbers, key=numbers.__getitem__, reverse=True)

    @property
    def epochs(self) -> int:
        """The number of epochs after which the newest was written; 0 if there is none."""
        return int(FILE.fullmatch(newest.name)[1]) if (newest := next(iter(self.paths()), None)) else 0

    def newest(self) -> dict[str, Any] | None:
        """Return the newest checkpoint that is sound, or None if there is none; warn of any that is not.

        Raises Refused if every one is damaged: a training never starts silently from nothing. So it does if the sound
        one is of another training.
        """
        faults = []
        for path in self.paths():
            try:
                content = load(path, "settings", "learner", "history", "best_state", "finished")
            except Damaged as error:
                faults.append(str(error))
                print(f"warning: {error}; looking for the checkpoint before it")
                continue
            settings = content["settings"] if isinstance(content["settings"], dict) else {}
            if settings.get("network") != self.settings["network"]:
                raise Refused(f"{path} is of another network than this run's; leave out --resume to start anew")
            return content
        if faults:
            raise Refused(f"no checkpoint can be read ({'; '.join(faults)}); leave out --resume to start anew")
        return None
