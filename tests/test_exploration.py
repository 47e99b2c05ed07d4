"""The data set in numbers, against NumPy on the images themselves."""

import numpy as np
import pytest
import torch

from fmnist import exploration
from fmnist.data import CLASSES, FashionMNIST


@pytest.fixture(scope="module")
def made(made_up):
    dataset = FashionMNIST(*(torch.from_numpy(array) for array in made_up), source="made up")
    return exploration.explore(dataset)


def test_counts_and_moments(made, made_up):
    pixels, labels = made_up.train_images / 255, made_up.train_labels
    assert made.train_counts.tolist() == [60] * 10
    assert made.test_counts.tolist() == [20] * 10
    assert (made.mean, made.std) == (pytest.approx(pixels.mean()), pytest.approx(pixels.std()))
    by_class = [pixels[labels == c] for c in range(10)]
    np.testing.assert_allclose(made.class_means, [part.mean() for part in by_class])
    np.testing.assert_allclose(made.class_stds, [part.std() for part in by_class])
    np.testing.assert_allclose(made.mean_images / 255, [part.mean(axis=0) for part in by_class])
    np.testing.assert_array_equal(made.histogram, np.histogram(made_up.train_images, np.arange(257))[0])


def test_similarity_is_the_correlation_of_the_mean_images(made):
    np.testing.assert_allclose(made.similarity, np.corrcoef(made.mean_images.reshape(10, -1)))


def test_statistics_name_the_nearest_look_alike(made):
    statistics = exploration.statistics(made)
    assert list(statistics) == ["pixel mean", "pixel deviation", "classes"]
    correlations = np.corrcoef(made.mean_images.reshape(10, -1)) - 2 * np.eye(10)
    assert [row["class"] for row in statistics["classes"]] == list(CLASSES)
    assert [row["nearest look-alike"] for row in statistics["classes"]] == [CLASSES[c] for c in correlations.argmax(1)]
    np.testing.assert_allclose([row["correlation"] for row in statistics["classes"]], correlations.max(axis=1))


def test_a_class_without_images_is_black_and_like_none():
    labels = torch.tensor([0, 0, 1, 1])
    images = torch.arange(4 * 784).remainder(251).to(torch.uint8).view(4, 28, 28)
    made = exploration.explore(FashionMNIST(images, labels, images[:0], labels[:0], source="made up"))
    assert (made.class_means[2], made.class_stds[2], made.mean_images[2].max()) == (0, 0, 0)
    assert made.similarity[2].tolist() == [0] * 10
    assert np.isfinite(made.similarity).all()
