"""What every layer of a network makes of an image, read with forward hooks: any network, as it is."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

STAGES = (nn.Conv2d, nn.ReLU, nn.LeakyReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)  # worth a picture each


class Stage(NamedTuple):
    """One layer and its output for one image."""

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


@contextmanager
def hooked(model: nn.Module, note: Callable[[str, nn.Module, tuple, Any], None]) -> Iterator[None]:
    """Within the context, tell `note` of each call of a leaf of `model`: its name, the module, inputs and output.

    A module that is called again has " (2)" behind its name.
    """
    calls: Counter[str] = Counter()

    def hook(name: str, module: nn.Module, inputs: tuple, output: Any) -> None:
        calls[name] += 1
        note(name if calls[name] == 1 else f"{name} ({calls[name]})", module, inputs, output)

    handles = [module.register_forward_hook(partial(hook, name)) for name, module in leaves(model).items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def trace(model: nn.Module, pixels: np.ndarray) -> tuple[list[Stage], np.ndarray]:
    """Pass one image, uint8 [28, 28] as the data set has it, through `model` in eval mode.

    Returns every output of a leaf module that is a stack of maps, in the order of computation, and the class
    probabilities, float32 [10].
    """
    stages: list[Stage] = []

    def record(name: str, module: nn.Module, _inputs: tuple, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4:
            before = stages[-1].source if stages else ""
            source = name if isinstance(module, nn.Conv2d) else before
            # A later layer may work in place (ResNet's ReLU does): keep a copy.
            maps = output[0].detach().float().cpu().clone().numpy()
            stages.append(Stage(name, _in_words(module), maps, source))

    with hooked(model, record), torch.inference_mode():
        logits = model.eval()(torch.from_numpy(pixels)[None])
    return stages, logits.float().softmax(dim=1)[0].cpu().numpy()


def is_worth_drawing(model: nn.Module, stage: Stage) -> bool:
    """Whether a stage changes what there is to see: convolution, activation and pooling do, dropout does not."""
    return isinstance(module_of(model, stage.name), STAGES)


def _in_words(module: nn.Module) -> str:
    size = getattr(module, "kernel_size", None)
    height, width = size if isinstance(size, tuple) else (size, size)
    kind = nn.Conv2d if isinstance(module, nn.Conv2d) else type(module)
    return kind.__name__ + (f" {height}x{width}" if size else "")
