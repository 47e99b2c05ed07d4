"""This loop, the plain one and Keras, side by side: images per second of steady training, the data in memory.

A part of benchmarks.speed. Keras trains as its own guide has it: the prepared images as one array, `compile`, `fit`.
"""

import itertools
import multiprocessing
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, load
from benchmarks.loops import classic, train_by_fit
from benchmarks.measure import spread, table
from fmnist.config import Network
from fmnist.errors import Refused

PEERS = {"ffn": "jax", "cnn": "tensorflow"}  # on which of its backends Keras trains a network
TITLES = {"jax": "Keras on JAX", "tensorflow": "Keras on TensorFlow", "plain": "the plain loop"}
PACKAGES = ("keras", *PEERS.values())
ON_CPU = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}  # the last: no greetings

Rates = dict[tuple[str, str, str], list[float]]  # by network, who trains ("this", "plain", a backend), and precision


def check_installed() -> None:
    """Raise Refused, saying what to install, if a peer is not there."""
    missing = [package for package in PACKAGES if util.find_spec(package) is None]
    if missing:
        raise Refused(f"--peers: {', '.join(missing)} not installed: pip install -r requirements-benchmarks.txt")


def report_peers(bench: Bench) -> None:
    """Measure everyone in turns, and print the table."""
    with ExitStack() as stack:
        apart = {backend: stack.enter_context(_process_for(backend)) for backend in PEERS.values()}
        rates = measure_rates(bench, apart)
    versions = ", ".join(f"{package} {_version(package)}" for package in PACKAGES)
    batch_size = classic("ffn").training.batch_size
    print(f"## Beside its peers\n\n{versions}. {bench.effort.pairs} rounds in turns, batches of {batch_size}; images a")
    print("second after a warm-up, median (smallest to largest), and their ratios, round by round.\n")
    header = ["network", "this project in", "images/s", "beside", "in", "images/s", "this project by that"]
    print(table(header, rows(rates, bench.machine.precision)))


def _process_for(backend: str) -> Executor:
    """A process of its own: Keras takes its backend from the environment, once."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _set_backend, (backend,))


def _set_backend(backend: str) -> None:
    os.environ |= ON_CPU | {"KERAS_BACKEND": backend}


def _version(package: str) -> str:
    """The version of an installed `package`: TensorFlow's has several names in the package index."""
    return metadata.version(metadata.packages_distributions()[package][0])


def measure_rates(bench: Bench, apart: Mapping[str, Executor]) -> Rates:
    """Images per second of this loop in the machine's precision, and of the others in each, in turns."""
    rates: Rates = defaultdict(list)
    for _, (name, backend) in itertools.product(range(bench.effort.pairs), PEERS.items()):
        count = bench.count(name)
        rates[name, "this", bench.machine.precision].append(steady_rate(bench, name))
        for precision in bench.precisions:
            trained = apart[backend].submit(keras_rate, bench.root, name, count, precision)
            rates[name, backend, precision].append(trained.result())
            rates[name, "plain", precision].append(bench.plain_rate(name, precision))
    return rates


def steady_rate(bench: Bench, name: str) -> float:
    """Images per second of this project's loop in the second of two epochs."""
    network = classic(name, epochs=2)
    fitted = train_by_fit(network, bench.dataset, bench.count(name), bench.machine.precision)
    return fitted.history[-1]["images_per_second"]


def rows(rates: Rates, precision: str) -> Iterator[Sequence[str]]:
    """Rows of the table: this loop in its `precision` beside everyone else."""
    for (name, who, theirs), measured in rates.items():
        if who != "this":
            ours = rates[name, "this", precision]
            ratios = [a / b for a, b in zip(ours, measured, strict=True)]
            cells = [spread(ours, ",.0f"), TITLES[who], theirs, spread(measured, ",.0f"), spread(ratios, ".2f")]
            yield [classic(name).title, precision, *cells]


# What runs apart


def keras_rate(root: Path, name: str, count: int, precision: str) -> float:
    """Images per second of an epoch of Keras over the first `count` training images, which it has trained on before."""
    import numpy as np

    network = classic(name)
    model, dataset = _trained_before(root, name, count, precision), load(root)
    pixels = dataset.train_images[:count].numpy()[..., None].astype(np.float32)
    pixels = (pixels / 255 - network.argument("mean")) / network.argument("std")
    started = time.perf_counter()
    model.fit(pixels, dataset.train_labels[:count].numpy(), network.training.batch_size, verbose=0)
    return count / (time.perf_counter() - started)


@cache
def _trained_before(root: Path, name: str, count: int, precision: str) -> Any:
    """The network `name`, compiled, after an epoch of `count` images: from then on its speed is steady."""
    import keras

    keras.mixed_precision.set_global_policy("mixed_bfloat16" if precision == "bf16" else "float32")
    network = classic(name)
    model = keras.Sequential([keras.Input((28, 28, 1)), *keras_layers(network)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(network.training.lr), loss, metrics=["accuracy"])
    dataset = load(root)
    images, labels = dataset.train_images[:count].numpy()[..., None], dataset.train_labels[:count].numpy()
    model.fit(images.astype("float32"), labels, network.training.batch_size, verbose=0)
    return model


def keras_layers(network: Network) -> list[Any]:
    """The layers of a network of `classic` as Keras's own guide writes them: [B, 28, 28, 1] to logits [B, 10]."""
    from keras import layers

    dropout, convolutional = layers.Dropout(network.argument("dropout")), []
    for kernels in network.argument("kernels") if network.is_convolutional else ():
        size = network.argument("kernel_size")
        convolutional += [layers.Conv2D(kernels, size, padding="same", activation="relu"), layers.MaxPooling2D()]
    (units,) = network.argument("dense" if network.is_convolutional else "hidden")
    logits = layers.Dense(10, dtype="float32")  # as Keras asks of what follows mixed precision
    return [*convolutional, layers.Flatten(), layers.Dense(units, activation="relu"), dropout, logits]
