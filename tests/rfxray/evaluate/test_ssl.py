"""The extractor that a run of configs/masked.py becomes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rfxray.checkpoints import exported, tensor_files
from rfxray.config.load import load_config
from rfxray.errors import ConfigError, DataError
from rfxray.evaluate.extractors import circularity, kinds
from rfxray.evaluate.extractors.extractor import weights_hash
from rfxray.networks import masked_vit
from rfxray.sampling.exporting import ExportRequest, export
from tests.conftest import ROOT

TINY = {
    "model.size": 32,
    "model.width": 32,
    "model.depth": 1,
    "model.heads": 2,
    "objective.cell": 8,
    "batch_size": 8,
    "steps": 12,
    "optim.warmup": 2,
    "optim.decay": 4,
    "log_every": 6,
    "evaluators.validation_loss.every": 0,
    "evaluators.sample_grid.every": 12,
    "evaluators.sample_grid.n": 4,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_data, run_training) -> Path:
    """Workdir of a run of 12 steps on the tiny phantoms. Do not write."""
    changes = [f"{key}={value}" for key, value in TINY.items()]
    config = load_config(str(ROOT / "configs/masked.py"), [*changes, f"data.dirs={tiny_data}"])
    return run_training(config, tmp_path_factory.mktemp("masked") / "run")


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory) -> Path:
    """Its export. Do not write."""
    out = tmp_path_factory.mktemp("export") / "encoder"
    export(ExportRequest(run, out))
    return out


@pytest.fixture
def extractor(folder):
    return kinds.open_extractor(f"ssl={folder}")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (7, 32, 32, 1)).astype(np.float32)


def test_run_learns_and_shows_its_grid(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0]
    assert (run / "samples/step_00000012.png").exists()


def test_extractor_states_the_source_of_the_split_that_the_run_saw(extractor, folder):
    # Nobody named the data: the run knows where they are, and by their fingerprint what they are.
    assert extractor.trained_on == ("phantom",)
    (line,) = circularity.reasons(extractor, "model", ["phantom"])
    assert line == "ssl was trained on phantom, the source of model"
    facts = exported.read(folder)[1]
    assert (facts.synthetic_only, facts.ema) == (False, 0.05)


def test_features_do_not_depend_on_the_batch(extractor, images):
    whole = extractor.features(images)
    assert (whole.shape, whole.dtype) == ((7, extractor.width), np.float32)
    np.testing.assert_array_equal(extractor.features(images), whole)
    single = np.concatenate([extractor.features(image[None]) for image in images])
    np.testing.assert_allclose(single, whole, atol=1e-5)


def test_weights_are_those_of_the_run_and_each_is_read(extractor, folder, images):
    tensors, _ = tensor_files.read(folder / exported.MODEL)
    params = {name.removeprefix("model."): value for name, value in tensors.items()}
    assert extractor.hash == weights_hash(params)
    section = load_config(
        str(ROOT / "configs/masked.py"), [f"{key}={value}" for key, value in TINY.items()]
    ).model
    ours = masked_vit.features(masked_vit.trunk(section), params, images)
    np.testing.assert_allclose(extractor.features(images), ours, atol=1e-5)
    name = "encoder.layer.0.mlp.fc2.weight"
    less = masked_vit.features(masked_vit.trunk(section), params | {name: 0 * params[name]}, images)
    assert np.abs(less - ours).max() > 1e-3


def test_export_in_bfloat16_is_another_extractor(run, extractor, images, tmp_path):
    export(ExportRequest(run, tmp_path / "half", dtype="bfloat16"))
    half = kinds.open_extractor(f"ssl={tmp_path / 'half'}")
    assert half.hash != extractor.hash
    whole = extractor.features(images)
    np.testing.assert_allclose(half.features(images), whole, atol=0.02 * np.abs(whole).max())


def test_image_is_prepared_as_the_run_saw_it(extractor):
    film = np.zeros((64, 40), np.float32)
    film[:, :20] = 1
    prepared = extractor.preprocessing.prepare(film)
    assert prepared.shape == (32, 32, 1)
    np.testing.assert_array_equal(np.unique(prepared), [-1, 1])


# ---------------------------------------------------------------------------------------------
# Refusals


def test_export_without_stated_data_is_refused(run, tiny_data, tmp_path, capsys):
    config = json.loads((run / "config.json").read_text())
    moved = shutil.copytree(run, tmp_path / "run")
    config["data"]["dirs"] = [str(tmp_path / "gone")]
    (moved / "config.json").write_text(json.dumps(config))
    export(ExportRequest(moved, tmp_path / "silent"))
    said = capsys.readouterr().err
    assert f"no longer in {tmp_path / 'gone'}; say where they are with --data" in said
    with pytest.raises(DataError, match=r"does not state its training data.* with --data"):
        kinds.open_extractor(f"ssl={tmp_path / 'silent'}")
    export(ExportRequest(moved, tmp_path / "stated", data=[str(tiny_data)]))
    assert kinds.open_extractor(f"ssl={tmp_path / 'stated'}").trained_on == ("phantom",)


def test_extractor_without_a_folder_says_how_to_get_one():
    with pytest.raises(ConfigError, match=r"ssl=FOLDER, .*`rfxray train --config masked`"):
        kinds.open_extractor("ssl")


def test_export_of_another_network_is_refused():
    packaged = ROOT / "rfxray/sampling/packaged"
    with pytest.raises(DataError, match=r"of kind radit; ssl=FOLDER reads masked_vit"):
        kinds.open_extractor(f"ssl={packaged}")


@pytest.mark.parametrize("name", [exported.MODEL, exported.MANIFEST, exported.CONFIG])
def test_damaged_or_missing_file_is_one_line(folder, tmp_path, name):
    copy = shutil.copytree(folder, tmp_path / "copy")
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(DataError, match="is damaged") as caught:
        kinds.open_extractor(f"ssl={copy}")
    assert "\n" not in str(caught.value)
    (copy / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        kinds.open_extractor(f"ssl={copy}")


def test_folder_or_file_that_is_no_export_is_one_line(run, folder, tmp_path):
    for given in (run, tmp_path):
        with pytest.raises(DataError, match=r"export\.json is missing"):
            kinds.open_extractor(f"ssl={given}")
    with pytest.raises(DataError, match="is damaged"):
        kinds.open_extractor(f"ssl={folder / exported.MODEL}")
