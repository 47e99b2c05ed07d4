"""Files that are whole or not there, JSON among them, and folders that belong to one run at a time."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from fmnist.errors import Refused

PARTIAL = ".partial"


@contextmanager
def atomic_write(path: Path | str) -> Iterator[BinaryIO]:
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


def write_text(path: Path | str, text: str) -> None:
    """Write `text` to `path`, in UTF-8, whole or not at all."""
    with atomic_write(path) as file:
        file.write(text.encode(errors="backslashreplace"))  # a path that it names may hold any bytes


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


# Tables


def write_csv(path: Path | str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a line per row, under the names of their values. Raises OSError, naming `path`."""
    import pandas

    write_text(path, pandas.DataFrame(rows).to_csv(index=False, lineterminator="\n"))


# JSON


def write_json(path: Path | str, content: Any) -> None:
    """Write `content` to `path` as strict JSON: NaN and infinities become null, arrays lists.

    Raises TypeError for what JSON cannot hold, before anything is written, and OSError, naming `path`.
    """
    write_text(path, _lines(plain(content)) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file; None where there is none, or it is no JSON."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def plain(value: Any) -> Any:
    """Return `value` in JSON's own types: arrays and their scalars unpacked, what is not finite as None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _lines(value: Any, indent: str = "") -> str:
    """Indented JSON in which what holds only plain values keeps to one line: a matrix has a row a line."""
    items = value.values() if isinstance(value, dict) else value
    if not isinstance(value, (list, dict)) or not any(isinstance(item, (list, dict)) for item in items):
        return json.dumps(value, allow_nan=False)
    inner = indent + "  "
    if isinstance(value, list):
        return "[\n" + ",\n".join(inner + _lines(item, inner) for item in value) + f"\n{indent}]"
    lines = (f"{inner}{json.dumps(key)}: {_lines(item, inner)}" for key, item in value.items())
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
