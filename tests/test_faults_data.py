"""Faults in the data set: files cut or altered, and CSV files that are none.

Each test asserts that its fault did happen, and then what the user gets. Whatever fails in this process would be a
traceback in the user's: `run_here` calls the scripts' `main` as they do.
"""

import gzip
import hashlib
from pathlib import Path

import pytest

from fmnist import download
from tests.helpers import child, tiny
from tests.helpers.child import OFFLINE, command, refused

pytestmark = pytest.mark.usefixtures("earlier_run")

TRAIN = tiny.NAMES[0]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def alter(path: Path) -> None:
    """Change one bit in the middle."""
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def damaged(folders, written, name: str, damage) -> Path:
    """Write the data and damage one file; the damage is asserted here."""
    path = tiny.raw_folder(tiny.write_torchvision(written, folders[0])) / name
    size, digest = download.FILES[name]
    assert (path.stat().st_size, sha256(path)) == (size, digest)
    damage(path)
    assert sha256(path) != digest
    assert path.stat().st_size == (size // 2 if damage is cut else size)
    return path


# 1, 2: a raw file is cut in half, or one byte of it altered

CUT, ALTERED = pytest.mark.fault(1, "a raw idx file is cut in half"), pytest.mark.fault(2, "one byte of it altered")
BOTH = [pytest.param(cut, "cut short", marks=CUT), pytest.param(alter, "altered", marks=ALTERED)]


@pytest.mark.parametrize("name", [TRAIN, tiny.NAMES[3]])
@pytest.mark.parametrize(("damage", "said"), BOTH)
def test_a_damaged_file_is_refused_where_nothing_can_be_fetched(folders, offline, run_here, damage, said, name):
    path = damaged(folders, offline, name, damage)
    before = child.snapshot(folders[0])
    line = refused(run_here(command(folders)), folders)
    assert f"{path} is {said}" in line
    assert "--data-dir" in line
    assert child.snapshot(folders[0]) == before


@pytest.mark.parametrize(("damage", "said"), BOTH)
def test_a_damaged_file_is_fetched_anew(folders, offline, run_here, only_loads, monkeypatch, damage, said):
    path = damaged(folders, offline, TRAIN, damage)
    broken = path.read_bytes()
    package = lambda private, _log: tiny.write_idx(offline, private / "unpacked", gzipped=True)  # noqa: E731
    monkeypatch.setattr(download, "_fetch_package", package)
    done = run_here(command(folders))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{path} is {said}" in done.stdout
    assert "from Debian's package" in done.stdout
    assert sha256(path) == download.FILES[TRAIN][1]
    assert path.with_name(f"{TRAIN}.altered").read_bytes() == broken, "the user's own file is kept"
    assert len(list(path.parent.iterdir())) == 5, "the sound files stay as they are"


@pytest.mark.parametrize(("damage", "said"), BOTH)
def test_the_gzipped_file_is_read_in_the_place_of_a_damaged_one(folders, offline, run_here, only_loads, damage, said):
    path = damaged(folders, offline, TRAIN, damage)
    path.with_name(f"{TRAIN}.gz").write_bytes(gzip.compress(tiny.contents(offline)[TRAIN]))
    before = child.snapshot(folders[0])
    done = run_here(command(folders))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"data: {path} is {said}" in done.stdout
    assert f"; read {path}.gz instead" in done.stdout
    assert child.snapshot(folders[0]) == before


@pytest.mark.parametrize("damage", [pytest.param(cut, marks=CUT), pytest.param(alter, marks=ALTERED)])
def test_a_damaged_gzipped_file_is_refused(folders, offline, run_here, damage):
    path = tiny.raw_folder(tiny.write_torchvision(offline, folders[0], gzipped=True)) / f"{TRAIN}.gz"
    before = sha256(path)
    damage(path)
    assert sha256(path) != before
    assert str(path) in refused(run_here(command(folders)), folders)


@CUT
def test_a_user_sees_one_line_for_a_file_cut_in_half(folders, offline):
    path = damaged(folders, offline, TRAIN, cut)
    done = child.run(command(folders), files=tiny.files_table(offline), patches=[OFFLINE])
    assert f"{path} is cut short" in refused(done, folders)


# 32: the CSV form


def edit(line: int, change):
    """A function that changes one line, from 1 as an editor counts, of the training CSV's lines."""

    def damage(lines: list[str]) -> list[str]:
        lines[line - 1] = change(lines[line - 1])
        return lines

    return damage


def cell(number: int, text: str):
    """A function that puts `text` in the place of a row's cell; 0 is the label."""
    return lambda row: ",".join([*row.split(",")[:number], text, *row.split(",")[number + 1 :]])


@pytest.mark.fault(32, "CSV with a short row, a letter, a pixel of 256, a label of 10, no header, no rows")
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (edit(7, lambda row: row.rsplit(",", 1)[0]), "line 7: has 784 values instead of 785"),
        (edit(3, cell(5, "x")), "line 3: pixel5 is 'x', not a whole number from 0 to 255"),
        (edit(9, cell(784, "256")), "line 9: pixel784 is '256', not a whole number from 0 to 255"),
        (edit(2, cell(0, "10")), "line 2: label is '10', not a whole number from 0 to 9"),
        (lambda lines: lines[1:], "line 1: is "),
        (lambda lines: lines[:1], "no rows"),
        (lambda lines: [], "is empty"),
    ],
)
def test_bad_csv_is_refused_with_file_line_and_what_is_wrong(folders, offline, run_here, damage, said):
    path = tiny.write_csv(tiny.make(20, 10), folders[0]) / tiny.CSV_NAMES[0]
    path.write_text("".join(f"{line}\n" for line in damage(path.read_text().splitlines())))
    line = refused(run_here(command(folders)), folders)
    assert str(path) in line
    assert said in line


@pytest.mark.parametrize("missing", tiny.CSV_NAMES)
def test_one_csv_file_of_the_pair_is_refused(folders, offline, run_here, missing):
    (tiny.write_csv(tiny.make(20, 10), folders[0]) / missing).unlink()
    assert str(folders[0] / missing) in refused(run_here(command(folders)), folders)
