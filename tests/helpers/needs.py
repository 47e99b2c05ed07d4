"""Marks for tests of what not every system has: elsewhere they are skipped, and the reason is said."""

import os
import signal
import sys
from pathlib import Path

import pytest

posix = pytest.mark.skipif(os.name != "posix", reason="Windows has no signals, umask and limits of POSIX")
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc, and file names of any bytes")
dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")

SIGKILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows knows no such signal, and skips what sends one
KILLED = -SIGKILL if os.name == "posix" else 1  # the exit code of a process that was killed
