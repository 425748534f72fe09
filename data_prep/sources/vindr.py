"""VinDr-CXR 1.0.0: 18,000 PA radiographs of two hospitals of Hanoi, read by radiologists.

    {train,test}/<32 hex>.dicom
    annotations/image_labels_train.csv   image_id, rad_id, 28 findings (0, 1): 3 readers an image
    annotations/image_labels_test.csv    image_id, 28 findings: a consensus

or the Kaggle edition, boxes instead of labels, 14 findings, no labels for the test files:

    train.csv or vinbigdata-train.csv    image_id, class_name, rad_id, …

A finding is present where most readers name it, uncertain where fewer do; a cell that is neither 1
nor 0 leaves the list of its image open. Age and sex stand only in the DICOM header, often blank; an
age of 0 (`000Y`) is a blank too, in a set of standing adults. No patient ids are published: each
image counts as one. Validation is carved out of train, in the Kaggle edition too.
"""

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from data_prep.sources.editions import RawTables, named
from data_prep.sources.layout import Layout
from data_prep.sources.mapping import ClosedList, closed_list
from data_prep.tables.csv_table import header
from data_prep.tables.table import Table, TableBuilder, Value
from rfxray.errors import DataError

NAME = "vindr"
FOLDERS = ("annotations/", "")
KAGGLE = ("train.csv", "vinbigdata-train.csv")
LAYOUT = Layout(unique_names=True)  # re-releases as PNG or JPEG keep the 32 hex digits
NOT_FINDINGS = ("image_id", "rad_id")
PRESENT, ABSENT = ("1", "1.0"), ("0", "0.0")


def read(root: Path) -> Table:
    builder = TableBuilder(NAME)
    tables = RawTables(root)
    published = {split: named(FOLDERS, f"image_labels_{split}.csv") for split in ("train", "test")}
    path = tables.require(*published["train"], *KAGGLE)
    if path.name.removesuffix(".gz") in KAGGLE:
        _add(builder, root, "train", path.name, *_boxes(builder, path))
        return builder.table(carved=True, edition="Kaggle", **tables.notes)
    _add(builder, root, "train", path.name, *_labels(builder, path))
    test = tables.find(*published["test"])
    if test is not None:
        _add(builder, root, "test", test.name, *_labels(builder, test))
    return builder.table(carved=True, edition="1.0.0", **tables.notes)


def _add(
    builder: TableBuilder,
    root: Path,
    split: str,
    table: str,
    findings: ClosedList,
    images: Iterable[tuple[str, list[set[str]]]],
) -> None:
    for image, readings in images:
        values = builder.cell("source", NAME, "the set")
        values |= builder.cell("view", "PA", "the publication: all PA")
        path = root / split / f"{image}.dicom"
        values |= _header(builder, path)
        for finding in sorted(set().union(*readings)):
            if finding not in findings:
                builder.count_strange("no_finding", finding)
        origin = f"{table}: {len(readings)} readers" if len(readings) > 1 else f"{table}: consensus"
        values |= findings.values(readings, origin)
        builder.add(f"{split}/{image}.dicom", values, patient=image, image=image, split=split)


def _labels(
    builder: TableBuilder, path: Path
) -> tuple[ClosedList, Iterator[tuple[str, list[set[str]]]]]:
    """Each image with what each of its readers named, as columns of 0 and 1.

    Another cell is named as it stands: a finding that no list knows.
    """
    columns_there = header(path)
    listed = [column for column in columns_there if column not in NOT_FINDINGS]
    if "image_id" not in columns_there or not listed:
        raise DataError(f"{path} has no image_id and findings, but {', '.join(columns_there)}")

    def images() -> Iterator[tuple[str, list[set[str]]]]:
        readings: dict[str, list[set[str]]] = {}
        columns = {column: column for column in ("image_id", *listed)}
        for _, cells in builder.rows(path, columns):
            said = [(finding, cells[finding].strip()) for finding in listed]
            named = {finding for finding, cell in said if cell in PRESENT}
            named |= {f"{f}: {cell!r}" for f, cell in said if cell not in (*PRESENT, *ABSENT)}
            readings.setdefault(cells["image_id"].strip(), []).append(named)
        yield from readings.items()

    return closed_list(NAME, frozenset(listed)), images()


def _boxes(
    builder: TableBuilder, path: Path
) -> tuple[ClosedList, Iterable[tuple[str, list[set[str]]]]]:
    """Each image with the classes that each of its readers drew a box of."""
    readings: dict[str, dict[str, set[str]]] = {}
    listed = set()
    columns = {"image": "image_id", "finding": "class_name", "reader": "rad_id"}
    for _, cells in builder.rows(path, columns):
        finding = cells["finding"].strip()
        listed.add(finding)
        by_reader = readings.setdefault(cells["image"].strip(), {})
        by_reader.setdefault(cells["reader"].strip(), set()).add(finding)
    images = ((image, list(by_reader.values())) for image, by_reader in readings.items())
    return closed_list(NAME, frozenset(listed)), images


def _header(builder: TableBuilder, path: Path) -> dict[str, Value]:
    """Age and sex as the DICOM header has them; empty if there is no file or no such tag."""
    import pydicom  # here, so that the names of the sets are known without the extra `prep`

    if not path.is_file():  # a FIFO would never end
        return {}
    tags = {"age": "PatientAge", "sex": "PatientSex"}
    with (
        contextlib.suppress(Exception),
        warnings.catch_warnings(),
    ):  # reading will say what is wrong
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(tags.values()))
        values = {}
        for attribute, tag in tags.items():
            cell = str(header.get(tag) or "")
            if attribute == "age" and cell and not cell.strip("0Y "):
                builder.count_strange("age", cell)
            else:
                values |= builder.cell(attribute, cell, f"DICOM: {tag}")
        return values
    return {}
