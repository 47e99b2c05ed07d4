"""Where and in which number format is computed; devices that are not here are faked."""

import os
import platform
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from fmnist import device
from fmnist.device import Machine, choose_device, choose_precision, set_up
from fmnist.errors import Refused

ROOT = Path(__file__).parents[1]
CPU, CUDA, MPS = map(torch.device, ("cpu", "cuda", "mps"))


# Device and precision


def test_auto_takes_the_best_device_there_is(monkeypatch):
    monkeypatch.setattr(device, "_trouble", lambda _: "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == CPU
    for name in ("cuda", "mps"):
        with pytest.raises(Refused, match=f"--device {name}: there is none on this machine; use --device auto"):
            choose_device(name)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == MPS
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == CUDA
    assert choose_device("cpu") == CPU


def test_a_card_that_cannot_be_used_is_passed_over_or_refused_in_words(monkeypatch, capsys):
    def ones(*_, device):
        if device == "cuda":
            raise RuntimeError("CUDA error: no kernel image is available\nCUDA kernel errors might be reported later")
        return torch.zeros(2)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch, "ones", ones)
    assert choose_device("auto") == CPU
    said = capsys.readouterr().out
    assert said == "warning: cuda is there and cannot be used (CUDA error: no kernel image is available)\n"
    with pytest.raises(Refused, match=r"--device cuda: cannot be used .*; use --device cpu"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({}, "fp32"),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
    ],
)
def test_auto_precision_follows_the_processors_flags(capabilities, precision, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert choose_precision("auto", CPU) == precision
    assert choose_precision("fp32", CPU) == "fp32"
    assert choose_precision("bf16", CPU) == "bf16"
    assert set_up({"device": "cpu"}, by_torch=True)[:2] == (CPU, precision)
    assert set_up({"device": "cpu"}, by_torch=False)[:2] == (CPU, "fp32"), "NumPy has no bf16"


def test_numpy_computes_on_the_processor_where_there_is_a_card(torchs_own):
    assert device.choose({"precision": "fp32"}, by_torch=True).device == CUDA
    assert device.choose({}, by_torch=False)[:2] == (CPU, "fp32")


def test_auto_precision_on_other_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
    assert choose_precision("auto", CUDA) == "bf16"
    assert choose_precision("auto", MPS) == "fp32"


def test_the_card_is_part_of_what_the_weights_depend_on(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Card 9000")
    assert Machine(CUDA, "bf16", 2).settings == {
        **{"device": "cuda", "precision": "bf16", "threads": 2, "card": "Card 9000"}
    }
    assert Machine(CPU, "fp32", 2).settings == {"device": "cpu", "precision": "fp32", "threads": 2}


def test_threads_are_as_many_as_torch_takes_unless_a_number_is_said():
    before = torch.get_num_threads()
    try:
        assert set_up({"device": "cpu"}, by_torch=True).threads == before
        threadpool_limits(before + 2, user_api="blas")
        obeying = {name for name, count in blas_threads().items() if count == before + 2}  # one may be built for one
        assert obeying
        assert set_up({"device": "cpu"}, by_torch=True, threads=before + 1).threads == before + 1
        assert torch.get_num_threads() == before + 1
        assert {blas_threads()[name] for name in obeying} == {before + 1}
    finally:
        device.set_threads(before)


def blas_threads() -> dict[str, int]:
    """The number of threads of each library that multiplies matrices."""
    return {pool["filepath"]: pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


# Equal seeds, equal numbers


@pytest.fixture
def torchs_own(monkeypatch):
    """Torch's settings as they are by default, put back in the end."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device, "_trouble", lambda _: "")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)
    torch.use_deterministic_algorithms(False)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def has_tf32() -> bool:
    return torch.backends.cudnn.allow_tf32 or torch.get_float32_matmul_precision() != "highest"


def test_a_card_is_made_deterministic(torchs_own):
    set_up({"device": "cuda", "precision": "fp32"}, by_torch=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled(), "what has no deterministic form ends no run"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.backends.cudnn.benchmark
    assert not has_tf32()


def test_a_workspace_that_the_user_has_set_is_kept(torchs_own, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    device.make_deterministic(CUDA)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_a_processor_is_deterministic_as_it_is(torchs_own):
    device.make_deterministic(CPU)
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    assert torch.backends.cudnn.benchmark
    assert not has_tf32()


def test_every_draw_follows_from_seed_and_epoch():
    draws = {}
    for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1), (0, 10_000), (1, 0)]:
        device.seed_epoch(seed, epoch)
        draw = torch.randint(1 << 62, ()).item()
        assert draws.setdefault((seed, epoch), draw) == draw
    assert len(set(draws.values())) == 5


def test_only_a_device_that_computes_on_its_own_is_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    for where in (CPU, CUDA, MPS):
        device.synchronize(where)
    assert waited == [CUDA, MPS]


# Memory


PAGE_FAULTS = """
import resource, torch
from fmnist import device

def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        torch.ones(2_000_000)  # 8 MB, or 1,953 pages of 4 KB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

device.keep_freed_memory()
faults(20)  # until the heap has found its size
kept = faults(20)
device.give_back_memory()
print(kept, faults(1))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to keep")
def test_memory_that_a_step_frees_is_kept_until_it_is_given_back():
    done = subprocess.run([sys.executable, "-c", PAGE_FAULTS], cwd=ROOT, check=True, capture_output=True, text=True)
    kept, after = map(int, done.stdout.split())
    assert kept < 2 * 1953  # of 20 * 1953
    assert after > 1000


def test_where_the_c_library_is_another_memory_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(device.ctypes, "CDLL", lambda _name: pytest.fail("there is no mallopt to call"))
    device.keep_freed_memory()
    device.give_back_memory()


def test_the_processor_has_a_name():
    assert device.processor().strip()


def test_every_source_of_random_numbers_follows_from_seed_and_epoch():
    def drawn(seed: int, epoch: int) -> tuple[float, ...]:
        device.seed_epoch(seed, epoch)
        return float(torch.rand(())), random.random(), float(np.random.rand())

    assert drawn(1_000_000, 3) == drawn(1_000_000, 3)
    assert not set(drawn(7, 1)) & set(drawn(7, 2))
    assert not set(drawn(7, 1)) & set(drawn(8, 1))
