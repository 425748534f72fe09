"""Intervals are finite and know of patients; floors and curves take whole patients."""

import numpy as np
import pytest

from rfxray.errors import DataError
from rfxray.evaluate import (
    basis,
    energy,
    feature_pair,
    frechet,
    frechet_figure,
    intervals,
    kernel,
    manifold,
)


def gaussians(n, m, width=4, shift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, width)), rng.normal(size=(m, width)) + shift


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_exactly_0_or_1_has_an_interval_by_the_number_of_patients(share):
    hits = np.full(60, bool(share))
    single = intervals.proportion("recall", hits, np.arange(60), 60, 60)
    clustered = intervals.proportion("recall", hits, np.arange(60) // 3, 60, 60)
    for figure in (single, clustered):
        assert figure.value == share
        assert min(figure.low, 1 - figure.high) == 0
        assert figure.high - figure.low > 0.05
    assert clustered.high - clustered.low > single.high - single.low


def test_rows_that_repeat_in_each_patient_do_not_narrow_an_interval():
    rng = np.random.default_rng(0)
    hits = rng.random(40) < 0.6
    once = intervals.proportion("recall", hits, np.arange(40), 40, 40)
    repeated = intervals.proportion("recall", hits.repeat(5), np.arange(200) // 5, 200, 200)
    assert (once.low, once.high) == pytest.approx((repeated.low, repeated.high), rel=0.02)
    real, synthetic = gaussians(60, 80, shift=0.5)
    of = feature_pair.patients(60, 80)
    for measure in (kernel.distance, energy.distance):
        once = measure(real, synthetic, of)
        clustered = feature_pair.patients(180, 80, np.arange(180) // 3)
        repeated = measure(real.repeat(3, 0), synthetic, clustered)
        assert repeated.value == pytest.approx(once.value, rel=1e-9)
        assert repeated.low == pytest.approx(once.low, rel=1e-6)


def test_few_patients_have_a_reason_instead_of_an_interval():
    real, synthetic = gaussians(60, 60)
    of = feature_pair.patients(60, 60, np.arange(60) // 10)
    found = [kernel.distance(real, synthetic, of), frechet_figure.full(real, synthetic, of)]
    found += [figure for figure in manifold.figures(real, synthetic, of) if figure.name == "recall"]
    for figure in found:
        assert figure.value is not None
        assert figure.low is None
        assert "needs 10 patients" in figure.reason
        assert "no interval" in str(figure)


def test_figures_of_sets_too_small_have_reasons():
    real, synthetic = gaussians(40, 5, width=8)
    of = feature_pair.patients(40, 5)
    for figure in manifold.figures(real, synthetic, of):
        assert figure.value is None
        assert "needs 6 images" in figure.reason
    assert "needs 16 images" in frechet_figure.full(real, synthetic, of).reason
    assert "smallest subset" in frechet_figure.infinite(real, synthetic, of).reason
    one = manifold.authenticity(real[:1], synthetic, feature_pair.patients(1, 5))
    assert "at least 2 training" in one.reason
    assert "not estimable" in str(one)


def test_fd_figure_has_the_spread_of_repeated_samples():
    figures = []
    for seed in range(60):
        real, synthetic = gaussians(200, 300, shift=0.4, seed=seed)
        figures.append(frechet_figure.full(real, synthetic, feature_pair.patients(200, 300)))
    halves = np.array([(figure.high - figure.low) / 2 for figure in figures])
    spread = np.std([figure.value for figure in figures])
    assert halves.mean() / 1.97 == pytest.approx(spread, rel=0.3)


def test_a_patient_in_both_sets_pulls_from_both_sides():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(300, 4))
    near = real + rng.normal(size=real.shape) * 0.05 + 0.3
    names = np.arange(300)
    paired = feature_pair.patients(300, 300, names, names)
    loose = feature_pair.patients(300, 300)
    for measure in (kernel.distance, frechet_figure.full):
        together, apart = measure(real, near, paired), measure(real, near, loose)
        assert together.high - together.low < 0.6 * (apart.high - apart.low)


def test_interval_of_a_squared_distance_reaches_farther_up_and_is_finite_at_zero():
    far = intervals.squared_distance("KID", 1.0, 0.0001, 0.04, 50, 100, 100)
    assert far.high - 1 > 1.3 * (1 - far.low)
    for value in (-0.01, 0.0, 1e-12):
        near = intervals.squared_distance("KID", value, 0.0001, 0.04, 50, 100, 100)
        assert near.low < 0 < near.high < 0.2
    # Its ends are the distances from which the estimate is a quantile away: t of 49 is 2.0096.
    for end in (far.low, far.high):
        assert abs(1 - end) == pytest.approx(2.0096 * (0.0001 + 0.04 * end) ** 0.5, rel=1e-4)
    assert intervals.squared_distance("KID", 0.0, 0.0, 0.0, 50, 100, 100).low is None


@pytest.mark.parametrize("slope", [0.0, 0.01, 1.0])
def test_interval_of_a_squared_distance_has_an_end_for_every_estimate(slope):
    """Far below 0, where an estimate of two sets of one distribution is now and then, too."""
    ends = []
    for value in np.linspace(-0.08, 0.08, 65):
        found = intervals.squared_distance("KID", value, 0.0001, slope, 50, 100, 100)
        assert found.low < value < found.high
        ends.append((found.low, found.high))
    for side in np.array(ends).T:
        assert (np.diff(side) > 0).all()


def test_paired_difference_is_that_of_the_distances_and_narrower():
    rng = np.random.default_rng(0)
    real, requests = rng.normal(size=(100, 4)), rng.normal(size=(120, 4))
    first, second = requests + 0.30, requests + 0.35
    names = [f"request {i}" for i in range(120)]
    codes, _ = feature_pair.number(
        ("real", 100, None), ("first", 120, names), ("second", 120, names)
    )
    found = kernel.difference(real, first, second, codes)
    of = feature_pair.patients(100, 120)
    apart = [kernel.distance(real, side, of) for side in (first, second)]
    assert found.value == pytest.approx(apart[0].value - apart[1].value, rel=1e-9)
    assert found.high < 0
    assert found.high - found.low < 0.5 * (apart[0].high - apart[0].low)


def test_floor_takes_halves_of_different_patients():
    codes = np.random.default_rng(0).integers(0, 30, 200)
    for seed in range(5):
        left, right = intervals.halves(codes, 80, seed)
        assert len(left) == len(right) == 80
        assert not set(codes[left]) & set(codes[right])
    with pytest.raises(DataError, match="floor of 120 images"):
        intervals.halves(codes, 120, 0)


def test_floor_of_an_unbiased_distance_is_about_zero_and_of_fd_is_not():
    real, _ = gaussians(400, 1)
    codes = np.arange(400) // 2
    floor = intervals.floor(kernel.distance, real, codes, 150, splits=10)
    assert floor.low < 0 < floor.high
    assert floor.n_real == floor.n_synthetic == 150
    assert intervals.floor(frechet_figure.full, real, codes, 150, splits=10).low > 0
    assert "so many" in intervals.floor(kernel.distance, real, codes, 250).reason


def test_infinite_distance_has_no_bias_where_the_plain_one_has():
    # |Δμ|² = 4 · .1² = .04; the bias of FD is more than that.
    of = feature_pair.patients(500, 600)
    plain, infinite, fixed = [], [], []
    for seed in range(20):
        real, synthetic = gaussians(500, 600, shift=0.1, seed=seed)
        plain.append(frechet_figure.full(real, synthetic, of).value)
        infinite.append(frechet_figure.infinite(real, synthetic, of, both=True).value)
        fixed.append(frechet_figure.infinite(real, synthetic, of))
    error = np.std(infinite) / 20**0.5
    assert abs(np.mean(infinite) - 0.04) < 3 * error
    assert np.mean(plain) - 0.04 > 3 * error
    assert {figure.name for figure in fixed} == {"FD∞"}


def test_constant_columns_do_not_break_figures_of_fd():
    real, synthetic = gaussians(400, 500, shift=0.3)
    real, synthetic = (
        np.pad(side, ((0, 0), (0, 2)), constant_values=1) for side in (real, synthetic)
    )
    of = feature_pair.patients(400, 500)
    plain = frechet_figure.full(real[:, :4], synthetic[:, :4], of)
    padded = frechet_figure.full(real, synthetic, of)
    assert (plain.value, plain.low) == pytest.approx((padded.value, padded.low), rel=1e-6)
    constant = np.ones((40, 3))
    figure = frechet_figure.full(constant, constant + 1, feature_pair.patients(40, 40))
    assert figure.value == pytest.approx(3)
    assert "counts the same" in figure.reason


def test_fd64_figure_is_the_distance_on_the_basis():
    rng = np.random.default_rng(0)
    real, synthetic = rng.normal(size=(400, 70)), rng.normal(size=(330, 70)) + 0.2
    moments = frechet.moments(real), frechet.moments(synthetic)
    fitted = basis.fit(moments[0].mean, moments[0].covariance, "abc", "phantoms")
    figure = frechet_figure.principal(real, synthetic, feature_pair.patients(400, 330), fitted)
    assert figure.value == frechet.principal(*moments, fitted)
    assert figure.low < figure.value < figure.high
    few = frechet_figure.principal(real[:300], synthetic, feature_pair.patients(300, 330), fitted)
    assert "FD64 needs 320" in few.reason
