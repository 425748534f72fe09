"""The evaluation part of a model card, from results of several actions."""

import json
from pathlib import Path

import pytest

from rfxray.commands import evaluate_card
from rfxray.errors import DataError
from rfxray.evaluate import model_card

STORED = Path(__file__).parents[3] / "benchmarks/results"


def test_card_has_the_figures_their_floors_and_how_they_were_measured(tmp_path, capsys):
    out = tmp_path / "new/CARD.md"
    evaluate_card.main([str(STORED / "nih_test.json"), "--out", str(out)])
    text = out.read_text()
    found = json.loads((STORED / "nih_test.json").read_text())
    row = next(r for r in found["figures"] if r["kind"] == "figure" and r["name"] == "KID")
    assert f"{row['value']:.3g} ({row['low']:.3g} to {row['high']:.3g})" in text
    assert found["command"] in text
    assert f"wrote {out}" in capsys.readouterr().out


def test_card_of_several_sets_of_samples_says_so():
    runs = [model_card.read(STORED / f"{name}.json") for name in ("phantoms", "nih_model")]
    assert "are of one set of samples" in model_card.markdown(runs[:1])
    both = model_card.markdown(runs)
    assert "are of 2 sets of samples" in both
    for found in runs:
        (label,) = found["sets"].keys() - {"real", "train"}
        assert found["sets"][label]["fingerprint"][:12] in both


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"kind": "rfxray.evaluate.merge"}', "{}", "[" * 100_000]
)
def test_what_holds_no_results_is_refused(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(DataError, match="holds no results of rfxray evaluate fidelity, control"):
        model_card.read(tmp_path)


@pytest.mark.parametrize("key", ["command", "written_by", "sets", "figures", "extractors"])
def test_results_that_lack_what_a_card_needs_are_refused(tmp_path, key):
    found = json.loads((STORED / "nih_test.json").read_text())
    (tmp_path / "results.json").write_text(json.dumps({k: found[k] for k in found if k != key}))
    with pytest.raises(DataError, match="holds no results"):
        model_card.read(tmp_path)


def test_results_that_are_not_there_are_named(tmp_path):
    with pytest.raises(DataError, match=r"No such file or directory\); give the --out of one"):
        model_card.read(tmp_path)


def test_folder_as_the_file_of_a_card_is_refused(tmp_path, refusal):
    code, line = refusal(evaluate_card.main, [STORED / "nih_test.json", "--out", tmp_path])
    assert code == 78
    assert "is a folder; give the name of a file" in line
