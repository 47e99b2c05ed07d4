"""Files that are whole or not there, and folders that belong to one run at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fmnist.errors import Refused

PARTIAL = ".partial"


@contextmanager
def whole_file(path: Path | str) -> Iterator[BinaryIO]:
    """Yield a binary file that takes the place of `path` when the block ends well, and vanishes when it does not.

    It is written beside its place, flushed to the disk and moved over with `os.replace`: a reader, or a run that is
    killed at any moment, finds the old file or the new one and never a piece. Raises OSError, naming `path`.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, str(partial)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def locked(folder: Path | str) -> Iterator[Path]:
    """Hold `folder`, made if it is missing, for this process alone; yield its path.

    The operating system drops the lock of a process that dies, so a killed run blocks nobody; the pieces of files it
    left are removed here. Raises Refused if the folder cannot be written or another run holds it.
    """
    from filelock import FileLock, Timeout

    folder = Path(folder)
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise Refused(f"{folder}: another run is writing here; wait for it or name another --output-dir") from None
    except (FileExistsError, NotADirectoryError):
        raise Refused(f"{folder}: not a folder; name another --output-dir") from None
    except (OSError, NotImplementedError) as error:
        raise Refused(f"{folder}: cannot be written ({error}); name another --output-dir") from None
    try:
        remove_partial(folder)
        yield folder
    finally:
        lock.release()


def remove_partial(folder: Path) -> None:
    """Remove what killed runs left half-written in `folder`. The caller holds the folder's lock."""
    for stray in folder.rglob(f".*.[0-9]*{PARTIAL}"):
        stray.unlink(missing_ok=True)
