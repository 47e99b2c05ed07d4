"""Train the networks of a recipe on Fashion-MNIST, score them, draw what they do, and report.

    python fashionmnist.py                             the recipe `classic`: FFN against CNN
    python fashionmnist.py --list                      which recipes there are
    python fashionmnist.py --hidden 512 256 --epochs 5
    python fashionmnist.py --resume                    go on with a run that was stopped

Everything is written to outputs/RECIPE/; `python kernel_vis.py` then shows what the CNN has learnt.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import recipes
from fmnist.config import DEVICES, OPTIMIZERS, POOLS, PRECISIONS
from fmnist.errors import Stopped, run
from fmnist.files import locked
from fmnist.options import Parser, number, whole
from recipes import Network, Recipe

if TYPE_CHECKING:  # torch takes seconds to import: functions import what needs it, once the options are known good
    from fmnist.checkpoints import RunState
    from fmnist.data import FashionMNIST
    from fmnist.metrics import Trained
    from fmnist.training import Learner

HERE = Path(__file__).resolve().parent


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line asks. Raises Refused, Failed or Stopped, which `fmnist.errors.run` puts into words."""
    options = parse_arguments(argv)
    if options.list:
        from fmnist import report

        print(report.listing(recipes.RECIPES.values()))
    else:
        with locked(options.output_dir / options.recipe) as folder:
            experiment(options, folder)


def experiment(options: argparse.Namespace, folder: Path) -> None:
    """Load, train, evaluate, draw, report: one run of a recipe into `folder`."""
    from fmnist import checkpoints, data, report, training

    state = checkpoints.RunState(folder, options.resume, asked_for(options))
    recipe = recipes.with_options(recipes.RECIPES[options.recipe], state.options).checked()
    training.keep_freed_memory()
    device = training.choose_device(state.options.get("device", "auto"))
    by_torch = any(network.kind != "NumpyFFN" for network in recipe.networks)  # NumPy has no bf16
    precision = training.choose_precision(state.options.get("precision", "auto") if by_torch else "fp32", device)
    machine = {"device": device.type, "precision": precision}
    networks = recipe.trainings(state.options.get("seeds", 1))
    print(f"{recipe.name}: {recipe.title}, on {device.type} in {precision}, into {folder}")
    dataset = data.load(options.data_dir).to(device)
    common = {"machine": machine, "data": {"training data": dataset.digest()}}
    state.plan({network.run_name: {**network.settings, **common} for network in networks})
    if state.is_finished():
        print(f"this run is finished: {folder}")
        print(report.results_table(json.loads((folder / "metrics.json").read_text())))
        return

    state.start()
    try:
        trained: dict[str, list[Trained]] = {}
        for network in networks:
            learner = network.learner(device, precision, len(dataset.train_images))
            result = train(network, learner, dataset, state)
            if network.name not in trained:
                checkpoints.save_weights(folder, network, recipe.name, learner.state_dict()["model"])
            trained.setdefault(network.name, []).append(result)
        numbers = present(recipe, trained, dataset, machine, folder)
        state.finish()
    except Stopped as stop:
        if state.has_checkpoints():
            stop.advice = f"every finished epoch is saved; to go on: {how_to_resume(options)}"
        raise
    print(f"\n{report.results_table(numbers)}\n")
    made = "weights, pictures and tables" if networks else "pictures and tables"
    print(f"{made} are in {folder}; open {folder / 'report.html'} in a browser")


def train(network: Network, learner: "Learner", dataset: "FashionMNIST", state: "RunState") -> "Trained":
    """Train `network`, or what is left of its training, and score it on the test images, once."""
    from fmnist import data, evaluation, metrics, training

    config, images, labels = network.training, dataset.train_images, dataset.train_labels
    split = tuple(part.to(images.device) for part in data.split(len(images), config.validation, config.seed))
    checkpoints = state.checkpoints(network.run_name)
    progress = training.resume(learner, checkpoints) if state.resume else training.Progress()
    done = len(progress.history)
    where = ", trained already" if done >= config.epochs else f", from epoch {done + 1}" if done else ""
    print(f"{network.title}, seed {config.seed}{where}")
    progress = training.fit(learner, images, labels, split, config, checkpoints, progress)
    training.select(learner, progress)
    if progress.selected:
        print(f"  epoch {training.best_epoch(progress.history)} is the best on validation: its weights are scored")
    training.give_back_memory()
    return metrics.Trained(network, progress.history, evaluation.evaluate(learner, dataset, split[0]), learner.cost())


def present(
    recipe: Recipe, trained: dict[str, list["Trained"]], dataset: "FashionMNIST", machine: dict[str, str], folder: Path
) -> dict[str, Any]:
    """Write metrics.json, every picture and report.html into `folder`; return the numbers of metrics.json."""
    import kernel_vis
    from fmnist import checkpoints, exploration, files, metrics, report
    from fmnist.data import CLASSES
    from fmnist.evaluation import Predictions
    from fmnist.figures import album

    found = exploration.explore(dataset) if recipe.explores else None
    numbers = metrics.collect(recipe, trained, found, dataset.source, machine)
    files.write_json(folder / "metrics.json", numbers)

    evaluations = {name: runs[0].evaluation for name, runs in trained.items()}
    drawn = album.draw_data(found, dataset, folder) if found else []
    drawn += album.draw_models(recipe.figures, numbers, evaluations, dataset, folder)
    convolutional = [network.name for network in recipe.networks if network.is_convolutional]
    for name in album.networks_to_look_into(recipe.figures, convolutional, numbers["best"]):
        model = recipes.rebuild(checkpoints.load_weights(folder / f"{name}.pth"), folder / f"{name}.pth")
        title, sample = numbers["models"][name]["title"], kernel_vis.test_image(dataset, 0)
        drawn += kernel_vis.draw(model, title, sample, folder, prefix=f"{name}_")
    images = dataset.test_images.cpu().numpy()
    predictions = {name: Predictions(images, own.labels, own.probabilities) for name, own in evaluations.items()}
    report.write_report(folder / "report.html", numbers, predictions, drawn, CLASSES)
    return numbers


# The command line


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line. Raises Refused, naming the option and its limits, for what is out of them."""
    parser = Parser(
        prog="fashionmnist.py",
        description="Train the networks of a recipe on Fashion-MNIST, score them, draw what they do, and report.",
    )
    add = parser.add_argument
    add("recipe", nargs="?", default="classic", choices=recipes.RECIPES, help="the experiment to run [classic]")
    add("--list", action="store_true", help="print the recipes and their networks, and end")
    add("--resume", action="store_true", help="go on with the run that was stopped in this output folder")
    add("--models", nargs="+", metavar="NAME", help="train only these networks of the recipe")
    add("--data-dir", type=Path, default=HERE / "data", help="where the data set lies, or is to come [data]")
    add("--output-dir", type=Path, default=HERE / "outputs", help="a folder per recipe is made in it [outputs]")

    training = parser.add_argument_group("training; what is left out is as the recipe has it")
    add = training.add_argument
    add("--epochs", type=whole(1, 10_000), help="passes over the training images")
    add("--batch-size", "-b", type=whole(1, 60_000), help="images per step")
    add("--lr", type=number(1e-9, 100), help="learning rate")
    add("--optimizer", choices=OPTIMIZERS, help="how the weights follow the gradients")
    add("--validation", type=number(0, 0.9), metavar="FRACTION", help="share of the training images held out")
    add("--seed", type=whole(0, 1_000_000), help="weights, split, batches and dropout follow from it [0]")
    add("--seeds", type=whole(1, 1000), metavar="N", help="train every network from N seeds and say mean and spread")
    add("--device", choices=DEVICES, help="where to compute [auto: the best there is]")
    add("--precision", choices=PRECISIONS, help="number format [auto: what the processor is fast at]")

    networks = parser.add_argument_group("networks")
    add = networks.add_argument
    add("--hidden", type=whole(1, 16_384), nargs="+", metavar="UNITS", help="the FFN's hidden layers, e.g. 512 256")
    add("--kernels", type=whole(1, 4096), nargs="+", metavar="N", help="the CNN's kernels per layer, e.g. 32 64")
    add("--kernel-size", type=whole(1, 28), help="their height and width")
    add("--pool", choices=POOLS, help="what halves the CNN's maps")
    add("--dropout", type=number(0, 0.95), help="share of the hidden units left out at each step")
    return parser.parse_args(argv)


def asked_for(options: argparse.Namespace) -> dict[str, Any]:
    """The options given that shape the run, and that a checkpoint must therefore remember."""
    names = (*recipes.TRAINING_OPTIONS, *recipes.TAKES, "models", "seeds", "device", "precision")
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def how_to_resume(options: argparse.Namespace) -> str:
    """The command that goes on with a run started with `options`."""
    folders = (("--data-dir", options.data_dir, "data"), ("--output-dir", options.output_dir, "outputs"))
    elsewhere = [word for option, folder, usual in folders if folder != HERE / usual for word in (option, str(folder))]
    # The checkpoints remember what the run was begun with, but not yet what it was resumed with.
    values = {name: value if isinstance(value, list) else [value] for name, value in asked_for(options).items()}
    asked = [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", *map(str, value))]
    return shlex.join(["python", "fashionmnist.py", options.recipe, "--resume", *elsewhere, *asked])


if __name__ == "__main__":
    sys.exit(run(main))
