"""What every layer of a network makes of an image, read with forward hooks: any network, as it is."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

STAGES = (nn.Conv2d, nn.ReLU, nn.LeakyReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)  # worth a picture each


class Stage(NamedTuple):
    """One layer and what it put out for one image."""

    name: str  # of the module; a module that is used again has " (2)" behind its name
    kind: str  # in words, e.g. "Conv2d 3x3"
    maps: Tensor  # float32 [C, h, w]


def convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    """All convolutions of `model` by name, from the image on."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}


def trace(model: nn.Module, image: Tensor) -> tuple[list[Stage], Tensor]:
    """Pass one image, uint8 [1, 28, 28], through `model` in eval mode.

    Returns every output of a leaf module that is a stack of maps, in the order of computation, and the class
    probabilities, float32 [10].
    """
    stages: list[Stage] = []
    calls: dict[str, int] = {}

    def record(name: str):
        def hook(module: nn.Module, _inputs: tuple, output: Tensor) -> None:
            if output.dim() == 4:
                calls[name] = calls.get(name, 0) + 1
                again = f" ({calls[name]})" if calls[name] > 1 else ""
                # A later layer may work in place (ResNet's ReLU does): keep a copy.
                stages.append(Stage(name + again, _in_words(module), output[0].detach().float().cpu().clone()))

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(record(name)) for name, module in leaves]
    try:
        with torch.inference_mode():
            probabilities = model.eval()(image).float().softmax(dim=1)[0].cpu()
    finally:
        for handle in handles:
            handle.remove()
    return stages, probabilities


def is_worth_drawing(model: nn.Module, stage: Stage) -> bool:
    """Whether a stage changes what there is to see: convolution, activation and pooling do, dropout does not."""
    return isinstance(model.get_submodule(stage.name.split(" ")[0]), STAGES)


def _in_words(module: nn.Module) -> str:
    size = getattr(module, "kernel_size", None)
    height, width = size if isinstance(size, tuple) else (size, size)
    kind = nn.Conv2d if isinstance(module, nn.Conv2d) else type(module)
    return kind.__name__ + (f" {height}x{width}" if size else "")
