"""Look inside a trained CNN: its kernels, its feature maps of an image, and the activations layer by layer.

    python kernel_vis.py                              the CNN of the recipe `classic`, on a test image
    python kernel_vis.py --index 7                    another test image
    python kernel_vis.py --image photograph.jpg       your own photograph of a garment
    python kernel_vis.py --layer features.conv2       the kernels and feature maps of another layer

Reads outputs/RECIPE/NAME.pth, which `python fashionmnist.py RECIPE` writes, draws kernels_grid.png, features_grid.png
and progression.png into outputs/RECIPE, and adds them to its report.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fmnist import options
from fmnist.errors import Refused, leave, run
from fmnist.files import locked
from recipes import RECIPES

if TYPE_CHECKING:
    from fmnist.config import Network
    from fmnist.data import Sample

HERE = Path(__file__).resolve().parent


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line asks. Raises Refused or Failed; `fmnist.errors.run` puts them into words."""
    asked = parse_arguments(argv)
    own = [options.users_own(asked.network)] if asked.network else []
    weights = asked.weights or find_weights(asked, own)
    from fmnist import checkpoints, page, runs
    from fmnist.figures import album

    model, content = checkpoints.rebuild(weights, [*known_networks(), *own])
    if asked.model not in (None, content["model"]):
        raise Refused(f"{weights} holds the network {content['model']}, not {asked.model}; change --model or --weights")
    sample = read_sample(asked, content["release"])
    recipe = asked.recipe or (content["recipe"] if content["recipe"] in RECIPES else "classic")
    with locked(asked.output_dir / recipe) as folder:
        drawn = album.Album(folder)
        probabilities = album.draw_layers(drawn, model, content["title"], sample, asked.layer)
        if weights.parent.resolve() == folder.resolve():  # else the report is of another network
            page.add_figures(folder / "report.html", drawn.pictures)
            runs.note_drawn(folder, drawn.pictures)
    likeliest = ", ".join(f"{content['classes'][c]} {probabilities[c]:.1%}" for c in (-probabilities).argsort()[:3])
    print(f"{content['title']}, {sample.title}: {likeliest}")
    print(f"{', '.join(path.name for _, path in drawn.pictures)} are in {folder}")


def known_networks() -> list["Network"]:
    """Every network of every recipe."""
    return [network for recipe in RECIPES.values() for network in recipe.networks]


def find_weights(asked: argparse.Namespace, own: list["Network"]) -> Path:
    """Return the weights of the network that is asked for: below --output-dir, or else where runs usually write."""
    recipe = asked.recipe or "classic"
    names = [network.name for network in (own or RECIPES[recipe].networks)]
    if asked.model and asked.model not in names:
        raise Refused(f"--model {asked.model}: {recipe} has {', '.join(names) or 'no network'}")
    name = asked.model or first_convolutional(own or RECIPES[recipe].networks, recipe)
    places = [folder / recipe / f"{name}.pth" for folder in (asked.output_dir, HERE / "outputs")]
    weights = next((place for place in places if place.exists()), None)
    if weights is None:
        raise Refused(f"{places[0]} is not there; train it first: python fashionmnist.py {recipe}")
    print(f"weights: {weights}")
    return weights


def first_convolutional(networks: Sequence["Network"], recipe: str) -> str:
    """The name of the first of `networks` that has kernels to show. Raises Refused if there is none."""
    name = next((network.name for network in networks if network.is_convolutional), None)
    if name is None:
        raise Refused(f"{recipe}: no network of it has kernels to show; name another recipe")
    return name


def read_sample(asked: argparse.Namespace, release: str) -> "Sample":
    """Read the photograph, or the test image, of the `release` that the network was trained on, that is to be shown."""
    from fmnist import data

    if not asked.image:
        dataset = data.load(asked.data_dir)
        if dataset.release != release:
            raise Refused(
                f"--data-dir {asked.data_dir}: {data.RELEASES[dataset.release]}, and the network was trained on another"
            )
        return data.test_image(dataset, asked.index or 0)
    import numpy as np

    from fmnist import photograph

    picture = photograph.read(asked.image)
    pixels, warning = photograph.prepare(picture, asked.image)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    return data.Sample(pixels, asked.image.name, np.asarray(picture))


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line. Raises Refused, naming the option, for what cannot be."""
    parser = options.Parser(prog="kernel_vis.py", description="Look inside a trained CNN.")
    add = parser.add_argument
    usual = "whose network to look into [classic, or what --weights belong to]"
    add("recipe", nargs="?", choices=RECIPES, help=usual)
    add("--model", metavar="NAME", help="which of its networks [its first convolutional one]")
    add("--weights", type=Path, metavar="PATH", help="read these weights [NAME.pth of the recipe's last run]")
    add("--network", metavar="FILE.py:CLASS", help="the network is your own, of this class")
    sample = parser.add_mutually_exclusive_group()
    sample.add_argument("--image", type=Path, metavar="PATH", help="show it your own photograph of a garment")
    sample.add_argument("--index", type=options.whole(0, 9_999), metavar="N", help="show it this test image [0]")
    add("--layer", metavar="NAME", help="draw the kernels and feature maps of this layer [the first convolution]")
    options.add_folders(parser, HERE)
    return parser.parse_args(argv)


if __name__ == "__main__":
    leave(run(main))
