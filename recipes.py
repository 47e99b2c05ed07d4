"""The experiments, as data: their networks, training settings, sources and published figures.

To add a network to a recipe, add a `Network` to its tuple; to add a recipe, add a `Recipe` to RECIPES. The loop, tables
and figures take it from there.
"""

from dataclasses import replace

from fmnist.config import Network, Recipe, TrainConfig

CLASSIC = Recipe(
    name="classic",
    title="FFN against CNN",
    summary="a feed-forward and a convolutional network, as simple as they come",
    source="github.com/ayushsinha12/ai-neural-networks",
    networks=(
        Network(
            name="ffn",
            title="FFN",
            class_path="ffn:FFN",
            arguments={"hidden": [256], "dropout": 0.2},
            published={
                "parameters": 203_530,
                "test_accuracy": 0.8836,
                "train_subset_accuracy": 0.9115,
                "mean_accuracy": 0.8883,
            },
        ),
        Network(
            name="cnn",
            title="CNN",
            class_path="cnn:CNN",
            arguments={"kernels": [32, 64], "kernel_size": 3, "pool": "max", "dense": [128], "dropout": 0.25},
            published={
                "parameters": 421_642,
                "test_accuracy": 0.9147,
                "train_subset_accuracy": 0.9655,
                "mean_accuracy": 0.9232,
            },
        ),
    ),
    notes=(
        "Differs from the source: 20 epochs, as its README says, for both networks (its code: 15 and 10), and pixels "
        "of mean 0 and standard deviation 1 (its code: -1 to 1). Its figures were measured with dropout active.",
    ),
)

BATCHNORM = Recipe(
    name="batchnorm",
    title="deeper, normalised networks",
    summary="five linear layers against three convolutions, both with batch norm and a falling learning rate",
    source="github.com/rishipat160/Fashion-MNIST-Classifier",
    figures=("layers",),
    networks=(
        Network(
            name="ffn",
            title="FFN, batch norm",
            class_path="ffn:FFN",
            arguments={"hidden": [1024, 512, 256, 128], "dropout": 0.3, "batch_norm": True},
            training=TrainConfig(epochs=15, batch_size=32, schedule="plateau"),
        ),
        Network(
            name="cnn",
            title="CNN, batch norm",
            class_path="cnn:CNN",
            arguments={"kernels": [64, 128, 256], "norm": "before", "dense": [1024, 512], "dropout": 0.4},
            training=TrainConfig(epochs=12, batch_size=32, lr=3e-3, schedule="plateau"),
        ),
    ),
    notes=(
        "The author reports only that the CNN beats the FFN.",
        "Differs from the source: pixels of mean 0 and standard deviation 1 (its code: -1 to 1).",
    ),
)

RESNET = Recipe(
    name="resnet",
    title="a small CNN against ResNet-18",
    summary="the data explored, then accuracy set against parameters, multiply-adds and time",
    source="github.com/Beshlee/SEN4107_Fashion_MNIST",
    explores=True,
    figures=("cost", "layers"),
    columns=("multiply_adds", "seconds_per_epoch"),
    networks=(
        Network(
            name="cnn",
            title="Baseline CNN",
            class_path="cnn:CNN",
            arguments={
                "kernels": [32, 64],
                "padding": 0,
                "pool_after": [2],
                "dense": [128],
                "conv_dropout": 0.25,
                "dropout": 0.5,
            },
            training=TrainConfig(epochs=5, optimizer="adadelta", lr=1.0),
            published={"parameters": 1_199_882, "test_accuracy": 0.9134, "train_loss": 0.2318},
        ),
        Network(
            name="resnet18",
            title="ResNet-18",
            class_path="cnn:ResNet18",
            training=TrainConfig(epochs=5, lr=1e-4),
            published={"test_accuracy": 0.8947, "train_loss": 0.1571},
        ),
    ),
    notes=(
        "Differs from the source: images of 28x28 for ResNet-18 (its code: resized to 32x32), and pixels of mean 0 and "
        "standard deviation 1 (its code: -1 to 1).",
    ),
    findings=(
        "ResNet-18 comes to a lower training loss than published, and to a lower test accuracy: at a constant rate it "
        "overfits.",
    ),
)

ADAMW = TrainConfig(epochs=10, optimizer="adamw", lr=3e-4, weight_decay=0.01, validation=0.1)
V1 = {"kernels": [64, 128], "padding": [1, 0], "norm": "after", "dense": []}
V2 = {**V1, "dense": [1024, 1024], "dense_norm": True, "dropout": 0.0}
V3 = {**V2, "conv_dropout": 0.1, "dropout": 0.1}

EVOLUTION = Recipe(
    name="evolution",
    title="from hand-written backpropagation to a regularised CNN",
    summary="four versions, each with one idea more than the one before",
    source="github.com/VidyasagarDudekula/NN-FASHION-MNIST-scratch",
    figures=("gains", "steps"),
    notes=(
        "v0 learns by the squared error; its losses are the cross-entropy of its outputs, for comparison.",
        "Differs from the source: the best epoch on validation images is scored (there the last), v1 and v2 have no "
        "dropout behind their convolutions (its code: 0.1), v0 has biases and an exact backward pass.",
        "Published on the first release of the data set, and on 9,000 of its 10,000 test images.",
    ),
    findings=("v1 to v3 overfit at a constant rate, so that it matters which epoch is scored.",),
    networks=(
        Network(
            name="v0",
            title="v0, NumPy",
            class_path="numpy_ffn:NumpyFFN",
            arguments={"hidden": [300, 100]},
            training=TrainConfig(epochs=20, batch_size=16, lr=0.2, optimizer="sgd", schedule="cosine", validation=0.1),
            published={"parameters": 266_610, "test_accuracy": 0.8748},
            change="fully connected, backpropagation by hand",
        ),
        Network(
            name="v1",
            title="v1, CNN",
            class_path="cnn:CNN",
            arguments=V1,
            training=ADAMW,
            published={"test_accuracy": 0.9173},
            change="two convolutions with batch norm",
        ),
        Network(
            name="v2",
            title="v2, deeper",
            class_path="cnn:CNN",
            arguments=V2,
            training=ADAMW,
            published={"test_accuracy": 0.9254},
            change="two hidden layers with layer norm",
        ),
        Network(
            name="v3",
            title="v3, regularised",
            class_path="cnn:CNN",
            arguments=V3,
            training=ADAMW,
            published={"test_accuracy": 0.9319, "test_loss": 0.2689},
            change="dropout after every block",
        ),
    ),
)

CHOICE = TrainConfig(epochs=6, validation=0.1)
CHOICE_CNN = {
    "kernels": [32, 32, 64, 64],
    "pool_after": [2, 3, 4],
    "norm": "before",
    "dense": [512],
    "conv_dropout": 0.25,
    "dropout": 0.5,
}

CHOICES = Recipe(
    name="choices",
    title="one network, its design choices compared",
    summary="ReLU or LeakyReLU, max-pooling or strided convolution, Adam or SGD with momentum",
    source="a README whose repository is not named",
    networks=(
        Network(
            name="relu",
            title="ReLU, max-pool, Adam",
            class_path="cnn:CNN",
            arguments={**CHOICE_CNN, "activation": "relu", "pool": "max"},
            training=CHOICE,
        ),
        Network(
            name="leaky_relu",
            title="LeakyReLU",
            class_path="cnn:CNN",
            arguments={**CHOICE_CNN, "activation": "leaky_relu", "pool": "max"},
            training=CHOICE,
            change="LeakyReLU for ReLU",
        ),
        Network(
            name="strided",
            title="strided convolution",
            class_path="cnn:CNN",
            arguments={**CHOICE_CNN, "activation": "relu", "pool": "stride"},
            training=CHOICE,
            change="a stride of two for max-pooling",
        ),
        Network(
            name="sgd",
            title="SGD, momentum 0.9",
            class_path="cnn:CNN",
            arguments={**CHOICE_CNN, "activation": "relu", "pool": "max"},
            training=replace(CHOICE, optimizer="sgd", lr=0.05, momentum=0.9),
            change="SGD with momentum for Adam",
        ),
    ),
    figures=("best layers",),
    baseline="relu",
    notes=(
        "Published: every configuration above 90 % test accuracy.",
        "Differs from the source: four of its eight configurations, 6 epochs (there up to 25, stopped early), batch "
        "norm before the activation (its code: after), and maps halved after layers 2, 3 and 4 (its code: 2 and 4, "
        "which makes 1,677,674 parameters).",
    ),
)

ONE_CYCLE = TrainConfig(schedule="one-cycle", warmup=0.15)

SPEEDRUN = Recipe(
    name="speedrun",
    title="the published accuracies in a few epochs",
    summary="classic's networks without dropout, in 4 and 2 epochs on a one-cycle schedule",
    source="github.com/ayushsinha12/ai-neural-networks",
    networks=(
        Network(
            name="ffn",
            title="FFN",
            class_path="ffn:FFN",
            arguments={"hidden": [256], "dropout": 0.0},
            training=replace(ONE_CYCLE, epochs=4, lr=3e-3),
            published={"parameters": 203_530, "test_accuracy": 0.8836},
        ),
        Network(
            name="cnn",
            title="CNN",
            class_path="cnn:CNN",
            arguments={"kernels": [32, 64], "kernel_size": 3, "pool": "max", "dense": [128], "dropout": 0.0},
            training=replace(ONE_CYCLE, epochs=2, batch_size=32, lr=3e-3, freeze_after=1),
            published={"parameters": 421_642, "test_accuracy": 0.9147},
        ),
    ),
    notes=("The published figures are of the same networks with dropout and more epochs.",),
    findings=(
        "The number of epochs, batch size, rate, dropout and when the first layer is frozen were chosen on validation "
        "images alone.",
    ),
)

EXPLORE = Recipe(
    name="explore",
    title="the data set alone",
    summary="class counts, pixel statistics, mean images, samples and look-alikes; trains nothing",
    explores=True,
)

RECIPES = {recipe.name: recipe for recipe in (CLASSIC, SPEEDRUN, BATCHNORM, RESNET, EVOLUTION, CHOICES, EXPLORE)}
