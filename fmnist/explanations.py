"""Why a network answers as it does: which pixels of one image speak for a class, by up to four methods, with captum.

Every method explains the score (logit) of a class, before softmax: a probability near 1 hardly moves, whatever is done
to the image. Networks take bytes, and bytes have no gradient; but every stage that prepares them gives the same for the
same numbers as float32, with a gradient. So the explanations are of the image itself, 28x28 on its scale of 0 to 255,
for any network whose answer to floats is its answer to bytes; `Pixels`, resizing included, is part of the network.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fmnist.activations import hooked
from fmnist.errors import Refused, one_line

WINDOW, STRIDE = 4, 2  # pixels: what occlusion covers at a time, and how far it moves on; 28 is a whole number of moves
FEWEST_STEPS, MOST_STEPS = 64, 128  # from black to the image, at which integrated gradients takes the gradient
INTEGRATED_GRADIENTS = "Integrated gradients"
COMPLETE = 0.02  # an error of integrated gradients that is small, in parts of the largest change of score
AT_ONCE = 128  # images in one pass, to bound the memory


class Method(NamedTuple):
    """What one method makes of an image."""

    name: str
    told: str  # what its maps show, in a line
    maps: np.ndarray  # float32 [R, h, w], one for each of the classes that are explained


class Completed(NamedTuple):
    """Integrated gradients of R classes, and how far they are from complete."""

    method: Method
    errors: np.ndarray  # float32 [R], by which the maps' sums exceed the changes
    changes: np.ndarray  # float32 [R], of the scores from the black image to this one


class Explanation(NamedTuple):
    """Why one image has the scores it has, for several classes."""

    classes: list[int]  # R of them
    methods: list[Method]
    errors: np.ndarray  # float32 [R], by which the maps of integrated gradients miss the changes
    changes: np.ndarray  # float32 [R], of the scores from the black image to this one
    left_out: list[str]  # methods that cannot serve this network, and why

    @property
    def completeness(self) -> str:
        """How complete integrated gradients are, in words."""
        worst, largest = np.abs(self.errors).max(), np.abs(self.changes).max()
        fraction = f" ({worst / largest:.2%})" if largest else ""
        return f"completeness error {worst:.2g} of a change of score of {largest:.3g}{fraction}"


def classes_to_explain(probabilities: np.ndarray, asked: int | None = None) -> list[int]:
    """Return the likeliest class, its runner-up and, where it is neither, the one that is `asked` for."""
    likeliest = np.argsort(-np.asarray(probabilities), kind="stable")[:2].tolist()
    return likeliest if asked is None or asked in likeliest else [*likeliest, asked]


def explain(model: nn.Module, pixels: np.ndarray, classes: Sequence[int]) -> Explanation:
    """Explain the scores that `model` gives to `classes` (0 to 9) for one image, uint8 [28, 28].

    The network is left in eval mode. Raises Refused where it does not take floats for bytes, or passes no gradient
    from its scores to the image.
    """
    model.eval()
    images = torch.from_numpy(pixels)[None].float().repeat(len(classes), 1, 1).requires_grad_()
    _check_gradient(model, torch.from_numpy(pixels)[None], images)
    targets = torch.tensor(classes)
    integrated = integrated_gradients(model, images, targets)
    methods, left_out = [saliency(model, images, targets), integrated.method], []
    if layer := last_maps(model, images):
        methods.append(grad_cam(model, images, targets, layer))
    else:
        left_out.append("Grad-CAM is left out: no convolution has a gradient and maps that tell one place from another")
    methods.append(occlusion(model, images, targets))
    return Explanation(list(classes), methods, integrated.errors, integrated.changes, left_out)


def _check_gradient(model: nn.Module, image: Tensor, images: Tensor) -> None:
    """Raise Refused unless the network's scores are those of the image's bytes, and have a gradient there."""
    try:
        scores = model(images)
        (gradient,) = torch.autograd.grad(scores.sum(), images, allow_unused=True)
    except Exception as error:  # whatever a network of the user's own, which wants bytes, trips over
        raise Refused(f"it does not take the image as floats ({one_line(error, 80)})") from None
    if gradient is None or not gradient.isfinite().all():
        raise Refused("its scores have no finite gradient with respect to the image")
    with torch.no_grad():
        if not torch.allclose(model(image).expand_as(scores), scores, rtol=1e-3, atol=1e-3):
            raise Refused("it answers otherwise to the same image as floats")


def saliency(model: nn.Module, images: Tensor, targets: Tensor) -> Method:
    """Absolute gradient (Simonyan, Vedaldi and Zisserman 2013, arXiv:1312.6034)."""
    from captum.attr import Saliency

    maps = Saliency(model).attribute(images, target=targets, abs=True)
    told = "by how much the score moves with one level (of 255) of each pixel, up or down: the size of the gradient"
    return Method("Saliency", told, maps.detach().numpy())


def integrated_gradients(model: nn.Module, images: Tensor, targets: Tensor) -> Completed:
    """The gradient, averaged on the way from black to the image (Sundararajan, Taly and Yan 2017, arXiv:1703.01365).

    The maps of images [R, 28, 28] add up to what the scores differ from those of the black image, but for an error of
    the finite number of steps: this is doubled until the error is small.
    """
    from captum.attr import IntegratedGradients

    black = torch.zeros_like(images)
    with torch.no_grad():
        changes = (model(images) - model(black)).gather(1, targets[:, None])[:, 0]
    how = {"internal_batch_size": AT_ONCE, "return_convergence_delta": True}
    steps = FEWEST_STEPS
    while True:
        maps, errors = IntegratedGradients(model).attribute(images, black, target=targets, n_steps=steps, **how)
        if steps >= MOST_STEPS or errors.abs().max() <= COMPLETE * changes.abs().max():
            break
        steps *= 2
    told = "what each pixel adds to the score on the way from a black image to this one; all of them, the whole change"
    method = Method(INTEGRATED_GRADIENTS, told, maps.detach().numpy())
    return Completed(method, errors.detach().numpy(), changes.numpy())


def last_maps(model: nn.Module, images: Tensor) -> tuple[str, nn.Module] | None:
    """Return the last layer, with its name, that puts out maps of a convolution: its activation or pooling, if any.

    Maps of a single pixel say nothing of where: so ResNet-18's last block is left out for images of 32x32. Maps that
    the scores have no gradient from, such as an auxiliary head's, say nothing of the scores. None if there is no such
    layer. Of a layer that is used again the last use counts, as it does for captum.
    """
    outputs: dict[nn.Module, Tensor] = {}  # in the order of computation

    def note(_name: str, module: nn.Module, _inputs: tuple, output: Any) -> None:
        outputs.pop(module, None)
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2:].numel() > 1 and output.requires_grad:
            outputs[module] = output

    with hooked(model, note):
        scores = model(images)
    if not outputs:
        return None
    gradients = torch.autograd.grad(scores.sum(), list(outputs.values()), allow_unused=True)
    maps = [module for module, gradient in zip(outputs, gradients, strict=True) if gradient is not None]
    if not any(isinstance(module, nn.Conv2d) for module in maps):
        return None
    names = {module: name for name, module in model.named_modules()}
    return names[maps[-1]], maps[-1]


def grad_cam(model: nn.Module, images: Tensor, targets: Tensor, layer: tuple[str, nn.Module]) -> Method:
    """The maps of a layer, weighted by their mean gradients, added up (Selvaraju et al. 2016, arXiv:1610.02391).

    As they have it, what is below zero is cut off: it speaks for other classes.
    """
    from captum.attr import LayerGradCam

    name, module = layer
    maps = LayerGradCam(model, module).attribute(images, target=targets, relu_attributions=True)[:, 0]
    size = f"{maps.shape[1]}x{maps.shape[2]}"
    told = (
        f"where the last convolution finds what speaks for the class: maps of {name}, {size}, by their mean gradients"
    )
    return Method("Grad-CAM", told, maps.detach().numpy())


def occlusion(model: nn.Module, images: Tensor, targets: Tensor) -> Method:
    """By how much a score falls where a window is covered (Zeiler and Fergus 2013, arXiv:1311.2901).

    A pixel has the mean over the windows that cover it.
    """
    from captum.attr import Occlusion

    how = {"sliding_window_shapes": (WINDOW, WINDOW), "strides": (STRIDE, STRIDE), "perturbations_per_eval": AT_ONCE}
    with torch.no_grad():
        maps = Occlusion(model).attribute(images, target=targets, baselines=0, **how)
    told = f"by how much the score falls when {WINDOW}x{WINDOW} pixels around here are covered with black"
    return Method("Occlusion", told, maps.detach().numpy())
