"""Scores against counts made by hand, and what metrics.json collects of them."""

import math

import numpy as np
import pytest
import torch

from fmnist import metrics
from fmnist.data import FashionMNIST, split
from fmnist.evaluation import confusion_and_per_class, evaluate
from recipes import RECIPES


class Oracle:
    """A learner that reads its answer from the first pixel of each image, and its certainty from the second."""

    def log_probabilities(self, images: torch.Tensor) -> torch.Tensor:
        sure = images[:, 0, 1].double() / 256
        scores = ((1 - sure) / 9)[:, None].repeat(1, 10)
        scores[torch.arange(len(images)), images[:, 0, 0].long()] = sure
        return scores.log().float()


def images_that_say(answers: np.ndarray, sure: int = 200) -> torch.Tensor:
    images = torch.zeros(len(answers), 28, 28, dtype=torch.uint8)
    images[:, 0, 0] = torch.from_numpy(answers)
    images[:, 0, 1] = sure
    return images


def made_up(train: int, test: int, right: float = 0.7) -> tuple[FashionMNIST, np.ndarray, np.ndarray]:
    """A data set, and what the oracle answers on its training and test images."""
    random = np.random.default_rng(8)
    labels = random.integers(0, 10, train + test)
    answers = np.where(random.random(train + test) < right, labels, random.integers(0, 10, train + test))
    images = images_that_say(answers)
    truth = torch.from_numpy(labels)
    dataset = FashionMNIST(images[:train], truth[:train], images[train:], truth[train:], "made up")
    return dataset, answers[:train], answers[train:]


# Scores


def test_accuracies_loss_and_confusion_are_as_counted_by_hand():
    dataset, train_answers, answers = made_up(2300, 610)  # more than one batch, the last of them ragged
    learnt, held_out = split(2300, 0.1, seed=3)
    scored = evaluate(Oracle(), dataset, learnt)

    labels = dataset.test_labels.numpy()
    right = sum(int(a == b) for a, b in zip(answers, labels, strict=True))
    assert scored.test_accuracy == right / 610
    assert (scored.predictions.classes == answers).all()
    sure = 200 / 256
    loss = -(right * math.log(sure) + (610 - right) * math.log((1 - sure) / 9)) / 610
    assert scored.test_loss == pytest.approx(loss, rel=1e-6)

    chosen = learnt[:2000].numpy()
    assert not set(chosen.tolist()) & set(held_out.tolist()), "what is held out is not training"
    subset_right = sum(int(train_answers[i] == dataset.train_labels[i]) for i in chosen)
    assert scored.train_subset_accuracy == subset_right / 2000
    assert scored.mean_accuracy == (right + subset_right) / 2610

    counted = [[0] * 10 for _ in range(10)]
    for true, given in zip(labels, answers, strict=True):
        counted[true][given] += 1
    assert scored.confusion.tolist() == counted
    np.testing.assert_allclose(scored.probabilities.sum(axis=1), 1, rtol=1e-5)
    assert scored.probabilities.dtype == np.float32


def test_mean_accuracy_pools_the_images_and_is_no_mean_of_the_two_accuracies():
    dataset, _, _ = made_up(50, 10)
    dataset = dataset._replace(train_labels=dataset.train_images[:, 0, 0].long())  # all 50 right
    dataset = dataset._replace(test_labels=(dataset.test_images[:, 0, 0].long() + 1) % 10)  # none of 10 right
    scored = evaluate(Oracle(), dataset, torch.arange(50))
    assert (scored.train_subset_accuracy, scored.test_accuracy) == (1, 0)
    assert scored.mean_accuracy == 50 / 60


def test_the_training_subset_is_chosen_by_the_seed():
    dataset, answers, _ = made_up(2300, 10)
    right = (torch.from_numpy(np.asarray(answers)) == dataset.train_labels).double()
    for seed in (0, 1):
        learnt, _ = split(2300, 0, seed)
        expected = float(right[learnt[:2000]].mean())
        assert evaluate(Oracle(), dataset, learnt).train_subset_accuracy == pytest.approx(expected)
    assert not torch.equal(split(2300, 0, 0)[0][:2000], split(2300, 0, 1)[0][:2000])


def test_per_class_figures_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2, 3])
    given = np.array([0, 0, 1, 2, 1, 0, 2, 2, 2])
    confusion, per_class = confusion_and_per_class(labels, given)
    assert confusion[:4, :4].tolist() == [[2, 1, 1, 0], [1, 1, 0, 0], [0, 0, 2, 0], [0, 0, 1, 0]]
    assert confusion.sum() == 9
    assert per_class["precision"] == pytest.approx([2 / 3, 1 / 2, 2 / 4, *[0] * 7])
    assert per_class["recall"] == pytest.approx([2 / 4, 1 / 2, 2 / 2, *[0] * 7])
    assert per_class["f1"] == pytest.approx([4 / 7, 1 / 2, 4 / 6, *[0] * 7])


# metrics.json


def test_what_metrics_collects():
    recipe = RECIPES["classic"]
    history = [
        {"train_loss": 0.9, "seconds": 1.5, "images_per_second": 10.0},
        {"train_loss": 0.5, "seconds": 2.0, "images_per_second": 20.0},
    ]
    dataset, _, _ = made_up(40, 30)
    scored = evaluate(Oracle(), dataset, torch.arange(len(dataset.train_images)))
    trained = {
        network.name: [
            metrics.Trained(network.with_seed(seed), history, scored, {"parameters": 5, "multiply_adds": 6})
            for seed in (4, 5)
        ]
        for network in recipe.networks
    }
    numbers = metrics.collect(recipe, trained, None, "made up", {"device": "cpu", "precision": "fp32"})
    assert (numbers["recipe"], numbers["seed"], numbers["device"], numbers["precision"]) == (
        "classic",
        4,
        "cpu",
        "fp32",
    )
    assert numbers["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    cnn = numbers["models"]["cnn"]
    assert cnn["published"] == recipe.networks[1].published
    assert (cnn["parameters"], cnn["multiply_adds"], cnn["training_seconds"]) == (5, 6, 3.5)
    assert cnn["seconds_per_epoch"] == 3.5 / len(cnn["epochs"])
    assert (cnn["train_loss"], cnn["epochs"]) == (0.5, history)
    assert cnn["test_accuracy"] == scored.test_accuracy
    assert cnn["confusion"] == scored.confusion.tolist()
    assert [run["seed"] for run in cnn["seeds"]] == [4, 5]
    assert cnn["mean"]["test_accuracy"] == pytest.approx(scored.test_accuracy)
    assert cnn["std"]["test_accuracy"] == 0
    (comparison,) = numbers["comparisons"]
    assert (comparison["a"], comparison["b"], comparison["n"]) == ("ffn", "cnn", 2)
    assert numbers["best"] is None
    assert "best_epoch" not in cnn, "nothing was held out"


def test_the_best_network_and_epoch_are_chosen_on_validation():
    dataset, _, _ = made_up(40, 30)
    scored = evaluate(Oracle(), dataset, torch.arange(len(dataset.train_images)))

    def runs(*curves: list[float]) -> list[metrics.Trained]:
        epoch = {"train_loss": 0.5, "validation_loss": 0.5, "seconds": 1.0}
        histories = [[epoch | {"validation_accuracy": accuracy} for accuracy in curve] for curve in curves]
        return [metrics.Trained(RECIPES["classic"].networks[0], history, scored, {}) for history in histories]

    # The FFN ends higher, the CNN was higher; a second seed has no weights that are kept, and so no say.
    trained = {"ffn": runs([0.5, 0.7, 0.8], [0.2, 0.99, 0.1]), "cnn": runs([0.5, 0.9, 0.6], [0.3, 0.2, 0.1])}
    numbers = metrics.collect(RECIPES["classic"], trained, None, "made up", {"device": "cpu", "precision": "fp32"})
    assert numbers["best"] == "cnn"
    ffn = numbers["models"]["ffn"]
    assert (ffn["best_epoch"], ffn["mean"]["best_epoch"]) == (3, 2.5)
    assert [row.get("best") for row in ffn["epochs"]] == [None, None, True]
