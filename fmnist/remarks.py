"""What stands below the tables of results, a sentence a line; made from the content of metrics.json."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fmnist.config import REPRODUCTION_SEEDS
from fmnist.errors import at_most
from fmnist.study_results import spread, trainings_of
from fmnist.tables import (
    MEASURES,
    gap,
    interval_text,
    mean_of,
    percent,
    seed_count,
    spread_text,
    with_std,
)

if TYPE_CHECKING:
    from fmnist.metrics import AuditedScore, Comparison, Metrics, Model

WARNINGS = {  # by release of the data set
    "first": "Warning: measured on the first release of the data set, whose test images are partly today's training "
    "images; accuracies are not comparable",
    "own": "Warning: measured on a data set of your own; accuracies are not comparable",
}
CLASS_COUNT = 10
MOST_NAMED = 8  # combinations of a study, in a sentence
TOO_FEW_SEEDS = (
    f"Fewer than {REPRODUCTION_SEEDS} seeds: no verdict on the published figures (--seeds {REPRODUCTION_SEEDS})"
)


def remarks(metrics: "Metrics") -> list[str]:
    """What stands below the table, a line each: what the numbers are of, verdicts, changes, comparisons, notes."""
    if "study" in metrics:
        return [*study_remarks(metrics), *_smoothed(metrics), *map(str, metrics["notes"])]
    source = [f"Published figures: {metrics['source']}"] if metrics["source"] else []
    comparisons = [comparison_in_words(metrics, comparison) for comparison in metrics["comparisons"]]
    return [
        *_kept(metrics),
        *_reproductions(metrics),
        *_minimum(metrics),
        *_changes(metrics),
        *comparisons,
        *_smoothed(metrics),
        *_calibrations(metrics),
        *_mirrored(metrics),
        *_mistakes(metrics),
        *_audit(metrics),
        *source,
        *map(str, metrics["notes"]),
    ]


def release_warnings(metrics: "Metrics") -> list[str]:
    return [WARNINGS[metrics["release"]]] if metrics["release"] in WARNINGS else []


def _kept(metrics: "Metrics") -> list[str]:
    """Of which seed are the weights and what is drawn of one network."""
    kept = [_title(model) for model in metrics["models"].values() if "seeds" in model]
    return [f"Weights kept, confusion matrices and images: {'; '.join(kept)}"] if kept else []


def _title(model: "Model") -> str:
    """The network and, of several seeds, the one that is shown."""
    return f"{model['title']} {first_seed(model)}" if "seeds" in model else model["title"]


def first_seed(model: "Model") -> str:
    return f"of seed {model['seeds'][0]['seed']}, {percent(model['test_accuracy'])} %"


def _reproductions(metrics: "Metrics") -> list[str]:
    """Verdicts on the published figures, a line per network that has enough seeds; one line for all others."""
    published = [model for model in metrics["models"].values() if model["reproduction"]]
    judged = [_reproduction(model) for model in published if seed_count(model) >= REPRODUCTION_SEEDS]
    by_epoch = [_losses_by_epoch(model) for model in metrics["models"].values() if "epochs" in model["published"]]
    return judged + [TOO_FEW_SEEDS] * (len(judged) < len(published)) + by_epoch


def _reproduction(model: "Model") -> str:
    """Such as "FFN (5 seeds): test accuracy 88.36 published, 88.95 ± 0.12 measured: exceeded"."""
    figures = [
        f"{measure.name} {measure.write(model['published'][measure.key])} published, "
        f"{with_std(model, measure.key, measure.write)} measured: {model['reproduction'][measure.key]['verdict']}"
        for measure in MEASURES
        if measure.key in model["reproduction"]
    ]
    return f"{model['title']} ({seed_count(model)} seeds): {'; '.join(figures)}"


def _losses_by_epoch(model: "Model") -> str:
    """Such as "CNN, training loss by epoch: 0.50, 0.31 published, 0.48 ± 0.01, 0.32 ± 0.02 measured: reproduced, ...".

    With too few seeds there is no verdict.
    """
    published = model["published"]["epochs"]
    runs = [training["epochs"] for training in trainings_of(model)]
    measured = [[epoch["train_loss"] for epoch in row] for row in zip(*runs, strict=False)][: len(published)]
    verdicts = [epoch["train_loss"]["verdict"] for epoch in model["reproduced_epochs"]]
    texts = [spread_text(spread(losses), "{:.4f}".format) for losses in measured]
    words = f": {', '.join(verdicts)}" if verdicts and len(runs) >= REPRODUCTION_SEEDS else ""
    figures = ", ".join(f"{epoch['train_loss']:.4f}" for epoch in published)
    return f"{model['title']}, training loss by epoch: {figures} published, {', '.join(texts)} measured{words}"


def _minimum(metrics: "Metrics") -> list[str]:
    """Whether every network surpasses the accuracy that is published of them all."""
    if "published_minimum" not in metrics:
        return []
    minimum = metrics["published_minimum"]
    accuracies = [mean_of(model, "test_accuracy") for model in metrics["models"].values()]
    above = sum(accuracy > minimum for accuracy in accuracies)
    number = "all" if above == len(accuracies) else f"{above} of {len(accuracies)}"
    published = f"Published: every network above {percent(minimum)} % test accuracy"
    return [f"{published}; measured: {number}, the lowest {percent(min(accuracies))} %"]


def _changes(metrics: "Metrics") -> list[str]:
    """What each network changes, what that gained and why it should; and what all changes gained together."""
    gains = {comparison["b"]: f" ({gap(comparison)} points)" for comparison in metrics["comparisons"]}
    changed = {name: model for name, model in metrics["models"].items() if model["change"]}
    lines = [
        f"{model['title']}: {model['change']}{gains.get(name, '')}" + (f": {model['why']}" if model["why"] else "")
        for name, model in changed.items()
    ]
    if "total_gain" in metrics:
        lines.append(f"Total gain, {comparison_in_words(metrics, metrics['total_gain'])}")
    return lines


def _smoothed(metrics: "Metrics") -> list[str]:
    """How low a training loss of smoothed labels can come, as it cannot be set beside other losses."""
    trainings = [model["config"]["training"] for model in metrics["models"].values()]
    lines = []
    for smoothing in sorted({training.get("label_smoothing", 0) for training in trainings} - {0}):
        other = smoothing / CLASS_COUNT
        true = 1 - smoothing + other
        least = -true * math.log(true) - (CLASS_COUNT - 1) * other * math.log(other)
        what = f"Training losses of labels smoothed by {smoothing:g} cannot fall below {least:.4f}"
        lines.append(f"{what}; all other losses are of the labels as they are")
    return lines


def comparison_in_words(metrics: "Mapping[str, Any]", comparison: "Comparison") -> str:
    """Such as "CNN - FFN: +0.12 points, -0.10 to +0.34: no more than noise at 5 seeds (...); about 36 would tell"."""
    a, b = (metrics["models"][comparison[side]]["title"] for side in ("a", "b"))
    return f"{b} - {a}: {compared(comparison)}"


def compared(comparison: "Comparison") -> str:
    """Return the difference, its 95 % interval and the verdict of a comparison in words."""
    interval = f", {interval_text(comparison['interval'])}" if "interval" in comparison else ""  # of an earlier version
    return f"{gap(comparison)} points{interval}: {comparison['verdict']}"


def _calibrations(metrics: "Metrics") -> list[str]:
    """Such as "CNN: expected calibration error 4.31 %, at temperature 1.62 (of 6,000 held-out images) 0.87 %"."""
    lines = []
    for model in metrics["models"].values():
        if "calibration" in model:
            before, after = (with_std(model, key, percent) for key in ("ece", "ece_after"))
            temperature = with_std(model, "temperature", "{:.2f}".format)
            fitted = f"fitted on {model['calibration']['validation_images']:,} validation images"
            lines.append(
                f"{model['title']}: expected calibration error on the test images {before} %; "
                f"at temperature {temperature}, {fitted}, {after} %"
            )
    return lines


def _mirrored(metrics: "Metrics") -> list[str]:
    """Test accuracies by two looks at each image, which are not to be compared with those by one."""
    lines = []
    for model in metrics["models"].values():
        if "mirrored_accuracy" in model:
            accuracy = with_std(model, "mirrored_accuracy", percent)
            lines.append(
                f"{model['title']}: test accuracy {accuracy} % where the probabilities of each image and its mirror "
                "image are averaged; the table is of the image alone"
            )
    return lines


def _mistakes(metrics: "Metrics") -> list[str]:
    """How many mistakes of each network are images whose labels look wrong to others."""
    made = {_title(model): model["mistakes"] for model in metrics["models"].values() if "mistakes" in model}
    return [
        f"{title}: {one['count']:,} mistakes on test images; the labels of {one['suspected']:,} of them look wrong to "
        f"networks that judge them by confident learning, and of {sum(one['surest_suspected'])} of the "
        f"{len(one['surest'])} surest"
        for title, one in made.items()
    ]


def _audit(metrics: "Metrics") -> list[str]:
    """What an audit found: suspect labels, what networks get wrong of them, and images that nearly come twice."""
    if "audit" not in metrics:
        return []
    from fmnist.audit import NEAR

    audit = metrics["audit"]
    training, test = audit["training"], audit["test"]
    suspects = f"{training['suspected']:,} training and {test['suspected']:,} test images"
    pairs, identical = audit["near_pairs"], audit["identical_pairs"]
    least = "at least " if pairs == len(audit["pairs"]) else ""  # no others were looked for
    near = f"{least}{pairs:,} pairs, {audit['near_pairs_across']:,} of them of a training and a test image"
    return [
        f"Labels that look wrong by confident learning: {suspects} (audit_training.png, audit_test.png)",
        f"Training images, each judged by a network that had not seen it: {_without_suspects(training)}",
        f"Test images, averaged over the networks, each judged by the other four: {_without_suspects(test)}; similar "
        "networks share mistakes, so wrong labels explain less than this",
        f"Images that nearly come twice, less than {NEAR:g} grey levels (root mean square) from each other: {near}; "
        f"identical: {least if identical == pairs else ''}{identical:,} (audit_pairs.png)",
    ]


def _without_suspects(part: "AuditedScore") -> str:
    """Such as "310 of 880 mistakes (35 %) are such images; accuracy 91.20 %, 94.10 % with them left out"."""
    suspected, mistakes = part["mistakes_suspected"], part["mistakes"]
    fraction = f" ({100 * suspected / mistakes:.0f} %)" if mistakes else ""
    accuracies = f"accuracy {percent(part['accuracy'])} %, {percent(part['accuracy_without'])} % with them left out"
    return f"{suspected:,.0f} of {mistakes:,.0f} mistakes{fraction} are such images; {accuracies}"


# Studies


def study_remarks(metrics: "Metrics") -> list[str]:
    """What a study has found, in words: the best on validation, and how many no test tells from it or the baseline."""
    models, study, number = metrics["models"], metrics["study"], len(metrics["comparisons"])
    best, alike = models[study["best"]], [models[name]["title"] for name in study["alike"]]
    named = f": {'; '.join(at_most(MOST_NAMED, alike))}" if alike else ""
    it = "the baseline" if "baseline" in study else "it"
    told = f"No test tells {len(alike)} of {number} others from {it}" if alike else f"A test tells each other from {it}"
    told += f" ({_test(best, number)}){named}"
    lines = [f"Best on validation: {best['title']}", told]
    if "seeds" in best:
        return [*lines, f"Confusion matrix and images: {_title(best)}"]
    return [*lines, "One seed speaks of these trained networks, not of their settings: --seeds 5"]


def _test(best: "Model", number: int) -> str:
    """By which test a study compares its combinations."""
    test = f"paired t on test accuracies, {seed_count(best)} seeds" if "seeds" in best else "McNemar on the test images"
    return f"{test}, Holm over {number} comparisons" if number > 1 else test
