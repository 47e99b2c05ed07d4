"""Trainings compared: significance tests, intervals, verdicts in words, and how many seeds a question needs.

One training is one sample of what its recipe gives: weights, order and dropout follow the seed, and test accuracies
of the same network from two seeds differ by tenths of a point. So a verdict on recipes takes several seeds. From one
seed each, McNemar's test tells two trained networks apart, which is a smaller question.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy import stats

from fmnist.config import REPRODUCTION_SEEDS
from fmnist.metrics import Comparison, Effect, Reproduction

if TYPE_CHECKING:
    from fmnist.evaluation import Predictions

SIGNIFICANT = 0.05  # a p value below it counts as more than noise
CONFIDENCE = 0.95  # of the intervals in metrics.json
MOST_SEEDS = 10_000  # nobody trains more
LEAST_STD = 1e-4  # of accuracies, and of their differences: one image in 10,000; what varies by less has been rounded
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
    only_a, only_b = _only_one(a_correct, b_correct)
    return float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def _only_one(a_correct: np.ndarray, b_correct: np.ndarray) -> tuple[int, int]:
    """How many images only a, and how many only b, gets right."""
    return int((a_correct & ~b_correct).sum()), int((b_correct & ~a_correct).sum())


def paired_t(differences: np.ndarray) -> np.ndarray:
    """Return the two-sided p values [...] of paired t tests that the means of `differences` [..., n] are 0; n > 1.

    The differences are of accuracies. Those of two seeds may agree to the image by chance: see LEAST_STD.
    """
    n = differences.shape[-1]
    return 2 * stats.t.sf(np.abs(differences.mean(axis=-1)) / _std(differences) * np.sqrt(n), n - 1)


def _std(differences: np.ndarray) -> np.ndarray:
    """Sample standard deviation [...] of differences of accuracies [..., n], as far as it can be told from rounding."""
    return np.maximum(differences.std(axis=-1, ddof=1), LEAST_STD)


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
    if max(np.ptp(a), np.ptp(b)) < SAME:
        return float(abs(np.mean(a) - np.mean(b)) >= margin)

    def one_sided(shift: float, alternative: str) -> float:
        groups = (np.mean(a) + shift, np.std(a, ddof=1), len(a), np.mean(b), np.std(b, ddof=1), len(b))
        return float(stats.ttest_ind_from_stats(*groups, equal_var=False, alternative=alternative).pvalue)

    return max(one_sided(margin, "greater"), one_sided(-margin, "less"))


# Intervals


def interval(differences: np.ndarray, confidence: float = CONFIDENCE) -> np.ndarray:
    """Return the confidence intervals, low and high [2, ...], of the means of `differences` [..., n], by Student's t.

    n is at least 2; the differences are of accuracies.
    """
    return _t_interval(differences.mean(axis=-1), _std(differences), differences.shape[-1], confidence)


def prediction_interval(values: np.ndarray, confidence: float = CONFIDENCE) -> np.ndarray:
    """Return the intervals [2, ...] in which one more of `values` [..., n] falls: mean ± t·s·√(1 + 1/n); n > 1."""
    n = values.shape[-1]
    return _t_interval(values.mean(axis=-1), values.std(axis=-1, ddof=1) * np.sqrt(n + 1), n, confidence)


def _t_interval(mean: np.ndarray, std: np.ndarray, n: int, confidence: float) -> np.ndarray:
    margin = stats.t.ppf((1 + confidence) / 2, n - 1) * std / np.sqrt(n)
    return np.stack([mean - margin, mean + margin])


def image_interval(only_a: np.ndarray, only_b: np.ndarray, images: int, confidence: float = CONFIDENCE) -> np.ndarray:
    """Return the confidence intervals, low and high [2, ...], of how much more often b is correct than a on new images.

    Of so many `images`, int [...] are those that only a, or only b, gets right. After Bonett and Price, "Adjusted Wald
    confidence interval for a difference of binomial proportions based on paired data" (2012).
    """
    a, b = ((count + 1) / (images + 2) for count in (only_a, only_b))
    margin = stats.norm.ppf((1 + confidence) / 2) * np.sqrt((a + b - (b - a) ** 2) / (images + 2))
    return np.stack([b - a - margin, b - a + margin])


def mean_and_std(summaries: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return "mean" and "std", the sample standard deviation, of each figure that all of two or more summaries have."""
    common = set.intersection(*map(set, summaries)) - {"seed", "epochs"}
    values = {key: [summary[key] for summary in summaries] for key in summaries[0] if key in common}
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
    effect = abs(np.mean(differences)) / _std(differences)

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


def compare(pairs: Sequence[tuple[str, str]], runs: dict[str, list[Scored]]) -> list[Comparison]:
    """Compare network b with a, for each (a, b) of `pairs`, by their `runs`, one for each seed and in the same order.

    One seed: McNemar's test, which tells two trained networks apart and says nothing of their recipes. Several seeds:
    the paired t test on the test accuracies. The p values are adjusted by Holm's method over all the pairs.
    """
    one_seed = any(len(runs[name]) == 1 for pair in pairs for name in pair)
    tested = [_compare_networks(a, b, runs) if one_seed else _compare_recipes(a, b, runs) for a, b in pairs]
    adjusted = holm([comparison["p_value"] for comparison in tested])
    return [_judged(comparison, p_holm, len(pairs)) for comparison, p_holm in zip(tested, adjusted, strict=True)]


def _differences(a: list[Scored], b: list[Scored]) -> np.ndarray:
    return np.array([of_b.test_accuracy - of_a.test_accuracy for of_a, of_b in zip(a, b, strict=True)])


def _compare_networks(a: str, b: str, runs: dict[str, list[Scored]]) -> Comparison:
    """Compare two trained networks, one seed each, by the images that only one of them gets right."""
    a_correct, b_correct = (runs[name][0].predictions.correct for name in (a, b))
    images = len(a_correct)
    return {
        "a": a,
        "b": b,
        "difference": float(_differences(runs[a], runs[b])[0]),
        "interval": image_interval(*_only_one(a_correct, b_correct), images).tolist(),
        "p_value": mcnemar(a_correct, b_correct),
        "test": "McNemar",
        "n": images,
    }


def _compare_recipes(a: str, b: str, runs: dict[str, list[Scored]]) -> Comparison:
    """Compare two recipes by the differences of several seeds."""
    differences = _differences(runs[a], runs[b])
    return {
        "a": a,
        "b": b,
        "difference": float(differences.mean()),
        "differences": differences.tolist(),
        "interval": interval(differences).tolist(),
        "p_value": float(paired_t(differences)),
        "test": "paired t",
        "n": len(differences),
    }


def _judged(comparison: Comparison, p_holm: float, comparisons: int) -> Comparison:
    """A comparison, one of so many, with its verdict by the adjusted p value."""
    significant = p_holm < SIGNIFICANT
    evidence = f"95 % interval; {comparison['test']} {_p(p_holm)}{' after Holm' if comparisons > 1 else ''}"
    judged = comparison | {"p_holm": p_holm}
    if comparison["test"] == "McNemar":
        differ = "differ" if significant else "do not differ by more than chance"
        words = f"these two trained networks {differ} ({evidence}, {comparison['n']:,} images)"
        return judged | {"verdict": f"{words}; one seed says nothing about the recipes: --seeds 5"}
    # At the level of Holm's first step, the strictest, so that the number does not depend on the other comparisons.
    needed = seeds_needed(np.array(comparison["differences"]), alpha=SIGNIFICANT / comparisons)
    words = f"{'more' if significant else 'no more'} than noise at {comparison['n']} seeds"
    more = "" if significant else f"; about {needed:,} would tell" if needed else _never_told(comparison)
    return judged | ({"seeds_needed": needed} if needed else {}) | {"verdict": f"{words}{more} ({evidence})"}


def _never_told(comparison: Comparison) -> str:
    return f"; not even {MOST_SEEDS:,} would tell" if abs(comparison["difference"]) >= SAME else ""


def _p(value: float) -> str:
    text = p_text(value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def p_text(value: float) -> str:
    """A p value to three decimals; to four where three would read as the limit itself, whichever side it is on."""
    if value < 0.001:
        return "< 0.001"
    return f"{value:.4f}" if f"{value:.3f}" == f"{SIGNIFICANT:.3f}" else f"{value:.3f}"


# Factorials


def factorial_effects(levels: Mapping[str, Sequence[Any]], responses: Sequence[Sequence[float]]) -> list[Effect]:
    """Return the main effects and interactions of a full factorial of factors with two levels each (Fisher 1935).

    `levels` gives each factor's level in each of C = 2^k configurations, of which the first has the low ones;
    `responses` [C][S] their test accuracies from S seeds. An effect is the mean of the responses with the high level
    less that with the low one; an interaction, half the difference of one factor's effects at the two levels of the
    other. Both are twice the coefficients of a least-squares fit with levels of -1 and 1. Their error is the variance
    between the seeds of a configuration, pooled; of one seed, that of the interactions, which then have no interval.
    Empty where the configurations are not each combination once.
    """
    signs = _signs(levels)
    if signs is None:
        return []
    accuracies, (count, factors) = np.asarray(responses, float), signs.shape
    terms = [term for size in range(1, factors + 1) for term in combinations(range(factors), size)]
    contrasts = np.array([signs[:, term].prod(axis=1) for term in terms])  # [2^k - 1, C], of -1 and 1
    effects = contrasts @ accuracies.mean(axis=1) / (count / 2)
    if accuracies.shape[1] > 1:
        tested, freedom = len(terms), accuracies.size - count
        error = 2 * np.sqrt(accuracies.var(axis=1, ddof=1).mean() / accuracies.size)
    else:
        tested, freedom = factors, len(terms) - factors
        error = np.sqrt(np.square(effects[factors:]).mean()) if freedom else 0.0
    error = max(error, 2 * LEAST_STD / np.sqrt(accuracies.size))
    p_values = [_two_sided(effect, error, freedom) for effect in effects[:tested]] if freedom else []
    adjusted = [*holm(p_values), *[None] * (len(terms) - len(p_values))]
    names = [[list(levels)[n] for n in term] for term in terms]
    return [
        _effect(name, levels, effect, error, freedom, p_holm)
        for name, effect, p_holm in zip(names, effects, adjusted, strict=True)
    ]


def _signs(levels: Mapping[str, Sequence[Any]]) -> np.ndarray | None:
    """The levels as -1 and 1, int [C, k], the first being -1; None where they are no full factorial of two levels."""
    if not levels or not all(levels.values()):
        return None
    signs = np.array([[1 if level != own[0] else -1 for level in own] for own in levels.values()]).T
    two_each = all(len({str(level) for level in own}) == 2 for own in levels.values())
    complete = len(signs) == 2 ** len(levels) == len(np.unique(signs, axis=0))
    return signs if two_each and complete else None


def _two_sided(effect: float, error: float, freedom: int) -> float:
    """Return the p value of a t test that an effect of this standard error is 0."""
    return float(2 * stats.t.sf(abs(effect) / error, freedom))


def _effect(
    factors: list[str],
    levels: Mapping[str, Sequence[Any]],
    effect: float,
    error: float,
    freedom: int,
    p_holm: float | None,
) -> Effect:
    """One effect with its standard error; without a `p_holm` there is no test of it."""
    own = levels[factors[0]]
    low, high = (own[0], next(level for level in own if level != own[0])) if len(factors) == 1 else ("", "")
    known: Effect = {"factors": factors, "low": str(low), "high": str(high), "effect": float(effect)}
    if p_holm is None:
        return known | {"verdict": "one seed: no verdict"}
    margin = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * error)
    return known | {
        "degrees_of_freedom": freedom,
        "interval": [float(effect) - margin, float(effect) + margin],
        "p_value": _two_sided(effect, error, freedom),
        "p_holm": p_holm,
        "verdict": f"{'more' if p_holm < SIGNIFICANT else 'no more'} than noise (t test {_p(p_holm)} after Holm)",
    }


def reproduction(key: str, published: float, values: Sequence[float]) -> Reproduction:
    """Hold a published figure against the measured `values`, one per seed.

    It is "reproduced" inside the 95 % prediction interval for one more seed; where the measured ones are better than
    that, it is "exceeded". Better is lower for a loss, and higher for an accuracy. "parameters" must be equal. From
    fewer than REPRODUCTION_SEEDS, whose interval is too wide to tell much, there is no verdict.
    """
    n = len(values)
    if key == "parameters":
        return {"verdict": "reproduced" if all(value == published for value in values) else "not reproduced", "n": n}
    if n < REPRODUCTION_SEEDS:
        return {"verdict": f"{'one seed' if n == 1 else f'{n} seeds'}: no verdict", "n": n}
    low, high = prediction_interval(np.asarray(values)).tolist()
    exceeded = published > high if key.endswith("loss") else published < low
    verdict = "reproduced" if low <= published <= high else "exceeded" if exceeded else "not reproduced"
    return {"verdict": verdict, "n": n, "low": low, "high": high}
