"""The CSV form of the data set: read bit for bit, and every fault in it named with its line."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from fmnist import csv_files
from fmnist.errors import Refused

ROOT = Path(__file__).parents[1]
HEADER = "label," + ",".join(f"pixel{number}" for number in range(1, 785))
ROWS = 9  # the good file has a header on line 1 and its rows on lines 2 to 10


def made_up(rows: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(rows)
    images = random.integers(0, 256, (rows, 28, 28), dtype=np.uint8)
    images[0, 0, :2] = 0, 255
    return images, random.integers(0, 10, rows)


def good_lines(rows: int = ROWS) -> list[str]:
    images, labels = made_up(rows)
    table = np.column_stack([labels, images.reshape(rows, -1)])
    return [HEADER, *(",".join(map(str, row)) for row in table.tolist())]


def write(path: Path, lines: list[str], end: str = "\n") -> Path:
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


def refusal(path: Path) -> str:
    """What reading `path` is refused with: one line that begins with the file's name, and no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(Refused) as caught:
            csv_files.read(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert len(message) < len(str(path)) + 250
    return message.removeprefix(str(path))


def with_cell(line: int, column: int, text: str) -> list[str]:
    """The good lines with one cell replaced; `line` counts from 1."""
    lines = good_lines()
    cells = lines[line - 1].split(",")
    cells[column] = text
    lines[line - 1] = ",".join(cells)
    return lines


@pytest.mark.parametrize("rows", [1, ROWS, csv_files.CHUNK_ROWS, csv_files.CHUNK_ROWS + 1])
def test_reads_bit_for_bit(tmp_path, rows):
    images, labels = made_up(rows)
    table = np.column_stack([labels, images.reshape(rows, -1)])
    path = tmp_path / "train.csv"
    np.savetxt(path, table, fmt="%d", delimiter=",", header=HEADER, comments="")

    read_images, read_labels = csv_files.read(path)

    assert read_images.dtype == np.uint8
    assert read_labels.dtype == np.int64
    assert read_images.flags.c_contiguous
    assert read_images.flags.writeable
    np.testing.assert_array_equal(read_images, images)
    np.testing.assert_array_equal(read_labels, labels)


@pytest.mark.parametrize(
    "dress",
    [
        lambda text: text,
        lambda text: text.rstrip(b"\n"),
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text + b"\n",
        lambda text: text.replace(b"\n", b"\r\n") + b"\r\n",
        lambda text: b"\xef\xbb\xbf" + text,
    ],
    ids=["plain", "no newline at the end", "CRLF", "blank at the end", "CRLF and blank", "byte order mark"],
)
def test_reads_what_editors_and_spreadsheets_write(tmp_path, dress):
    path = write(tmp_path / "train.csv", good_lines())
    path.write_bytes(dress(path.read_bytes()))
    images, labels = csv_files.read(path)
    np.testing.assert_array_equal(images, made_up(ROWS)[0])
    np.testing.assert_array_equal(labels, made_up(ROWS)[1])


@pytest.mark.parametrize(
    "text",
    ["x", "", " ", "256", "-1", "1.5", "1e2", "1_0", "0x10", "nan", "True", '"5"', "٣", "5\0", "9" * 400],
)
def test_a_bad_pixel_is_named(tmp_path, text):
    message = refusal(write(tmp_path / "train.csv", with_cell(6, 400, text)))
    assert message.startswith(", line 6: pixel400 is ")
    assert "not a whole number from 0 to 255" in message


@pytest.mark.parametrize(("line", "column"), [(2, 1), (6, 400), (ROWS + 1, 784)])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_and_column_are_right_wherever_the_fault_is(tmp_path, line, column, end):
    path = write(tmp_path / "train.csv", with_cell(line, column, "256"), end)
    assert refusal(path).startswith(f", line {line}: pixel{column} is '256', not a whole number from 0 to 255")


@pytest.mark.parametrize("text", ["10", "-1", "255", "x", "", "2.0"])
def test_a_bad_label_is_named(tmp_path, text):
    message = refusal(write(tmp_path / "train.csv", with_cell(4, 0, text)))
    assert message.startswith(", line 4: label is ")
    assert "not a whole number from 0 to 9" in message


def test_a_fraction_that_is_whole_in_every_row_is_refused_too(tmp_path):
    lines = [HEADER, *(line.replace(",", ".0,", 1) for line in good_lines()[1:])]
    assert refusal(write(tmp_path / "train.csv", lines)).startswith(", line 2: label is ")


@pytest.mark.parametrize(
    ("change", "count"),
    [
        (lambda row: row.rsplit(",", 1)[0], 784),
        (lambda row: row + ",7", 786),
        (lambda row: row + ",", 786),
        (lambda row: row + ",1,2,3", 788),
        (lambda row: "7", 1),
    ],
    ids=["short", "long", "comma at the end", "much too long", "one value"],
)
def test_a_row_of_another_length_is_named(tmp_path, change, count):
    lines = good_lines()
    lines[6] = change(lines[6])
    message = refusal(write(tmp_path / "train.csv", lines))
    assert message.startswith(f", line 7: has {count} values instead of 785")


def test_every_row_too_long(tmp_path):
    lines = [HEADER, *(f"{line},1" for line in good_lines()[1:])]
    assert refusal(write(tmp_path / "train.csv", lines)).startswith(", line 2: has 786 values")


def test_the_first_of_several_faults_is_named_and_blank_lines_count(tmp_path):
    lines = with_cell(8, 3, "x")
    lines[5] = "1,2,3"
    lines.insert(2, "")
    lines.insert(2, "  ")
    assert refusal(write(tmp_path / "train.csv", lines)).startswith(", line 8: has 3 values")


def test_a_fault_beyond_the_first_chunk(tmp_path):
    rows = csv_files.CHUNK_ROWS + 5
    lines = good_lines(rows)
    lines[rows - 1] = lines[rows - 1].rsplit(",", 1)[0]
    assert refusal(write(tmp_path / "train.csv", lines)).startswith(f", line {rows}: has 784 values")


def test_quotes_do_not_hide_a_line_break(tmp_path):
    lines = good_lines()
    lines[3] = lines[3].replace(",", ',"', 1)
    lines[4] = lines[4].replace(",", '",', 1)
    assert refusal(write(tmp_path / "train.csv", lines)).startswith(", line 4: pixel1 is '\"")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", ": is empty"),
        (b"\n", ", line 1: is '' instead of the header"),
        (HEADER.encode(), ": has a header but no rows"),
        (HEADER.encode() + b"\n\n  \r\n", ": has a header but no rows"),
        ("\n".join(good_lines()[1:]).encode(), ", line 1: is "),
        (HEADER.replace("pixel5,", "").encode(), ", line 1: is "),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), ", line 1: is "),
        ("\n".join(good_lines()).encode("utf-16"), ", line 1: is "),
        (HEADER.encode() + b"\n" + b"\xff\xfe\x00" * 99, ", line 2: has 1 values"),
        (b"7" * 3_000_000, ", line 1: is "),
        (HEADER.encode() + b"\n" + b"7" * 3_000_000, ", line 2: has 1 values"),
    ],
    ids=[
        *(
            "empty",
            "blank",
            "header alone",
            "header and blanks",
            "no header",
            "a column missing",
            "a picture",
        ),
        *("UTF-16", "bytes after the header", "no line breaks", "no line breaks after the header"),
    ],
)
def test_another_kind_of_file(tmp_path, content, said):
    path = tmp_path / "train.csv"
    path.write_bytes(content)
    assert refusal(path).startswith(said)


def test_not_utf8_inside_a_cell(tmp_path):
    path = write(tmp_path / "train.csv", with_cell(5, 9, "@"))
    path.write_bytes(path.read_bytes().replace(b"@", b"\xe9"))
    assert refusal(path).startswith(", line 5: pixel9 is ")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "link.csv").symlink_to(tmp_path / "link.csv")
    assert "no such file" in refusal(tmp_path / "missing.csv")
    assert "not a file" in refusal(tmp_path)
    assert "not a file" in refusal(tmp_path / "pipe.csv")
    assert "cannot be read" in refusal(tmp_path / "link.csv")


def test_a_file_cut_anywhere_is_refused_unless_whole_rows_are_left(tmp_path):
    path = write(tmp_path / "train.csv", good_lines(3))
    whole = path.read_bytes()
    images, labels = made_up(3)
    refusals = []
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        try:
            read_images, read_labels = csv_files.read(path)
        except Refused as error:
            refusals.append(str(error))
            continue
        np.testing.assert_array_equal(read_labels, labels[: len(read_labels)])
        # The last cell may have lost a digit and still be a number.
        np.testing.assert_array_equal(read_images[:, :27], images[: len(read_labels), :27])
    assert len(refusals) > 0.9 * len(whole) / 97
    assert all(message.startswith(str(path)) and "\n" not in message for message in refusals)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_the_size_of_the_training_set_within_limits(tmp_path):
    """60,000 rows in under 10 seconds and half a GB, in a process of its own so that the peak is its own."""
    rows = good_lines(100)[1:]
    path = write(tmp_path / "train.csv", [HEADER, *(rows * 600)])
    program = (
        "import sys, time; from fmnist import csv_files; start = time.monotonic()\n"
        "images, labels = csv_files.read(sys.argv[1])\n"
        "print(len(images), time.monotonic() - start, open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
    )
    command = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    count, seconds, peak_kilobytes = map(float, done.stdout.split())
    assert count == 60_000
    assert seconds < 10
    assert peak_kilobytes < 500_000
