"""Kills real trainings at random moments, resumes each, and compares its end with that of a run left alone.

    python -m benchmarks.soak --kills 200

Weights and every number but the times must be equal bit for bit, and the folder must hold the same files. Tiny data,
real processes, SIGKILL. The test suite does the same with fewer kills, and at chosen moments.
"""

import argparse
import random
import re
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from recipes import RECIPES
from tests.helpers import child
from tests.helpers.bench import EXPERIMENTS, Bench, difference, epochs_saved, outcome


def epochs_of(name: str) -> int:
    """How long an experiment trains each network."""
    return int(EXPERIMENTS[name][EXPERIMENTS[name].index("--epochs") + 1])


def soak(bench: Bench, name: str, kills: int, chance: random.Random, log=lambda _: None) -> int:
    """Kill an experiment `kills` times, resume it each time, and compare each end with the unbroken run's.

    Returns how often it was brought to its end. Raises AssertionError for any loss.
    """
    unbroken, ends, killed = bench.unbroken(name), 0, 0
    started_at = time.monotonic()
    bench.run(name, bench.folder / "timed" / name)
    usual = time.monotonic() - started_at
    while killed < kills:
        output = bench.folder / f"killed-{name}-{ends}"
        ends += 1
        while not _ran_to_its_end(bench, name, output, chance.uniform(0, usual) if killed < kills else None):
            killed += 1
            log(f"{name}: killed {killed} of {kills}, saved {epochs_saved(_checkpoints(name, output))}")
        found = difference(outcome(output, EXPERIMENTS[name][0]), unbroken)
        assert not found, f"{name}, after kill {killed}: {found}"
        assert not child.strays(output)
    return ends


def _checkpoints(name: str, output: Path) -> Path:
    return output / EXPERIMENTS[name][0] / "checkpoints"


def _ran_to_its_end(bench: Bench, name: str, output: Path, seconds: float | None) -> bool:
    """Start, or resume, a run and kill it after `seconds`; whether it ended by itself, as it must, before."""
    folder = _checkpoints(name, output)
    saved, begun = epochs_saved(folder), (folder / "run.json").exists()
    with child.started(**bench.settings(name, output, *(["--resume"] if begun else []))) as process:
        if seconds is not None:
            time.sleep(seconds)
            process.kill()
        done = child.finish(process)
    assert done.returncode in (0, -9), (done.returncode, done.stderr)
    assert "warning" not in done.stdout, done.stdout  # a kill damages no checkpoint
    ended = done.returncode == 0
    _check_nothing_lost(name, saved, done.stdout, ended and "this run is finished" not in done.stdout)
    return ended


def _check_nothing_lost(name: str, saved: dict[str, int], stdout: str, whole: bool) -> None:
    """Each training that the run has come to, all of them in a `whole` one, goes on from its newest checkpoint."""
    chosen = [words[1] for words in pairwise(EXPERIMENTS[name]) if words[0] == "--models"]
    for network in RECIPES[EXPERIMENTS[name][0]].networks:
        line = rf"^{re.escape(network.title)}, seed 0(?:, from epoch (\d+)|, (trained already))?$"
        said = re.search(line, stdout, re.MULTILINE)
        if said:
            done = epochs_of(name) if said[2] else int(said[1] or 1) - 1
            assert done == saved.get(network.run_name, 0), (said[0], saved)
        elif whole and (not chosen or network.name in chosen):
            raise AssertionError(f"{network.title} is not named in: {stdout}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="in all [200]")
    parser.add_argument("--seed", type=int, default=0, help="of the moments [0]")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for number, name in enumerate(EXPERIMENTS):
            kills = options.kills * (number + 1) // len(EXPERIMENTS) - options.kills * number // len(EXPERIMENTS)
            ends = soak(bench, name, kills, chance, print)
            print(f"{name}: {kills} kills, {ends} ends, each equal to the unbroken run's bit for bit")


if __name__ == "__main__":
    sys.exit(main())
