"""Captions and alternative texts against sentences written by hand."""

import pytest

from fmnist import captions
from tests.helpers.figure_checks import CALIBRATION, MISTAKES
from tests.helpers.runs import metrics, network, with_seeds

ROW = {"training images": 6000, "test images": 1000, "nearest look-alike": "Shirt"}
HELD_OUT = {"validation_loss": 0.3, "validation_accuracy": 0.9}
STATISTICS = {
    "pixel mean": 0.286,
    "pixel deviation": 0.353,
    "classes": [
        {"class": "Bag", "pixel mean": 0.2, "correlation": 0.5, **ROW},
        {"class": "Coat", "pixel mean": 0.1, "correlation": 0.9, **ROW, "training images": 5000},
    ],
}
FFN, CNN = metrics()["models"].values()
CNN["epochs"] = [CNN["epochs"][0], {**CNN["epochs"][1], "train_loss": 0.04}]


@pytest.mark.parametrize(
    ("kind", "models", "expected"),
    [
        ("loss_curves", [FFN, CNN], "Training loss of FFN and CNN over 2 epochs: FFN 0.25 and CNN 0.04 at the end."),
        ("loss", [with_seeds()], "Training loss of FFN over 1 epoch: FFN 0.20 at the end."),
        (
            "loss",
            [with_seeds(), CNN],
            "Training loss of FFN and CNN over 1 to 2 epochs: FFN 0.20 and CNN 0.04 at the end.",
        ),
        (
            "accuracy_curves",
            [FFN, CNN],
            "Training accuracy of FFN and CNN over 2 epochs: FFN 90.00 % and CNN 90.00 % at the end; "
            "test accuracy FFN 88.41 % and CNN 91.52 %.",
        ),
        ("gains", [FFN, CNN, with_seeds()], "A bar a network: test accuracy FFN 88.41 %, CNN 91.52 % and FFN 88.50 %."),
        (
            "study",
            [
                network(title, 0.5, epochs=[{**FFN["epochs"][0], **HELD_OUT, "validation_accuracy": accuracy}])
                for title, accuracy in (("FFN, lr 0.1", 0.75), ("FFN, lr 1", 0.5), ("FFN, lr 0.01", 0.625))
            ],
            "Mean validation accuracy of 3 combinations: 50.00 % (FFN, lr 1) to 75.00 % (FFN, lr 0.1).",
        ),
        ("confusion", [CNN], "Confusion matrix of CNN: 11 of 12 on the diagonal."),
        (
            "reliability",
            [{**CNN, "calibration": CALIBRATION}],
            "Accuracy of CNN by confidence: expected calibration error 4.31 %; at temperature 1.62, 0.87 %.",
        ),
        (
            "mistakes",
            [{**CNN, "mistakes": MISTAKES}],
            "Of 29 mistakes the 29 of which CNN is surest; 10 of them have labels that look wrong.",
        ),
        ("examples", [CNN], "Test images that CNN predicts: 11 of 12 are correct."),
        ("incorrect", [FFN], "Some of the 4 test images that FFN predicts incorrectly."),
        ("class_counts", [], "Bars for the 2 classes: 5,000 to 6,000 training and 1,000 test images in each."),
        ("pixel_histogram", [], "Histogram of the grey levels from 0 to 1: mean 0.29, standard deviation 0.35."),
        (
            "class_statistics",
            [],
            "Mean and standard deviation of each class's pixels: means 0.10 (Coat) to 0.20 (Bag).",
        ),
        ("look_alikes", [], "Matrix of the correlations of the classes' mean images: Coat and Shirt highest, 0.90."),
        ("a kind of tomorrow", [FFN], ""),
    ],
)
def test_alternative_texts_say_what_is_to_be_seen(kind, models, expected):
    assert captions.alternative(kind, {str(n): model for n, model in enumerate(models)}, STATISTICS) == expected


@pytest.mark.parametrize("held_out", [{}, HELD_OUT])
def test_no_kind_is_without_an_alternative_text(held_out):
    epochs = [{"train_loss": 0.2, "train_accuracy": 0.9, **held_out}]
    model = network("V", 0.9, epochs=epochs, calibration=CALIBRATION, mistakes=MISTAKES)
    kinds = {*captions.CAPTIONS, *captions.OF_MODELS, *captions.OF_DATA, *captions.WITHOUT_NUMBERS}
    kinds -= set() if held_out else {"study"}  # a study always holds images out
    assert all(captions.alternative(kind, {"ffn": model}, STATISTICS) for kind in kinds)


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("cnn_loss", ("cnn", "loss")),
        ("cnn_small_loss", ("cnn_small", "loss")),
        ("loss_curves", (None, "loss_curves")),
        ("None_loss", (None, "None_loss")),
    ],
)
def test_a_figure_is_of_the_network_of_the_longest_name_that_its_own_begins_with(stem, expected):
    assert captions.owner_and_kind(stem, ["cnn", "cnn_small", "ffn"]) == expected


def loss_caption(train: list, test: float | None, validation: list | None = None, **more: object) -> str:
    epochs = [{"train_loss": loss} for loss in train]
    for epoch, loss in zip(epochs, validation or [], strict=False):
        epoch["validation_loss"] = loss
    return captions.caption("loss", {"v": network("V", 0.9, epochs=epochs, test_loss=test, **more)})


def test_the_caption_of_a_loss_follows_from_the_numbers():
    assert "ends at 0.05, the test loss is 0.42: the network overfits" in loss_caption([0.5, 0.05], 0.4155)
    assert "overfits" not in loss_caption([0.5, 0.31], 0.35)
    turned = loss_caption([0.5, 0.3, 0.1], 0.3, [0.4, 0.25, 0.35])
    assert "is lowest in epoch 2, 0.25, and ends at 0.35 while the training loss falls: the network overfits" in turned
    assert "no sign of overfitting" in loss_caption([0.5, 0.3, 0.1], 0.3, [0.4, 0.3, 0.25])
    unsteady = loss_caption([0.5, 0.4, 0.3, 0.31], 0.3, [0.5, 0.4, 0.3, 0.6])
    assert "is lowest in epoch 3, 0.30, and ends at 0.60, and the training loss has not fallen since" in unsteady
    assert loss_caption([0.5, 0.3], None).strip() == captions.CAPTIONS["loss"], "a loss that is not finite says nothing"


@pytest.mark.parametrize("validation", [None, [0.4, 0.3], [0.3, 0.4]])
def test_of_several_seeds_the_caption_of_a_loss_names_the_one_whose_losses_it_tells(validation):
    seeds = {"seeds": [{"seed": 7, "epochs": []}, {"seed": 8, "epochs": []}]}
    assert " of seed 7 " in loss_caption([0.5, 0.3], 0.3, validation, **seeds)
    assert "seed" not in loss_caption([0.5, 0.3], 0.3, validation)
