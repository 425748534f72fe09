"""The benchmark of privacy at toy size: copies that were planted are found."""

import json

import pytest

from benchmarks import privacy
from rfxray.commands import evaluate_privacy
from tests import conftest
from tests.rfxray.evaluate.projection import projection


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    monkeypatch.setenv("RFXRAY_CACHE", str(tmp_path / "cache"))
    for module in (privacy, evaluate_privacy):
        monkeypatch.setattr(module, "open_extractor", lambda spec: projection(name=spec))
    monkeypatch.setattr(privacy, "DRAWN", 20)


def test_exact_copies_are_found_and_finished_parts_are_kept(tmp_path, tiny_data, trained):
    argv = ["--train", f"{tiny_data}:train", "--heldout", f"{tiny_data}:validation"]
    argv += ["--run", f"{trained}={tiny_data}", "--out", str(tmp_path / "out")]
    with conftest.keep_signal_handlers():
        privacy.main(argv)
    found = json.loads((tmp_path / "out/privacy.json").read_text())
    of = found["planted"]["phantoms"]
    assert (of["train"], of["new"], of["each"]) == (conftest.TRAIN, conftest.VALIDATION // 2, 4)
    assert of["recall"].keys() == privacy.WAYS.keys()
    assert of["recall"]["exact"] == {"listed": 1, "rightly": 1}
    (run,) = found["runs"]
    assert run["steps"] == 12
    assert run["gate"].startswith("samples 20 (at least 1000); held_out 20 (at least 100)")
    assert str(tmp_path) not in json.dumps(found)
    text = privacy.table(found)
    assert "| exact | 1.00 |" in text
    assert "| fails |" in text
    (tmp_path / "out/planted_phantoms.json").write_text(
        json.dumps({**of, "false_alarms": 0.5, "took": 1})
    )
    with conftest.keep_signal_handlers():
        privacy.main(argv)
    again = json.loads((tmp_path / "out/privacy.json").read_text())
    assert again["planted"]["phantoms"]["false_alarms"] == 0.5
