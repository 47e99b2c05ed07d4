"""The feed-forward network: 784 pixels, hidden layers, ten classes."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from fmnist.layers import MEAN, STD, Dropout, FoldableNorm, Pixels


class FFN(nn.Sequential):
    """Linear layers with ReLU and dropout between them.

    Maps images, uint8 [B, 28, 28], to logits [B, 10]. By default, with 203,530 parameters:

        pixels    Pixels   [B, 1, 28, 28]
        flatten   Flatten  [B, 784]
        linear1   Linear   [B, 256]
        relu1     ReLU     [B, 256]
        dropout1  Dropout  [B, 256]
        output    Linear   [B, 10]

    Raises ValueError, in words for the user, if a layer has no units.

    hidden     units of each hidden layer
    dropout    fraction of the values that is dropped after each hidden layer
    norm       batch norm "before" the ReLU of each hidden layer, or "foldable": there too, but without a scale, and in
               place of the linear layer's bias; or None
    mean, std  of the pixels, on the 0..1 scale: see `Pixels`
    """

    def __init__(
        self,
        hidden: Sequence[int] = (256,),
        dropout: float = 0.2,
        norm: Literal["before", "foldable"] | None = None,
        mean: float = MEAN,
        std: float = STD,
    ) -> None:
        if any(units < 1 for units in hidden):
            raise ValueError("a hidden layer needs at least one unit")
        layers: OrderedDict[str, nn.Module] = OrderedDict(pixels=Pixels(mean, std), flatten=nn.Flatten())
        widths = [28 * 28, *hidden]
        for number, (inputs, units) in enumerate(zip(widths, hidden, strict=False), start=1):
            layers[f"linear{number}"] = nn.Linear(inputs, units, bias=norm != "foldable")  # [B, units]
            if norm:
                layers[f"norm{number}"] = (FoldableNorm if norm == "foldable" else nn.BatchNorm1d)(units)
            layers[f"relu{number}"] = nn.ReLU()
            layers[f"dropout{number}"] = Dropout(dropout)
        layers["output"] = nn.Linear(widths[-1], 10)  # [B, 10]
        super().__init__(layers)

    def forward(self, images: Tensor) -> Tensor:  # uint8 [B, 28, 28] -> logits [B, 10]
        for layer in self:
            images = layer(images)
        return images
