"""Errors become one line and an exit code: in this process, and with real signals and pipes in small children."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fmnist import errors
from fmnist.errors import Failed, Refused, Stopped

ROOT = Path(__file__).parents[1]


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
        (PermissionError(errno.EACCES, "Permission denied", "some.png"), 1, "error: some.png: Permission denied; "),
        (OSError(errno.ENOSPC, "No space left on device", "some.pt"), 1, "error: some.pt: No space left on device; "),
        (OSError("no number, no name"), 1, "error: no number, no name; "),
        (MemoryError(), 1, "error: out of memory: a smaller batch needs less, for example --batch-size 32"),
    ],
)
def test_an_expected_error_is_one_line(capsys, error, exit_code, line):
    assert errors.run(raising(error)) == exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(line)
    assert err.count("\n") == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_no_room_is_told_from_other_trouble_with_files(capsys, number):
    errors.run(raising(OSError(number, os.strerror(number), "a.pt")))
    assert "what was saved before is intact: make room" in capsys.readouterr().err


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("x"), KeyError("x")])
def test_what_nobody_expected_is_not_hidden(error):
    with pytest.raises(type(error)):
        errors.run(raising(error))


def test_success_and_help_exit_with_0(capsys):
    assert errors.run(lambda: None) == 0
    assert errors.run(raising(SystemExit(0))) == 0
    assert capsys.readouterr().err == ""


def test_stopped_says_how_to_go_on_and_no_library_can_swallow_it(capsys):
    stop = Stopped(signal.SIGTERM)
    stop.advice = "to go on: --resume"
    assert not isinstance(stop, Exception)
    assert errors.run(raising(stop)) == 143
    assert capsys.readouterr().err == "stopped: to go on: --resume\n"


# Real signals and pipes, in children that import no torch

START = "import signal, sys, time; from fmnist import errors\n"
MAINS = {
    "waits": "def main(): print('ready', flush=True); signal.pause()",
    "cleans up for ever": """
def main():
    try:
        print('ready', flush=True)
        signal.pause()
    finally:
        print('cleaning', flush=True)
        while True: signal.pause()
""",
    "prints": "def main(): print('word\\n' * 9)",
    "prints without a line's end": "def main(): sys.stdout.write('word')",
}


def start(main: str, stdout=subprocess.PIPE) -> subprocess.Popen:
    program = f"{START}{MAINS[main]}\nsys.exit(errors.run(main))"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env=env, stdout=stdout, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_program_with_a_word(number, exit_code):
    with start("waits") as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (exit_code, "", "stopped: nothing was in training\n")


@pytest.mark.parametrize(("second", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_it_at_once(second, exit_code):
    with start("cleans up for ever") as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "cleaning\n"
        process.send_signal(second)
        _, err = process.communicate(timeout=20)
    assert process.returncode == exit_code
    assert "Traceback" not in err


@pytest.mark.parametrize("main", ["prints", "prints without a line's end"])
def test_a_reader_that_has_gone_is_no_cause_for_words(main):
    read, write = os.pipe()
    os.close(read)
    with start(main, stdout=write) as process:
        os.close(write)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("main", ["prints", "prints without a line's end"])
def test_output_that_finds_no_room_is_said_once(main):
    with open("/dev/full", "w") as full, start(main, stdout=full) as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err.startswith("error: No space left on device; ")
    assert err.count("\n") == 1


def test_a_log_in_a_file_has_each_line_as_soon_as_it_is_printed(tmp_path):
    MAINS["prints and waits"] = (
        "def main(): print('epoch 1'); print('ready', file=sys.stderr, flush=True); signal.pause()"
    )
    with open(tmp_path / "log", "w") as log, start("prints and waits", stdout=log) as process:
        assert process.stderr.readline() == "ready\n"
        process.kill()
    assert (tmp_path / "log").read_text() == "epoch 1\n"


def test_a_path_of_any_bytes_can_be_printed(tmp_path):
    MAINS["prints a path"] = "def main(): print(b'/tmp/\\xff'.decode(errors='surrogateescape'))"
    with start("prints a path") as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "/tmp/\\udcff\n", "")
