"""What of its accuracy does a network keep on photographs? Test images disguised as such; prints Markdown.

    python -m benchmarks.photographs outputs/classic/cnn.pth                  500 images; most of an hour
    python -m benchmarks.photographs outputs/classic/cnn.pth --images 50      a look; five minutes

Each test image is placed, enlarged, on a ground, with a shadow, noise or things beside it, and prepared by
fmnist/photograph.py as a user's photograph is. The disguises are those of tests/helpers/garments.py; by the known
ones the constants of fmnist/garment.py were set, by the others they were judged; docs/testing.md has the exceptions.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import ROOT, table
from fmnist import checkpoints, data, options, photograph, tables
from fmnist.errors import Refused, run_main
from recipes import RECIPES
from tests.helpers import garments

EMPTY = np.zeros((28, 28), np.uint8)  # in the place of a photograph in which no garment is found


def photographed(images: np.ndarray, disguise: garments.Disguise) -> np.ndarray:
    """Disguise uint8 images [N, 28, 28], each by draws of its own, and prepare the photographs: uint8 [N, 28, 28]."""
    return np.stack([_prepared(image, disguise, np.random.default_rng(n)) for n, image in enumerate(images)])


def _prepared(image: np.ndarray, disguise: garments.Disguise, random: np.random.Generator) -> np.ndarray:
    picture = garments.disguised(image, disguise, random)
    if picture.mode == "RGBA":
        picture = photograph.on_plain(picture).convert("RGB")
    try:
        return photograph.prepare(picture).pixels
    except Refused:
        return EMPTY


@torch.inference_mode()
def accuracy(model: torch.nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """The fraction of uint8 images [N, 28, 28] whose class `model` tells."""
    return float(np.mean(model.eval()(torch.from_numpy(images)).argmax(dim=1).numpy() == labels))


def rows(model: torch.nn.Module, images: np.ndarray, labels: np.ndarray) -> list[list[str]]:
    """A row for every disguise: the accuracy on such photographs, and what part it is of that on the images."""
    plain, rows = accuracy(model, images, labels), []
    for known, disguises in (("yes", garments.KNOWN), ("no", garments.HELD_OUT)):
        for name, disguise in disguises.items():
            own = accuracy(model, photographed(images, disguise), labels)
            rows.append([name, known, f"{own:.1%}", f"{own / plain:.1%}" if plain else tables.NOTHING])
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Disguise, prepare, classify and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.photographs", description=__doc__.partition("\n")[0])
    parser.add_argument("weights", type=Path, help="weights of a network of the recipes, such as cnn.pth")
    parser.add_argument("--data-dir", type=Path, default=ROOT / "data", help="where the data set is [data]")
    parser.add_argument("--images", type=options.whole(1, 10_000), default=500, help="so many test images [500]")
    asked = parser.parse_args(argv)
    networks = [network for recipe in RECIPES.values() for network in recipe.networks]
    model, content = checkpoints.rebuild(asked.weights, networks)
    dataset = data.load_release(asked.data_dir.resolve(), content["release"], log=lambda _: None)
    images, labels = dataset.test_images[: asked.images].numpy(), dataset.test_labels[: asked.images].numpy()
    correct = accuracy(model, images, labels)
    print(f"{content['title']}, {len(images)} test images, of which it classifies {correct:.1%} correctly:\n")
    print(table(["photographed", "known", "accuracy", "kept"], rows(model, images, labels)))


if __name__ == "__main__":
    sys.exit(run_main(main))
