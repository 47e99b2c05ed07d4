"""Which figures a run leaves behind, and from which of its numbers each is drawn."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fmnist.data import CLASSES, FashionMNIST
from fmnist.evaluation import Evaluation
from fmnist.exploration import Exploration
from fmnist.figures import comparisons, curves
from fmnist.figures import dataset as dataset_figures
from fmnist.figures.style import colours

# What a recipe may ask for besides the figures that every recipe has.
EXTRA = {
    "gains": "what each network gained over the one before",
    "cost": "accuracy against parameters, multiply-adds and time",
    "steps": "the losses by step instead of by epoch",
    "layers": "kernels and activation maps of every convolutional network",
    "best layers": "the same of the network that is best on the validation images",
}

Pictures = list[tuple[str, Path]]  # title and place of each


class Album:
    """Draws figures into a folder and remembers their titles and places."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pictures: Pictures = []

    def add(self, file: str, title: str, figure: Callable, *content: Any, **how: Any) -> None:
        """Let `figure` draw `content` under `title`."""
        figure(self.folder / file, *content, title=title, **how)
        self.pictures.append((title, self.folder / file))


def draw_models(
    extra: Sequence[str],
    numbers: Mapping[str, Any],
    evaluations: Mapping[str, Evaluation],
    dataset: FashionMNIST,
    folder: Path,
) -> Pictures:
    """Draw what the networks learnt and where they err: of all on common axes, then of each.

    `numbers` is the content of metrics.json; `extra` names figures of EXTRA.
    """
    if unknown := set(extra) - EXTRA.keys():
        raise ValueError(f"no such figures: {unknown}")
    models = numbers["models"]
    if not models:
        return []
    histories = {name: model["epochs"] for name, model in models.items()}
    titles = {name: model["title"] for name, model in models.items()}
    accuracies = {name: model["test_accuracy"] for name, model in models.items()}
    steps = {name: history[0]["steps"] for name, history in histories.items()} if "steps" in extra else None
    palette = colours(models)
    album = Album(folder)
    album.add("loss_curves.png", "Loss", curves.loss_curves, histories, titles, steps_per_epoch=steps)
    album.add("accuracy_curves.png", "Accuracy", curves.accuracy_curves, histories, accuracies, titles)
    if len(models) > 2:
        known = {name: model["published"].get("test_accuracy") for name, model in models.items()}
        compared = (histories, accuracies, known, titles)
        album.add("model_comparison.png", "Comparison", curves.model_comparison, *compared)
    if "gains" in extra:
        album.add("gains.png", "What each change gained", comparisons.gains, *_gains(models), **_spread(models))
    if "cost" in extra:
        album.add("cost.png", "Accuracy against complexity", comparisons.cost_scatter, _costs(models))
    images = dataset.test_images.cpu().numpy()
    for name, evaluation in evaluations.items():
        own = steps and {name: steps[name]}
        loss = ({name: histories[name]}, titles, palette)
        album.add(f"{name}_loss.png", f"{titles[name]}: loss", curves.loss_curves, *loss, steps_per_epoch=own)
        _draw_answers(album, name, titles[name], evaluation, images)
    return album.pictures


def _draw_answers(album: Album, name: str, title: str, evaluation: Evaluation, images: np.ndarray) -> None:
    """Draw what one network answers to the test images, uint8 [T, 28, 28]: what it takes for what, and examples."""
    confusion = (evaluation.confusion, evaluation.per_class, CLASSES)
    album.add(f"{name}_confusion.png", f"{title}: confusion", curves.confusion_matrix, *confusion)
    shown = (images, evaluation.labels, evaluation.probabilities, CLASSES)
    album.add(f"{name}_examples.png", f"{title}: right and wrong", curves.examples, *shown)
    album.add(f"{name}_correct.png", f"{title}: right", curves.gallery, *shown, correct=True)
    album.add(f"{name}_incorrect.png", f"{title}: wrong", curves.gallery, *shown, correct=False)


def draw_data(found: Exploration, dataset: FashionMNIST, folder: Path) -> Pictures:
    """Draw the data set itself, and what was found of it."""
    images, labels = dataset.train_images.cpu().numpy(), dataset.train_labels.cpu().numpy()
    album = Album(folder)
    counts = (found.train_counts, found.test_counts)
    album.add("class_counts.png", "Images of each class", dataset_figures.class_counts, *counts, CLASSES)
    album.add("samples.png", "The first images of each class", dataset_figures.sample_grid, images, labels, CLASSES)
    album.add(
        "class_means.png", "The mean image of each class", dataset_figures.class_means, found.mean_images, CLASSES
    )
    pixels = (found.histogram, found.mean, found.std)
    album.add("pixel_histogram.png", "Pixels of each grey level", dataset_figures.pixel_histogram, *pixels)
    by_class = (found.class_means, found.class_stds, CLASSES)
    album.add("class_statistics.png", "Pixels of each class", dataset_figures.class_statistics, *by_class)
    title = "Look-alikes: the framed class is nearest to that of its row"
    album.add("look_alikes.png", title, dataset_figures.look_alikes, found.similarity, CLASSES)
    return album.pictures


def networks_to_look_into(extra: Sequence[str], convolutional: Sequence[str], best: str | None) -> list[str]:
    """Return which of the `convolutional` networks a recipe shows the layers of: none, all, or the best."""
    return [name for name in convolutional if "layers" in extra or ("best layers" in extra and name == best)]


def _gains(models: Mapping[str, Any]) -> tuple:
    """What `comparisons.gains` draws: title, accuracy, change and published accuracy of each network."""
    mean = [model.get("mean", model)["test_accuracy"] for model in models.values()]
    published = [model["published"].get("test_accuracy") for model in models.values()]
    return [m["title"] for m in models.values()], mean, [m["change"] for m in models.values()], published


def _spread(models: Mapping[str, Any]) -> dict[str, list[float]]:
    """The deviations over the seeds that `comparisons.gains` draws, where there are several."""
    deviations = [model["std"]["test_accuracy"] for model in models.values() if "std" in model]
    return {"deviations": deviations} if deviations else {}


def _costs(models: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What `comparisons.cost_scatter` draws: a row per network, with the seconds of its average epoch."""
    keys = ("title", "parameters", "multiply_adds")
    measured = {name: model.get("mean", model) for name, model in models.items()}
    return [
        {"name": name, "seconds": measured[name]["seconds_per_epoch"], "test_accuracy": measured[name]["test_accuracy"]}
        | {key: model[key] for key in keys}
        for name, model in models.items()
    ]
