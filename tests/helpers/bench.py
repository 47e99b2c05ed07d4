"""Real trainings on tiny data, killed or stopped at chosen moments; their ends compared with that of one left alone.

    interrupted(bench, output, at_step(15))       killed before its fifteenth step
    resumed(bench, output)
    ends_as_unbroken(bench, output)

Every run writes into an `output` folder of its own; the pictures, which take seconds, are left out.
"""

import json
from pathlib import Path
from typing import Any

import torch

from tests.helpers import child, tiny
from tests.helpers.needs import KILLED

MADE = tiny.make(train=200, test=60)
FILES = tiny.files_table(MADE)
MACHINE = ["--device", "cpu", "--precision", "fp32"]
# Two networks in PyTorch, the one in NumPy, and one with everything that keeps a state: batch norm, plateau, dropout.
EXPERIMENTS = {
    "classic": ["classic", "--hidden", "32", "--kernels", "4", "8", "--epochs", "4", "--batch-size", "20", *MACHINE],
    "numpy": ["evolution", "--models", "v0", "--hidden", "32", "--epochs", "6", "--batch-size", "10", *MACHINE],
    "batchnorm": ["batchnorm", "--models", "ffn", "--hidden", "32", "16", "--epochs", "6", *MACHINE],
}
STEPS = {"classic": 10, "numpy": 18, "batchnorm": 7}  # an epoch's, of each of their networks
# What equal runs may differ in.
TIMES = {"seconds", "images_per_second", "training_seconds", "seconds_per_epoch", "created", "command"}


class Bench:
    """Runs the experiments on made-up data below `folder`, each run in an output folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.data = tiny.write_torchvision(MADE, self.folder / "data")

    def settings(self, name: str, output: Path, *more: object, patches: tuple[str, ...] = ()) -> dict[str, Any]:
        """What `child.run` and `child.started` take to run an experiment into `output`."""
        arguments = [*EXPERIMENTS[name], "--data-dir", self.data, "--output-dir", output, *more]
        return {"arguments": arguments, "files": FILES, "patches": [child.NO_PICTURES, child.NO_REPORT, *patches]}

    def run(self, name: str, output: Path, *more: object, **settings: Any):
        """Run an experiment to its end, which must be a good one."""
        done = child.run(**self.settings(name, output, *more, **settings))
        assert done.returncode == 0, done.stderr
        return done

    def left_alone(self, name: str) -> Path:
        """The output folder of an experiment that ran undisturbed; run once, and not to be changed."""
        output = self.folder / "unbroken" / name
        if not output.exists():
            self.run(name, output)
        return output

    def unbroken(self, name: str) -> dict[str, Any]:
        """What came of it."""
        return outcome(self.left_alone(name), EXPERIMENTS[name][0])


def outcome(output: Path, recipe: str = "classic") -> dict[str, Any]:
    """What a run into `output` has left behind, in comparable form: names of files, weights and numbers."""
    folder = output / recipe
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return _comparable({str(path.relative_to(folder)): _content(path) for path in files})


def _content(path: Path) -> Any:
    if path.suffix in (".pt", ".pth"):
        return torch.load(path, weights_only=True)
    if path.suffix == ".npz":
        return path.read_bytes()
    content = json.loads(path.read_text()) if path.suffix == ".json" else None
    if path.name == "run.json":
        content["files"] = sorted(content["files"])  # without their digests: metrics.json says when it was made
    return content


def _comparable(value: Any) -> Any:
    """Tensors as bytes, and no times."""
    if isinstance(value, dict):
        return {str(key): _comparable(item) for key, item in value.items() if key not in TIMES}
    if isinstance(value, (list, tuple)):
        return [_comparable(item) for item in value]
    if torch.is_tensor(value):
        return str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes()
    return value


def difference(first: Any, second: Any, place: str = "") -> str:
    """The first place in which two outcomes differ, or nothing."""
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        return next((found for key in first if (found := difference(first[key], second[key], f"{place}/{key}"))), "")
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        pairs = enumerate(zip(first, second, strict=True))
        return next((found for n, (a, b) in pairs if (found := difference(a, b, f"{place}/{n}"))), "")
    return "" if first == second else f"{place}: {str(first)[:80]} and {str(second)[:80]}"


def epochs_saved(folder: Path) -> dict[str, int]:
    """The epoch of the newest checkpoint of each training."""
    found = sorted((path.parent.name, int(path.stem.removeprefix("epoch"))) for path in folder.glob("*/epoch*.pt"))
    return dict(found)  # the last of each is the newest


# Interruptions at chosen moments

# Patches for the child, in which `here` prints a word and waits there for the test's signal.
AT_STEP = """
step = learners.{learner}.step
taken = [0]
def waits(self, images, labels):
    taken[0] += 1
    if taken[0] == {step}:
        here("waits")
    return step(self, images, labels)
learners.{learner}.step = waits
"""
SAVING = """
import os
from contextlib import contextmanager
whole, saved = files.atomic_write, [0]
class Slow:
    def __init__(self, file): self.file = file
    def write(self, body):
        body = bytes(body)
        self.file.write(body[:len(body) // 2])
        self.file.flush()
        {half_way}
        self.file.write(body[len(body) // 2:])
@contextmanager
def slow(path):
    saved[0] += 1
    if saved[0] != {nth}:
        with whole(path) as file:
            yield file
        return
    {before}
    replace = os.replace
    def late(*paths):
        {written}
        replace(*paths)
        {after}
    os.replace = late
    with whole(path) as file:
        yield Slow(file)
    os.replace = replace
checkpoints.atomic_write = slow
"""
MOMENTS = ("before", "half_way", "written", "after")


def at_step(step: int, learner: str = "TorchLearner") -> str:
    """A patch that stops before the step of that number, from 1, in a whole run."""
    return AT_STEP.format(step=step, learner=learner)


def saving(nth: int, moment: str, does: str = "here('waits')") -> str:
    """A patch that does something at one moment of writing the nth file of a run; the first is that of epoch 0."""
    return SAVING.format(nth=nth, **{name: does if name == moment else "pass" for name in MOMENTS})


def kept(output: Path) -> list[Path]:
    """The checkpoints of `classic`'s first network, newest first."""
    return sorted((output / "classic" / "checkpoints" / "ffn-seed0").glob("*.pt"), reverse=True)


def interrupted(bench: Bench, output: Path, patch: str, *more: object, name: str = "classic") -> list[str]:
    """Start an experiment and kill it where `patch` has it wait; returns what it printed until then."""
    with child.started(**bench.settings(name, output, *more, patches=(patch,))) as process:
        lines = child.wait_for(process, "waits")
        process.kill()
        assert process.wait() == KILLED
    return lines


def resumed(bench: Bench, output: Path, *more: object, name: str = "classic", **settings: Any):
    """Resume an experiment; returns how it ended."""
    return child.run(**bench.settings(name, output, "--resume", *more, **settings))


def ends_as_unbroken(bench: Bench, output: Path, name: str = "classic") -> None:
    """Check that a run ended with the unbroken run's weights and numbers, and left nothing half-written."""
    found = difference(outcome(output, EXPERIMENTS[name][0]), bench.unbroken(name))
    assert not found, found
    assert not child.strays(output)
