"""The CSV form of the data set: `fashion-mnist_train.csv` and `fashion-mnist_test.csv` as arrays.

A header row `label,pixel1,...,pixel784`, then a row per image: its class (0 to 9) and its 784 pixels (0 to
255) from the top left. pandas reads the file; only if something is wrong is it read again, line by line, to
say where and what.
"""

import csv
import os
import stat
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fmnist.errors import Refused

SIDE = 28
COLUMNS = ("label", *(f"pixel{number}" for number in range(1, SIDE * SIDE + 1)))
HEADER = ",".join(COLUMNS)
LABELS, PIXELS = (frozenset(map(str, range(count))) for count in (10, 256))
CHUNK_ROWS = 4096  # as int64 26 MB, so that the images themselves, 47 MB, are what memory holds
LONGEST_LINE = 16_384  # characters; the header has 7,000. A file without line breaks is not drawn into memory
LONGEST_NUMBER = 18  # digits that surely fit 64 bits
REMEDY = "correct it or get the file anew"


def read(path: Path | str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images, uint8 [N, 28, 28], and labels, int64 [N], of the CSV file at `path`.

    Lines may end in LF or CRLF; blank lines are skipped. Raises Refused, naming the file, the line (from 1 as
    an editor counts) and what is wrong, for anything else than the form above and for what cannot be read.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise Refused(f"{path}: is not a file; name a CSV file")
        with open(path, "rb") as file:
            _check_header(path, file)
            try:
                return _read_rows(file)
            except (ValueError, OverflowError):  # among them pandas' ParserError and EmptyDataError
                raise Refused(_find_fault(path)) from None
    except FileNotFoundError:
        raise Refused(f"{path}: there is no such file; both CSV files must be there") from None
    except (OSError, ValueError) as error:
        raise Refused(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _check_header(path: Path | str, file: BinaryIO) -> None:
    """Read the first line; raise Refused unless it is the header.

    The byte order mark that spreadsheets write is accepted.
    """
    line = file.readline(LONGEST_LINE)
    if not line:
        raise Refused(f"{path}: is empty; get the file anew")
    if line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n") != HEADER.encode():
        wanted = f"{COLUMNS[0]},{COLUMNS[1]},...,{COLUMNS[-1]}"
        raise Refused(f"{path}, line 1: is {_quoted(line)} instead of the header {wanted}; {REMEDY}")


def _read_rows(file: BinaryIO) -> tuple[np.ndarray, np.ndarray]:
    """Read the rows after the header; raise ValueError or OverflowError if anything is off."""
    import pandas  # takes half a second, and most users have the idx files

    if _holds_nul(file):  # the parser takes a NUL byte for the end of a cell, so that "5\0x" would pass for 5
        raise ValueError("a NUL byte")
    images, labels = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # No names are given: with names, rows that are too long lose their end without an error.
        options = {"header": None, "quoting": csv.QUOTE_NONE, "low_memory": False}
        for chunk in pandas.read_csv(file, chunksize=CHUNK_ROWS, **options):
            rows = _checked(chunk.to_numpy())
            labels.append(rows[:, 0].astype(np.int64))
            images.append(rows[:, 1:].astype(np.uint8, order="C").reshape(-1, SIDE, SIDE))
    return np.concatenate(images), np.concatenate(labels)


def _holds_nul(file: BinaryIO) -> bool:
    """Whether a NUL byte comes after the present place in `file`; the place is kept."""
    place = file.tell()
    holds_nul = any(b"\0" in block for block in iter(lambda: file.read(1 << 20), b""))
    file.seek(place)
    return holds_nul


def _checked(rows: np.ndarray) -> np.ndarray:
    """Return `rows` if they are whole numbers within their limits, else raise ValueError."""
    # A short row, text or a fraction anywhere in a column changes the type of the array.
    if rows.dtype.kind not in "iu" or rows.shape[1] != len(COLUMNS):
        raise ValueError("not whole numbers in every column")
    if rows.min() < 0 or rows.max() >= len(PIXELS) or rows[:, 0].max() >= len(LABELS):
        raise ValueError("a number beyond its limits")
    return rows


def _find_fault(path: Path | str) -> str:
    """Read the file line by line and return the message on its first bad row."""
    rows = 0
    with open(path, encoding="utf-8", errors="replace") as file:
        file.readline()
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), ""), start=2):
            if not line.strip(" \t\n"):  # pandas skips such lines
                continue
            if fault := _fault(line.rstrip("\n")):
                return f"{path}, line {number}: {fault}; {REMEDY}"
            rows += 1
    if rows == 0:
        return f"{path}: has a header but no rows; get the file anew"
    return f"{path}: holds something else than whole numbers in {len(COLUMNS)} columns; get the file anew"


def _fault(line: str) -> str | None:
    """Say what is wrong with a row, or None."""
    cells = line.split(",")
    if cells[0] in LABELS and len(cells) == len(COLUMNS) and PIXELS.issuperset(cells):
        return None
    if len(cells) != len(COLUMNS):
        return f"has {len(cells)} values instead of {len(COLUMNS)}"
    for name, cell in zip(COLUMNS, cells, strict=True):
        limit = len(LABELS if name == "label" else PIXELS) - 1
        if not _is_whole(cell, limit):
            what = _quoted(cell.encode()) if cell.strip() else "empty"
            return f"{name} is {what}, not a whole number from 0 to {limit}"
    return None


def _is_whole(cell: str, limit: int) -> bool:
    """Whether `cell` is a whole number up to `limit`; blanks, a plus and leading zeros pass, as in pandas."""
    digits = cell.strip(" ").removeprefix("+")
    return digits.isascii() and digits.isdigit() and len(digits) <= LONGEST_NUMBER and int(digits) <= limit


def _quoted(text: bytes) -> str:
    """The beginning of `text` for a message, with everything unprintable spelled out."""
    shown = ascii(text[:24].decode("utf-8", "replace").rstrip("\r\n"))
    return f"{shown}..." if len(text.rstrip(b"\r\n")) > 24 else shown
