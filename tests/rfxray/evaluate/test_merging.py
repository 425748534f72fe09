"""`rfxray evaluate merge`: several runs in one table."""

import copy
import json

import pytest

from rfxray.commands import evaluate
from rfxray.evaluate import merging

FIGURE = {
    "synthetic": "samples",
    "extractor": "small",
    "protocol": "corrected",
    "kind": "figure",
    "part": "",
    "name": "KID",
    "value": 0.5,
    "low": 0.4,
    "high": 0.6,
    "n_real": 700,
    "n_synthetic": 600,
    "reason": None,
}
RUN = {
    "kind": "rfxray.evaluate.fidelity",
    "command": "rfxray evaluate fidelity --real data",
    "written_by": {"rfxray": "0", "commit": "abc"},
    "device": "1 × cpu",
    "seed": 0,
    "seconds": {"features": 1.0},
    "sets": {"real": {"name": "data:test", "fingerprint": "f" * 64}, "samples": {}},
    "extractors": {"small": {"hash": "a" * 64, "resize_path": "padded", "basis": None}},
    "published": {},
    "figures": [FIGURE, {**FIGURE, "kind": "real floor", "value": 0.01, "low": 0.0, "high": 0.02}],
}


def changed(**extractor):
    other = copy.deepcopy(RUN)
    other["extractors"]["small"].update(extractor)
    return other


def written(path, run):
    path.mkdir()
    (path / "results.json").write_text(json.dumps(run))
    return path


def test_runs_by_one_extractor_share_a_table_with_their_floors():
    (table,) = merging.merged({"a": RUN, "b": RUN})
    assert [(row["run"], row["set"]) for row in table["rows"]] == [
        ("a", "samples"),
        ("b", "samples"),
    ]
    assert table["measures"] == ["KID"]
    assert table["rows"][0]["figures"]["KID"].keys() == {"figure", "real floor"}


@pytest.mark.parametrize("other", [{"hash": "b" * 64}, {"resize_path": "cropped"}])
def test_other_weights_or_another_resize_path_never_share_a_column(other):
    assert len(merging.merged({"a": RUN, "b": changed(**other)})) == 2


def test_other_bases_never_share_a_column():
    runs = {}
    for name, content in (("a", "1" * 64), ("b", "2" * 64)):
        run = changed(basis={"hash": content, "fitted_on": "x"})
        run["figures"] = [{**FIGURE, "name": "FD64"}]
        runs[name] = run
    (table,) = merging.merged(runs)
    assert table["measures"] == [f"FD64, basis {'1' * 12}", f"FD64, basis {'2' * 12}"]


def test_command_writes_page_table_and_numbers(tmp_path, capsys):
    folders = [written(tmp_path / name, RUN) for name in "ab"]
    words = ["merge", *map(str, folders), "--out", str(tmp_path / "both")]
    evaluate.main(words)
    assert capsys.readouterr().out.splitlines() == [f"wrote {tmp_path / 'both' / 'report.html'}"]
    table = (tmp_path / "both/table.md").read_text()
    assert "| a, samples | data:test (ffffffff) | 0.5 (0.4 to 0.6), N 700 × 600 |" in table
    assert "| real floor | data:test (ffffffff) | 0.01 (0 to 0.02), N 700 × 600 |" in table
    page = (tmp_path / "both/report.html").read_text()
    assert "a, samples" in page
    assert str(tmp_path) not in page
    found = json.loads((tmp_path / "both/results.json").read_text())
    assert found["runs"]["b"]["command"] == RUN["command"]
    evaluate.main(words)  # the same folder again


@pytest.mark.parametrize("content", ["{", '{"kind": "other"}', "[]", "3"])
def test_results_of_something_else_are_refused(refusal, tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    code, line = refusal(evaluate.main, ["merge", tmp_path, "--out", tmp_path / "o"])
    assert code == 65
    assert "holds no results of rfxray evaluate fidelity" in line


def places(of, at=()):
    """Every place in nested mappings and lists."""
    pairs = of.items() if isinstance(of, dict) else enumerate(of) if isinstance(of, list) else ()
    for key, value in pairs:
        yield (*at, key)
        yield from places(value, (*at, key))


@pytest.mark.parametrize("damage", ["gone", None, float("nan"), "text", []])
def test_results_that_lack_anything_are_merged_or_refused_in_one_line(tmp_path, capsys, damage):
    refused = 0
    run = tmp_path / "run"
    run.mkdir()
    for place in places(RUN):
        found = copy.deepcopy(RUN)
        of = found
        for key in place[:-1]:
            of = of[key]
        of.pop(place[-1]) if damage == "gone" else of.__setitem__(place[-1], damage)
        (run / "results.json").write_text(json.dumps(found))
        words = ["merge", str(run), "--out", str(tmp_path / "o")]
        code = 0
        try:
            evaluate.main(words)
        except SystemExit as end:
            code = end.code
        lines = capsys.readouterr().err.strip().splitlines()
        assert (code, len(lines)) in ((0, 0), (65, 1))
        assert all(str(run / "results.json") in line or "no figures" in line for line in lines)
        refused += len(lines)
    assert refused > 10


def test_same_results_twice_are_refused(refusal, tmp_path):
    run = written(tmp_path / "run", RUN)
    words = ["merge", run, run / "results.json", "--out", tmp_path / "o"]
    code, line = refusal(evaluate.main, words)
    assert code == 78
    assert "is given twice" in line
    assert not (tmp_path / "o").exists()


def test_bar_in_the_name_of_a_set_is_not_the_end_of_its_cell():
    run = copy.deepcopy(RUN)
    run["figures"][0]["synthetic"] = "a|b"
    text = merging.markdown(merging.merged({"run": run}))
    assert r"| run, a\|b |" in text
