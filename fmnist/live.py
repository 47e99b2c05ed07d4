"""live.html: a trained network that runs in a browser, on one page that needs nothing else.

The network is read off its forward pass, as the layers that are called one after the other, and written down in plain
values. fmnist/live_page/ holds the page: layers.js computes what is written here, the other files show it.
"""

import base64
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fmnist.activations import hooked
from fmnist.data import CLASSES, FashionMNIST, Sample
from fmnist.files import write_text
from fmnist.layers import Dropout, FoldableNorm, Pixels
from fmnist.learners import EVALUATION_BATCH
from fmnist.page import environment

if TYPE_CHECKING:
    from fmnist.evaluation import Predictions

SOURCES = Path(__file__).parent / "live_page"
SCRIPTS = ("layers.js", "fields.js", "drawing.js", "picks.js", "maps.js", "sums.js", "page.js")

MOST_PARAMETERS = 6_000_000  # with two bytes each, in base64, a page of 16 MB
MOST_MULTIPLY_ADDS = 1_000_000_000  # per image: seconds, in a browser
MOST_VALUES = 4_000_000  # in all maps together
IMAGES = 200  # on the page, of the test images
MISTAKES = 60  # at most so many of them
PREDICTING = 12_000_000_000  # multiply-adds at most to look for mistakes: about a second
LEVELS = 32767  # of a weight of 16 bits, on either side of zero
TOLERANCE = 1e-4  # by which logits may differ between the network and its layers in sequence: of rounding alone


class Unsupported(Exception):
    """The network cannot run in the page; the message says why, in words for the user."""


def write(path: Path | str, model: nn.Module, sample: Sample, dataset: FashionMNIST | None, title: str) -> None:
    """Write the page of `model`, in eval mode on the CPU, which shows the `sample` first.

    With a `dataset`, 200 of its test images come along, the surest mistakes of the network among them. Raises
    Unsupported if the page cannot run this network, and OSError, naming `path`, if it cannot be written.
    """
    layers = describe(model, sample.pixels)
    images, shown = _shown(model, layers, sample, dataset)
    content = {
        "title": title,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "classes": list(CLASSES),
        "layers": layers,
        "images": _base64(images),
        "shown": shown,
    }
    page = environment().get_template("live_page/page.html.j2")
    text = page.render(title=title, content=content, style=_source("page.css"), scripts=map(_source, SCRIPTS))
    write_text(path, text)


def _source(name: str):
    from markupsafe import Markup

    return Markup((SOURCES / name).read_text("utf-8"))


# The network in plain values


def describe(model: nn.Module, pixels: np.ndarray) -> list[dict[str, Any]]:
    """Return the layers of `model`, in the order in which they are computed, as JSON can hold them.

    Each is {"name", "kind", "input", "output", ...}: shapes without the batch, and what the kind needs. `pixels`, uint8
    [28, 28], is an image to find the order with. Raises Unsupported if there is a layer of another kind than KINDS, if
    more is computed than layer after layer, or if it is too large.
    """
    parameters = sum(weight.numel() for weight in model.parameters())
    if parameters > MOST_PARAMETERS:
        raise Unsupported(f"{parameters:,} parameters, and the page holds {MOST_PARAMETERS:,} at most")
    calls = _calls(model, torch.from_numpy(pixels)[None])
    for name, layer, *_ in calls:
        if type(layer) not in KINDS:
            raise Unsupported(f"{name} is a layer of a kind that the page does not know: {type(layer).__name__}")
    layers = [_described(*call) for call in calls]
    _check_size(layers)
    images = torch.from_numpy(np.stack([pixels, *_noise(3)]))
    _check_sequence(model, [layer for _, layer, *_ in calls], images)
    return layers


def _noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def _calls(model: nn.Module, images: Tensor) -> list[tuple[str, nn.Module, Tensor, Tensor]]:
    """Return name, module, input and output of every leaf module, in the order of their calls."""
    calls: list[tuple[str, nn.Module, Tensor, Tensor]] = []

    def record(name: str, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        calls.append((name or type(module).__name__, module, inputs[0] if inputs else None, output))

    with hooked(model, record), torch.inference_mode():
        model.eval()(images)
    return calls


def _check_sequence(model: nn.Module, layers: Sequence[nn.Module], images: Tensor) -> None:
    """Raise Unsupported unless the layers, one after the other, make the network's own logits of the images."""
    if not layers or type(layers[0]) is not Pixels:
        raise Unsupported("its first layer is not fmnist.layers.Pixels")
    if any(type(layer) is Pixels for layer in layers[1:]):
        raise Unsupported("fmnist.layers.Pixels stands in it more than once")
    try:
        with torch.inference_mode():
            logits, again = model(images), nn.Sequential(*layers)(images)
        same = again.shape == logits.shape and torch.allclose(again, logits, rtol=TOLERANCE, atol=TOLERANCE)
    except MemoryError:
        raise
    except Exception:  # whatever a layer trips over that is handed another's output than in the network
        same = False
    if not same:
        raise Unsupported("it computes more than one layer after the other (a sum of branches, a function in forward)")


def _check_size(layers: Sequence[dict[str, Any]]) -> None:
    work, values = multiply_adds(layers), sum(prod(layer["output"]) for layer in layers)
    if work > MOST_MULTIPLY_ADDS:
        raise Unsupported(f"{work:,} multiply-adds per image, and the page computes {MOST_MULTIPLY_ADDS:,} at most")
    if values > MOST_VALUES:
        raise Unsupported(f"its maps have {values:,} values, and the page shows {MOST_VALUES:,} at most")


def multiply_adds(layers: Sequence[dict[str, Any]]) -> int:
    """Multiply-adds per image of the described `layers`: those of convolutions and linear layers."""
    own = {
        "Conv2d": lambda layer: prod(layer["output"]) * layer["input"][0] * prod(layer["kernel"]),
        "Linear": lambda layer: layer["input"][0] * layer["output"][0],
    }
    return sum(own[layer["kind"]](layer) for layer in layers if layer["kind"] in own)


def _described(name: str, layer: nn.Module, given: Tensor, made: Tensor) -> dict[str, Any]:
    """Describe one layer by the first image's `given` input and `made` output. Raises Unsupported."""
    if not (isinstance(given, Tensor) and isinstance(made, Tensor)):
        raise Unsupported(f"{name} is not handed one tensor, or does not hand on one")
    if made.dim() not in (2, 4):
        raise Unsupported(f"{name} makes neither maps nor a vector, but a tensor of shape {tuple(made.shape[1:])}")
    kind = type(layer).__name__
    common = {"name": name, "kind": kind, "input": list(given.shape[1:]), "output": list(made.shape[1:])}
    try:
        return common | KINDS[type(layer)](layer, common["input"])
    except Unsupported as reason:
        raise Unsupported(f"{name}: {reason}") from None


def _pixels(layer: Pixels, _shape: list[int]) -> dict[str, Any]:
    return {"mean": layer.mean, "std": layer.std, "size": layer.size}


def _convolution(layer: nn.Conv2d, _shape: list[int]) -> dict[str, Any]:
    if layer.groups != 1 or set(layer.dilation) != {1} or layer.padding_mode != "zeros":
        raise Unsupported("a convolution with groups, dilation or padding by other than zeros")
    return {
        "kernel": list(layer.kernel_size),
        "stride": list(layer.stride),
        "padding": _padding(layer),
        **_weights(layer),
    }


def _padding(layer: nn.Conv2d) -> list[int]:
    if layer.padding == "valid":
        return [0, 0]
    if layer.padding != "same":
        return list(layer.padding)
    if any(size % 2 == 0 for size in layer.kernel_size):
        raise Unsupported("a convolution of an even kernel, padded to the same size")
    return [size // 2 for size in layer.kernel_size]


def _linear(layer: nn.Linear, shape: list[int]) -> dict[str, Any]:
    if len(shape) != 1:
        raise Unsupported("a linear layer of maps; flatten them first")
    return _weights(layer)


def _weights(layer: nn.Conv2d | nn.Linear) -> dict[str, Any]:
    """Weights in 16 bits with a scale for each kernel, which keeps 5 to 8 times the precision of float16; the bias."""
    rows = layer.weight.detach().double().flatten(1).numpy()
    scales = np.abs(rows).max(axis=1, keepdims=True) / LEVELS
    scales[scales == 0] = 1
    values = np.rint(rows / scales).astype("<i2")
    bias = np.zeros(len(rows)) if layer.bias is None else layer.bias.detach().numpy()
    return {"weights": _base64(values), "scales": _floats(scales), "bias": _floats(bias)}


def _batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, shape: list[int]) -> dict[str, Any]:
    """Of a trained batch norm remains a factor and a summand for each channel."""
    if layer.running_mean is None:
        raise Unsupported("batch norm by the batch's own mean, which one image has not")
    mean, variance = layer.running_mean.double().numpy(), layer.running_var.double().numpy()
    scale = (1 if layer.weight is None else layer.weight.detach().double().numpy()) / np.sqrt(variance + layer.eps)
    shift = (0 if layer.bias is None else layer.bias.detach().double().numpy()) - mean * scale
    kind = "BatchNorm2d" if len(shape) == 3 else "BatchNorm1d"  # FoldableNorm is either
    return {"kind": kind, "scale": _floats(scale), "shift": _floats(shift)}


def _layer_norm(layer: nn.LayerNorm, shape: list[int]) -> dict[str, Any]:
    if list(layer.normalized_shape) != shape:
        raise Unsupported("layer norm over a part of the values")
    scale = np.ones(shape) if layer.weight is None else layer.weight.detach().numpy()
    shift = np.zeros(shape) if layer.bias is None else layer.bias.detach().numpy()
    return {"eps": layer.eps, "scale": _floats(scale), "shift": _floats(shift)}


def _max_pool(layer: nn.MaxPool2d, _shape: list[int]) -> dict[str, Any]:
    if _pair(layer.dilation) != [1, 1] or layer.return_indices:
        raise Unsupported("max-pooling with dilation or indices")
    return _pool(layer)


def _average_pool(layer: nn.AvgPool2d, _shape: list[int]) -> dict[str, Any]:
    if layer.divisor_override:
        raise Unsupported("average pooling with a divisor of its own")
    return _pool(layer)


def _pool(layer: nn.MaxPool2d | nn.AvgPool2d) -> dict[str, Any]:
    if layer.ceil_mode or _pair(layer.padding) != [0, 0]:
        raise Unsupported("pooling beyond the edge of the maps")
    return {"kernel": _pair(layer.kernel_size), "stride": _pair(layer.stride)}


def _adaptive_pool(layer: nn.AdaptiveAvgPool2d, shape: list[int]) -> dict[str, Any]:
    sizes = [
        before if after is None else after for before, after in zip(shape[1:], _pair(layer.output_size), strict=True)
    ]
    if any(before % after for before, after in zip(shape[1:], sizes, strict=True)):
        raise Unsupported("adaptive pooling to a size that does not divide the maps'")
    step = [before // after for before, after in zip(shape[1:], sizes, strict=True)]
    return {"kind": "AvgPool2d", "kernel": step, "stride": step}


def _pair(value: int | Sequence[int]) -> list[int]:
    return [value, value] if isinstance(value, int) or value is None else list(value)


def _leaky_relu(layer: nn.LeakyReLU, _shape: list[int]) -> dict[str, Any]:
    return {"slope": layer.negative_slope}


def _flatten(layer: nn.Flatten, _shape: list[int]) -> dict[str, Any]:
    if (layer.start_dim, layer.end_dim) not in ((1, -1), (1, 3)):
        raise Unsupported("maps flattened in part")
    return {}


def _nothing(_layer: nn.Module, _shape: list[int]) -> dict[str, Any]:
    return {}


KINDS: dict[type[nn.Module], Callable[[Any, list[int]], dict[str, Any]]] = {
    Pixels: _pixels,
    nn.Conv2d: _convolution,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    FoldableNorm: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveAvgPool2d: _adaptive_pool,
    nn.ReLU: _nothing,
    nn.LeakyReLU: _leaky_relu,
    nn.Flatten: _flatten,
    nn.Linear: _linear,
    nn.Dropout: _nothing,
    nn.Dropout2d: _nothing,
    Dropout: _nothing,
    nn.Identity: _nothing,
}


def _floats(values: np.ndarray) -> str:
    return _base64(np.asarray(values, "<f4"))


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()


# The images on the page


def _shown(
    model: nn.Module, layers: Sequence[dict[str, Any]], sample: Sample, dataset: FashionMNIST | None
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Return the images, uint8 [N, 28, 28], the sample first, and what the page says of each."""
    first = {"title": sample.title, "is_photograph": bool(sample.steps)}
    if dataset is None:
        return sample.pixels[None], [first]
    count = min(len(dataset.test_images), PREDICTING // max(1, multiply_adds(layers)))
    predictions = predict(model, dataset.test_images[:count], dataset.test_labels[:count])
    chosen = choose(predictions)
    images = np.concatenate([sample.pixels[None], predictions.images[chosen]])
    return images, [first, *_facts(predictions, chosen)]


def predict(model: nn.Module, images: Tensor, labels: Tensor) -> "Predictions":
    """Return what `model`, in eval mode, makes of uint8 images [N, 28, 28] with int64 labels [N]."""
    from fmnist.evaluation import Predictions

    with torch.inference_mode():
        logits = torch.cat([model(batch) for batch in images.split(EVALUATION_BATCH)])
    return Predictions(images.numpy(), labels.numpy(), logits.softmax(dim=1).numpy())


def choose(predictions: "Predictions") -> np.ndarray:
    """The indices of at most 200 images: the surest mistakes first, then the first correct ones of each class."""
    sure = np.argsort(-predictions.probabilities.max(axis=1), kind="stable")
    correct = np.flatnonzero(predictions.correct)
    mistakes = sure[~predictions.correct[sure]][: max(MISTAKES, IMAGES - len(correct))]
    labels = predictions.labels[correct]
    turn = np.array([np.count_nonzero(labels[:n] == label) for n, label in enumerate(labels)])  # in its class
    firsts = correct[np.argsort(turn, kind="stable")][: IMAGES - len(mistakes)]
    return np.concatenate([mistakes, firsts[np.argsort(predictions.labels[firsts], kind="stable")]])


def _facts(predictions: "Predictions", chosen: np.ndarray) -> list[dict[str, Any]]:
    own = zip(chosen, predictions.labels[chosen], predictions.classes[chosen], strict=True)
    return [
        {
            "index": int(index),
            "label": int(label),
            "predicted": int(predicted),
            "probability": round(float(predictions.probabilities[index, predicted]), 4),
        }
        for index, label, predicted in own
    ]
