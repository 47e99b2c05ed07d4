"""fmnist.layers.Pixels against torchvision's own transforms."""

import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.functional import InterpolationMode

from fmnist.layers import MEAN, STD, Pixels

IMAGES = torch.randint(0, 256, (6, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
IMAGES[0, :4] = 0
IMAGES[0, 4:8] = 255


def prepared_by_torchvision(images: torch.Tensor, mean: float, std: float, size: int) -> torch.Tensor:
    steps = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([mean], [std])]
    if size != 28:
        steps.append(v2.Resize(size, InterpolationMode.BILINEAR, antialias=True))
    transform = v2.Compose(steps)
    return torch.stack([transform(Image.fromarray(image.numpy())) for image in images])


@pytest.mark.parametrize("size", [28, 32, 20])
@pytest.mark.parametrize(("mean", "std"), [(MEAN, STD), (0.5, 0.5), (0.0, 1.0), (-0.01 / 0.99, 1 / 0.99)])
def test_pixels_are_prepared_as_torchvision_prepares_them(mean, std, size):
    ours = Pixels(mean, std, size)(IMAGES)
    assert (ours.shape, ours.dtype) == ((6, 1, size, size), torch.float32)
    torch.testing.assert_close(ours, prepared_by_torchvision(IMAGES, mean, std, size), rtol=1e-5, atol=2e-6)


def test_by_default_they_are_standardised_by_the_data_sets_own_mean_and_deviation():
    torch.testing.assert_close(Pixels()(IMAGES), prepared_by_torchvision(IMAGES, 0.2860, 0.3530, 28))


@pytest.mark.parametrize("size", [28, 32])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_what_is_given_is_not_changed(dtype, size):
    images = IMAGES.to(dtype)
    result = Pixels(size=size)(images)
    assert torch.equal(images, IMAGES.to(dtype))
    assert torch.equal(result, Pixels(size=size)(IMAGES)), "pixels from 0 to 255 mean the same in any type"


def test_they_are_in_single_precision_where_a_network_trains_in_bfloat16():
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Pixels(size=32)(IMAGES), Pixels(size=32)(IMAGES.clone()).float())
        assert Pixels()(IMAGES).dtype == torch.float32


@pytest.mark.parametrize(
    "arguments",
    [{"std": 0}, {"std": float("nan")}, {"mean": float("inf")}, {"size": 0}, {"size": 100_000}, {"size": 28.5}],
    ids=str,
)
def test_numbers_that_prepare_no_image_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Pixels(**arguments)


def test_they_hold_no_weights_and_say_what_they_do():
    assert Pixels().state_dict() == {}
    assert repr(Pixels(0.5, 0.25, 32)) == "Pixels(mean=0.5, std=0.25, size=32)"
