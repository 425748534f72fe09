"""Figures over seeds and patients: beside scipy and DeLong, and how often intervals hold."""

import numpy as np
import pytest
from scipy import stats

from rfxray.evaluate import auc, intervals
from rfxray.evaluate.utility import estimates


@pytest.fixture
def films():
    rng = np.random.default_rng(0)
    truth = rng.random(400) < 0.3
    return rng.normal(truth * 1.2, 1.0, (3, 400)), truth, rng.integers(0, 250, 400)


EVERY = np.ones(400, bool)


def ends(found):
    """Both ends of an interval that is there."""
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


def test_auroc_is_that_of_scipy_and_its_variance_that_of_delong(films):
    scores, truth, patients = films
    for seed in range(3):
        one = estimates.auroc(scores[seed : seed + 1], truth, EVERY)
        u = stats.mannwhitneyu(scores[seed, truth], scores[seed, ~truth]).statistic
        assert one.values[0] == pytest.approx(u / truth.sum() / (~truth).sum())
        placed = auc.placements(scores[seed : seed + 1], truth)
        found = estimates.figure("AUROC", one, patients)
        half = stats.t.ppf(0.975, len(np.unique(patients)) - 1)
        se = np.sqrt(auc.delong(placed, truth, patients)[0, 0])
        # They differ only by the correction for few patients: of all, or of each side.
        low, high = ends(found)
        assert (high - low) / 2 == pytest.approx(half * se, rel=0.01)


def test_share_is_that_of_intervals(films):
    _, truth, patients = films
    among = np.arange(400) % 3 > 0
    found = estimates.figure("share", estimates.share(truth[None], among), patients)
    variance, clusters = intervals.cluster_variance(truth[among].astype(float), patients[among])
    expected = intervals.student("share", truth[among].mean(), variance, clusters, among.sum(), 0)
    assert found == expected


def test_images_that_do_not_count_change_nothing(films):
    scores, truth, patients = films
    among = np.arange(400) < 300
    whole = estimates.figure("AUROC", estimates.auroc(scores, truth, among), patients)
    part = estimates.auroc(scores[:, :300], truth[:300], EVERY[:300])
    assert whole == estimates.figure("AUROC", part, patients[:300])
    assert whole.n_real == 300


def test_seeds_that_agree_are_no_surer_than_one_and_noise_of_seeds_is_averaged(films):
    scores, truth, patients = films

    def width(rows):
        found = estimates.figure("AUROC", estimates.auroc(rows, truth, EVERY), patients)
        low, high = ends(found)
        return high - low

    same = np.repeat(scores[:1], 5, 0)
    assert width(same) == pytest.approx(width(scores[:1]), rel=1e-6)
    noisy = scores[0] + np.random.default_rng(1).normal(0, 1.5, (40, 400))
    assert width(noisy) < np.mean([width(noisy[i : i + 1]) for i in range(40)])


def test_difference_of_a_figure_and_itself_is_zero_and_a_ratio_one(films):
    scores, truth, patients = films
    one = estimates.auroc(scores, truth, EVERY)
    none = estimates.figure("gain", one - one, patients)
    assert (none.value, none.low) == (0, None)
    share = estimates.ratio(one, one)
    np.testing.assert_allclose(share.values, 1)
    np.testing.assert_allclose(share.influence, 0, atol=1e-15)


def test_ratio_is_linear_in_its_part(films):
    """Half of a whole plus noise has the variance of that noise over the whole."""
    scores, truth, _ = films
    whole = estimates.auroc(scores, truth, EVERY)
    noise = estimates.share(truth[None] * np.ones((3, 1), bool), np.arange(400) % 2 > 0)
    noise = estimates.Estimates(noise.values * 0, noise.influence, noise.among)
    halved = estimates.Estimates(
        whole.values / 2, whole.influence / 2 + noise.influence, whole.among
    )
    found = estimates.ratio(halved, whole)
    np.testing.assert_allclose(found.values, 0.5)
    np.testing.assert_allclose(found.influence, noise.influence / whole.values.mean(), atol=1e-15)


def test_few_patients_have_a_value_and_no_interval(films):
    scores, truth, patients = films
    found = estimates.figure("AUROC", estimates.auroc(scores, truth, EVERY), patients % 9)
    assert found.value is not None
    assert "needs 10 patients (got 9)" in str(found.reason)
    missing = estimates.missing(3, 400, "no films")
    assert estimates.figure("AUROC", missing - missing, patients).reason == "no films"
    one = estimates.auroc(scores, truth, EVERY)
    assert estimates.mean([missing, one]) is not missing
    np.testing.assert_array_equal(estimates.mean([missing, one]).values, one.values)


@pytest.mark.parametrize("between", [0.0, 0.05])
def test_intervals_hold_the_truth_over_other_seeds_and_patients(between):
    """A share of .6 with effects of patients (two films each) and of seeds, 500 studies."""
    rng = np.random.default_rng(4)
    patients, held = np.repeat(np.arange(100), 2), 0
    for _ in range(500):
        chance = 0.6 + rng.normal(0, between, (5, 1))
        shared = rng.random(100)[patients] < 0.5  # films on which all seeds agree
        ease = rng.random(100)[patients]
        own = rng.random((5, 200))
        hits = np.where(shared, ease, own) < chance
        found = estimates.figure("share", estimates.share(hits, np.ones(200, bool)), patients)
        low, high = ends(found)
        held += low <= 0.6 <= high
    assert 0.925 < held / 500 < 0.985
