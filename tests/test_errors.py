"""Errors become one line and an exit code: in this process, and with real signals and pipes in small children."""

import errno
import os
import signal
import subprocess
import sys

import pytest
import torch

from fmnist import errors
from fmnist.errors import Failed, Refused, Stopped
from tests.helpers import needs
from tests.helpers.child import ROOT

NO_MEMORY = "out of memory: a smaller batch needs less, for example --batch-size 32"
OUT_OF_MEMORY = [
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: you tried to"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("MPS backend out of memory (MPS allocated: 5.05 GB)"),
]


@pytest.mark.parametrize(
    ("error", "line", "with_kind"),
    [
        (ValueError("no\n  number"), "no number", "ValueError: no number"),
        (KeyError(), "KeyError", "KeyError"),
        (OSError("abcdefghijkl"), "abcdefghij", "OSError: abcdefghij"),
    ],
    ids=["of several lines", "without words", "long"],
)
def test_what_an_error_says_is_one_line_of_a_length(error, line, with_kind):
    assert (errors.one_line(error, 10), errors.kind_and_line(error, 10)) == (line, with_kind)


def test_a_sentence_names_so_many_and_counts_the_others():
    assert errors.at_most(2, ["a", "b"]) == ["a", "b"]
    assert errors.at_most(2, ["a", "b", "c", "d"]) == ["a", "b", "2 more"]
    assert errors.at_most(2, ["a", "b", "c"], of="worker") == ["a", "b", "1 more worker"]
    assert errors.at_most(1, ["a", "b", "c"], of="worker") == ["a", "2 more workers"]


@pytest.fixture(autouse=True)
def _keep_signal_handlers():
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def raising(error: BaseException):
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "exit_code", "line"),
    [
        (Refused("--lr: too high; lower it"), 2, "error: --lr: too high; lower it"),
        (Failed("the loss\n   is gone"), 1, "error: the loss is gone"),
        (PermissionError(errno.EACCES, "Permission denied", "a.png"), 1, "error: a.png: Permission denied; look at "),
        (OSError("no number, no name"), 1, "error: no number, no name; look at "),
        *(
            (OSError(n, os.strerror(n), "a.pt"), 1, f"error: a.pt: {os.strerror(n)}; what was ")
            for n in errors.NO_SPACE
        ),
        *((error, 1, f"error: {NO_MEMORY}") for error in OUT_OF_MEMORY),
    ],
)
def test_an_expected_error_is_one_line(capsys, error, exit_code, line):
    assert errors.run_main(raising(error)) == exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(line)
    assert err.count("\n") == 1


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("x"), KeyError("x")])
def test_what_nobody_expected_is_not_hidden(error):
    with pytest.raises(type(error)):
        errors.run_main(raising(error))


def test_success_and_help_exit_with_0(capsys):
    assert errors.run_main(lambda: None) == 0
    assert errors.run_main(raising(SystemExit(0))) == 0
    assert capsys.readouterr().err == ""


def test_stopped_says_how_to_go_on_and_no_library_can_swallow_it(capsys):
    stop = Stopped(signal.SIGTERM)
    stop.advice = "to go on: --resume"
    assert not isinstance(stop, Exception)
    assert errors.run_main(raising(stop)) == 143
    assert capsys.readouterr().err == "stopped: to go on: --resume\n"


# Real signals and pipes, in children that import no torch


@needs.posix
@pytest.mark.parametrize(("raised", "exit_code"), [("", 0), ("raise errors.Refused('no')", 2)])
def test_with_standard_error_closed_the_exit_code_is_the_same(raised, exit_code):
    program = f"""
import sys
from tqdm import tqdm
from fmnist import errors

def main():
    assert list(tqdm(range(3), disable=None)) == [0, 1, 2]
    {raised or "pass"}

errors.leave(errors.run_main(main))
"""
    done = subprocess.run(["sh", "-c", '"$0" -c "$1" 2>&-', sys.executable, program], cwd=ROOT, timeout=60)
    assert done.returncode == exit_code


WAIT = "print('ready', flush=True); time.sleep(60)"
CLEAN_UP_FOR_EVER = f"""
    try:
        {WAIT}
    finally:
        print('cleaning', flush=True)
        time.sleep(60)
"""
PRINTS = ["print('word\\n' * 9)", "sys.stdout.write('word')"]  # the second is left to the last flush


def start(body: str, stdout=subprocess.PIPE) -> subprocess.Popen:
    """Start an interpreter whose `main` has this `body`."""
    program = f"import sys, time; from fmnist import errors\ndef main(): {body}\nsys.exit(errors.run_main(main))"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env=env, stdout=stdout, stderr=subprocess.PIPE, text=True
    )


@needs.posix
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_program_with_a_word(number, exit_code):
    with start(WAIT) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (exit_code, "", "stopped: nothing was in training\n")


@needs.posix
@pytest.mark.parametrize(("second", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_it_at_once(second, exit_code):
    with start(CLEAN_UP_FOR_EVER) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "cleaning\n"
        process.send_signal(second)
        _, err = process.communicate(timeout=20)
    assert process.returncode == exit_code
    assert "Traceback" not in err


@needs.posix
@pytest.mark.parametrize("body", PRINTS)
def test_a_reader_that_has_gone_is_no_cause_for_words(body):
    read, write = os.pipe()
    os.close(read)
    with start(body, stdout=write) as process:
        os.close(write)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (1, "")


@needs.dev_full
@pytest.mark.parametrize("body", PRINTS)
def test_output_that_finds_no_room_is_said_once(body):
    with open("/dev/full", "w") as full, start(body, stdout=full) as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err.startswith("error: No space left on device; ")
    assert err.count("\n") == 1


def test_a_log_in_a_file_has_each_line_as_soon_as_it_is_printed(tmp_path):
    body = "print('epoch 1'); print('ready', file=sys.stderr, flush=True); time.sleep(60)"
    with open(tmp_path / "log", "w") as log, start(body, stdout=log) as process:
        assert process.stderr.readline() == "ready\n"
        process.kill()
    assert (tmp_path / "log").read_text() == "epoch 1\n"


@needs.linux
def test_a_path_of_any_bytes_can_be_printed():
    with start("print(b'/tmp/\\xff'.decode(errors='surrogateescape'))") as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "/tmp/\\udcff\n", "")
