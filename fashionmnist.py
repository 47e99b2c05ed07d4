"""Train the networks of a recipe on Fashion-MNIST, score them, draw what they do, and report.

    python fashionmnist.py                             the recipe `classic`: FFN against CNN
    python fashionmnist.py --list                      which recipes there are
    python fashionmnist.py --hidden 512 256 --epochs 5
    python fashionmnist.py --network my_net.py:Net     your own network in place of the recipe's
    python fashionmnist.py --resume                    go on with a run that was stopped

Everything is written to outputs/RECIPE/; `python kernel_vis.py` then shows what the CNN has learnt.
"""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fmnist import options, report
from fmnist.errors import Stopped, leave, run
from fmnist.files import locked
from recipes import RECIPES

if TYPE_CHECKING:  # torch takes seconds to import: functions import what needs it, once the options are known good
    from fmnist.config import Network, Recipe
    from fmnist.data import FashionMNIST
    from fmnist.device import Machine
    from fmnist.metrics import Metrics, Trained
    from fmnist.runs import Run

HERE = Path(__file__).resolve().parent


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line asks. Raises Refused, Failed or Stopped, which `fmnist.errors.run` puts into words."""
    asked = parse_arguments(argv)
    if asked.list:
        print(report.listing(RECIPES.values()))
    else:
        with locked(asked.output_dir / asked.recipe) as folder:
            experiment(asked, folder)


def experiment(asked: argparse.Namespace, folder: Path) -> None:
    """Load, train, evaluate, draw, report: one run of a recipe into `folder`."""
    from fmnist import data, device, page, runs

    run = runs.Run(folder, asked.resume, options.asked_for(asked))
    recipe = options.changed(RECIPES[asked.recipe], run.options).checked()
    machine = device.set_up(run.options, any(network.is_torch for network in recipe.networks))
    print(f"{recipe.name}: {recipe.title}, on {machine}, into {folder}")
    dataset = data.load(asked.data_dir).to(machine.device)
    for network in recipe.networks:
        data.training_data(dataset, network.training.validation, network.training.seed)  # refused now, if at all
    trainings = recipe.trainings(run.options.get("seeds", 1))
    common = {"machine": machine.settings, "data": {"training data": dataset.digest()}}
    run.plan({network.run_name: {**network.settings, **common} for network in trainings})
    if run.is_finished():
        print(f"this run is finished: {folder}\n\n{report.results_table(run.metrics())}")
        return

    run.start()
    try:
        trained: dict[str, list[Trained]] = {network.name: [] for network in recipe.networks}
        for network in trainings:
            trained[network.name].append(train(network, recipe, dataset, machine, run))
        metrics = present(recipe, trained, dataset, machine, run.results)
        run.finish()
        page.add_figures(folder / "report.html", run.drawn())
    except Stopped as stop:
        stop.advice = f"every finished epoch is saved; to go on: {how_to_resume(asked)}"
        raise
    print(f"\n{report.results_table(metrics)}\n")
    print(f"everything is in {folder}; open {folder / 'report.html'} in a browser")


def train(network: "Network", recipe: "Recipe", dataset: "FashionMNIST", machine: "Machine", run: "Run") -> "Trained":
    """Train `network`, or what is left of its training, and score it on the test images, once."""
    from fmnist import checkpoints, data, device, evaluation, learners, metrics, training

    config = network.training
    training_data = data.training_data(dataset, config.validation, config.seed)
    steps = config.epochs * training.steps_per_epoch(len(training_data.train_indices), config.batch_size)
    learner = learners.make_learner(network.build(), config, machine, steps)
    kept = run.checkpoints(network.run_name)
    progress = training.resume(learner, kept) if run.resume else training.Progress()
    done = len(progress.history)
    finished = done >= config.epochs or training.is_stalled(progress.history, config.patience)
    where = ", trained already" if finished else f", from epoch {done + 1}" if done else ""
    print(f"{network.title}, seed {config.seed}{where}")
    progress = training.fit(learner, training_data, config, kept, progress)
    training.select(learner, progress)
    best = training.selected_epoch(progress.history, config)
    if best:
        print(f"  epoch {best} is the best on validation: its weights are scored")
    device.give_back_memory()
    if not (run.results / f"{network.name}.pth").exists():  # of several seeds the first one's weights are kept
        checkpoints.save_weights(run.results, network, recipe.name, learner.weights(), dataset.release)
    scored = evaluation.evaluate(learner, dataset, training_data.train_indices)
    return metrics.Trained(network, progress.history, best, scored, learner.cost())


def present(
    recipe: "Recipe", trained: dict[str, list["Trained"]], dataset: "FashionMNIST", machine: "Machine", folder: Path
) -> "Metrics":
    """Write metrics.json, every picture and the reports into `folder`; return the content of metrics.json."""
    from fmnist import checkpoints, exploration, files, metrics, page
    from fmnist.data import CLASSES, test_image
    from fmnist.figures import album

    explored = exploration.explore(dataset) if recipe.explores else None
    collected = metrics.collect(recipe, trained, dataset, machine, explored)
    files.write_json(folder / "metrics.json", collected)
    evaluations = {name: runs[0].evaluation for name, runs in trained.items()}
    for name, evaluation in evaluations.items():
        files.write_text(folder / f"{name}_report.txt", evaluation.classification_report())

    drawn = album.Album(folder)
    if explored:
        album.draw_dataset(drawn, explored, dataset)
    predictions = {name: evaluation.predictions for name, evaluation in evaluations.items()}
    album.draw_models(drawn, recipe.figures, collected, predictions)
    pictures = drawn.pictures
    convolutional = [network.name for network in recipe.networks if network.is_convolutional]
    for name in album.networks_to_look_into(recipe.figures, convolutional, collected["best"]):
        model, content = checkpoints.rebuild(folder / f"{name}.pth", recipe.networks)
        layers = album.Album(folder, prefix=f"{name}_")
        album.draw_layers(layers, model, content["title"], test_image(dataset, 0))
        pictures += layers.pictures
    page.write_report(folder / "report.html", collected, predictions, pictures, CLASSES)
    return collected


# The command line


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line. Raises Refused, naming the option and its limits, for what is out of them."""
    parser = options.Parser(
        prog="fashionmnist.py",
        description="Train the networks of a recipe on Fashion-MNIST, score them, draw what they do, and report.",
    )
    add = parser.add_argument
    add("recipe", nargs="?", default="classic", choices=RECIPES, help="the experiment to run [classic]")
    add("--list", action="store_true", help="print the recipes and their networks, and exit")
    add("--resume", action="store_true", help="go on with the run that was stopped in this output folder")
    options.add_folders(parser, HERE)
    options.add_experiment_options(parser)
    return parser.parse_args(argv)


def how_to_resume(asked: argparse.Namespace) -> str:
    """The command that goes on with a run that was started by `asked`."""
    folders = (("--data-dir", asked.data_dir, "data"), ("--output-dir", asked.output_dir, "outputs"))
    elsewhere = [word for name, folder, usual in folders if folder != HERE / usual for word in (name, str(folder))]
    # The run remembers what it was begun with, but not yet what it was resumed with.
    words = options.as_words(options.asked_for(asked))
    return shlex.join(["python", "fashionmnist.py", asked.recipe, "--resume", *elsewhere, *words])


if __name__ == "__main__":
    leave(run(main))
