"""`rfxray evaluate privacy` from flags to files and exit codes."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from rfxray import sampling
from rfxray.commands import evaluate_privacy
from rfxray.data.dataset import Records, open_dataset
from rfxray.evaluate import model_card
from rfxray.evaluate.privacy import gate
from rfxray.outputs import files
from rfxray.sampling.membership_losses import flow_losses
from tests import conftest
from tests.rfxray.evaluate.projection import projection


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("RFXRAY_CACHE", str(tmp_path_factory.getbasetemp() / "privacy-cache"))
    monkeypatch.setattr(evaluate_privacy, "open_extractor", lambda spec: projection(name=spec))


def folder_of(out, data, split):
    """The pictures of a split as files of anybody."""
    out.mkdir()
    records = Records(open_dataset(data), split)
    for number in range(len(records)):
        files.save_png(out / f"{number:05d}.png", records[number]["image"])
    return out


@pytest.fixture
def loose(tmp_path):
    """Limits for sets of some dozens of images."""
    file = tmp_path / "gate.json"
    limits = gate.limits(gate.DEFAULT) | {"samples": 20, "held_out": 20, "near_copies": 0.2}
    file.write_text(json.dumps(limits | {"membership_auc": 1, "membership_tpr": 1}))
    return file


def flags(synthetic, data, out, *more):
    argv = ["--synthetic", synthetic, "--train", f"{data}:train"]
    argv += ["--heldout", f"{data}:validation", "--out", out, *more]
    return [str(word) for word in argv]


def test_copies_of_training_images_fail_the_gate_and_no_patient_is_named(
    tmp_path, tiny_data, loose, capsys
):
    copies, out = folder_of(tmp_path / "copies", tiny_data, "train"), tmp_path / "out"
    with pytest.raises(SystemExit) as stopped, conftest.keep_signal_handlers():
        evaluate_privacy.main(flags(copies, tiny_data, out, "--gate", loose))
    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "gate failed: near_copies 1 (at most 0.2)" in line
    found = json.loads((out / "results.json").read_text())
    assert found["listed"] == conftest.TRAIN
    assert any(text.startswith("Filter: leave out the 50 of 50") for text in found["advice"])
    with (out / "samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == [f"{n:05d}.png" for n in range(50)]
    assert {row["listed"] for row in rows} == {"1"}
    card = (out / "model_card.md").read_text()
    assert "Release gate failed" in card
    assert card in model_card.markdown([model_card.read(out)])
    with Image.open(out / "copies.png") as picture:
        assert picture.width > 3 * 128
    for file in out.iterdir():
        assert b"phantom/p" not in file.read_bytes(), file.name
        assert str(tmp_path).encode() not in file.read_bytes(), file.name


def test_copies_of_held_out_images_pass(tmp_path, tiny_data, loose, capsys):
    copies, out = folder_of(tmp_path / "copies", tiny_data, "validation"), tmp_path / "out"
    with conftest.keep_signal_handlers():
        evaluate_privacy.main(flags(copies, tiny_data, out, "--gate", loose))
    found = json.loads((out / "results.json").read_text())
    assert found["gate"]["reason"] is None
    assert found["listed"] <= 2
    assert "Not measured: membership_auc, membership_tpr." in (out / "model_card.md").read_text()


def test_membership_and_keys_on_request(tmp_path, tiny_data, trained, loose):
    copies, out = folder_of(tmp_path / "copies", tiny_data, "train"), tmp_path / "out"
    more = ["--checkpoint", trained, "--show-training"]
    with conftest.keep_signal_handlers():
        evaluate_privacy.main(flags(copies, tiny_data, out, *more))
    found = {row["name"]: row for row in json.loads((out / "results.json").read_text())["figures"]}
    area = found["membership AUC"]
    assert (area["n_real"], area["n_synthetic"]) == (conftest.TRAIN, conftest.VALIDATION)
    assert 0.2 < area["value"] < 0.8  # of 12 steps
    with (out / "samples.csv").open() as file:
        assert next(csv.DictReader(file))["training image"] == "phantom/p0/s/i"
    assert "phantom/p" in (out / "report.html").read_text()


def test_loss_of_an_image_does_not_depend_on_its_batch(trained, tiny_data):
    model = sampling.load(trained)
    records = [*conftest.draw(range(40))]
    images = [2 * r["image"].astype(np.float32) / 65535 - 1 for r in records]
    from rfxray.evaluate.pictures import open_pictures

    rows = open_pictures(f"{tiny_data}:train").attributes.rows(np.arange(40))
    whole = flow_losses(model, images, rows)
    assert whole.shape == (40,)
    part = flow_losses(model, images[33:36], rows.rows(np.arange(33, 36)))
    np.testing.assert_allclose(part, whole[33:36], rtol=1e-5)
    assert not np.allclose(whole, flow_losses(model, images, rows, seed=1), rtol=1e-3)


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--ema", "0.1"], 78, "--ema and --step say which weights of --checkpoint"),
        (["--extractor", "oracle,oracle"], 78, "--extractor names one twice"),
        (["--seed", "-1"], 78, "--seed must be 0 or more"),
        (["--gate", "none.json"], 78, "none.json is not a gate"),
        (["--csv", "elsewhere=t.csv"], 78, "elsewhere"),
    ],
)
def test_what_cannot_work_is_refused_in_a_line(tmp_path, tiny_data, refusal, more, code, said):
    argv = flags(f"{tiny_data}:train", tiny_data, tmp_path / "out", *more)
    found, line = refusal(evaluate_privacy.main, argv)
    assert (found, said in line) == (code, True), line


def test_data_set_in_the_place_of_samples_is_numbered(tmp_path, tiny_data):
    """Its keys are those of patients, unless its manifest says that a model made it."""
    out = tmp_path / "out"
    with conftest.keep_signal_handlers():
        evaluate_privacy.main(flags(f"{tiny_data}:validation", tiny_data, out))
    with (out / "samples.csv").open() as file:
        assert [row["key"] for row in csv.DictReader(file)] == [str(i) for i in range(20)]
    for file in out.iterdir():
        assert b"phantom/p" not in file.read_bytes(), file.name


def test_held_out_images_of_the_training_set_are_refused(tmp_path, tiny_data, refusal):
    argv = ["--synthetic", f"{tiny_data}:validation", "--train", f"{tiny_data}:train"]
    argv += ["--heldout", f"{tiny_data}:train", "--out", tmp_path / "out"]
    code, line = refusal(evaluate_privacy.main, argv)
    assert code == 65
    assert "tiny:train and tiny:train share 50 patients; give --heldout of other patients" in line
