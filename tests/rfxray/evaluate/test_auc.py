"""AUCs and their covariances, against the definitions and against closed forms."""

import numpy as np
import pytest

from rfxray.evaluate import auc
from rfxray.readers.obuchowski_rockette import mean_covariance
from rfxray.readers.one_shot import one_shot
from rfxray.readers.roe_metz import RoeMetz, components, pair_components, scores

TRUTH = np.arange(30) % 3 == 0
SINGLE = np.arange(30)


@pytest.fixture
def rated():
    """Ratings 1 to 5 of four readers, with ties."""
    rng = np.random.default_rng(0)
    return rng.integers(1, 6, (4, 30)) + TRUTH * rng.integers(0, 3, (4, 30))


def by_definition(scores, truth):
    values = []
    for a in scores[truth]:
        for b in scores[~truth]:
            values.append(1.0 if a > b else 0.5 if a == b else 0.0)
    return np.mean(values)


def test_auc_is_the_share_of_pairs_in_order_and_a_tie_is_a_half(rated):
    placed = auc.placements(rated, TRUTH)
    expected = [by_definition(row, TRUTH) for row in rated]
    np.testing.assert_allclose(auc.area(placed, TRUTH), expected)
    np.testing.assert_allclose(placed[:, ~TRUTH].mean(1), expected)
    np.testing.assert_allclose(auc.wins(rated, TRUTH).mean((1, 2)), expected)


def test_delong_is_the_sum_of_the_covariances_of_placements(rated):
    pairs = auc.wins(rated, TRUTH)
    rows, columns = pairs.mean(2), pairs.mean(1)
    expected = np.cov(rows) / rows.shape[1] + np.cov(columns) / columns.shape[1]
    found = auc.delong(auc.placements(rated, TRUTH), TRUTH, SINGLE)
    np.testing.assert_allclose(found, expected)


def test_films_that_are_copies_of_each_other_add_no_information(rated):
    single = auc.delong(auc.placements(rated, TRUTH), TRUTH, SINGLE)
    twice, truth = np.repeat(rated, 2, axis=1), np.repeat(TRUTH, 2)
    placed = auc.placements(twice, truth)
    clustered = auc.delong(placed, truth, np.repeat(SINGLE, 2))
    np.testing.assert_allclose(clustered, single)
    ignored = auc.delong(placed, truth, np.arange(60))
    assert (np.diag(ignored) < 0.6 * np.diag(single)).all()


def test_clusters_with_real_and_synthetic_films_agree_with_the_jackknife():
    rng = np.random.default_rng(1)
    cluster = np.arange(200) // 2
    truth = np.arange(200) % 2 == 0
    patient = rng.standard_normal((3, 100))[:, cluster]
    drawn = 2 * patient + rng.standard_normal((3, 200)) + 0.5 * truth
    found = auc.delong(auc.placements(drawn, truth), truth, cluster)
    np.testing.assert_allclose(found, auc.jackknife(drawn, truth, cluster), rtol=0.05, atol=2e-5)
    # A patient's own level cancels between its films, so pairing makes the AUC more certain.
    assert (
        np.diag(found) < np.diag(auc.delong(auc.placements(drawn, truth), truth, np.arange(200)))
    ).all()


def test_jackknife_leaves_out_each_case_once(rated):
    areas = []
    for k in range(30):
        keep = np.arange(30) != k
        areas.append([by_definition(row[keep], TRUTH[keep]) for row in rated])
    expected = np.cov(np.array(areas).T, ddof=0) * 29
    np.testing.assert_allclose(auc.jackknife(rated, TRUTH, SINGLE), expected)


def test_unbiased_covariances_have_the_expected_values_of_the_model():
    model, truth = RoeMetz(0.02, 0.3, 0.2), np.arange(20) < 10
    drawn = scores(model, np.random.default_rng(2), 0.7, 3, truth, studies=3000)[0]
    found = np.array([auc.unbiased(study, truth) for study in drawn])
    expected = components(model, 0.7, 10, 10)
    variance = np.trace(found, axis1=1, axis2=2) / 3
    # Four standard errors of a mean of 3,000.
    assert abs(variance.mean() - expected.error) < 4 * variance.std() / 3000**0.5
    shared = mean_covariance(found)
    assert abs(np.nanmean(shared) - expected.shared) < 0.1 * expected.error


def test_variance_of_the_mean_is_the_one_of_the_model():
    model, truth = RoeMetz(0.02, 0.3, 0.2), np.arange(20) < 8
    drawn = scores(model, np.random.default_rng(3), 0.6, 4, truth, studies=8000)[0]
    means = auc.area(auc.placements(drawn, truth), truth).mean(1)
    expected = components(model, 0.6, 8, 12)
    assert abs(means.mean() - 0.6) < 4 * means.std() / 8000**0.5
    # The relative error of a variance of 8,000 is 1.6%.
    assert means.var() == pytest.approx(expected.variance(4), rel=0.06)


def test_components_of_pairs_are_those_of_simulated_pairs():
    model, truth = RoeMetz(0.1, 0.4, 0.2), np.arange(24) < 12
    drawn = scores(model, np.random.default_rng(5), 0.65, 3, truth, studies=8000)[0]
    right = drawn[..., truth] > drawn[..., ~truth]
    merit = right.mean(-1)
    expected = pair_components(model, 0.65, 12)
    assert abs(merit.mean() - 0.65) < 4 * merit.mean(1).std() / 8000**0.5
    assert merit.mean(1).var() == pytest.approx(expected.variance(3), rel=0.06)
    covariance = auc.of_proportions(right, np.arange(12))
    variance = np.trace(covariance, axis1=1, axis2=2) / 3
    assert variance.mean() == pytest.approx(expected.error, rel=0.02)
    shared = mean_covariance(covariance)
    # Readers who were always right have no covariance; the rest are nearly all
    assert abs(np.nanmean(shared) - expected.shared) < 0.02 * expected.error
    spread = merit.var(1, ddof=1)
    assert abs(spread.mean() - expected.spread) < 4 * spread.std() / 8000**0.5


def test_one_shot_variance_is_that_of_unbiased_covariances(rated):
    merit = auc.area(auc.placements(rated, TRUTH), TRUTH)
    covariance = auc.unbiased(rated, TRUTH)
    cov2 = (covariance.sum() - np.trace(covariance)) / 12
    assert one_shot(rated, TRUTH).variance == pytest.approx(merit.var(ddof=1) / 4 + cov2)


def test_proportions_of_independent_pairs_have_binomial_covariances():
    outcomes = np.random.default_rng(4).integers(0, 2, (3, 50))
    expected = np.cov(outcomes) / 50
    np.testing.assert_allclose(auc.of_proportions(outcomes, np.arange(50)), expected)
