"""Trainings compared: significance tests, intervals, verdicts in words, and how many seeds a question needs.

One training is one sample of what its recipe gives: weights, order and dropout follow the seed, and test accuracies
of the same network from two seeds differ by tenths of a point. So a verdict on recipes takes several seeds. From one
seed each, McNemar's test tells two trained networks apart, which is a smaller question.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from fmnist.evaluation import Predictions
    from fmnist.metrics import Comparison, Reproduction

SIGNIFICANT = 0.05  # a p value below it counts as more than noise
CONFIDENCE = 0.95  # of the intervals in metrics.json
MOST_SEEDS = 10_000  # nobody trains more
SAME = 1e-9  # accuracies closer than this differ by rounding: one image in 10,000 is 1e-4


class Scored(Protocol):
    """A scored training: an `Evaluation`, as far as statistics need it."""

    test_accuracy: float

    @property
    def predictions(self) -> "Predictions":
        """Those of the test images."""


# Tests


def mcnemar(a_correct: np.ndarray, b_correct: np.ndarray) -> float:
    """Return the exact two-sided p value of McNemar's test (1947) that two networks are equally often correct.

    Both are bool [T], of the same T images. Only images on which one of the two is correct count: a binomial test.
    """
    only_a, only_b = int((a_correct & ~b_correct).sum()), int((b_correct & ~a_correct).sum())
    return float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def paired_t(differences: np.ndarray) -> float:
    """Return the two-sided p value of the paired t test that the mean of at least two differences is 0.

    Where they never vary there is no t; the answer is certain: 1 if they are all 0, else 0.
    """
    if _constant(differences):
        return float(abs(differences[0]) < SAME)
    return float(stats.ttest_1samp(differences, 0).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p values adjusted by Holm's step-down method (1979), in the order given.

    Rejecting those below 5 % errs in at most 5 % of whole tables, however the tests depend on each other.
    """
    order = np.argsort(p_values)
    factors = np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.maximum.accumulate(factors * np.asarray(p_values)[order]).clip(max=1)
    return adjusted.tolist()


def equivalence(a: np.ndarray, b: np.ndarray, margin: float) -> float:
    """Return the p value of two one-sided Welch tests (Schuirmann 1987) that the means differ by `margin` or more.

    Below 5 %, the samples `a` and `b`, of at least two values each, are shown to be equivalent within the margin.
    """
    if _constant(a) and _constant(b):
        return float(abs(np.mean(a) - np.mean(b)) >= margin)

    def one_sided(shift: float, alternative: str) -> float:
        groups = (np.mean(a) + shift, np.std(a, ddof=1), len(a), np.mean(b), np.std(b, ddof=1), len(b))
        return float(stats.ttest_ind_from_stats(*groups, equal_var=False, alternative=alternative).pvalue)

    return max(one_sided(margin, "greater"), one_sided(-margin, "less"))


def _constant(values: np.ndarray) -> bool:
    return np.ptp(values) < SAME


# Intervals


def interval(differences: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the confidence interval (low, high) of the mean of at least two differences, by Student's t."""
    return _t_interval(differences, confidence, np.sqrt(1 / len(differences)))


def prediction_interval(values: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the interval (low, high) in which one more value falls, given at least two: mean ± t·s·√(1 + 1/n)."""
    return _t_interval(values, confidence, np.sqrt(1 + 1 / len(values)))


def _t_interval(values: np.ndarray, confidence: float, scale: float) -> tuple[float, float]:
    margin = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * np.std(values, ddof=1) * scale
    return float(np.mean(values) - margin), float(np.mean(values) + margin)


def mean_and_std(summaries: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return "mean" and "std", the sample standard deviation, of each figure of at least two summaries."""
    values = {key: [summary[key] for summary in summaries] for key in summaries[0] if key not in ("seed", "epochs")}
    return {
        "mean": {key: float(np.mean(value)) for key, value in values.items()},
        "std": {key: float(np.std(value, ddof=1)) for key, value in values.items()},
    }


# How many seeds


def seeds_needed(differences: np.ndarray, power: float = 0.8, alpha: float = SIGNIFICANT) -> int | None:
    """Return how many seeds a paired t test needs to show a mean difference of this size at level `alpha`.

    As many as show it with probability `power`, if mean and standard deviation of the at least two differences are
    the true ones. None where the mean is 0, or more than 10,000 seeds are needed.
    """
    if _constant(differences):
        return None if abs(differences[0]) < SAME else 2
    effect = abs(np.mean(differences)) / np.std(differences, ddof=1)

    def reached(n: int) -> float:  # a significant difference of the wrong sign shows nothing
        return stats.nct.sf(stats.t.ppf(1 - alpha / 2, n - 1), n - 1, effect * np.sqrt(n))

    return _fewest(reached, power)


def samples_for_equivalence(std: float, margin: float, power: float = 0.8) -> int | None:
    """Return how many seeds each of two groups needs for `equivalence` to fall below 5 % with probability `power`.

    `std` is the standard deviation in either group, whose means are equal. None where 10,000 are not enough.
    """

    def reached(n: int) -> float:  # both one-sided tests: 1 - P(the first fails) - P(the second fails)
        freedom = 2 * n - 2
        return 2 * stats.nct.sf(stats.t.ppf(1 - SIGNIFICANT, freedom), freedom, margin / std * np.sqrt(n / 2)) - 1

    return _fewest(reached, power)


def _fewest(reached: Callable[[int], float], power: float) -> int | None:
    """Return the smallest n from 2 to 10,000 for which `reached`, which grows with n, is at least `power`."""
    fewest = 2 + bisect_left(range(2, MOST_SEEDS + 1), power, key=reached)
    return fewest if fewest <= MOST_SEEDS else None


# Verdicts


def compare(pairs: Sequence[tuple[str, str]], runs: dict[str, list[Scored]]) -> "list[Comparison]":
    """Compare network b with a, for each (a, b) of `pairs`, by their `runs`, one for each seed and in the same order.

    One seed: McNemar's test, which tells two trained networks apart and says nothing of their recipes. Several seeds:
    the paired t test on the test accuracies, its p values adjusted by Holm's method over all the pairs.
    """
    if any(len(runs[name]) == 1 for pair in pairs for name in pair):
        return [_compare_networks(a, b, runs) for a, b in pairs]
    differences = [_differences(runs[a], runs[b]) for a, b in pairs]
    p_values = [paired_t(difference) for difference in differences]
    compared = zip(pairs, differences, p_values, holm(p_values), strict=True)
    return [_compare_recipes(*comparison, len(pairs)) for comparison in compared]


def _differences(a: list[Scored], b: list[Scored]) -> np.ndarray:
    return np.array([right.test_accuracy - left.test_accuracy for left, right in zip(a, b, strict=True)])


def _compare_networks(a: str, b: str, runs: dict[str, list[Scored]]) -> "Comparison":
    """Compare two trained networks, one seed each."""
    a_correct, b_correct = (runs[name][0].predictions.correct for name in (a, b))
    p_value = mcnemar(a_correct, b_correct)
    differ = "differ" if p_value < SIGNIFICANT else "do not differ by more than chance"
    return {
        "a": a,
        "b": b,
        "difference": float(_differences(runs[a], runs[b])[0]),
        "p_value": p_value,
        "test": "McNemar",
        "n": len(a_correct),
        "verdict": f"these two trained networks {differ} (McNemar {_p(p_value)}, {len(a_correct):,} images); "
        "one seed says nothing about the recipes: --seeds 5",
    }


def _compare_recipes(
    pair: tuple[str, str], differences: np.ndarray, p_value: float, p_holm: float, comparisons: int
) -> "Comparison":
    """Compare two recipes by the differences of several seeds, as one of so many comparisons."""
    low, high = interval(differences)
    # At the level of Holm's first step, the strictest, so that the number does not depend on the other comparisons.
    needed = seeds_needed(differences, alpha=SIGNIFICANT / comparisons)
    significant = p_holm < SIGNIFICANT
    adjusted = " after Holm" if comparisons > 1 else ""
    evidence = f"paired t {_p(p_holm)}{adjusted}, {len(differences)} seeds"
    points = f"95 % interval {100 * low:+.2f} to {100 * high:+.2f} points"
    verdict = f"{'more' if significant else 'no more'} than noise ({evidence}; {points})"
    return {
        "a": pair[0],
        "b": pair[1],
        "difference": float(differences.mean()),
        "p_value": p_value,
        "p_holm": p_holm,
        "test": "paired t",
        "n": len(differences),
        "interval": [low, high],
        **({"seeds_needed": needed} if needed else {}),
        "verdict": verdict if significant or not needed else f"{verdict}; about {needed:,} seeds would tell",
    }


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def reproduction(key: str, published: float, values: Sequence[float]) -> "Reproduction":
    """Hold a published figure against the measured `values`, one per seed.

    It is "reproduced" inside the 95 % prediction interval for one more seed; where the measured ones are better than
    that, it is "exceeded". Better is lower for a loss, and higher for an accuracy. "parameters" must be equal.
    """
    n = len(values)
    if key == "parameters":
        return {"verdict": "reproduced" if all(value == published for value in values) else "not reproduced", "n": n}
    if n == 1:
        return {"verdict": "one seed: no verdict", "n": n}
    low, high = prediction_interval(values)
    exceeded = published > high if key.endswith("loss") else published < low
    verdict = "reproduced" if low <= published <= high else "exceeded" if exceeded else "not reproduced"
    return {"verdict": verdict, "n": n, "low": low, "high": high}
