"""Image files of every kind: read upright in RGB, or refused in words; never half-decoded, slow or greedy."""

import os
import stat
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmnist import photograph
from fmnist.checkpoints import save_weights
from fmnist.data import OWN
from fmnist.errors import Refused
from recipes import RECIPES
from tests.helpers import child, needs
from tests.helpers.garments import agreement, boot, photo, placed

ROOT = Path(__file__).parents[1]
CNN = RECIPES["classic"].networks[1]
NO_IMAGE = "--image missing, empty, cut short, a text file or a TIFF named .png"


def prepared(path: Path) -> np.ndarray:
    return photograph.prepare(photograph.read(path)).pixels


@pytest.mark.parametrize(
    ("form", "name"),
    [("PNG", "a.jpg"), ("JPEG", "a.png"), ("JPEG", "a.JPEG"), ("WEBP", "a"), ("BMP", "a.tif"), ("GIF", "a.heic")],
)
def test_the_content_decides_on_the_format_not_the_ending(tmp_path, form, name):
    photo().save(tmp_path / name, form)
    assert photograph.read(tmp_path / name).mode == "RGB"
    overlap, correlation = agreement(prepared(tmp_path / name), boot())
    assert overlap > 0.85
    assert correlation > 0.93


def sixteen_bits() -> Image.Image:
    return Image.fromarray((65535 * (1 - placed(boot()))).astype(np.uint16))


MODES = {
    "L": lambda: photo().convert("L"),
    "1": lambda: photo().convert("1", dither=Image.Dither.NONE),
    "P": lambda: photo().quantize(16),
    "I;16": sixteen_bits,
    "LA": lambda: photo().convert("LA"),
    "RGBA": lambda: photo().convert("RGBA"),
    "CMYK": lambda: photo().convert("CMYK"),
}


@pytest.mark.parametrize("mode", MODES)
def test_modes(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    MODES[mode]().save(path)
    with Image.open(path) as image:
        assert image.mode == mode
    overlap, _ = agreement(prepared(path), boot())
    assert overlap > 0.85


def test_a_picture_of_which_nothing_is_transparent_is_prepared_as_without_that_channel(tmp_path):
    picture = Image.new("RGB", (120, 120), (150, 150, 150))
    picture.paste((50, 50, 50), (45, 30, 75, 90))
    for mode in ("RGB", "RGBA", "LA"):
        picture.convert(mode).save(tmp_path / f"{mode}.png")
    plain = prepared(tmp_path / "RGB.png")
    assert (plain == 0).mean() > 0.4, "the ground is black"
    assert np.array_equal(prepared(tmp_path / "RGBA.png"), plain)
    assert np.array_equal(prepared(tmp_path / "LA.png"), plain)
    rounded = picture.convert("RGBA")
    for corner in ((0, 0), (0, 119), (119, 0), (119, 119)):
        rounded.putpixel(corner, (0, 0, 0, 0))
    rounded.save(tmp_path / "rounded.png")
    assert np.array_equal(prepared(tmp_path / "rounded.png"), plain), "as screenshots of windows are"


@pytest.mark.parametrize("hidden", ["black", "white", "red"])
@pytest.mark.parametrize("tone", [0.0, 1.0])
def test_transparent_is_background(tmp_path, tone, hidden):
    """Whatever colour stands hidden under full transparency, and however tightly the image is cut."""
    shape = Image.fromarray(((boot() > 0) * 255).astype(np.uint8)).resize((252, 252))
    image = Image.new("RGB", (252, 252), hidden)
    image.paste((int(255 * tone),) * 3, mask=shape)
    image.putalpha(shape)
    image = image.crop(shape.getbbox())
    image.save(tmp_path / "a.png")
    overlap, _ = agreement(prepared(tmp_path / "a.png"), boot())
    assert overlap > 0.9


def test_a_transparent_palette_colour_is_background(tmp_path):
    levels = placed(boot()) > 0.1
    image = Image.fromarray(levels.astype(np.uint8), "L").convert("P")
    image.putpalette([30, 30, 30, 40, 60, 80])
    image.save(tmp_path / "a.png", transparency=0)
    overlap, _ = agreement(prepared(tmp_path / "a.png"), boot())
    assert overlap > 0.85


def test_fully_transparent_is_refused(tmp_path):
    Image.new("RGBA", (60, 60), (9, 9, 9, 0)).save(tmp_path / "a.png")
    with pytest.raises(Refused, match="nothing that stands out"):
        prepared(tmp_path / "a.png")


# How a camera stores an upright picture, [H, W, 3], by the value of the EXIF tag "orientation".
STORED = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: upright.swapaxes(0, 1),
    6: np.rot90,
    7: lambda upright: np.rot90(upright, 2).swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


EVERY = [(name, (420, 330), orientation) for name in ("a.jpg", "a.png", "a.webp") for orientation in STORED]
DECODED_AT_HALF = ("large.jpg", (2520, 1980), 6)


@pytest.mark.parametrize(("name", "size", "orientation"), [*EVERY, DECODED_AT_HALF])
def test_exif_orientation(tmp_path, name, size, orientation):
    upright = np.asarray(photo().resize(size))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(STORED[orientation](upright)).save(tmp_path / name, exif=exif)
    image = photograph.read(tmp_path / name)
    assert image.width / image.height == pytest.approx(420 / 330, rel=0.01)
    expected = np.asarray(photo().resize(image.size), float)
    assert np.abs(np.asarray(image, float) - expected).mean() < 2
    assert np.abs(np.asarray(image, float) - expected[:, ::-1]).mean() > 20


@pytest.mark.parametrize("exif", [b"Exif\0\0garbled", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12", b"Exif\0\0"])
def test_garbled_exif_is_let_by(tmp_path, exif):
    photo().save(tmp_path / "a.jpg", exif=exif)
    assert photograph.read(tmp_path / "a.jpg").size == (420, 330)


def test_several_pictures_in_one_file(tmp_path):
    """The first counts, in an animation and in the MPO files that phones name .jpg."""
    others = [Image.new("RGB", (420, 330), "red")]
    photo().save(tmp_path / "a.gif", save_all=True, append_images=others)
    photo().save(tmp_path / "mpo", format="MPO", save_all=True, append_images=others)
    (tmp_path / "mpo").rename(tmp_path / "a.jpg")
    for name in ("a.gif", "a.jpg"):
        assert agreement(prepared(tmp_path / name), boot())[0] > 0.85


def test_a_camera_s_48_megapixels_are_quick(tmp_path):
    photo().resize((8064, 6048)).save(tmp_path / "a.jpg", quality=70)
    start = time.monotonic()
    image = photograph.read(tmp_path / "a.jpg")
    pixels, *_ = photograph.prepare(image)
    assert time.monotonic() - start < 5
    assert max(image.size) < 2 * photograph.READ_EDGE
    assert agreement(pixels, boot())[0] > 0.85


# Refusing what may not


def refusal(path: Path) -> str:
    """What reading `path` is refused with: one line that begins with the file's name."""
    with pytest.raises(Refused) as caught:
        photograph.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    return message.removeprefix(f"{path}: ")


@pytest.mark.fault(29, NO_IMAGE)
def test_what_is_no_picture_is_refused(tmp_path, record_property):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("This is not a picture.\n" * 50)
    photo().save(tmp_path / "tiff.png", format="TIFF")
    photo().save(tmp_path / "photo.tif")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")

    assert "no such file" in refusal(tmp_path / "missing.png")
    assert "no such file" in refusal(tmp_path / "missing" / "a.png")
    assert "is not a file" in refusal(tmp_path / "folder.png")
    assert "is empty" in refusal(tmp_path / "empty.png")
    for name in ("text.png", "tiff.png", "photo.tif"):
        assert "convert it" in refusal(tmp_path / name)
    for path in (tmp_path / "loop.png", tmp_path / f"{'long' * 99}.png", tmp_path / "a\0.png"):
        assert "cannot be read" in refusal(path)
    record_property("injections", 4)  # missing, empty, a text file and a TIFF; the others are not in the table


@needs.posix
@pytest.mark.parametrize("mode", [stat.S_IFIFO, stat.S_IFCHR])
def test_what_would_hang_is_refused(tmp_path, mode):
    path = tmp_path / "a.png"
    if mode == stat.S_IFIFO:
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    program = "import sys; from fmnist import photograph; photograph.read(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 1
    assert "Refused" in done.stderr.splitlines()[-1]
    assert "is not a file" in done.stderr.splitlines()[-1]


def test_without_permission_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    photo().save(path)
    path.chmod(0)
    if os.access(path, os.R_OK):  # the superuser reads everything: let the system call say what others hear

        def denied(*_: object) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(photograph, "open", denied, raising=False)
    assert "permissions" in refusal(path)


@pytest.mark.fault(29, NO_IMAGE)
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif"])
def test_cut_short_is_refused_and_never_half_decoded(tmp_path, suffix, record_property):
    """At every length: refused, or every pixel is there (where only trailing bytes without pixels are missing)."""
    path = tmp_path / f"a.{suffix}"
    photo().resize((210, 165)).save(path)
    whole, full = path.read_bytes(), np.asarray(photograph.read(path))
    refused = 0
    sizes = sorted({*range(0, len(whole), max(1, len(whole) // 60)), *range(len(whole) - 30, len(whole))})
    for size in sizes:
        path.write_bytes(whole[:size])
        try:
            pixels = np.asarray(photograph.read(path))
        except Refused:
            refused += 1
        else:
            assert size > 0.98 * len(whole)
            np.testing.assert_array_equal(pixels, full)
    assert refused >= len(sizes) - 30
    record_property("injections", refused)


@pytest.mark.fault(29, NO_IMAGE)
def test_a_large_jpeg_cut_short_is_refused_though_it_is_decoded_at_a_fraction(tmp_path, record_property):
    path = tmp_path / "a.jpg"
    photo().resize((3000, 2400)).save(path)
    for part in (0.3, 0.9):
        content = path.read_bytes()
        path.write_bytes(content[: int(part * len(content))])
        assert "cut short" in refusal(path)
    record_property("injections", 2)


def bomb(path: Path, side: int) -> None:
    """Write a black PNG of side x side pixels, whole and valid; 30,000 pixels a side are 130 kB on disk."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", packed) + chunk(b"IEND", b""))


HUGE = pytest.mark.fault(30, "a 30,000 x 30,000 PNG under a memory limit")


# Leaves 500 MB for reading the photograph.
LIMITS_MEMORY = """
import resource
read = photograph.read
def read_with_less_memory(path):
    pages = int(open("/proc/self/statm").read().split()[0])
    print("limited", flush=True)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 500_000_000,) * 2)
    return read(path)
photograph.read = read_with_less_memory
"""
UNCHECKED = "photograph._check_size = lambda *_: None\nphotograph.Image.MAX_IMAGE_PIXELS = None"


@needs.linux
@pytest.mark.usefixtures("earlier_run")
@pytest.mark.parametrize("side", [pytest.param(30_000, marks=HUGE), 11_000])
def test_a_bomb_is_refused_under_a_memory_limit(folders, tmp_path, side):
    """30,000 pixels a side is beyond Pillow's own limit, 11,000 only beyond ours. Without either, memory runs out."""
    path = tmp_path / "bomb.png"
    bomb(path, side)
    save_weights(tmp_path, CNN, "classic", CNN.build().state_dict(), OWN)
    arguments = child.command(folders, "--weights", tmp_path / "cnn.pth", "--image", path)
    with child.started(arguments, script="kernel_vis", patches=[LIMITS_MEMORY]) as process:
        child.wait_for(process, "limited")
        start = time.monotonic()
        line = child.refused(child.finish(process), folders)
    assert time.monotonic() - start < 5
    assert f"{path}: " in line
    assert "64 megapixels" in line

    control = child.run(arguments, script="kernel_vis", patches=[LIMITS_MEMORY, UNCHECKED])
    assert "MemoryError" in child.refused(control, folders)


def test_as_many_pixels_as_are_allowed_are_read(tmp_path):
    """The control of the bomb: the same kind of file within the limit is decoded, and only then found to be black."""
    bomb(tmp_path / "a.png", 7_900)
    with pytest.raises(Refused, match="nothing that stands out"):
        prepared(tmp_path / "a.png")
