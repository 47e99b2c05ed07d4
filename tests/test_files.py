"""A file is written whole or not at all, and a folder belongs to one run at a time."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from fmnist import files
from fmnist.errors import Refused
from fmnist.files import atomic_write, locked, write_json

ROOT = Path(__file__).parents[1]


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
            assert sorted(path.stat().st_size for path in tmp_path.glob(".*")) == [4]  # half of it was there
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


def test_a_missing_folder_is_named_by_the_file(tmp_path):
    path = tmp_path / "nowhere" / "numbers"
    with pytest.raises(FileNotFoundError) as caught, atomic_write(path):
        pass
    assert caught.value.filename == str(path)


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, atomic_write(tmp_path / "copy"):
        (tmp_path / "original").read_bytes()
    assert caught.value.filename == str(tmp_path / "original")


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


@contextmanager
def holder(folder: Path):
    """A process that holds `folder`, and a half-written file in it, until it is ended."""
    program = """
import signal, sys
from fmnist.files import locked, atomic_write
with locked(sys.argv[1]) as folder, atomic_write(folder / 'numbers') as file:
    file.write(b'half')
    file.flush()
    print('held', flush=True)
    signal.pause()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_folder_in_use_is_refused(tmp_path):
    with holder(tmp_path / "out"):
        with (
            pytest.raises(Refused, match=r"out: another run is writing here; .* another --output-dir"),
            locked(tmp_path / "out"),
        ):
            pass
        strays = list((tmp_path / "out").glob(".numbers*"))
        assert len(strays) == 1, "the other run's file is its own"


def test_a_killed_holder_blocks_nobody_and_its_strays_go(tmp_path):
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(list(tmp_path.glob(".numbers*.partial"))) == 1
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".ffn.pt.99.partial").write_bytes(b"half")
    (tmp_path / "mine.partial").write_bytes(b"the user's own")
    with locked(tmp_path) as folder:
        assert folder == tmp_path
        assert not [path for path in tmp_path.rglob(".*partial") if path.is_file()]
        assert (tmp_path / "mine.partial").exists()


def test_a_folder_is_free_again_afterwards(tmp_path):
    for error in (None, ValueError):
        try:
            with locked(tmp_path / "deep" / "er") as folder:
                assert folder.is_dir()
                if error:
                    raise error
        except ValueError:
            pass
    with locked(tmp_path / "deep" / "er"):
        pass


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with (
            pytest.raises(Refused, match=r"file.*: not a folder; name another --output-dir"),
            locked(folder),
        ):
            pass
    assert (tmp_path / "file").read_text() == "mine"


def test_metrics_are_strict_json_of_the_same_numbers(tmp_path):
    path = tmp_path / "metrics.json"
    bad = {"nan": float("nan"), "inf": np.float32("inf"), "list": [1.5, -np.inf]}
    good = {"count": np.int64(7), "share": np.float64(0.1), "confusion": np.eye(3, dtype=int), "text": "ü"}
    write_json(path, {"bad": bad, "good": good, "pair": (True, None)})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    read = json.loads(path.read_text("utf-8"), parse_constant=refuse)
    assert read["bad"] == {"nan": None, "inf": None, "list": [1.5, None]}
    assert read["good"] == {"count": 7, "share": 0.1, "confusion": np.eye(3).tolist(), "text": "ü"}
    assert read["pair"] == [True, None]
    assert "[1, 0, 0],\n" in path.read_text("utf-8"), "a matrix has a row a line"


def test_what_json_cannot_hold_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_bytes(b"before")
    with pytest.raises(TypeError):
        write_json(path, {"a": {"b": object()}})
    assert path.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]
