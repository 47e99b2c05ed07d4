"""The networks: parameters counted by hand, and forward passes written out in the textbook's order."""

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import scipy.fft
import torch
import torch.nn.functional as F

import recipes
from cnn import CNN, ResNet18, SmallMapConv2d, cosine_kernels
from ffn import FFN
from fmnist.config import TrainConfig
from fmnist.layers import MEAN, STD, Pixels
from fmnist.learners import NumpyLearner, multiply_adds

# Weights and biases, layer by layer; batch and layer norm have two numbers a channel or unit.
PARAMETERS = {
    ("classic", "ffn"): 203_530,
    ("classic", "cnn"): 421_642,
    ("speedrun", "ffn"): 203_530,
    ("speedrun", "cnn"): 421_642,
    ("batchnorm", "ffn"): 803_840 + 524_800 + 131_328 + 32_896 + 1_290 + 2 * (1024 + 512 + 256 + 128),
    ("batchnorm", "cnn"): 640 + 73_856 + 295_168 + 2 * (64 + 128 + 256) + 2_360_320 + 524_800 + 5_130,
    ("resnet", "cnn"): 1_199_882,
    # torchvision's 11,689,512 without two of three input channels (7*7*64 each) and 990 of 1000 classes.
    ("resnet", "resnet18"): 11_689_512 - 2 * 7 * 7 * 64 - 990 * 513,
    ("evolution", "v0"): 266_610,
    ("evolution", "v1"): 640 + 73_856 + 2 * (64 + 128) + 46_090,
    ("evolution", "v2"): 640 + 73_856 + 2 * (64 + 128) + 4_719_616 + 1_049_600 + 2 * (1024 + 1024) + 10_250,
    ("evolution", "v3"): 640 + 73_856 + 2 * (64 + 128) + 4_719_616 + 1_049_600 + 2 * (1024 + 1024) + 10_250,
}
# Maps of 28, 14, 7 and 3: 576 inputs to the dense layer; with strides the last are 4x4: 1024 inputs. Norms behind all.
CHOICES_MAPS = 320 + 9_248 + 18_496 + 36_928 + 2 * 192
CHOICES_DENSE = {"max": 576 * 512 + 512 + 2 * 512, "stride": 1024 * 512 + 512 + 2 * 512}
PARAMETERS |= {
    ("choices", f"{activation}_{pool}_{optimizer}"): CHOICES_MAPS + dense + 5_130
    for pool, dense in CHOICES_DENSE.items()
    for activation in ("relu", "leaky_relu")
    for optimizer in ("adam", "sgd")
}
# Convolutions without bias, a norm without scale behind each, and 3x3 maps to the output.
WIDTHS = {"record": (1, 32, 64, 64, 128, 128, 208, 208), "record-small": (1, 16, 28, 28, 48, 48, 54, 54)}
PARAMETERS |= {
    (recipe, "cnn"): sum(9 * a * b + b for a, b in pairwise(widths)) + 9 * widths[-1] * 10 + 10
    for recipe, widths in WIDTHS.items()
}
NETWORKS = {(recipe.name, net.name): net for recipe in recipes.RECIPES.values() for net in recipe.networks}


def images() -> torch.Tensor:
    return torch.randint(0, 256, (5, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def prepared(images: torch.Tensor) -> torch.Tensor:
    """What the first layer is given, float32 [B, 1, 28, 28]."""
    return Pixels()(images)


def scores(model: torch.nn.Module) -> torch.Tensor:
    return model(images())


def test_every_network_of_every_recipe_is_counted_by_hand():
    assert PARAMETERS.keys() == NETWORKS.keys()


@pytest.mark.parametrize(("key", "count"), PARAMETERS.items(), ids=["-".join(key) for key in PARAMETERS])
def test_parameters_are_as_counted_by_hand(key, count):
    network = NETWORKS[key]
    model = network.outline()
    arrays = model.parameters() if network.is_torch else model.parameters().values()
    assert sum(math.prod(array.shape) for array in arrays) == count
    assert network.published.get("parameters", count) == count


def test_choices_has_the_parameters_of_its_code_where_it_halves_its_maps_as_its_code_does():
    arguments = NETWORKS["choices", "relu_max_adam"].arguments | {"pool_after": [2, 4]}
    assert sum(weight.numel() for weight in CNN(**arguments).parameters()) == 1_677_674


def test_the_defaults_are_the_networks_of_classic():
    assert sum(p.numel() for p in FFN().parameters()) == 203_530
    assert sum(p.numel() for p in CNN().parameters()) == 421_642


# Multiply-adds of one image, by hand: output positions x kernel size x channels in x channels out.
RESNET_BLOCKS = sum(
    side * side * (9 * wide * wide * 3 + 9 * narrow * wide + (narrow * wide if narrow != wide else 0))
    for side, narrow, wide in [(8, 64, 64), (4, 64, 128), (2, 128, 256), (1, 256, 512)]
)
MULTIPLY_ADDS = {
    ("classic", "ffn"): 784 * 256 + 256 * 10,
    ("classic", "cnn"): 28**2 * 9 * 32 + 14**2 * 9 * 32 * 64 + 3136 * 128 + 128 * 10,
    ("resnet", "cnn"): 26**2 * 9 * 32 + 24**2 * 9 * 32 * 64 + 9216 * 128 + 128 * 10,
    ("resnet", "resnet18"): 16**2 * 49 * 64 + RESNET_BLOCKS + 512 * 10,
}


@pytest.mark.parametrize(("key", "count"), MULTIPLY_ADDS.items(), ids=["-".join(key) for key in MULTIPLY_ADDS])
def test_multiply_adds_are_as_counted_by_hand(key, count):
    assert multiply_adds(NETWORKS[key].build()) == count


def test_cost_of_the_numpy_network():
    config = TrainConfig(optimizer="sgd")
    cost = NumpyLearner(NETWORKS["evolution", "v0"].build(), config, 1).cost()
    assert cost == {"parameters": 266_610, "multiply_adds": 784 * 300 + 300 * 100 + 100 * 10}


# Forward passes, written out


def textbook(model: CNN, x: torch.Tensor, pool: str, norm: str | None, activation: str, pad: int) -> torch.Tensor:
    """Convolution, ReLU, pooling, on the weights of `model`; no dropout, batch norm as its mode has it."""
    own = dict(model.state_dict(keep_vars=True))
    act = {"relu": F.relu, "leaky_relu": partial(F.leaky_relu, negative_slope=0.1)}[activation]

    def normalised(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, variance = own[f"{name}.running_mean"].clone(), own[f"{name}.running_var"].clone()
        return F.batch_norm(x, mean, variance, own.get(f"{name}.weight"), own[f"{name}.bias"], model.training)

    for n in (1, 2):
        weight, bias = own[f"features.conv{n}.weight"], own.get(f"features.conv{n}.bias")
        x = F.conv2d(x, weight, bias, stride=2 if pool == "stride" else 1, padding=pad)
        if norm == "foldable":
            x = F.max_pool2d(x, 2) if pool == "max" else F.avg_pool2d(x, 2) if pool == "avg" else x
            x = act(normalised(x, f"features.norm{n}"))
            continue
        x = normalised(x, f"features.norm{n}") if norm == "before" else x
        x = act(x)
        x = normalised(x, f"features.norm{n}") if norm == "after" else x
        x = {"max": lambda x: F.max_pool2d(x, 2), "avg": lambda x: F.avg_pool2d(x, 2), "stride": lambda x: x}[pool](x)
    x = F.linear(x.flatten(1), own["classifier.linear1.weight"], own.get("classifier.linear1.bias"))
    x = act(normalised(x, "classifier.batch_norm1") if norm == "foldable" else x)
    return F.linear(x, own["classifier.output.weight"], own["classifier.output.bias"])


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
@pytest.mark.parametrize("norm", [None, "before", "after", "foldable"])
@pytest.mark.parametrize("pool", ["max", "avg", "stride"])
def test_cnn_is_the_textbooks_function_bit_for_bit(pool, norm, activation, training):
    torch.manual_seed(3)
    model = CNN([4, 6], pool=pool, norm=norm, activation=activation, dense=[12], dropout=0).train(training)
    for name, tensor in model.state_dict().items():  # norms that do nothing would hide a fault in the order
        if "norm" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 2)
    wanted = textbook(model, prepared(images()), pool, norm, activation, pad=1)
    given = scores(model)
    assert torch.equal(given, wanted)

    wanted_gradients = torch.autograd.grad(wanted.square().sum(), list(model.parameters()))
    gradients = torch.autograd.grad(given.square().sum(), list(model.parameters()))
    for gradient, wanted_gradient in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-5, atol=1e-6)


def test_max_pooling_stands_before_its_relu_and_batch_norm_after_a_relu_before_the_pooling():
    default = CNN([4]).features
    assert [name for name, _ in default.named_children()] == ["conv1", "pool1", "relu1"]
    after = CNN([4], norm="after").features
    assert [name for name, _ in after.named_children()] == ["conv1", "relu1", "norm1", "pool1"]
    average = CNN([4], pool="avg", norm="before").features
    assert [name for name, _ in average.named_children()] == ["conv1", "norm1", "relu1", "pool1"]


@pytest.mark.parametrize("norm", [None, "before", "foldable"])
def test_ffn_is_the_textbooks_function(norm):
    torch.manual_seed(4)
    model = FFN([9, 7], dropout=0.5, norm=norm).eval()
    own = model.state_dict()
    x = prepared(images()).flatten(1)
    for n in (1, 2):
        x = x @ own[f"linear{n}.weight"].T + own.get(f"linear{n}.bias", 0)
        if norm:
            mean, variance = own[f"norm{n}.running_mean"], own[f"norm{n}.running_var"]
            x = (x - mean) / (variance + 1e-5).sqrt() * own.get(f"norm{n}.weight", 1) + own[f"norm{n}.bias"]
        x = x.clamp(min=0)
    x = x @ own["output.weight"].T + own["output.bias"]
    torch.testing.assert_close(scores(model), x)


def folded(model: torch.nn.Module, plain: torch.nn.Module) -> torch.nn.Module:
    """Give `plain` the layers of `model`, with each batch norm folded into the layer before it."""
    layers = [m for m in model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    norms = [m for m in model.modules() if isinstance(m, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d))]
    targets = [m for m in plain.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    with torch.no_grad():
        for layer, norm, target in zip(layers, norms, targets, strict=False):  # the output has no norm
            std = (norm.running_var + norm.eps).sqrt()
            target.weight.copy_((layer.weight.flatten(1) / std[:, None]).view_as(target.weight))
            target.bias.copy_(norm.bias - norm.running_mean / std)
        targets[-1].load_state_dict(layers[-1].state_dict())
    return plain.eval()


@pytest.mark.parametrize("name", ["ffn", "cnn"])
def test_what_speedrun_has_trained_is_exactly_a_network_of_classic(name):
    network, classics = NETWORKS["speedrun", name], NETWORKS["classic", name]
    model = network.build()
    for _ in range(3):  # so that the norms have seen something
        model(images())
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
                norm.bias.normal_()
    plain = replace(classics, arguments={**classics.arguments, "mean": MEAN, "std": STD}).build()
    torch.testing.assert_close(scores(folded(model, plain)), scores(model.eval()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_cosine_kernels_are_an_orthonormal_basis_and_its_negatives(size):
    kernels = cosine_kernels(size).double()
    basis, negatives = kernels.flatten(1).split(size**2)
    torch.testing.assert_close(basis @ basis.T, torch.eye(size**2).double(), atol=1e-6, rtol=0)
    assert torch.equal(negatives, -basis)
    by_scipy = scipy.fft.idctn(torch.eye(size**2).view(-1, size, size).numpy(), axes=(1, 2), norm="ortho")
    torch.testing.assert_close(kernels[: size**2].float(), torch.from_numpy(by_scipy))


def test_a_first_layer_of_cosines_does_not_learn_and_the_others_do():
    model = CNN([20, 4], cosines=True, norm="foldable", identity=True)
    assert torch.equal(model.features.conv1.weight[:18, 0], cosine_kernels(3))
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["features.conv1.weight"]
    few = CNN([5, 4], cosines=True).features.conv1
    assert torch.equal(few.weight[:, 0], cosine_kernels(3)[:5])
    assert not few.bias.requires_grad


DROPOUTS = {
    ("classic", "ffn"): [0.2],
    ("classic", "cnn"): [0.25],
    ("speedrun", "ffn"): [],
    ("speedrun", "cnn"): [],
    ("batchnorm", "ffn"): [0.3] * 4,
    ("batchnorm", "cnn"): [0.4] * 2,
    ("resnet", "cnn"): [0.25, 0.5],
    ("evolution", "v1"): [0.1] * 2,
    ("evolution", "v2"): [0.1] * 2,
    ("evolution", "v3"): [0.1] * 4,
    ("choices", "leaky_relu_stride_sgd"): [0.25] * 3 + [0.5],
}


def test_settings_of_the_published_networks():
    """Sizes of maps and places of norms and dropouts that a count of parameters does not show."""
    v3 = NETWORKS["evolution", "v3"].outline()
    assert [name for name, _ in v3.features.named_children()] == [
        *("conv1", "relu1", "norm1", "pool1", "dropout1"),
        *("conv2", "relu2", "norm2", "pool2", "dropout2"),
    ]
    assert [name for name, _ in v3.classifier.named_children()] == [
        "flatten",
        *("linear1", "relu1", "norm1", "dropout1"),
        *("linear2", "relu2", "norm2", "dropout2"),
        "output",
    ]
    assert isinstance(v3.classifier.norm1, torch.nn.LayerNorm)
    for key, rates in DROPOUTS.items():
        modules = NETWORKS[key].outline().modules()
        assert [module.p for module in modules if isinstance(module, torch.nn.Dropout) and module.p] == rates, key
    strided = NETWORKS["choices", "relu_stride_adam"].outline()
    names = [name for name, _ in strided.features.named_children()]
    assert names[:6] == ["conv1", "relu1", "norm1", "conv2", "relu2", "norm2"]
    assert [strided.features.get_submodule(f"conv{n}").stride for n in (1, 2, 3, 4)] == [(1, 1), (2, 2), (2, 2), (2, 2)]
    leaky = NETWORKS["choices", "leaky_relu_max_adam"].outline()
    dense = [name for name, _ in leaky.classifier.named_children()]
    assert dense == ["flatten", "linear1", "leaky_relu1", "norm1", "dropout1", "output"]
    assert isinstance(leaky.classifier.norm1, torch.nn.BatchNorm1d)
    slopes = [module.negative_slope for module in leaky.modules() if isinstance(module, torch.nn.LeakyReLU)]
    assert slopes == [0.1] * 5
    assert not any(isinstance(module, torch.nn.ReLU) for module in leaky.modules())


# Networks that are none


NOTHING = "no kernels, no units, or kernels without pixels"


@pytest.mark.parametrize(
    ("build", "arguments", "words"),
    [
        (CNN, {"kernels": [4] * 5}, "shrink to nothing at convolution 5 of 5"),  # 28, 14, 7, 3, 1, 0
        (CNN, {"kernels": [4, 4], "kernel_size": 15, "padding": 0}, "shrink to nothing at convolution 2 of 2"),
        (CNN, {"kernels": [4], "kernel_size": 28, "padding": 0}, "shrink to nothing at convolution 1 of 1"),  # 1, 0
        (CNN, {"kernels": [4, 4, 4], "padding": [1, 0]}, "laid down for 2 convolutions, not for 3"),
        (CNN, {"kernels": [4, 0]}, NOTHING),
        (CNN, {"kernels": [-3]}, NOTHING),
        (CNN, {"dense": [0]}, NOTHING),
        (CNN, {"kernel_size": 0}, NOTHING),
        (FFN, {"hidden": [0]}, "at least one unit"),
        (CNN, {"padding": -1}, "padding below 0"),
        (CNN, {"kernels": [4, 4], "padding": [0, -1]}, "padding below 0"),
    ],
)
def test_what_makes_no_network_is_refused_in_words(build, arguments, words):
    with pytest.raises(ValueError, match=words):
        build(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"kernels": [4] * 4},
        {"kernels": [4], "kernel_size": 28, "padding": 0, "pool": "stride"},
        {"kernels": [4] * 5, "pool": "stride"},  # a stride rounds up: 28, 14, 7, 4, 2, 1
    ],
)
def test_maps_may_shrink_to_a_single_pixel(arguments):
    assert scores(CNN(**arguments)).shape == (5, 10)


# Kernel size, stride, padding and size of the map: those of ResNet-18, and some that fall back to nn.Conv2d.
SMALL_MAPS = [(3, 1, 1, 1), (3, 1, 1, 2), (3, 2, 1, 1), (3, 2, 1, 2), (1, 2, 0, 2), (3, 1, 1, 4), (5, 1, 2, 3)]


@pytest.mark.parametrize(("kernel_size", "stride", "padding", "size"), SMALL_MAPS)
def test_convolving_a_map_seen_whole_by_a_matrix_product_gives_the_results_and_gradients_of_torch(
    kernel_size, stride, padding, size
):
    layer = SmallMapConv2d(torch.nn.Conv2d(5, 7, kernel_size, stride, padding, bias=False)).double()
    maps = torch.randn(6, 5, size, size, dtype=torch.double, requires_grad=True)
    ours, theirs = layer(maps), F.conv2d(maps, layer.weight, None, stride, padding)
    assert ours.shape == theirs.shape
    assert torch.allclose(ours, theirs, atol=1e-12)
    slope = torch.randn_like(theirs)
    for own, reference in zip(
        torch.autograd.grad(ours, (maps, layer.weight), slope),
        torch.autograd.grad(theirs, (maps, layer.weight), slope),
        strict=True,
    ):
        assert torch.allclose(own, reference, atol=1e-12)


def test_resnet18_learns_from_its_small_maps_by_matrix_products():
    products = []
    model = ResNet18().train()
    for layer in model.modules():
        if isinstance(layer, SmallMapConv2d):
            layer.register_forward_hook(lambda layer, maps, output: products.append(output.grad_fn.name()))
    scores(model)
    assert products == ["UnsqueezeBackward0"] * 4
