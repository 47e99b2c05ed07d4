"""The feed-forward network by hand: forward pass, backward pass by the chain rule, SGD; in NumPy and SciPy alone."""

import numpy as np
from scipy.special import expit


class NumpyFFN:
    """784 -> hidden layers (ReLU) -> 10 (sigmoid), trained by plain SGD, in NumPy and SciPy alone.

    A row is an image: a batch of B images is a matrix [B, 784], and one matrix product takes the whole batch
    through a layer. Layer l maps the activations a[l-1] of the layer below (a[0]: the pixels) to its own:

        z[l] = a[l-1] @ W[l] + b[l]        pre-activations  [B, outputs]
        a[l] = ReLU(z[l])                  activations      [B, outputs]; sigmoid(z[l]) in the last layer

    The loss is half the squared error, summed over the 10 outputs and averaged over the batch:

        loss = 1/B * sum over images of 1/2 * sum over outputs of (output - target)**2

    so a gradient is the mean of the single images' gradients, and so is a step. With B = 1 a step is that of
    T. Rashid, "Make Your Own Neural Network" (2016), where error = target - output:

        W += lr * activations * error * output * (1 - output)        (here for the last layer)

    with the same meaning of lr. B images share one such step, so batches take larger rates.

    `hidden` may have any length, none included. W[l] is [inputs, outputs]: torch.nn.Linear's, transposed.
    Weights start as in He et al., "Delving Deep into Rectifiers" (arXiv:1502.01852), biases at zero.
    """

    PIXELS, CLASSES = 784, 10
    LOW, HIGH = 0.01, 0.99  # targets; a sigmoid reaches 0 and 1 only at infinite weights

    def __init__(self, hidden: tuple[int, ...] = (300, 100), seed: int = 0, dtype: type = np.float32) -> None:
        self.dtype = np.dtype(dtype)
        self.weights: list[np.ndarray] = []
        self.biases: list[np.ndarray] = []
        self.pre_activations: list[np.ndarray] = []
        self.activations: list[np.ndarray] = []
        random = np.random.default_rng(seed)
        inputs = self.PIXELS
        for outputs in (*hidden, self.CLASSES):
            # ReLU zeroes half of what it is given; variance 2 / inputs makes up for it at any depth.
            weight = random.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs)
            self.weights.append(weight.astype(self.dtype))
            self.biases.append(np.zeros(outputs, self.dtype))
            inputs = outputs

    def scale(self, images: np.ndarray) -> np.ndarray:
        """uint8 images [B, 28, 28] as rows [B, 784] of 0.01..1.0: a 0 would teach its weights nothing."""
        if images.dtype != np.uint8 or images.shape[1:] != (28, 28):
            raise ValueError(f"images: {images.dtype} {images.shape}, expected uint8 (B, 28, 28)")
        rows = images.reshape(len(images), self.PIXELS).astype(self.dtype)
        return rows * (0.99 / 255) + 0.01

    def targets(self, labels: np.ndarray) -> np.ndarray:
        """Class numbers [B] as target outputs [B, 10]: 0.99 at the class, 0.01 elsewhere."""
        targets = np.full((len(labels), self.CLASSES), self.LOW, self.dtype)
        targets[np.arange(len(labels)), labels] = self.HIGH
        return targets

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        """Outputs [B, 10] for inputs [B, 784]. Keeps every layer's z and a: the backward pass needs them."""
        self.pre_activations, self.activations = [], [inputs]
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            z = self.activations[-1] @ weight + bias  # [B, inputs] @ [inputs, outputs] + [outputs]
            self.pre_activations.append(z)
            self.activations.append(expit(z) if layer == last else np.maximum(z, 0))
        return self.activations[-1]

    def loss(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        """Half the squared error: summed over the 10 outputs, averaged over the batch."""
        return float(0.5 * np.square(outputs - targets).sum() / len(outputs))

    def backward(self, targets: np.ndarray) -> list[np.ndarray]:
        """Gradients of the loss of the last `forward`, in the order and shapes of `parameters()`.

        The chain rule from the loss down. delta is dloss/dz of the layer at hand; it gives the gradients of
        that layer's weights and biases, and the delta of the layer below.
        `targets` is [B, 10]; a shape other than the outputs' is a ValueError.
        """
        outputs = self.activations[-1]
        if targets.shape != outputs.shape:
            raise ValueError(f"targets: shape {targets.shape}, expected {outputs.shape}")
        loss_by_outputs = (outputs - targets) / len(outputs)  # dloss/da  [B, 10]
        delta = loss_by_outputs * outputs * (1 - outputs)  # dloss/da * da/dz; sigmoid' = a * (1 - a)  [B, 10]
        gradients: list[np.ndarray] = []
        for layer in reversed(range(len(self.weights))):
            below = self.activations[layer]  # what this layer was fed  [B, inputs]
            # z = below @ W + b, so dz/dW = below and dz/db = 1; product and sum add up what each image contributes.
            weight_gradient = below.T @ delta  # [inputs, B] @ [B, outputs] -> [inputs, outputs]
            bias_gradient = delta.sum(axis=0)  # [B, outputs] -> [outputs]
            gradients = [weight_gradient, bias_gradient, *gradients]
            if layer > 0:
                loss_by_below = delta @ self.weights[layer].T  # dz/dbelow = W  [B, inputs]
                relu_derivative = self.pre_activations[layer - 1] > 0  # 1 where z > 0, else 0  [B, inputs]
                delta = loss_by_below * relu_derivative  # dloss/dz of the layer below  [B, inputs]
        return gradients

    def step(self, images: np.ndarray, labels: np.ndarray, lr: float) -> float:
        """One step of SGD on uint8 images [B, 28, 28] and their labels [B]; the loss before it."""
        if len(images) != len(labels) or not len(labels):
            raise ValueError(f"labels: {len(labels)} for {len(images)} images, expected as many, and some")
        targets = self.targets(labels)
        outputs = self.forward(self.scale(images))
        for parameter, gradient in zip(self.parameters().values(), self.backward(targets), strict=True):
            parameter -= float(lr) * gradient  # in place: against the slope
        return self.loss(outputs, targets)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Outputs [B, 10] for uint8 images [B, 28, 28], divided by their sum so that a row adds up to 1.

        Ten sigmoids answer ten separate yes-or-no questions. The division keeps their order and
        makes them comparable with a softmax's; nothing in the loss makes them well calibrated.
        """
        return self.normalised(self.forward(self.scale(images)))

    def normalised(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs [B, 10] divided by their sums."""
        # Ten sigmoids may all underflow to 0, which neither this division nor a logarithm could make anything of.
        outputs = np.maximum(outputs, np.finfo(self.dtype).tiny)
        return outputs / outputs.sum(axis=1, keepdims=True)

    def parameters(self) -> dict[str, np.ndarray]:
        """The arrays themselves, no copies: weight1 [784, h1], bias1 [h1], weight2, ... from the input up."""
        named = {}
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True), start=1):
            named |= {f"weight{number}": weight, f"bias{number}": bias}
        return named

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the parameters, to be saved."""
        return {name: array.copy() for name, array in self.parameters().items()}

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Copies in the values of a `state_dict`. ValueError names a missing, unknown or reshaped key."""
        parameters = self.parameters()
        for name in state.keys() - parameters.keys():
            raise ValueError(f"{name}: not a parameter of this network")
        for name, array in parameters.items():
            if name not in state:
                raise ValueError(f"{name}: missing")
            if np.shape(state[name]) != array.shape:
                raise ValueError(f"{name}: shape {tuple(np.shape(state[name]))}, expected {array.shape}")
        for name, array in parameters.items():
            array[...] = state[name]
