"""Every measure of any two sets: a finite interval around the value, or the reason why not."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rfxray.evaluate import basis, feature_pair, manifold, measures

WIDTH = 3


@st.composite
def sides(draw, least=1, most=24):
    """Features of few values, so with copies and ties, and a patient of each row."""
    count = draw(st.integers(least, most))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    kind = draw(st.sampled_from(["constant", "copies", "ties", "any"]))
    values = {
        "constant": np.full((count, WIDTH), draw(st.sampled_from([0.0, 1.0, 1e3]))),
        "copies": rng.normal(size=(2, WIDTH))[rng.integers(0, 2, count)],
        "ties": rng.integers(0, 3, (count, WIDTH)),
        "any": draw(st.sampled_from([1e-3, 1.0])) * rng.normal(size=(count, WIDTH)),
    }[kind]
    patients = draw(st.integers(1, count))
    names = [f"p{number % patients}" for number in range(count)]
    return values.astype(np.float32), draw(st.sampled_from([None, names]))


def check(figure):
    if figure.value is None:
        assert figure.reason
        assert figure.low is figure.high is None
        return
    assert np.isfinite(figure.value)
    if figure.low is None:
        assert figure.reason
        return
    assert figure.low <= figure.value <= figure.high
    assert figure.high - figure.low > 1e-7 * abs(figure.value)


def constant(count, value=0.0):
    return np.full((count, WIDTH), value, np.float32), None


@given(sides(), sides(), st.booleans())
@example(constant(24), constant(24, 1.0), False)
@example(constant(24), constant(24), False)
@example(constant(1), constant(24), False)
def test_every_measure_has_an_interval_or_a_reason(real, synthetic, shared):
    names = [
        None if names is None else [f"{shared * side} {n}" for n in names]
        for side, names in enumerate((real[1], synthetic[1]))
    ]
    of = feature_pair.patients(len(real[0]), len(synthetic[0]), *names)
    for figure in measures.measured(real[0], synthetic[0], of, None, 0, None):
        check(figure)
        assert (figure.n_real, figure.n_synthetic) == (len(real[0]), len(synthetic[0]))
    check(manifold.authenticity(real[0], synthetic[0], of))


@given(sides(), sides(), sides(), st.booleans())
@example(constant(24), constant(24, 1.0), constant(24, 1.0), False)
@example(constant(24), constant(24), constant(24, 2.0), True)
def test_every_difference_has_an_interval_or_a_reason(real, first, second, paired):
    requests = [f"r{i}" for i in range(24)] if paired else None
    codes, _ = feature_pair.number(
        ("real", len(real[0]), real[1]),
        ("first", len(first[0]), requests and requests[: len(first[0])]),
        ("second", len(second[0]), requests and requests[: len(second[0])]),
    )
    of = codes[0], codes[1], codes[2]
    for figure in measures.differences(real[0], first[0], second[0], of, None):
        check(figure)


@given(sides(least=2), st.integers(1, 30))
@example(constant(24), 30)
def test_every_floor_has_an_interval_or_a_reason(real, most):
    codes = feature_pair.patients(len(real[0]), 0, real[1], []).real
    for figure in measures.floors(real[0], real[0], codes, most, None, 0):
        check(figure)
    check(measures.part_floor(real[0], real[0], codes, most, 0))


def test_difference_of_fd64_is_that_of_the_distances_and_narrower_for_pairs():
    rng = np.random.default_rng(0)
    real, common = rng.normal(size=(400, 70)), rng.normal(size=(340, 70))
    first = common + 0.1 * rng.normal(size=common.shape) + 0.1
    second = common + 0.1 * rng.normal(size=common.shape) + 0.2
    of = basis.fit(real.mean(0), np.cov(real.T), "a", "reals")
    names = [f"r{i}" for i in range(340)]
    found = []
    for requests in (names, None):
        codes, _ = feature_pair.number(
            ("real", 400, None), ("first", 340, requests), ("second", 340, requests)
        )
        figures = measures.differences(real, first, second, (codes[0], codes[1], codes[2]), of)
        found.append({figure.name: figure for figure in figures})
    apart = [
        measures.principal(real, side, feature_pair.patients(400, 340), of).value
        for side in (first, second)
    ]
    for name in ("FD64 difference", "FD difference"):
        paired, loose = (of[name] for of in found)
        assert paired.value == loose.value
        assert paired.high < 0
        assert paired.high - paired.low < 0.7 * (loose.high - loose.low)
    assert found[0]["FD64 difference"].value == pytest.approx(apart[0] - apart[1], rel=1e-9)


def test_difference_of_fd_needs_as_many_samples_of_both():
    rng = np.random.default_rng(0)
    codes = np.arange(50), np.arange(50, 100), np.arange(100, 140)
    sets = (rng.normal(size=(len(of), WIDTH)) for of in codes)
    kid, _, fd = measures.differences(*sets, codes, None)
    assert kid.value is not None
    assert fd.value is None
    assert "50 and 40 samples; give as many of each" in fd.reason
