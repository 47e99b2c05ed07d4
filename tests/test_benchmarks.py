"""The benchmarks: that what they compare is comparable, that their rules hold, and that they run."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks import agreement, growth, loops, measure, peers, photographs, speed, speedrun
from benchmarks.bench import Bench
from fmnist import data, learners
from fmnist.device import Machine
from fmnist.errors import Refused
from tests.helpers import garments, tiny

MEASURES_MEMORY = pytest.mark.skipif(
    measure.resource is None, reason="this system does not tell a process's peak memory"
)


@pytest.fixture(scope="module")
def csv_folder(tmp_path_factory, made_up):
    """The made-up data in the form that has no checksums: a process of its own takes it too."""
    return tiny.write_csv(made_up, tmp_path_factory.mktemp("csv"))


@pytest.fixture(scope="module")
def dataset(csv_folder):
    return data.load(csv_folder, log=lambda _: None)


class Ended(Exception):
    """Takes the place of os._exit."""


@pytest.fixture
def commands_here(monkeypatch):
    """Let `measure.run` call Python's scripts, modules and programs in this process: torch takes seconds to import."""

    def run_here(_python, *words):
        how, name, *arguments = map(str, words) if words[0] in ("-m", "-c") else ("script", *map(str, words))
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        step = learners.TorchLearner.step  # which FIRST_STEP replaces
        with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.suppress(Ended):
            if how == "-c":
                exec(name, {})
            elif how == "-m":
                __import__(name, fromlist=["main"]).main(arguments)
            else:
                runpy.run_path(str(measure.ROOT / name))["main"](arguments)
        learners.TorchLearner.step = step
        return measure.Completed(output.getvalue(), 1.5, 250.0)

    def end(_code):
        raise Ended

    monkeypatch.setattr(measure, "run", run_here)
    monkeypatch.setattr(os, "_exit", end)


# Both loops train the same network on the same pixels


@pytest.mark.parametrize("name", loops.PLAIN)
def test_the_plain_network_is_the_projects_own(name):
    plain, own = loops.PLAIN[name]().eval(), loops.classic(name).build().eval()
    own.load_state_dict(dict(zip(own.state_dict(), plain.state_dict().values(), strict=True)))
    published = loops.classic(name).published["parameters"]
    assert sum(parameter.numel() for parameter in plain.parameters()) == published
    images = torch.randint(0, 256, (20, 28, 28), dtype=torch.uint8)
    torch.testing.assert_close(plain(own.pixels(images)), own(images))
    dropouts = [[layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)] for model in (plain, own)]
    assert dropouts[0] == dropouts[1]


@pytest.mark.parametrize("name", loops.PLAIN)
def test_the_plain_loop_prepares_the_pixels_and_sets_the_optimizer_as_the_recipe_does(name, dataset):
    network = loops.classic(name)
    loop = loops.PlainLoop(network, dataset)
    prepared, label = loop.images[7]
    torch.testing.assert_close(prepared, network.build().pixels(dataset.train_images[7:8])[0])
    assert label == dataset.train_labels[7]
    assert len(loop.images) == len(dataset.train_images)
    assert (loop.batch_size, loop.optimizer.defaults["lr"]) == (network.training.batch_size, network.training.lr)
    assert network.training.optimizer == "adam"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_loops_learn(dataset, precision):
    network = loops.classic("ffn", epochs=3)
    plain = loops.PlainLoop(network, dataset, precision)
    assert all(plain.train_epoch(range(600)) > 0 for _ in range(3))
    learner, seconds, _ = loops.train_by_fit(network, dataset, 600, precision)
    accuracies = plain.accuracy(*dataset[2:4]), loops.learner_accuracy(learner, *dataset[2:4])
    assert min(accuracies) > 0.8
    assert seconds > 0


def test_the_plain_loops_accuracy_is_that_of_its_prepared_images(dataset):
    loop = loops.PlainLoop(loops.classic("ffn"), dataset)
    loop.model.eval()
    correct = [loop.model(image[None]).argmax() == label for image, label in islice(loop.images, 100)]
    assert loop.accuracy(dataset.train_images[:100], dataset.train_labels[:100]) == pytest.approx(np.mean(correct))


# Measuring


def test_a_commands_output_and_seconds():
    completed = measure.run(sys.executable, "-c", "import time; time.sleep(0.3); print('two\\nlines', end='')")
    assert completed.output.rstrip("\n") == "two\nlines"
    assert 0.3 <= completed.seconds < 30


def test_a_command_that_fails_is_no_measurement():
    with pytest.raises(subprocess.CalledProcessError):
        measure.run(sys.executable, "-c", "raise SystemExit(3)")


@MEASURES_MEMORY
def test_a_commands_peak_memory_is_its_own():
    ours = np.ones(300_000_000, np.uint8)  # on Linux it would count as the command's, were it started by this process
    idle = measure.run(sys.executable, "-c", "pass").megabytes
    busy = measure.run(sys.executable, "-c", "b = bytearray(b'1') * 200_000_000; del b").megabytes
    assert idle < len(ours) / 1e6 / 3
    assert busy - idle == pytest.approx(200, abs=20)


def test_without_a_way_to_measure_memory_the_rest_is_measured(monkeypatch, capfd):
    monkeypatch.setattr(measure, "resource", None)
    assert measure._run_and_report([sys.executable, "-c", "print('done')"]) == 0
    output, _, report = capfd.readouterr().out.rpartition("\n")
    assert output == "done\n"
    assert report.endswith("null]")
    assert "not measured" in measure.megabytes(None)


def test_spread_and_table():
    assert measure.spread([3.0, 1.0, 2.0], ".1f") == "2.0 (1.0 to 3.0)"
    assert measure.spread([3.0], ".1f") == "3.0"
    assert measure.table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


# speed


def test_the_accuracy_is_reached_in_the_first_epoch_that_has_it():
    history = iter([0.80, 0.8835, 0.8836, 0.87, 0.90])
    assert speedrun.epochs_to_reach(0.8836, history) == 3
    assert list(history) == [0.87, 0.90], "training goes on after the accuracy is reached"
    assert speedrun.epochs_to_reach(0.91, [0.80, 0.90]) is None


def test_the_plain_loop_stops_where_it_is_given_up(monkeypatch):
    trained = []
    monkeypatch.setattr(speedrun, "load", lambda root: root)
    monkeypatch.setattr(
        speedrun, "held_out_accuracies", lambda *_: (trained.append(epoch) or epoch / 20 for epoch in count())
    )
    assert speedrun.plain_epochs("root", "cnn", 0, 5) is None
    assert trained == list(range(5))
    assert speedrun.plain_epochs("root", "cnn", 0, 50) == 20  # the accuracies are 0, 0.05 ... and 0.9147 is asked for


def test_the_held_out_images_are_not_trained_on(dataset, monkeypatch):
    trained, scored = [], []
    monkeypatch.setattr(loops.PlainLoop, "train_epoch", lambda _, indices: trained.append(indices))
    monkeypatch.setattr(loops.PlainLoop, "accuracy", lambda _, images, labels: scored.append(images) or 0.5)
    assert list(islice(speedrun.held_out_accuracies(loops.classic("ffn", seed=3), dataset), 2)) == [0.5, 0.5]
    held_out = sorted(set(range(600)) - set(trained[0]))
    assert (len(trained[0]), len(held_out)) == (540, 60)
    ours, theirs = (
        {image.numpy().tobytes() for image in images} for images in (dataset.train_images[held_out], scored[0])
    )
    assert ours == theirs


def test_the_ratios_of_speedrun():
    rates = {"ffn": 1000.0, "cnn": 100.0}
    runs = [
        speedrun.Speedrun(measure.Completed("", seconds, None), {"ffn": 1.0, "cnn": 2.0}, rates)
        for seconds in (50, 100)
    ]
    published, accuracy = speedrun.ratios(runs, {"ffn": [5, 7], "cnn": [4, 4]}, 60_000).splitlines()[2:]
    # 15 epochs of 60 s and 10 of 600 s; 6 of 54 s and 4 of 540 s, as a tenth is held out
    assert published.split(" | ")[1:] == ["6900 (6900 to 6900)", "75.0 (50.0 to 100.0)", "103.5 (69.0 to 138.0) |"]
    assert accuracy.split(" | ")[1:] == ["2484 (2484 to 2484)", "75.0 (50.0 to 100.0)", "37.3 (24.8 to 49.7) |"]
    assert "46.9" not in published  # nobody divides medians
    assert "| 97.0" not in speedrun.parts(runs)
    assert "| all else: start, data, evaluation, figures, report | 72.0 (47.0 to 97.0) |" in speedrun.parts(runs)
    row = speedrun.epoch_row("cnn", runs, [4, None], [4, 30])
    assert row[-2:] == ["17.0 (4 to 30)", "4, not in 30"]


def test_what_the_loop_gives_and_what_the_precision_gives():
    rates = {
        ("plain", "fp32"): [100.0, 200.0],
        ("fit", "fp32"): [300.0, 400.0],
        ("plain", "bf16"): [150.0, 200.0],
        ("fit", "bf16"): [600.0, 1600.0],
        ("product", "fp32"): [1e9, 2e9],
        ("product", "bf16"): [1e9, 1e9],
    }
    gains = {what: ratio for _, what, ratio in speed.gain_rows(loops.classic("ffn"), rates)}
    assert gains == {
        "the loop, in fp32": "2.50 (2.00 to 3.00)",
        "the loop, in bf16": "6.00 (4.00 to 8.00)",
        "bf16, in the plain loop": "1.25 (1.00 to 1.50)",
        "bf16, in this project": "3.00 (2.00 to 4.00)",
        "both": "7.00 (6.00 to 8.00)",
    }
    only_fp32 = {key: values for key, values in rates.items() if key[1] == "fp32"}
    assert [what for _, what, _ in speed.gain_rows(loops.classic("ffn"), only_fp32)] == ["the loop, in fp32"]
    fractions = [row[-1] for row in speed.rate_rows(loops.classic("ffn"), rates, ["fp32"])]
    per_image = 2 * (2 * 784 * 256) + 3 * (
        2 * 256 * 10
    )  # forward and the weights' gradient; of the output also its input's
    assert fractions[1] == measure.spread([300 * per_image / 1e9, 400 * per_image / 2e9], ".1%")


def test_speed_runs(tmp_path, commands_here, monkeypatch, capsys):
    from fmnist import page
    from fmnist.figures import album

    drawn = []
    monkeypatch.setattr(speed, "PRODUCT", 64)
    monkeypatch.setattr(speed, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
    monkeypatch.setattr(album, "draw_models", lambda *_: drawn.append("models"))
    monkeypatch.setattr(album, "draw_layers", lambda *_: drawn.append("layers") or np.zeros(10))
    monkeypatch.setattr(page, "write_report", lambda *_: drawn.append("report"))
    monkeypatch.setattr(page, "add_figures", lambda *_: None)
    speed.main(["--quick", "--data-dir", str(tiny.write_csv(tiny.make(200, 60), tmp_path / "data"))])
    output = capsys.readouterr().out
    for words in (
        "| FFN | plain loop | fp32 |",
        "| CNN | the loop, in fp32 |",
        "as fast as the published number of epochs",
        "as fast as the plain loop takes to the same accuracy",
        "Peak memory of `speedrun`, in MB: 250",
        "| from the command to the end of the first training step | 1.5 |",
    ):
        assert words in output
    assert drawn == ["models", "report", "models", "report", "layers"]  # of `speedrun`, then of both scripts


# peers


def test_this_loop_by_its_peers_round_by_round():
    rates = {
        ("ffn", "this", "bf16"): [300.0, 200.0],
        ("ffn", "jax", "fp32"): [100.0, 400.0],
        ("ffn", "plain", "bf16"): [50.0, 50.0],
    }
    ours = "250 (200 to 300)"
    assert list(peers.rows(rates, "bf16")) == [
        ["FFN", "bf16", ours, "Keras on JAX", "fp32", "250 (100 to 400)", "1.75 (0.50 to 3.00)"],
        ["FFN", "bf16", ours, "the plain loop", "bf16", "50 (50 to 50)", "5.00 (4.00 to 6.00)"],
    ]


def test_everyone_is_measured_in_turns(dataset, csv_folder, monkeypatch):
    turns = []

    def note(_root, name, _count, precision):
        turns.append((name, precision))
        return 1.0

    monkeypatch.setattr(peers, "keras_rate", note)
    machine, effort = Machine(torch.device("cpu"), "fp32"), speed.QUICK._replace(steps={"ffn": 1, "cnn": 1})
    with ThreadPoolExecutor(1) as apart:
        bench = Bench(csv_folder, dataset, machine, effort, apart)
        rates = peers.measure_rates(bench, dict.fromkeys(peers.PEERS.values(), apart))
    assert turns == [("ffn", "fp32"), ("cnn", "fp32")] * effort.pairs
    whos = [("this", "jax", "plain"), ("this", "tensorflow", "plain")]
    assert {key[:2] for key in rates} == {(name, who) for name, by in zip(peers.PEERS, whos, strict=True) for who in by}
    assert all(len(measured) == effort.pairs and min(measured) > 0 for measured in rates.values())


def test_a_peer_that_is_not_installed_is_refused(monkeypatch, csv_folder):
    monkeypatch.setattr(peers.util, "find_spec", lambda package: None if package == "jax" else package)
    with pytest.raises(Refused, match=r"--peers: jax not installed: pip install -r requirements-benchmarks.txt"):
        speed.main(["--peers", "--data-dir", str(csv_folder)])


@pytest.mark.parametrize("name", peers.PEERS)
def test_keras_trains_the_same_network(name, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", peers.PEERS["ffn"])
    keras = pytest.importorskip("keras", reason="requirements-benchmarks.txt is not installed")
    network = loops.classic(name)
    model = keras.Sequential([keras.Input((28, 28, 1)), *peers.keras_layers(network)])
    assert model.count_params() == network.published["parameters"]
    assert [layer.rate for layer in model.layers if "dropout" in layer.name] == [network.argument("dropout")]


# agreement


def compared(plain, fit):
    return agreement.Comparison("ffn", np.array(plain), np.array(fit))


def test_the_verdict_of_agreement():
    random = np.random.default_rng(0)
    noise = random.normal(0, 0.002, (2, 30))
    equal, worse = compared(*(0.88 + noise)), compared(0.88 + noise[0], 0.874 + noise[1])
    assert (equal.shown, equal.verdict) == (True, "equivalent within 0.3 points")
    assert (worse.shown, worse.verdict) == (False, "this project is worse")
    assert compared(worse.fit, worse.plain).verdict == "this project is better"
    few = compared([0.88, 0.89, 0.87], [0.88, 0.87, 0.89])
    assert (few.shown, few.verdict) == (False, "too few seeds to tell")
    assert int(few.row[2]) > 3
    assert compared([0.9, 0.9], [0.8, 0.8]).verdict == "this project is worse"


def test_agreement_trains_the_seeds_that_the_spread_asks_for(monkeypatch):
    asked = {"plain": [], "fit": []}
    accuracies = {"plain": [0.880, 0.887], "fit": [0.881, 0.886]}  # of even and odd seeds

    def trained(loop):
        return lambda _name, seed, _bench: asked[loop].append(seed) or accuracies[loop][seed % 2]

    monkeypatch.setattr(agreement, "by_plain_loop", trained("plain"))
    monkeypatch.setattr(agreement, "by_this_project", trained("fit"))
    needed = agreement.samples_for_equivalence(0.007 * np.std([0, 1, 0, 1, 0], ddof=1), 0.003, 0.8)
    assert 10 < needed < 40
    assert agreement.compare("ffn", None, 5, 40).shown
    assert asked == {"plain": list(range(needed)), "fit": list(range(needed))}
    assert len(agreement.compare("ffn", None, 5, 7).fit) == 7
    assert len(agreement.compare("ffn", None, needed + 3, 60).fit) == needed + 3


QUICK = ["--models", "ffn", "--epochs", "2", "--images", "600"]


def test_agreement_passes_two_loops_that_are_the_same(csv_folder, monkeypatch, run_here):
    monkeypatch.setattr(agreement, "MARGIN", 0.15)  # of a network that has seen 600 images
    monkeypatch.setattr(
        agreement, "by_this_project", lambda name, seed, bench: agreement.by_plain_loop(name, seed + 100, bench)
    )
    done = run_here([*QUICK, "--data-dir", csv_folder], agreement.main)
    assert done.returncode == 0, done.stderr
    assert "equivalent within 15 points" in done.stdout


def test_agreement_fails_a_loop_that_learns_less(csv_folder, monkeypatch, run_here):
    monkeypatch.setattr(agreement, "MARGIN", 0.1)
    monkeypatch.setattr(agreement, "train_by_fit", lambda *given: loops.train_by_fit(*given[:2], 50, given[3]))
    done = run_here([*QUICK, "--data-dir", csv_folder], agreement.main)
    assert done.returncode == 1
    assert "this project is worse" in done.stdout
    assert done.stderr.startswith("error: equivalence within 10 points is not shown: ffn: this project is worse ")
    assert len(done.stderr.splitlines()) == 1


# growth


@pytest.mark.parametrize(
    ("costs", "words"),
    [
        ([2.0, 4.1, 7.9, 16.0], "linear growth"),
        ([5.0, 7.0, 11.0, 19.0], "linear growth"),  # with a part that does not grow
        ([1.0, 4.0, 16.0, 64.0], "more than linear growth"),
        ([1.0, 4.0, 6.0, 8.0], "less than linear growth"),
        ([1.0, 2.0], "growth, of which two values do not show how,"),
        ([800.0, 801.0, 799.0, 820.0], "no growth"),
    ],
)
def test_growth_in_words(costs, words):
    assert growth.growth([1, 2, 4, 8][: len(costs)], costs) == words


def test_what_several_have_in_common_is_measured_once():
    measured = []

    def cost(work):
        measured.append(work)
        return growth.Cost(float(len(measured)), None if len(measured) == 1 else 100.0 + len(measured))

    costs = growth.measure_growth(growth.QUICK._replace(repeats=3), cost)
    assert len(measured) == 3 * len(set(measured)) == 12
    assert costs["training images"][0] == costs["width"][0] == costs["epochs"][0] == growth.Cost(2.0, 102.5)


def test_growth_runs(csv_folder, commands_here, capsys, tmp_path):
    picture = tmp_path / "new" / "cost_growth.png"
    growth.main(["--quick", "--data-dir", str(csv_folder), "--picture", str(picture)])
    output = capsys.readouterr().out
    assert output.count("| training images | ") == output.count("| width | ") == output.count("| epochs | ") == 2
    assert output.count(", no growth of the memory") == 3
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG"


def test_growth_refuses_data_of_too_few_images(csv_folder):
    with pytest.raises(Refused, match="60,000 training images are needed, and 600 are there"):
        growth.main(["--data-dir", str(csv_folder)])


@pytest.mark.parametrize("program", [speed, agreement, growth])
def test_help_is_a_line_of_what_the_program_is_for(program, run_here):
    done = run_here(["--help"], program.main)
    assert (done.returncode, done.stderr) == (0, "")
    assert program.__doc__.partition("\n")[0][:40] in " ".join(done.stdout.split())


# photographs


class Correlation(nn.Module):
    """Tells three garments by what they have in common with an image: logits [B, 3]."""

    def forward(self, images):
        known = torch.tensor(np.stack(GARMENTS)).float().flatten(1)
        return torch.corrcoef(torch.cat([images.flatten(1).float() + 1e-3 * known[0], known]))[: len(images), -3:]


GARMENTS = [garments.boot(), garments.shirt(), garments.trousers()]


def test_photographs_are_scored_beside_the_images_themselves(monkeypatch):
    monkeypatch.setattr(
        garments, "KNOWN", {"white": garments.Disguise(), "cut out": garments.Disguise(transparent=True)}
    )
    monkeypatch.setattr(garments, "HELD_OUT", {"nothing": garments.Disguise(tint=(0.0, 0.0, 0.0))})
    rows = photographs.rows(Correlation(), np.stack(GARMENTS), np.arange(3))
    assert rows == [
        ["white", "yes", "100.0%", "100.0%"],
        ["cut out", "yes", "100.0%", "100.0%"],
        ["nothing", "no", "33.3%", "33.3%"],  # nothing is found, which counts as an image that is black
    ]
