"""The stored results of causal models come from the command that they name."""

import json
from concurrent.futures import ThreadPoolExecutor

from benchmarks import causes, results
from rfxray.causes import fitting


def test_stored_command_runs_at_toy_size_and_gives_the_same_figures(tmp_path, monkeypatch):
    found = results.stored()["causes"]
    for name, value in (("ROWS", 1500), ("MANY", 1500), ("TRUTH", 500), ("FILES", {})):
        monkeypatch.setattr(causes, name, value)
    monkeypatch.setattr(fitting, "REPLICATES", 2)
    monkeypatch.setattr(causes, "ProcessPoolExecutor", ThreadPoolExecutor)  # JAX must not be forked
    causes.main(["--real", str(tmp_path), "--out", str(tmp_path / "out.json")])
    toy = json.loads((tmp_path / "out.json").read_text())
    assert toy.keys() == found.keys() - {"code"}
    for ours, stored in zip(toy["worlds"], found["worlds"], strict=True):
        assert ours.keys() == stored.keys()
        assert ours["flow"]["variation"].keys() == stored["flow"]["variation"].keys()
    assert "| additive | flow |" in causes.table(toy)
