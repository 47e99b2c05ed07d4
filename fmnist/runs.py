"""The folder of a run: begun, stopped, resumed, and its results put in the place of the former ones, all together.

    RECIPE/                       the results of the last finished run: weights, pictures, metrics.json, report.html
    RECIPE/checkpoints/           of the run under way, else of that finished run: run.json, and a folder for each trial
    RECIPE/checkpoints.finished/  of that finished run, while another is under way
    RECIPE/.copying/              half a copy of its checkpoints, which becomes that folder when it is whole
    RECIPE/.results/              the results of the run under way, until all are there
    RECIPE/.finished/             all its results, while the former ones are taken out of their place
    RECIPE/.publishing/           the same, while they are moved to that place
    RECIPE.before/                a finished run of other settings, kept whole when its successor had finished

So whoever looks into RECIPE sees the results of one run, never of two, and a run that is stopped harms no other: what
a kill cuts short between .finished and the end, the next run in this folder does first.
"""

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fmnist.checkpoints import Checkpoints
from fmnist.config import LENGTH_MATTERS, TrainConfig
from fmnist.errors import Failed, Refused
from fmnist.files import read_json, write_json
from fmnist.metrics import Metrics
from fmnist.options import FORGOTTEN, SAID_AGAIN, SPREAD, option, read_again
from fmnist.trials import RECORD
from fmnist.workers import DATA

FORMAT = 2
COPYING = ".copying"


class Run:
    """One run of a recipe into `folder`, begun by `options` or, with `resume`, gone on with.

    On resume the `options` that the run was begun with are joined to those given now. Where there is nothing to resume
    the run is begun if `may_begin`; else Refused is raised.
    """

    def __init__(self, folder: Path, resume: bool, options: dict[str, Any], may_begin: bool = False) -> None:
        folder = Path(folder)
        # The run before is moved to a place beside the folder itself: beside a link is perhaps another disk.
        self.folder, self.options = Path(os.path.realpath(folder)) if folder.is_symlink() else folder, options
        self.checkpoints, self.results = self.folder / "checkpoints", self.folder / ".results"
        self.trainings: dict[str, dict] = {}  # settings of each trial, by name
        self.digests: dict[str, str] = {}  # of the data set's parts
        self._publish()  # of a run that was killed just then
        self.resume = resume and ((self.checkpoints / "run.json").exists() or not may_begin)
        if self.resume:
            self.notes = _read(self.checkpoints / "run.json")
            if self.notes is None:
                raise Refused(
                    f"--resume: there is no run to resume in {self.checkpoints}, whose run.json is missing or damaged; "
                    "leave it out to start anew"
                )
            forgotten = {*FORGOTTEN, *(SPREAD if options.keys() & SPREAD else ())}
            begun = {name: value for name, value in self.notes["options"].items() if name not in forgotten}
            self.options = {**begun, **options}
            self._refuse_other_trainings(begun, options)

    @staticmethod
    def _refuse_other_trainings(begun: dict[str, Any], asked: dict[str, Any]) -> None:
        """Raise Refused if other networks or seeds are asked for than were begun: they would start from nothing."""
        for name, usual in (("seed", TrainConfig.seed), ("models", "all of them")):
            there = begun.get(name, usual)
            both = asked.get(name, there), there
            wish, own = (" ".join(sorted(one)) if isinstance(one, list) else one for one in both)
            if wish != own:
                raise Refused(f"{option(name)} {wish}: the run that is to be resumed has {own}; leave it out")
        for name in SAID_AGAIN:
            if name in begun and name not in asked:
                raise Refused(f"--resume: this run was begun with {option(name)} {begun[name]}; say so again")

    def plan(self, trainings: dict[str, dict], digests: Mapping[str, str] | None = None) -> None:
        """Take note of the settings of all trainings, by name, and of the data set's `digests`, before any begins.

        Raises Refused if the run is to be resumed with others than it was begun with.
        """
        self.trainings = json.loads(json.dumps(trainings))  # as they come back from a file
        self.digests = dict(digests or {})
        if self.resume:
            self._refuse_differences()
            if self.notes.get("data", self.digests) != self.digests:  # of a run that trains nothing
                raise Refused("--data-dir: is another data set than this run's; leave out --resume to start anew")

    def _refuse_differences(self) -> None:
        begun = self.notes["trainings"]
        if _networks(begun) != _networks(self.trainings):
            wish, own = (", ".join(sorted(_networks(trainings))) for trainings in (self.trainings, begun))
            raise Refused(f"--resume: the run to be resumed trains {own}, not {wish}; leave it out to start anew")
        differences = set()
        for name in self.trainings.keys() & begun.keys():
            for group in self.trainings[name].keys() | begun[name].keys():
                ours, theirs = self.trainings[name].get(group, {}), begun[name].get(group, {})
                differences |= {
                    f"{setting} was {theirs.get(setting)} and is {ours.get(setting)}"
                    for setting in ours.keys() | theirs.keys()
                    if ours.get(setting) != theirs.get(setting) and not self._may_differ(name, setting, ours)
                }
        if differences:
            done = "a finished trial keeps no optimizer's state, so a run" if self._finished() else "a run"
            raise Refused(
                f"{done} cannot be resumed with other settings: {', '.join(sorted(differences))}; "
                "give --resume the settings it was started with, or leave it out to start anew"
            )

    def _may_differ(self, name: str, setting: str, training: dict[str, Any]) -> bool:
        """More epochs may be asked for, unless it is finished or its schedule was laid out over their number."""
        if setting != "epochs" or training.get("schedule") in LENGTH_MATTERS or name in self._finished():
            return False
        return training["epochs"] >= Checkpoints(self.checkpoints, name, {}).epochs

    def _finished(self) -> set[str]:
        """The names of the trials that have finished."""
        return {path.parent.name for path in self.checkpoints.glob(f"*/{RECORD}")}

    @property
    def is_trained(self) -> bool:
        """Whether the run that is to be resumed has finished once: at most, some of its results are missing."""
        return self.resume and bool(self.notes["files"]) and self.notes["trainings"] == self.trainings

    def is_finished(self) -> bool:
        """Whether the run that is to be resumed has nothing left to do: all its results are there."""
        return self.is_trained and not self.missing()

    def missing(self) -> list[str]:
        """The results of a finished run that are no longer there, or no longer what they were."""
        return [name for name, digest in self.notes["files"].items() if _digest(self.folder / name) != digest]

    def metrics(self) -> Metrics:
        """The content of metrics.json, once it is known to be what the run has written."""
        return json.loads((self.folder / "metrics.json").read_text("utf-8"))

    def drawn(self) -> list[tuple[str, Path]]:
        """Title and place of the pictures that kernel_vis.py has drawn of the run, and that are still there."""
        places = [(title, self.folder / name) for name, title in self.notes.get("drawn", {}).items()]
        return [(title, path) for title, path in places if path.is_file()]

    def start(self) -> None:
        """Make room for a new run beside the results of a finished one, or go on."""
        if not self.is_trained:
            self._check_former_can_be_moved()
        shutil.rmtree(self.results, ignore_errors=True)
        shutil.rmtree(self.folder / DATA, ignore_errors=True)
        shutil.rmtree(self.folder / COPYING, ignore_errors=True)
        if not self.resume:
            self._set_checkpoints_aside()
            self.notes = {"format": FORMAT, "files": {}}
            self.checkpoints.mkdir()
        if not self.is_trained:
            if self.notes["files"]:  # more seeds: as the former run it is to be whole
                self._copy_checkpoints(self.folder / "checkpoints.finished")
            options = {name: value for name, value in self.options.items() if name not in FORGOTTEN}
            self.notes |= {"options": options, "trainings": self.trainings, "data": self.digests, "files": {}}
        write_json(self.checkpoints / "run.json", self.notes)
        self.results.mkdir()

    def _check_former_can_be_moved(self) -> None:
        """Raise Refused if what the former run has left here could not be set aside when this one has finished."""
        notes = _read(self.checkpoints / "run.json")
        is_finished = notes is not None and bool(notes["files"])
        if not (self._former() or is_finished or (self.folder / "checkpoints.finished").exists()):
            return
        what = "the run before" if is_finished else "what stands in it"
        if not os.access(self.folder.parent, os.W_OK):
            raise Refused(f"{self.folder.parent}: cannot be written, to keep there {what}; name another --output-dir")
        if os.path.ismount(self.folder):
            raise Refused(f"{self.folder}: is a disk of its own, and keeps {what}; name another --output-dir")

    def _former(self) -> list[Path]:
        """What stands here beside checkpoints and the results under way: the former run's, or others' files."""
        return [path for path in self.folder.iterdir() if not path.name.startswith((".", "checkpoints"))]

    def _copy_checkpoints(self, place: Path) -> None:
        copying = self.folder / COPYING  # half a copy would be taken for the whole
        try:
            shutil.copytree(self.checkpoints, copying)
            shutil.rmtree(place, ignore_errors=True)
            copying.replace(place)
        except shutil.Error as error:  # which lists, for each file, where from, where to, and why not
            reason = error.args[0][0][2]
            shutil.rmtree(copying, ignore_errors=True)
            raise Failed(
                f"{place}: cannot be written ({reason}); what is trained is kept: make room, then --resume"
            ) from None

    def _set_checkpoints_aside(self) -> None:
        """Keep the checkpoints that stand here: with the finished run whose they are, else as of an unfinished one."""
        if not self.checkpoints.exists():
            return
        former, finished = _read(self.checkpoints / "run.json"), self.folder / "checkpoints.finished"
        if former is not None and former["files"]:
            shutil.rmtree(finished, ignore_errors=True)
            self.checkpoints.replace(finished)
        elif any(self.checkpoints.glob("*/*.pt")):
            aside = _free(self.folder / "checkpoints.unfinished")
            self.checkpoints.replace(aside)
            what = f"checkpoints of an unfinished run are kept in {aside}"
            print(f"{what}; moved to {self.checkpoints}, they can be resumed")
        else:
            shutil.rmtree(self.checkpoints)

    @property
    def threads(self) -> int | None:
        """By how many threads the trials of the run that is to be resumed are computed; None for a new run."""
        trainings = self.notes["trainings"].values() if self.resume else ()
        counts = (one.get("machine", {}).get("threads") for one in trainings)
        return next((count for count in counts if isinstance(count, int) and count > 0), None)

    def leave_out(self, trials: Iterable[str]) -> None:
        """Take note of the trials of which nothing stands in the results that are about to be finished."""
        self.notes["left_out"] = sorted(trials)

    def finish(self) -> None:
        """Put the results in their place: what is missing of a finished run, else all, for those of the run before."""
        files = {path.name: _digest(path) for path in sorted(self.results.iterdir())}
        if self.is_trained:
            missing = self.missing()
            for name in files.keys() - set(missing):
                (self.results / name).unlink()
            for path in self.results.iterdir():
                _move(path, self.folder)
            self.results.rmdir()
            made = {name: files[name] for name in missing if name in files}
            write_json(self.checkpoints / "run.json", self.notes | {"files": self.notes["files"] | made})
            print(f"made again, as they were missing: {', '.join(missing)}")
            return
        write_json(self.results / "run.json", self.notes | {"files": files})
        self.results.replace(self.folder / ".finished")
        self._publish()

    def _publish(self) -> None:
        """Put the results of a run that has finished in the place of the former ones."""
        finished, moving = self.folder / ".finished", self.folder / ".publishing"
        if finished.exists():
            self._set_former_aside(_read_certainly(finished / "run.json"))
            shutil.rmtree(moving, ignore_errors=True)  # what of the former run could not be moved, on Windows
            finished.replace(moving)
        if moving.exists():
            self.checkpoints.mkdir(exist_ok=True)
            for path in sorted(moving.iterdir()):
                _move(path, self.checkpoints if path.name == "run.json" else self.folder)
            if not any(moving.iterdir()):
                moving.rmdir()

    def _set_former_aside(self, finished_notes: dict[str, Any]) -> None:
        """Move the former run's results and checkpoints to RECIPE.before, unless the finished run supersedes them.

        It does so by equal settings of its trainings, which name the data, or, where it trains nothing, by equal data.
        """
        finished, aside = self.folder / "checkpoints.finished", self.folder.with_name(f".{self.folder.name}.before")
        former = self._former()
        if not former and not finished.exists() and not aside.exists():
            return
        aside.mkdir(exist_ok=True)  # there already, if a run was killed just then
        for path in former:
            _move(path, aside)
        if finished.exists():
            finished.replace(aside / "checkpoints")
        notes = _read(aside / "checkpoints" / "run.json")
        same = [notes is not None and notes.get(key) == finished_notes.get(key) for key in ("trainings", "data")]
        superseded = all(same)
        if superseded:  # what it wrote goes; what is of others is kept
            for name in [*notes["files"], *notes.get("drawn", {})]:
                (aside / name).unlink(missing_ok=True)
            shutil.rmtree(aside / "checkpoints")
        if not any(aside.iterdir()):
            aside.rmdir()
            return
        kept = _free(self.folder.with_name(f"{self.folder.name}.before"))
        aside.replace(kept)
        what = "files that the run before had not written are kept" if superseded else "the run before is kept whole"
        print(f"{what} in {kept}")


def finished_trials(folder: Path) -> list[Path]:
    """The folders of the trials whose results the finished run in `folder` has. Raises Refused if there is none."""
    for kept in (folder / "checkpoints.finished", folder / "checkpoints"):  # the first, while another is under way
        notes = _read(kept / "run.json")
        if notes is not None and notes["files"]:
            return [kept / name for name in notes["trainings"] if name not in notes.get("left_out", ())]
    raise Refused(f"{folder}: holds no finished run; name the folder of one, such as outputs/classic")


def note_drawn(folder: Path, pictures: Iterable[tuple[str, Path]]) -> None:
    """Let pictures (title, place) that were drawn of a run in `folder` later share its fate and stand in its report."""
    finished, kept = (Path(folder) / name / "run.json" for name in ("checkpoints.finished", "checkpoints"))
    path = finished if finished.exists() else kept  # another run may be under way, whose pictures these are not
    notes = _read(path)
    if notes is not None and notes["files"]:
        drawn = {picture.name: title for title, picture in pictures}
        write_json(path, notes | {"drawn": notes.get("drawn", {}) | drawn})


def _move(path: Path, folder: Path) -> None:
    """Move a file into `folder`; one that a viewer holds open, on Windows, is named and stays where it was."""
    if (folder / path.name).is_dir():
        raise Failed(
            f"{folder / path.name} is a folder, in the place of a file of the run: move it away, then --resume"
        )
    try:
        path.replace(folder / path.name)
    except PermissionError:
        print(f"{path} cannot be moved to {folder}; close the program that shows it, then run again with --resume")


def _networks(trainings: dict[str, dict]) -> set[str]:
    """The names of the networks that are trained, each from one seed or several."""
    return {name.rpartition("-seed")[0] for name in trainings}


def _free(path: Path) -> Path:
    """Return `path`, or the first of `path`2, `path`3 ... at which nothing stands."""
    numbered = (path.with_name(f"{path.name}{n if n > 1 else ''}") for n in itertools.count(1))
    return next(candidate for candidate in numbered if not candidate.exists())


def _read(path: Path) -> dict[str, Any] | None:
    """The content of a run.json, or None if there is none that this version of the program has written."""
    notes = read_json(path)
    try:
        files = notes["files"] | notes.get("drawn", {})
        names = [*files, *notes["trainings"]]
        groups = [group for training in notes["trainings"].values() for group in training.values()]
        here = all(name == Path(name).name not in ("", "..") for name in names)  # and nowhere else
        sound = notes["format"] == FORMAT and here
        sound = sound and all(isinstance(group, dict) for group in groups)
        return {**notes, "options": read_again(notes["options"])} if sound else None
    except (AttributeError, KeyError, TypeError, Refused):
        return None


def _read_certainly(path: Path) -> dict[str, Any]:
    """The content of a run.json that must be there. Raises Refused if it is not."""
    notes = _read(path)
    if notes is None:
        raise Refused(f"{path} is damaged: move the folder {path.parent} away, and start anew")
    return notes


def _digest(path: Path) -> str | None:
    """SHA-256 of a result, None if it is not there; of the report, which changes later, whether it is empty."""
    if not path.is_file():
        return None
    if path.suffix == ".html":
        return "empty" if path.stat().st_size == 0 else "written"
    return hashlib.sha256(path.read_bytes()).hexdigest()
