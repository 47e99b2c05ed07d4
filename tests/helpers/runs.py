"""Results of a run, made up: what metrics.json would hold, and what two networks make of twelve images."""

import numpy as np
from sklearn.metrics import precision_recall_fscore_support

from fmnist.evaluation import Predictions

CLASSES = ("T-shirt/top", "Trouser", "Bag")
LABELS = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2]
PREDICTED = {"ffn": [0, 0, 1, 1, 1, 1, 0, 2, 2, 2, 2, 0], "cnn": [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2]}
CONFUSION = {"ffn": [[2, 2, 0], [1, 2, 0], [1, 0, 4]], "cnn": [[3, 1, 0], [0, 3, 0], [0, 0, 5]]}
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
EFFECTS = [
    {"factors": ["pool"], "low": "max", "high": "stride", "effect": -0.0051, "verdict": "more than noise"},
    {"factors": ["pool", "optimizer"], "low": "", "high": "", "effect": 0.0002, "verdict": "one seed: no verdict"},
]
EFFECTS[0] |= {"interval": [-0.0061, -0.0041], "degrees_of_freedom": 16, "p_value": 1e-4, "p_holm": 2e-4}


def predictions(name: str) -> Predictions:
    """Image i is predicted with probability 0.60 + i/100; half of the rest goes to each other class."""
    confidence = 0.6 + np.arange(12) / 100
    probabilities = np.repeat((1 - confidence)[:, None] / 2, 3, axis=1)
    probabilities[np.arange(12), PREDICTED[name]] = confidence
    return Predictions(IMAGES, np.array(LABELS), probabilities.astype(np.float32))


def per_class(labels: list, predicted: list) -> dict:
    names = ("precision", "recall", "f1", "support")
    scores = precision_recall_fscore_support(labels, predicted, zero_division=0)
    return {name: values.tolist() for name, values in zip(names, scores, strict=True)}


def network(title: str, accuracy: float, predicted: str = "ffn", **more: object) -> dict:
    return {
        "title": title,
        "change": "",
        "why": "",
        "published": {},
        "reproduction": {},
        "reproduced_epochs": [],
        "parameters": 203530,
        "multiply_adds": 203264,
        "test_accuracy": accuracy,
        "train_subset_accuracy": 0.9,
        "mean_accuracy": 0.85,
        "test_loss": 0.5,
        "train_loss": 0.25,
        "confusion": CONFUSION[predicted],
        "per_class": per_class(LABELS, PREDICTED[predicted]),
        "config": {"network": {"class": "ffn:FFN", "hidden": [256]}, "training": {"seed": 4}},
        "epochs": [{"train_loss": 0.9, "train_accuracy": 0.7}, {"train_loss": 0.25, "train_accuracy": 0.9}],
        "training_seconds": 4.0,
        "seconds_per_epoch": 2.0,
        **more,
    }


def metrics(**more: object) -> dict:
    one_seed = {"test_accuracy": {"verdict": "one seed: no verdict", "n": 1}}
    models = {
        "ffn": network("FFN", 0.8841, published={"test_accuracy": 0.8836}, reproduction=one_seed),
        "cnn": network("CNN", 0.9152, "cnn", parameters=421642),
    }
    comparison = {"a": "ffn", "b": "cnn", "difference": 0.0311, "p_value": 0.0002, "n": 10000, "test": "McNemar"}
    comparison |= {"verdict": "these two trained networks differ (McNemar p < 0.001); one seed says nothing"}
    machine = {"device": "cpu", "precision": "fp32", "threads": 2, "versions": {"torch": "2.14.1"}}
    machine |= {"processor": "M1", "created": "2026-01-02T03:04:05", "command": "python f.py", "commit": "abc"}
    rest = {"source": "", "seed": 0, "data": {"source": "a folder"}, "best": None, "columns": [], "notes": []}
    rest |= {"release": "current", "effects": []}
    return {
        "recipe": "classic",
        "title": "Two",
        "models": models,
        "comparisons": [comparison],
        **machine,
        **rest,
        **more,
    }


def one(model: dict) -> dict:
    return metrics(models={"v": model}, comparisons=[])


def with_seeds(**more: object) -> dict:
    """FFN from five seeds."""
    several = {
        "seeds": [{"seed": 4 + n, "epochs": [{"train_loss": 0.1 * n, "train_accuracy": 0.9}]} for n in range(5)],
        "mean": {"test_accuracy": 0.8850, "train_loss": 0.2, "test_loss": 0.4, "best_epoch": 7.5},
        "std": {"test_accuracy": 0.0012, "test_loss": 0.01, "best_epoch": 0.7071},
        "published": {"test_accuracy": 0.8836, "test_loss": 0.41},
        "reproduction": {
            "test_accuracy": {"verdict": "exceeded", "n": 5},
            "test_loss": {"verdict": "reproduced", "n": 5},
        },
    }
    return network("FFN", 0.8812, best_epoch=8, **several, **more)
