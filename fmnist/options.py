"""How the scripts read their command lines: every mistake in one line, every number within its limits."""

import argparse
import math
from collections.abc import Callable

from fmnist.errors import Refused


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error is said."""

    def error(self, message: str) -> None:
        raise Refused(f"{message}; --help shows all options")


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
