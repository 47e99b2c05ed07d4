"""Photographs prepared as the data set was: made-up garments, enlarged and put before backgrounds, come back."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmnist import photograph
from fmnist.errors import Refused
from tests.helpers.garments import HELD_OUT, KNOWN, SCALE, agreement, boot, disguised, grey, placed, shirt, trousers

SHADOWS = [name for name in {**KNOWN, **HELD_OUT} if "shadow" in name and "object" not in name and "hanger" not in name]
SAMPLE = Path(__file__).with_name("photograph.jpg")
GARMENTS = pytest.mark.parametrize("garment", [trousers(), boot(), shirt()], ids=["trousers", "boot", "shirt"])


def prepared(image: Image.Image) -> np.ndarray:
    """What becomes of a photograph that nothing is to be said against."""
    pixels, warning, _ = photograph.prepare(image)
    assert warning is None
    return pixels


def extent(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """First row, last row, first column and last column that are not black."""
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    return rows[0], rows[-1], columns[0], columns[-1]


def assert_of_the_data_set(pixels: np.ndarray) -> None:
    assert pixels.shape == (28, 28)
    assert pixels.dtype == np.uint8
    assert pixels.max() == 255
    top, bottom, left, right = extent(pixels)
    assert max(bottom - top, right - left) + 1 == 28
    assert abs(top + bottom - 27) <= 1
    assert abs(left + right - 27) <= 1


@GARMENTS
@pytest.mark.parametrize(("left", "top"), [(120, 31), (5, 73), (163, 5)])
def test_dark_on_light_and_light_on_dark_give_the_garment(garment, left, top):
    levels = placed(garment, left, top)
    from_dark, from_light = (prepared(grey(255 * side)) for side in (levels, 1 - levels))

    assert_of_the_data_set(from_dark)
    np.testing.assert_array_equal(from_light, from_dark)
    overlap, correlation = agreement(from_dark, garment)
    assert overlap > 0.97
    assert correlation > 0.98


def backdrop(kind: str) -> np.ndarray:
    y, x = np.mgrid[0:330, 0:420] / 400
    even = np.zeros((330, 420))
    return {
        "white": even + 250,
        "grey": even + 150,
        "shaded": 215 - 70 * x - 40 * y,
        "vignette": 225 - 90 * ((x - 0.5) ** 2 + (y - 0.4) ** 2),
        "boards": 170 + 12 * np.sin(60 * y + 3 * np.sin(4 * x)),
        "dark": 20 + 30 * x,
        "dark vignette": 60 - 60 * ((x - 0.5) ** 2 + (y - 0.4) ** 2),
    }[kind]


@GARMENTS
@pytest.mark.parametrize("kind", ["white", "grey", "shaded", "vignette", "boards", "dark", "dark vignette"])
def test_an_uneven_noisy_background_becomes_black(garment, kind):
    ground, levels = backdrop(kind), placed(garment)
    dark = ground.mean() < 100
    lit = ground + 0.8 * levels * (255 - ground) if dark else ground * (1 - 0.85 * levels)
    noisy = lit + np.random.default_rng(0).normal(0, 3, lit.shape)
    packed = io.BytesIO()
    grey(noisy).save(packed, "JPEG", quality=80)

    pixels = prepared(Image.open(packed).convert("RGB"))

    assert_of_the_data_set(pixels)
    overlap, correlation = agreement(pixels, garment)
    assert overlap > 0.85
    assert correlation > 0.93
    far = np.asarray(Image.fromarray(garment > 0).resize((28, 28))).copy()
    for axis in (0, 1):
        far |= np.roll(far, 1, axis) | np.roll(far, -1, axis)
    assert (pixels[~far] == 0).mean() > 0.97


@GARMENTS
def test_an_image_of_the_data_set_stays_as_it_is(garment):
    np.testing.assert_array_equal(prepared(grey(garment)), garment)
    np.testing.assert_array_equal(prepared(grey(255.0 - garment)), garment)


def test_dust_is_left_out():
    levels = placed(trousers())
    levels[5:8, 5:8] = levels[320:323, 400:404] = 1
    overlap, _ = agreement(prepared(grey(255 - 255 * levels)), trousers())
    assert overlap > 0.9


def test_what_is_inside_the_garment_stays_even_if_it_has_the_colour_of_the_background():
    levels = placed(shirt())
    levels[31 + 12 * SCALE : 31 + 18 * SCALE, 120 + 10 * SCALE : 120 + 17 * SCALE] = 0
    pixels = prepared(grey(255 - 255 * levels))
    assert pixels[13:17, 12:16].max() < 60
    assert agreement(pixels, shirt())[0] > 0.8


def test_colour_tells_a_garment_from_a_background():
    """Green on a light ground is found whatever its grey level is; the grey is that of ITU-R 601."""
    levels = placed((boot() > 0) * np.uint8(255))[..., None]
    green, ground = np.array([20, 190, 40]), np.array([240, 240, 240])
    image = Image.fromarray((ground * (1 - levels) + green * levels).clip(0, 255).astype(np.uint8))
    overlap, _ = agreement(prepared(image), boot())
    assert overlap > 0.9


def test_the_sample_looks_like_a_t_shirt():
    assert SAMPLE.stat().st_size < 40_000
    pixels = prepared(photograph.read(SAMPLE))
    assert_of_the_data_set(pixels)
    covered = pixels > 25
    assert covered[0:2].sum() < 28  # shoulders on both sides of the neck
    assert covered[6:10].mean() > 0.8  # sleeves from edge to edge
    assert 0.4 < covered[16:26].mean() < 0.7  # the body is narrower
    assert not covered[16:, :5].any()
    assert not covered[16:, 24:].any()
    assert np.median(pixels[covered]) > 150


def test_nothing_to_see_is_refused():
    for colour in ("white", "black", (90, 120, 30)):
        with pytest.raises(Refused, match="my picture: shows nothing that stands out"):
            photograph.prepare(Image.new("RGB", (300, 200), colour), "my picture")
    for size in ((1, 1), (7, 400), (400, 1)):
        with pytest.raises(Refused, match="too small"):
            photograph.prepare(Image.new("RGB", size))


# Cropped by the frame


@GARMENTS
@pytest.mark.parametrize("quarter_turns", range(4))
def test_a_cropped_garment_is_prepared_with_a_warning(garment, quarter_turns):
    """A quarter of it lies beyond one side of the picture; the rest is prepared as if it were the whole."""
    levels = placed(garment)
    levels[31 + 21 * SCALE :] = 0
    whole, cut = (np.rot90(picture, quarter_turns) for picture in (levels, levels[: 31 + 21 * SCALE]))
    pixels, warning, _ = photograph.prepare(grey(240 - 200 * cut), "my picture")
    assert warning.startswith("my picture: ")
    assert "leave a margin around the garment" in warning
    assert agreement(pixels, prepared(grey(240 - 200 * whole)))[0] > 0.9


def test_a_garment_that_fills_the_picture_is_refused():
    """Its ground is left in pieces at the edges or nowhere; no piece of it is to be taken for a garment."""
    close_up = grey(240 - 200 * placed(trousers())[31 + 90 : 31 + 252, 120 + 63 : 120 + 189])
    cloth = Image.new("RGB", (300, 200), (90, 120, 30))
    for image in (close_up, cloth):
        with pytest.raises(Refused, match=r"^my picture: .*leave a margin around the garment"):
            photograph.prepare(image, "my picture")


# Shadows


@GARMENTS
@pytest.mark.parametrize("name", SHADOWS)
def test_a_soft_shadow_is_not_taken_for_the_garment(garment, name, monkeypatch):
    image = disguised(garment, {**KNOWN, **HELD_OUT}[name], np.random.default_rng(5))
    overlap, _ = agreement(photograph.prepare(image).pixels, garment)
    monkeypatch.setattr("fmnist.garment._ground", lambda difference, ground, seen: np.zeros_like(seen))
    with_shadow, _ = agreement(photograph.prepare(image).pixels, garment)
    assert overlap > max(0.7, with_shadow - 0.05)  # a row of pixels of a leg that was joined to a fold


@GARMENTS
def test_without_a_shadow_nothing_is_taken_for_one(garment):
    image = disguised(garment, KNOWN["white"], np.random.default_rng(5))
    overlap, correlation = agreement(photograph.prepare(image).pixels, garment)
    assert overlap > 0.85
    assert correlation > 0.9


@GARMENTS
@pytest.mark.parametrize("name", ["folds", "vignette", "two lights", "hanger", "object"])
def test_folds_lights_and_things_are_not_taken_for_the_garment(garment, name):
    image = disguised(garment, KNOWN[name], np.random.default_rng(7))
    assert agreement(photograph.prepare(image).pixels, garment)[0] > 0.75


# Steps and doubts


def test_the_steps_lead_from_the_photograph_to_what_the_network_sees():
    pixels, _, steps = photograph.prepare(grey(255 - 255 * placed(boot())))
    found, trimmed, negated, shrunk = (step.image for step in steps)
    assert found.shape == (330, 420, 3)
    outline = (found == photograph.OUTLINE).all(axis=2)
    rows, columns = np.flatnonzero(outline.any(axis=1)), np.flatnonzero(outline.any(axis=0))
    top, bottom = np.flatnonzero(boot().any(axis=1))[[0, -1]] * SCALE + 31
    assert abs(rows[0] - top) <= 3
    assert abs(rows[-1] - (bottom + SCALE)) <= 4
    assert abs(columns[0] - 120) <= 3
    assert trimmed.shape[:2] == negated.shape == pytest.approx((bottom + SCALE - top, 28 * SCALE), abs=4)
    assert trimmed.mean() < 255 - negated.mean() + 40
    assert np.array_equal(shrunk, pixels)
    assert [step.title for step in steps][2] == "negated, on black"


def test_a_pale_garment_and_several_things_are_doubtful():
    pale = grey(255 - 25 * placed(boot()))
    assert "hardly stands out" in photograph.prepare(pale, "a.png").warning
    two = np.hstack([placed(boot()), placed(shirt())])
    assert "several things" in photograph.prepare(grey(255 - 255 * two), "a.png").warning
