"""Where and in which number format to compute, that it be repeatable, and how the machine's memory is handled."""

import ctypes
import os
import platform
import random
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch

from fmnist.errors import Refused


class Machine(NamedTuple):
    """Where networks are trained, in which number format, "fp32" or "bf16", and by how many threads."""

    device: torch.device
    precision: str
    threads: int = 1

    @property
    def settings(self) -> dict[str, str | int]:
        """What of it the trained weights depend on, as plain values: equal numbers need the same card as well."""
        card = {"card": torch.cuda.get_device_name(self.device)} if self.device.type == "cuda" else {}
        return {"device": self.device.type, "precision": self.precision, "threads": self.threads, **card}

    @property
    def for_numpy(self) -> "Machine":
        """What of it NumPy computes on: the processor, in single precision."""
        return self._replace(device=torch.device("cpu"), precision="fp32")

    def __str__(self) -> str:
        return f"{self.device.type} in {self.precision}"


def set_up(options: Mapping[str, str], by_torch: bool, threads: int | None = None) -> Machine:
    """`choose` a machine, and `prepare` it; without a number of `threads` torch takes as many as it would."""
    machine = choose(options, by_torch)
    if threads:
        machine = machine._replace(threads=threads)
    prepare(machine)
    return machine


def choose(options: Mapping[str, str], by_torch: bool) -> Machine:
    """Choose device and precision by the run's `options`, for networks that torch trains, or else NumPy alone.

    Raises Refused if the device that is asked for cannot be had.
    """
    device = choose_device(options.get("device", "auto" if by_torch else "cpu"))
    machine = Machine(device, choose_precision(options.get("precision", "auto"), device), torch.get_num_threads())
    return machine if by_torch else machine.for_numpy


def prepare(machine: Machine) -> None:
    """Make what this thread of this process computes on `machine` repeatable."""
    keep_freed_memory()
    make_deterministic(machine.device)
    set_threads(machine.threads)


def set_threads(count: int) -> None:
    """Compute by `count` threads, in torch and in the library that multiplies NumPy's matrices."""
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    if torch.get_num_threads() != count:  # else torch stays as it is by default
        torch.set_num_threads(count)
    threadpool_limits(count, user_api="blas")


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is the best there is. Raises Refused if this machine has none such."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name != "auto" and not available[name]:
        raise Refused(f"--device {name}: there is none on this machine; use --device auto")
    for device in (device for device, there in available.items() if there and name in ("auto", device)):
        trouble = _trouble(device)
        if not trouble:
            return torch.device(device)
        if name != "auto":
            raise Refused(f"--device {name}: cannot be used ({trouble}); use --device cpu")
        print(f"warning: {device} is there and cannot be used ({trouble})")
    raise AssertionError("a processor can always be used")


def _trouble(device: str) -> str:
    """Why a device that is there cannot be used: it may be older than torch's kernels, or another program's."""
    try:
        torch.ones(2, device=device).add(1).sum().item()  # no matrix product: cuBLAS reads its settings when it starts
    except RuntimeError as error:
        return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
    return ""


def choose_precision(name: str, device: torch.device) -> str:
    """Return "bf16" where `name` asks for it, or leaves the choice and the processor has instructions for it."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "mps":
        return "fp32"
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.10 does not say
    return "bf16" if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") else "fp32"


def processor() -> str:
    """What this machine's processor calls itself."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            models = (line.partition(":")[2].strip() for line in file if line.startswith("model name"))
            return next(models, platform.machine())
    except OSError:
        return platform.processor() or platform.machine()


# Equal seeds, equal numbers


def make_deterministic(device: torch.device) -> None:
    """Make equal seeds give equal numbers on `device`; torch warns where an operation has no deterministic form.

    Single precision is meant where it is said: no TF32. A CPU's kernels are deterministic as they are.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    if device.type == "cpu":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.backends.cudnn.benchmark = False  # it would choose its algorithms by the clock
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing here reads such memory


def seed_epoch(seed: int, epoch: int) -> None:
    """Make every draw that follows a function of (seed, epoch) alone; epoch 0 stands for the initial weights."""
    number = seed * 100_003 + epoch
    torch.manual_seed(number)
    random.seed(number)  # the last two for networks of a user's own: nothing else draws from them
    np.random.seed([number % 2**32, number // 2**32])


def synchronize(device: torch.device) -> None:
    """Wait until `device` has done what it was told to: only then do clocks tell the truth."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


# Memory


def keep_freed_memory() -> None:
    """Let the C library keep what a training step frees for the next step, instead of giving it back to the system.

    Every step allocates the same tensors of several megabytes. glibc returns such memory at once, and the system hands
    it out again page by page, zeroed. Where the C library is not glibc, nothing is done.
    """
    if _has_glibc():
        mallopt, trim_threshold, mmap_threshold = ctypes.CDLL(None).mallopt, -1, -3  # numbers as in malloc.h
        mallopt(trim_threshold, 2**31 - 1)  # bytes free at the heap's end before it shrinks
        mallopt(mmap_threshold, 32 * 2**20)  # bytes from which a tensor gets a mapping of its own; glibc takes no more


def give_back_memory() -> None:
    """Return to the system what `keep_freed_memory` has kept: what comes next needs other sizes."""
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _has_glibc() -> bool:
    # Asked of Linux alone: elsewhere it reads the interpreter's file, which Windows' store does not let one open.
    return platform.system() == "Linux" and platform.libc_ver()[0] == "glibc"
