"""The hand-written network: its gradients against autograd and finite differences, its steps, its state."""

import numpy as np
import pytest
import torch

from numpy_ffn import NumpyFFN

CONFIGURATIONS = [(), (12,), (300, 100), (16, 12, 8)]


def batch(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random images uint8 [size, 28, 28] and labels int64 [size]."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (size, 28, 28), dtype=np.uint8)
    return images, random.integers(0, 10, size)


def gradients(network: NumpyFFN, images: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    network.forward(network.scale(images))
    return network.backward(network.targets(labels))


def with_random_biases(hidden: tuple[int, ...]) -> NumpyFFN:
    """In float64; biases start at zero, which would hide a fault in how they are added."""
    network = NumpyFFN(hidden, seed=3, dtype=np.float64)
    random = np.random.default_rng(4)
    for bias in network.biases:
        bias += random.normal(0, 0.1, bias.shape)
    return network


def torch_loss(leaves: list[torch.Tensor], inputs: np.ndarray, labels: np.ndarray) -> torch.Tensor:
    """The same loss in PyTorch operations, from weights and biases in the order of parameters()."""
    a = torch.from_numpy(inputs)
    for layer in range(0, len(leaves), 2):
        z = a @ leaves[layer] + leaves[layer + 1]
        a = torch.sigmoid(z) if layer == len(leaves) - 2 else torch.relu(z)
    targets = torch.full_like(a, 0.01).scatter_(1, torch.from_numpy(labels)[:, None], 0.99)
    return torch.nn.functional.mse_loss(a, targets, reduction="sum") / 2 / len(labels)


@pytest.mark.parametrize("hidden", CONFIGURATIONS)
def test_loss_and_gradients_are_those_of_autograd(hidden):
    network = with_random_biases(hidden)
    images, labels = batch(7)
    leaves = [torch.tensor(array, requires_grad=True) for array in network.parameters().values()]
    expected = torch_loss(leaves, network.scale(images), labels)
    expected.backward()

    outputs = network.forward(network.scale(images))
    assert network.loss(outputs, network.targets(labels)) == pytest.approx(expected.item(), abs=1e-12)
    for name, gradient, leaf in zip(network.parameters(), gradients(network, images, labels), leaves, strict=True):
        assert gradient.dtype == np.float64
        assert np.any(gradient), f"{name}: all zero, so nothing is compared"
        np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=0, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("hidden", CONFIGURATIONS)
def test_gradients_are_those_of_finite_differences(hidden):
    """Central differences with h = 1e-5: errors about h**2 and 1e-16 / h, both far below 1e-8."""
    network, h = with_random_biases(hidden), 1e-5
    images, labels = batch(3)
    inputs, targets = network.scale(images), network.targets(labels)
    random = np.random.default_rng(5)
    for (name, array), gradient in zip(network.parameters().items(), gradients(network, images, labels), strict=True):
        steepest = np.argmax(np.abs(gradient))
        for place in [steepest, *random.integers(0, array.size, 5)]:
            index = np.unravel_index(place, array.shape)
            value = array[index]
            array[index] = value + h
            above = network.loss(network.forward(inputs), targets)
            array[index] = value - h
            below = network.loss(network.forward(inputs), targets)
            array[index] = value
            assert (above - below) / (2 * h) == pytest.approx(gradient[index], abs=1e-8, rel=1e-6), name


def test_step_is_one_update_of_sgd_and_gives_the_loss_before_it():
    network = with_random_biases((12,))
    images, labels = batch(4)
    before = network.state_dict()
    slopes = gradients(network, images, labels)
    loss = network.loss(network.forward(network.scale(images)), network.targets(labels))

    assert network.step(images, labels, lr=0.3) == pytest.approx(loss, abs=1e-15)
    for (name, after), slope in zip(network.parameters().items(), slopes, strict=True):
        np.testing.assert_allclose(after, before[name] - 0.3 * slope, rtol=0, atol=1e-15, err_msg=name)


def test_step_on_one_image_is_the_rule_of_the_book():
    """Rashid's update of the last layer: W += lr * activations * error * output * (1 - output)."""
    network = NumpyFFN((12,), dtype=np.float64)
    images, labels = batch(1)
    weight = network.weights[-1].copy()
    output = network.forward(network.scale(images))[0]
    hidden = np.maximum(network.scale(images)[0] @ network.weights[0], 0)
    error = np.where(np.arange(10) == labels[0], 0.99, 0.01) - output
    network.step(images, labels, lr=0.1)
    expected = weight + 0.1 * np.outer(hidden, error * output * (1 - output))
    np.testing.assert_allclose(network.weights[-1], expected, rtol=0, atol=1e-14)


def test_parameters_run_from_the_input_up_in_the_order_of_the_gradients():
    network = NumpyFFN((12, 8))
    shapes = {name: array.shape for name, array in network.parameters().items()}
    assert list(shapes) == ["weight1", "bias1", "weight2", "bias2", "weight3", "bias3"]
    assert list(shapes.values()) == [(784, 12), (12,), (12, 8), (8,), (8, 10), (10,)]
    assert [g.shape for g in gradients(network, *batch(2))] == list(shapes.values())


def test_weights_start_with_the_variance_of_he():
    network = NumpyFFN((300, 100))
    for weight, bias in zip(network.weights, network.biases, strict=True):
        assert weight.var() == pytest.approx(2 / len(weight), rel=0.15)
        assert not bias.any()


def test_scale_and_targets_stay_off_the_ends():
    network = NumpyFFN()
    images = np.zeros((2, 28, 28), np.uint8)
    images[1, 0, 1] = 255
    rows = network.scale(images)
    assert rows.shape == (2, 784)
    assert rows.dtype == np.float32
    assert rows[0] == pytest.approx(0.01)
    assert rows[1, 1] == pytest.approx(1.0)
    targets = network.targets(np.array([3, 9]))
    assert targets.argmax(axis=1).tolist() == [3, 9]
    assert targets.sum(axis=1) == pytest.approx(0.99 + 9 * 0.01)


def test_stays_in_its_precision():
    network = NumpyFFN((12,))
    images, labels = batch(4)
    network.step(images, labels, lr=np.float64(0.1))
    assert {array.dtype for array in network.parameters().values()} == {np.dtype(np.float32)}
    assert {array.dtype for array in gradients(network, images, labels)} == {np.dtype(np.float32)}
    assert network.probabilities(images).dtype == np.float32


def test_probabilities_sum_to_one_and_keep_the_order_of_the_outputs():
    network = NumpyFFN((12,))
    images, _ = batch(6)
    probabilities = network.probabilities(images)
    assert probabilities.shape == (6, 10)
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-6)
    outputs = network.forward(network.scale(images))
    assert np.array_equal(probabilities.argsort(axis=1), outputs.argsort(axis=1))


def test_same_seed_same_weights_another_seed_others():
    first, again, other = (NumpyFFN((12,), seed=seed).weights[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_state_goes_round_and_is_a_copy():
    trained, fresh = NumpyFFN((12, 8), seed=1), NumpyFFN((12, 8), seed=2)
    images, labels = batch(4)
    trained.step(images, labels, lr=0.1)
    state = trained.state_dict()
    fresh.load_state_dict(state)
    assert np.array_equal(fresh.probabilities(images), trained.probabilities(images))
    fresh.step(images, labels, lr=0.1)
    for name, array in trained.parameters().items():
        assert np.array_equal(array, state[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight2": np.zeros((12, 11))}, r"weight2: shape \(12, 11\), expected \(12, 10\)"),
        ({"bias1": np.zeros(1)}, "bias1: shape"),
        ({"weight1": None}, "weight1: missing"),
        ({"weight3": np.zeros((10, 10))}, "weight3: not a parameter"),
    ],
)
def test_unfit_state_is_refused_by_key_and_changes_nothing(change, message):
    network = NumpyFFN((12,), seed=1)
    before = network.state_dict()
    state = {**NumpyFFN((12,), seed=2).state_dict(), **change}
    state = {name: array for name, array in state.items() if array is not None}
    with pytest.raises(ValueError, match=message):
        network.load_state_dict(state)
    assert all(np.array_equal(array, before[name]) for name, array in network.parameters().items())


def test_unfit_arrays_are_refused():
    network = NumpyFFN((12,))
    images, labels = batch(4)
    for unfit in (images.reshape(4, 784), images.reshape(4, 14, 56), images / 255):
        with pytest.raises(ValueError, match=r"images: .*, expected uint8 \(B, 28, 28\)"):
            network.scale(unfit)
    with pytest.raises(ValueError, match="labels: 3 for 4 images"):
        network.step(images, labels[:3], lr=0.1)
    with pytest.raises(ValueError, match="labels: 0 for 0 images"):
        network.step(images[:0], labels[:0], lr=0.1)
    network.forward(network.scale(images))
    with pytest.raises(ValueError, match="targets: shape"):
        network.backward(network.targets(labels)[0])
