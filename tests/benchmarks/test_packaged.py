"""What comes with the package is made by one command, from a run on phantoms only."""

import json

import numpy as np
import pytest

from benchmarks import packaged
from data_prep.phantom import __main__ as phantom
from data_prep.phantom import oracle
from rfxray import sampling
from rfxray.checkpoints import exported
from rfxray.config import load as configuration
from rfxray.data.dataset import open_dataset
from rfxray.errors import ConfigError
from rfxray.evaluate import classifier
from tests.conftest import keep_signal_handlers


def test_model_of_anything_but_phantoms_is_not_packaged(trained, tiny_data, tmp_path):
    (tmp_path / "train").symlink_to(trained)
    (tmp_path / "phantom").symlink_to(tiny_data)
    with pytest.raises(ConfigError, match="does not hold phantoms only; nothing was packaged"):
        packaged.pack_model(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_oracle_is_stored_in_half_and_read_back_as_float32(tmp_path):
    trained = classifier.Oracle(32, classifier._initial(32, 0))
    trained.save(tmp_path / "oracle.npz")
    about = {"size": 32, "n": 64, "seed": 1, "epochs": 1, "train_seconds": 1.5}
    (tmp_path / "oracle.json").write_text(json.dumps(about))
    changes = packaged.pack_oracle(tmp_path / "oracle.npz", tmp_path / "out" / "oracle.npz", 96)
    assert (
        changes.keys()
        == json.loads((tmp_path / "out" / "oracle.json").read_text())["ceiling"].keys()
    )
    assert max(map(abs, changes.values())) < 0.1
    sizes = [(folder / "oracle.npz").stat().st_size for folder in (tmp_path / "out", tmp_path)]
    assert sizes[0] < 0.6 * sizes[1]
    read = classifier.load(tmp_path / "out" / "oracle.npz")
    kernel = np.asarray(read.weights["mix"]["kernel"])
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(
        kernel, np.asarray(trained.weights["mix"]["kernel"]).astype(np.float16)
    )


@pytest.mark.drill
def test_command_packs_a_run_on_phantoms_and_the_same_run_to_the_same_bytes(
    make_config, run_training, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(packaged, "UNSEEN", 96)
    run, size = tmp_path / "run", ["--size", "32"]
    run.mkdir()
    with keep_signal_handlers():
        phantom.main(["--out", str(run / "phantom"), "--n", "48", *size])
    config = make_config(f"data.dirs={run / 'phantom'}", "steps=2", "log_every=1")
    run_training(config, run / "train")
    oracle.main(["--out", str(run / "oracle.npz"), *size, "--n", "64", "--epochs", "1"])
    found = []
    for name in ("one", "two", "one"):  # the third replaces the first
        packaged.main([str(run), "--out", str(tmp_path / name)])
        found.append({p.name: p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()})
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 5
    model = tmp_path / "one" / "sampling" / "packaged"
    assert exported.read(model)[1].synthetic_only
    assert exported.read(model)[1].data_fingerprint == open_dataset(run / "phantom").fingerprint
    assert (
        sampling.load(model).size
        == classifier.load(tmp_path / "one" / "evaluate" / "packaged" / "oracle.npz").size
    )
    assert str(run) not in json.dumps([content.decode("latin-1") for content in found[0].values()])
    assert "sampling/packaged and evaluate/packaged" in capsys.readouterr().out
    configuration.from_json(json.loads((model / "config.json").read_text()))
