"""Scores against counts made by hand, and against the saved weights in plain PyTorch."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fmnist import checkpoints
from fmnist.config import Network
from fmnist.data import CLASSES, FashionMNIST, split
from fmnist.device import Machine
from fmnist.evaluation import Evaluation, Predictions, evaluate
from fmnist.learners import TorchLearner
from tests.helpers import tiny


class Oracle:
    """A learner that reads its prediction from the first pixel of each image, and its certainty from the second."""

    def log_probabilities(self, images: torch.Tensor) -> torch.Tensor:
        sure = images[:, 0, 1].double() / 256
        scores = ((1 - sure) / 9)[:, None].repeat(1, 10)
        scores[torch.arange(len(images)), images[:, 0, 0].long()] = sure
        return scores.log().float()


def made_up(train: int, test: int) -> tuple[FashionMNIST, np.ndarray, np.ndarray]:
    """A data set, and what the oracle predicts, seven times in ten correctly, of its training and test images."""
    random = np.random.default_rng(8)
    labels = random.integers(0, 10, train + test)
    predicted = np.where(random.random(train + test) < 0.7, labels, random.integers(0, 10, train + test))
    images = torch.zeros(train + test, 28, 28, dtype=torch.uint8)
    images[:, 0, 0] = torch.from_numpy(predicted)
    images[:, 0, 1] = 200
    truth = torch.from_numpy(labels)
    dataset = FashionMNIST(images[:train], truth[:train], images[train:], truth[train:], "made up")
    return dataset, predicted[:train], predicted[train:]


def test_accuracies_loss_and_confusion_are_as_counted_by_hand():
    dataset, train_predicted, predicted = made_up(2300, 610)  # more than one batch, the last of them ragged
    train_indices, held_out = split(2300, 0.1, seed=3)
    scored = evaluate(Oracle(), dataset, train_indices)

    labels = dataset.test_labels.numpy()
    correct = sum(int(a == b) for a, b in zip(predicted, labels, strict=True))
    assert scored.test_accuracy == correct / 610
    assert (scored.predictions.classes == predicted).all()
    assert (scored.predictions.correct == (predicted == labels)).all()
    sure = 200 / 256
    loss = -(correct * math.log(sure) + (610 - correct) * math.log((1 - sure) / 9)) / 610
    assert scored.test_loss == pytest.approx(loss, rel=1e-6)

    chosen = train_indices[:2000].numpy()
    assert not set(chosen.tolist()) & set(held_out.tolist()), "what is held out is not training"
    subset_correct = sum(int(train_predicted[i] == dataset.train_labels[i]) for i in chosen)
    assert scored.train_subset_accuracy == subset_correct / 2000
    assert scored.mean_accuracy == (correct + subset_correct) / 2610

    counted = [[0] * 10 for _ in range(10)]
    for true, given in zip(labels, predicted, strict=True):
        counted[true][given] += 1
    assert scored.confusion.tolist() == counted
    np.testing.assert_allclose(scored.predictions.probabilities.sum(axis=1), 1, rtol=1e-5)
    assert scored.predictions.probabilities.dtype == np.float32
    assert (scored.predictions.images == dataset.test_images.numpy()).all()


def test_of_an_image_and_its_mirror_image_the_surer_prediction_counts():
    dataset, _, predicted = made_up(50, 310)
    random = np.random.default_rng(5)
    other, sure = random.integers(0, 10, 310), random.integers(100, 256, 310)  # of the mirror images; 200 of the others
    dataset.test_images[:, 0, 27], dataset.test_images[:, 0, 26] = torch.from_numpy(other), torch.from_numpy(sure)
    wanted = np.where(sure > 200, other, predicted) == dataset.test_labels.numpy()
    assert not (sure == 200).any(), "no prediction would be the surer"
    scored = evaluate(Oracle(), dataset, torch.arange(50), mirrored=True)
    assert scored.mirrored_accuracy == pytest.approx(wanted.mean())
    assert scored.test_accuracy == (predicted == dataset.test_labels.numpy()).mean()
    assert evaluate(Oracle(), dataset, torch.arange(50)).mirrored_accuracy is None


def test_mean_accuracy_pools_the_images_and_is_no_mean_of_the_two_accuracies():
    dataset, train_predicted, predicted = made_up(50, 10)
    dataset = dataset._replace(train_labels=torch.from_numpy(train_predicted))  # all 50 correct
    dataset = dataset._replace(test_labels=torch.from_numpy((predicted + 1) % 10))  # none of 10
    scored = evaluate(Oracle(), dataset, torch.arange(50))
    assert (scored.train_subset_accuracy, scored.test_accuracy) == (1, 0)
    assert scored.mean_accuracy == 50 / 60


def test_the_training_subset_is_chosen_by_the_seed():
    dataset, predicted, _ = made_up(2300, 10)
    correct = (torch.from_numpy(predicted) == dataset.train_labels).double()
    accuracies = []
    for seed in (0, 1):
        train_indices, _ = split(2300, 0, seed)
        accuracies.append(evaluate(Oracle(), dataset, train_indices).train_subset_accuracy)
        assert accuracies[-1] == pytest.approx(float(correct[train_indices[:2000]].mean()))
    assert accuracies[0] != accuracies[1]


def test_held_out_images_calibrate_the_test_images_and_nothing_else():
    """The oracle is 78 % sure, and 73 % correct or so."""
    dataset, train_predicted, predicted = made_up(2300, 610)
    train_indices, held_out = split(2300, 0.2, seed=3)
    plainly, with_held_out = (evaluate(Oracle(), dataset, train_indices, chosen) for chosen in (None, held_out))
    assert plainly.calibration is None
    assert evaluate(Oracle(), dataset, train_indices, held_out[:0]).calibration is None
    calibration = with_held_out.calibration
    assert (calibration["validation_images"], calibration["nll"]) == (460, pytest.approx(with_held_out.test_loss))
    accuracy = (predicted == dataset.test_labels.numpy()).mean()
    assert calibration["ece"] == pytest.approx(abs(accuracy - 200 / 256))
    assert calibration["bins"]["count"] == [610]
    # Only one probability occurs: the temperature makes it as high as the validation images are often correct.
    correct = (train_predicted[held_out] == dataset.train_labels[held_out].numpy()).mean()
    assert calibration["bins_after"]["confidence"] == pytest.approx([correct], abs=1e-3)
    assert with_held_out.test_accuracy == plainly.test_accuracy


# By class


def scored(labels: list[int], predicted: list[int]) -> Evaluation:
    probabilities = np.eye(10, dtype=np.float32)[predicted]
    images = np.zeros((len(labels), 28, 28), np.uint8)
    return Evaluation(Predictions(images, np.array(labels), probabilities), 0.0, 0.0, 0.0, 0.0)


BY_HAND = scored([0, 0, 0, 0, 1, 1, 2, 2, 3], [0, 0, 1, 2, 1, 0, 2, 2, 2])  # 3 is never predicted, 4 to 9 never occur


def test_figures_by_class_by_hand():
    assert BY_HAND.confusion[:4, :4].tolist() == [[2, 1, 1, 0], [1, 1, 0, 0], [0, 0, 2, 0], [0, 0, 1, 0]]
    assert BY_HAND.confusion.shape == (10, 10)
    assert BY_HAND.confusion.sum() == 9
    per_class = BY_HAND.per_class
    assert per_class["precision"] == pytest.approx([2 / 3, 1 / 2, 2 / 4, *[0] * 7])
    assert per_class["recall"] == pytest.approx([2 / 4, 1 / 2, 2 / 2, *[0] * 7])
    assert per_class["f1"] == pytest.approx([4 / 7, 1 / 2, 4 / 6, *[0] * 7])
    assert per_class["support"] == [4, 2, 2, 1, *[0] * 6]


@pytest.mark.filterwarnings("error")
def test_classification_report_by_hand():
    lines = [line.split() for line in BY_HAND.classification_report().splitlines() if line.strip()]
    assert lines[0] == ["precision", "recall", "f1-score", "support"]
    assert [" ".join(line[:-4]) for line in lines[1:11]] == [*CLASSES]
    assert lines[1][-4:] == ["0.6667", "0.5000", "0.5714", "4"]
    assert lines[4][-4:] == ["0.0000", "0.0000", "0.0000", "1"], "a class never predicted"
    assert ["accuracy", "0.5556", "9"] in lines
    weighted = [(4 * 2 / 3 + 2 / 2 + 2 / 2) / 9, 5 / 9, (4 * 4 / 7 + 2 / 2 + 2 * 2 / 3) / 9]
    assert lines[-1] == ["weighted", "avg", *(f"{value:.4f}" for value in weighted), "9"]


# Taken elsewhere


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_saved_weights_score_the_same_in_plain_pytorch(precision, tmp_path):
    made = tiny.make(train=300, test=200)
    tensors = [torch.from_numpy(array) for array in made]
    dataset = FashionMNIST(tensors[0], tensors[1].long(), tensors[2], tensors[3].long(), "made up")
    network = Network("cnn", "CNN", "cnn:CNN", {"kernels": [4, 8], "dense": [16], "size": 32})
    own = TorchLearner(network.build(), network.training, Machine(torch.device("cpu"), precision), 100)
    for batch in torch.arange(300).split(20):
        own.step(dataset.train_images[batch], dataset.train_labels[batch])
    checkpoints.save_weights(tmp_path, network, "classic", own.weights(), dataset.release)
    scored = evaluate(own, dataset, torch.arange(300))
    assert 0.2 < scored.test_accuracy < 1, "it has learnt nothing, or all, so nothing is told apart"

    from cnn import CNN

    content = torch.load(tmp_path / "cnn.pth", weights_only=True)
    model = CNN(**{key: value for key, value in content["config"]["network"].items() if key != "class"})
    model.load_state_dict(content["state_dict"])
    with torch.no_grad():
        logits = model.eval()(dataset.test_images)
    predicted = logits.argmax(dim=1)
    assert scored.test_accuracy == (predicted == dataset.test_labels).double().mean().item()
    confusion = torch.zeros(10, 10, dtype=torch.int64)
    confusion.index_put_((dataset.test_labels, predicted), torch.ones(200, dtype=torch.int64), accumulate=True)
    assert scored.confusion.tolist() == confusion.tolist()
    assert scored.test_loss == pytest.approx(F.cross_entropy(logits, dataset.test_labels).item(), rel=1e-6)
