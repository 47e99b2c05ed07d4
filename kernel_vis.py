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
from typing import TYPE_CHECKING

import recipes
from fmnist.errors import Refused, run
from fmnist.files import locked
from fmnist.options import Parser, whole

if TYPE_CHECKING:
    from fmnist.data import Sample

HERE = Path(__file__).resolve().parent


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line asks. Raises Refused or Failed; `fmnist.errors.run` puts them into words."""
    options = parse_arguments(argv)
    name, weights = choose_weights(options)
    from fmnist import checkpoints
    from fmnist.data import CLASSES
    from fmnist.figures import album

    content = checkpoints.load_weights(weights)
    if name not in (None, content["model"]):
        raise Refused(f"{weights} holds the network {content['model']}, not {name}; change --model or --weights")
    model = recipes.rebuild(content, weights)
    sample = read_sample(options)
    own = content["recipe"] if content["recipe"] in list(recipes.RECIPES) else "classic"
    titles = {network.name: network.title for network in recipes.RECIPES[own].networks}
    title = titles.get(content["model"], content["model"])
    with locked(options.output_dir / (options.recipe or own)) as folder:
        drawn = album.Album(folder)
        probabilities = album.draw_layers(drawn, model, title, sample, options.layer)
    likeliest = ", ".join(f"{CLASSES[c]} {probabilities[c]:.1%}" for c in (-probabilities).argsort()[:3])
    print(f"prediction of {title} for {sample.title}: {likeliest}")
    print(f"{', '.join(path.name for _, path in drawn.pictures)} are in {folder}")


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


def read_sample(options: argparse.Namespace) -> "Sample":
    """Read the photograph or the test image that is to be shown to the network."""
    from fmnist import data

    if options.image:
        import numpy as np

        from fmnist import photograph

        picture = photograph.read(options.image)
        return data.Sample(photograph.prepare(picture, options.image), options.image.name, np.asarray(picture))
    return data.test_image(data.load(options.data_dir), options.index)


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
