"""Tests and intervals against their definitions; verdicts by simulation, and by real trainings of equal networks."""

import math
from fractions import Fraction
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from fmnist import statistics
from tests.helpers import tiny

FIVE = np.array([0.03, 0.02, 0.01, 0.04, 0.02])  # differences of test accuracies


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def verdicts_alone(monkeypatch) -> None:
    """Leave out what takes most of the time, where thousands of verdicts are counted."""
    monkeypatch.setattr(statistics, "seeds_needed", lambda *_, **__: None)


def run(accuracy: float = 0.0, correct: np.ndarray | None = None) -> SimpleNamespace:
    """A scored training; its accuracy is that of `correct`, bool [T], if there is any."""
    accuracy = accuracy if correct is None else float(correct.mean())
    return SimpleNamespace(test_accuracy=accuracy, predictions=SimpleNamespace(correct=correct))


def compare_two(a: list[float], b: list[float]) -> dict:
    (compared,) = statistics.compare([("a", "b")], {"a": [run(x) for x in a], "b": [run(x) for x in b]})
    return compared


def noise_alone(comparisons: list[tuple[str, str]], seeds: int, tables: int, random) -> np.ndarray:
    """Of so many tables that compare copies of one recipe, p values [tables, C] of each comparison."""
    names = sorted({name for pair in comparisons for name in pair})
    accuracies = random.normal(0.9, 0.003, (tables, len(names), seeds)).round(4)  # so many of 10,000 images
    a, b = ([names.index(pair[side]) for pair in comparisons] for side in (0, 1))
    return statistics.paired_t(accuracies[:, b] - accuracies[:, a])


def is_more_than_noise(comparison: dict) -> bool:
    return comparison["verdict"].startswith("more than noise")


def at_most(rate: float, trials: int) -> float:
    """How often an event of this rate comes at most in so many trials, but for one time in 1,000."""
    return stats.binom.ppf(0.999, trials, rate) / trials


# Tests and intervals


@pytest.mark.parametrize(("only_a", "only_b"), [(1, 9), (9, 1), (5, 5), (0, 6), (3, 4), (0, 0), (40, 70)])
def test_mcnemar_is_the_exact_binomial_test_on_what_only_one_gets_right(only_a, only_b):
    a = np.array([True] * only_a + [False] * only_b + [True] * 10 + [False] * 10)
    b = np.array([False] * only_a + [True] * only_b + [True] * 10 + [False] * 10)
    n, smaller = only_a + only_b, min(only_a, only_b)
    by_hand = min(1, 2 * sum(Fraction(math.comb(n, k), 2**n) for k in range(smaller + 1)))
    assert statistics.mcnemar(a, b) == pytest.approx(float(by_hand))


def test_paired_t_is_that_of_the_textbook():
    t = 0.024 / math.sqrt(sum((x - 0.024) ** 2 for x in FIVE) / 4 / 5)
    assert statistics.paired_t(FIVE) == pytest.approx(2 * stats.t.sf(t, 4))


@pytest.mark.filterwarnings("error")
def test_differences_that_never_vary_are_taken_to_vary_by_an_image():
    rounded = np.array([0.3, 0.8, 0.9]) - [0.2, 0.7, 0.8]  # equal but for rounding
    assert np.ptp(rounded) > 0
    assert statistics.paired_t(np.zeros(3)) == 1
    assert statistics.paired_t(rounded - rounded.mean()) == pytest.approx(1)
    assert statistics.paired_t(rounded) == pytest.approx(2 * stats.t.sf(0.1 / (1e-4 / math.sqrt(3)), 2))
    assert statistics.interval(np.full(2, 0.01)) == pytest.approx(0.01 + np.array([-1, 1]) * 12.7062 * 1e-4 / 2**0.5)
    assert statistics.paired_t(np.full(2, 0.001)) > 0.04, "two seeds that agree to the image are no proof"
    assert statistics.paired_t(np.full(5, 0.001)) < 1e-4
    assert (statistics.seeds_needed(np.zeros(3)), statistics.seeds_needed(rounded)) == (None, 2)
    assert statistics.equivalence(np.ones(3), np.ones(3), 0.1) == 0
    assert statistics.equivalence(np.ones(3), np.zeros(3), 0.1) == 1


def closed_testing(p_values: list[float]) -> list[float]:
    """Holm's adjusted p values by the closure principle: over every set that holds a test, Bonferroni's p value."""
    tests = range(len(p_values))
    sets = [chosen for size in range(1, len(tests) + 1) for chosen in combinations(tests, size)]
    bonferroni = {chosen: min(1, len(chosen) * min(p_values[i] for i in chosen)) for chosen in sets}
    return [max(p for chosen, p in bonferroni.items() if i in chosen) for i in tests]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_holm_is_the_closure_of_bonferroni(random, count):
    for _ in range(20):
        p_values = (random.random(count) ** 3).tolist()
        assert statistics.holm(p_values) == pytest.approx(closed_testing(p_values))
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
def test_intervals_hold_what_they_promise(random, seeds):
    """95 ± 1 %; the 99.9 % interval of what is counted lies in that as well."""
    repetitions = 40_000
    samples = random.normal(0.9, 0.003, (repetitions, seeds))
    for (low, high), value in (
        (statistics.interval(samples), 0.9),
        (statistics.prediction_interval(samples), random.normal(0.9, 0.003, repetitions)),
    ):
        inside = int(((low < value) & (value < high)).sum())
        coverage = stats.binomtest(inside, repetitions).proportion_ci(0.999)
        assert 0.94 < coverage.low < coverage.high < 0.96


def test_intervals_of_one_sample_and_of_many_are_those_of_the_textbook(random):
    assert statistics.interval(FIVE) == pytest.approx(stats.ttest_1samp(FIVE, 0).confidence_interval(0.95))
    assert np.ptp(statistics.interval(FIVE, 0.8)) < np.ptp(statistics.interval(FIVE))
    many = random.normal(0, 1, (3, 4, 5))
    expected = stats.ttest_1samp(many, 0, axis=-1)
    np.testing.assert_allclose(statistics.interval(many), expected.confidence_interval(0.95))
    np.testing.assert_allclose(statistics.paired_t(many), expected.pvalue)


@pytest.mark.parametrize(("only_a", "only_b"), [(0.02, 0.02), (0.03, 0.05), (0.001, 0.004)])
def test_the_interval_of_one_seed_holds_for_other_images(random, only_a, only_b):
    """Of networks whose errors are known, on test sets of 10,000 images and of 500."""
    for images in (500, 10_000):
        counts = random.multinomial(images, [only_a, only_b, 1 - only_a - only_b], 40_000)
        low, high = statistics.image_interval(counts[:, 0], counts[:, 1], images)
        covered = np.mean((low < only_b - only_a) & (only_b - only_a < high))
        assert covered > 0.94
        assert covered < 0.96 or images * only_a < 10, "so few images make any interval wide"
    low, high = statistics.image_interval(*np.array([[0], [0]]), 98)
    assert (low, high) == (pytest.approx(-1.959964 * math.sqrt(0.02) / 10), pytest.approx(-low))


def test_mean_and_sample_std_over_seeds():
    over = statistics.mean_and_std([{"seed": n, "epochs": [{}], "x": x} for n, x in enumerate([1.0, 2.0, 6.0])])
    assert over == {"mean": {"x": 3.0}, "std": {"x": pytest.approx(math.sqrt((4 + 1 + 9) / 2))}}


# How many seeds


@pytest.mark.parametrize(("effect", "power", "alpha"), [(0.3, 0.8, 0.05), (0.5, 0.8, 0.0167), (1.5, 0.9, 0.05)])
def test_so_many_seeds_have_the_power(random, effect, power, alpha):
    pilot = np.array([-1.0, 1.0]) / math.sqrt(2) + effect  # mean `effect`, standard deviation 1
    needed = statistics.seeds_needed(-pilot, power, alpha)
    assert needed == statistics.seeds_needed(pilot, power, alpha)

    def measured(n: int) -> float:
        return (stats.ttest_1samp(random.normal(effect, 1, (20_000, n)), 0, axis=1).pvalue < alpha).mean()

    assert measured(needed) > power - 0.012  # four standard errors
    assert measured(needed - 1) < power + 0.012


def test_what_no_number_of_seeds_would_show():
    assert statistics.seeds_needed(np.array([-1.0, 1.0])) is None
    assert statistics.seeds_needed(np.array([-1.0, 1.001])) is None


def test_equivalence_is_shown_with_the_power_and_seldom_wrongly(random):
    std, margin = 0.25, 0.3
    n = statistics.samples_for_equivalence(std, margin)

    def shown(difference: float, n: int) -> float:
        groups = random.normal(0, std, (1000, 2, n))
        return np.mean([statistics.equivalence(a + difference, b, margin) < 0.05 for a, b in groups])

    assert shown(0, n) > 0.8 - 0.05
    assert shown(0, n - 1) < 0.8 + 0.05
    for difference in (margin, -margin):
        assert shown(difference, n) < at_most(0.05, 1000)


# Verdicts


def test_one_seed_speaks_of_two_trained_networks_alone():
    a, b = np.arange(10_000) < 8_000, np.arange(10_000) < 8_300
    (compared,) = statistics.compare([("a", "b")], {"a": [run(correct=a)], "b": [run(correct=b)]})
    only_a, only_b = 1 / 10_002, 301 / 10_002  # with one image more of each, as Bonett and Price have it
    margin = 1.959964 * math.sqrt((only_a + only_b - 0.03**2) / 10_002)
    assert compared == {
        "a": "a",
        "b": "b",
        "difference": pytest.approx(0.03),
        "interval": pytest.approx([only_b - only_a - margin, only_b - only_a + margin], rel=1e-5),
        "p_value": pytest.approx(2.0**-299),
        "p_holm": pytest.approx(2.0**-299),
        "test": "McNemar",
        "n": 10_000,
        "verdict": "these two trained networks differ (95 % interval; McNemar p < 0.001, 10,000 images); "
        "one seed says nothing about the recipes: --seeds 5",
    }
    (compared,) = statistics.compare([("a", "b")], {"a": [run(correct=a)], "b": [run(correct=np.roll(a, 9))]})
    assert compared["verdict"] == (
        "these two trained networks do not differ by more than chance (95 % interval; McNemar p = 1.000, "
        "10,000 images); one seed says nothing about the recipes: --seeds 5"
    )


def test_several_comparisons_of_one_seed_are_judged_as_a_whole_too():
    """Thirteen images that only one gets right against three: p = 0.021 by itself, 0.064 as one of three."""
    a, b = np.arange(100) < 80, np.arange(100) >= 13
    b[96:] = False
    a[93:] = False
    runs = {name: [run(correct=correct)] for name, correct in zip("abcd", (a, b, a, b), strict=True)}
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p_value = stats.binomtest(only_a, only_a + only_b).pvalue
    table = statistics.compare([("a", "b"), ("b", "c"), ("c", "d")], runs)
    assert [comparison["p_holm"] for comparison in table] == pytest.approx([min(1, 3 * p_value)] * 3)
    assert all("after Holm, 100 images" in comparison["verdict"] for comparison in table)


def test_several_seeds_speak_of_the_recipes():
    a = [0.80, 0.82, 0.79, 0.81, 0.80]
    compared = compare_two(a, (np.array(a) + FIVE).tolist())
    assert (compared["test"], compared["n"], compared["difference"]) == ("paired t", 5, pytest.approx(0.024))
    assert compared["p_value"] == compared["p_holm"] == pytest.approx(statistics.paired_t(FIVE))
    assert compared["interval"] == pytest.approx(statistics.interval(FIVE))
    assert compared["differences"] == pytest.approx(FIVE)
    assert compared["verdict"] == "more than noise at 5 seeds (95 % interval; paired t p = 0.009)"


def test_too_few_seeds_say_how_many_would_tell():
    compared = compare_two([0.8, 0.8, 0.8], [0.79, 0.81, 0.81])
    needed = compared["seeds_needed"]
    assert needed == statistics.seeds_needed(np.array([-0.01, 0.01, 0.01])) > 3
    assert compared["interval"] == pytest.approx([-0.0254, 0.0321], abs=1e-4)
    assert compared["verdict"] == (
        f"no more than noise at 3 seeds; about {needed} would tell (95 % interval; paired t p = 0.667)"
    )
    same = compare_two([0.8, 0.9], [0.8, 0.9])
    assert "seeds_needed" not in same
    assert same["verdict"] == "no more than noise at 2 seeds (95 % interval; paired t p = 1.000)"
    tiny_gain = compare_two([0.8, 0.8], [0.7, 0.9001])
    assert tiny_gain["verdict"].startswith("no more than noise at 2 seeds; not even 10,000 would tell (")


def test_a_table_of_several_comparisons_is_judged_as_a_whole():
    """Each of three equal differences is significant by itself; together by Holm they are not."""
    steps = np.array([0.010, 0.001, 0.009, 0.003, 0.004])
    runs = {name: [run(0.8 + k * step) for step in steps] for k, name in enumerate("abcd")}
    table = statistics.compare([("a", "b"), ("b", "c"), ("c", "d")], runs)
    for comparison in table:
        assert comparison["p_value"] < 0.05
        assert comparison["p_holm"] == pytest.approx(3 * comparison["p_value"])
        assert comparison["verdict"].startswith("no more than noise at 5 seeds; about ")
        assert comparison["verdict"].endswith(f"paired t p = {comparison['p_holm']:.3f} after Holm)")
        assert comparison["seeds_needed"] > 5


TABLES = {  # as the recipes have them
    "one comparison": [("a", "b")],
    "each with the one before": [("a", "b"), ("b", "c"), ("c", "d")],
    "seven with a baseline": [("a", name) for name in "bcdefgh"],
    "six that share nothing": [("a", "b"), ("c", "d"), ("e", "f"), ("g", "h"), ("i", "j"), ("k", "l")],
}


@pytest.mark.parametrize("seeds", [2, 5, 10])
@pytest.mark.parametrize("pairs", TABLES.values(), ids=TABLES)
def test_copies_of_one_recipe_are_called_different_in_at_most_5_percent_of_tables(random, pairs, seeds):
    """By simulation; the bound is what a rate of 5 % stays below but for one time in 1,000."""
    p_values = noise_alone(pairs, seeds, 10_000, random)
    wrong = np.mean([min(statistics.holm(row)) < statistics.SIGNIFICANT for row in p_values])
    assert wrong <= at_most(0.05, 10_000)
    assert wrong > 0.02 or seeds == 2, "it seldom says so, so little is tested"
    if len(pairs) > 1:
        assert np.mean((p_values < 0.05).any(axis=1)) > 0.075, "without Holm's adjustment it would be more"


def test_the_verdicts_of_a_table_are_those_that_the_simulation_counts(random, verdicts_alone):
    pairs = TABLES["each with the one before"]
    for spread in (0.0, 0.003, 0.006):
        accuracies = random.normal(0.9 + spread * np.arange(4)[:, None], 0.003, (4, 5))
        table = statistics.compare(pairs, dict(zip("abcd", [[run(x) for x in row] for row in accuracies], strict=True)))
        adjusted = statistics.holm(statistics.paired_t(np.diff(accuracies, axis=0)))
        assert [is_more_than_noise(comparison) for comparison in table] == [p < 0.05 for p in adjusted]


def test_what_is_no_more_than_noise_always_needs_more_seeds(random):
    for seeds in (2, 5, 10):
        accuracies = {name: [run(x) for x in random.normal(0.9, 0.003, seeds)] for name in "abcd"}
        for comparison in statistics.compare(TABLES["each with the one before"], accuracies):
            assert is_more_than_noise(comparison) or comparison.get("seeds_needed", math.inf) > seeds


def train_many(networks: int) -> np.ndarray:
    """Train 98 -> 8 -> 10 by SGD from so many seeds, side by side; return bool [networks, T], which are correct."""
    data = tiny.make(train=200, test=500, seed=1)
    train, test = (torch.from_numpy(images[:, ::2, ::4].reshape(len(images), -1) / 255).float() for images in data[::2])
    labels = torch.from_numpy(data.train_labels).long()
    generator = torch.Generator().manual_seed(0)
    shapes = ((98, 8), (8, 10))
    weights = [torch.randn((networks, *shape), generator=generator) / shape[0] ** 0.5 for shape in shapes]

    def logits(images: torch.Tensor) -> torch.Tensor:  # [networks or 1, B, 98] -> [networks, B, 10]
        return (images @ weights[0]).relu() @ weights[1]

    order = torch.rand((networks, 3, len(train)), generator=generator).argsort(dim=2).flatten(1)  # three epochs
    for batch in order.split(20, dim=1):
        for weight in weights:
            weight.requires_grad_()
        loss = F.cross_entropy(logits(train[batch]).flatten(0, 1), labels[batch].flatten(), reduction="sum")
        loss.backward()
        weights = [(weight - 1.0 / 20 * weight.grad).detach() for weight in weights]
    return logits(test[None]).argmax(dim=2).numpy() == data.test_labels


def test_trainings_of_one_recipe_are_seldom_called_different(verdicts_alone):
    """Real trainings from 2,000 seeds: groups of five differ by more than noise in at most 5 % of pairs.

    Single trained networks do differ by McNemar's test, far more often: that is why one seed gives no verdict.
    """
    correct = train_many(2000)
    assert 0.4 < correct.mean() < 0.95
    assert correct.mean(axis=1).std() > 0.01
    runs = [run(correct=row) for row in correct]
    groups = [
        statistics.compare([("a", "b")], {"a": runs[i : i + 5], "b": runs[i + 5 : i + 10]}) for i in range(0, 2000, 10)
    ]
    assert np.mean([is_more_than_noise(c) for (c,) in groups]) < at_most(0.05, 200)
    singles = [
        statistics.compare([("a", "b")], {"a": [a], "b": [b]})[0]
        for a, b in zip(runs[:400:2], runs[1:400:2], strict=True)
    ]
    assert np.mean([single["p_value"] < 0.05 for single in singles]) > 0.25
    assert not any("noise" in single["verdict"] for single in singles)


# Published figures


@pytest.mark.parametrize(
    ("key", "published", "verdict"),
    [
        ("test_accuracy", 0.9, "reproduced"),
        ("test_accuracy", 0.85, "exceeded"),
        ("test_accuracy", 0.95, "not reproduced"),
        ("test_loss", 0.9, "reproduced"),
        ("test_loss", 0.95, "exceeded"),
        ("test_loss", 0.85, "not reproduced"),
    ],
)
def test_a_published_figure_is_held_against_one_more_seed(key, published, verdict):
    values = [0.89, 0.89, 0.90, 0.91, 0.91]
    margin = stats.t.ppf(0.975, 4) * 0.01 * math.sqrt(6 / 5)
    expected = {"verdict": verdict, "n": 5, "low": pytest.approx(0.9 - margin), "high": pytest.approx(0.9 + margin)}
    assert statistics.reproduction(key, published, values) == expected


def test_fewer_than_five_seeds_reproduce_nothing_but_parameters():
    assert statistics.reproduction("test_accuracy", 0.9, [0.9]) == {"verdict": "one seed: no verdict", "n": 1}
    assert statistics.reproduction("test_accuracy", 0.9, [0.9] * 4) == {"verdict": "4 seeds: no verdict", "n": 4}
    assert statistics.reproduction("parameters", 203_530, [203_530]) == {"verdict": "reproduced", "n": 1}
    assert statistics.reproduction("parameters", 203_530, [203_531] * 2) == {"verdict": "not reproduced", "n": 2}


# Factorials

LEVELS = {
    "activation": ["relu"] * 4 + ["leaky_relu"] * 4,
    "pool": ["max", "max", "stride", "stride"] * 2,
    "optimizer": ["adam", "sgd"] * 4,
}


def least_squares(seeds: int, responses: np.ndarray, interactions: bool) -> tuple[np.ndarray, np.ndarray, int]:
    """Twice the coefficients, half the width of their 95 % intervals, and the degrees of freedom of the residuals."""
    a, b, c = ([-1 if level == own[0] else 1 for level in own] for own in LEVELS.values())
    columns = [np.ones(8), *map(np.array, (a, b, c))]
    if interactions:
        columns += [columns[i] * columns[j] for i, j in ((1, 2), (1, 3), (2, 3))]
        columns.append(columns[1] * columns[2] * columns[3])
    design = np.repeat(np.stack(columns, axis=1), seeds, axis=0)
    coefficients, residual, _, _ = np.linalg.lstsq(design, responses.ravel(), rcond=None)
    freedom = len(design) - design.shape[1]
    errors = np.sqrt(residual[0] / freedom * np.diag(np.linalg.inv(design.T @ design)))
    return 2 * coefficients[1:], 2 * errors[1:] * stats.t.ppf(0.975, freedom), freedom


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_effects_are_those_of_a_least_squares_fit(seeds):
    responses = np.random.default_rng(seeds).normal(0.91, 0.002, (8, seeds))
    effects = statistics.factorial_effects(LEVELS, responses.tolist())
    wanted, margins, freedom = least_squares(seeds, responses, interactions=seeds > 1)
    tested = effects[: len(wanted)]
    np.testing.assert_allclose([effect["effect"] for effect in tested], wanted)
    intervals = np.array([effect["interval"] for effect in tested])
    np.testing.assert_allclose(intervals, np.stack([wanted - margins, wanted + margins], axis=1))
    assert {effect["degrees_of_freedom"] for effect in tested} == {freedom}
    excluded = [low > 0 or high < 0 for low, high in intervals]
    assert [effect["p_value"] < 0.05 for effect in tested] == excluded, "test and interval agree"


def test_of_one_seed_interactions_serve_as_the_error_and_are_not_judged():
    responses = np.random.default_rng(0).normal(0.91, 0.002, (8, 1))
    effects = statistics.factorial_effects(LEVELS, responses.tolist())
    assert [len(effect["factors"]) for effect in effects] == [1, 1, 1, 2, 2, 2, 3]
    half = responses[:, 0].reshape(2, 2, 2)
    by_hand = ((half[1, 1] - half[0, 1]).mean() - (half[1, 0] - half[0, 0]).mean()) / 2
    assert effects[3]["effect"] == pytest.approx(by_hand)
    assert all(effect["verdict"] == "one seed: no verdict" and "interval" not in effect for effect in effects[3:])


def test_an_effect_as_large_as_the_difference_is_found_and_named():
    responses = [[0.92 - 0.01 * (n % 2) + 0.0001 * seed for seed in range(3)] for n in range(8)]
    activation, pool, optimizer, *_ = statistics.factorial_effects(LEVELS, responses)
    assert (optimizer["factors"], optimizer["low"], optimizer["high"]) == (["optimizer"], "adam", "sgd")
    assert optimizer["effect"] == pytest.approx(-0.01)
    assert optimizer["verdict"].startswith("more than noise")
    assert activation["verdict"].startswith("no more than noise")
    assert pool["effect"] == pytest.approx(0)


@pytest.mark.parametrize(
    "levels",
    [
        {},
        {"pool": ["max"] * 2},
        {"pool": ["max", "max", "stride"]},
        {"pool": ["max", "avg", "stride", "max"], "optimizer": ["adam", "sgd"] * 2},
        {"pool": ["max", "max"], "optimizer": ["adam", "sgd"]},
        {"pool": []},
    ],
)
def test_what_is_no_full_factorial_has_no_effects(levels):
    count = max((len(own) for own in levels.values()), default=2)
    assert statistics.factorial_effects(levels, [[0.9]] * count) == []


def test_responses_that_never_vary_are_almost_certain():
    effects = statistics.factorial_effects({"pool": ["max", "stride"]}, [[0.9, 0.9], [0.8, 0.8]])
    assert [effect["effect"] for effect in effects] == [pytest.approx(-0.1)]
    assert 0 < effects[0]["p_value"] < 1e-5
    (alone,) = statistics.factorial_effects({"pool": ["max", "stride"]}, [[0.9], [0.8]])
    assert alone["verdict"] == "one seed: no verdict", "there is no interaction to take for noise"


def test_an_effect_of_one_image_is_noise_although_two_seeds_agree_to_the_image():
    (effect,) = statistics.factorial_effects({"pool": ["max", "stride"]}, [[0.9, 0.9], [0.9001, 0.9001]])
    assert effect["verdict"].startswith("no more than noise")
    low, high = effect["interval"]
    assert low < 0 < high
    of_one_seed = statistics.factorial_effects(LEVELS, [[0.9 + 0.0001 * (n % 2)] for n in range(8)])
    assert not any(effect["verdict"].startswith("more") for effect in of_one_seed)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0004, "< 0.001"), (0.0491, "0.049"), (0.04977, "0.0498"), (0.0503, "0.0503"), (0.0506, "0.051"), (1, "1.000")],
)
def test_a_p_value_is_told_on_its_side_of_the_limit(value, text):
    assert statistics.p_text(value) == text
