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
def test_differences_that_never_vary_are_certain():
    rounded = np.array([0.3, 0.8, 0.9]) - [0.2, 0.7, 0.8]  # equal but for rounding
    assert np.ptp(rounded) > 0
    assert statistics.paired_t(np.zeros(3)) == statistics.paired_t(rounded - rounded.mean()) == 1
    assert statistics.paired_t(rounded) == statistics.paired_t(np.full(2, -0.1)) == 0
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


def test_intervals_hold_what_they_promise(random):
    samples = random.normal(0.9, 0.003, (2500, 5))
    means = np.array([statistics.interval(sample) for sample in samples])
    one_more = np.array([statistics.prediction_interval(sample) for sample in samples])
    assert np.mean((means[:, 0] < 0.9) & (means[:, 1] > 0.9)) == pytest.approx(0.95, abs=0.01)
    new = random.normal(0.9, 0.003, 2500)
    assert np.mean((one_more[:, 0] < new) & (new < one_more[:, 1])) == pytest.approx(0.95, abs=0.01)
    assert statistics.interval(FIVE) == pytest.approx(stats.ttest_1samp(FIVE, 0).confidence_interval(0.95))
    assert np.ptp(statistics.interval(FIVE, 0.8)) < np.ptp(statistics.interval(FIVE))


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
    assert compared == {
        "a": "a",
        "b": "b",
        "difference": pytest.approx(0.03),
        "p_value": pytest.approx(2.0**-299),
        "test": "McNemar",
        "n": 10_000,
        "verdict": "these two trained networks differ (McNemar p < 0.001, 10,000 images); "
        "one seed says nothing about the recipes: --seeds 5",
    }
    (compared,) = statistics.compare([("a", "b")], {"a": [run(correct=a)], "b": [run(correct=np.roll(a, 9))]})
    assert compared["verdict"] == (
        "these two trained networks do not differ by more than chance (McNemar p = 1.000, 10,000 images); "
        "one seed says nothing about the recipes: --seeds 5"
    )


def test_several_seeds_speak_of_the_recipes():
    a = [0.80, 0.82, 0.79, 0.81, 0.80]
    compared = compare_two(a, (np.array(a) + FIVE).tolist())
    assert (compared["test"], compared["n"], compared["difference"]) == ("paired t", 5, pytest.approx(0.024))
    assert compared["p_value"] == compared["p_holm"] == pytest.approx(statistics.paired_t(FIVE))
    assert compared["interval"] == pytest.approx(statistics.interval(FIVE))
    assert compared["verdict"] == ("more than noise (paired t p = 0.009, 5 seeds; 95 % interval +0.98 to +3.82 points)")


def test_too_few_seeds_say_how_many_would_tell():
    compared = compare_two([0.8, 0.8, 0.8], [0.79, 0.81, 0.81])
    needed = compared["seeds_needed"]
    assert needed == statistics.seeds_needed(np.array([-0.01, 0.01, 0.01])) > 3
    assert compared["verdict"].startswith("no more than noise (paired t p = 0.667, 3 seeds; 95 % interval -2.54 to ")
    assert compared["verdict"].endswith(f"; about {needed} seeds would tell")
    same = compare_two([0.8, 0.9], [0.8, 0.9])
    assert "seeds_needed" not in same
    assert same["verdict"] == ("no more than noise (paired t p = 1.000, 2 seeds; 95 % interval +0.00 to +0.00 points)")


def test_a_table_of_several_comparisons_is_judged_as_a_whole():
    """Each of three equal differences is significant by itself; together by Holm they are not."""
    steps = np.array([0.010, 0.001, 0.009, 0.003, 0.004])
    runs = {name: [run(0.8 + k * step) for step in steps] for k, name in enumerate("abcd")}
    table = statistics.compare([("a", "b"), ("b", "c"), ("c", "d")], runs)
    for comparison in table:
        assert comparison["p_value"] < 0.05
        assert comparison["p_holm"] == pytest.approx(3 * comparison["p_value"])
        assert comparison["verdict"].startswith(
            f"no more than noise (paired t p = {comparison['p_holm']:.3f} after Holm"
        )
        assert comparison["seeds_needed"] > 5


def test_equal_recipes_are_seldom_called_different(random, verdicts_alone):
    """In at most 5 % of tables of three comparisons, by simulation; without Holm's adjustment it would be 13 %."""
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    tables = [
        statistics.compare(pairs, {name: [run(x) for x in random.normal(0.9, 0.003, 5)] for name in "abc"})
        for _ in range(600)
    ]
    wrong = np.mean([any(map(is_more_than_noise, table)) for table in tables])
    assert 0.01 < wrong < at_most(0.05, 600)
    assert np.mean([any(c["p_value"] < 0.05 for c in table) for table in tables]) > at_most(0.05, 600)


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
    values = [0.89, 0.90, 0.91]
    margin = stats.t.ppf(0.975, 2) * 0.01 * math.sqrt(4 / 3)
    expected = {"verdict": verdict, "n": 3, "low": pytest.approx(0.9 - margin), "high": pytest.approx(0.9 + margin)}
    assert statistics.reproduction(key, published, values) == expected


def test_one_seed_reproduces_nothing_but_parameters():
    assert statistics.reproduction("test_accuracy", 0.9, [0.9]) == {"verdict": "one seed: no verdict", "n": 1}
    assert statistics.reproduction("parameters", 203_530, [203_530]) == {"verdict": "reproduced", "n": 1}
    assert statistics.reproduction("parameters", 203_530, [203_531] * 2) == {"verdict": "not reproduced", "n": 2}
