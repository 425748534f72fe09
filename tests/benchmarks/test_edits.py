"""The stored results of edits and of stress tests come from the code that they name."""

import argparse
import dataclasses

import pytest

from benchmarks import editing, results, stress
from rfxray import sampling
from rfxray.evaluate import classifier


def test_digests_know_the_code_of_edits():
    found = {name: results.code({name: None}) for name in results.OTHERS}
    assert len(set(found.values())) == len(found)
    for places in results.OTHERS.values():
        assert all((results.ROOT / place).exists() for place in places)


def test_half_of_the_classifiers_are_built_to_lean_in_either_direction():
    kinds = stress.kinds()
    assert len(kinds) == 100
    assert sum(men == 0.5 for _, men in kinds) == 50
    assert {men > 0.5 for _, men in kinds if men != 0.5} == {True, False}


@pytest.mark.drill
def test_edits_with_effects_that_follow_run_at_toy_size(monkeypatch):
    stored = results.stored()["propagated"]
    monkeypatch.setattr(editing, "FITTED", 3000)
    short = dataclasses.replace(editing.SETTINGS, steps=2, corrections=1)
    monkeypatch.setattr(editing, "SETTINGS", short)
    toy = editing.propagated(sampling.load(), classifier.load(), 4)
    assert toy.keys() == stored.keys() - {"code"}
    for name, rows in stored["propagated"].items():
        assert toy["propagated"][name].keys() == rows.keys()
        assert toy["propagated"][name]["as in truth"]["wrong"] == 0
    assert "| age | flow |" in editing.table_of_propagated(toy)


@pytest.mark.drill
def test_classifiers_are_judged_on_twins_at_toy_size_and_resumed(tmp_path, monkeypatch):
    for name, value in (("POOL", 512), ("ROWS", 128), ("STEPS", 3), ("EACH", 1), ("TOGETHER", 3)):
        monkeypatch.setattr(stress, name, value)
    monkeypatch.setattr(stress, "FINDINGS", ("cardiomegaly", "pneumonia"))
    monkeypatch.setattr(stress, "SETTINGS", dataclasses.replace(stress.SETTINGS, steps=2))
    flags = argparse.Namespace(checkpoint=None, n=12, out=tmp_path)
    found = stress.measured(flags)
    assert len(found["classifiers"]) == 4
    assert found["unequal"] == {"model": 0, "truth": 0}
    assert {file.name for file in tmp_path.glob("*.npz")} == {"answers-000.npz", "answers-003.npz"}
    monkeypatch.setattr(stress, "trained", None)  # all is there
    again = stress.measured(flags)
    assert again["classifiers"] == found["classifiers"]
    assert "| of the model |" in stress.table(found)
