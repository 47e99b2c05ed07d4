"""The convolutional networks: CNN, configurable, and ResNet-18 for images of one channel."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from fmnist.layers import MEAN, STD, Dropout, FoldableNorm, Pixels

ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": partial(nn.LeakyReLU, 0.1)}  # its slope below zero
POOLS = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}
DENSE_NORMS = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d}


class CNN(nn.Module):
    """Blocks of convolution, activation and pooling, then dense layers.

    Maps images, uint8 [B, 28, 28], to logits [B, 10]. By default, with 421,642 parameters:

        pixels               Pixels     [B, 1, 28, 28]
        features.conv1       Conv2d     [B, 32, 28, 28]
        features.pool1       MaxPool2d  [B, 32, 14, 14]
        features.relu1       ReLU       [B, 32, 14, 14]
        features.conv2       Conv2d     [B, 64, 14, 14]
        features.pool2       MaxPool2d  [B, 64, 7, 7]
        features.relu2       ReLU       [B, 64, 7, 7]
        classifier.flatten   Flatten    [B, 3136]
        classifier.linear1   Linear     [B, 128]
        classifier.relu1     ReLU       [B, 128]
        classifier.dropout1  Dropout    [B, 128]
        classifier.output    Linear     [B, 10]

    Raises ValueError, in words for the user, where the arguments make no network.

    kernels      number of kernels of each convolution
    kernel_size  their height and width
    padding      pixels around each convolution's input, one number or one each; None keeps the size (odd kernels)
    pool         downsampling: "max", "avg", or "stride", a stride of two in the convolution itself
    pool_after   numbers, from 1, of the convolutions whose maps are downsampled; None is all of them
    dense        units of each hidden layer after the convolutions
    activation   "relu" or "leaky_relu"
    norm         batch norm "before" or "after" each convolution's activation, or "foldable": before it, but after the
                 pooling, where there are fewer values to normalise, without a scale, in place of the convolution's
                 bias, and in the dense layers as well; or None
    identity     whether convolutions start as the identity, and pass their input through until they learn better
    cosines      whether the first convolution does not learn: its kernels are those of `cosine_kernels`, as many as
                 there are, and beyond them what was drawn
    dense_norm   "layer" or "batch" norm after each dense layer's activation, or None
    conv_dropout fraction of the values dropped after each downsampling, and
    dropout      after each dense layer
    mean, std    of the pixels, on the 0..1 scale, and
    size         height and width to which images are resized: see `Pixels`
    """

    def __init__(
        self,
        kernels: Sequence[int] = (32, 64),
        kernel_size: int = 3,
        padding: int | Sequence[int] | None = None,
        pool: Literal["max", "avg", "stride"] = "max",
        pool_after: Sequence[int] | None = None,
        dense: Sequence[int] = (128,),
        activation: Literal["relu", "leaky_relu"] = "relu",
        norm: Literal["before", "after", "foldable"] | None = None,
        identity: bool = False,
        cosines: bool = False,
        dense_norm: Literal["layer", "batch"] | None = None,
        conv_dropout: float = 0.0,
        dropout: float = 0.25,
        mean: float = MEAN,
        std: float = STD,
        size: int = 28,
    ) -> None:
        super().__init__()
        if any(count < 1 for count in (*kernels, kernel_size, *dense)):
            raise ValueError("a layer has no kernels, no units, or kernels without pixels")
        paddings = _per_convolution(padding, len(kernels), kernel_size)
        halved = set(range(1, len(kernels) + 1) if pool_after is None else pool_after)
        foldable = norm == "foldable"
        self.pixels = Pixels(mean, std, size)  # [B, 1, size, size]
        channels = 1
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for n, (width, pad) in enumerate(zip(kernels, paddings, strict=True), start=1):
            stride = 2 if pool == "stride" and n in halved else 1
            pooling = {f"pool{n}": POOLS[pool](2)} if pool != "stride" and n in halved else {}
            # Right before a norm, a bias would be subtracted again.
            conv = nn.Conv2d(channels, width, kernel_size, stride, pad, bias=not foldable)
            if identity:
                nn.init.dirac_(conv.weight.detach()[:channels])
            if cosines and n == 1:
                _fix_cosines(conv)
            layers[f"conv{n}"] = conv  # [B, width, size, size]
            batch_norm = (FoldableNorm if foldable else nn.BatchNorm2d)(width) if norm else None
            layers |= _in_order(n, activation, batch_norm, norm, pooling)
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
            layers[f"linear{n}"] = nn.Linear(inputs, units, bias=not foldable)  # [B, units]
            if foldable:
                layers[f"batch_norm{n}"] = FoldableNorm(units)
            layers[f"{activation}{n}"] = ACTIVATIONS[activation]()
            if dense_norm:
                layers[f"norm{n}"] = DENSE_NORMS[dense_norm](units)
            layers[f"dropout{n}"] = Dropout(dropout)
            inputs = units
        layers["output"] = nn.Linear(inputs, 10)  # [B, 10]
        self.classifier = nn.Sequential(layers)

    def forward(self, images: Tensor) -> Tensor:  # uint8 [B, 28, 28] -> logits [B, 10]
        return self.classifier(self.features(self.pixels(images)))


def _fix_cosines(conv: nn.Conv2d) -> None:
    """Let the kernels of `conv`, of one channel, be cosines, as many as there are, and let none of them learn."""
    basis = cosine_kernels(conv.kernel_size[0])[: conv.out_channels]
    conv.weight.detach()[: len(basis), 0] = basis
    conv.requires_grad_(False)


def cosine_kernels(size: int) -> Tensor:
    """Return the basis of the cosine transform of `size` x `size` pixels, then its negatives: [2 size², size, size].

    The principal components of small patches of images look like it (Ahmed, Natarajan and Rao, "Discrete Cosine
    Transform", 1974), so that kernels which are these need not learn. A ReLU keeps of each but one sign.
    """
    frequency, place = torch.arange(size)[:, None], torch.arange(size)
    waves = nn.functional.normalize(torch.cos(math.pi * frequency * (place + 0.5) / size))  # [size, size]
    basis = torch.einsum("fy,gx->fgyx", waves, waves).flatten(0, 1)
    return torch.cat([basis, -basis])


def _per_convolution(padding: int | Sequence[int] | None, count: int, kernel_size: int) -> list[int]:
    """Return the padding of each of `count` convolutions."""
    if padding is None:
        padding = kernel_size // 2
    paddings = [padding] * count if isinstance(padding, int) else list(padding)
    if len(paddings) != count:
        raise ValueError(f"the padding is laid down for {len(paddings)} convolutions, not for {count}")
    if min(paddings) < 0:
        raise ValueError("a convolution has a padding below 0")
    return paddings


def _in_order(
    n: int, activation: str, batch_norm: nn.Module | None, norm: str | None, pooling: dict[str, nn.Module]
) -> dict[str, nn.Module]:
    """Put what follows a convolution in order: as the network's author has it, or cheaper with the same result."""
    act = {f"{activation}{n}": ACTIVATIONS[activation]()}
    norms = {f"norm{n}": batch_norm} if batch_norm else {}
    if norm == "after":
        return act | norms | pooling
    if norm == "foldable":
        return pooling | norms | act
    if any(isinstance(layer, nn.MaxPool2d) for layer in pooling.values()):
        # A rising function commutes with taking the maximum: the same result from a quarter of the values.
        return norms | pooling | act
    return norms | act | pooling


class ResNet18(nn.Module):
    """torchvision's ResNet-18, untrained, with a first convolution of one channel and ten classes.

    Maps images, uint8 [B, 28, 28], to logits [B, 10]; 11,175,370 parameters. `mean` and `std` of the pixels, on the
    0..1 scale, and the `size` to which images are resized: see `Pixels`.
    """

    def __init__(self, mean: float = MEAN, std: float = STD, size: int = 28) -> None:
        from torchvision.models import resnet18  # takes 170 MB, and only this network needs it

        super().__init__()
        self.pixels = Pixels(mean, std, size)
        network = resnet18(weights=None, num_classes=10)
        for name, layer in network.named_children():
            self.add_module(name, layer)
        first = network.conv1
        self.conv1 = nn.Conv2d(1, first.out_channels, first.kernel_size, first.stride, first.padding, bias=False)
        for block in self.layer4:  # whose maps have 2x2 pixels at the most, and one in the end
            block.conv1, block.conv2 = SmallMapConv2d(block.conv1), SmallMapConv2d(block.conv2)

    def forward(self, images: Tensor) -> Tensor:  # uint8 [B, 28, 28] -> logits [B, 10]
        maps = self.maxpool(self.relu(self.bn1(self.conv1(self.pixels(images)))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))  # [B, 512, 1, 1]
        return self.fc(torch.flatten(self.avgpool(maps), 1))


class SmallMapConv2d(nn.Conv2d):
    """The convolution `other`, in training on the CPU one matrix product where its kernels cover the whole map.

    For square kernels on square maps, without bias, groups or dilation, padded with zeros: what ResNet-18 has.

    A padded 3x3 kernel on a map of 1x1 meets one pixel and eight of padding. The products with padding are left out:
    the same function and the same gradients, and a processor's library need not compute them all.
    """

    def __init__(self, other: nn.Conv2d) -> None:
        size = (other.in_channels, other.out_channels, other.kernel_size, other.stride, other.padding)
        super().__init__(*size, bias=False, device="meta")  # draws no weights of its own
        self.weight = other.weight

    def forward(self, maps: Tensor) -> Tensor:  # [B, in, size, size] -> [B, out, places, places]
        size, reach, stride, padding = maps.shape[-1], self.kernel_size[0], self.stride[0], self.padding[0]
        from_one_place = (size + 2 * padding - reach) // stride == 0 and padding + size <= reach
        if not (from_one_place and torch.is_grad_enabled() and maps.device.type == "cpu"):
            return self._conv_forward(maps, self.weight, self.bias)
        seen = self.weight[:, :, padding : padding + size, padding : padding + size]  # [out, in, size, size]
        return nn.functional.linear(maps.flatten(1), seen.flatten(1))[:, :, None, None]
