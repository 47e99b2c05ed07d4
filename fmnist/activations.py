"""What every layer of a network makes of an image, read with forward hooks: any network, as it is."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

STAGES = (nn.Conv2d, nn.ReLU, nn.LeakyReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)  # worth a picture each


class Stage(NamedTuple):
    """One layer and what it put out for one image."""

    name: str  # of the module; a module that is used again has " (2)" behind its name
    kind: str  # in words, e.g. "Conv2d 3x3"
    maps: np.ndarray  # float32 [C, h, w]
    source: str  # name of the last stage, this one included, that is a convolution; empty before the first


def module_of(model: nn.Module, name: str) -> nn.Module:
    """Return the module of `model` that put out the stage called `name`."""
    return model.get_submodule(name.split(" (")[0])


def leaves(model: nn.Module) -> dict[str, nn.Module]:
    """Return, by name, the modules that have no others in them; what makes a weight (weight norm does) is none."""
    return {
        name: module
        for name, module in model.named_modules()
        if "parametrizations" not in name.split(".")
        and all(child == "parametrizations" for child, _ in module.named_children())
    }


def trace(model: nn.Module, pixels: np.ndarray) -> tuple[list[Stage], np.ndarray]:
    """Pass one image, uint8 [28, 28] as the data set has it, through `model` in eval mode.

    Returns every output of a leaf module that is a stack of maps, in the order of computation, and the class
    probabilities, float32 [10].
    """
    stages: list[Stage] = []
    calls: dict[str, int] = {}

    def record(name: str):
        def hook(module: nn.Module, _inputs: tuple, output: Tensor) -> None:
            if isinstance(output, Tensor) and output.dim() == 4:
                calls[name] = calls.get(name, 0) + 1
                called = name + (f" ({calls[name]})" if calls[name] > 1 else "")
                before = stages[-1].source if stages else ""
                source = called if isinstance(module, nn.Conv2d) else before
                # A later layer may work in place (ResNet's ReLU does): keep a copy.
                maps = output[0].detach().float().cpu().clone().numpy()
                stages.append(Stage(called, _in_words(module), maps, source))

        return hook

    handles = [module.register_forward_hook(record(name)) for name, module in leaves(model).items()]
    try:
        with torch.inference_mode():
            scores = model.eval()(torch.from_numpy(pixels)[None])
    finally:
        for handle in handles:
            handle.remove()
    return stages, scores.float().softmax(dim=1)[0].cpu().numpy()


def is_worth_drawing(model: nn.Module, stage: Stage) -> bool:
    """Whether a stage changes what there is to see: convolution, activation and pooling do, dropout does not."""
    return isinstance(module_of(model, stage.name), STAGES)


def _in_words(module: nn.Module) -> str:
    size = getattr(module, "kernel_size", None)
    height, width = size if isinstance(size, tuple) else (size, size)
    kind = nn.Conv2d if isinstance(module, nn.Conv2d) else type(module)
    return kind.__name__ + (f" {height}x{width}" if size else "")
