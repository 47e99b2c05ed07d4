"""Layers of our own: Pixels, which prepares the data set's bytes, a Dropout that costs less, a foldable batch norm."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN, STD = 0.2860, 0.3530  # of the training pixels, on the 0..1 scale
LARGEST = 512  # height and width to which images of 28x28 may be resized: beyond it is but a waste of memory
LEVELS = 2**16  # of 16 bits


class Pixels(nn.Module):
    """A network's first stage: turns the data set's bytes into what its author fed it.

    Maps uint8 [B, 28, 28] to float32 [B, 1, size, size]: to 0..1, minus `mean`, divided by `std`; resized, if `size` is
    another, bilinearly and with antialiasing, as torchvision resizes. A photograph, a test and a training image thus
    cannot be prepared differently, and the weights need no word on how their images were. Raises ValueError for numbers
    that prepare no image: they may come from a weights file.
    """

    def __init__(self, mean: float = MEAN, std: float = STD, size: int = 28) -> None:
        super().__init__()
        if not (math.isfinite(mean) and 0 < std < math.inf and size in range(1, LARGEST + 1)):
            raise ValueError(f"pixels of mean {mean}, std {std} and size {size} cannot be prepared")
        self.mean, self.std, self.size = mean, std, size

    def forward(self, images: Tensor) -> Tensor:  # uint8 [B, 28, 28] -> float32 [B, 1, size, size]
        pixels = (images.unsqueeze(1) * (1 / (255 * self.std))).sub_(self.mean / self.std)
        if self.size != 28:
            size = [self.size, self.size]
            pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
        return pixels

    def extra_repr(self) -> str:
        return f"mean={self.mean}, std={self.std}, size={self.size}"


class Dropout(nn.Dropout):
    """nn.Dropout that on a CPU draws 64 bits for four values, not for one.

    The same distribution from other random numbers: a value is dropped with probability `p`, rounded to 1/65,536, and
    what is kept is scaled up for that very fraction. torch draws value by value, on one thread, wherever it does not
    use Intel's library.
    """

    def forward(self, values: Tensor) -> Tensor:  # of any shape
        # TorchScript compiles nothing of what stands behind this line.
        if torch.jit.is_scripting() or not self.training or values.device.type != "cpu":
            return F.dropout(values, self.p, self.training)
        return _dropout(values, self.p)


def _dropout(values: Tensor, p: float) -> Tensor:
    dropped = round(p * LEVELS)
    if dropped in (0, LEVELS):
        return F.dropout(values, p)
    draws = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(2**63), None)  # None: to the largest
    kept = torch.empty_like(values, requires_grad=False)  # laid out like values, but without gaps
    levels = draws.view(torch.int16)[: values.numel()].as_strided(kept.shape, kept.stride())
    torch.ge(levels, dropped - LEVELS // 2, out=kept)  # 1 or 0
    return values * kept.mul_(LEVELS / (LEVELS - dropped))


class FoldableNorm(nn.BatchNorm2d):
    """Batch norm that only shifts what it has normalised; of maps [B, C, H, W] or of values [B, C].

    Once trained, it multiplies by numbers above zero, where a scale of its own could be negative. So it commutes with
    taking a maximum, and folds into the layer before it, which has no bias, even across a max-pooling: the same
    function of as many parameters.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_parameter("weight", None)

    def forward(self, values: Tensor) -> Tensor:
        if self.training:
            self.num_batches_tracked.add_(1)
        scale = torch.ones_like(self.bias)  # without one, torch's kernels for CUDA know no gradient of the bias
        averages = self.running_mean, self.running_var
        return F.batch_norm(values, *averages, scale, self.bias, self.training, self.momentum, self.eps)
