"""A file is written whole or not at all, and a folder belongs to one run at a time."""

import contextlib
import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fmnist import files
from fmnist.errors import Refused
from fmnist.files import atomic_write, locked, write_json
from tests.helpers import needs
from tests.helpers.child import ROOT, strays


def test_the_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "numbers"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new, ")
        file.flush()
        assert path.read_bytes() == b"old"
        file.write(b"and longer")
    assert path.read_bytes() == b"new, and longer"
    assert os.listdir(tmp_path) == ["numbers"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space")])
@pytest.mark.parametrize("old", [b"old", None])
def test_an_error_half_way_leaves_the_old_file_and_no_stray(tmp_path, error, old):
    path = tmp_path / "numbers"
    if old is not None:
        path.write_bytes(old)
    before = os.listdir(tmp_path)

    def write() -> None:
        with atomic_write(path) as file:
            file.write(b"half")
            file.flush()
            assert [path.stat().st_size for path in strays(tmp_path)] == [4]  # half of it was there
            raise error

    with pytest.raises(type(error)):
        write()
    assert os.listdir(tmp_path) == before
    assert old is None or path.read_bytes() == old


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_at_the_end_is_named_by_the_file(tmp_path, monkeypatch, call):
    def fail(*_) -> None:
        raise OSError(errno.EIO, "Input/output error")

    path = tmp_path / "numbers"
    path.write_bytes(b"old")
    monkeypatch.setattr(files.os, call, fail)
    with pytest.raises(OSError, match="Input/output error") as caught, atomic_write(path) as file:
        file.write(b"new")
    assert caught.value.filename == str(path)
    assert os.listdir(tmp_path) == ["numbers"]
    assert path.read_bytes() == b"old"


def test_a_missing_folder_is_named_by_the_file_and_another_missing_file_by_its_own_name(tmp_path):
    path = tmp_path / "nowhere" / "numbers"
    with pytest.raises(FileNotFoundError) as caught, atomic_write(path):
        pass
    assert caught.value.filename == str(path)
    with pytest.raises(FileNotFoundError) as caught, atomic_write(tmp_path / "copy"):
        (tmp_path / "original").read_bytes()
    assert caught.value.filename == str(tmp_path / "original")


@needs.posix
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_what_the_user_set(tmp_path, umask):
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "numbers") as file:
            file.write(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "numbers").stat().st_mode) == 0o666 & ~umask


def test_the_content_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(files.os, "fsync", lambda number: (calls.append(os.fstat(number).st_size), fsync(number)))
    monkeypatch.setattr(files.os, "replace", lambda *paths: (calls.append("replace"), replace(*paths)))
    with atomic_write(tmp_path / "numbers") as file:
        file.write(b"12345")
    assert calls == [5, "replace"]


# Locks, held by another process


@contextlib.contextmanager
def holder(folder: Path):
    """A process that holds `folder`, and a half-written file in it, until it is killed."""
    program = """
import sys, time
from fmnist.files import locked, atomic_write
with locked(sys.argv[1]) as folder, atomic_write(folder / 'numbers') as file:
    file.write(b'half')
    file.flush()
    print('held', flush=True)
    time.sleep(60)
"""
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield
        finally:
            process.kill()


def test_a_folder_in_use_is_refused_and_a_killed_holder_blocks_nobody(tmp_path):
    with (
        holder(tmp_path / "out"),
        pytest.raises(Refused, match=r"out: another run is writing here; .* another --output-dir"),
        locked(tmp_path / "out"),
    ):
        pass
    assert len(strays(tmp_path)) == 1, "the refused run has removed the other's half-written file"
    (tmp_path / "out" / "checkpoints").mkdir()
    (tmp_path / "out" / "checkpoints" / ".ffn.pt.99.partial").write_bytes(b"half")
    (tmp_path / "out" / "mine.partial").write_bytes(b"the user's own")
    with locked(tmp_path / "out") as folder:
        assert folder == tmp_path / "out"
        assert not strays(tmp_path)
        assert (folder / "mine.partial").exists()


def test_a_folder_is_made_and_free_again_even_after_an_error(tmp_path):
    with contextlib.suppress(ZeroDivisionError), locked(tmp_path / "deep" / "er") as folder:
        assert folder.is_dir()
        raise ZeroDivisionError
    with locked(tmp_path / "deep" / "er"):
        pass


@pytest.mark.parametrize("below", [".", "below"])
def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path, below):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(Refused, match=r"file.*: not a folder; name another --output-dir"),
        locked(tmp_path / "file" / below),
    ):
        pass
    assert (tmp_path / "file").read_text() == "mine"


# JSON


def test_metrics_are_strict_json_of_the_same_numbers(tmp_path):
    path = tmp_path / "metrics.json"
    bad = {"nan": float("nan"), "inf": np.float32("inf"), "list": [1.5, -np.inf]}
    good = {"count": np.int64(7), "fraction": np.float64(0.1), "confusion": np.eye(3, dtype=int), "text": "ü"}
    write_json(path, {"bad": bad, "good": good, "pair": (True, None)})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    read = json.loads(path.read_text("utf-8"), parse_constant=refuse)
    assert read["bad"] == {"nan": None, "inf": None, "list": [1.5, None]}
    assert read["good"] == {**good, "confusion": np.eye(3).tolist()}
    assert read["pair"] == [True, None]
    assert "[1, 0, 0],\n" in path.read_text("utf-8"), "a matrix has a row a line"


def test_what_json_cannot_hold_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_bytes(b"before")
    with pytest.raises(TypeError):
        write_json(path, {"a": {"b": object()}})
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["metrics.json"]
