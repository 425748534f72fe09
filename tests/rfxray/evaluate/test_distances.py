"""Distances of features agree with torch-fidelity, prdc and plain twins; odd sets are refused."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfxray.errors import DataError
from rfxray.evaluate import basis, energy, feature_pair, frechet, kernel, manifold, two_sample
from rfxray.evaluate.figure import Figure
from tests.peers import import_peer


def unclustered(real, synthetic):
    return feature_pair.patients(len(real), len(synthetic))


@st.composite
def pairs(draw, least=12, ties=False, dtypes=(np.float64, np.float32)):
    """Two sets of one width; with ties, of small whole numbers, with copies within and between."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    width = draw(st.integers(1, 12))
    n, m = draw(st.integers(least, 60)), draw(st.integers(least, 60))
    if ties:
        real, synthetic = rng.integers(-2, 3, (n, width)), rng.integers(-2, 3, (m, width))
        synthetic[: m // 4] = real[rng.integers(0, n, m // 4)]
        real[: n // 4] = real[n // 2]
    else:
        real = rng.normal(size=(n, width)) + draw(st.floats(-5, 5))
        synthetic = rng.normal(size=(m, width)) * draw(st.floats(0.2, 3))
    dtype = draw(st.sampled_from(dtypes))
    return real.astype(dtype), synthetic.astype(dtype)


# ---------------------------------------------------------------------------------------------
# Fréchet distance


@given(pairs(least=24))
def test_frechet_distance_agrees_with_torch_fidelity(sets):
    metric_fid = import_peer("torch_fidelity.metric_fid")
    import torch

    found = frechet.distance(*(frechet.moments(side) for side in sets))
    # In float64: torch-fidelity keeps a mean of float32 features in float32.
    theirs = [metric_fid.fid_features_to_statistics(torch.tensor(s.astype(float))) for s in sets]
    if sets[0].shape[1] > 1:  # its covariance of one column has no dimensions
        expected = metric_fid.fid_statistics_to_metric(*theirs, verbose=False)
        assert found == pytest.approx(expected["frechet_inception_distance"], rel=1e-6, abs=1e-9)


@given(pairs(least=24), st.integers(1, 30))
def test_moments_of_parts_merge_to_those_of_all(sets, cut):
    whole = frechet.moments(sets[0])
    cut = min(cut, len(sets[0]) - 1)
    merged = frechet.moments(sets[0][:cut]).merge(frechet.moments(sets[0][cut:]))
    values = sets[0].astype(float)
    np.testing.assert_allclose(merged.mean, values.mean(0), rtol=1e-12, atol=1e-12)
    expected = np.cov(values, rowvar=False).reshape(whole.covariance.shape)
    np.testing.assert_allclose(merged.covariance, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(whole.covariance, expected, rtol=1e-9, atol=1e-12)


def test_frechet_distance_of_gaussians_is_analytic():
    # Diagonal covariances: |Δμ|² + Σ(σ₁ − σ₂)².
    found = frechet.of_gaussians(
        np.array([1.0, 0]), np.diag([4.0, 1]), np.zeros(2), np.diag([1.0, 9])
    )
    assert found == pytest.approx(1 + (2 - 1) ** 2 + (1 - 3) ** 2, rel=1e-12)


def test_frechet_distance_of_constant_features_is_that_of_their_means():
    real, synthetic = np.zeros((8, 3)), np.full((9, 3), 2.0)
    found = frechet.distance(frechet.moments(real), frechet.moments(synthetic))
    assert found == pytest.approx(12, rel=1e-12)


def test_frechet_distance_refuses_few_images_and_names_what_works():
    few = frechet.moments(np.random.default_rng(0).normal(size=(199, 100)))
    with pytest.raises(DataError, match=r"needs 200 images .*got 199.*FD64.*320.*KID"):
        frechet.distance(few, few)


def test_fd64_is_the_distance_of_projected_features(tmp_path):
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(80, 80))
    real, synthetic = rng.normal(size=(400, 80)) @ mix, rng.normal(size=(350, 80)) @ mix + 0.3
    moments = frechet.moments(real), frechet.moments(synthetic)
    fitted = basis.fit(moments[0].mean, moments[0].covariance, "abc", "phantoms")
    found = frechet.principal(*moments, fitted)
    projected = [
        frechet.moments((side - fitted.mean) @ fitted.components) for side in (real, synthetic)
    ]
    assert found == pytest.approx(frechet.distance(*projected), rel=1e-9)
    fitted.save(tmp_path / "basis.npz")
    again = basis.load(tmp_path / "basis.npz")
    assert again.hash == fitted.hash
    assert frechet.principal(*moments, again) == found
    other = basis.fit(moments[0].mean, moments[0].covariance, "abd", "phantoms")
    assert other.hash != fitted.hash
    few = frechet.moments(real[:319])
    with pytest.raises(DataError, match=r"FD64 needs 320 .*got 319.*KID"):
        frechet.principal(few, moments[1], fitted)
    with pytest.raises(DataError, match="for 80 columns, not 2"):
        frechet.principal(*(frechet.moments(side[:, :2]) for side in (real, synthetic)), fitted)
    (tmp_path / "torn.npz").write_bytes((tmp_path / "basis.npz").read_bytes()[:900])
    with pytest.raises(DataError, match="fit it again"):
        basis.load(tmp_path / "torn.npz")


# ---------------------------------------------------------------------------------------------
# KID and energy distance


@given(pairs(), st.booleans())
def test_kid_agrees_with_torch_fidelity(sets, copies):
    metric_kid = import_peer("torch_fidelity.metric_kid")
    real, synthetic = (side[: min(map(len, sets))].astype(float) for side in sets)
    if copies:
        synthetic[:5] = real[:5]
    expected = metric_kid.kernel_mmd(
        real,
        synthetic,
        kid_kernel="poly",
        kid_kernel_poly_degree=3,
        kid_kernel_poly_gamma=None,
        kid_kernel_poly_coef0=1,
    )
    found = kernel.distance(real, synthetic, unclustered(real, synthetic))
    scale = np.abs(kernel.polynomial(real, synthetic)).mean()
    assert found.value == pytest.approx(expected, rel=1e-6, abs=1e-12 * scale)


def plain(kernel_of, real, synthetic, patients):
    """Mean over pairs of different patients, pair by pair."""

    def mean(left, right, left_patients, right_patients):
        values = [
            kernel_of(a, b)
            for a, p in zip(left, left_patients, strict=True)
            for b, q in zip(right, right_patients, strict=True)
            if p != q
        ]
        return np.mean(values)

    x, y = patients.real, patients.synthetic
    within = mean(real, real, x, x) + mean(synthetic, synthetic, y, y)
    return within - 2 * mean(real, synthetic, x, y)


KERNELS = {
    "KID": (kernel.distance, lambda a, b: (a @ b / len(a) + 1) ** 3),
    "energy distance": (energy.distance, lambda a, b: -np.linalg.norm(a - b)),
}


@pytest.mark.parametrize("name", KERNELS)
@given(sets=pairs(), seed=st.integers(0, 100), shared=st.booleans(), block=st.integers(1, 50))
def test_distance_of_clustered_sets_agrees_with_a_plain_twin(name, sets, seed, shared, block):
    distance, kernel_of = KERNELS[name]
    real, synthetic = sets
    rng = np.random.default_rng(seed)
    names = rng.integers(0, 8, len(real)), rng.integers(0 if shared else 100, 120, len(synthetic))
    patients = feature_pair.patients(len(real), len(synthetic), *names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(two_sample, "BLOCK", block)
        found = distance(real, synthetic, patients)
    expected = plain(kernel_of, real.astype(float), synthetic.astype(float), patients)
    assert found.value == pytest.approx(expected, rel=1e-6, abs=1e-7)


@given(sets=pairs(least=36), seed=st.integers(0, 100), block=st.integers(1, 50))
def test_interval_does_not_depend_on_blocks_or_the_order_of_rows(sets, seed, block):
    real, synthetic = (side.astype(float) for side in sets)
    rng = np.random.default_rng(seed)
    names = np.arange(len(real)) // 3 * 7, np.arange(len(synthetic))
    one = kernel.distance(
        real, synthetic, feature_pair.patients(len(real), len(synthetic), names[0])
    )
    order = rng.permutation(len(real))
    mixed = feature_pair.patients(len(real), len(synthetic), names[0][order], names[1] + 1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(two_sample, "BLOCK", block)
        two = kernel.distance(real[order], synthetic, mixed)
    assert (one.value, one.low, one.high) == pytest.approx((two.value, two.low, two.high), rel=1e-6)


# ---------------------------------------------------------------------------------------------
# PRDC and AuthPct


@given(pairs(), st.integers(1, 6), st.integers(3, 40))
def test_prdc_agrees_with_the_prdc_package(sets, neighbours, block):
    check_prdc(sets, neighbours, block)


@given(pairs(ties=True), st.integers(1, 6), st.integers(3, 40))
def test_prdc_of_ties_and_copies_agrees_with_the_prdc_package(sets, neighbours, block):
    # Small whole numbers: every sum is exact, so both see the same ties.
    check_prdc(sets, neighbours, block)


def check_prdc(sets, neighbours, block):
    prdc = import_peer("prdc")
    with contextlib.redirect_stdout(io.StringIO()):
        expected = prdc.compute_prdc(*(side.astype(float) for side in sets), neighbours)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifold, "BLOCK", block)
        found = manifold.prdc(*sets, neighbours)
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-6), name


@given(pairs())
def test_precision_and_recall_agree_with_torch_fidelity(sets):
    # It has k = 3 and counts the surface of a ball as inside; without ties that is the same.
    metric_prc = import_peer("torch_fidelity.metric_prc")
    import torch

    real, synthetic = (torch.tensor(side.astype(float)) for side in sets)
    expected = metric_prc.prc_features_to_metric(
        synthetic, real, prc_neighborhood=3, prc_batch_size=1000, save_cpu_ram=False, verbose=False
    )
    found = manifold.prdc(*sets, 3)
    assert found.precision == pytest.approx(expected["precision"], rel=1e-6)
    assert found.recall == pytest.approx(expected["recall"], rel=1e-6)


def test_a_copy_of_the_kth_neighbour_is_outside_of_the_ball():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(40, 30)) * 10
    found = manifold.prdc(real, real.copy(), 1)
    # Each synthetic row is its real row's copy; the ball of another row reaches it only if nearer
    # than that row's first neighbour, which it is not.
    np.testing.assert_array_equal(found.balls, 1)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)


@given(pairs(least=8), st.booleans(), st.integers(3, 40))
def test_authenticity_agrees_with_a_plain_twin(sets, copies, block):
    training, synthetic = (side.astype(float) for side in sets)
    if copies:
        synthetic[:4] = training[:4]
    between = np.linalg.norm(training[:, None] - synthetic, axis=2)
    own = np.linalg.norm(training[:, None] - training, axis=2)
    np.fill_diagonal(own, np.inf)
    expected = own.min(0)[between.argmin(0)] < between.min(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifold, "BLOCK", block)
        np.testing.assert_array_equal(manifold.authentic(training, synthetic), expected)
    if copies:
        assert not expected[:4].any()


# ---------------------------------------------------------------------------------------------
# What is refused, and what is not estimable


def test_features_that_are_not_finite_are_refused_with_their_row():
    good = np.random.default_rng(0).normal(size=(20, 3))
    bad = good.copy()
    bad[7, 1] = np.nan
    for measure in (kernel.distance, energy.distance):
        with pytest.raises(DataError, match="synthetic features are not finite in row 7"):
            measure(good, bad, unclustered(good, bad))
    with pytest.raises(DataError, match="real features are not finite in row 7"):
        manifold.prdc(bad, good)
    with pytest.raises(DataError, match="row 7"):
        frechet.moments(bad)
    with pytest.raises(DataError, match="3 columns and synthetic ones 2"):
        manifold.authentic(good, good[:, :2])


@pytest.mark.parametrize("measure", [kernel.distance, energy.distance])
def test_sets_too_small_for_an_estimate_have_a_reason(measure):
    rng = np.random.default_rng(0)
    real, synthetic = rng.normal(size=(30, 3)), rng.normal(size=(1, 3))
    found = measure(real, synthetic, unclustered(real, synthetic))
    assert found.value is None
    assert "synthetic set has a single patient" in found.reason
    found = measure(real, real[:9], unclustered(real, real[:9]))
    assert found.value is not None
    assert found.low is None
    assert "needs 10 patients" in found.reason
    constant = np.ones((30, 3))
    found = measure(constant, constant, unclustered(constant, constant))
    assert found.value == 0
    assert found.low is None
    assert "counts the same" in found.reason


def test_figure_refuses_what_is_not_finite_and_intervals_without_width():
    with pytest.raises(DataError, match="not finite"):
        Figure("KID", float("nan"), None, None, 1, 1, "why")
    with pytest.raises(DataError, match="no width"):
        Figure("KID", 1.0, 1.0, 1.0, 1, 1)
    with pytest.raises(DataError, match="reason"):
        Figure("KID", 1.0, None, None, 1, 1)


def test_patients_that_are_not_as_many_as_rows_are_refused():
    with pytest.raises(DataError, match="2 patients for 3 real rows"):
        feature_pair.patients(3, 3, ["a", "b"])
