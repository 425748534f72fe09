"""The adapters against an independent reading of the tables as published."""

import ast
import csv
import gzip
import os
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

import data_prep
from data_prep.sources.sets import SETS
from rfxray.conditioning import ATTRIBUTES, FINDING_NAMES, INDEX, NUM_ATTRIBUTES
from rfxray.record import State

SHARED = Path(os.environ.get("RFXRAY_SHARED", Path(data_prep.__file__).parents[2] / "shared"))
METADATA = SHARED / "real_metadata"
FILES = {
    "nih": "Data_Entry_2017_v2020.csv.gz",
    "chexpert": "chexpert_train.csv.gz",
    "padchest": "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz",
    "vindr": "vinbigdata-train.csv.gz",
}


def columns(table):
    """The attributes, states and origins of a table, [rows, 19] each."""
    return tuple(
        np.frombuffer(b"".join(getattr(row, field) for row in table.rows), dtype).reshape(
            -1, NUM_ATTRIBUTES
        )
        for field, dtype in (("attributes", "<f4"), ("states", "i1"), ("origins", "u1"))
    )


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """set → (its rows as published, the table of its adapter); each is read once."""
    read = {}

    def both(name):
        path = METADATA / FILES[name]
        if not path.is_file():
            pytest.skip(f"no real table {path}")
        if name not in read:
            root = tmp_path_factory.mktemp(name)
            (root / path.name).symlink_to(path)
            with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as file:
                read[name] = list(csv.DictReader(file)), SETS[name].read(root)
        return read[name]

    return both


def states_of(states, name):
    found, counts = np.unique(states[:, INDEX[name]], return_counts=True)
    return {State(s).name: n for s, n in zip(found.tolist(), counts.tolist(), strict=True)}


def values_of(numbers, states, name):
    """Of a categorical attribute, with None for unknown."""
    i = INDEX[name]
    known = states[:, i] == State.STATED
    values = ATTRIBUTES[i].values
    return Counter(
        values[int(v)] if k else None
        for v, k in zip(numbers[:, i].tolist(), known.tolist(), strict=True)
    )


def test_nih(published):
    raw, table = published("nih")
    assert len(raw) == len(table.rows) == 112_120
    assert not table.dropped
    assert table.notes["not_understood"] == {}
    assert table.notes["patients"] == len({row["Patient ID"] for row in raw}) == 30_805
    numbers, states, _ = columns(table)
    assert values_of(numbers, states, "view") == Counter(row["View Position"] for row in raw)
    assert values_of(numbers, states, "sex") == Counter(row["Patient Gender"] for row in raw)
    assert numbers[:, INDEX["age"]].tolist() == [float(row["Patient Age"]) for row in raw]
    named = [set(row["Finding Labels"].split("|")) for row in raw]
    for name, theirs in {
        "cardiomegaly": {"Cardiomegaly"},
        "pleural_effusion": {"Effusion"},
        "lung_lesion": {"Mass", "Nodule"},
        "pleural_other": {"Pleural_Thickening"},
        "atelectasis": {"Atelectasis"},
        "pneumothorax": {"Pneumothorax"},
        "edema": {"Edema"},
    }.items():
        positive = sum(bool(theirs & labels) for labels in named)
        assert states_of(states, name) == {
            "POSITIVE": positive,
            "NEGATIVE_CLOSED_VOCABULARY": len(raw) - positive,
        }
    # an infiltrate may be a consolidation, so it is no negative
    consolidated = sum("Consolidation" in labels for labels in named)
    maybe = sum(
        bool({"Infiltration", "Pneumonia"} & labels) and "Consolidation" not in labels
        for labels in named
    )
    assert states_of(states, "consolidation") == {
        "POSITIVE": consolidated,
        "UNCERTAIN": maybe,
        "NEGATIVE_CLOSED_VOCABULARY": len(raw) - consolidated - maybe,
    }
    assert states_of(states, "no_finding")["POSITIVE"] == sum(n == {"No Finding"} for n in named)
    for name in ("fracture", "support_devices", "race"):  # the list has none of them
        assert states_of(states, name) == {"UNLABELLED": len(raw)}


def test_chexpert(published):
    raw, table = published("chexpert")
    assert len(raw) == len(table.rows) == 223_414
    assert not table.dropped
    assert table.notes["patients"] == len({row["Path"].split("/")[2] for row in raw}) == 64_540
    assert table.notes["not_understood"] == {"age": {"0": 3}}
    numbers, states, _ = columns(table)
    views = Counter(
        "lateral" if row["Frontal/Lateral"] == "Lateral" or row["AP/PA"] in ("LL", "RL")
        else row["AP/PA"]
        for row in raw
    )  # fmt: skip
    assert values_of(numbers, states, "view") == views
    sexes = Counter({"Male": "M", "Female": "F"}.get(row["Sex"]) for row in raw)
    assert values_of(numbers, states, "sex") == sexes
    assert states_of(states, "age")["UNLABELLED"] == sum(row["Age"] == "0" for row in raw) == 3
    codes = {"1.0": "POSITIVE", "0.0": "NEGATIVE", "-1.0": "UNCERTAIN", "": "UNLABELLED"}
    for name in FINDING_NAMES[:-1]:
        label = ATTRIBUTES[INDEX[name]].label
        assert states_of(states, name) == Counter(codes[row[label]] for row in raw), name
    pathologies = [ATTRIBUTES[INDEX[name]].label for name in FINDING_NAMES[:12]]
    any_present = sum("1.0" in [row[label] for label in pathologies] for row in raw)
    assert states_of(states, "no_finding")["NEGATIVE"] == any_present
    assert states_of(states, "no_finding")["POSITIVE"] == sum(
        row["No Finding"] == "1.0" and "1.0" not in [row[label] for label in pathologies]
        for row in raw
    )


def test_padchest(published):
    raw, table = published("padchest")
    assert len(raw) == len(table.rows) + len(table.dropped) == 160_861
    kept = [row for row in raw if row["Projection"] != "EXCLUDE"]
    assert len(table.dropped) == len(raw) - len(kept) == 11
    assert {drop.reason for drop in table.dropped} == {"projection EXCLUDE: no chest view"}
    # ids beyond int64 stay apart
    assert len({row.key for row in table.rows}) == len(kept)
    assert table.notes["patients"] == len({row["PatientID"] for row in kept})
    assert table.rows[0].path == f"{kept[0]['ImageDir']}/{kept[0]['ImageID']}"
    numbers, states, origins = columns(table)
    code = {"PA": "PA", "L": "lateral", "AP": "AP", "AP_horizontal": "AP"}
    assert values_of(numbers, states, "view") == Counter(code.get(r["Projection"]) for r in kept)
    sexes = Counter(r["PatientSex_DICOM"] if r["PatientSex_DICOM"] in "MF" else None for r in kept)
    assert values_of(numbers, states, "sex") == sexes
    ages = [
        int(r["StudyDate_DICOM"][:4]) - float(r["PatientBirth"]) if r["PatientBirth"] else 0.0
        for r in kept
    ]
    assert numbers[:, INDEX["age"]].tolist() == ages
    assert states_of(states, "age")["UNLABELLED"] == sum(not r["PatientBirth"] for r in kept) == 6
    labels = [
        {label.strip() for label in ast.literal_eval(r["Labels"])} - {""}
        if r["Labels"].startswith("[") else set()
        for r in kept
    ]  # fmt: skip
    still_open = {"unchanged", "exclude", "suboptimal study"}
    closed = [bool(named) and not named & still_open for named in labels]
    for name, theirs, doubtful in (
        ("pneumothorax", {"pneumothorax", "hydropneumothorax"}, set()),
        ("pneumonia", {"pneumonia", "atypical pneumonia"}, {"infiltrates", "tuberculosis"}),
        ("cardiomegaly", {"cardiomegaly"}, {"pericardial effusion", "heart insufficiency"}),
    ):
        expected = Counter(
            "POSITIVE" if named & theirs
            else "UNCERTAIN" if named & doubtful
            else "NEGATIVE_CLOSED_VOCABULARY" if whole
            else "UNLABELLED"
            for named, whole in zip(labels, closed, strict=True)
        )  # fmt: skip
        assert states_of(states, name) == expected
    assert table.notes["not_understood"]["view"] == {"COSTAL": 630}
    assert "no_finding" not in table.notes["not_understood"]  # every label is in the mapping table
    by_hand = sum(
        row["MethodLabel"] == "Physician" and (whole or bool(named & {"pneumothorax"}))
        for row, named, whole in zip(kept, labels, closed, strict=True)
    )
    physician = table.origins.index(f"{FILES['padchest']}: Physician")
    assert (origins[:, INDEX["pneumothorax"]] == physician).sum() == by_hand


def test_vindr_kaggle(published):
    raw, table = published("vindr")
    votes = defaultdict(lambda: defaultdict(set))
    for row in raw:
        votes[row["image_id"]][row["class_name"]].add(row["rad_id"])
    assert len(table.rows) == len(votes) == 15_000
    _, states, _ = columns(table)
    for name, theirs in (("pneumothorax", "Pneumothorax"), ("pleural_other", "Pleural thickening")):
        readers = [len(image[theirs]) for image in votes.values()]
        assert states_of(states, name) == {
            "POSITIVE": sum(n >= 2 for n in readers),
            "UNCERTAIN": sum(n == 1 for n in readers),
            "NEGATIVE_CLOSED_VOCABULARY": sum(n == 0 for n in readers),
        }
    # the Kaggle list is shorter than the whole one: what it lacks is not absent
    for name in ("fracture", "edema", "support_devices"):
        assert states_of(states, name) == {"UNLABELLED": 15_000}
    healthy = sum(len(image["No finding"]) >= 2 for image in votes.values())
    assert healthy >= states_of(states, "no_finding")["POSITIVE"] > 0.95 * healthy
