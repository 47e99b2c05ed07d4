"""What the benchmarks measure with: seconds of a call, seconds and peak memory of a command, and tables in Markdown.

Imports nothing heavy: as a script it runs a command and reports what that took, and its own memory must stay small.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

try:
    import resource
except ImportError:  # Windows has no such module
    resource = None

ROOT = Path(__file__).parents[1]
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in which ru_maxrss is given: macOS counts single ones


class Completed(NamedTuple):
    """A command that has ended well."""

    output: str  # what it printed
    seconds: float  # wall time
    megabytes: float | None  # peak memory, in units of 1,000,000 bytes; None where the system does not tell


def run(*command: object) -> Completed:
    """Run `command` in the project's folder. Raises CalledProcessError if it fails; its errors go to standard error.

    It is started by a small process in between: on Linux a process's peak begins with that of the one that started it.
    """
    words = [sys.executable, "-m", "benchmarks.measure", *map(str, command)]
    done = subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    output, _, report = done.stdout.rpartition("\n")
    return Completed(output, *json.loads(report))


def _run_and_report(command: Sequence[str]) -> int:
    """Run `command`, then print a line of its seconds and megabytes; return its exit code."""
    started = time.perf_counter()
    exit_code = subprocess.call(command)
    seconds = time.perf_counter() - started
    print("\n" + json.dumps([seconds, _peak_of_children()]), end="", flush=True)
    return exit_code


def _peak_of_children() -> float | None:
    return resource and resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * RSS_UNIT / 1e6


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def megabytes(value: float | None) -> str:
    """Memory as a cell of a table."""
    return "not measured: this system does not tell" if value is None else f"{value:,.0f}"


def spread(values: Sequence[float], form: str) -> str:
    """The median of `values`, and of several the smallest and the largest, each written in the format `form`."""
    median = f"{statistics.median(values):{form}}"
    return f"{median} ({min(values):{form}} to {max(values):{form}})" if len(values) > 1 else median


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    sys.exit(_run_and_report(sys.argv[1:]))
