"""Probes of features: what they can rank, and that nothing is ranked from the held-out images."""

import json

import jax
import ml_collections
import numpy as np
import pytest

from benchmarks import ssl_probe
from rfxray.config.load import load_config
from rfxray.evaluate import auc
from rfxray.evaluate.extractors import ssl
from rfxray.networks import kinds
from tests.conftest import ROOT
from tests.rfxray.evaluate.projection import projection


def area(scores, truth):
    return float(auc.area(auc.placements(scores[None], truth), truth)[0])


def test_probe_finds_a_direction_among_noise_and_nothing_in_noise():
    rng = np.random.default_rng(0)
    y, new = rng.random(400) < 0.3, rng.random(300) < 0.3
    x, z = rng.normal(size=(400, 40)), rng.normal(size=(300, 40))
    folds = np.arange(400) % ssl_probe.FOLDS
    assert area(z @ ssl_probe.weights(x, y, folds), new) == pytest.approx(0.5, abs=0.1)
    x[:, 3] += 2 * y
    z[:, 3] += 2 * new
    # One feature at two deviations: an area of Φ(2/√2) = .921, less what the noise costs.
    assert 0.85 < area(z @ ssl_probe.weights(x, y, folds), new) < 0.94


def test_patients_that_are_unknown_are_not_one_patient():
    assert len(set(ssl_probe._numbered(["a", "", "b", "", "a"]))) == 4


@pytest.fixture
def encoder(tmp_path, monkeypatch):
    """`ssl=…` opens a network of random weights, and its twin is another one."""
    section = load_config(
        str(ROOT / "configs/masked.py"),
        ["model.size=32", "model.width=32", "model.depth=1", "model.heads=2", "objective.cell=8"],
    ).model
    fresh = kinds.build(section).init(jax.random.key(1))
    trained = ssl.of_network(section, {n: np.asarray(v) for n, v in fresh.items()}, ("phantom",))
    assert isinstance(section, ml_collections.FrozenConfigDict)
    other = {"ssl": trained, "efficientnet_lite0": projection(width=8)}
    monkeypatch.setattr(ssl_probe, "open_extractor", lambda spec: other[spec.partition("=")[0]])
    monkeypatch.setattr(ssl_probe, "twin", lambda export: projection(width=4, seed=2))
    return tmp_path / "encoder"


def test_command_ranks_held_out_images_and_writes_what_it_prints(
    encoder, tiny_data, tmp_path, capsys
):
    words = ["--data", str(tiny_data), "--encoder", str(encoder), "--out", str(tmp_path / "out")]
    ssl_probe.main(words)
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "out/probes.json").read_text())
    (row,) = [each for each in found["probes"] if each["attribute"] == "cardiomegaly"]
    assert row["n"] == [10, 10]  # of the 20 that are held out
    assert row["areas"]["ssl"] > 0.9  # a disc is large or small, and nothing else differs
    assert row["gain"] == pytest.approx(row["areas"]["ssl"] - row["areas"]["untrained"])
    assert row["errors"].keys() == row["areas"].keys()
    assert ssl_probe.table(found) in printed
    assert str(tmp_path) not in json.dumps(found)
    again = tmp_path / "again"
    ssl_probe.main([*words[:-1], str(again)])
    assert json.loads((again / "probes.json").read_text())["probes"] == found["probes"]
