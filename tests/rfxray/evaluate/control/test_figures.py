"""Figures of what was requested: analytic values, patients, and what a request draws along."""

import numpy as np
import pytest
from scipy import optimize, special

from rfxray.attributes.vocabulary import INDEX, Attributes
from rfxray.evaluate.control import figures
from rfxray.evaluate.control.classifiers import Reading

RNG = np.random.default_rng(0)


def question(n=4000, seed=0, sharpness=1.0):
    """Probabilities and truths: right ones at sharpness 1, too sure ones above."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, n)
    truth = rng.random(n) < special.expit(logits)
    return special.expit(sharpness * logits), truth


def test_area_is_the_share_of_pairs_in_the_right_order():
    p, truth = question(300)
    p = np.round(p, 1)  # with ties
    pairs = (p[truth, None] > p[~truth]) + 0.5 * (p[truth, None] == p[~truth])
    found = figures.binary(p, truth, np.arange(300))[figures.AUROC]
    assert found.value == pytest.approx(pairs.mean(), rel=1e-12)


def test_right_probabilities_have_slope_one_and_too_sure_ones_less():
    for sharpness in (1.0, 2.0):
        p, truth = question(20000, sharpness=sharpness)
        found = figures.binary(p, truth, np.arange(len(p)))
        slope, intercept = found[figures.SLOPE], found[figures.INTERCEPT]
        assert abs(slope.value - 1 / sharpness) < 3 * slope.variance**0.5
        assert abs(intercept.value) < 3 * intercept.variance**0.5
        assert slope.variance**0.5 < 0.03
        assert (found[figures.ECE].value < 0.012) == (sharpness == 1)


def test_slope_is_that_of_the_likelihood():
    p, truth = question(500, seed=3)

    def loss(w):
        return np.logaddexp(0, np.where(truth, -1, 1) * (w[0] * special.logit(p) + w[1])).sum()

    best = optimize.minimize(loss, [0.5, 0.5], tol=1e-12).x
    slope, intercept = figures.calibration(p, truth, np.arange(500))
    assert [slope.value, intercept.value] == pytest.approx(best, abs=1e-4)


def test_brier_is_the_mean_square_and_an_error_of_groups_is_zero_where_frequencies_agree():
    p, truth = np.repeat([0.25, 0.75], 100), np.tile([True, False, False, False], 50)
    truth[100:] = ~truth[100:]
    found = figures.binary(p, truth, np.arange(200))
    assert found[figures.BRIER].value == pytest.approx(0.1875)
    assert found[figures.ECE].value == pytest.approx(0.0, abs=1e-12)


def test_image_that_is_repeated_by_its_patient_adds_nothing():
    p, truth = question(200)
    once = figures.binary(p, truth, np.arange(200))
    twice = figures.binary(np.tile(p, 2), np.tile(truth, 2), np.tile(np.arange(200), 2))
    for name in (figures.AUROC, figures.BRIER, figures.SLOPE):
        assert twice[name].value == pytest.approx(once[name].value, rel=1e-9)
        assert twice[name].variance == pytest.approx(once[name].variance, rel=0.02)


def test_question_with_few_images_of_a_value_has_a_reason_and_no_figure():
    truth = np.zeros(50, bool)
    truth[:9] = True
    found = figures.binary(RNG.random(50), truth, np.arange(50))
    assert found[figures.AUROC].value is None
    assert "needs 10 patients" in found[figures.AUROC].reason


def test_separated_values_have_an_area_without_interval_and_no_slope():
    truth = np.arange(40) < 20
    found = figures.binary(np.where(truth, 0.9, 0.1), truth, np.arange(40))
    assert found[figures.SLOPE].value is None
    area = figures._figure(figures.AUROC, found[figures.AUROC], real=False)
    assert (area.value, area.low) == (1.0, None)


def side(seed, n, effect, requested=("cardiomegaly",)):
    """Images in which the sex that is read goes with cardiomegaly by that much."""
    rng = np.random.default_rng(seed)
    values, known = np.zeros((n, 19), np.float32), np.zeros((n, 19), bool)
    present = rng.random(n) < 0.5
    values[:, INDEX["cardiomegaly"]] = present
    male = rng.random(n) < 0.5 + effect * (present - 0.5)
    values[:, INDEX["sex"]] = male
    known[:, [INDEX[name] for name in requested]] = True
    answers = {
        name: np.stack([1 - column, column], 1)
        for name, column in (("cardiomegaly", present * 0.8 + 0.1), ("sex", male * 0.8 + 0.1))
    }
    attributes = Attributes(np.where(known, values, 0), known)
    return Reading(answers), attributes, np.arange(n)


def test_what_a_request_draws_along_is_amplified_only_beyond_the_reals():
    reals = side(1, 3000, 0.2, ("cardiomegaly", "sex"))
    (same,) = figures.amplification(side(2, 3000, 0.2), reals)
    (more,) = figures.amplification(side(2, 3000, 0.6), reals)
    assert (more.requested, more.read) == ("cardiomegaly", "sex=M")
    assert not same.beyond
    assert more.beyond
    assert more.figure.value == pytest.approx(0.4, abs=0.06)


def test_what_was_requested_is_no_amplification():
    reals = side(1, 300, 0.2, ("cardiomegaly", "sex"))
    assert figures.amplification(side(2, 300, 0.6, ("cardiomegaly", "sex")), reals) == []


def test_rows_are_of_what_is_both_requested_and_read():
    samples, reals = side(2, 500, 0.2), side(1, 500, 0.2, ("cardiomegaly", "sex"))
    rows = figures.rows(samples, reals)
    assert {row.attribute for row in rows} == {"cardiomegaly"}
    of = {row.of for row in rows if row.figure.name == figures.AUROC}
    assert of == {"samples", "reals", "gap"}
    areas = {r.of: r.figure.value for r in rows if r.figure.name == figures.BRIER}
    assert areas["gap"] == pytest.approx(areas["samples"] - areas["reals"])
