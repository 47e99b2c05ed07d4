"""Faults in what is asked for: options out of their limits, networks that are none, and weights that fit nothing."""

import io
import os
import pickle
import re

import pytest
import torch

from benchmarks.soak import FILES, MADE
from fmnist.checkpoints import apply_weights, load_weights, save_weights
from fmnist.errors import Refused
from recipes import Network, rebuild
from tests.helpers import child
from tests.helpers.garments import photo
from tests.helpers.tiny import write_torchvision

SMALL = Network("cnn", "CNN", "CNN", {"kernels": [3, 4], "dense": [5]})


@pytest.fixture
def refused(run_here, tmp_path):
    """Run the script; return its one line of refusal, after checking that nothing was begun."""

    def refused(*arguments: object) -> str:
        output = tmp_path / "output"
        done = run_here([*arguments, "--output-dir", output, "--data-dir", tmp_path / "no data"])
        assert child.snapshot(output) == {}
        assert done.stdout == ""
        return child.only_line(done, 2)

    return refused


def in_words(value: object) -> str:
    return " ".join(value)[:40] if value and value[0].startswith(("-", "e", "c", "r", "f")) else ""


# Option values and networks

LIMITS = [
    ("--epochs", "0", "a whole number from 1 to 10,000"),
    ("--epochs", "-1", "a whole number from 1 to 10,000"),
    ("--epochs", "x", "a whole number from 1 to 10,000"),
    ("--epochs", "2.5", "a whole number from 1 to 10,000"),
    ("--epochs", "9" * 5000, "a whole number from 1 to 10,000"),
    ("--lr", "nan", "a number from 1e-09 to 100"),
    ("--lr", "inf", "a number from 1e-09 to 100"),
    ("--lr", "0", "a number from 1e-09 to 100"),
    ("--lr", "-0.001", "a number from 1e-09 to 100"),
    ("--lr", "much", "a number from 1e-09 to 100"),
    ("--batch-size", "0", "a whole number from 1 to 60,000"),
    ("--batch-size", "60001", "a whole number from 1 to 60,000"),
    ("--kernel-size", "0", "a whole number from 1 to 28"),
    ("--kernel-size", "99", "a whole number from 1 to 28"),
    ("--kernels", "0", "a whole number from 1 to 4,096"),
    ("--hidden", "-5", "a whole number from 1 to 16,384"),
    ("--dropout", "1", "a number from 0 to 0.95"),
    ("--validation", "1", "a number from 0 to 0.9"),
    ("--seed", "-1", "a whole number from 0 to 1,000,000"),
    ("--seeds", "0", "a whole number from 1 to 1,000"),
]


@pytest.mark.fault(34, "--epochs 0, --lr nan, --kernel-size 99 and the like; maps that shrink to nothing")
@pytest.mark.parametrize(("option", "value", "limits"), LIMITS, ids=lambda value: value[:20])
def test_a_value_out_of_its_limits(option, value, limits, refused):
    line = refused(f"{option}={value}")
    assert option in line
    assert limits in line
    assert len(line) < 300


@pytest.mark.fault(34, "--epochs 0, --lr nan, --kernel-size 99 and the like; maps that shrink to nothing")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--kernels", *"44444"], ["cnn", "shrink to nothing at convolution 5 of 5", "--kernels"]),
        (["resnet", "--kernels", "4", "4", "--kernel-size", "28"], ["cnn", "shrink to nothing", "--kernel-size"]),
        (["evolution", "--kernels", *"444"], ["v1", "laid down for 2 convolutions, not for 3", "--kernels"]),
    ],
    ids=in_words,
)
def test_networks_whose_maps_shrink_to_nothing(arguments, words, refused):
    line = refused(*arguments)
    for word in words:
        assert word in line


@pytest.mark.fault(34, "--epochs 0, --lr nan, --kernel-size 99 and the like; maps that shrink to nothing")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fashion"], ["fashion", "classic", "evolution"]),
        (["--models", "vgg"], ["--models vgg", "ffn, cnn"]),
        (["explore", "--epochs", "3"], ["--epochs", "explore trains no network"]),
        (["choices", "--pool", "avg"], ["--pool", "choices", "--models"]),
        (["--optimizer", "magic"], ["--optimizer", "magic", "adam"]),
        (["--colour=red"], ["--colour"]),
        (["--epochs"], ["--epochs"]),
        (["--models"], ["--models"]),
        (["--precision", "fp8"], ["--precision", "fp32"]),
    ],
    ids=in_words,
)
def test_options_that_are_none_or_that_a_recipe_cannot_honour(arguments, words, refused):
    line = refused(*arguments)
    for word in words:
        assert word in line


@pytest.mark.fault(34, "--epochs 0, --lr nan, --kernel-size 99 and the like; maps that shrink to nothing")
@pytest.mark.parametrize(
    "arguments",
    [["batchnorm", "--models", "ffn", "--hidden", "8"], ["resnet", "--models", "resnet18"]],
    ids=["batchnorm", "resnet18"],
)
def test_a_batch_of_one_is_too_little_for_batch_norm(arguments, tmp_path):
    """Batch norm over a single value has no deviation: PyTorch raises in the first step, where it is too late."""
    root = write_torchvision(MADE, tmp_path / "data")
    command = [*arguments, "--batch-size", "1", "--data-dir", root, "--output-dir", tmp_path / "output"]
    line = child.only_line(child.run(command, files=FILES), 2)
    assert "--batch-size" in line
    assert child.snapshot(tmp_path / "output") == {}


# Weights files


def keys_of(state: dict) -> dict:
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def weights(folder, network: Network = SMALL, **changes):
    """Write NAME.pth of `network` with some tensors changed; None leaves one out. Returns its path."""
    state = {**network.build().state_dict(), **{key.replace("__", "."): value for key, value in changes.items()}}
    save_weights(folder, network, "classic", {key: value for key, value in state.items() if value is not None})
    return folder / f"{network.name}.pth"


@pytest.fixture
def looked_at(run_here, tmp_path):
    """Give a weights file to kernel_vis.py; return its one line of refusal, after checking that nothing was drawn."""
    import kernel_vis

    def looked_at(path, *more: object) -> str:
        output = tmp_path / "pictures"
        arguments = ["--weights", path, "--output-dir", output, "--data-dir", tmp_path / "no data", *more]
        done = run_here(arguments, kernel_vis.main)
        assert child.snapshot(output) == {}
        return child.only_line(done, 2)

    return looked_at


MISFITS = {
    "missing": ({"features__conv2__weight": None}, ["features.conv2.weight is missing"]),
    "extra": ({"features__conv3__weight": torch.zeros(2)}, ["features.conv3.weight is unknown"]),
    "reshaped": (
        {"features__conv2__weight": torch.zeros(4, 3, 5, 5)},
        ["features.conv2.weight is float32 (4, 3, 5, 5) instead of float32 (4, 3, 3, 3)"],
    ),
    "another type": (
        {"features__conv1__bias": torch.zeros(3, dtype=torch.float64)},
        ["features.conv1.bias is float64 (3,) instead of float32 (3,)"],
    ),
    "all at once": (
        {"features__conv1__bias": None, "classifier__output__bias": torch.zeros(11), "more": torch.zeros(1)},
        ["features.conv1.bias is missing", "more is unknown", "classifier.output.bias is float32 (11,)"],
    ),
}


@pytest.mark.fault(16, "weights with missing, extra or reshaped keys")
@pytest.mark.parametrize(("changes", "words"), MISFITS.values(), ids=MISFITS)
def test_weights_that_do_not_fit_name_their_keys(changes, words, looked_at, tmp_path):
    path = weights(tmp_path, **changes)
    written, own = keys_of(torch.load(path, weights_only=True)["state_dict"]), keys_of(SMALL.build().state_dict())
    assert written != own or "another type" in str(changes) or words[0].count("float64")
    with pytest.raises(Refused) as caught:
        rebuild(load_weights(path), path)
    for message in (str(caught.value), looked_at(path)):
        assert str(path) in message
        for word in words:
            assert word in message


@pytest.mark.fault(16, "weights with missing, extra or reshaped keys")
def test_a_model_that_is_refused_its_weights_keeps_its_own(tmp_path):
    model = SMALL.build()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(Refused):
        apply_weights(model, {**model.state_dict(), "features.conv1.weight": torch.zeros(1)}, tmp_path / "w.pth")
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@pytest.mark.fault(16, "weights with missing, extra or reshaped keys")
@pytest.mark.parametrize(
    "network",
    [
        Network("ffn", "FFN", "FFN", {"hidden": [4]}),
        Network("v0", "v0", "NumpyFFN", {"hidden": [4]}),
    ],
    ids=["FFN", "NumpyFFN"],
)
def test_weights_of_a_network_without_convolutions_cannot_be_drawn(network, looked_at, tmp_path):
    state = {key: torch.as_tensor(value) for key, value in network.build().state_dict().items()}
    save_weights(tmp_path, network, "classic", state)
    line = looked_at(tmp_path / f"{network.name}.pth", "--image", child.ROOT / "tests" / "photograph.jpg")
    assert network.name in line


@pytest.mark.fault(16, "weights with missing, extra or reshaped keys")
def test_weights_of_another_network_than_asked_for(looked_at, tmp_path):
    line = looked_at(weights(tmp_path), "--model", "strided", "choices")
    assert "cnn" in line
    assert "strided" in line


# Weights files that run code


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def crafted(kind: str, bomb: Bomb) -> bytes:
    """A file that carries a bomb, in one of the forms in which torch reads and has read weights."""
    content = {
        **{"format": 1, "model": "cnn", "recipe": "classic", "config": SMALL.settings},
        "state_dict": {"w": bomb},
    }
    buffer = io.BytesIO()
    if kind == "plain pickle":
        return pickle.dumps(content)
    if kind == "bare":
        content = bomb
    torch.save(content, buffer, _use_new_zipfile_serialization=kind != "legacy")
    return buffer.getvalue()


@pytest.mark.fault(19, "a weights file that runs code when it is unpickled")
@pytest.mark.parametrize("kind", ["zip", "bare", "legacy", "plain pickle"])
def test_code_in_a_weights_file_is_not_run(kind, looked_at, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "cnn.pth"
    path.write_bytes(crafted(kind, Bomb(mark)))
    if kind == "plain pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert mark.exists(), "the bomb is a dud, so nothing is shown"
    mark.rmdir()

    with pytest.raises(Refused, match=r"cnn\.pth is damaged"):
        load_weights(path)
    assert str(path) in looked_at(path)
    assert not mark.exists()


@pytest.mark.fault(19, "a weights file that runs code when it is unpickled")
def test_code_in_a_checkpoint_is_not_run_on_resume(tmp_path):
    mark, root = tmp_path / "mark", write_torchvision(MADE, tmp_path / "data")
    folder = tmp_path / "output" / "classic" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "ffn-seed0-epoch0003.pt").write_bytes(crafted("zip", Bomb(mark)))
    command = ["--resume", "--data-dir", root, "--output-dir", tmp_path / "output"]
    before = child.snapshot(tmp_path / "output")
    line = child.only_line(child.run(command, files=FILES), 2)
    assert "ffn-seed0-epoch0003.pt" in line
    assert not mark.exists()
    assert child.snapshot(tmp_path / "output") == before


# Weights that are no numbers


@pytest.mark.fault(20, "weights that hold NaN")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
def test_weights_that_are_not_finite(value, looked_at, tmp_path):
    bias = torch.zeros(3)
    bias[1] = value
    path = weights(tmp_path, features__conv1__bias=bias)
    assert not torch.load(path, weights_only=True)["state_dict"]["features.conv1.bias"].isfinite().all()
    line = looked_at(path)
    assert str(path) in line
    assert "features.conv1.bias" in line
    assert re.search("train", line)


# Photographs; tests/test_photograph_files.py has every kind of file


def cut_png(path) -> None:
    photo().save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


NO_IMAGES = {
    "missing": (lambda path: None, "no such file"),
    "empty": (lambda path: path.touch(), "is empty"),
    "cut short": (cut_png, "cut short"),
    "text": (lambda path: path.write_text("no picture\n" * 50), "convert it"),
    "TIFF": (lambda path: photo().save(path, format="TIFF"), "convert it"),
}


@pytest.mark.fault(29, "--image missing, empty, cut short, a text file or a TIFF named .png")
@pytest.mark.parametrize(("write", "words"), NO_IMAGES.values(), ids=NO_IMAGES)
def test_an_image_that_is_none(write, words, looked_at, tmp_path):
    image = tmp_path / "photograph.png"
    write(image)
    line = looked_at(weights(tmp_path), "--image", image)
    assert f"{image}: " in line
    assert words in line


def test_sound_weights_are_drawn_so_that_the_refusals_mean_something(run_here, tmp_path):
    import kernel_vis

    path = weights(tmp_path)
    arguments = ["--weights", path, "--output-dir", tmp_path, "--image", child.ROOT / "tests" / "photograph.jpg"]
    done = run_here(arguments, kernel_vis.main)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "classic" / "kernels_grid.png").exists()
