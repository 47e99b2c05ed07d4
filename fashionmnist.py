"""Train the networks of a recipe on Fashion-MNIST, score them, draw what they do, and report.

    python fashionmnist.py                             the recipe `classic`: FFN against CNN
    python fashionmnist.py --list                      which recipes there are
    python fashionmnist.py --hidden 512 256 --epochs 5
    python fashionmnist.py --network my_net.py:Net     your own network in place of the recipe's
    python fashionmnist.py --models ffn --vary hidden=64,256 lr=3e-4,1e-3    a study: every combination
    python fashionmnist.py --compare outputs/a outputs/b                     finished runs side by side
    python fashionmnist.py --resume                    go on with a run that was stopped

Everything is written to outputs/RECIPE/; `python kernel_vis.py` then shows what the CNN has learnt.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fmnist import options, report
from fmnist.errors import Stopped, command, leave, run_main
from fmnist.files import locked
from recipes import DEFAULT, RECIPES

if TYPE_CHECKING:  # torch takes seconds to import: functions import what needs it, once the options are known good
    from fmnist.config import Recipe
    from fmnist.data import FashionMNIST
    from fmnist.device import Machine
    from fmnist.metrics import Metrics
    from fmnist.trials import Trial

HERE = Path(__file__).resolve().parent


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line asks. Raises Refused, Failed or Stopped: see `fmnist.errors.run_main`."""
    asked = parse_arguments(argv)
    if asked.list:
        print(report.listing(RECIPES.values()))
    elif asked.compare:
        compare(asked)
    else:
        with locked(options.run_folder(asked, RECIPES)) as folder:
            experiment(asked, folder)


def experiment(asked: argparse.Namespace, folder: Path) -> None:
    """Load, train, evaluate, draw, report: one run of a recipe into `folder`."""
    from fmnist import data, device, page, runs, studies, trials, workers

    run = runs.Run(folder, asked.resume, options.asked_for(asked), options.describes_run(asked))
    recipe = options.changed(RECIPES[asked.recipe], run.options).checked()
    seeds = run.options.get("seeds", 1)
    networks = [*recipe.trainings(seeds), *recipe.auditors]
    machine = device.choose(run.options, any(network.is_torch for network in networks))
    machine = machine._replace(threads=run.threads or workers.threads(run.options, machine, len(networks)))
    device.prepare(machine)
    print(f"{recipe.name}: {recipe.title}, on {machine}, into {folder}")
    dataset = data.load(asked.data_dir).to(machine.device)
    planned = trials.plan(recipe, seeds, dataset, machine, run.checkpoints)
    run.plan({trial.name: trial.settings for trial in planned}, dataset.digests())
    if run.is_finished():
        print(f"this run is finished: {folder}\n\n{report.results_table(run.metrics())}")
        return

    if recipe.study and not run.resume:
        print(studies.estimate(recipe, seeds, dataset, machine))
    run.start()
    try:
        diverged = workers.train_all(planned, dataset, run.options, folder)
        recipe, finished = studies.without_diverged(recipe, planned, diverged)
        keep_weights(finished, run.results)
        metrics = present(recipe, finished, dataset, machine, run.results)
        run.leave_out({trial.name for trial in planned} - {trial.name for trial in finished})
        run.finish()
        page.add_figures(folder / "report.html", run.drawn())
    except Stopped as stop:
        stop.advice = f"every finished epoch is saved; to go on: {how_to_resume(asked)}"
        raise
    print(f"\n{report.results_table(metrics)}\n")
    print(f"everything is in {folder}; open {folder / 'report.html'} in a browser")
    workers.raise_first(diverged, len(planned), "their combinations are left out, the others compared")


def compare(asked: argparse.Namespace) -> None:
    """Set finished runs beside each other, from what their trials have stored."""
    place = options.comparison_folder(asked, RECIPES)
    from fmnist import comparison, comparison_page, data, files

    compared = comparison.read(asked.compare, data.load(asked.data_dir))
    content = comparison.content(compared)
    told = comparison_page.tell(compared, content)
    with locked(place) as folder:
        files.write_json(folder / "comparison.json", content)
        files.write_csv(folder / "comparison.csv", comparison.rows(compared))
        comparison_page.write(folder / "comparison.html", compared, told, data.CLASSES)
    print(f"\n{comparison_page.table(told)}\n\nopen {folder / 'comparison.html'} in a browser")


def keep_weights(planned: list["Trial"], folder: Path) -> None:
    """Write NAME.pth of every network into `folder`: of several seeds the first one's weights are kept."""
    from fmnist import checkpoints, trials

    for first in {trial.network.name: trial for trial in reversed(planned) if trial.part is None}.values():
        weights, temperature = trials.weights(first), trials.temperature(first)
        checkpoints.save_weights(folder, first.network, first.recipe, weights, first.release, temperature)


def present(
    recipe: "Recipe", planned: list["Trial"], dataset: "FashionMNIST", machine: "Machine", folder: Path
) -> "Metrics":
    """Write metrics.json, every picture and the reports into `folder`; return the content of metrics.json."""
    from fmnist import audit, checkpoints, exploration, files, page, results, study_results, trials
    from fmnist.data import CLASSES, test_image
    from fmnist.figures import album

    trained, judgements = trials.read_all(planned, dataset), trials.read_judgements(planned)
    explored = exploration.explore(dataset, judgements) if recipe.explores else None
    suspected = audit.suspected_tests(dataset, judgements) if judgements else None
    collected = results.collect(recipe, trained, dataset, machine, explored, suspected)
    files.write_json(folder / "metrics.json", collected)
    if recipe.study:
        files.write_csv(folder / "study.csv", study_results.trials(collected["models"]))
    evaluations = {name: trained[name][0].evaluation for name in results.looked_into(collected)}
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
    add("recipe", nargs="?", choices=RECIPES, help="the experiment to run [classic]")
    add("--list", action="store_true", help="print the recipes and their networks, and exit")
    words = "go on with the run that was stopped in this output folder; with a recipe or options, else start it"
    add("--resume", action="store_true", help=words)
    options.add_compare(parser)
    options.add_folders(parser, HERE)
    options.add_experiment_options(parser)
    asked = parser.parse_args(argv)
    asked.is_recipe_named = asked.recipe is not None
    asked.recipe = asked.recipe or DEFAULT
    return asked


def how_to_resume(asked: argparse.Namespace) -> str:
    """The command that goes on with a run that was started by `asked`."""
    folders = (("--data-dir", asked.data_dir, "data"), ("--output-dir", asked.output_dir, "outputs"))
    elsewhere = [word for name, folder, usual in folders if folder != HERE / usual for word in (name, str(folder))]
    elsewhere += ["--name", asked.name] if asked.name else []
    # The run remembers what it was begun with, but not yet what it was resumed with.
    words = options.as_words(options.asked_for(asked))
    return command("fashionmnist.py", asked.recipe, "--resume", *elsewhere, *words)


if __name__ == "__main__":
    leave(run_main(main))
