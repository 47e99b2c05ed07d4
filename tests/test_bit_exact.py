"""Equal bit for bit in the default that ships: every network of the recipes, in bfloat16, with all threads.

Each network is trained for two epochs in one go, trained once more and stopped after the first epoch, and resumed from
that checkpoint in another process. Both processes are fresh ones, so that torch takes as many threads as it does for a
user. Where the processor has no instructions for bfloat16, it is emulated, and the images are fewer.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fmnist import data, training
from fmnist.checkpoints import Checkpoints
from fmnist.config import Network
from fmnist.device import Machine, choose_precision
from fmnist.learners import make_learner
from recipes import RECIPES
from tests.helpers import child, tiny

NETWORKS = {f"{recipe.name}-{network.name}": network for recipe in RECIPES.values() for network in recipe.networks}
CPU = torch.device("cpu")
COUNT = 128 if choose_precision("auto", CPU) == "bf16" else 16
IMAGES, LABELS = (torch.from_numpy(array) for array in tiny.make(train=COUNT, test=0)[:2])
ALL_THREADS = {"OMP_NUM_THREADS": None, "MKL_NUM_THREADS": None, "OMP_WAIT_POLICY": "PASSIVE"}  # without spinning


@pytest.fixture(scope="module")
def digests(tmp_path_factory) -> dict[str, dict[str, dict]]:
    """{part: {network: {epoch: SHA-256 of the state after it}}} of the trainings in one go, stopped, and resumed."""
    folder, results = tmp_path_factory.mktemp("bit-exact"), []
    for parts in (["whole", "stopped"], ["resumed"]):
        done = child.run([folder, *parts], script="tests.test_bit_exact", env=ALL_THREADS, timeout=400)
        assert done.returncode == 0, done.stderr
        results.append(json.loads(done.stdout))
    return {"threads": results[0].pop("threads")} | results[0] | {"resumed": results[1]["resumed"]}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_twice_and_a_resumed_training_are_equal_bit_for_bit(digests, name):
    whole, stopped, resumed = (digests[part][name] for part in ("whole", "stopped", "resumed"))
    assert list(whole) == ["0", "1", "2"]
    assert len(set(whole.values())) == 3, "it learns nothing"
    assert stopped == {epoch: whole[epoch] for epoch in ("0", "1")}, "the same twice"
    assert resumed == {"2": whole["2"]}


def test_torch_had_all_threads(digests):
    assert digests["threads"] > 1 or os.cpu_count() == 1


# In the child


def main() -> None:
    """Train every network as the arguments say, and print the digests as JSON."""
    folder, parts = Path(sys.argv[1]), sys.argv[2:]
    report = {part: {name: train(net, folder / name, part) for name, net in NETWORKS.items()} for part in parts}
    print(json.dumps(report | {"threads": torch.get_num_threads()}))


class Digests:
    """Stands for the checkpoints: keeps digests, and saves what is to be resumed."""

    def __init__(self, saved: Checkpoints | None) -> None:
        self.saved, self.by_epoch = saved, {}

    def save(self, epoch: int, learner: dict[str, Any], *progress: Any) -> None:
        self.by_epoch[epoch] = digest(learner)
        if self.saved and epoch:
            self.saved.save(epoch, learner, *progress)
            raise KeyboardInterrupt


def train(network: Network, folder: Path, part: str) -> dict[int, str]:
    """Train `network`: the "whole" training, one "stopped" after its first epoch, or the same one "resumed"."""
    config = replace(network.training, epochs=2, batch_size=COUNT // 2)
    network = replace(network, training=config)
    tiny_set = data.FashionMNIST(IMAGES, LABELS.long(), IMAGES, LABELS.long(), "made on the spot")
    training_data = data.training_data(tiny_set, config.validation, config.seed)
    steps = 2 * training.steps_per_epoch(len(training_data.train_indices), config.batch_size)
    learner = make_learner(network.build(), config, Machine(CPU, "bf16"), steps)
    checkpoints = Checkpoints(folder, network.name, network.settings)
    digests = Digests(checkpoints if part == "stopped" else None)
    progress = training.resume(learner, config, checkpoints) if part == "resumed" else training.Progress()
    try:
        with redirect_stdout(None):
            training.fit(learner, training_data, config, digests, progress)
    except KeyboardInterrupt:
        assert part == "stopped"
    return digests.by_epoch


def digest(state: dict[str, Any]) -> str:
    """SHA-256 of every tensor and number of a learner's state."""
    result = hashlib.sha256()
    for value in leaves(state):
        result.update(value.contiguous().numpy() if torch.is_tensor(value) else repr(value).encode())
    return result.hexdigest()


def leaves(state: Any) -> Iterator[Any]:
    """What a nested state holds, in an order that its history does not change."""
    if isinstance(state, (list, tuple)):
        state = dict(enumerate(state))
    if not isinstance(state, dict):
        yield state
        return
    for key in sorted(state, key=str):
        yield from leaves(state[key])
