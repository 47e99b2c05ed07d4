"""The convolutional networks: a configurable CNN, and ResNet-18 for images of one channel."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fmnist.layers import Dropout

ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}
POOLS = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}


class CNN(nn.Module):
    """Blocks of convolution, activation and pooling, then dense layers and the class scores.

    Maps images [B, 1, 28, 28] to scores [B, 10]. The default has 421,642 parameters. Raises ValueError, in words for
    the user, where the arguments make no network.

    kernels      number of kernels of each convolution
    kernel_size  their height and width
    padding      pixels around each convolution's input, one number or one each; None keeps the size (odd kernels)
    pool         what halves the maps: "max", "avg", or "stride", a stride of two in the convolution itself
    pool_after   numbers, from 1, of the convolutions whose maps are halved; None is all of them
    dense        units of each hidden layer after the convolutions
    activation   "relu" or "leaky_relu"
    norm         batch norm "before" or "after" each convolution's activation, or None
    dense_norm   layer norm after each dense layer's activation
    conv_dropout share of the values left out behind each halving, and
    dropout      behind each dense layer
    """

    def __init__(
        self,
        kernels: Sequence[int] = (32, 64),
        kernel_size: int = 3,
        padding: int | Sequence[int] | None = None,
        pool: str = "max",
        pool_after: Sequence[int] | None = None,
        dense: Sequence[int] = (128,),
        activation: str = "relu",
        norm: str | None = None,
        dense_norm: bool = False,
        conv_dropout: float = 0.0,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        if any(size < 1 for size in (*kernels, kernel_size, *dense)):
            raise ValueError("a layer has no kernels, no units, or kernels without pixels")
        paddings = _per_convolution(padding, len(kernels), kernel_size)
        halved = set(range(1, len(kernels) + 1) if pool_after is None else pool_after)
        channels, size = 1, 28
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for n, (width, pad) in enumerate(zip(kernels, paddings, strict=True), start=1):
            stride = 2 if pool == "stride" and n in halved else 1
            pooling = {f"pool{n}": POOLS[pool](2)} if pool != "stride" and n in halved else {}
            layers[f"conv{n}"] = nn.Conv2d(channels, width, kernel_size, stride, pad)  # [B, width, size, size]
            layers |= _in_order(n, activation, nn.BatchNorm2d(width) if norm else None, norm, pooling)
            if conv_dropout and n in halved:
                layers[f"dropout{n}"] = Dropout(conv_dropout)
            channels, size = width, (size + 2 * pad - kernel_size) // stride + 1
            size = size // 2 if pooling else size
            if size < 1:
                raise ValueError(f"the maps shrink to nothing at convolution {n} of {len(kernels)}")
        self.features = nn.Sequential(layers)

        inputs = channels * size * size
        layers = OrderedDict(flatten=nn.Flatten())  # [B, inputs]
        for n, units in enumerate(dense, start=1):
            layers[f"linear{n}"] = nn.Linear(inputs, units)  # [B, units]
            layers[f"{activation}{n}"] = ACTIVATIONS[activation]()
            if dense_norm:
                layers[f"norm{n}"] = nn.LayerNorm(units)
            layers[f"dropout{n}"] = Dropout(dropout)
            inputs = units
        layers["output"] = nn.Linear(inputs, 10)  # [B, 10]
        self.classifier = nn.Sequential(layers)

    def forward(self, images: Tensor) -> Tensor:  # [B, 1, 28, 28] -> [B, 10]
        return self.classifier(self.features(images))


def _per_convolution(padding: int | Sequence[int] | None, count: int, kernel_size: int) -> list[int]:
    """Return the padding of each of `count` convolutions."""
    if padding is None:
        padding = kernel_size // 2
    paddings = [padding] * count if isinstance(padding, int) else list(padding)
    if len(paddings) != count:
        raise ValueError(f"the padding is laid down for {len(paddings)} convolutions, not for {count}")
    return paddings


def _in_order(
    n: int, activation: str, batch_norm: nn.Module | None, norm: str | None, pooling: dict[str, nn.Module]
) -> dict[str, nn.Module]:
    """Put what follows a convolution in order: as the network's author has it, or cheaper with the same result."""
    act = {f"{activation}{n}": ACTIVATIONS[activation]()}
    norms = {f"norm{n}": batch_norm} if batch_norm else {}
    if norm == "after":
        return act | norms | pooling
    if any(isinstance(layer, nn.MaxPool2d) for layer in pooling.values()):
        # A rising function commutes with taking the maximum: the same result from a quarter of the values.
        return norms | pooling | act
    return norms | act | pooling


def resnet18() -> nn.Module:
    """torchvision's ResNet-18, untrained, with a first convolution of one channel and ten classes."""
    from torchvision import models

    network = models.resnet18(weights=None, num_classes=10)
    first = network.conv1
    network.conv1 = nn.Conv2d(1, first.out_channels, first.kernel_size, first.stride, first.padding, bias=False)
    for convolution in (layer for layer in network.layer4.modules() if type(layer) is nn.Conv2d):
        # An image of 28 pixels arrives there as a map of 2x2 and leaves as one pixel.
        convolution.__class__ = SmallMapConv2d
    return network


class SmallMapConv2d(nn.Conv2d):
    """nn.Conv2d that learns from a map which its kernels see whole, from one place, by one matrix product.

    For square kernels on square maps, without groups or dilation, padded with zeros: what ResNet-18 has.

    A padded 3x3 kernel on a map of 1x1 meets one pixel and eight of padding. The products with padding are left out:
    the same function and the same gradients. oneDNN computes them all: a training step of ResNet-18 took 1.40 times as
    long with nn.Conv2d throughout in bf16, and 1.23 times in fp32 (medians of 30 pairs in turns, 2 threads of an AMD
    EPYC with bfloat16, torch 2.14).
    """

    def forward(self, maps: Tensor) -> Tensor:  # [B, in, size, size] -> [B, out, places, places]
        size, (reach, _), (stride, _), (padding, _) = maps.shape[-1], self.kernel_size, self.stride, self.padding
        from_one_place = (size + 2 * padding - reach) // stride == 0 and padding + size <= reach
        if not (from_one_place and torch.is_grad_enabled() and maps.device.type == "cpu" and self.bias is None):
            return super().forward(maps)
        seen = self.weight[:, :, padding : padding + size, padding : padding + size]  # [out, in, size, size]
        return nn.functional.linear(maps.flatten(1), seen.flatten(1))[:, :, None, None]
