"""docs/results.md says what the stored results say, and marks what is older than its code."""

import json

import pytest

from benchmarks import results
from rfxray import version
from rfxray.errors import ConfigError, DataError

ROW = {
    "synthetic": "samples",
    "extractor": "efficientnet_lite0",
    "protocol": "corrected",
    "part": "",
    "name": "KID",
    "n_real": 1000,
    "n_synthetic": 50,
}


def found(code: str = "now", **changes) -> dict:
    figures = [
        {**ROW, "kind": "figure", "value": 0.25, "low": 0.2, "high": 0.3},
        {**ROW, "kind": "real floor", "value": 0.0125, "low": -0.1, "high": 0.1},
        {**ROW, "kind": "figure", "name": "FD", "value": None, "low": None, "high": None},
        {**ROW, "kind": "curve", "value": 0.4, "low": 0.2, "high": 0.6},
    ]
    how = {"command": "rfxray evaluate fidelity", "device": "2 × cpu", "seconds": {"figures": 2.5}}
    return {**how, "written_by": {"commit": "abc"}, "code": code, "figures": figures, **changes}


PAGE = "before\n<!-- table one -->\nold\n<!-- end -->\nafter\n"


def test_page_has_the_figures_of_the_stored_results():
    page = results.PAGE.read_text(encoding="utf-8")
    assert results.filled(page, results.stored(), results.code()) == page


def test_figure_stands_beside_its_floors_and_what_is_not_estimable_is_left_out():
    page = results.filled(PAGE, {"one": found()}, "now")
    row = "| samples | efficientnet_lite0 | KID | 1,000 × 50 | 0.25 | 0.2 to 0.3 | 0.0125 | – |"
    assert row in page.splitlines()
    assert page.count("| KID |") == 1
    assert "| FD |" not in page
    assert page.startswith("before")
    assert page.endswith("after\n")
    assert "old" not in page
    assert results.filled(page, {"one": found()}, "now") == page


def test_result_older_than_its_code_is_stale():
    assert "Stale" not in results.filled(PAGE, {"one": found("now")}, "now")
    assert "Stale" in results.filled(PAGE, {"one": found("earlier")}, "now")


def test_table_without_results_and_results_without_a_table_are_refused():
    with pytest.raises(DataError, match="one"):
        results.filled(PAGE, {}, "now")
    with pytest.raises(DataError, match="two"):
        results.filled(PAGE, {"one": found(), "two": found()}, "now")


def test_only_results_of_this_commit_are_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path / "stored")
    (tmp_path / "stored").mkdir()
    file = tmp_path / "results.json"
    file.write_text(json.dumps(found()))
    with pytest.raises(ConfigError, match="commit abc"):
        results.add("one", file)
    file.write_text(json.dumps(found(written_by={"commit": version.commit()})))
    results.add("one", file)
    (stored,) = results.stored().values()
    assert stored["code"] == results.code()
    assert "curve" not in {row["kind"] for row in stored["figures"]}
    file.write_text("[]")
    with pytest.raises(DataError, match="no results"):
        results.add("one", file)
