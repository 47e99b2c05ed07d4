"""Checkpoints and weights on disk: which are kept, which serves, and what every other file is refused with."""

import math
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cnn import CNN
from fmnist import checkpoints
from fmnist.checkpoints import Checkpoints, Damaged, load_weights, rebuild, save, save_weights
from fmnist.config import Network
from fmnist.data import CLASSES
from fmnist.errors import Refused
from recipes import RECIPES

NETWORK = Network("ffn", "FFN, small", "ffn:FFN", {"hidden": [4], "dropout": 0.1})
SETTINGS = {**NETWORK.settings, "machine": {"device": "cpu"}}
RECIPES_NETWORKS = [network for recipe in RECIPES.values() for network in recipe.networks]


def kept(folder, settings=SETTINGS, name="ffn-seed0") -> Checkpoints:
    return Checkpoints(folder, name, settings)


def fill(folder, epochs=(0, 1, 2), best: float | None = None, **names) -> Checkpoints:
    """Save checkpoints whose weights say which epoch they are of, or the `best` they are."""
    store = kept(folder, **names)
    for epoch in epochs:
        state = {"model": {"weight": torch.full((300,), float(epoch))}, "optimizer": {"exp_avg": torch.ones(9000)}}
        best_state = {} if best is None else {"weight": torch.full((300,), best)}
        store.save(epoch, state, [{"train_loss": float(n)} for n in range(epoch)], best_state)
    return store


def names(store: Checkpoints) -> list[str]:
    return [path.name for path in store.paths()]


# Checkpoints


def test_the_newest_is_loaded_and_the_last_two_are_kept(tmp_path):
    store = fill(tmp_path, best=7.0)
    assert names(store) == ["epoch0002.pt", "epoch0001.pt"]
    content = store.newest()
    assert content["learner"]["model"]["weight"].unique().tolist() == [2]
    assert content["best_state"]["weight"].unique().tolist() == [7]
    assert content["history"] == [{"train_loss": 0.0}, {"train_loss": 1.0}]
    assert (content["settings"], content["finished"]) == (SETTINGS, False)


def test_the_ten_thousandth_epoch_is_newer_than_the_one_before(tmp_path):
    store = fill(tmp_path, epochs=(9_998, 9_999, 10_000))
    assert names(store) == ["epoch10000.pt", "epoch9999.pt"]


def test_a_fresh_checkpoint_is_not_dropped_for_an_older_one_of_a_higher_number_that_stays(tmp_path, monkeypatch):
    """As on Windows, where what another program has open cannot be removed."""
    fill(tmp_path, epochs=(8, 9))
    unlink = Path.unlink

    def stays(path: Path, missing_ok: bool = False) -> None:
        if path.name == "epoch0009.pt":
            raise PermissionError(13, "in use", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", stays)
    store = fill(tmp_path, epochs=(0, 1))
    assert names(store) == ["epoch0009.pt", "epoch0001.pt", "epoch0000.pt"]


def test_trainings_do_not_touch_each_other(tmp_path):
    first, other = fill(tmp_path), fill(tmp_path, epochs=(0, 1), name="ffn-seed01")
    for path in first.paths():
        path.unlink()
    assert first.newest() is None
    assert len(other.paths()) == 2
    fill(tmp_path, name="fXn-seed0")
    assert kept(tmp_path, name="f.n-seed0").paths() == [], "names are no patterns"


def test_without_checkpoints_there_is_nothing_to_load(tmp_path):
    assert kept(tmp_path / "nowhere").newest() is None


@pytest.mark.parametrize(("best", "scored"), [(7.0, 7), (None, 2)], ids=["selected", "last"])
def test_of_a_finished_training_stay_its_history_and_the_weights_that_were_scored(best, scored, tmp_path):
    store = fill(tmp_path, best=best)
    before, size = store.newest(), store.paths()[0].stat().st_size
    store.finish()
    after = store.newest()
    assert names(store) == ["epoch0002.pt"]
    assert store.paths()[0].stat().st_size < size / 5, "what takes space is gone"
    assert after["learner"].keys() == {"model"}
    assert after["learner"]["model"]["weight"].unique().tolist() == [scored]
    assert (after["history"], after["settings"], after["finished"]) == (before["history"], SETTINGS, True)
    store.finish()  # a second time, after a run was killed in between
    assert store.newest()["learner"]["model"]["weight"].unique().tolist() == [scored]


def refusal(store: Checkpoints) -> str:
    with pytest.raises(Refused) as caught:
        store.newest()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    fill(tmp_path)
    other = {**SETTINGS, "network": {**SETTINGS["network"], "hidden": [5]}}
    assert "epoch0002.pt is of another network" in refusal(kept(tmp_path, other))


# NAME.pth


def weights(folder, network: Network = NETWORK, **changes) -> Path:
    """Write a real NAME.pth, with `changes`; None leaves a key out."""
    state = {name: torch.as_tensor(values) for name, values in network.build().state_dict().items()}
    save_weights(folder, network, "classic", state, "first")
    path = folder / f"{network.name}.pth"
    content = {**torch.load(path, weights_only=True), **changes}
    torch.save({key: value for key, value in content.items() if value is not None}, path)
    return path


def refused(path: Path, networks=RECIPES_NETWORKS) -> str:
    """The one line that refuses weights, within a second."""
    started = time.process_time()
    with pytest.raises(Refused) as caught:
        rebuild(path, networks)
    assert time.process_time() - started < 1
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return str(caught.value)


def test_what_a_weights_file_holds(tmp_path):
    model = NETWORK.build()
    save_weights(tmp_path, NETWORK, "classic", model.state_dict(), "first")
    content = torch.load(tmp_path / "ffn.pth", weights_only=True)
    told = {key: value for key, value in content.items() if key not in ("format", "state_dict")}
    assert told == {
        **{"model": "ffn", "title": "FFN, small", "recipe": "classic", "release": "first"},
        **{"config": NETWORK.settings, "classes": list(CLASSES)},
    }
    assert content["state_dict"].keys() == model.state_dict().keys()
    for key, tensor in model.state_dict().items():
        assert torch.equal(content["state_dict"][key], tensor)
        assert not content["state_dict"][key].requires_grad
    assert load_weights(tmp_path / "ffn.pth").keys() == content.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["ffn.pth"]


def test_weights_carry_the_temperature_that_calibrates_them(tmp_path):
    save_weights(tmp_path, NETWORK, "classic", NETWORK.build().state_dict(), "first", temperature=1.5)
    assert load_weights(tmp_path / "ffn.pth")["temperature"] == 1.5


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf, "hot", [1.5], 10**400])
def test_a_temperature_that_is_none_is_refused(temperature, tmp_path):
    assert "was not written by this version" in refused(weights(tmp_path, temperature=temperature))


def test_weights_lie_on_the_cpu_wherever_they_were_trained(tmp_path):
    class Elsewhere(torch.Tensor):
        """As a card's: what is asked to come to the CPU says so."""

        def cpu(self):
            return torch.ones(3)

    save_weights(tmp_path, NETWORK, "classic", {"w": torch.zeros(3).as_subclass(Elsewhere)}, "current")
    assert torch.load(tmp_path / "ffn.pth", weights_only=True)["state_dict"]["w"].tolist() == [1, 1, 1]


SMALL = Network("cnn", "CNN", "cnn:CNN", {"kernels": [3, 4], "pool": "stride", "norm": "after", "dense": [5]})
RESNET = next(network for network in RECIPES_NETWORKS if network.name == "resnet18")


@pytest.mark.parametrize("network", [SMALL, NETWORK, RESNET], ids=lambda network: network.name)
def test_a_network_is_rebuilt_from_its_weights(network, tmp_path):
    model, content = rebuild(weights(tmp_path, network), RECIPES_NETWORKS)
    images = torch.randint(0, 256, (3, 28, 28), dtype=torch.uint8)
    assert torch.equal(model(images), network.build().eval()(images))
    assert all(tensor.device.type == "cpu" for tensor in model.state_dict().values())
    assert content["title"] == network.title


KEYS = ["model", "title", "recipe", "release", "config", "classes", "state_dict", "format"]


@pytest.mark.parametrize("key", KEYS)
def test_a_file_that_lacks_something_is_refused(key, tmp_path):
    assert refused(weights(tmp_path, **{key: None}))


OTHER = [[1, 2], {}, {"format": 99}, {"format": torch.ones(3)}, {"format": True}, torch.zeros(3), "text", None]


@pytest.mark.parametrize("content", [*OTHER, {"format": 1, "state_dict": {}}], ids=str)
def test_a_file_of_another_kind_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    assert "was not written by this version of the program" in refused(tmp_path / "other.pth")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [7, [1], torch.ones(2)], ids=["number", "list", "tensor"])
def test_a_value_of_another_kind_is_refused(key, value, tmp_path):
    assert refused(weights(tmp_path, **{key: value}))


def test_a_checkpoint_in_the_place_of_weights_is_recognised(tmp_path):
    store = fill(tmp_path)
    for _ in range(2):
        line = refused(store.paths()[0])
        assert "is a checkpoint of a training; name the weights of its run, ffn.pth beside checkpoints/" in line
        store.finish()


ODD = {
    "nan": torch.tensor([1.0, float("nan")]),
    "infinite": torch.tensor([float("inf")]),
    "sparse": torch.eye(3).to_sparse(),
    "text": "no tensor",
    "list": [1.0],
    "float8 nan": torch.tensor([float("nan")]).to(torch.float8_e4m3fn),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8),  # warns when it is made
    "meta": torch.empty(3, device="meta"),
    "more than is stored": torch.zeros(1).expand(1 << 40),
}


@pytest.mark.parametrize("tensor", [pytest.param(tensor, id=name) for name, tensor in ODD.items()])
@pytest.mark.filterwarnings("ignore")
def test_values_that_are_no_finite_numbers_are_refused(tensor, tmp_path):
    state = {**NETWORK.build().state_dict(), "linear1.bias": tensor() if callable(tensor) else tensor}
    assert "linear1.bias holds values that are not finite numbers" in refused(weights(tmp_path, state_dict=state))


def nested(depth: int = 5000) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def endless() -> list:
    value: list = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "described",
    [
        *[None, 7, {}, {"class": "FFN"}, {"class": ["ffn:FFN"]}, {"class": 7}],
        *({"class": "cnn:CNN", **more} for more in [{"colour": "red"}, {"pool": "median"}, {"activation": 3}]),
        *({"class": "cnn:CNN", "kernels": kernels} for kernels in ["many", 3, [4] * 5, [-4], [0.5], [10**30], ["3"]]),
        *({"class": "cnn:CNN", "padding": padding} for padding in ["x", {}, [10**30] * 2, -1]),
        *({"class": "ffn:FFN", "hidden": hidden} for hidden in [None, [10**30], [[4]], torch.ones(3)]),
        *({"class": "ffn:FFN", "hidden": [4], **more} for more in [{"dropout": 7}, {"std": 0}, {"mean": "x"}]),
        *({"class": "cnn:ResNet18", "size": size} for size in [10**6, -1, "28", torch.ones(2)]),
        {"class": "ffn:FFN", 5: 5},
    ],
    ids=str,
)
def test_a_file_that_describes_no_network_is_refused(described, tmp_path):
    assert refused(weights(tmp_path, config={"network": described}))


@pytest.mark.parametrize(
    "kernels", [[4] * 200_000, [200_000] * 50, [[4] * 1000] * 1000, nested(), endless()], ids=range(5)
)
def test_a_network_of_any_size_is_refused_within_a_second(kernels, tmp_path):
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)  # writing takes more than reading
    path = weights(tmp_path, config={"network": {"class": "cnn:CNN", "kernels": kernels}})
    sys.setrecursionlimit(limit)
    assert refused(path)


ASKED = ["os:system", "antigravity:x", "cnn:SmallMapConv2d", "cnn:BasicBlock", "my_net.py:Net", "builtins:dict"]


@pytest.mark.parametrize("asked", ASKED)
def test_a_class_that_no_recipe_names_is_not_imported(asked, tmp_path, monkeypatch):
    (tmp_path / "my_net.py").write_text("import pathlib\npathlib.Path(__file__).with_name('imported').touch()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    path, before = weights(tmp_path, config={"network": {"class": asked}}), set(sys.modules)
    line = refused(path)
    assert f"is of a class that no recipe names; if it is your own, add --network {asked}" in line
    assert set(sys.modules) == before
    assert not (tmp_path / "imported").exists()


def test_a_network_in_numpy_has_no_layers_to_look_into(tmp_path):
    v0 = Network("v0", "v0", "numpy_ffn:NumpyFFN", {"hidden": [4]})
    message = refused(weights(tmp_path, v0))
    assert "holds a network written in NumPy" in message
    assert "--model" in message


MISFITS = {
    "missing": {"output.bias": None},
    "unknown": {"more": torch.zeros(1)},
    "reshaped": {"linear1.weight": torch.zeros(5, 784)},
    "another type": {"linear1.bias": torch.zeros(4, dtype=torch.float64)},
}
WORDS = {
    "missing": "output.bias is missing",
    "unknown": "more is unknown",
    "reshaped": "linear1.weight is float32 (5, 784) instead of float32 (4, 784)",
    "another type": "linear1.bias is float64 (4,) instead of float32 (4,)",
}


@pytest.mark.parametrize("misfits", [*([name] for name in MISFITS), list(MISFITS)], ids=" and ".join)
def test_weights_that_do_not_fit_name_every_key(misfits, tmp_path):
    state = NETWORK.build().state_dict()
    for name in misfits:
        state |= MISFITS[name]
    path = weights(tmp_path, state_dict={key: tensor for key, tensor in state.items() if tensor is not None})
    line = refused(path)
    assert all(WORDS[name] in line for name in misfits)


def test_a_network_that_is_refused_its_weights_keeps_its_own(tmp_path):
    model = CNN([3], dense=[5])
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(Refused):
        checkpoints.apply_weights(model, {**before, "features.conv1.weight": torch.zeros(1)}, tmp_path / "w.pth")
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


# Files of any content


def test_a_directory_and_a_missing_file_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none.pth"):
        assert str(path) in refused(path)


def test_reading_reports_what_is_wrong(tmp_path):
    with pytest.raises(Damaged, match="is not there"):
        checkpoints.load(tmp_path / "none.pt")
    (tmp_path / "empty.pt").touch()
    with pytest.raises(Damaged, match="is damaged"):
        checkpoints.load(tmp_path / "empty.pt")
    save(tmp_path / "good.pt", {"format": 1, "x": torch.arange(3)})
    assert checkpoints.load(tmp_path / "good.pt", "x")["x"].tolist() == [0, 1, 2]
    with pytest.raises(Damaged, match="was not written by this version"):
        checkpoints.load(tmp_path / "good.pt", "x", "y")


def test_a_packed_archive_is_refused_whatever_it_may_unfold_to(tmp_path):
    path, packed = weights(tmp_path), tmp_path / "packed.pth"
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as other:
        for part in archive.infolist():
            other.writestr(part.filename, archive.read(part))
    assert "packed.pth is damaged" in refused(packed)


def test_an_altered_byte_is_noticed_wherever_it_is(tmp_path):
    """Or else it does no harm: the archive pads its parts, and its directory holds dates and the like."""
    path = weights(tmp_path)
    good, whole = path.read_bytes(), load_weights(path)
    noticed = 0
    for place in range(0, len(good), 197):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :])
        try:
            content = load_weights(path)
        except Refused:
            noticed += 1
            continue
        assert content["config"] == whole["config"]
        assert all(torch.equal(content["state_dict"][key], tensor) for key, tensor in whole["state_dict"].items())
    assert noticed > 50


def test_a_weights_file_in_the_place_of_a_checkpoint_is_passed_over(tmp_path, capsys):
    store = fill(tmp_path)
    weights(tmp_path, replace(NETWORK, name="w")).replace(store.folder / "epoch0003.pt")
    assert len(store.newest()["history"]) == 2
    assert "epoch0003.pt" in capsys.readouterr().out


@pytest.mark.parametrize("settings", [None, 7, {}, {"network": 7}], ids=str)
def test_a_checkpoint_of_crafted_settings_is_refused(settings, tmp_path):
    store = fill(tmp_path, epochs=(0,))
    content = {**checkpoints.load(store.paths()[0]), "settings": settings}
    save(store.paths()[0], content)
    assert "epoch0000.pt" in refusal(store)
