"""Checkpoints and weights on disk: which are kept, which serves, and what every other file is refused with."""

import json
import zipfile
from dataclasses import replace

import pytest
import torch

from fmnist import checkpoints
from fmnist.checkpoints import Checkpoints, Damaged, RunState, load_weights, save, save_weights
from fmnist.errors import Refused
from recipes import Network

NETWORK = Network("ffn", "FFN", "FFN", {"hidden": [4], "dropout": 0.1})
CONFIG = {
    "network": {"kind": "FFN", "hidden": [4]},
    "training": {"epochs": 5, "lr": 0.1, "batch_size": 8, "schedule": "constant"},
    "machine": {"device": "cpu", "precision": "fp32"},
}


def kept(folder, config=CONFIG, name="ffn-seed0", options=None) -> Checkpoints:
    return Checkpoints(folder, name, config, {"epochs": 5} if options is None else options)


def fill(folder, epochs=(0, 1, 2), **settings) -> Checkpoints:
    """Save checkpoints whose learner state says which epoch they are of."""
    store = kept(folder, **settings)
    for epoch in epochs:
        state = {"model": {"weight": torch.full((3,), float(epoch))}}
        store.save(epoch, state, [{"train_loss": float(n)} for n in range(epoch)], {})
    return store


def changed(group: str, **settings) -> dict:
    return {**CONFIG, group: {**CONFIG[group], **settings}}


def refusal(store: Checkpoints) -> str:
    with pytest.raises(Refused) as caught:
        store.newest(log=lambda _: None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Checkpoints


def test_the_newest_is_loaded_and_the_last_two_are_kept(tmp_path):
    store = fill(tmp_path)
    assert [path.name for path in store.paths()] == ["ffn-seed0-epoch0002.pt", "ffn-seed0-epoch0001.pt"]
    content = store.newest()
    assert content["learner"]["model"]["weight"].tolist() == [2, 2, 2]
    assert content["history"] == [{"train_loss": 0.0}, {"train_loss": 1.0}]
    assert content["config"] == CONFIG
    assert content["options"] == {"epochs": 5}


def test_the_ten_thousandth_epoch_is_newer_than_the_one_before(tmp_path):
    store = fill(tmp_path, epochs=(9_998, 9_999), config=changed("training", epochs=10_000))
    store.save(10_000, {"model": {}}, [], {})
    assert [path.name for path in store.paths()] == ["ffn-seed0-epoch10000.pt", "ffn-seed0-epoch9999.pt"]


def test_trainings_do_not_touch_each_other(tmp_path):
    first, other = fill(tmp_path), fill(tmp_path, epochs=(0, 1), name="ffn-seed01")
    for path in first.paths():
        path.unlink()
    assert first.newest() is None
    assert len(other.paths()) == 2


def test_names_are_no_patterns(tmp_path):
    fill(tmp_path, name="fXn-seed0")
    assert kept(tmp_path, name="f.n-seed0").paths() == []


def test_without_checkpoints_there_is_nothing_to_load(tmp_path):
    assert kept(tmp_path / "nowhere").newest() is None


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (changed("training", lr=0.2), "lr was 0.1 and is 0.2"),
        (changed("training", batch_size=16), "batch_size was 8 and is 16"),
        (changed("network", hidden=[5]), "hidden was [4] and is [5]"),
        (changed("network", dropout=0.5), "dropout was None and is 0.5"),
        (changed("machine", precision="bf16"), "precision was fp32 and is bf16"),
        (changed("training", epochs=1), "epochs was 5 and is 1"),
    ],
)
def test_other_settings_are_refused_and_named(config, words, tmp_path):
    fill(tmp_path)
    message = refusal(kept(tmp_path, config))
    assert words in message
    assert message.startswith("ffn-seed0 cannot be resumed with other settings: ")


def test_every_difference_is_listed(tmp_path):
    fill(tmp_path)
    config = {**changed("training", lr=0.2, batch_size=16), "network": {"kind": "CNN"}}
    message = refusal(kept(tmp_path, config))
    for words in ("lr was 0.1 and is 0.2", "batch_size was 8", "kind was FFN and is CNN", "hidden was [4] and is None"):
        assert words in message


@pytest.mark.parametrize("epochs", [2, 3, 50])
def test_the_number_of_epochs_may_change_down_to_those_trained(epochs, tmp_path):
    fill(tmp_path)
    assert len(kept(tmp_path, changed("training", epochs=epochs)).newest()["history"]) == 2


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle"])
def test_but_not_where_the_schedule_was_laid_out_over_them(schedule, tmp_path):
    fill(tmp_path, config=changed("training", schedule=schedule))
    message = refusal(kept(tmp_path, changed("training", schedule=schedule, epochs=6)))
    assert "epochs was 5 and is 6" in message


# What a run keeps


def run_state(folder, resume=False, options=None, settings=None) -> RunState:
    state = RunState(folder, resume, options or {}, log=lambda _: None)
    state.plan(settings or {"ffn-seed0": CONFIG})
    return state


def test_options_are_remembered_and_may_be_added_to(tmp_path):
    fill(tmp_path / "checkpoints")
    assert run_state(tmp_path, True).options == {"epochs": 5}
    assert run_state(tmp_path, True, {"epochs": 7, "seed": 0}).options == {"epochs": 7, "seed": 0}


@pytest.mark.parametrize(("begun", "asked"), [({}, {"seed": 1}), ({"seed": 2}, {"seed": 0}), ({}, {"models": ["cnn"]})])
def test_trainings_that_were_never_begun_are_not_started_by_resuming(begun, asked, tmp_path):
    fill(tmp_path / "checkpoints", options=begun)
    with pytest.raises(Refused, match=f"--{next(iter(asked))} .*the run that is to be resumed has"):
        run_state(tmp_path, True, asked)


def test_a_new_run_sets_an_unfinished_one_aside_and_drops_a_finished_one(tmp_path):
    fill(tmp_path / "checkpoints")
    said = []
    run_state(tmp_path).start(said.append)
    assert len(list((tmp_path / "checkpoints.unfinished").glob("*.pt"))) == 2
    assert not (tmp_path / "checkpoints").exists()
    assert str(tmp_path / "checkpoints.unfinished") in said[0]

    fill(tmp_path / "checkpoints")
    run_state(tmp_path).finish()
    run_state(tmp_path).start(said.append)
    assert not (tmp_path / "checkpoints").exists()
    assert len(said) == 1
    assert len(list((tmp_path / "checkpoints.unfinished").glob("*.pt"))) == 2


def test_a_second_unfinished_run_does_not_cost_the_first(tmp_path):
    for epochs in ([0, 1, 2], [0]):
        fill(tmp_path / "checkpoints", epochs)
        run_state(tmp_path).start(log=lambda _: None)
    aside = [tmp_path / "checkpoints.unfinished", tmp_path / "checkpoints.unfinished1"]
    assert [len(list(folder.glob("*.pt"))) for folder in aside] == [2, 1]


def test_a_finished_run_that_is_taken_further_is_unfinished_again(tmp_path):
    """Else the next run would drop its checkpoints instead of setting them aside."""
    fill(tmp_path / "checkpoints")
    run_state(tmp_path).finish()
    more = {"ffn-seed0": changed("training", epochs=9)}
    state = run_state(tmp_path, True, settings=more)
    assert not state.is_finished()
    state.start()
    fill(tmp_path / "checkpoints", epochs=(6,))
    run_state(tmp_path).start(log=lambda _: None)
    assert (tmp_path / "checkpoints.unfinished" / "ffn-seed0-epoch0006.pt").exists()


def test_finished_is_finished_for_the_same_settings_alone(tmp_path):
    fill(tmp_path / "checkpoints")
    assert not run_state(tmp_path, True).is_finished()
    run_state(tmp_path).finish()
    assert not run_state(tmp_path, True).is_finished()  # its results are gone
    (tmp_path / "metrics.json").write_text("{}")
    assert run_state(tmp_path, True).is_finished()
    assert not run_state(tmp_path).is_finished()
    assert not run_state(tmp_path, True, settings={"ffn-seed0": changed("training", epochs=6)}).is_finished()
    (tmp_path / "checkpoints" / RunState.FINISHED).write_text("{")
    assert not run_state(tmp_path, True).is_finished()


def test_settings_survive_the_way_through_json():
    settings = {network.run_name: network.settings for network in (NETWORK, NETWORK.with_seed(2))}
    assert json.loads(json.dumps(settings)) == settings


# Weights


def saved(folder, **changes):
    """The content of a real NAME.pth, written again with `changes`; None leaves a key out."""
    save_weights(folder, NETWORK, "classic", NETWORK.build().state_dict())
    path = folder / "ffn.pth"
    content = {**torch.load(path, weights_only=True), **changes}
    torch.save({key: value for key, value in content.items() if value is not None}, path)
    return path


def test_what_a_weights_file_holds(tmp_path):
    model = NETWORK.build()
    save_weights(tmp_path, NETWORK, "classic", model.state_dict())
    content = torch.load(tmp_path / "ffn.pth", weights_only=True)
    assert (content["model"], content["recipe"], content["config"]) == ("ffn", "classic", NETWORK.settings)
    assert all(torch.equal(content["state_dict"][key], tensor) for key, tensor in model.state_dict().items())
    assert load_weights(tmp_path / "ffn.pth").keys() == content.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["ffn.pth"]


@pytest.mark.parametrize("key", ["model", "recipe", "config", "state_dict", "format"])
def test_a_file_that_lacks_something_is_refused(key, tmp_path):
    path = saved(tmp_path, **{key: None})
    with pytest.raises(Refused, match=r"ffn\.pth"):
        load_weights(path)


@pytest.mark.parametrize(
    "content", [[1, 2], {}, {"format": 99}, torch.zeros(3), "text", None, {"format": 1, "state_dict": {}}], ids=str
)
def test_a_file_of_another_kind_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(Refused, match=r"other\.pth"):
        load_weights(tmp_path / "other.pth")


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
    path = saved(tmp_path, state_dict=state)
    with pytest.raises(Refused, match=r"ffn\.pth") as caught:
        load_weights(path)
    assert "\n" not in str(caught.value)


def test_a_directory_and_a_missing_file_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none.pth"):
        with pytest.raises(Refused, match=str(path)):
            load_weights(path)


def test_reading_reports_what_is_wrong(tmp_path):
    with pytest.raises(Damaged, match="is not there"):
        checkpoints.load(tmp_path / "none.pt")
    (tmp_path / "empty.pt").touch()
    with pytest.raises(Damaged, match="is damaged"):
        checkpoints.load(tmp_path / "empty.pt")
    save(tmp_path / "good.pt", {"format": 1, "x": torch.arange(3)})
    assert checkpoints.load(tmp_path / "good.pt")["x"].tolist() == [0, 1, 2]


def test_a_packed_archive_is_refused_whatever_it_may_unfold_to(tmp_path):
    path, packed = saved(tmp_path), tmp_path / "packed.pth"
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as other:
        for part in archive.infolist():
            other.writestr(part.filename, archive.read(part))
    with pytest.raises(Refused, match=r"packed\.pth is damaged"):
        load_weights(packed)


def test_an_altered_byte_is_noticed_wherever_it_is(tmp_path):
    """Or else it does no harm: the archive pads its parts, and its directory holds dates and the like."""
    path = saved(tmp_path)
    good, whole = path.read_bytes(), load_weights(path)
    noticed = 0
    for place in range(0, len(good), 97):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :])
        try:
            content = load_weights(path)
        except Refused:
            noticed += 1
            continue
        assert content["config"] == whole["config"]
        assert all(torch.equal(content["state_dict"][key], tensor) for key, tensor in whole["state_dict"].items())
    assert noticed > 50


def test_a_weights_file_in_the_place_of_a_checkpoint_is_passed_over(tmp_path):
    store = fill(tmp_path)
    save_weights(tmp_path, replace(NETWORK, name="w"), "classic", NETWORK.build().state_dict())
    (tmp_path / "w.pth").replace(tmp_path / "ffn-seed0-epoch0003.pt")
    said = []
    assert len(store.newest(said.append)["history"]) == 2
    assert "ffn-seed0-epoch0003.pt" in said[0]
