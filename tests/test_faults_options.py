"""Faults in what is asked for: options out of their limits, networks that are none, and files that hold no weights.

Each from end to end; tests/test_options.py and tests/test_checkpoints.py have every option and every kind of file.
"""

import io
import os
import pickle

import pytest
import torch

import kernel_vis
from fmnist.checkpoints import save_weights
from fmnist.config import Network
from fmnist.data import OWN
from tests.helpers import child, tiny
from tests.helpers.bench import FILES, MADE, at_step, interrupted, kept, resumed
from tests.helpers.garments import photo

SMALL = Network("cnn", "CNN", "cnn:CNN", {"kernels": [3, 4], "dense": [5]})
LIMITS = "--epochs 0, --lr nan, --kernel-size 99 and the like; maps that shrink to nothing"
MISFITS = "weights with missing, extra or reshaped keys"
CODE = "a weights file that runs code when it is unpickled"


@pytest.fixture
def refused(run_here, tmp_path):
    """Run fashionmnist.py; return its one line of refusal, after checking that nothing was begun."""

    def refused(*arguments: object) -> str:
        output = tmp_path / "output"
        done = run_here([*arguments, "--output-dir", output, "--data-dir", tmp_path / "no data"])
        assert child.snapshot(output) == {}
        assert done.stdout == ""
        return child.only_line(done, 2)

    return refused


# Option values and networks


@pytest.mark.fault(34, LIMITS)
@pytest.mark.parametrize(
    ("option", "value", "limits"),
    [
        ("--epochs", "0", "a whole number from 1 to 10,000"),
        ("--epochs", "-1", "a whole number from 1 to 10,000"),
        ("--epochs", "x", "a whole number from 1 to 10,000"),
        ("--epochs", "9" * 5000, "a whole number from 1 to 10,000"),
        ("--lr", "nan", "a number from 1e-09 to 100"),
        ("--kernel-size", "0", "a whole number from 1 to 28"),
        ("--kernel-size", "99", "a whole number from 1 to 28"),
    ],
    ids=lambda value: value[:20],
)
def test_a_value_out_of_its_limits(option, value, limits, refused):
    line = refused(f"{option}={value}")
    assert option in line
    assert limits in line
    assert len(line) < 300


@pytest.mark.fault(34, LIMITS)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--kernels", *"44444"], ["cnn", "shrink to nothing at convolution 5 of 5", "--kernels"]),
        (["resnet", "--kernels", "4", "4", "--kernel-size", "28"], ["cnn", "shrink to nothing", "--kernel-size"]),
        (["evolution", "--kernels", *"444"], ["v1", "laid down for 2 convolutions, not for 3", "--kernels"]),
        (["fashion"], ["fashion", "classic", "evolution"]),
        (["--models", "vgg"], ["--models vgg", "ffn, cnn"]),
        (["explore", "--epochs", "3"], ["--epochs", "explore trains no network"]),
        (["evolution", "--lr", "1e-3"], ["--lr", "evolution", "--models"]),
        (["--learning-rate", "0.1"], ["--learning-rate", "did you mean --lr?"]),
    ],
    ids=" ".join,
)
def test_what_makes_no_network_or_is_no_option(arguments, words, refused):
    line = refused(*arguments)
    assert all(word in line for word in words), line


@pytest.mark.fault(34, LIMITS)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["batchnorm", "--models", "ffn", "--hidden", "8", "--batch-size", "1"], "--batch-size"),
        (["resnet", "--models", "resnet18", "--batch-size", "1"], "--batch-size"),
        (["--validation", "0.001"], "--validation 0.001 holds out none of 200"),
    ],
    ids=["batchnorm", "resnet18", "validation"],
)
def test_what_would_fail_in_the_first_step_is_refused_before_it(arguments, words, tmp_path):
    """Batch norm over a single value has no standard deviation: PyTorch raises in the first step."""
    root = tiny.write_torchvision(MADE, tmp_path / "data")
    command = [*arguments, "--data-dir", root, "--output-dir", tmp_path / "output"]
    assert words in child.only_line(child.run(command, files=FILES), 2)
    assert child.snapshot(tmp_path / "output") == {}


# Weights files


def weights(folder, network: Network = SMALL, **changes):
    """Write NAME.pth of `network` with some tensors changed; None leaves one out. Returns its path."""
    state = {key: torch.as_tensor(value) for key, value in network.build().state_dict().items()}
    state |= {key.replace("__", "."): value for key, value in changes.items()}
    save_weights(folder, network, "classic", {key: value for key, value in state.items() if value is not None}, OWN)
    return folder / f"{network.name}.pth"


@pytest.fixture
def looked_at(run_here, tmp_path):
    """Give a weights file to kernel_vis.py; return its one line of refusal, after checking that nothing was drawn."""

    def looked_at(path, *more: object) -> str:
        output = tmp_path / "pictures"
        done = run_here(["--weights", path, "--output-dir", output, *more], kernel_vis.main)
        assert child.snapshot(output) == {}
        return child.only_line(done, 2)

    return looked_at


@pytest.mark.fault(16, MISFITS)
def test_weights_that_do_not_fit_name_their_keys(looked_at, tmp_path):
    changes = {
        "features__conv1__bias": None,
        "more": torch.zeros(1),
        "features__conv2__weight": torch.zeros(4, 3, 5, 5),
        "classifier__output__bias": torch.zeros(10, dtype=torch.float64),
    }
    path = weights(tmp_path, **changes)
    line = looked_at(path)
    for words in (
        str(path),
        "features.conv1.bias is missing",
        "more is unknown",
        "features.conv2.weight is float32 (4, 3, 5, 5) instead of float32 (4, 3, 3, 3)",
        "classifier.output.bias is float64 (10,) instead of float32 (10,)",
    ):
        assert words in line


@pytest.mark.parametrize(
    ("class_path", "words"),
    [("ffn:FFN", "Plain has no convolution"), ("numpy_ffn:NumpyFFN", "holds a network written in NumPy")],
)
def test_a_layer_of_a_network_without_convolutions_cannot_be_drawn(class_path, words, looked_at, tmp_path):
    path = weights(tmp_path, Network("plain", "Plain", class_path, {"hidden": [4]}))
    line = looked_at(path, "--layer", "linear1", "--image", child.ROOT / "tests" / "photograph.jpg")
    assert words in line


def test_weights_of_another_network_than_asked_for(looked_at, tmp_path):
    line = looked_at(weights(tmp_path), "--model", "relu_stride_adam", "choices")
    assert "cnn" in line
    assert "relu_stride_adam" in line


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def crafted(kind: str, bomb: Bomb) -> bytes:
    """A file that carries a bomb, in one of the forms in which torch reads and has read weights."""
    content = {"format": 1, "model": "cnn", "title": "CNN", "recipe": "classic", "release": OWN}
    content |= {"config": SMALL.settings, "state_dict": {"w": bomb}}
    buffer = io.BytesIO()
    if kind == "plain pickle":
        return pickle.dumps(content)
    torch.save(bomb if kind == "bare" else content, buffer, _use_new_zipfile_serialization=kind != "legacy")
    return buffer.getvalue()


@pytest.mark.fault(19, CODE)
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
    assert f"{path} is damaged" in looked_at(path)
    assert not mark.exists()


@pytest.mark.fault(19, CODE)
def test_code_in_a_checkpoint_is_not_run_on_resume(bench, tmp_path):
    interrupted(bench, tmp_path, at_step(15))
    mark = tmp_path / "mark"
    for path in kept(tmp_path):
        path.write_bytes(crafted("zip", Bomb(mark)))
    before = child.snapshot(tmp_path)
    assert "epoch0001.pt" in child.only_line(resumed(bench, tmp_path), 2)
    assert not mark.exists()
    assert child.snapshot(tmp_path) == before


@pytest.mark.fault(20, "weights that hold NaN")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
def test_weights_that_are_not_finite(value, looked_at, tmp_path):
    bias = torch.zeros(3)
    bias[1] = value
    line = looked_at(weights(tmp_path, features__conv1__bias=bias))
    assert str(tmp_path / "cnn.pth") in line
    assert "features.conv1.bias holds values that are not finite" in line


# Photographs; tests/test_photograph_files.py has every kind of file


def cut_png(path) -> None:
    photo().save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


NO_IMAGES = {
    "missing": (lambda path: None, "no such file"),
    "empty": (lambda path: path.touch(), "is empty"),
    "cut short": (cut_png, "cut short"),
    "text": (lambda path: path.write_text("no picture\n" * 50), "holds no PNG, JPEG"),
    "TIFF": (lambda path: photo().save(path, format="TIFF"), "holds no PNG, JPEG"),
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
    image = child.ROOT / "tests" / "photograph.jpg"
    done = run_here(["--weights", weights(tmp_path), "--output-dir", tmp_path, "--image", image], kernel_vis.main)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "classic" / "kernels_grid.png").exists()
