"""Small copies of the seven raw sets: the published layouts and their known defects.

`write(folder)` makes one tree per set; `expected.py` holds what harmonise must make of them. Every
image is a phantom, drawn from its number.
"""

import csv
import functools
import gzip
import io
import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from data_prep.phantom import draw_attributes, draw_images
from rfxray.attributes.vocabulary import ATTRIBUTES, FINDING_NAMES, INDEX
from rfxray.data.manifest import read_ledger

SIDE = 96
LATERALS = (1, 11)
LABELS = [ATTRIBUTES[INDEX[name]].label for name in FINDING_NAMES]
VINDR_FINDINGS = [
    *("Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture"),
    *("Consolidation", "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity"),
    *("Lung cavity", "Lung cyst", "Mediastinal shift", "Nodule/Mass", "Pleural effusion"),
    *("Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture", "Other lesion"),
    *("COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "No finding"),
]
LONG = "20536686640136348236148679891455886468"  # beyond int64, like the ids of PadChest
HEX = [f"{0xABC + i:032x}" for i in range(3)]


@functools.cache
def pictures():
    """[40, 96, 96] uint16 phantoms, frontal except `LATERALS`."""
    indices = np.arange(40)
    attributes = draw_attributes(3, indices)
    attributes[:, INDEX["view"]] = [2 if i in LATERALS else 0 for i in indices]
    return draw_images(attributes, 3, indices, SIDE)


@functools.cache
def frontal(count):
    """[count, 96, 96] uint16 phantoms of PA view."""
    indices = np.arange(count)
    attributes = draw_attributes(5, indices)
    attributes[:, INDEX["view"]] = 0
    return draw_images(attributes, 5, indices, SIDE)


def ledger(out):
    """Why each thing in `dropped.csv` was dropped, by its key, or by set and path or detail."""
    found = {}
    for drop in read_ledger(out):
        name = drop.key or f"{drop.set}: {drop.path or drop.detail}"
        more = f": {drop.detail}" if drop.detail and not name.endswith(drop.detail) else ""
        found[name] = drop.reason + more
    return found


def eight(number):
    return (pictures()[number] >> 8).astype(np.uint8)


def put(path: Path, content) -> Path:
    """Writes bytes, text, or an array as PNG or JPEG, and creates the folders; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, np.ndarray):
        Image.fromarray(content).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        path.write_bytes(content)
    return path


def table(path: Path, header, rows) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([header, *rows])
    data = text.getvalue().encode()
    put(path, gzip.compress(data) if path.suffix == ".gz" else data)


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def labels(**given):
    """The 14 label cells of a row."""
    return [given.get(name, "") for name in FINDING_NAMES]


def dicom(path: Path, pixels, jpeg2000=False, without=(), **tags) -> None:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelData = (pixels >> 4).astype("<u2").tobytes()
    dataset.PatientName = "Doe^Jane"  # must not reach any record
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    for tag in without:
        delattr(dataset, tag)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    if jpeg2000:
        import gdcm

        reader, change, writer = (
            gdcm.ImageReader(),
            gdcm.ImageChangeTransferSyntax(),
            gdcm.ImageWriter(),
        )
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEG2000Lossless))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()


# ---------------------------------------------------------------------------------------------
# Raw sets


def mimic(root: Path) -> None:
    a, b, c = "10000032", "10000980", "10001000"
    files = [
        # dicom_id, subject, study, view, date, split, image number
        ("02aa804e-bde0afdd", a, "50414267", "PA", "21800506", "train", 0),
        ("174413ec-4ec4c1f7", a, "50414267", "LATERAL", "21800506", "train", 1),
        ("2a2277a9-b0ded155", b, "50985099", "", "21890101", "validate", 2),
        ("68b5c4b1-227d0485", c, "51112222", "LL", "21500101", "test", 3),
        ("ffffffff-ffffffff", c, "51112222", "AP", "21500101", "train", None),
    ]
    for image, subject, study, _, _, _, number in files:
        if number is not None:
            folder = root / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}"
            put(folder / f"{image}.jpg", eight(number))
    torn(root / "files/p10/p10001000/s51112222/68b5c4b1-227d0485.jpg")
    put(root / "files/p10/p10000032/s50414267/.azDownload-1b-02aa804e.jpg", b"half")
    header = ["dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate"]
    table(root / "mimic-cxr-2.0.0-metadata.csv.gz", header, [file[:5] for file in files])
    table(
        root / "mimic-cxr-2.0.0-split.csv.gz",
        ["dicom_id", "study_id", "subject_id", "split"],
        [(image, study, subject, split) for image, subject, study, _, _, split, _ in files],
    )
    given = labels(atelectasis="1.0", edema="0.0", pneumonia="-1.0")
    table(
        root / "mimic-cxr-2.0.0-chexpert.csv.gz",
        ["subject_id", "study_id", *LABELS],
        [[a, "50414267", *given], [b, "50985099", *labels(no_finding="1.0")]],
    )
    table(
        root / "hosp/patients.csv.gz",
        ["subject_id", "gender", "anchor_age", "anchor_year", "anchor_year_group", "dod"],
        [[a, "F", "52", "2180", "2014 - 2016", ""], [b, "M", "88", "2185", "2014 - 2016", ""]],
    )
    table(
        root / "hosp/admissions.csv.gz",
        ["subject_id", "hadm_id", "race"],
        [[a, 1, "WHITE - RUSSIAN"], [a, 2, "UNABLE TO OBTAIN"], [b, 3, "WHITE"], [b, 4, "ASIAN"]],
    )


def chexpert(root: Path) -> None:
    """Writes CheXpert-Plus with PNG files and one DICOM file; its table says .jpg."""
    files = [
        # path, frontal/lateral, ap/pa, patient, age, sex, race, split
        ("train/patient00001/study1/view1_frontal.jpg", "Frontal", "AP", "patient00001", "68.0",
         "Female", "White, non-Hispanic", "train"),
        ("train/patient00003/study1/view1_frontal.jpg", "Frontal", "PA", "patient00003", "90.0",
         "Male", "Black or African American", "train"),
        ("train/patient00003/study2/view1_lateral.jpg", "Lateral", "", "patient00003", "0",
         "Male", "Patient Refused", "train"),
        ("valid/patient64541/study1/view1_frontal.jpg", "Frontal", "AP", "patient64541", "30.0",
         "Unknown", "Asian", "valid"),
    ]  # fmt: skip
    put(root / "PNG/train/patient00001/study1/view1_frontal.png", eight(10))
    put(root / "PNG/train/patient00003/study1/view1_frontal.png", eight(20))  # also in NIH, test
    put(root / "PNG/train/patient00003/study2/view1_lateral.png", eight(11))
    negative = pictures()[12].max() - pictures()[12]
    dicom(
        root / "DICOM/valid/patient64541/study1/view1_frontal.dcm",
        negative,
        without=("HighBit",),
        PhotometricInterpretation="MONOCHROME1",
        PixelSpacing=[0.2, 0.2],
    )
    table(
        root / "df_chexpert_plus_240401.csv",
        ["path_to_image", "frontal_lateral", "ap_pa", "deid_patient_id", "age", "sex", "race",
         "split", "report"],
        [[*file, 'A report,\nof "two" lines'] for file in files],
    )  # fmt: skip
    given = dict.fromkeys(LABELS)
    whole = [
        {"path_to_image": files[0][0], **given, "Cardiomegaly": 1.0, "Pneumothorax": 0.0},
        {"path_to_image": files[3][0], **given, "No Finding": 1.0},
    ]
    empty = [{"path_to_image": file[0], **given, "No Finding": 1.0} for file in files]
    put(root / "chexbert_labels/report_fixed.json", "\n".join(map(json.dumps, whole)))
    put(root / "chexbert_labels/findings_fixed.json", "\n".join(map(json.dumps, empty)))


def padchest(root: Path) -> None:
    header = [
        "", "ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth",
        "PatientSex_DICOM", "Projection", "MethodLabel", "Labels",
    ]  # fmt: skip
    rows = [
        [0, f"{LONG}_a.png", "0", "20140915", LONG, f"{LONG}1", "1930.0", "F", "PA", "Physician",
         "['normal']"],
        [1, f"{LONG}_b.png", "0", "20140915", LONG, f"{LONG}2", "1929.0", "M", "AP_horizontal",
         "RNN_model", "[' cardiomegaly', 'pleural effusion', '', 'exclude']"],
        [2, f"{LONG}_c.png", "1", "20150914", LONG, f"{LONG}2", "1929.0", "O", "COSTAL",
         "RNN_model", "nan"],
        [3, f"{LONG}_d.png", "1", "20150914", LONG, f"{LONG}3", "", "M", "EXCLUDE", "RNN_model",
         "['normal']"],
        [4, f"{LONG}_e.png", "1", "20150914", LONG, f"{LONG}4", "1950.0", "M", "PA", "RNN_model",
         "['unchanged']"],
    ]  # fmt: skip
    table(root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", header, rows)
    for number, row in zip((13, 14, 15, 16, 17), rows, strict=True):
        twelve_bits = pictures()[number] >> 4
        put(root / row[2] / row[1], twelve_bits)
    torn(root / "1" / f"{LONG}_e.png")


def brax(root: Path) -> None:
    header = [
        "DicomPath", "PngPath", "PatientID", "PatientSex", "PatientAge", "AccessionNumber",
        "StudyDate", *LABELS, "ViewPosition", "Rows", "Columns", "Manufacturer",
    ]  # fmt: skip
    strip = np.tile(eight(33)[:40], (1, 5))  # 40 × 480
    ramp = np.tile(np.linspace(10, 200, SIDE).astype(np.uint8), (SIDE, 1))
    shown = [eight(30), eight(31), np.rot90(eight(32), 2), strip, ramp]
    given = [("45", "PA"), ("85 or more", ""), ("20", "PA"), ("50", "AP"), ("60", "")]
    rows = []
    for i, (picture, (age, view)) in enumerate(zip(shown, given, strict=True)):
        path = f"images/id_{i}/Study_1/Series_1/image-{i}.png"
        put(root / path, picture)
        cells = labels(no_finding="1.0") if i == 0 else labels(fracture="1.0", edema="-1.0")
        rows.append(["x.dcm", path, f"id_{i}", "FM"[i % 2], age, "7", "", *cells, view, 0, 0, "S"])
    table(root / "master_spreadsheet_update.csv", header, rows)


def nih(root: Path) -> None:
    """Writes the 2017 edition, which has an age of 414."""
    header = [
        "Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age",
        "Patient Gender", "View Position", "OriginalImage[Width", "Height]",
    ]  # fmt: skip
    rows = [
        ["00000001_000.png", "Infiltration|Mass", 0, 1, 58, "M", "PA", 1, 1],
        ["00000002_000.png", "No Finding", 0, 2, 414, "F", "AP", 1, 1],
        ["00000003_000.png", "Hernia", 1, 3, 20, "F", "PA", 1, 1],
    ]
    table(root / "Data_Entry_2017.csv", header, rows)
    put(
        root / "images_001/images/00000001_000.png", eight(20)
    )  # also in the training set of CheXpert
    colour = np.dstack([eight(21)] * 3 + [np.full((SIDE, SIDE), 255, np.uint8)])
    put(root / "images_001/images/00000002_000.png", colour)
    # near copy of the first PadChest image: larger, 8 bits, with JPEG compression in between
    again = cv2.imencode(".jpg", eight(13), [cv2.IMWRITE_JPEG_QUALITY, 70])[1]
    again = cv2.resize(cv2.imdecode(again, cv2.IMREAD_GRAYSCALE), (128, 128))
    put(root / "images_002/images/00000003_000.png", again)
    put(root / "images_002/images/00000099_000.png", eight(22))
    put(root / "train_val_list.txt", "00000002_000.png\n00000003_000.png\n")
    put(root / "test_list.txt", "00000001_000.png\n")


def vindr(root: Path) -> None:
    dicom(root / f"train/{HEX[0]}.dicom", pictures()[23], jpeg2000=True, PatientAge="045Y",
          PatientSex="M")  # fmt: skip
    dicom(root / f"train/{HEX[1]}.dicom", pictures()[24], PatientAge="000Y")
    negative = pictures()[25].max() - pictures()[25]
    dicom(root / f"test/{HEX[2]}.dicom", negative, PhotometricInterpretation="MONOCHROME1",
          PatientAge="", PatientSex="O")  # fmt: skip

    def row(*named):
        return [int(finding in named) for finding in VINDR_FINDINGS]

    table(
        root / "annotations/image_labels_train.csv",
        ["image_id", "rad_id", *VINDR_FINDINGS],
        [
            [HEX[0], "R8", *row("Pneumothorax", "Consolidation")],
            [HEX[0], "R9", *row("Pneumothorax", "Infiltration")],
            [HEX[0], "R10", *row("No finding")],
            *([HEX[1], reader, *row("No finding")] for reader in ("R1", "R2", "R3")),
        ],
    )
    header = ["image_id", *VINDR_FINDINGS]
    header[header.index("Other diseases")] = "Other disease"  # as published
    table(root / "annotations/image_labels_test.csv", header, [[HEX[2], *row("Rib fracture")]])


def rexgradient(root: Path) -> None:
    where = "deid_png/GRDN1/GRDN1ABC/studies/1.2/series/1.3/instances"
    report = {"Findings": "Heart size\n is normal.", "Impression": "No acute disease."}
    train = {
        "pGRDN1_aGRDN1ABC": {
            "ImagePath": [f"../{where}/1.4.png", f"../{where}/1.5.png"],
            "ImageViewPosition": ["POSTERO_ANTERIOR", None],
            "PatientID": "GRDN1", "PatientSex": "M", "PatientAge": "007Y", **report,
        },
    }  # fmt: skip
    valid = {
        "pGRDN2_aGRDN2ABC": {
            "ImagePath": [f"../{where}/1.6.png", f"../{where}/1.7.png"],
            "ImageViewPosition": ["PA", "LAO"],
            "PatientID": "GRDN2", "PatientSex": "O", "PatientAge": "002D",
            "Findings": "", "Impression": "",
        },
    }  # fmt: skip
    for name, studies in (("train", train), ("valid", valid)):
        put(root / f"metadata/{name}_metadata_view_position.json", json.dumps(studies))
    put(root / where / "1.4.png", pictures()[26])
    put(root / where / "1.5.png", pictures()[27])
    put(root / where / "1.6.png", 65535 - pictures()[28])
    put(root / where / "1.7.png", pictures()[29])
    given = labels(cardiomegaly="0.0", no_finding="1.0")
    text = "Heart size is normal. No acute disease."
    table(root / "chexbert.csv", ["Report Impression", *LABELS], [[text, *given]])


def many(root: Path, count: int) -> Path:
    """Writes an NIH tree of `count` frontal phantoms and returns its root."""
    indices = np.arange(count)
    attributes = draw_attributes(5, indices)
    attributes[:, INDEX["view"]] = 0
    drawn = draw_images(attributes, 5, indices, SIDE)
    header = [
        "Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age",
        "Patient Gender", "View Position",
    ]  # fmt: skip
    rows = [[f"{i:08d}_000.png", "No Finding", 0, i, 50, "F", "PA"] for i in range(count)]
    table(root / "Data_Entry_2017.csv", header, rows)
    for row, picture in zip(rows, drawn, strict=True):
        put(root / row[0], picture)
    return root


SETS = (mimic, rexgradient, chexpert, padchest, nih, brax, vindr)


def write(folder: Path) -> dict[str, Path]:
    """Writes every tree; returns the root of each set by name."""
    roots = {}
    for make in SETS:
        roots[make.__name__] = folder / make.__name__
        make(roots[make.__name__])
    return roots
