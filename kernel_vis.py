"""Look inside a trained network: its kernels, its feature maps of an image, and why it answers as it does.

    python kernel_vis.py                              the CNN of the recipe `classic`, on a test image
    python kernel_vis.py --index 7                    another test image
    python kernel_vis.py --image photograph.jpg       your own photograph of a garment
    python kernel_vis.py --layer features.conv2       the kernels and feature maps of another layer
    python kernel_vis.py --explain Shirt              why the image is no shirt, beside why it is what it is
    python kernel_vis.py --model ffn                  a network without kernels: the explanation alone

Reads outputs/RECIPE/NAME.pth, which `python fashionmnist.py RECIPE` writes, draws kernels_grid.png, features_grid.png,
progression.png and explanation.png into outputs/RECIPE, and adds them to its report; live.html is a page in which the
network runs.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmnist import options
from fmnist.errors import Refused, at_most, command, leave, run_main
from fmnist.files import locked
from recipes import DEFAULT, RECIPES

if TYPE_CHECKING:
    from torch import nn

    from fmnist.config import Network
    from fmnist.data import FashionMNIST, Sample

HERE = Path(__file__).resolve().parent
MOST_NAMED = 8  # networks of a run, in a sentence


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line asks. Raises Refused or Failed: see `fmnist.errors.run_main`."""
    asked = parse_arguments(argv)
    weights, model, content = load_network(asked)
    from fmnist import calibration, live, page, runs
    from fmnist.figures import album

    explained = class_number(asked.explain, content["classes"])
    sample, dataset = read_sample(asked, content["release"])
    with locked(pictures_folder(asked, weights, content["recipe"])) as folder:
        drawn = album.Album(folder)
        probabilities = album.draw_layers(drawn, model, content["title"], sample, asked.layer)
        doubt = calibration.doubt(probabilities, content.get("temperature"))
        if sample.steps:
            album.draw_photograph(drawn, content["title"], sample, probabilities, doubt)
        album.draw_explanation(drawn, model, content["title"], sample, explained)
        try:
            drawn.add("live.html", f"{content['title']}, live", live.write, model, sample, dataset)
        except live.Unsupported as reason:
            before = drawn.from_before("live.html")
            print(f"live.html is left out: {content['title']} cannot run in a page: {reason}{before}")
        if weights.parent.resolve() == folder.resolve():  # else the report is of another network
            page.add_figures(folder / "report.html", drawn.pictures)
            runs.note_drawn(folder, drawn.pictures)
    likeliest = ", ".join(f"{content['classes'][c]} {probabilities[c]:.1%}" for c in (-probabilities).argsort()[:3])
    print(f"{content['title']}, {sample.title}: {likeliest}")
    if doubt:
        print(doubt)
    print(f"drawn in {folder}: {', '.join(path.name for _, path in drawn.pictures)}")


def load_network(asked: argparse.Namespace) -> "tuple[Path, nn.Module, dict[str, Any]]":
    """Return the weights file that is asked for, the network it makes, and all that the file holds."""
    own = [options.users_own(asked.network)] if asked.network else []
    weights = asked.weights or find_weights(asked, own)
    from fmnist import checkpoints

    model, content = checkpoints.rebuild(weights, [*known_networks(), *own])
    if own and content["config"]["network"]["class"] != own[0].settings["network"]["class"]:
        raise Refused(f"--network {asked.network}: {weights} is of another class; leave it out")
    if asked.model not in (None, content["model"]):
        raise Refused(f"{weights} holds the network {content['model']}, not {asked.model}; change --model or --weights")
    return weights, model, content


def known_networks() -> list["Network"]:
    """Every network of every recipe."""
    return [network for recipe in RECIPES.values() for network in recipe.networks]


def pictures_folder(asked: argparse.Namespace, weights: Path, recipe: str) -> Path:
    """Where pictures go: into the run's folder, if it is one in --output-dir, else into that of the recipe."""
    beside = weights.resolve().parent
    is_run = (beside / "checkpoints" / "run.json").exists()
    is_named_run = is_run and beside.parent == Path(os.path.realpath(asked.output_dir))
    usual = asked.recipe or (beside.name if is_named_run else recipe if recipe in RECIPES else DEFAULT)
    return asked.output_dir / (asked.name or usual)


def find_weights(asked: argparse.Namespace, own: list["Network"]) -> Path:
    """Return the weights of the network that is asked for: below --output-dir, or else where runs usually write."""
    recipe = asked.recipe or DEFAULT
    names = [network.name for network in (own or RECIPES[recipe].networks)]
    name = asked.model or network_to_show(own or RECIPES[recipe].networks, recipe)
    run = asked.name or recipe
    places = [folder / run / f"{name}.pth" for folder in (asked.output_dir, HERE / "outputs")]
    weights = next((place for place in places if place.exists()), None)
    if weights is None:
        others = sorted(path.stem for path in places[0].parent.glob("*.pth"))
        if others and not asked.network:
            there = ", ".join(at_most(MOST_NAMED, others))
            raise Refused(f"{places[0]} is not there; that run has {there}: name one by --model")
        if asked.model and asked.model not in names and not asked.name:
            raise Refused(f"--model {asked.model}: {recipe} has {', '.join(names) or 'no network'}")
        named = (("--network", asked.network), ("--name", asked.name))
        words = [recipe, *(word for option, value in named if value for word in (option, value))]
        raise Refused(f"{places[0]} is not there; train it first: {command('fashionmnist.py', *words)}")
    print(f"weights: {weights}")
    return weights


def network_to_show(networks: Sequence["Network"], recipe: str) -> str:
    """The name of the first of `networks` that has kernels to show, or else of the first. Raises Refused if none is."""
    if not networks:
        raise Refused(f"{recipe}: has no network to look into; name another recipe")
    if len(networks) == 1:  # which need not be built without its arguments, which the weights know
        return networks[0].name
    return next((network for network in networks if network.is_convolutional), networks[0]).name


def class_number(asked: str | None, classes: Sequence[str]) -> int | None:
    """The number of the class that --explain asks for by its name or number. Raises Refused if there is none."""
    if asked is None:
        return None
    named = {name.lower(): number for number, name in enumerate(classes)}
    named |= {str(number): number for number in range(len(classes))}
    if asked.strip().lower() not in named:
        raise Refused(f"--explain {asked}: the classes are {', '.join(classes)}, or their numbers 0 to 9")
    return named[asked.strip().lower()]


def read_sample(asked: argparse.Namespace, release: str) -> "tuple[Sample, FashionMNIST | None]":
    """Read the photograph, or the test image, of the `release` that the network was trained on, that is to be shown.

    With the data set it is of; with a photograph, that one if it lies on this machine, else None.
    """
    from fmnist import data

    if not asked.image:
        dataset = data.load_release(asked.data_dir, release)
        return data.test_image(dataset, asked.index or 0), dataset
    from fmnist import photograph

    picture = photograph.read(asked.image)
    prepared = photograph.prepare(picture, asked.image)
    if prepared.warning:
        print(f"warning: {prepared.warning}", file=sys.stderr)
    sample = data.Sample(prepared.pixels, asked.image.name, prepared.steps, prepared.warning)
    return sample, data_set_here(asked, release)


def data_set_here(asked: argparse.Namespace, release: str) -> "FashionMNIST | None":
    """The data set of this `release`, where it can be had without fetching it."""
    from fmnist import data

    try:
        dataset = data.load(asked.data_dir, log=lambda _: None, fetch=False)
    except Refused:
        return None
    return dataset if dataset.release == release else None


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line. Raises Refused, naming the option, for what cannot be."""
    parser = options.Parser(prog="kernel_vis.py", description="Look inside a trained network.")
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
    add("--explain", metavar="CLASS", help="explain this class's score too, by name or number [the two likeliest]")
    options.add_folders(parser, HERE)
    return parser.parse_args(argv)


if __name__ == "__main__":
    leave(run_main(main))
