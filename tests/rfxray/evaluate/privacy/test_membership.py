"""Membership, re-identification and the gate, against what is known of their numbers."""

import json

import numpy as np
import pytest
from scipy import stats

from rfxray.errors import ConfigError
from rfxray.evaluate.privacy import gate, membership, reidentification


def sides(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(n), np.arange(n, n + m)


def test_area_and_rate_are_those_of_two_normal_laws():
    """Losses shifted by one deviation: AUC Φ(1/√2), and Φ(z₀.₀₁ + 1) true at 1% false positives."""
    generator = np.random.default_rng(0)
    members, others = generator.normal(-1, 1, 4000), generator.normal(0, 1, 4000)
    found = membership.judge(members, others, *sides(4000, 4000))
    assert found.area.value == pytest.approx(stats.norm.cdf(2**-0.5), abs=0.012)
    assert found.area.low < stats.norm.cdf(2**-0.5) < found.area.high
    truth = stats.norm.cdf(stats.norm.ppf(0.01) + 1)
    assert found.rate.value == pytest.approx(truth, abs=0.02)
    assert found.rate.low < found.rate.value < found.rate.high < found.rate.low + 0.06


def test_losses_of_one_law_are_at_chance():
    generator = np.random.default_rng(1)
    found = membership.judge(*generator.normal(size=(2, 1600)), *sides(1600, 1600))
    assert found.area.low < 0.5 < found.area.high
    assert found.area.high - found.area.low < 0.05
    assert found.rate.low <= 0.01 <= found.rate.high


def test_several_images_of_a_patient_widen_the_interval():
    generator = np.random.default_rng(2)
    base = generator.normal(size=(2, 100, 1))
    losses = (base + 0.1 * generator.normal(size=(2, 100, 8))).reshape(2, 800)
    patients = np.repeat(np.arange(200), 8).reshape(2, 800)
    clustered = membership.judge(*losses, *patients).area
    independent = membership.judge(*losses, *sides(800, 800)).area
    assert clustered.value == independent.value
    assert clustered.high - clustered.low > 2 * (independent.high - independent.low)


def test_too_few_patients_have_no_figure():
    found = membership.judge(np.arange(30.0), np.arange(30.0), np.zeros(30, int), np.arange(1, 31))
    assert found.area.value is found.rate.value is None
    assert "needs 20 patients" in found.area.reason


def test_patients_are_known_again_by_their_features_or_not():
    generator = np.random.default_rng(3)
    patients = np.repeat(np.arange(200), 2)
    own = generator.normal(size=(200, 8))[patients]
    noise = generator.normal(size=(400, 8))
    alike = reidentification.judge((own + 0.3 * noise).astype(np.float32), patients, 0)
    unlike = reidentification.judge(noise.astype(np.float32), patients, 0)
    assert alike.value > 0.95
    assert unlike.low < 0.5 < unlike.high
    assert "several images (got 0)" in reidentification.judge(noise, np.arange(400), 0).reason


LIMITS = gate.limits(gate.DEFAULT)


def test_gate_names_what_is_not_kept_and_what_was_not_measured():
    measured = {
        "samples": 1000.0,
        "held_out": 99.0,
        "near_copies": 0.02,
        "membership_auc": 0.6,
        "membership_tpr": None,
    }
    checks = gate.checks(LIMITS, measured)
    assert [check.passed for check in checks] == [True, False, True, False, None]
    assert gate.reason(checks) == "held_out 99 (at least 100); membership_auc 0.6 (at most 0.55)"
    assert gate.reason(checks[:1]) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not a gate"),
        ("[]", "is not a gate .it is a list"),
        ("[" * 100_000, "is not a gate"),
        (json.dumps({**LIMITS, "copies": 1}), "unknown limits copies"),
        (json.dumps({"samples": 1}), "missing limits held_out, membership_auc"),
        (json.dumps({**LIMITS, "near_copies": -1}), "near_copies must be a number"),
        (json.dumps({**LIMITS, "near_copies": True}), "near_copies must be a number"),
        (json.dumps({**LIMITS, "near_copies": "0.1"}), "near_copies must be a number"),
        (json.dumps(LIMITS).replace("0.02", "NaN"), "near_copies must be a number"),
        (json.dumps({**LIMITS, "near_copies": 2}), "near_copies must be a number from 0 to 1 "),
        (json.dumps({**LIMITS, "samples": 10**400}), "samples must be a number from 0 to"),
        (json.dumps(LIMITS)[:-1] + ', "samples": 2}', "twice"),
    ],
)
def test_gate_that_is_none_is_refused(tmp_path, text, said):
    file = tmp_path / "gate.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        gate.limits(file)


def test_gate_of_an_editor_that_marks_utf8_is_read(tmp_path):
    file = tmp_path / "gate.json"
    file.write_text(json.dumps(LIMITS), encoding="utf-8-sig")
    assert gate.limits(file) == LIMITS
