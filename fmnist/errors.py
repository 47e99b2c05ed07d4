"""What goes wrong, said in one line: errors that a user can cause, here or in a worker, and their exit codes."""

import errno
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import NoReturn

# What torch says on most systems; its allocator of main memory on Linux, on Windows; cuBLAS and cuDNN.
NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
NO_SPACE = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
OUT_OF_MEMORY = "out of memory: a smaller batch needs less, for example --batch-size 32"


class Refused(Exception):
    """What was asked or given is wrong; the message names the file or option and what to do. Exit code 2."""


class Failed(Exception):
    """The run could not go on; the message names the cause and what to do. Exit code 1."""


class Diverged(Failed):
    """A training's loss is no longer a finite number: in a study that is a result as well."""


class Stopped(BaseException):
    """A signal asked the run to stop. Not an Exception, so that no library swallows it. Exit code 128 + signal."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_code = 128 + signal_number
        self.advice = "nothing was in training"


def at_most(number: int, words: Sequence[str], of: str = "") -> list[str]:
    """The first `number` of `words`, for a sentence; where there are others, how many more, and `of` what."""
    left = len(words) - number
    if left <= 0:
        return list(words)
    return [*words[:number], f"{left} more" + (f" {of}{'s' if left > 1 else ''}" if of else "")]


def one_line(error: BaseException, most: int = 200) -> str:
    """What `error` says, on one line of at most `most` characters; what it is, if it says nothing."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def kind_and_line(error: BaseException, most: int = 200) -> str:
    """What `error` is, and what it says on one line of at most `most` characters, if anything."""
    kind, line = type(error).__name__, one_line(error, most)
    return kind if line == kind else f"{kind}: {line}"


def command(script: str, *words: str) -> str:
    """The command line that calls `script` with `words`, as this system's shell reads it."""
    return (subprocess.list2cmdline if os.name == "nt" else shlex.join)(["python", script, *words])


def run_main(main: Callable[[], None]) -> int:
    """Call `main` and return the exit code of the process; expected errors become one line on standard error."""
    _catch_signals()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started the program
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (for as long as the process lives)
    if hasattr(sys.stdout, "reconfigure"):
        # Each line shows in a file or pipe as it is printed, and outlives a kill; a path may hold any bytes.
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    exit_code = _call(main)
    try:
        sys.stdout.flush()
    except OSError as error:
        _let_go_of_output()
        gone = isinstance(error, BrokenPipeError)
        exit_code = exit_code or (1 if gone else _complain(_file_trouble(error), 1))
    return exit_code


def leave(exit_code: int) -> NoReturn:
    """End the process at once: taking torch's libraries down again costs a second and 130 MB, and does nothing here."""
    sys.stderr.flush()
    os._exit(exit_code)


def _call(main: Callable[[], None]) -> int:
    try:
        main()
    except SystemExit as end:  # --help
        return end.code or 0
    except Refused as error:
        return _complain(str(error), 2)
    except Failed as error:
        return _complain(str(error), 1)
    except Stopped as stop:
        return _complain(f"stopped: {stop.advice}", stop.exit_code)
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`): nothing is left to say, and nobody to say it to.
        _let_go_of_output()
        return 1
    except (OSError, MemoryError, RuntimeError) as error:
        words = in_words(error)
        if words is None:
            raise
        return _complain(words, 1)
    return 0


def in_words(error: BaseException) -> str | None:
    """What a user can do about an error of files or memory, in one line; None for any other."""
    if isinstance(error, OSError):
        return _file_trouble(error)
    return OUT_OF_MEMORY if _out_of_memory(error) else None


@contextmanager
def in_silence() -> Iterator[StringIO]:
    """Keep what a worker prints; put what a user can cause in words, as not every exception comes through a pipe."""
    said = StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            yield said
    except (OSError, MemoryError, RuntimeError) as error:
        words = in_words(error)
        if words is None:
            raise
        raise Failed(words) from None


def warnings_in(said: StringIO) -> list[str]:
    """The lines that warn of something."""
    return [line for line in said.getvalue().splitlines() if line.startswith("warning")]


def _let_go_of_output() -> None:
    """Send what is left in the buffer nowhere, or the interpreter would try once more, and fail with a traceback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _catch_signals() -> None:
    """Ctrl-C and SIGTERM unwind the program once, so that locks and half-written files go; a second one ends it."""

    def stop(number: int, _frame: object) -> None:
        for caught in (signal.SIGINT, signal.SIGTERM):
            signal.signal(caught, lambda number, _frame: os._exit(128 + number))
        raise Stopped(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _complain(message: str, exit_code: int) -> int:
    print(f"error: {' '.join(message.split())}" if exit_code < 128 else message, file=sys.stderr)
    return exit_code


def _file_trouble(error: OSError) -> str:
    if error.errno == errno.ENOMEM:
        return OUT_OF_MEMORY
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
    if error.errno in NO_SPACE:
        return f"{what}; what was saved before is intact: make room, then start again (a training with --resume)"
    return f"{what}; look at this file's place and its permissions"


def _out_of_memory(error: BaseException | None) -> bool:
    """torch says it in words: its CPU allocator raises a plain RuntimeError, its writer of files another over it."""
    if error is None:
        return False
    words = str(error).lower()
    said = any(part in words for part in NO_MEMORY)
    return said or isinstance(error, MemoryError) or _out_of_memory(error.__context__)
