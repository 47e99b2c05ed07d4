"""Where the benchmarks measure speed, and how much: the data, the machine, and a process apart for the plain loop."""

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from benchmarks.loops import PlainLoop, classic, train_by_fit
from fmnist import data
from fmnist.device import Machine

WARM_UP = 5  # steps before a measurement


class Effort(NamedTuple):
    """How much is measured."""

    pairs: int  # of both loops, in turns
    steps: Mapping[str, int]  # in each half of a pair, so many that what a run does once weighs little
    commands: int  # how often each command is run
    seeds: int  # from which the plain loop is trained to the accuracy
    most_epochs: int  # after which that is given up


@dataclass(frozen=True)
class Bench:
    """Where everything is measured."""

    root: Path  # of the data
    dataset: data.FashionMNIST
    machine: Machine
    effort: Effort
    apart: Executor  # one process for the plain loop, in which memory is handled as torch finds it

    @property
    def precisions(self) -> list[str]:
        """fp32, and what this machine's `auto` is if that is another."""
        return list(dict.fromkeys(["fp32", self.machine.precision]))

    def count(self, name: str) -> int:
        """Training images in each half of a pair of the network `name`."""
        return min(self.effort.steps[name] * classic(name).training.batch_size, len(self.dataset.train_images))

    def plain_rate(self, name: str, precision: str) -> float:
        """Images per second of the plain loop, measured apart."""
        return self.apart.submit(plain_rate, self.root, name, self.count(name), precision).result()

    def fit_rate(self, name: str, precision: str) -> float:
        """Images per second of this project's loop, over one epoch."""
        count = self.count(name)
        return count / train_by_fit(classic(name, epochs=1), self.dataset, count, precision).seconds


# What runs apart


@cache
def load(root: Path) -> data.FashionMNIST:
    """The data set, loaded once in each process, in silence."""
    return data.load(root, log=lambda _: None)


def plain_rate(root: Path, name: str, count: int, precision: str) -> float:
    """Images per second of the plain loop over the first `count` training images."""
    network = classic(name)
    warm_up = range(min(count, WARM_UP * network.training.batch_size))
    loop = PlainLoop(network, load(root), precision)
    loop.train_epoch(warm_up)
    return count / loop.train_epoch(range(count))
