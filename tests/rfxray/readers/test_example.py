"""`rfxray readers example`: from nothing to pages, answers and a verdict."""

import json
import shutil

import pytest

from rfxray.commands import readers
from rfxray.readers import equivalence
from tests.conftest import keep_signal_handlers


@pytest.mark.drill
def test_example_is_a_whole_study_and_continues(tmp_path, capsys):
    out = tmp_path / "example"
    with keep_signal_handlers():
        readers.main(["example", "--out", str(out)])
    said = capsys.readouterr().out
    commands = [line for line in said.splitlines() if line.startswith("$ rfxray ")]
    assert [line.split()[2] for line in commands] == ["phantom", "sample", *["readers"] * 3]
    protocol = (out / "study" / "protocol.md").read_text()
    assert "60" in protocol
    for reader in (1, 2, 3):
        assert (out / "study" / f"reader-{reader}.html").stat().st_size > 100_000
    verdict = json.loads((out / "analysis" / "results.json").read_text())
    assert equivalence.TOLD_APART in json.dumps(verdict)  # the third reader has an AUC of .9
    shutil.rmtree(out / "analysis")
    with keep_signal_handlers():
        readers.main(["example", "--out", str(out)])
    again = [line for line in capsys.readouterr().out.splitlines() if line.startswith("$ rfxray ")]
    assert again == commands[-1:]
