"""The two loops that are compared: the one that tutorials have, and this project's.

Both train the networks of `classic` on the same images with the same settings, on the CPU.
"""

import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

import recipes
from fmnist import learners, training
from fmnist.checkpoints import Checkpoints
from fmnist.config import Network
from fmnist.data import FashionMNIST, TrainingData
from fmnist.device import Machine
from fmnist.metrics import Epoch

CPU = torch.device("cpu")


def classic(name: str, **settings: Any) -> Network:
    """One network of `classic`, with some training settings of its own."""
    network = next(network for network in recipes.CLASSIC.networks if network.name == name)
    return replace(network, training=replace(network.training, **settings))


# The loop that tutorials have


class PlainFFN(nn.Sequential):
    """The network of 203,530 parameters as tutorials write it: [B, 1, 28, 28] to logits [B, 10]."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Dropout(0.2), nn.Linear(256, 10))


class PlainCNN(nn.Module):
    """The network of 421,642 parameters as tutorials write it: [B, 1, 28, 28] to logits [B, 10].

    Max-pooling after ReLU, channels first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.linear1, self.linear2, self.dropout = nn.Linear(3136, 128), nn.Linear(128, 10), nn.Dropout(0.25)

    def forward(self, images: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)  # [B, 32, 14, 14]
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # [B, 64, 7, 7]
        return self.linear2(self.dropout(F.relu(self.linear1(x.flatten(1)))))


PLAIN = {"ffn": PlainFFN, "cnn": PlainCNN}


class PlainImages(datasets.FashionMNIST):
    """torchvision's data set, which prepares an image whenever it is asked for one, over images already loaded."""

    def __init__(self, dataset: FashionMNIST, transform: transforms.Compose) -> None:
        # Not FashionMNIST's own, which reads the four files: this project takes the data from other places as well.
        datasets.VisionDataset.__init__(self, root="", transform=transform)
        self.data, self.targets = dataset.train_images, dataset.train_labels


class PlainLoop:
    """Trains one network as tutorials do: DataLoader, a transform per image, Adam, `.item()` at every step.

    `network` is one of `classic`, whose settings, seed and preparation of the pixels are taken over; `precision` is
    "fp32", or "bf16" by autocast.
    """

    def __init__(self, network: Network, dataset: FashionMNIST, precision: str = "fp32") -> None:
        torch.manual_seed(network.training.seed)
        self.model = PLAIN[network.name]()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=network.training.lr)
        self.batch_size = network.training.batch_size
        self.precision = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()
        self.mean, self.std = network.argument("mean"), network.argument("std")
        prepared = [transforms.ToTensor(), transforms.Normalize((self.mean,), (self.std,))]
        self.images = PlainImages(dataset, transforms.Compose(prepared))

    def train_epoch(self, indices: Sequence[int]) -> float:
        """Train once on the images of these indices; return the seconds that it took."""
        batches = DataLoader(Subset(self.images, indices), batch_size=self.batch_size, shuffle=True)
        loss_function = nn.CrossEntropyLoss()
        self.model.train()
        running_loss = 0.0
        started = time.perf_counter()
        for inputs, labels in batches:
            self.optimizer.zero_grad()
            with self.precision:
                loss = loss_function(self.model(inputs), labels)
            loss.backward()
            self.optimizer.step()
            running_loss += loss.item()
        return time.perf_counter() - started

    @torch.inference_mode()
    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """The fraction of uint8 images [N, 28, 28] whose likeliest class is their label [N], in single precision."""
        self.model.eval()
        pixels = (batch[:, None].float().div(255).sub(self.mean).div(self.std) for batch in images.split(1000))
        classes = torch.cat([self.model(batch).argmax(dim=1) for batch in pixels])
        return float((classes == labels).double().mean())


# This project's loop


class Fitted(NamedTuple):
    """What `training.fit` has trained."""

    learner: learners.Learner
    seconds: float  # with checkpoints and all
    history: list[Epoch]


def train_by_fit(network: Network, dataset: FashionMNIST, count: int, precision: str) -> Fitted:
    """Train on the first `count` images by `training.fit`, checkpoints and all."""
    config = network.training
    training_data = TrainingData(dataset.train_images, dataset.train_labels, torch.arange(count), torch.arange(0))
    steps = config.epochs * training.steps_per_epoch(count, config.batch_size)
    learner = learners.make_learner(network.build(), config, Machine(CPU, precision), steps)
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(None):
        kept = Checkpoints(Path(folder), network.run_name, network.settings)
        started = time.perf_counter()
        trained = training.fit(learner, training_data, config, kept, training.Progress())
        return Fitted(learner, time.perf_counter() - started, trained.history)


def learner_accuracy(learner: learners.Learner, images: Tensor, labels: Tensor) -> float:
    """The fraction of uint8 images [N, 28, 28] whose likeliest class is their label [N], in single precision."""
    return float((learners.log_probabilities(learner, images).argmax(dim=1) == labels).double().mean())
