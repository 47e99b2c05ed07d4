"""A network that waits at one of its training steps, wherever it is trained: no patch of a child reaches its workers.

held.hold()
with child.started(**held.settings(output, "--jobs", "2")) as process:
    first, second = held.wait_for(2)        # the pids of the processes that train
    os.kill(first, signal.SIGKILL)
    held.let_go()
assert not difference(results(output), held.unbroken)
"""

import time
from pathlib import Path
from typing import Any

from tests.helpers import child
from tests.helpers.bench import FILES, MACHINE, Bench, outcome

PATCHES = [child.NO_PICTURES, child.NO_REPORT]
STEP = 15  # the step of a network, from 1, at which it waits; of ten to an epoch, in the second epoch
SOURCE = f"""
import os
import time
from pathlib import Path

from torch import nn

from fmnist.layers import Pixels

HERE = Path(__file__).parent


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(Pixels(), nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 10))
        self.steps = 0

    def forward(self, images):
        if self.training and len(images) > 2:  # two are what the program tries the network with
            self.steps += 1
            with open(HERE / "steps", "a") as file:
                file.write("x")
            while self.steps == {STEP} and (HERE / "hold").exists():
                (HERE / f"{{os.getpid()}}.held").touch()
                time.sleep(0.02)
        return super().forward(images)
"""


class Held:
    """The network's file in `folder`, to be trained on the bench's data; it waits from `hold` until `let_go`."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.folder, self.data = folder, bench.data
        (folder / "net.py").write_text(SOURCE)
        done = child.run(**self.settings(folder / "unbroken"))
        assert done.returncode == 0, done.stderr
        self.unbroken = results(folder / "unbroken")

    def settings(self, output: Path, *more: object) -> dict[str, Any]:
        """What `child.run` and `child.started` take to train it from two seeds, one after the other unless told."""
        words = ["classic", "--network", f"{self.folder / 'net.py'}:Net", "--seeds", "2", "--epochs", "4"]
        words += ["--batch-size", "20", *MACHINE, *more, "--data-dir", self.data, "--output-dir", output]
        return {"arguments": words, "files": FILES, "patches": PATCHES}

    @property
    def steps(self) -> int:
        """Training steps that were begun since the last `hold`, in all processes together."""
        return (self.folder / "steps").stat().st_size

    def hold(self) -> None:
        for path in (*self.folder.glob("*.held"), self.folder / "steps"):
            path.unlink(missing_ok=True)
        (self.folder / "hold").touch()

    def let_go(self) -> None:
        (self.folder / "hold").unlink(missing_ok=True)

    def wait_for(self, count: int, seconds: float = 120) -> list[int]:
        """Wait until so many processes wait; return their pids."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if len(found := list(self.folder.glob("*.held"))) == count:
                return [int(path.stem) for path in found]
            time.sleep(0.05)
        raise AssertionError(f"{[path.name for path in self.folder.iterdir()]}, of {count}")


def results(output: Path) -> dict[str, Any]:
    """What a run of `classic` has left, in comparable form, but for how it was spread."""
    left = outcome(output)
    for name in ("jobs", "cluster"):
        left["checkpoints/run.json"]["options"].pop(name, None)
    return left


def is_left_clean(output: Path) -> bool:
    """Whether a run of `classic` has left nothing half-written, and no copy of the data set."""
    return not child.strays(output) and not (output / "classic" / ".data").exists()


def is_alive(pid: int) -> bool:
    """Whether a process runs, and is not only kept for its exit code."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def descendants(pid: int) -> list[int]:
    """The processes that `pid` has started, and that these have."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # ended meanwhile
            continue
    own = [child for child, parent in parents.items() if parent == pid]
    return own + [further for child in own for further in descendants(child)]


def all_end(pids: list[int], seconds: float = 20) -> bool:
    """Wait until none of the processes runs; return whether that came to be."""
    end = time.monotonic() + seconds
    while any(map(is_alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(is_alive, pids))


def shared_memory(pid: int) -> list[Path]:
    """Semaphores and memory of a process that outlive it unless they are removed."""
    return list(Path("/dev/shm").glob(f"*-{pid}-*"))
