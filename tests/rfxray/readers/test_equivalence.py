"""The verdict: what is called equivalent, and what must never be."""

import numpy as np
import pytest
from scipy import stats

from rfxray.readers import equivalence, power
from rfxray.readers.obuchowski_rockette import Pooled, fixed_cases, fixed_readers, reader_mean
from rfxray.readers.roe_metz import RoeMetz, components, pair_components


@pytest.mark.parametrize("mean", [0.41, 0.48, 0.5, 0.53, 0.56])
@pytest.mark.parametrize("se", [0.01, 0.02, 0.04])
def test_tost_accepts_exactly_if_the_90_percent_interval_is_within_the_margin(mean, se):
    pooled = Pooled(np.array(mean), np.array(se), np.array(7.0))
    low, high = pooled.interval(0.9)
    assert (equivalence.tost(pooled, 0.05) < 0.05) == (low > 0.45 and high < 0.55)


def test_interval_and_p_of_the_mean_agree_with_scipy():
    merit = np.array([0.48, 0.55, 0.57, 0.61])
    covariance = np.zeros((4, 4))  # readers only: the t test of four numbers
    np.fill_diagonal(covariance, 1e-3)
    found = reader_mean(merit, covariance)
    expected = stats.ttest_1samp(merit, 0.5)
    assert found.p_value(0.5) == pytest.approx(expected.pvalue)
    assert found.interval() == pytest.approx(tuple(expected.confidence_interval()))
    assert fixed_cases(merit).p_value(0.5) == pytest.approx(expected.pvalue)
    assert fixed_readers(merit, covariance).se == pytest.approx((1e-3 / 4) ** 0.5)


def test_reader_at_one_or_zero_gets_the_score_interval():
    low, high = equivalence.reader_interval(
        np.array([1.0, 0.0, 0.5]), np.array([0, 0, 0.01]), 40, 60
    )
    assert high[0] == 1
    assert low[1] == 0
    assert high[1] == pytest.approx(1 - low[0])
    # The defining equation of Newcombe's method 5, and Wilson's interval as a sanity check.
    a, z = low[0], stats.norm.ppf(0.975)
    variance = a * (1 - a) / 2400 * (1 + 49 * ((1 - a) / (2 - a) + a / (1 + a)))
    assert 1 - a == pytest.approx(z * variance**0.5)
    assert 0.9 < low[0] < 1
    assert low[2] == pytest.approx(1 - high[2])


def test_mean_distance_has_no_bias_of_chance():
    rng = np.random.default_rng(0)
    deviation = 0.05
    for true in (0.0, 0.05, 0.1):
        merit = 0.5 + true * np.array([1, -1] * 500) + deviation * rng.standard_normal(1000)
        found = equivalence.mean_distance(merit, np.full(1000, deviation**2))
        assert found == pytest.approx(true, abs=0.012)
    assert np.abs(merit - 0.5).mean() > 0.1


def test_mean_distance_of_certain_readers_is_what_is_seen():
    merit = np.array([[0.75, 0.25], [0.5, 0.5]])
    np.testing.assert_allclose(equivalence.mean_distance(merit, np.zeros((2, 2))), [0.25, 0])


def judge(merit, deviation=0.02, margin=0.05, cases=400):
    """A judgement of readers with independent errors."""
    merit = np.array(merit)
    variance = np.full(merit.shape, deviation**2)
    covariance = np.eye(len(merit)) * deviation**2
    return equivalence.judge(
        reader_mean(merit, covariance), merit, variance, cases // 2, cases // 2, margin
    )


def test_readers_near_chance_are_equivalent():
    found = judge([0.5, 0.51, 0.49, 0.5, 0.505])
    assert found.equivalent
    assert not found.apart
    assert found.distance == 0


def test_mean_of_a_half_is_not_enough():
    found = judge([0.75, 0.25, 0.74, 0.26, 0.5])
    assert not found.equivalent
    assert found.apart
    assert not found.overlaps[:4].any()
    assert found.difference_p > 0.9


def test_one_reader_beyond_the_margin_is_enough_to_refuse():
    merit = [0.5] * 9 + [0.62]
    found = judge(merit, deviation=0.04, margin=0.1)
    assert found.tost_p < 0.05
    assert found.overlaps.all()
    assert found.telling.sum() == 1
    assert not found.equivalent


def test_small_difference_within_the_margin_is_equivalent_and_not_apart():
    found = judge([0.52, 0.521, 0.519, 0.52, 0.52], deviation=0.005)
    assert found.difference_p < 0.05
    assert found.equivalent
    assert not found.apart


def test_nan_and_zero_errors_conclude_nothing():
    merit = np.array([0.5, 0.5, 0.5])
    for covariance in (np.zeros((3, 3)), np.full((3, 3), np.nan)):
        found = equivalence.judge(
            reader_mean(merit, covariance), merit, np.diag(covariance), 50, 50, 0.05
        )
        assert not found.equivalent
        assert not found.apart


def test_studies_with_a_discriminating_minority_are_not_called_equivalent():
    truth, rng = np.arange(200) < 100, np.random.default_rng(0)
    for areas in ([0.75] + [0.5] * 7, [0.75] * 2 + [0.5] * 6, [0.8] + [0.5] * 4):
        found = power.simulated(RoeMetz(), np.array(areas), len(areas), truth, 0.1, 200, rng)
        assert found.equivalent == 0
        assert found.apart > 0.75


@pytest.mark.parametrize(
    ("readers", "cases", "margin", "pairs"),
    [(3, 50, 0.1, False), (5, 100, 0.1, False), (8, 100, 0.1, False), (5, 101, 0.1, True)],
)
def test_sizes_coverage_and_power_are_those_of_the_planner(readers, cases, margin, pairs):
    model, studies = RoeMetz(), 1500
    truth = np.arange(2 * cases) < cases if pairs else np.arange(cases) < cases // 2
    error = 3.5 * (0.25 / studies) ** 0.5

    def plan(area):
        found = power.expected(model, area, cases, pairs)
        return power.planned(found, readers, cases, margin, pairs)

    for area in (0.5, 0.5 + margin):
        rng = np.random.default_rng(readers)
        found = power.simulated(model, area, readers, truth, margin, studies, rng, pairs=pairs)
        assert found.tost == pytest.approx(plan(area).equivalence, abs=error)
        assert found.difference == pytest.approx(plan(area).difference, abs=error)
        assert found.equivalent <= found.tost
        assert found.se == pytest.approx(plan(area).se, rel=0.05)
        if area > 0.5:
            assert found.tost < 0.06 + 3 * (0.05 * 0.95 / studies) ** 0.5
        if readers >= 5:
            assert abs(found.covered - 0.95) < 0.02 + 3 * (0.05 * 0.95 / studies) ** 0.5


def test_planner_of_a_certain_study_knows_the_answer():
    model = RoeMetz(0.0, 0.0, 0.5)
    found = power.planned(components(model, 0.5, 5000, 5000), 8, 10000, 0.05)
    assert found.equivalence > 0.9999
    assert found.difference == pytest.approx(0.05, abs=0.005)
    assert power.planned(components(model, 0.9, 500, 500), 8, 1000, 0.05).difference > 0.9999


def test_smallest_design_reaches_the_power_and_the_next_smaller_does_not():
    cases = power.smallest(RoeMetz(), 0.5, 5, 0.1, 0.8)

    def at(cases):
        return power.planned(components(RoeMetz(), 0.5, cases // 2, cases // 2), 5, cases, 0.1)

    assert at(cases).equivalence >= 0.8
    assert at(cases - 2).equivalence < 0.8
    assert power.smallest(RoeMetz(0.5, 0.1, 0.1), 0.5, 3, 0.05, 0.8) is None


def test_smallest_number_of_pairs_reaches_the_power():
    pairs = power.smallest(RoeMetz(), 0.5, 5, 0.1, 0.8, pairs=True)

    def at(count):
        return power.planned(pair_components(RoeMetz(), 0.5, count), 5, count, 0.1, True)

    assert at(pairs).equivalence >= 0.8
    assert at(pairs - 1).equivalence < 0.8


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("model", [RoeMetz(0.0055, 0.15, 0.425), RoeMetz(0.05, 0.4, 0.3)])
def test_pilot_gives_back_the_model(model, pairs):
    expected = pair_components(model, 0.7, 60) if pairs else components(model, 0.7, 60, 40)
    covariance = np.full((6, 6), expected.shared) + np.eye(6) * (expected.error - expected.shared)
    merit = np.array([1.0, -1, 1, -1, 1, -1])
    merit = 0.7 + merit * (expected.spread * 5 / 6) ** 0.5
    found = power.from_pilot(merit, covariance, 60, 60 if pairs else 40, pairs)
    assert found.reader == pytest.approx(model.reader, rel=1e-4)
    assert found.case == pytest.approx(model.case, rel=1e-4)


@pytest.mark.parametrize("area", [0.35, 0.44, 0.54])
def test_readers_of_one_auc_have_no_variance_and_no_verdict(area):
    """The variance of five equal numbers is 4e-33 for some, and no p value may come of that."""
    merit = np.full(5, area)
    pooled = reader_mean(merit, 1e-3 * np.eye(5))
    assert pooled.se == 0
    said = equivalence.judge(pooled, merit, np.full(5, 1e-3), 50, 50, 0.1)
    assert not said.equivalent
    assert bool(said.apart) == bool(said.beyond.any())


def test_share_of_pairs_at_one_has_the_exact_interval():
    low, high = equivalence.reader_interval(np.array(1.0), np.array(0.0), 6, 6, pairs=True)
    exact = stats.binomtest(6, 6).proportion_ci(0.95, "exact")
    assert (low, high) == pytest.approx((exact.low, exact.high))
