"""Intervals of FD∞ and KID hold the true distance where it is known; PRDC has known values."""

import sys

import numpy as np
import pytest

from benchmarks import distance_coverage
from benchmarks.distance_coverage import PAIRS, Part, measure
from rfxray.evaluate import kernel

REPETITIONS = 24


@pytest.fixture(scope="module")
def alike():
    """Pairs of sets of one distribution with four films of each patient: the hardest case."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distance_coverage, "PART", REPETITIONS)
        patch.setattr(distance_coverage, "RESAMPLES", 30)
        return measure(Part("the same Gaussian", 4, 0, tried=True))["sums"]


@pytest.fixture(scope="module")
def apart():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distance_coverage, "PART", REPETITIONS)
        return measure(Part("mixtures of other shares", 1, 0, tried=False))["sums"]


@pytest.mark.parametrize("what", ["FD∞ of both", "FD∞ (to this reference)", "KID"])
def test_intervals_hold_the_true_distance(alike, apart, what):
    # 95% of 24 are 23; fewer than 20 have a chance of .6% if 95% are right.
    assert alike[what]["hits"] >= 20
    assert apart[what]["hits"] >= 20


def test_infinite_distance_has_no_bias_where_the_plain_one_has(alike):
    def bias(what):
        mean = alike[what]["sum"] / REPETITIONS
        error = np.sqrt((alike[what]["squares"] / REPETITIONS - mean**2) / REPETITIONS)
        return mean, 3 * error

    for what in ("FD∞ of both", "FD∞ (to this reference)", "KID"):
        mean, limit = bias(what)
        assert abs(mean) < limit
    mean, limit = bias("FD")
    assert mean > 5 * limit


def test_intervals_that_resample_or_ignore_patients_do_not_hold_it(alike):
    for what in ("FD, bootstrap over patients", "KID, bootstrap over patients"):
        assert alike[what]["hits"] < 6
    for what in ("FD∞ of both", "KID"):
        assert alike[f"{what}, patients ignored"]["sum"] > alike[what]["sum"]
        assert alike[f"{what}, patients ignored"]["hits"] < alike[what]["hits"]


def test_prdc_has_its_known_values():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distance_coverage, "PART", 6)
        sums = {
            name: measure(Part(name, 0, 0, tried=False))["sums"] for name in distance_coverage.PRDC
        }
    mean = {name: {k: v["sum"] / 6 for k, v in of.items()} for name, of in sums.items()}
    same, dropped, far = (mean[name] for name in distance_coverage.PRDC)
    for found in (same, dropped):  # errors of density and coverage
        assert abs(found["density"]) < 0.06
        assert abs(found["coverage"]) < 0.03
        assert found["precision"] > 0.9
    assert same["recall"] > 0.9
    assert dropped["recall"] == pytest.approx(0.8 * same["recall"], abs=0.03)
    assert all(value == 0 for value in far.values())


def test_the_true_kid_is_that_of_many_draws():
    rng = np.random.default_rng(0)
    left, right = PAIRS["mixtures of other shares"]
    x, y = left.draw(rng, 6000, 1), right.draw(rng, 6000, 1)
    pairs = ((x[:3000], x[3000:], 1), (y[:3000], y[3000:], 1), (x, y, -2))
    found = sum(weight * kernel.polynomial(a, b).mean() for a, b, weight in pairs)
    # .106 is its deviation for 800 rows each, .04 for 6,000.
    assert found == pytest.approx(distance_coverage.true_kid(left, right), abs=0.12)


def test_coverage_resumes_after_a_torn_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(distance_coverage, "PART", 2)
    planned = [Part("the same Gaussian", 1, 0, False), Part("far from all modes", 0, 0, False)]
    monkeypatch.setattr(distance_coverage, "parts", lambda *_: planned)
    monkeypatch.setattr(sys, "argv", ["distance_coverage", "--out", str(tmp_path)])
    distance_coverage.main()
    first = capsys.readouterr().out
    assert first.count("\n") == 2 + 4 + 4
    log = tmp_path / "parts.jsonl"
    whole = log.read_text()
    log.write_text(whole[:-30])
    distance_coverage.main()
    assert capsys.readouterr().out == first
    assert log.read_text() == whole
