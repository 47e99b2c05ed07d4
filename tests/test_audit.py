"""What an audit finds in the data set, against loops after the paper's equations, SciPy and labels planted wrong."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform

import recipes
from fmnist import audit, metrics, remarks
from fmnist.audit import Pairs, Suspects, confident_joint, find_suspects, nearest_pairs, score, wrong_labels
from fmnist.config import Network, TrainConfig
from fmnist.data import PARTS, FashionMNIST, part_indices
from fmnist.evaluation import Predictions
from tests.helpers import tiny
from tests.helpers.typed import misfits

# Confident learning


def joint_by_loops(probabilities, labels):
    """Northcutt et al. (2021), equations 1 and 2: C[i][j] counts the x labelled i whose likeliest class among those j
    with p(j; x) >= t[j] is j, where t[j] is the mean of p(j; x) over the x that are labelled j."""
    classes = range(10)
    threshold = {}
    for j in classes:
        own = [p[j] for p, label in zip(probabilities, labels, strict=True) if label == j]
        if own:
            threshold[j] = sum(own) / len(own)
    joint = [[0] * 10 for _ in classes]
    for p, label in zip(probabilities, labels, strict=True):
        sure = [j for j in threshold if p[j] >= threshold[j]]
        if sure:
            joint[label][max(sure, key=lambda j: p[j])] += 1
    return joint


def suspects_by_loops(probabilities, labels):
    """Equation 3 and "prune by class": of those labelled i, n * sum over j != i of Q[i][j], the least p(i; x) first."""
    joint, found = joint_by_loops(probabilities, labels), []
    for i in range(10):
        own = sorted((p[i], n) for n, (p, label) in enumerate(zip(probabilities, labels, strict=True)) if label == i)
        elsewhere = sum(joint[i]) - joint[i][i]
        found += own[: round(elsewhere * len(own) / sum(joint[i]))] if sum(joint[i]) else []
    return [n for _, n in sorted(found)]


def judged(count, seed, wrong=0.2, classes=10):
    """Probabilities of a network that is surer of some classes than of others, and labels of which a part are wrong."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, count)
    logits = random.normal(0, 1, (count, 10)) + np.diag(np.linspace(1, 5, 10))[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.where(random.random(count) < wrong, random.integers(0, classes, count), truth)
    return probabilities, labels


@pytest.mark.parametrize("classes", [10, 7])  # of seven, three have no image and so no threshold
@pytest.mark.parametrize("seed", range(5))
def test_confident_learning_is_as_the_paper_has_it(seed, classes):
    probabilities, labels = judged(400, seed, classes=classes)
    joint = confident_joint(probabilities, labels)
    assert joint.tolist() == joint_by_loops(probabilities, labels)
    assert joint.sum() < 400, "every image is counted, so that those which are surely nothing are not told apart"
    expected = suspects_by_loops(probabilities, labels)
    assert find_suspects(probabilities, labels).tolist() == expected
    assert wrong_labels(joint, labels).tolist() == np.bincount(labels[expected], minlength=10).tolist()


def test_four_images_by_hand():
    """Thresholds: of class 0 the mean of 0.9, 0.8 and 0.1, which is 0.6; of class 1 0.7. The third image, labelled 0,
    surely is a 1: a third of the three labels 0 is wrong, and the third image's is the one that is believed least."""
    probabilities, labels = np.zeros((4, 10)), np.array([0, 0, 0, 1])
    probabilities[:, :2] = [(0.9, 0.1), (0.8, 0.2), (0.1, 0.9), (0.3, 0.7)]
    joint = confident_joint(probabilities, labels)
    assert joint[:2, :2].tolist() == [[2, 1], [0, 1]]
    assert wrong_labels(joint, labels)[:2].tolist() == [1, 0]
    assert find_suspects(probabilities, labels).tolist() == [2]


def test_a_class_none_of_whose_images_are_counted_has_no_wrong_labels():
    labels = np.array([0, 0, 1])
    assert wrong_labels(np.zeros((10, 10), int), labels).sum() == 0
    assert len(find_suspects(np.eye(10)[labels], labels)) == 0


# What mistakes have to do with it


def test_a_score_by_hand():
    """Of five images three are predicted wrong, of which two are suspect: one of three others is wrong."""
    labels = np.zeros(5, int)
    predicted = np.eye(10)[[0, 0, 1, 2, 3]]
    expected = {"accuracy": 0.4, "mistakes": 3, "mistakes_suspected": 2, "accuracy_without": 2 / 3}
    assert score(predicted, labels, np.array([4, 2])) == pytest.approx(expected)
    assert score(predicted, labels, np.arange(5))["accuracy_without"] == 0
    assert score(predicted, labels, np.array([], int))["accuracy_without"] == pytest.approx(0.4)


@pytest.fixture(scope="module")
def judgements():
    """A data set, its labels, and what five made-up networks make of their part of the training and all test images."""
    train, train_labels = judged(500, 1)
    test_labels = judged(80, 2)[1]
    test = [0.5 * judged(80, 2)[0] + 0.5 * np.random.default_rng(n).dirichlet(np.ones(10), 80) for n in range(PARTS)]
    images = torch.zeros(580, 28, 28, dtype=torch.uint8)
    images[:, 0, 0], images[:, 0, 1] = torch.arange(580) % 256, torch.arange(580) // 256  # no two are the same
    sets = images[:500], torch.from_numpy(train_labels), images[500:], torch.from_numpy(test_labels)
    own = [np.concatenate([train[part_indices(500, part).numpy()], test[part]]) for part in range(PARTS)]
    return FashionMNIST(*sets, source="made up"), own, train, test


def test_every_training_image_is_judged_by_the_network_that_has_not_learnt_from_it(judgements):
    dataset, own, train, test = judgements
    found = audit.audit(dataset, own)
    for part, images, labels, probabilities in (
        (found.train, dataset.train_images, dataset.train_labels.numpy(), train),
        (found.test, dataset.test_images, dataset.test_labels.numpy(), np.mean(test, axis=0)),
    ):
        indices = suspects_by_loops(probabilities, labels)
        assert part.indices.tolist() == indices
        np.testing.assert_array_equal(part.images, images.numpy()[indices])
        np.testing.assert_array_equal(part.labels, labels[indices])
        np.testing.assert_array_equal(part.predicted, probabilities[indices].argmax(axis=1))
        beliefs = [(probabilities[n, labels[n]], probabilities[n].max()) for n in indices]
        np.testing.assert_allclose(part.probabilities, beliefs)
    assert found.train_score == score(train, dataset.train_labels.numpy(), found.train.indices)


def test_of_the_test_images_each_network_is_held_against_what_the_others_suspect(judgements):
    dataset, own, _, test = judgements
    labels, rows = dataset.test_labels.numpy(), []
    for k in range(PARTS):
        suspected = suspects_by_loops(np.mean([test[n] for n in range(PARTS) if n != k], axis=0), labels)
        wrong = [n for n in range(80) if test[k][n].argmax() != labels[n]]
        left = [n for n in range(80) if n not in suspected]
        without = sum(n not in wrong for n in left) / len(left)
        rows.append((1 - len(wrong) / 80, len(wrong), len(set(wrong) & set(suspected)), without))
    keys = ("accuracy", "mistakes", "mistakes_suspected", "accuracy_without")
    assert audit.audit(dataset, own).test_score == pytest.approx(dict(zip(keys, np.mean(rows, axis=0), strict=True)))


def test_the_surest_mistakes_and_which_of_them_have_suspect_labels(judgements, monkeypatch):
    dataset, own, _, test = judgements
    suspected = audit.suspected_tests(dataset, own)
    labels, probabilities = dataset.test_labels.numpy(), test[3]
    assert suspected.tolist() == suspects_by_loops(np.mean(test, axis=0), labels)
    monkeypatch.setattr(audit, "SUREST", 5)
    mistakes = [(probabilities[n].max(), n) for n in range(80) if probabilities[n].argmax() != labels[n]]
    surest = [n for _, n in sorted(mistakes, reverse=True)][:5]
    assert len(surest) == 5
    assert audit.surest_mistakes(Predictions(dataset.test_images.numpy(), labels, probabilities), suspected) == {
        "count": len(mistakes),
        "suspected": sum(n in suspected for _, n in mistakes),
        "surest": surest,
        "surest_suspected": [n in suspected for n in surest],
    }


def test_a_network_without_mistakes_has_no_surest_ones(judgements):
    dataset, own, _, _ = judgements
    labels = dataset.test_labels.numpy()
    right = Predictions(dataset.test_images.numpy(), labels, np.eye(10)[labels])
    made = audit.surest_mistakes(right, audit.suspected_tests(dataset, own))
    assert made == {"count": 0, "suspected": 0, "surest": [], "surest_suspected": []}


# Images that come twice


def pictures(kind: str, count: int) -> torch.Tensor:
    """Images whose pairs are hard to tell apart by their means, or are equally far from each other, or far away."""
    random = np.random.default_rng(0)
    if kind == "noise":
        return torch.from_numpy(random.integers(0, 256, (count, 28, 28), dtype=np.uint8))
    if kind == "ties":  # few levels and few pixels: many pairs are identical, and many as far apart
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 9:11, 13] = random.integers(0, 3, (count, 2))
        return torch.from_numpy(images)
    if kind == "white":  # nearly: the lengths are the largest that there are, and the distances small beside them
        return torch.from_numpy(255 - random.binomial(1, 0.01, (count, 28, 28)).astype(np.uint8))
    images = 255 * (random.integers(0, 2, (count, 28, 28), dtype=np.uint8))
    images[:, ::2] = 255 * (np.arange(count) % 2).astype(np.uint8)[:, None, None]
    return torch.from_numpy(images)  # far apart: squared distances that single precision does not hold


@pytest.mark.parametrize("block", [7, 13, 40, 2000])  # of images: pairs within one, and across two
@pytest.mark.parametrize("kind", ["noise", "ties", "white", "far"])
def test_the_nearest_pairs_are_those_of_all_pairs(kind, block, monkeypatch):
    monkeypatch.setattr(audit, "BLOCK", block)
    monkeypatch.setattr(audit, "CHUNK", 11)
    images = pictures(kind, 40)
    exact = pdist(images.flatten(1).numpy().astype(float), "sqeuclidean")
    for count in (1, 25, 780):
        pairs, distances = nearest_pairs(images, count)
        np.testing.assert_array_equal(distances, np.sort(exact)[:count])
        assert (pairs[:, 0] < pairs[:, 1]).all()
        assert len({tuple(pair) for pair in pairs.tolist()}) == count
        np.testing.assert_array_equal(squareform(exact)[pairs[:, 0], pairs[:, 1]], distances)


def test_of_few_images_all_pairs_are_returned():
    pairs, distances = nearest_pairs(pictures("noise", 3), 200)
    assert sorted(pairs.tolist()) == [[0, 1], [0, 2], [1, 2]]
    assert len(distances) == 3


def test_a_summary_counts_pairs_and_names_their_images():
    nothing = Suspects(*(np.empty(0, int),) * 4, np.empty((0, 2)))
    pairs = Pairs(
        indices=np.array([[3, 9], [3, 0], [1, 2]]),
        is_test=np.array([[False, False], [False, True], [True, True]]),
        images=np.zeros((3, 2, 28, 28), np.uint8),
        labels=np.array([[0, 0], [0, 6], [9, 9]]),
        distances=np.array([0.0, 4.9, 5.0]),
    )
    scored = {"accuracy": 1.0, "mistakes": 0.0, "mistakes_suspected": 0.0, "accuracy_without": 1.0}
    found = audit.summary(audit.Audit(nothing, nothing, pairs, scored, scored))
    assert misfits(found, metrics.Audit) == []
    assert (found["identical_pairs"], found["near_pairs"], found["near_pairs_across"]) == (1, 2, 1)
    assert found["pairs"][1] == {
        "images": ["training 3", "test 0"],
        "classes": ["T-shirt/top", "Shirt"],
        "distance": 4.9,
    }


@pytest.mark.parametrize(("distance", "least"), [(4.0, "at least "), (6.0, "")])
def test_where_all_pairs_that_were_looked_for_are_near_there_may_be_more(distance, least):
    pair = {"images": ["training 1", "test 2"], "classes": ["Bag", "Bag"], "distance": 0.0}
    part = {"accuracy": 1.0, "mistakes": 0, "mistakes_suspected": 0, "accuracy_without": 1.0, "suspected": 0}
    near = 1 + (distance < audit.NEAR)
    pairs = {
        "identical_pairs": 1,
        "near_pairs": near,
        "near_pairs_across": 1,
        "pairs": [pair, {**pair, "distance": distance}],
    }
    said = "\n".join(remarks._audit({"audit": {"training": part, "test": part, **pairs}}))
    assert f" from each other: {least}{near} pairs, 1 of them" in said
    assert "identical: 1 (" in said


# From end to end

PLANTED = {"training": [5, 77, 200, 201, 333, 404, 599], "test": [2, 50, 111]}
TWICE = 19  # the training image that comes again


@pytest.fixture
def spoilt(tmp_path):
    """A folder of made-up data, a few of whose labels are wrong, and one of whose images comes twice."""
    made = tiny.Tiny(*(array.copy() for array in tiny.make()))
    for labels, planted in zip((made.train_labels, made.test_labels), PLANTED.values(), strict=True):
        labels[planted] = (labels[planted] + 5) % 10
    again = np.flatnonzero(made.test_labels == made.train_labels[TWICE])[0]
    made.test_images[again] = made.train_images[TWICE]
    return tiny.write_csv(made, tmp_path / "data")


def test_labels_and_images_that_were_planted_are_found(spoilt, run_here, monkeypatch, tmp_path):
    (tmp_path / "out").mkdir()
    learner = Network("auditor", "auditor", "ffn:FFN", {"hidden": [32]}, TrainConfig(epochs=4, batch_size=20))
    monkeypatch.setitem(recipes.RECIPES, "explore", replace(recipes.EXPLORE, auditor=learner))
    done = run_here(["explore", "--audit", "--data-dir", spoilt, "--output-dir", tmp_path / "out"])
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out" / "explore"
    written = json.loads((folder / "metrics.json").read_text())
    assert misfits(written, metrics.Metrics) == []
    found = written["audit"]
    for part, planted in PLANTED.items():
        hits = set(planted) & set(found[part]["indices"])
        assert len(hits) >= len(planted) - 1, "a network that is rightly unsure of an image counts it nowhere"
        assert set(found[part]["indices"][: len(hits)]) == hits, "others come before those that were planted"
        assert found[part]["accuracy_without"] > found[part]["accuracy"]
    first, second = found["pairs"][0]["images"]
    assert (first, second[:5]) == (f"training {TWICE}", "test ")
    assert (found["identical_pairs"], found["near_pairs"], found["near_pairs_across"]) == (1, 1, 1)
    for said in ("Labels that look wrong by confident learning", "identical: 1 (audit_pairs.png)"):
        assert said in done.stdout
    assert {path.name for path in folder.glob("audit_*.png")} == {
        f"audit_{n}.png" for n in ("training", "test", "pairs")
    }
