"""Intervals of paired differences hold the true difference, and are narrower than unpaired ones."""

import pytest

from benchmarks import difference_coverage
from benchmarks.difference_coverage import MODELS, Part, measure, truth

REPETITIONS = 12


@pytest.fixture(scope="module")
def nearer():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(difference_coverage, "PART", REPETITIONS)
        return measure(Part("the first nearer", 4, 0))["sums"]


@pytest.mark.parametrize("what", ["KID difference", "FD difference"])
def test_intervals_hold_the_true_difference(nearer, what):
    # 95% of 12 are 11; fewer than 9 have a chance of .2% if 95% are right.
    assert nearer[what]["hits"] >= 9
    assert nearer[what]["width"] < 0.95 * nearer[f"{what}, requests ignored"]["width"]
    ignored = nearer[f"{what}, requests ignored"]
    assert nearer[what]["sum"] == pytest.approx(ignored["sum"], rel=1e-6)


@pytest.mark.parametrize("what", ["KID difference", "FD difference"])
def test_models_of_one_distribution_do_not_differ(what):
    found = [truth(name, what) for name in MODELS]
    assert found[0] == found[1] == 0
    assert found[2] < 0


def test_coverage_of_differences_resumes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(difference_coverage, "PART", 1)
    monkeypatch.setattr(difference_coverage, "N", 40)
    words = ["--out", str(tmp_path), "--repetitions", "1"]
    difference_coverage.main(words)
    first = capsys.readouterr().out
    assert first.count("\n") == 2 + 6 * 4
    log = (tmp_path / "parts.jsonl").read_text()
    (tmp_path / "parts.jsonl").write_text(log[:-30])
    difference_coverage.main(words)
    assert capsys.readouterr().out == first
    assert (tmp_path / "parts.jsonl").read_text() == log
