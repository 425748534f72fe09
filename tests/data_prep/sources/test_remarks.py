"""Lines about the join that a user sees before the long work begins."""

import os
import re

import pytest

from data_prep.sources.files import FileIndex
from data_prep.sources.locate import locate
from data_prep.sources.remarks import remarks
from data_prep.tables.table import TableBuilder
from tests.data_prep.sources.test_folder import touch


def said(folder, rows):
    """The remarks on a table of (image, patient)."""
    builder = TableBuilder("mine")
    for image, patient in rows:
        builder.add(image, {}, patient=patient, image=image)
    return list(remarks(locate("mine", builder.table(), FileIndex(folder))))


def test_complete_join_needs_no_remark(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    assert said(tmp_path, [("a", "p1"), ("b", "p2")]) == []


@pytest.mark.parametrize(("missing", "warned"), [(1, False), (2, True)])
def test_more_than_a_tenth_without_counterpart_is_a_warning(tmp_path, missing, warned):
    names = [f"{i:02}.png" for i in range(10)]
    rows = [(name, "p") for name in names]
    fewer = touch(tmp_path / "files", *names[missing:], "rest.zip")
    lines = said(fewer, rows)
    assert (
        lines
        == [
            "WARNING: 2 of 10 rows have no file (such as 00.png, 01.png)",
            "the folder has 1 archive: unpack it (first: rest.zip)",
        ][: 2 * warned]
    )
    lines = said(touch(tmp_path / "rows", *names), rows[missing:])
    assert lines == ["WARNING: 2 of 10 files have no row (such as 00.png, 01.png)"][:warned]


@pytest.mark.parametrize(
    ("patients", "groups"),
    [
        (["12", "12.0", "012", "13"], "1 patients have ids .*012 = 12 = 12.0"),
        (["p1", "P1", "p01", "p2", "P2"], "2 patients have ids .*P1 = p01 = p1, P2 = p2"),
        (["12", "120", "1.2", "p12", "012a", "12a"], None),
        (["", "nan", "None", ""], None),
    ],
)
def test_ids_that_may_be_one_patient_are_a_warning(tmp_path, patients, groups):
    names = [f"{i}.png" for i in range(len(patients))]
    lines = said(touch(tmp_path, *names), zip(names, patients, strict=True))
    assert len(lines) == (groups is not None)
    for line in lines:
        assert line.startswith("WARNING: ")
        assert re.search(groups, line)


def test_case_special_files_and_contradictions_are_warnings(tmp_path):
    names = [f"{i:02}.png" for i in range(30)]
    touch(tmp_path, *names, "IMG_1.PNG")
    os.mkfifo(tmp_path / "pipe.png")
    rows = [(name, "p") for name in names]
    assert said(tmp_path, [*rows, ("img_1", "p"), ("00", "q")]) == [
        "WARNING: 2 rows contradict another row of their image; see dropped.csv",
        "WARNING: 1 rows differ from a file only in upper and lower case (such as img_1: differs "
        "in case from IMG_1.PNG); rename the files or mend the table",
        "WARNING: 1 FIFOs, sockets, devices or links to nothing are left out (such as pipe.png: a "
        "FIFO)",
    ]
