"""Which figures a run leaves behind, and from which of its numbers each is drawn."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fmnist import activations, explanations, study_results
from fmnist.data import FashionMNIST, Sample
from fmnist.errors import Refused
from fmnist.evaluation import Predictions
from fmnist.explanations import Explanation
from fmnist.exploration import Exploration
from fmnist.figures import comparisons, curves, layers, predictions, studies
from fmnist.figures import dataset as dataset_figures
from fmnist.figures import explanations as explanation_figures
from fmnist.figures.reliability import reliability
from fmnist.files import atomic_write
from fmnist.metrics import Metrics, Model

# What a recipe may ask for besides the figures that every recipe has.
EXTRA = {
    "gains": "what each network gained over the one before",
    "cost": "accuracy against parameters, multiply-adds and time",
    "steps": "the training loss by step, and the validation loss after each epoch",
    "layers": "kernels and activation maps of every convolutional network",
    "best layers": "the same of the network that is best on the validation images",
}
MOST_CURVES = 8  # of a study
# Characters of a photograph's name, and of its ending, that its picture keeps: with them no file name is too long.
LONGEST_NAME, LONGEST_ENDING = 50, 10


class Album:
    """Draws figures into a folder and remembers their titles and places."""

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self.folder = folder
        self.prefix = prefix  # of the files' names
        self.pictures: list[tuple[str, Path]] = []  # title and place of each

    def add(self, file: str, title: str, figure: Callable, *content: Any, **how: Any) -> bool:
        """Let `figure` draw `content` under `title`; return whether it is there.

        A picture that a viewer holds open cannot be replaced on Windows: it is named and left as it was.
        """
        path = self.folder / f"{self.prefix}{file}"
        try:
            figure(path, *content, title=title, **how)
        except PermissionError:
            print(f"{path} cannot be replaced and stays as it was; close the program that shows it, then run again")
            return False
        self.pictures.append((title, path))
        return True

    def from_before(self, *files: str) -> str:
        """Words on those of `files`, now left out, that stand there from before; empty where none does."""
        there = [f"{self.prefix}{file}" for file in files if (self.folder / f"{self.prefix}{file}").exists()]
        return f"; from before, perhaps of another network: {', '.join(there)}" if there else ""

    def keep(self, file: str, name: str) -> None:
        """Copy the picture `file` to NAME.png, or NAME_2.png and so on, which later pictures leave alone.

        The first of these that is free, unless one before it is the same picture.
        """
        content = (self.folder / f"{self.prefix}{file}").read_bytes()
        numbered = (f"{self.prefix}{name}_{number}.png" for number in count(2))
        for path in map(self.folder.joinpath, chain([f"{self.prefix}{name}.png"], numbered)):
            if not path.exists():
                with atomic_write(path) as copy:
                    copy.write(content)
                return
            if _holds(path, content):
                return


def _holds(path: Path, content: bytes) -> bool:
    """Whether the file has this content; not if another program keeps it from being read."""
    try:
        return path.read_bytes() == content
    except PermissionError:
        return False


# The data set


def draw_dataset(album: Album, exploration: Exploration, dataset: FashionMNIST) -> None:
    """Draw the data set itself, and its statistics."""
    images, labels = dataset.train_images.cpu().numpy(), dataset.train_labels.cpu().numpy()
    album.add("class_counts.png", "Images per class", dataset_figures.class_counts, exploration)
    album.add("samples.png", "First images of each class", dataset_figures.sample_grid, images, labels)
    album.add("class_means.png", "Mean image of each class", dataset_figures.class_means, exploration)
    album.add("pixel_histogram.png", "Histogram of the pixels", dataset_figures.pixel_histogram, exploration)
    album.add("class_statistics.png", "Pixel statistics of each class", dataset_figures.class_statistics, exploration)
    title = "Correlation of the mean images (framed: the most similar other class)"
    album.add("look_alikes.png", title, dataset_figures.look_alikes, exploration)
    if audited := exploration.audit:
        for part, suspected in (("training", audited.train), ("test", audited.test)):
            title = f"Labels of {part} images that look wrong"
            album.add(f"audit_{part}.png", title, dataset_figures.suspects, suspected)
        album.add("audit_pairs.png", "Images that nearly come twice", dataset_figures.near_pairs, audited.pairs)


# Trained networks


def draw_models(album: Album, extra: Sequence[str], metrics: Metrics, predicted: Mapping[str, Predictions]) -> None:
    """Draw the networks' trainings and scores on common axes; then, of each, what it `predicted` of the test images.

    `extra` names figures of EXTRA. Raises ValueError for one that is not there.
    """
    if unknown := set(extra) - EXTRA.keys():
        raise ValueError(f"no such figures: {unknown}")
    models = metrics["models"]
    if not models:
        return
    chosen = ""
    if "study" in metrics:
        draw_study(album, metrics)
        models = best_of_study(metrics)
        if len(models) < len(metrics["models"]):
            with_baseline = "baseline" in metrics["study"]
            what = f"the baseline and the {len(models) - 1}" if with_baseline else f"the {len(models)}"
            chosen = f", {what} best on validation"
    by_step = "steps" in extra
    album.add("loss_curves.png", f"Loss{chosen}", curves.loss_curves, models, by_step=by_step)
    album.add("accuracy_curves.png", f"Accuracy{chosen}", curves.accuracy_curves, models)
    if len(models) > 2:
        album.add("model_comparison.png", f"Loss and accuracy compared{chosen}", curves.model_comparison, models)
        title, effects = f"Test accuracy compared{chosen}", metrics["effects"]
        album.add("accuracy_comparison.png", title, comparisons.accuracy_comparison, models, effects=effects)
    if "gains" in extra:
        album.add("gains.png", "Test accuracy gained by each change", comparisons.gains, models)
    if "cost" in extra:
        album.add("cost.png", "Test accuracy against complexity", comparisons.cost_scatter, models)
    for name, shown in predicted.items():
        title = f"{models[name]['title']}: loss"
        album.add(f"{name}_loss.png", title, curves.loss_curves, models, only=name, by_step=by_step)
        _draw_predictions(album, name, models[name], shown)


def draw_study(album: Album, metrics: Metrics) -> None:
    """Draw what each setting of a study does to the accuracy on validation images."""
    study, rows = metrics["study"], study_results.trials(metrics["models"])
    varied = ", ".join(name.replace("_", " ") for name in study["settings"])
    title = metrics["title"] if "baseline" in study else f"Study of {varied}"
    drawn = studies.Study(rows, study["settings"], study["best"], study.get("baseline", ""))
    album.add("study.png", title, studies.draw, drawn)


def best_of_study(metrics: Metrics) -> dict[str, Model]:
    """The combinations whose curves are drawn: the first of the table, as many as curves can be told apart."""
    chosen = [combination.name for combination in study_results.combinations(metrics)[:MOST_CURVES]]
    return {name: model for name, model in metrics["models"].items() if name in chosen}


def _draw_predictions(album: Album, name: str, model: Model, shown: Predictions) -> None:
    """Draw one network's confusion matrix, and examples of its predictions."""
    title, seeds = model["title"], model.get("seeds", ())
    seed = f" (seed {seeds[0]['seed']} of {len(seeds)})" if seeds else ""  # the first one's weights are kept
    confusion = (model["confusion"], model["per_class"])
    album.add(f"{name}_confusion.png", f"{title}: confusion matrix{seed}", predictions.confusion_matrix, *confusion)
    if calibration := model.get("calibration"):
        album.add(
            f"{name}_reliability.png", f"{title}: reliability of its probabilities{seed}", reliability, calibration
        )
    if made := model.get("mistakes"):
        album.add(f"{name}_mistakes.png", f"{title}: its surest mistakes{seed}", predictions.mistakes, shown, made)
    about = f"{title}: correct and incorrect predictions{seed}"
    album.add(f"{name}_examples.png", about, predictions.examples, shown)
    for word in ("correct", "incorrect"):
        about = f"{title}: {word} predictions{seed}"
        album.add(f"{name}_{word}.png", about, predictions.gallery, shown, correct=word == "correct")


# The layers of one network


def networks_to_look_into(extra: Sequence[str], convolutional: Sequence[str], best: str | None) -> list[str]:
    """Return which of the `convolutional` networks a recipe shows the layers of: none, all, or the best."""
    return [name for name in convolutional if "layers" in extra or ("best layers" in extra and name == best)]


def draw_layers(album: Album, model: nn.Module, title: str, sample: Sample, layer: str | None = None) -> np.ndarray:
    """Draw kernels and feature maps of `layer`, and the activations by layer.

    Without a `layer` it is the first convolution; of one that is none the kernels of the convolution before it are
    drawn. A network without convolutions has none of these pictures, which is said in words. Returns the class
    probabilities, float32 [10]. Raises Refused, naming those there are, if there is no such layer.
    """
    stages, probabilities = activations.trace(model, sample.pixels)
    if not all(np.isfinite(values).all() for values in (probabilities, *(stage.maps for stage in stages))):
        raise Refused(f"{title}: its weights make no finite numbers of this image; train it anew")
    if layer is None and not any(stage.source for stage in stages):
        before = album.from_before("kernels_grid.png", "features_grid.png", "progression.png")
        print(
            f"{title} has no convolution: kernels_grid.png, features_grid.png and progression.png are left out{before}"
        )
    else:
        _draw_kernels(album, model, title, sample, choose_stage(title, stages, layer))
        drawn = [stage for stage in stages if activations.is_worth_drawing(model, stage)]
        about = f"{title}: activations by layer, {sample.title}"
        album.add("progression.png", about, layers.progression, sample.pixels, drawn, probabilities)
    return probabilities


def draw_photograph(album: Album, title: str, sample: Sample, probabilities: np.ndarray, doubt: str | None) -> None:
    """Draw what a user's photograph became, step by step, its likeliest classes, and what makes either doubtful."""
    about, remarks = f"{sample.title}: prediction of {title}", [text for text in (sample.warning, doubt) if text]
    if album.add("photograph.png", about, layers.photograph, sample.steps, probabilities, remarks):
        album.keep("photograph.png", f"photograph_{_shortened(sample.title)}")


def _draw_kernels(album: Album, model: nn.Module, title: str, sample: Sample, shown: activations.Stage) -> None:
    """Draw the maps of a stage, and the kernels of its convolution."""
    kernels = activations.module_of(model, shown.source).weight.detach().cpu().numpy()
    own = kernels.mean(axis=1) if shown.name == shown.source else None
    album.add("kernels_grid.png", f"{title}: kernels of {shown.source}", layers.kernels_grid, kernels)
    about = f"{title}: feature maps of {shown.name}, {sample.title}"
    album.add("features_grid.png", about, layers.features_grid, sample.pixels, shown.maps, own)


def draw_explanation(
    album: Album, model: nn.Module, title: str, sample: Sample, asked: int | None = None
) -> Explanation | None:
    """Draw why the network's likeliest class, its runner-up and the class `asked` for (0 to 9) have their scores.

    Returns what is drawn; None, after a word on why, for a network that cannot be explained.
    """
    _, probabilities = activations.trace(model, sample.pixels)
    try:
        explained = explanations.explain(model, sample.pixels, explanations.classes_to_explain(probabilities, asked))
    except Refused as why:
        print(f"explanation.png is left out: {title}: {why}{album.from_before('explanation.png')}")
        return None
    about = f"{title}: explanation, {sample.title}"
    album.add("explanation.png", about, explanation_figures.explanation, sample.pixels, explained, probabilities)
    print(f"integrated gradients: {explained.completeness}", *explained.left_out, sep="\n")
    return explained


def _shortened(file: str) -> str:
    """The name of a file, with its ending, in no more than 50 characters."""
    stem, ending = Path(file).stem, Path(file).suffix[:LONGEST_ENDING]
    return stem[: LONGEST_NAME - len(ending)] + ending


def choose_stage(title: str, stages: Sequence[activations.Stage], layer: str | None) -> activations.Stage:
    """Return the stage named `layer`, or the first convolution. Raises Refused if there is none."""
    convolutional = [stage for stage in stages if stage.source]
    if not convolutional:
        raise Refused(f"{title} has no convolution to draw; name the weights of a CNN with --weights")
    if layer is None:
        return convolutional[0]
    named = {stage.name: stage for stage in stages}
    if layer not in named:
        raise Refused(f"--layer {layer}: {title} has {', '.join(named)}")
    stage = named[layer]
    return stage if stage.source else stage._replace(source=convolutional[0].name)
