"""Editions and gaps of the raw sets that the trees of `raw_trees.py` do not contain."""

import gzip
import json

import numpy as np
import pytest

from data_prep.sources import brax, chexpert, mimic, padchest, rexgradient, vindr
from data_prep.tables.csv_table import MISFIT
from rfxray.attributes.states import State, known_from_states
from rfxray.attributes.vocabulary import INDEX, Attributes, decode
from rfxray.errors import ConfigError, DataError
from tests.data_prep import raw_trees
from tests.data_prep.raw_trees import LABELS, labels, table


def known(row):
    states = np.frombuffer(row.states, np.int8)
    values = decode(
        Attributes(np.frombuffer(row.attributes, np.float32), known_from_states(states))
    )
    values.pop("source")
    return values


def state(row, name):
    return State(np.frombuffer(row.states, np.int8)[INDEX[name]])


def test_chexpert_v1_is_read_with_its_validation_set(tmp_path):
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
    assert [known(row) for row in read.rows] == [
        {"view": "AP", "sex": "F", "age": 68.0},
        {"view": "lateral"},
        {"view": "lateral", "sex": "M", "age": 90.0, "edema": "absent"},
    ]
    assert state(read.rows[0], "edema") == State.UNCERTAIN
    origin = np.frombuffer(read.rows[2].origins, np.uint8)[INDEX["edema"]]
    assert read.origins[origin] == "valid.csv: three radiologists"


def test_chexpert_plus_reads_impression_labels_but_not_findings(tmp_path):
    raw_trees.chexpert(tmp_path)
    folder = tmp_path / "chexbert_labels"
    (folder / "report_fixed.json").rename(folder / "impression_fixed.json")
    assert chexpert.read(tmp_path).notes["labels"] == "impression_fixed.json"
    (folder / "impression_fixed.json").unlink()
    read = chexpert.read(tmp_path)
    assert read.notes["labels"] == "none"
    assert read.notes["rows_without_labels"] == 4
    assert all("no_finding" not in known(row) for row in read.rows)
    (folder / "report_fixed.json").write_text('{"path_to_image": "a"}\n{"no": 1}\n')
    with pytest.raises(DataError, match="line 2 is not valid JSON with path_to_image"):
        chexpert.read(tmp_path)


def test_mimic_without_mimic_iv_reads_negbio_labels(tmp_path):
    raw_trees.mimic(tmp_path)
    for path in (tmp_path / "hosp").iterdir():
        path.unlink()
    labels_path = tmp_path / "mimic-cxr-2.0.0-chexpert.csv.gz"
    labels_path.rename(tmp_path / "mimic-cxr-2.0.0-negbio.csv.gz")
    read = mimic.read(tmp_path)
    assert not read.notes["mimic_iv"]
    assert known(read.rows[0]) == {
        "view": "PA", "atelectasis": "present", "edema": "absent", "no_finding": "absent",
    }  # fmt: skip
    origin = np.frombuffer(read.rows[0].origins, np.uint8)[INDEX["edema"]]
    assert read.origins[origin] == "mimic-cxr-2.0.0-negbio.csv.gz"
    assert [row.split for row in read.rows] == ["train", "train", "validation", "test", "train"]


def test_rexgradient_joins_labels_by_study_and_counts_missing_ones(tmp_path):
    raw_trees.rexgradient(tmp_path)
    table(tmp_path / "chexbert.csv", ["study", *LABELS], [["pGRDN2_aGRDN2ABC", *labels(edema=1)]])
    read = rexgradient.read(tmp_path)
    assert [known(row).get("edema") for row in read.rows] == [None, None, "present", "present"]
    assert read.notes["studies_without_labels"] == 1
    path = tmp_path / "metadata/train_metadata_view_position.json"
    studies = json.loads(path.read_text())
    studies["pGRDN1_aGRDN1ABC"]["ImageViewPosition"].pop()
    path.write_text(json.dumps(studies))
    read = rexgradient.read(tmp_path)
    assert read.notes["not_understood"]["view"] == {"1 views of 2 images": 1, "LAO": 1}
    path.write_text("{")
    with pytest.raises(DataError, match="is not valid JSON"):
        rexgradient.read(tmp_path)


def test_finding_without_a_mapping_is_counted(tmp_path):
    header = ["image_id", "rad_id", "Pneumothorax", "Martian lung", "No finding"]
    table(tmp_path / "image_labels_train.csv", header, [["a" * 32, "R1", 0, 1, 0]])
    read = vindr.read(tmp_path)
    assert read.notes["not_understood"] == {"no_finding": {"Martian lung": 1}}
    assert known(read.rows[0]) == {"view": "PA"}  # the unmapped finding may be a pneumothorax


def test_vindr_cells_other_than_0_and_1_are_unknown(tmp_path):
    header = ["image_id", "rad_id", "Cardiomegaly", "Pneumothorax", "No finding"]
    a, b, c = ("a" * 32, "b" * 32, "c" * 32)
    cells = [
        *([a, reader, "1.0", "0", "0"] for reader in ("R1", "R2", "R3")),
        *([b, "R1", "", "", ""], [b, "R2", "yes", "0", "0"], [b, "R3", "1", "0", "0"]),
        *([c, "R1", "0", "0", "1"], [c, "R2", "1"]),
    ]
    table(tmp_path / "image_labels_train.csv", header, cells)
    read = vindr.read(tmp_path)
    assert [known(row) for row in read.rows] == [
        {"view": "PA", "cardiomegaly": "present", "pneumothorax": "absent", "no_finding": "absent"},
        {"view": "PA"},
        {"view": "PA", "cardiomegaly": "absent", "pneumothorax": "absent", "no_finding": "present"},
    ]
    assert state(read.rows[1], "cardiomegaly") == State.UNCERTAIN  # one of three
    assert read.notes["not_understood"]["no_finding"] == {
        "Cardiomegaly: ''": 1, "Pneumothorax: ''": 1, "No finding: ''": 1, "Cardiomegaly: 'yes'": 1,
    }  # fmt: skip
    assert [(drop.detail, drop.reason) for drop in read.dropped] == [
        ("image_labels_train.csv line 9", MISFIT)
    ]


def test_truncated_vindr_rows_are_dropped(tmp_path):
    (tmp_path / "train.csv").write_text(
        "image_id,class_name,rad_id,x_min\na,Cardiomegaly,R1,1\nb,No fin\n"
    )
    read = vindr.read(tmp_path)
    assert [row.path for row in read.rows] == ["train/a.dicom"]
    assert [drop.detail for drop in read.dropped] == ["train.csv line 3"]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("mimic-cxr-2.0.0-split.csv.gz", ["68b5c4b1-227d0485,51112222,test"]),
        ("mimic-cxr-2.0.0-chexpert.csv.gz", ["10000980,50985099,1.0"]),
        ("hosp/patients.csv.gz", ["10000032,F"]),
        ("hosp/admissions.csv.gz", ["10000032"]),
    ],
)
def test_truncated_mimic_rows_are_dropped_by_line(tmp_path, name, lines):
    raw_trees.mimic(tmp_path)
    path = tmp_path / name
    text = gzip.decompress(path.read_bytes()).decode()
    path.write_bytes(gzip.compress((text + "\n".join(lines) + "\n").encode()))
    (drop,) = mimic.read(tmp_path).dropped
    assert drop.detail == f"{path.name} line {len(text.splitlines()) + 1}"
    assert drop.reason == MISFIT


def test_rows_missing_from_the_official_split_are_counted(tmp_path):
    raw_trees.mimic(tmp_path)
    path = tmp_path / "mimic-cxr-2.0.0-split.csv.gz"
    text = gzip.decompress(path.read_bytes()).decode()
    kept = "".join(line for line in text.splitlines(True) if "68b5c4b1" not in line)
    path.write_bytes(gzip.compress(kept.encode()))
    read = mimic.read(tmp_path)
    assert [row.split for row in read.rows] == ["train", "train", "validation", "", "train"]
    assert read.notes["rows_without_split"] == 1
    path.write_bytes(gzip.compress(text.replace(",test", ",holdout").encode()))
    with pytest.raises(DataError, match=r"split\.csv\.gz line 5 has a split 'holdout'"):
        mimic.read(tmp_path)


def test_unknown_split_of_chexpert_plus_is_refused(tmp_path):
    raw_trees.chexpert(tmp_path)
    path = tmp_path / "df_chexpert_plus_240401.csv"
    path.write_text(path.read_text().replace(",valid,", ",holdout,"))
    with pytest.raises(DataError, match=r"240401\.csv line 9 has a split 'holdout'"):
        chexpert.read(tmp_path)


@pytest.mark.parametrize(
    ("anchor_age", "anchor_year", "age"),
    [("88", "2178", 91.0), ("91", "2180", 91.0), ("91", "2170", 91.0), ("91", "2185", None)],
)
def test_masked_ages_of_mimic_are_not_guessed(tmp_path, anchor_age, anchor_year, age):
    raw_trees.mimic(tmp_path)
    row = ["10000032", "F", anchor_age, anchor_year]
    header = ["subject_id", "gender", "anchor_age", "anchor_year"]
    table(tmp_path / "hosp/patients.csv.gz", header, [row])
    assert known(mimic.read(tmp_path).rows[0]).get("age") == age


def test_padchest_accepts_an_infinite_birth_year_and_many_methods(tmp_path):
    raw_trees.padchest(tmp_path)
    (path,) = tmp_path.glob("*.csv")
    first, *lines = path.read_text().splitlines()
    row = lines[0].replace("1930.0", "inf")
    many = [row.replace("_a.png", f"_{i}.png").replace("Physician", f"M{i}") for i in range(300)]
    path.write_text("\n".join([first, lines[0], *many]))
    read = padchest.read(tmp_path)
    assert [known(row).get("age") for row in read.rows[:2]] == [84.0, None]
    assert read.origins[-1] == f"{path.name}: another method"


def test_no_finding_implied_by_a_closed_list_has_its_own_state(tmp_path):
    raw_trees.padchest(tmp_path)
    (path,) = tmp_path.glob("*.csv")
    path.write_text(path.read_text().replace("unchanged", "scoliosis"))
    read = padchest.read(tmp_path)
    assert state(read.rows[0], "no_finding") == State.POSITIVE  # "normal"
    assert state(read.rows[-1], "no_finding") == State.POSITIVE_CLOSED_VOCABULARY
    assert known(read.rows[-1])["no_finding"] == "present"
    states = np.frombuffer(read.rows[-1].states, np.int8)
    assert not known_from_states(states, False)[INDEX["no_finding"]]


@pytest.mark.parametrize("study", [None, [1], "x"])
def test_rexgradient_study_that_is_not_an_object_is_refused(tmp_path, study):
    raw_trees.put(
        tmp_path / "metadata/train_metadata_view_position.json", json.dumps({"s1": study})
    )
    with pytest.raises(DataError, match="has a study 's1' that is not a JSON object"):
        rexgradient.read(tmp_path)


def test_rexgradient_study_may_have_one_image_or_none(tmp_path):
    studies = {
        "s1": {"ImagePath": "../deid_png/a.png", "ImageViewPosition": "PA", "PatientID": "p1"},
        "s2": {"ImagePath": None, "ImageViewPosition": ["PA"], "PatientID": "p2"},
    }
    raw_trees.put(tmp_path / "metadata/test_metadata_view_position.json", json.dumps(studies))
    (tmp_path / "chexbert.csv").write_text(f"study,{','.join(LABELS)}\ns1,1.0\n")
    read = rexgradient.read(tmp_path)
    assert [(row.path, known(row)) for row in read.rows] == [("deid_png/a.png", {"view": "PA"})]
    assert [(drop.detail, drop.reason) for drop in read.dropped] == [
        ("chexbert.csv line 2", MISFIT),
        ("s2", "a study that names no image"),
    ]


def test_missing_column_is_refused_and_short_row_is_dropped(tmp_path):
    raw_trees.brax(tmp_path)
    path = tmp_path / "master_spreadsheet_update.csv"
    path.write_text(path.read_text() + "only,two\n")
    read = brax.read(tmp_path)
    assert read.dropped[-1].reason == MISFIT
    path.write_text(path.read_text().replace("PatientAge", "Age"))
    with pytest.raises(ConfigError, match="no column 'PatientAge'"):
        brax.read(tmp_path)
