"""Agreement beyond chance, against worked examples and limits."""

import numpy as np
import pytest

from rfxray.readers.agreement import ac1, agreement, kappa


def test_kappa_and_ac1_of_a_worked_example():
    # Gwet 2008, table of two raters: 118, 5, 2, 0 of 125.
    table = np.array([[118.0, 5.0], [2.0, 0.0]])
    assert kappa(table) == pytest.approx(-0.0234, abs=5e-5)
    assert ac1(table) == pytest.approx(0.9408, abs=5e-5)


def test_same_answers_agree_fully_and_opposite_ones_not_at_all():
    first = np.tile([0, 1], 20)
    cluster = np.arange(40)
    assert kappa(np.diag([20, 20])) == ac1(np.diag([20, 20])) == 1
    assert kappa(np.array([[0, 20], [20, 0]])) == -1
    same = agreement(first, first, cluster, 2)
    other = agreement(first, 1 - first, cluster, 2)
    assert (same.same, other.same) == (1, 0)
    # No patient differs from another, so there is no interval: one of no width would be a default.
    assert same.kappa is same.ac1 is other.kappa is other.ac1 is None


def test_one_answer_only_has_no_kappa():
    found = agreement(np.zeros(20, int), np.zeros(20, int), np.arange(20), 2)
    assert found.kappa is found.ac1 is None
    assert found.same == 1
    assert agreement(np.zeros(0, int), np.zeros(0, int), np.zeros(0, int), 2).same is None


def test_interval_holds_the_true_value_in_95_percent():
    rng = np.random.default_rng(0)
    held = []
    for _ in range(300):
        truth = rng.integers(0, 2, 80)
        first, second = (np.where(rng.random(80) < 0.8, truth, 1 - truth) for _ in range(2))
        _, low, high = agreement(first, second, np.arange(80), 2).kappa
        held.append(low <= 2 * (0.8**2 + 0.2**2) - 1 <= high)
    assert 0.91 < np.mean(held) < 0.99
