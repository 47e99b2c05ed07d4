"""`tests.helpers.child` for tests that need many processes: torch is imported once, in a server that forks every child.

A fork is up in a tenth of a second where a fresh process takes five. Each is a real process, with its own pid, signals
and exit code. The server computes with one thread, so that a fork loses none.
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from tests.helpers import child

# A patch that leaves out the pictures and the page that shows them, where a test is not about them: they take seconds.
NO_PICTURES = """
from fmnist import report
from fmnist.figures import album
album.draw_dataset = album.draw_models = album.networks_to_look_into = lambda *_: []
report.write_report = lambda *_: None
"""


class Process:
    """A forked child, with as much of `subprocess.Popen` as `tests.helpers.child` needs."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.args, self.returncode = job["arguments"], None
        pipes = [os.pipe() for _ in range(3)]
        socket.send_fds(_server(), [json.dumps(job).encode() + b"\n"], [write for _, write in pipes])
        for _, write in pipes:
            os.close(write)
        self.stdout, self.stderr, self._status = (os.fdopen(read) for read, _ in pipes)
        self.pid = int(self._status.readline())

    def send_signal(self, number: int) -> None:
        """Does nothing, as with Popen, if its end is known."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = child.TIMEOUT) -> int:
        """Wait for its end, and return the exit code; negative, as with Popen, if a signal ended it."""
        if self.returncode is None:
            watch = threading.Timer(timeout, self.kill)
            watch.start()
            self.returncode = int(self._status.readline())
            if not watch.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout)
            watch.cancel()
        return self.returncode

    def close(self) -> None:
        self.kill()
        self.wait()
        for file in (self.stdout, self.stderr, self._status):
            file.close()


@contextmanager
def started(
    arguments: Sequence[object],
    script: str = "fashionmnist",
    files: dict[str, tuple[int, str]] | None = None,
    patches: Sequence[str] = (),
) -> Iterator[Process]:
    """As `tests.helpers.child.started`, forked."""
    job = {"script": script, "arguments": [str(word) for word in arguments], "files": files, "patches": list(patches)}
    process = Process(job)
    try:
        yield process
    finally:
        process.close()


def run(arguments: Sequence[object], **settings: Any) -> subprocess.CompletedProcess:
    """As `tests.helpers.child.run`, forked."""
    with started(arguments, **settings) as process:
        return child.finish(process)


def wait_until(condition: Callable[[], Any], timeout: float = child.TIMEOUT) -> None:
    """Wait for what another process does to be seen."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.002)


# The server


@cache
def _server() -> socket.socket:
    """Start the server; it ends with this process."""
    ours, theirs = socket.socketpair()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(child.ROOT)}
    command = [sys.executable, "-m", "tests.helpers.forks", str(theirs.fileno())]
    process = subprocess.Popen(command, cwd=child.ROOT, env=environment, pass_fds=[theirs.fileno()])
    theirs.close()
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


def _serve(requests: socket.socket) -> None:
    _warm_up()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the watchers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever runs the tests
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, 1 << 16, 3)
        while message and not message.endswith(b"\n"):
            message += requests.recv(1 << 16)
        if not message:
            return
        if os.fork() == 0:
            requests.close()
            _watch(json.loads(message), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _warm_up() -> None:
    """Import all that a run imports, some of it hidden in calls."""
    import scipy.stats  # noqa: F401
    import torch
    import torchvision.datasets  # noqa: F401

    import fashionmnist  # noqa: F401
    import kernel_vis  # noqa: F401
    from ffn import FFN
    from fmnist import metrics, report, training  # noqa: F401
    from fmnist.figures import album  # noqa: F401

    with torch.device("meta"):
        model = FFN([4])
    training.multiply_adds(model)
    training.make_optimizer(model, training.TrainConfig(optimizer="adadelta")).zero_grad()


def _watch(job: dict[str, Any], out: int, err: int, status: int) -> None:
    """Fork the child, tell its pid, wait for its end, and tell how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pid = os.fork()
    if pid == 0:
        os.close(status)
        _be(job, out, err)
    os.close(out)
    os.close(err)
    os.write(status, f"{pid}\n".encode())
    _, how = os.waitpid(pid, 0)
    os.write(status, f"{os.waitstatus_to_exitcode(how)}\n".encode())
    os._exit(0)


def _be(job: dict[str, Any], out: int, err: int) -> None:
    for number, pipe in ((1, out), (2, err)):
        os.dup2(pipe, number)
        os.close(pipe)
    # The server's own were made for files of another kind.
    sys.stdout, sys.stderr = (os.fdopen(number, "w", errors="backslashreplace", closefd=False) for number in (1, 2))
    code = 1
    try:
        code = child._main(job)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
