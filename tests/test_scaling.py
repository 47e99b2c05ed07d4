"""The benchmark of what a trial costs beside its training: what it says of numbers that are known."""

import pytest

from benchmarks import scaling
from benchmarks.scaling import Cost

LINEAR = [Cost(n, 4 + 0.1 * n, 1 + 0.002 * n, 0.01 * n, 500.0, 0.5 * n) for n in (20, 250, 1000)]


def test_a_start_that_costs_once_is_no_part_of_what_a_trial_costs():
    assert scaling.slope(LINEAR, "seconds") == pytest.approx(0.1)
    assert scaling.slope(LINEAR, "megabytes") == 0


def test_what_is_more_than_linear_is_named():
    assert "nothing grows by more" in scaling.in_words("cluster", LINEAR)
    slow = [Cost(n, 9 + 0.1 * n, 0.01 * n, 9 + 1e-4 * n**2, 500.0, 0.5 * n) for n in (20, 250, 1000)]
    # (1000² - 250²) / 750 = 1250 against (250² - 20²) / 230 = 270
    assert scaling.in_words("cluster", slow) == "- cluster: more than linear: seconds to merge (4.63 times)"


def test_the_calculation_by_hand():
    """Ten trials to a core, of 60 s and 0.2 core seconds; 100 s to merge 10,000."""
    cells = dict(scaling.calculated(LINEAR))
    assert cells["their training, at 60 s each"] == "600 s"
    assert cells["what they cost beside it"] == "2.0 s"
    assert cells["merging them at the end"] == "100 s"
    assert cells["from the first to the last"] == "702 s"
    assert cells["of which the cores train"] == "85%"
    assert cells["size of the run's folder"] == "5.0 GB"


def test_a_run_of_its_trials_is_trained_and_merged(monkeypatch):
    monkeypatch.setattr(scaling, "TEST_IMAGES", 20)
    cost = scaling.run_once("in turn", 20, "")
    assert cost.trials == 20
    assert min(cost.seconds, cost.parent, cost.merging, cost.megabytes, cost.folder) > 0
