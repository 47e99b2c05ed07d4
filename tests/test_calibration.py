"""Temperatures and calibration errors against plain loops, PyTorch's losses, and labels drawn at random."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fmnist import calibration


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def overconfident(random, count: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, 10] that are so many times too large, and labels drawn from what they should be."""
    true = random.normal(0, 2, (count, 10))
    labels = np.array([random.choice(10, p=row) for row in F.softmax(torch.from_numpy(true), dim=1).numpy()])
    return true * temperature, labels


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return F.log_softmax(torch.from_numpy(logits), dim=1).numpy()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_is_what_the_logits_were_multiplied_by(random, temperature):
    logits, labels = overconfident(random, 6000, temperature)
    fitted = calibration.fit_temperature(logits, labels)
    assert fitted == pytest.approx(temperature, rel=0.05)
    assert calibration.fit_temperature(log_softmax(logits), labels) == pytest.approx(fitted, rel=1e-4)


def test_no_other_temperature_is_likelier(random):
    """Where the loss is lowest, the logits of the true classes are on average what the network expects them to be."""
    logits, labels = overconfident(random, 2000, 3.0)
    fitted = calibration.fit_temperature(logits, labels)
    expected = (F.softmax(torch.from_numpy(logits) / fitted, dim=1).numpy() * logits).sum(axis=1)
    assert logits[np.arange(2000), labels].mean() == pytest.approx(expected.mean(), rel=1e-3)

    def loss(temperature: float) -> float:
        return F.cross_entropy(torch.from_numpy(logits) / temperature, torch.from_numpy(labels)).item()

    losses = [loss(temperature) for temperature in np.geomspace(0.05, 20, 200)]
    assert loss(fitted) <= min(losses)


@pytest.mark.filterwarnings("error")
def test_what_has_no_best_temperature_ends_at_a_limit():
    labels = np.arange(20) % 10
    correct = np.log(np.where(np.eye(10)[labels], 0.91, 0.01))
    assert 0.05 <= calibration.fit_temperature(correct, labels) < 0.1  # below it, the loss is 0 in double precision
    assert calibration.fit_temperature(correct[:, ::-1], labels) == pytest.approx(20, rel=1e-3)


@pytest.mark.filterwarnings("error")
def test_a_probability_of_nothing_costs_a_finite_loss():
    scores = np.full((10, 10), -np.inf)
    scores[:, 3] = 0  # certain of one class, and right once in ten
    measured = calibration.calibrate((scores, np.arange(10)), (scores, np.arange(10)))
    assert measured["nll"] == pytest.approx(0.9 * -math.log(np.finfo(np.float32).tiny))
    assert measured["temperature"] > 10
    assert measured["ece_after"] < measured["ece"] == pytest.approx(0.9)


# Calibration errors


def error_by_a_plain_loop(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """Equations 3 and 5 of Guo et al. 2017: bins of equal width, each with its upper edge."""
    total = 0.0
    for m in range(bins):
        inside = [
            (max(row), int(np.argmax(row)) == label)
            for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True)
            if m / bins < max(row) <= (m + 1) / bins
        ]
        if inside:
            confidence = sum(p for p, _ in inside) / len(inside)
            accuracy = sum(correct for _, correct in inside) / len(inside)
            total += len(inside) / len(labels) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_the_expected_calibration_error_is_that_of_the_paper(random, bins):
    probabilities = random.dirichlet(np.full(10, 0.3), 500)
    probabilities[:3] = np.eye(10)[:3]  # sure
    probabilities[3] = 0.1  # and as unsure as can be
    labels = random.integers(0, 10, 500)
    measured = calibration.reliability(probabilities, labels, bins)
    by_hand = error_by_a_plain_loop(probabilities, labels, bins)
    assert calibration.expected_calibration_error(measured) == pytest.approx(by_hand)
    assert sum(measured["count"]) == 500
    assert all(count > 0 for count in measured["count"])


def test_two_bins_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]])
    assert calibration.reliability(probabilities, np.array([0, 1, 0, 1]), bins=4) == {
        "confidence": pytest.approx([0.65, 0.85]),
        "accuracy": [1.0, 0.5],
        "count": [2, 2],
    }


def test_a_temperature_mends_what_is_too_sure_and_changes_no_prediction(random):
    logits, labels = overconfident(random, 8000, 3.0)
    scores = log_softmax(logits)
    measured = calibration.calibrate((scores[:4000], labels[:4000]), (scores[4000:], labels[4000:]))
    assert measured["temperature"] == pytest.approx(3, rel=0.05)
    assert measured["validation_images"] == 4000
    assert measured["ece"] > 0.1
    assert measured["ece_after"] < 0.02
    logits, labels = torch.from_numpy(logits[4000:]), torch.from_numpy(labels[4000:])
    assert measured["nll"] == pytest.approx(F.cross_entropy(logits, labels).item())
    assert measured["nll_after"] == pytest.approx(F.cross_entropy(logits / measured["temperature"], labels).item())
    after = calibration.at_temperature(scores, measured["temperature"])
    assert (after.argmax(axis=1) == scores.argmax(axis=1)).all()
    np.testing.assert_allclose(np.exp(after).sum(axis=1), 1)


def test_the_test_images_have_no_say_in_the_temperature(random):
    logits, labels = overconfident(random, 1000, 2.0)
    held_out = (log_softmax(logits), labels)
    elsewhere = (log_softmax(-logits), labels)
    fitted = [calibration.calibrate(held_out, test)["temperature"] for test in (held_out, elsewhere)]
    assert fitted[0] == fitted[1] == calibration.fit_temperature(*held_out)


def test_an_answer_is_doubtful_by_its_calibrated_probability():
    probabilities = np.array([0.8, 0.1, 0.1, *[0] * 7])
    assert calibration.doubt(probabilities, None) is None
    words = calibration.doubt(probabilities, 2.0)  # the square roots, made to add up to 1
    assert words == f"uncertain: of such answers about {0.8**0.5 / (0.8**0.5 + 2 * 0.1**0.5):.0%} are correct"
    assert "no validation images" in calibration.doubt(np.full(10, 0.1), None)
