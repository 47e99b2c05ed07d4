"""What the hooks read of every layer, against forward passes written out layer by layer."""

import numpy as np
import torch
import torch.nn.functional as F

from cnn import CNN, ResNet18
from fmnist.activations import is_worth_drawing, module_of, trace
from fmnist.layers import Pixels

PIXELS = np.random.default_rng(2).integers(0, 256, (28, 28), dtype=np.uint8)


def image() -> torch.Tensor:
    return Pixels()(torch.from_numpy(PIXELS)[None])


def awake(model: torch.nn.Module) -> torch.nn.Module:
    """Give batch norm statistics that do something, as training would."""
    generator = torch.Generator().manual_seed(5)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return model


def test_cnn_against_a_manual_forward_pass():
    torch.manual_seed(0)
    model = CNN([4, 6], kernel_size=5, pool="max")
    own = model.state_dict()
    x = image()
    wanted = {"pixels": x}
    for n in (1, 2):
        x = wanted[f"features.conv{n}"] = F.conv2d(
            x, own[f"features.conv{n}.weight"], own[f"features.conv{n}.bias"], padding=2
        )
        wanted[f"features.pool{n}"] = F.max_pool2d(x, 2)
        x = wanted[f"features.relu{n}"] = F.max_pool2d(F.relu(x), 2)  # the textbook's order
    x = F.relu(F.linear(x.flatten(1), own["classifier.linear1.weight"], own["classifier.linear1.bias"]))
    scores = F.linear(x, own["classifier.output.weight"], own["classifier.output.bias"])

    stages, probabilities = trace(model, PIXELS)
    assert [stage.name for stage in stages] == list(wanted)
    for stage in stages:
        assert np.array_equal(stage.maps, wanted[stage.name][0].detach()), stage.name
    assert [stage.kind for stage in stages[1:4]] == ["Conv2d 5x5", "MaxPool2d 2x2", "ReLU"]
    torch.testing.assert_close(torch.from_numpy(probabilities), scores.softmax(1)[0].detach())


def manual_resnet18(model: torch.nn.Module, x: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """ResNet-18 (He et al. 2015, arXiv:1512.03385) from the weights alone: maps of every layer by name, and scores."""
    own, maps = model.state_dict(), {"pixels": x}

    def convolution(name: str, x: torch.Tensor, stride: int, padding: int) -> torch.Tensor:
        maps[name] = F.conv2d(x, own[f"{name}.weight"], None, stride, padding)
        return maps[name]

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        mean, variance, weight, bias = (
            own[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        maps[name] = (x - mean) / (variance + 1e-5).sqrt() * weight + bias
        return maps[name]

    def relu(name: str, x: torch.Tensor) -> torch.Tensor:
        again = sum(key.split(" ")[0] == name for key in maps)
        maps[name + (f" ({again + 1})" if again else "")] = x = x.clamp(min=0)
        return x

    x = relu("relu", norm("bn1", convolution("conv1", x, 2, 3)))
    x = maps["maxpool"] = F.max_pool2d(x, 3, 2, 1)
    for layer in (1, 2, 3, 4):
        for block in (0, 1):
            name = f"layer{layer}.{block}"
            stride = 2 if layer > 1 and block == 0 else 1
            y = relu(f"{name}.relu", norm(f"{name}.bn1", convolution(f"{name}.conv1", x, stride, 1)))
            y = norm(f"{name}.bn2", convolution(f"{name}.conv2", y, 1, 1))
            if stride == 2:
                x = norm(f"{name}.downsample.1", convolution(f"{name}.downsample.0", x, 2, 0))
            x = relu(f"{name}.relu", x + y)
    x = maps["avgpool"] = x.mean((2, 3), keepdim=True)
    return maps, x.flatten(1) @ own["fc.weight"].T + own["fc.bias"]


def test_resnet18_against_a_manual_forward_pass_although_its_relu_works_in_place():
    torch.manual_seed(0)
    model = awake(ResNet18()).eval()
    wanted, scores = manual_resnet18(model, image())
    stages, probabilities = trace(model, PIXELS)
    assert [stage.name for stage in stages] == list(wanted)
    for stage in stages:
        np.testing.assert_allclose(stage.maps, wanted[stage.name][0].detach(), 1e-4, 1e-4, err_msg=stage.name)
    np.testing.assert_allclose(probabilities, scores.softmax(1)[0].detach(), rtol=1e-4, atol=1e-5)
    negative = {stage.name for stage in stages if stage.maps.min() < 0}
    assert "bn1" in negative, "the ReLU behind it has overwritten what was recorded"


def test_a_convolution_whose_weight_is_made_by_modules_is_a_layer_and_they_are_none():
    torch.manual_seed(0)
    conv = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv2d(1, 3, 3))
    model = torch.nn.Sequential(Pixels(), conv, torch.nn.Flatten(), torch.nn.Linear(3 * 26 * 26, 10)).eval()
    image = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    stages, _ = trace(model, image)
    assert [(stage.name, stage.kind) for stage in stages] == [("0", "Pixels"), ("1", "Conv2d 3x3")]
    maps = F.conv2d(model[0](torch.from_numpy(image)[None]), conv.weight, conv.bias)[0]
    np.testing.assert_allclose(stages[1].maps, maps.detach().numpy(), atol=1e-5)


def test_the_model_is_left_as_it_was_but_in_eval_mode():
    model = CNN([3]).train()
    trace(model, PIXELS)
    assert not model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_every_stage_knows_the_convolution_whose_channels_it_carries_on():
    stages, _ = trace(CNN([3, 4], norm="after", conv_dropout=0.5), PIXELS)
    assert [stage.source for stage in stages] == ["", *["features.conv1"] * 5, *["features.conv2"] * 5]
    twice = torch.nn.Conv2d(1, 1, 3, padding=1)
    shared = torch.nn.Sequential(Pixels(), twice, torch.nn.ReLU(), twice, torch.nn.Flatten())
    stages, _ = trace(shared, PIXELS)
    assert [stage.source for stage in stages] == ["", "1", "1", "1 (2)"]
    assert module_of(shared, "1 (2)") is twice


def test_stages_worth_a_picture():
    model = CNN([3, 4], norm="after", conv_dropout=0.5)
    stages, _ = trace(model, PIXELS)
    drawn = [stage.name.removeprefix("features.") for stage in stages if is_worth_drawing(model, stage)]
    assert drawn == ["conv1", "relu1", "pool1", "conv2", "relu2", "pool2"]
    network = ResNet18()
    again = [stage for stage in trace(network, PIXELS)[0] if stage.name.endswith(" (2)")]
    assert len(again) == 8
    assert all(is_worth_drawing(network, stage) for stage in again)
