"""Show what a trained CNN has learnt: its kernels, what each makes of an image, and the image on its way through.

    python kernel_vis.py                              the CNN of the recipe `classic`, on a test image
    python kernel_vis.py --index 7                    another test image
    python kernel_vis.py --image photograph.jpg       your own photograph of a garment
    python kernel_vis.py --layer features.conv2       the kernels and maps of another layer

Reads outputs/RECIPE/NAME.pth, which `python fashionmnist.py RECIPE` writes, and draws kernels_grid.png,
features_grid.png and progression.png into outputs/RECIPE.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import recipes
from fmnist.errors import Refused, run
from fmnist.files import locked
from fmnist.options import Parser, whole

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from fmnist.data import FashionMNIST

HERE = Path(__file__).resolve().parent


class Sample(NamedTuple):
    """The image that is shown to the network."""

    pixels: "np.ndarray"  # uint8 [28, 28], prepared as the training images are
    title: str
    photograph: "np.ndarray | None"  # uint8 [h, w, 3], the user's picture before it was prepared


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line asks. Raises Refused or Failed; `fmnist.errors.run` puts them into words."""
    options = parse_arguments(argv)
    name, weights = choose_weights(options)
    from fmnist import checkpoints

    content = checkpoints.load_weights(weights)
    if name not in (None, content["model"]):
        raise Refused(f"{weights} holds the network {content['model']}, not {name}; change --model or --weights")
    model = recipes.rebuild(content, weights)
    sample = read_sample(options)
    own = content["recipe"] if content["recipe"] in list(recipes.RECIPES) else "classic"
    with locked(options.output_dir / (options.recipe or own)) as folder:
        pictures = draw(model, content["model"], sample, folder, options.layer)
    print(f"{', '.join(path.name for _, path in pictures)} are in {folder}")


def choose_weights(options: argparse.Namespace) -> tuple[str | None, Path]:
    """Return the network's name, None if the weights will tell, and the file that holds its weights."""
    if options.weights:
        return options.model, options.weights
    recipe = options.recipe or "classic"
    networks = {network.name: network for network in recipes.RECIPES[recipe].networks}
    convolutional = [name for name, network in networks.items() if network.is_convolutional]
    if options.model and options.model not in networks:
        raise Refused(f"--model {options.model}: {recipe} has {', '.join(networks) or 'no network'}")
    if not convolutional:
        raise Refused(f"{recipe} trains no convolutional network; name another recipe")
    name = options.model or convolutional[0]
    if name not in convolutional:
        raise Refused(f"--model {name}: it has no convolution to draw; {', '.join(convolutional)} of this recipe has")
    weights = options.output_dir / recipe / f"{name}.pth"
    if not weights.exists():
        raise Refused(f"{weights} is not there; train it first: python fashionmnist.py {recipe}")
    return name, weights


def read_sample(options: argparse.Namespace) -> Sample:
    """Read the photograph or the test image that is to be shown to the network."""
    from fmnist import data

    if options.image:
        import numpy as np

        from fmnist import photograph

        picture = photograph.read(options.image)
        pixels, warning = photograph.prepare(picture, options.image)
        if warning:
            print(f"warning: {warning}", file=sys.stderr)
        return Sample(pixels, options.image.name, np.asarray(picture))
    return test_image(data.load(options.data_dir), options.index)


def test_image(dataset: "FashionMNIST", index: int) -> Sample:
    """The test image number `index`. Raises Refused if there are not so many."""
    from fmnist.data import CLASSES

    if index >= len(dataset.test_images):
        raise Refused(f"--index {index}: the test images are numbered 0 to {len(dataset.test_images) - 1}")
    true_class = CLASSES[dataset.test_labels[index]]
    return Sample(dataset.test_images[index].cpu().numpy(), f"test image {index}, {true_class}", None)


def draw(
    model: "nn.Module", title: str, sample: Sample, folder: Path, layer: str | None = None, prefix: str = ""
) -> list[tuple[str, Path]]:
    """Draw the kernels and maps of `layer` and the sample on its way through `model`; return titles and places.

    Without a `layer` it is the first convolution. File names begin with `prefix`. Raises Refused, naming those there
    are, if there is no such layer.
    """
    import torch

    from fmnist import activations
    from fmnist.data import CLASSES, normalise
    from fmnist.figures import layers
    from fmnist.figures.album import Album

    stages, probabilities = activations.trace(model, normalise(torch.from_numpy(sample.pixels)[None]))
    likeliest = ", ".join(f"{CLASSES[c]} {probabilities[c]:.1%}" for c in probabilities.argsort(descending=True)[:3])
    layer, source = choose_layer(title, list(activations.convolutions(model)), [stage.name for stage in stages], layer)
    print(f"{title} takes {sample.title} for: {likeliest}")

    kernels = model.get_submodule(source).weight.detach().numpy()
    maps = next(stage.maps.numpy() for stage in stages if stage.name == layer)
    own = kernels.mean(axis=1) if layer == source else None
    album = Album(folder)
    about = f"{title}: the kernels of {source}"
    album.add(f"{prefix}kernels_grid.png", about, layers.kernels_grid, kernels, layer=source)
    about = f"{title}: what {layer} makes of {sample.title}"
    album.add(f"{prefix}features_grid.png", about, layers.features_grid, sample.pixels, maps, own)
    worth = [stage for stage in stages if activations.is_worth_drawing(model, stage)]
    drawn = [(stage.name, stage.kind, stage.maps.numpy()) for stage in worth]
    answer = (probabilities.numpy(), CLASSES)
    about = f"{title}: {sample.title} on its way through the network"
    album.add(f"{prefix}progression.png", about, layers.progression, sample.pixels, drawn, *answer)
    if sample.photograph is not None:
        about = f"{sample.title}, and what {title} makes of it"
        seen = (sample.photograph, sample.pixels)
        album.add(f"{prefix}photograph.png", about, layers.photograph, *seen, *answer)
    return album.pictures


def choose_layer(title: str, convolutions: list[str], layers: list[str], layer: str | None) -> tuple[str, str]:
    """Return which of `layers` to show the maps of, the first convolution if none is named, and the convolution whose
    kernels go with it: itself, or the last before it. Raises Refused if there is no such layer, or no convolution.
    """
    if not convolutions:
        raise Refused(f"{title} has no convolution to draw; name the weights of a CNN with --weights")
    layer = layer or convolutions[0]
    if layer not in layers:
        raise Refused(f"--layer {layer}: {title} has {', '.join(layers)}")
    before = [name for name in layers[: layers.index(layer) + 1] if name in convolutions]
    return layer, before[-1] if before else convolutions[0]


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line. Raises Refused, naming the option, for what cannot be."""
    parser = Parser(prog="kernel_vis.py", description="Show what a trained CNN has learnt.")
    add = parser.add_argument
    usual = "whose network to show [classic, or what --weights belong to]"
    add("recipe", nargs="?", choices=recipes.RECIPES, help=usual)
    add("--model", metavar="NAME", help="which of its networks [its first convolutional one]")
    add("--weights", type=Path, metavar="PATH", help="read these weights [NAME.pth of the recipe's last run]")
    sample = parser.add_mutually_exclusive_group()
    sample.add_argument("--image", type=Path, metavar="PATH", help="show it your own photograph of a garment")
    sample.add_argument("--index", type=whole(0, 9_999), default=0, metavar="N", help="show it this test image [0]")
    add("--layer", metavar="NAME", help="draw the kernels and maps of this layer [the first convolution]")
    add("--data-dir", type=Path, default=HERE / "data", help="where the data set lies, or is to come [data]")
    add("--output-dir", type=Path, default=HERE / "outputs", help="the folder of the recipes' folders [outputs]")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run(main))
