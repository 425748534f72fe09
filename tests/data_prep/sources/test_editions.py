"""Editions and gaps of the raw sets that the seven trees of `raw_trees.py` do not show."""

import json

import numpy as np
import pytest
import raw_trees
from raw_trees import LABELS, labels, table

from data_prep.sources import brax, chexpert, mimic, rexgradient, vindr
from rfxray.conditioning import INDEX, decode
from rfxray.errors import ConfigError, DataError
from rfxray.record import State, known_from_states


def told(row):
    states = np.frombuffer(row.states, np.int8)
    values = decode(np.frombuffer(row.attributes, np.float32), known_from_states(states))
    values.pop("source")
    return values


def state(row, name):
    return State(np.frombuffer(row.states, np.int8)[INDEX[name]])


def test_chexpert_v1_with_its_validation_set(tmp_path):
    header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *LABELS]
    path = "CheXpert-v1.0/{}/patient{:05d}/study1/view1_frontal.jpg"
    train = [
        [path.format("train", 1), "Female", 68, "Frontal", "AP", *labels(edema="-1.0")],
        [path.format("train", 2), "Unknown", 0, "Frontal", "LL", *labels()],
    ]
    valid = [[path.format("valid", 9), "Male", 90, "Lateral", "", *labels(edema="0.0")]]
    table(tmp_path / "train.csv", header, train)
    table(tmp_path / "valid.csv", header, valid)
    read = chexpert.read(tmp_path)
    assert [row.split for row in read.rows] == ["train", "train", "validation"]
    assert [row.patient for row in read.rows] == [
        f"chexpert/patient{n}" for n in ("00001", "00002", "00009")
    ]
    assert [told(row) for row in read.rows] == [
        {"view": "AP", "sex": "F", "age": 68.0},
        {"view": "lateral"},
        {"view": "lateral", "sex": "M", "age": 90.0, "edema": "absent"},
    ]
    assert state(read.rows[0], "edema") == State.UNCERTAIN
    origin = np.frombuffer(read.rows[2].origins, np.uint8)[INDEX["edema"]]
    assert read.origins[origin] == "valid.csv: three radiologists"


def test_chexpert_plus_takes_impression_but_never_findings(tmp_path):
    raw_trees.chexpert(tmp_path)
    folder = tmp_path / "chexbert_labels"
    (folder / "report_fixed.json").rename(folder / "impression_fixed.json")
    assert chexpert.read(tmp_path).notes["labels"] == "impression_fixed.json"
    (folder / "impression_fixed.json").unlink()
    read = chexpert.read(tmp_path)
    assert read.notes["labels"] == "none"
    assert read.notes["rows_without_labels"] == 4
    assert all("no_finding" not in told(row) for row in read.rows)
    (folder / "report_fixed.json").write_text('{"path_to_image": "a"}\n{"no": 1}\n')
    with pytest.raises(DataError, match="line 2 is no JSON with path_to_image"):
        chexpert.read(tmp_path)


def test_mimic_without_mimic_iv_and_with_negbio_alone(tmp_path):
    raw_trees.mimic(tmp_path)
    for path in (tmp_path / "hosp").iterdir():
        path.unlink()
    labels_path = tmp_path / "mimic-cxr-2.0.0-chexpert.csv.gz"
    labels_path.rename(tmp_path / "mimic-cxr-2.0.0-negbio.csv.gz")
    read = mimic.read(tmp_path)
    assert not read.notes["mimic_iv"]
    assert told(read.rows[0]) == {
        "view": "PA", "atelectasis": "present", "edema": "absent", "no_finding": "absent",
    }  # fmt: skip
    origin = np.frombuffer(read.rows[0].origins, np.uint8)[INDEX["edema"]]
    assert read.origins[origin] == "mimic-cxr-2.0.0-negbio.csv.gz"
    assert [row.split for row in read.rows] == ["train", "train", "validation", "test", "train"]


def test_rexgradient_joins_by_study_too_and_says_what_is_missing(tmp_path):
    raw_trees.rexgradient(tmp_path)
    table(tmp_path / "chexbert.csv", ["study", *LABELS], [["pGRDN2_aGRDN2ABC", *labels(edema=1)]])
    read = rexgradient.read(tmp_path)
    assert [told(row).get("edema") for row in read.rows] == [None, None, "present", "present"]
    assert read.notes["studies_without_labels"] == 1
    path = tmp_path / "metadata/train_metadata_view_position.json"
    studies = json.loads(path.read_text())
    studies["pGRDN1_aGRDN1ABC"]["ImageViewPosition"].pop()
    path.write_text(json.dumps(studies))
    read = rexgradient.read(tmp_path)
    assert read.notes["not_understood"]["view"] == {"1 views of 2 images": 1, "LAO": 1}
    path.write_text("{")
    with pytest.raises(DataError, match="is no JSON"):
        rexgradient.read(tmp_path)


def test_a_finding_that_no_mapping_knows_is_counted(tmp_path):
    header = ["image_id", "rad_id", "Pneumothorax", "Martian lung", "No finding"]
    table(tmp_path / "image_labels_train.csv", header, [["a" * 32, "R1", 0, 1, 0]])
    read = vindr.read(tmp_path)
    assert read.notes["not_understood"] == {"no_finding": {"Martian lung": 1}}
    assert told(read.rows[0]) == {"view": "PA", "pneumothorax": "absent"}


def test_a_missing_column_and_a_short_row_are_said(tmp_path):
    raw_trees.brax(tmp_path)
    path = tmp_path / "master_spreadsheet_update.csv"
    path.write_text(path.read_text() + "only,two\n")
    read = brax.read(tmp_path)
    assert read.dropped[-1].reason == "a row with too few cells"
    path.write_text(path.read_text().replace("PatientAge", "Age"))
    with pytest.raises(ConfigError, match="no column 'PatientAge'"):
        brax.read(tmp_path)
