"""Every published edition of the seven sets, as its distributor ships it: rows find their files."""

import json
import os

import numpy as np
import pytest

from data_prep.harmonise import main
from data_prep.sources import chexpert, mimic
from data_prep.sources.chexpert import CONTAINER, TRAIN_BATCHES, VALID_BATCH
from data_prep.sources.files import FileIndex
from data_prep.sources.locate import locate
from data_prep.sources.remarks import remarks
from data_prep.sources.sets import SETS
from rfxray.attributes.vocabulary import INDEX
from rfxray.errors import DataError
from tests.data_prep.raw_trees import LABELS, labels, put, table
from tests.data_prep.sources.test_folder import touch

CHEXPERT = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *LABELS]
FILM = "patient{:05d}/study1/view1_frontal.jpg"
NIH = ["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age",
       "Patient Gender", "View Position"]  # fmt: skip
MIMIC = "files/p10/p1000003{0}/s5000000{0}/0{0}.{1}"
BRAX = ["DicomPath", "PngPath", "PatientID", "PatientSex", "PatientAge", "AccessionNumber",
        *LABELS, "ViewPosition"]  # fmt: skip
PADCHEST = ["ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth",
            "PatientSex_DICOM", "Projection", "MethodLabel", "Labels"]  # fmt: skip


def joined(name, root, asked=""):
    read = SETS[name].read(root, asked) if asked else SETS[name].read(root)
    return locate(name, read, FileIndex(root), SETS[name].layout)


def origin(located, row, name):
    """Where a value was read."""
    return located.origins[np.frombuffer(row.origins, np.uint8)[INDEX[name]]]


def chexpert_table(path, prefix, numbers, **given):
    rows = [[f"{prefix}/{FILM.format(i)}", "Male", 60, "Frontal", "AP", *labels(**given)]
            for i in numbers]  # fmt: skip
    table(path, CHEXPERT, rows)


def chexpert_v1(root, tables, prefix, folders):
    """Tables of v1, and a film of train in each of some folders, one of valid in the last."""
    chexpert_table(root / tables / "train.csv", f"{prefix}/train", range(1, 5), edema=1)
    chexpert_table(root / tables / "valid.csv", f"{prefix}/valid", [9], edema=0)
    films = [f"{folder}/{FILM.format(i)}" for i, folder in enumerate(folders[:-1], 1)]
    films.append(f"{folders[-1]}/{FILM.format(9)}")
    touch(root, *films)
    return films


@pytest.mark.parametrize(
    ("tables", "prefix", "folders", "edition"),
    [
        (VALID_BATCH, "CheXpert-v1.0", [*TRAIN_BATCHES, f"{VALID_BATCH}/valid"], "v1.0"),
        (f"{CONTAINER}/{VALID_BATCH}", "CheXpert-v1.0",
         [*(f"{CONTAINER}/{b}" for b in TRAIN_BATCHES), f"{CONTAINER}/{VALID_BATCH}/valid"],
         "v1.0"),
        (f"{VALID_BATCH}/{VALID_BATCH}", "CheXpert-v1.0",
         [*(f"{b}/{b}" for b in TRAIN_BATCHES), f"{VALID_BATCH}/{VALID_BATCH}/valid"], "v1.0"),
        ("CheXpert-v1.0", "CheXpert-v1.0",
         [*["CheXpert-v1.0/train"] * 3, "CheXpert-v1.0/valid"], "v1.0"),
        ("", "CheXpert-v1.0", ["train", "train", "train", "valid"], "v1.0"),
        ("", "CheXpert-v1.0-small", ["train", "train", "train", "valid"], "v1.0 small"),
        ("CheXpert-v1.0-small", "CheXpert-v1.0-small",
         [*["CheXpert-v1.0-small/train"] * 3, "CheXpert-v1.0-small/valid"], "v1.0 small"),
    ],
)  # fmt: skip
def test_chexpert_v1_is_found_as_it_is_unpacked(tmp_path, tables, prefix, folders, edition):
    films = chexpert_v1(tmp_path, tables, prefix, folders)
    located = joined("chexpert", tmp_path)
    assert [row.path for row in located.rows] == films
    assert [row.split for row in located.rows] == ["train", "train", "train", "validation"]
    assert located.notes["edition"] == edition
    (drop,) = located.dropped  # the fourth film of train is not there
    assert (drop.path, drop.reason) == (f"{prefix}/train/{FILM.format(4)}", "no file")


def test_chexpert_test_set_has_its_own_split(tmp_path):
    chexpert_v1(tmp_path, "", "CheXpert-v1.0", ["train", "train", "train", "valid"])
    film = "CheXpert/test/patient64741/study1/view1_{}.jpg"
    touch(tmp_path, film.format("frontal"), film.format("lateral"))
    rows = [[film.format(v).partition("/")[2], *labels(edema=1)] for v in ("frontal", "lateral")]
    table(tmp_path / "CheXpert/test_labels.csv", ["Path", *LABELS], rows)
    test = [row for row in joined("chexpert", tmp_path).rows if row.split == "test"]
    assert [row.path for row in test] == [film.format("frontal"), film.format("lateral")]
    known = [np.frombuffer(row.states, np.int8)[INDEX["view"]] for row in test]
    assert known[0] != known[1]  # the name says lateral; a frontal film may be AP or PA


@pytest.mark.parametrize("labeller", ["train_cheXbert.csv", "train_visualCheXbert.csv"])
def test_tables_of_other_labellers_are_read_only_if_asked_for(tmp_path, labeller):
    chexpert_v1(tmp_path, VALID_BATCH, "CheXpert-v1.0", [*TRAIN_BATCHES, f"{VALID_BATCH}/valid"])
    chexpert_table(tmp_path / labeller, "CheXpert-v1.0/train", range(1, 4), fracture=1)
    usual, asked = joined("chexpert", tmp_path), joined("chexpert", tmp_path, labeller)
    assert origin(usual, usual.rows[0], "edema") == "train.csv: CheXpert labeller"
    assert origin(usual, usual.rows[0], "fracture") == ""
    assert usual.notes["labels"] == "train.csv"
    assert any(labeller in line and "not read" in line for line in remarks(usual))
    name = {"train_cheXbert.csv": "CheXbert", "train_visualCheXbert.csv": "VisualCheXbert"}
    assert origin(asked, asked.rows[0], "fracture") == f"{labeller}: {name[labeller]} labeller"
    assert origin(asked, asked.rows[-1], "edema") == "valid.csv: three radiologists"
    assert (asked.notes["labels"], len(asked.rows)) == (labeller, 4)


def test_table_of_another_labeller_does_not_pass_for_the_train_table(tmp_path):
    for name in ("train_visualCheXbert.csv", "train_cheXbert.csv", "my_train.csv"):
        chexpert_table(tmp_path / name, "CheXpert-v1.0/train", [1], fracture=1)
    with pytest.raises(DataError, match=r"has no train\.csv"):
        chexpert.read(tmp_path)


def test_editions_side_by_side_are_named(tmp_path):
    chexpert_v1(tmp_path, "", "CheXpert-v1.0", ["train", "train", "train", "valid"])
    small = tmp_path / "CheXpert-v1.0-small"
    chexpert_table(small / "train.csv", "CheXpert-v1.0-small/train", [1], edema=0)
    located = joined("chexpert", tmp_path)
    assert located.notes["tables"] == ["train.csv", "valid.csv"]
    assert located.notes["tables_not_read"] == ["CheXpert-v1.0-small/train.csv"]
    row = ["00000001_000.png", "Hernia", 0, 1, 50, "F", "PA"]
    nih = touch(tmp_path / "nih", row[0])
    for name in ("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv", "Data_Entry_2017_mine.csv"):
        table(nih / name, NIH, [row])
    assert joined("nih", nih).notes["tables"] == ["Data_Entry_2017_v2020.csv"]
    assert list(remarks(joined("nih", nih))) == [
        "reads Data_Entry_2017_v2020.csv; there too, but not read: Data_Entry_2017.csv"
    ]


def mimic_tables(root, *also):
    keys = [[f"0{i}", f"1000003{i}", f"5000000{i}"] for i in (1, 2)]
    header = ["dicom_id", "subject_id", "study_id"]
    table(root / "mimic-cxr-2.0.0-metadata.csv.gz", [*header, "ViewPosition", "StudyDate"],
          [[*key, "AP", "21800506"] for key in keys])  # fmt: skip
    for name in also:
        rows = [[key[1], key[2], *labels(edema=1)] for key in keys]
        table(root / f"{name}.gz", ["subject_id", "study_id", *LABELS], rows)


@pytest.mark.parametrize("extension", ["jpg", "dcm"])
@pytest.mark.parametrize("edition", ["2.0.0", "2.1.0"])
def test_mimic_is_found_as_jpeg_and_as_dicom(tmp_path, extension, edition):
    mimic_tables(tmp_path, *mimic.LABELS)
    if edition == "2.1.0":  # the tables keep the names of 2.0.0; this one is new and is not read
        header = ["study_id", *LABELS]
        table(tmp_path / "mimic-cxr-2.1.0-test-set-labeled.csv", header, [[1, *labels()]])
    files = [MIMIC.format(i, extension) for i in (1, 2)]
    touch(tmp_path, *files)
    located = joined("mimic", tmp_path)
    assert [row.path for row in located.rows] == files
    assert located.notes["edition"] == edition
    assert located.notes["labels"] == "mimic-cxr-2.0.0-chexpert.csv.gz"
    asked = joined("mimic", tmp_path, "mimic-cxr-2.0.0-negbio.csv")
    assert origin(asked, asked.rows[0], "edema") == "mimic-cxr-2.0.0-negbio.csv.gz"


@pytest.mark.parametrize(
    "folder",
    ["", "hosp", "core", "mimiciv/2.2/hosp", "mimiciv/1.0/core", "mimic-iv-3.1/hosp", "mimic-iv"],
)
def test_mimic_iv_is_found_in_its_layouts_and_the_newest_is_read(tmp_path, folder):
    mimic_tables(tmp_path)
    header = ["subject_id", "gender", "anchor_age", "anchor_year"]
    table(tmp_path / folder / "patients.csv.gz", header, [["10000031", "F", 50, 2180]])
    race = ["subject_id", "race"]
    table(tmp_path / folder / "admissions.csv.gz", race, [["10000031", "WHITE"]])
    table(tmp_path / "mimiciv/0.4/core/patients.csv", header, [["10000031", "M", 50, 2180]])
    table(tmp_path / "archive/hosp/patients.csv", header, [["10000031", "M", 50, 2180]])
    read = mimic.read(tmp_path)
    older = folder == "mimic-iv"  # a folder without a version comes last
    assert origin(read, read.rows[0], "sex") == "MIMIC-IV: patients.gender"
    assert np.frombuffer(read.rows[0].attributes, np.float32)[INDEX["sex"]] == older
    assert (origin(read, read.rows[0], "race") == "") == older


@pytest.mark.parametrize(
    "files",
    [
        ["0/1_a.png", "54/1_b.png"],
        ["1_a.png", "1_b.png"],
        ["images-224/1_a.png", "images-224/1_b.png"],
        ["0/0/1_a.png", "54/54/1_b.png"],
    ],
)
def test_padchest_is_found_in_numbered_folders_or_one(tmp_path, files):
    rows = [[name, folder, "20140915", "S", name, "1930", "F", "PA", "Physician", "['normal']"]
            for name, folder in (("1_a.png", 0), ("1_b.png", 54))]  # fmt: skip
    name = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
    table(touch(tmp_path, *files) / f"{name}.gz", PADCHEST, rows)
    table(tmp_path / f"{name[:-4]}_mine.csv", PADCHEST, rows[:1])
    assert [row.path for row in joined("padchest", tmp_path).rows] == files


@pytest.mark.parametrize("name", ["Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv"])
@pytest.mark.parametrize("folder", ["", "images_{:03}/images/", "images/"])
def test_nih_is_found_in_its_twelve_folders_or_one(tmp_path, name, folder):
    images = [f"{i:08}_000.png" for i in range(1, 13)]
    files = [folder.format(i) + image for i, image in enumerate(images, 1)]
    rows = [[image, "Hernia", 0, i, 50, "F", "PA"] for i, image in enumerate(images)]
    table(touch(tmp_path, *files) / name, NIH, rows)
    assert [row.path for row in joined("nih", tmp_path).rows] == files


@pytest.mark.parametrize("spreadsheet", ["master_spreadsheet_update.csv", "master_spreadsheet.csv"])
@pytest.mark.parametrize("kinds", [["png"], ["dcm"], ["png", "dcm"]])
def test_brax_is_found_as_png_and_as_dicom(tmp_path, spreadsheet, kinds):
    folders = {"png": "images", "dcm": "Anonymized_DICOMs"}
    rows, files = [], {}
    for i in (1, 2):
        path = f"id_{i}/Study_1/Series_1/image-{i}"
        named = {kind: f"{folder}/{path}.{kind}" for kind, folder in folders.items()}
        rows.append([named["dcm"], named["png"], f"id_{i}", "F", 50, 7, *labels(), "PA"])
        touch(tmp_path, *(named[kind] for kind in kinds))
        files[i] = named[kinds[0]]
    table(tmp_path / spreadsheet, BRAX, rows)
    assert [row.path for row in joined("brax", tmp_path).rows] == list(files.values())


@pytest.mark.parametrize(
    ("tables", "file"),
    [
        ("annotations/image_labels_{}.csv", "{}/{}.dicom"),
        ("image_labels_{}.csv", "{}/{}.dicom"),
        ("{}.csv", "{}/{}.dicom"),  # Kaggle
        ("{}.csv", "{}/{}.png"),  # its re-releases
        ("vinbigdata-{}.csv", "vinbigdata-256/{}/{}.jpg"),
    ],
)
def test_vindr_is_found_in_its_editions(tmp_path, tables, file):
    kaggle = "labels" not in tables
    images = {split: f"{i:032x}" for i, split in enumerate(("train", "test"), 10)}
    for split, image in images.items():
        touch(tmp_path, file.format(split, image))
        if kaggle and split == "train":
            rows = [[image, "No finding", "R1"]]
            table(tmp_path / tables.format(split), ["image_id", "class_name", "rad_id"], rows)
        elif not kaggle:
            rows = [[image, "R1", 0, 1]]
            header = ["image_id", "rad_id", "Edema", "No finding"]
            table(tmp_path / tables.format(split), header, rows)
    located = joined("vindr", tmp_path)
    there = ["train"] if kaggle else ["train", "test"]
    assert [row.path for row in located.rows] == [file.format(s, images[s]) for s in there]
    assert located.notes["edition"] == ("Kaggle" if kaggle else "1.0.0")


@pytest.mark.parametrize("above", ["", "ReXGradient/"])
def test_rexgradient_is_found_below_deid_png(tmp_path, above):
    image = "deid_png/GRDN1/A/studies/1.2/series/1.3/instances/1.4.png"
    study = {"ImagePath": [f"../{image}"], "ImageViewPosition": ["PA"], "PatientID": "GRDN1"}
    put(tmp_path / "metadata/valid_metadata_view_position.json", json.dumps({"s": study}))
    table(tmp_path / "chexbert_findings.csv", ["study", *LABELS], [["s", *labels(edema=1)]])
    touch(tmp_path, above + image)
    located = joined("rexgradient", tmp_path)
    assert [row.path for row in located.rows] == [above + image]
    assert located.notes["labels"] == "none"  # the table over the findings section is not read


@pytest.mark.parametrize("name", SETS)
def test_folder_of_archives_without_tables_says_to_unpack_them(tmp_path, name):
    touch(tmp_path, *(f"images_{i:03}.tar.gz" for i in range(1, 13)))
    with pytest.raises(DataError, match=r"; it has 12 archives: unpack them \(first: images_001"):
        SETS[name].read(tmp_path)


def test_table_that_is_a_fifo_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "Data_Entry_2017.csv")
    with pytest.raises(DataError, match=r"Data_Entry_2017\.csv is a FIFO, not a table"):
        SETS["nih"].read(tmp_path)


def test_vindr_film_that_is_a_fifo_is_listed_and_not_opened(tmp_path):
    header = ["image_id", "rad_id", "Edema", "No finding"]
    images = ["a" * 32, "b" * 32]
    table(tmp_path / "image_labels_train.csv", header, [[i, "R1", 0, 1] for i in images])
    touch(tmp_path, f"train/{images[0]}.dicom")
    os.mkfifo(tmp_path / f"train/{images[1]}.dicom")
    (drop,) = joined("vindr", tmp_path).dropped
    assert (drop.stage, drop.reason) == ("files", "not a regular file")
    assert drop.detail == f"train/{images[1]}.dicom is a FIFO"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["chexpert=train.txt"], "chexpert=train_visualCheXbert.csv"),
        (["nih=Data_Entry_2017.csv"], "is not SET=TABLE of a --set that has several label tables"),
        (["chexpert=train.csv", "chexpert=train.csv"], "--labels chexpert is given twice"),
    ],
)
def test_unknown_label_table_is_refused(tmp_path, capsys, given, said):
    flags = [word for value in given for word in ("--labels", value)]
    with pytest.raises(SystemExit) as stopped:
        main(["--set", f"chexpert={tmp_path}", *flags, "--size", "48", "--out", "x"])
    assert stopped.value.code == 78
    assert said in capsys.readouterr().err
