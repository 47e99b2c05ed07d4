"""What a run's figures show, in words: the captions in report.html, and the texts for those who do not see them.

Figures are told apart by their kind: the name of the PNG file, without the network's name before it. `models` are the
networks a figure shows, as metrics.json has them; `statistics` is what it says of the data set.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fmnist.metrics import Model
from fmnist.study_results import trainings_of, validation_accuracy
from fmnist.tables import epochs_text, mean_of, range_text

OVERFITS_TEST = 1.5  # ratio of test to training loss from which a network is said to overfit
OVERFITS_VALIDATION = 1.05  # ratio of the last to the lowest validation loss, for the same

CAPTIONS = {
    "loss": "Loss in training; dashed, on held-out images where there are some.",
    "loss_curves": (
        "Loss of all networks on common axes; dashed, on held-out images where there are some; crosses, as published. "
        "A training loss that falls while the loss on other images rises means overfitting: the network grows more "
        "confident, also in its errors, even where its accuracy still rises."
    ),
    "accuracy_curves": (
        "Accuracy of all networks on common axes: in training; dashed, on held-out images where there are some; as a "
        "star, on the test images, at the epoch whose weights were scored."
    ),
    "accuracy_comparison": (
        "Test accuracy of each network, of several seeds their mean and standard deviation. Where the networks combine "
        "factors in every way: the effect of each factor, averaged over the others, and how far they depend on each "
        "other, with 95 % intervals."
    ),
    "gains": "Test accuracy of each version, and what it gained over the one before.",
    "model_comparison": (
        "Loss and accuracy of all networks on common axes: on the training images and, where there are some, on "
        "held-out ones."
    ),
    "study": (
        "Accuracy for every value of what was varied, or, where one thing at a time was changed, how far it is from "
        "the baseline's; mean and standard deviation where there are several seeds. The images that were held out "
        "select, the test images judge. Not every difference is more than noise: see the table."
    ),
    "confusion": "Rows are true classes, columns predicted ones: whatever lies off the diagonal was confused.",
    "examples": (
        "Test images predicted correctly, on the left, and incorrectly, on the right, each with its true class, the "
        "prediction and its probability."
    ),
    "correct": "Test images predicted correctly, and the probability of each prediction.",
    "incorrect": "Test images predicted incorrectly: the true class, the prediction and its probability.",
    "mistakes": (
        "The mistakes that the network is surest of. A label looks wrong where five small networks, none of which had "
        "seen a test image, believe it least, by confident learning: not every such label is wrong, nor every other "
        "one right."
    ),
    "reliability": (
        "On the dashed line a network is correct as often as its probabilities say; below it, it is overconfident. The "
        "temperature that the logits are divided by changes no prediction, and is fitted on held-out training images."
    ),
    "audit_training": (
        "Confident learning: of each class, as many images as networks that had not seen them surely put elsewhere, "
        "those first whose label they believe least. Not every one is mislabelled: look, and judge."
    ),
    "audit_test": "The same of the test images, by the mean of five networks, none of which had seen any.",
    "audit_pairs": "The nearest pairs of images among all training and test images.",
    "kernels_grid": (
        "The kernels of one convolution on one colour scale: each is a small pattern that the network looks for."
    ),
    "features_grid": "The feature maps of one image: strong where the kernel's pattern is found.",
    "progression": "Activations by layer, from the image to the class probabilities at the end.",
    "explanation": (
        "Why classes have their scores, by several methods: red pixels speak for the class of the row, blue ones "
        "against it. The methods ask different questions, and where they disagree none of them is wrong."
    ),
    "photograph": "The photograph, the image of 28 x 28 pixels that the network is given, and its prediction.",
}

WITHOUT_NUMBERS = {
    "kernels_grid": "A grid of the kernels: negative weights blue, zero white, positive red.",
    "features_grid": "The image beside a grid of its feature maps: negative values blue, zero white, positive red.",
    "progression": "A row of maps for each layer; left of them the image, right of them ten bars, the probabilities.",
    "explanation": "A row for each class, a column for each method: maps of what speaks for it, in red, or against it.",
    "photograph": "The photograph, what became of it step by step, and three bars, the likeliest classes.",
    "samples": "The first training images of each class, a row for each of the ten classes.",
    "class_means": "Ten blurred grey images, the mean training image of each class.",
    "audit_training": "Training images whose labels look wrong, each with its number, label and prediction.",
    "audit_test": "Test images whose labels look wrong, each with its number, label and prediction.",
    "audit_pairs": "Pairs of images that look the same, each with its numbers, classes and distance.",
}


def owner_and_kind(stem: str, models: Iterable[str]) -> tuple[str | None, str]:
    """Which of `models` a figure is of, None for all, and of what kind: of the name of its file, without the ending."""
    owner = max((name for name in models if stem.startswith(f"{name}_")), key=len, default=None)
    return owner, stem.removeprefix(f"{owner}_") if owner else stem


def caption(kind: str, models: Mapping[str, Model]) -> str:
    """Return what the reader of a figure should know; empty where its title says it all."""
    fits = [_fit(model) for model in models.values()] if kind == "loss" else []
    return " ".join([CAPTIONS.get(kind, ""), *fits])


def alternative(kind: str, models: Mapping[str, Model], statistics: Mapping[str, Any]) -> str:
    """Return what is to be seen in a figure, with its numbers; empty for a kind that is not known."""
    if kind in OF_MODELS and models:
        return OF_MODELS[kind](list(models.values()))
    if kind in OF_DATA and statistics:
        return OF_DATA[kind](statistics)
    return WITHOUT_NUMBERS.get(kind, "")


def _fit(model: Model) -> str:
    """What the losses of a training say of its fit; of several seeds, of the first one's."""
    train, test = [epoch["train_loss"] for epoch in model["epochs"]], model["test_loss"]
    validation = [epoch["validation_loss"] for epoch in model["epochs"] if "validation_loss" in epoch]
    if None in (test, *train, *validation):  # of a number that is not finite
        return ""
    seed = f" of seed {model['seeds'][0]['seed']}" if "seeds" in model else ""
    meaning = "it grows more confident, also in its errors, though its accuracy may still rise."
    if not validation:
        ends = f"The training loss{seed} ends at {train[-1]:.2f}, the test loss is {test:.2f}"
        if test > OVERFITS_TEST * train[-1]:
            return f"{ends}: the network overfits; {meaning}"
        return f"{ends}. Only held-out images tell whether more epochs would help (--validation 0.1)."
    lowest = validation.index(min(validation))
    held_out = f"The loss on held-out images{seed}"
    if validation[-1] <= OVERFITS_VALIDATION * validation[lowest]:
        return f"{held_out} ends at {validation[-1]:.2f}, near its lowest: no sign of overfitting."
    turn = f"{held_out} is lowest in epoch {lowest + 1}, {validation[lowest]:.2f}, and ends at {validation[-1]:.2f}"
    if train[-1] < train[lowest]:
        return f"{turn} while the training loss falls: the network overfits; {meaning}"
    return f"{turn}, and the training loss has not fallen since either: the training is unstable."


# What is to be seen, by kind


def _losses(models: list[Model]) -> str:
    held_out = [model for model in models if "validation_loss" in model["epochs"][-1]]
    validation = ""
    if held_out:
        ends = _each(held_out, lambda model: _decimal(_last(model, "validation_loss")))
        validation = f"; on held-out images {ends}"
    train = _each(models, lambda model: _decimal(_last(model, "train_loss")))
    return f"Training loss of {_titles(models)} over {_epochs(models)}: {train} at the end{validation}."


def _accuracies(models: list[Model]) -> str:
    train = _each(models, lambda model: _percent(_last(model, "train_accuracy")))
    return f"Training accuracy of {_titles(models)} over {_epochs(models)}: {train} at the end; {_test(models)}."


def _comparison(models: list[Model]) -> str:
    return f"Curves of loss and accuracy of {_titles(models)} over {_epochs(models)}; {_test(models)}."


def _gains(models: list[Model]) -> str:
    return f"A bar a network: {_test(models)}."


def _costs(models: list[Model]) -> str:
    costs = _each(models, lambda model: f"{model['parameters']:,} and {model['multiply_adds']:,}")
    return (
        "Points for test accuracy against parameters, multiply-adds and time: "
        f"{_test(models)}; parameters and multiply-adds {costs}."
    )


def _study(models: list[Model]) -> str:
    validated = sorted(models, key=lambda model: validation_accuracy(model).mean)
    ends = [
        f"{_percent(validation_accuracy(model).mean)} ({model['title']})" for model in (validated[0], validated[-1])
    ]
    return f"Mean validation accuracy of {len(models)} combinations: {' to '.join(ends)}."


def _confusion(models: list[Model]) -> str:
    return f"Confusion matrix of {_titles(models)}: {_correct(models[0])} of {_images(models[0])} on the diagonal."


def _reliability(models: list[Model]) -> str:
    calibration = models[0]["calibration"]
    errors = [_percent(calibration[key]) for key in ("ece", "ece_after")]
    at = f"at temperature {_decimal(calibration['temperature'])}"
    return f"Accuracy of {_titles(models)} by confidence: expected calibration error {errors[0]}; {at}, {errors[1]}."


def _examples(models: list[Model]) -> str:
    model = models[0]
    return f"Test images that {model['title']} predicts: {_correct(model)} of {_images(model)} are correct."


def _correct_examples(models: list[Model]) -> str:
    return f"Some of the {_correct(models[0])} test images that {models[0]['title']} predicts correctly."


def _incorrect_examples(models: list[Model]) -> str:
    return f"Some of the {_incorrect(models[0])} test images that {models[0]['title']} predicts incorrectly."


def _mistakes(models: list[Model]) -> str:
    made = models[0]["mistakes"]
    surest = f"the {len(made['surest'])} of which {models[0]['title']} is surest"
    return (
        f"Of {made['count']:,} mistakes {surest}; {sum(made['surest_suspected'])} of them have labels that look wrong."
    )


def _class_counts(statistics: Mapping[str, Any]) -> str:
    train, test = (
        range_text([row[f"{part} images"] for row in statistics["classes"]], "{:,}".format)
        for part in ("training", "test")
    )
    return f"Bars for the {len(statistics['classes'])} classes: {train} training and {test} test images in each."


def _pixel_histogram(statistics: Mapping[str, Any]) -> str:
    mean, std = statistics["pixel mean"], statistics["pixel deviation"]
    return f"Histogram of the grey levels from 0 to 1: mean {_decimal(mean)}, standard deviation {_decimal(std)}."


def _class_statistics(statistics: Mapping[str, Any]) -> str:
    rows = sorted(statistics["classes"], key=lambda row: row["pixel mean"])
    ends = [f"{_decimal(row['pixel mean'])} ({row['class']})" for row in (rows[0], rows[-1])]
    return f"Mean and standard deviation of each class's pixels: means {' to '.join(ends)}."


def _look_alikes(statistics: Mapping[str, Any]) -> str:
    nearest = max(statistics["classes"], key=lambda row: row["correlation"])
    pair = f"{nearest['class']} and {nearest['nearest look-alike']}"
    return (
        f"Matrix of the correlations of the classes' mean images: {pair} highest, {_decimal(nearest['correlation'])}."
    )


OF_MODELS: "dict[str, Callable[[list[Model]], str]]" = {
    "loss_curves": _losses,
    "loss": _losses,
    "accuracy_curves": _accuracies,
    "accuracy_comparison": _gains,
    "model_comparison": _comparison,
    "gains": _gains,
    "cost": _costs,
    "study": _study,
    "confusion": _confusion,
    "reliability": _reliability,
    "examples": _examples,
    "correct": _correct_examples,
    "incorrect": _incorrect_examples,
    "mistakes": _mistakes,
}
OF_DATA: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "class_counts": _class_counts,
    "pixel_histogram": _pixel_histogram,
    "class_statistics": _class_statistics,
    "look_alikes": _look_alikes,
}


# Numbers and lists in words


def _titles(models: list[Model]) -> str:
    return _listed([model["title"] for model in models])


def _each(models: list[Model], number: Callable[[Model], str]) -> str:
    return _listed([f"{model['title']} {number(model)}" for model in models])


def _listed(words: list[str]) -> str:
    """ "a", "a and b", or "a, b and c"."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _last(model: Model, key: str) -> float | None:
    """A number of the last epoch, the mean over the seeds; None where one is not finite."""
    values = [training["epochs"][-1][key] for training in trainings_of(model)]
    return None if None in values else sum(values) / len(values)


def _epochs(models: list[Model]) -> str:
    epochs = epochs_text(models)
    return f"{epochs} epoch{'' if epochs == '1' else 's'}"


def _test(models: list[Model]) -> str:
    return f"test accuracy {_each(models, lambda model: _percent(mean_of(model, 'test_accuracy')))}"


def _correct(model: Model) -> str:
    return f"{sum(row[n] for n, row in enumerate(model['confusion'])):,}"


def _incorrect(model: Model) -> str:
    return f"{sum(sum(row) - row[n] for n, row in enumerate(model['confusion'])):,}"


def _images(model: Model) -> str:
    return f"{sum(map(sum, model['confusion'])):,}"


def _decimal(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.2f} %"
