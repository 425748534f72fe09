"""No row may take another row's file, and what the table says is found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.sources import joining
from data_prep.sources.files import FileIndex
from data_prep.sources.joining import Found, find_files
from data_prep.sources.layout import Layout
from data_prep.sources.locate import locate
from data_prep.tables.table import TableBuilder
from rfxray.errors import DataError
from tests.data_prep.sources.test_folder import touch


def join(folder, cells, layout=None):
    """What each cell found: a path, or reason and detail."""
    found = list(find_files(cells, FileIndex(folder), layout))
    return [f.path or f"{f.reason}: {f.detail}".removesuffix(": ") for f in found]


@pytest.fixture
def images(tmp_path):
    return touch(tmp_path / "images", "a.png", "b.jpg", "deep/c.dcm", "deep/er/d.PNG", "notes.txt")


@pytest.mark.parametrize(
    ("cell", "path"),
    [
        ("a.png", "a.png"),
        ("a", "a.png"),
        ("./a.png", "a.png"),
        ("a.dcm", "a.png"),  # the table of the DICOM release, the files of the PNG one
        ("c", "deep/c.dcm"),
        ("deep/c", "deep/c.dcm"),
        ("d.png", "deep/er/d.PNG"),
        ("SET-v1/deep/c.dcm", "deep/c.dcm"),
        ("/data/SET-v1/deep/er/d.PNG", "deep/er/d.PNG"),
        ("C:\\data\\SET\\deep\\c.dcm", "deep/c.dcm"),
        ("er/d", "deep/er/d.PNG"),
        ("../images/a", "a.png"),
        ("/data/images/b.jpg", "b.jpg"),
    ],
)
def test_cell_finds_its_file(images, cell, path):
    assert join(images, [cell]) == [path]


@pytest.mark.parametrize(
    "cell", ["e", "other/a.png", "deep/a.png", "notes", "../notes.txt", "/etc/passwd", "deep/er"]
)
def test_cell_does_not_find_another_file(images, cell):
    assert join(images, [cell]) == ["no file"]


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("A", "no file: differs in case from a.png"),
        ("Deep/C.dcm", "no file: differs in case from deep/c.dcm"),
        ("D", "no file: differs in case from deep/er/d.PNG"),
        ("notes.txt", "a format that is not read: .txt"),
        ("", "a row that names no image"),
    ],
)
def test_reason_for_no_file_helps(images, cell, said):
    assert join(images, [cell]) == [said]


def test_case_that_differs_in_every_row_is_said(tmp_path):
    images = touch(tmp_path, "X/IMG_1.PNG", "X/IMG_2.PNG")
    assert join(images, ["SET/x/img_1.png", "SET/x/img_2.png"])[0] == "no file"
    assert join(images, ["x/img_1.png", "img_2"]) == [
        "no file: differs in case from X/IMG_1.PNG",
        "no file: differs in case from X/IMG_2.PNG",
    ]


@pytest.mark.parametrize(
    ("files", "cells", "found"),
    [
        # two files end like the row, so neither folder may be cut
        (["s1/v1.png", "p2/s1/v1.png"], ["p1/s1/v1.png"], ["no file"]),
        (["s1/v1.png", "p2/s1/v1.png"], ["p1/s1/v1.png", "p2/s1/v1.png"], ["no file", 1]),
        (["s1/v1.png", "p2/s2/v1.png"], ["p1/s1/v1.png", "p2/s2/v1.png"], ["no file", 1]),
        # one patient's folder is not replaced by another's
        (["p2/s1/v1.png"], ["p1/s1/v1.png"], ["no file"]),
        (["p2/s1/v1.png", "p2/s2/v1.png"], ["p1/s1/v1.png", "p1/s2/v1.png"], ["no file"] * 2),
        # rows that differ in what would be cut
        (["s1/v1.png", "s2/v1.png"], ["p1/s1/v1.png", "p2/s2/v1.png"], ["no file"] * 2),
        # the rule is that of the whole table: as written, since one row is found so
        (["a/1.png", "SET/b/2.png"], ["SET/a/1.png", "SET/b/2.png"], ["no file", 1]),
        (["a/1.png", "x/b/2.png"], ["a/1.png", "b/2.png"], [0, "no file"]),
        # what most rows prove
        (["a/1.png", "a/2.png", "x/SET/a/3.png"], [f"SET/a/{i}.png" for i in (1, 2, 3)],
         [0, 1, "no file"]),
        (["a/1.png", "x/SET/a/2.png"], ["SET/a/1.png", "SET/a/2.png"], ["no file"] * 2),
        # folders in front: each file below one of several, none below two
        (["x/a/1.png", "y/b/2.png"], ["a/1.png", "b/2.png"], [0, 1]),
        (["x/a/1.png", "y/a/1.png", "y/b/2.png"], ["a/1.png", "b/2.png"],
         ["several files: x/a/1.png and y/a/1.png", 2]),
        (["x/a/1.png", "y/a/1.dcm"], ["a/1.dcm"], [1]),
        (["x/a/1.png", "z/y/b/2.png", "z/y/b/3.png"], ["a/1.png", "b/2.png", "b/3.png"],
         ["no file", 1, 2]),
        # bare names: in any folder, if only one file has it
        (["x/1.png", "y/z/2.png", "3.png"], ["1", "2.png", "3"], [0, 1, 2]),
        (["x/1.png", "y/1.png", "1.dcm"], ["1.png", "1"],
         ["several files: x/1.png and y/1.png", 2]),
        (["x/1.png", "1.dcm", "y/1.jpg"], ["1.png"], [0]),
        (["x/1.png", "y/1.png"], ["1.png"], ["several files: x/1.png and y/1.png"]),
        (["1.png", "1.dcm", "z/1.2.3.dcm"], ["1", "1.dcm", "1.2.3"],
         ["several files: 1.dcm and 1.png", 1, 2]),
    ],
)  # fmt: skip
def test_leading_folders_are_rewritten_only_as_rows_prove_it(tmp_path, files, cells, found):
    touch(tmp_path / "root", *files)
    expected = [files[f] if isinstance(f, int) else f for f in found]
    assert join(tmp_path / "root", cells) == expected


def test_folders_are_replaced_if_many_rows_prove_it(tmp_path):
    def replaced(count):
        cells = [f"SET/train/p{i}/1.png" for i in range(count + 3)]
        files = [f"batch {i % 3}/p{i}/1.png" for i in range(count)]
        found = join(touch(tmp_path / str(count), *files, "batch 0/q/1.png"), cells)
        return found == [*files, *["no file"] * 3]

    assert replaced(joining.PROOF)
    assert not replaced(joining.PROOF - 1)


def test_published_layout_replaces_folders_for_any_row(tmp_path):
    layout = Layout({"SET/train": ("one", "two"), "": ("PNG",)}, unique_names=False)
    touch(tmp_path, "one/p1/1.png", "two/p2/1.png", "PNG/SET/valid/3.png", "p3/1.png")
    cells = ["SET/train/p1/1.png", "SET/train/p2/1.png", "SET/valid/3.png", "SET/train/p3/1.png"]
    assert join(tmp_path, cells, layout) == [
        "one/p1/1.png", "two/p2/1.png", "PNG/SET/valid/3.png", "no file",
    ]  # fmt: skip
    touch(tmp_path, "two/p1/1.png")
    assert join(tmp_path, cells, layout)[0] == "several files: one/p1/1.png and two/p1/1.png"


def test_names_that_are_unique_are_found_in_any_folder(tmp_path):
    touch(tmp_path, "flat/1.png", "0/2.png", "x/3.png", "y/3.png")
    assert join(tmp_path, ["0/1.png", "0/2.png", "1/3.png"], Layout(unique_names=True)) == [
        "flat/1.png", "0/2.png", "several files: x/3.png and y/3.png",
    ]  # fmt: skip


def test_best_fit_keeps_the_file(tmp_path):
    """A row that names the file goes before one that names another format or only the name."""
    touch(tmp_path, "x/a.png", "b.png")
    builder = TableBuilder("set")
    for i, cell in enumerate(["a", "x/a.dcm", "x/a.png", "b.dcm", "b"]):
        builder.add(cell, {}, patient=f"p{i}", image=cell)
    located = locate("set", builder.table(), FileIndex(tmp_path))
    assert [row.key for row in located.rows] == ["set/p2//x/a.png", "set/p4//b"]
    assert {drop.path: (drop.reason, drop.detail) for drop in located.dropped} == {
        "a": ("the file of another row", "x/a.png"),
        "x/a.dcm": ("the file of another row", "x/a.png"),
        "b.dcm": ("the file of another row", "b.png"),
    }


folders = st.sampled_from(["p1", "p2", "s1", "s2", "train"])
paths = st.builds(
    lambda above, name: "/".join([*above, f"{name}.png"]),
    st.lists(folders, min_size=1, max_size=3),
    st.sampled_from(["v1", "v2"]),
)


@given(
    rows=st.lists(paths, unique=True, min_size=1, max_size=8),
    prefix=st.sampled_from(["", "SET/", "data/SET/"]),
    roots=st.sampled_from([[""], ["x/"], ["x/", "y/"], ["x/z/", "y/z/"]]),
    where=st.lists(st.integers(0, 1), min_size=8, max_size=8),
    lost=st.sets(st.integers(0, 7)),
)
def test_no_row_gets_the_file_of_another_row(tmp_path_factory, rows, prefix, roots, where, lost):
    """Tables with folders in front, files below folders of their own, some of them missing."""
    truth = {}
    for i, (row, at) in enumerate(zip(rows, where, strict=False)):
        truth[prefix + row] = None if i in lost else roots[at % len(roots)] + row
    there = [path for path in truth.values() if path]
    folder = touch(tmp_path_factory.mktemp("tree") / "root", *there, "unrelated.jpg")
    found = dict(zip(truth, find_files(list(truth), FileIndex(folder)), strict=True))
    for cell, file in found.items():
        assert file.path in ("", truth[cell]), cell
    if not prefix and roots == [""]:  # as written: whatever is there is found
        assert all(found[cell] == Found(path) for cell, path in truth.items() if path)


@given(
    number=st.integers(1, 40),
    prefix=st.sampled_from(["", "SET/", "/data/SET/"]),
    roots=st.sampled_from([[""], ["x"], ["x", "y"], ["x/z", "y/z"]]),
    lost=st.sets(st.integers(0, 39), max_size=20),
)
def test_every_file_under_one_rewriting_is_found(tmp_path_factory, number, prefix, roots, lost):
    truth = {}
    for i in range(number):
        row = f"train/p{i:02}/s1/v1.png"
        root = roots[i % len(roots)]
        truth[prefix + row] = None if i in lost else f"{root}/{row}".lstrip("/")
    there = [path for path in truth.values() if path]
    folder = touch(tmp_path_factory.mktemp("tree") / "root", *there, "unrelated.jpg")
    found = dict(zip(truth, find_files(list(truth), FileIndex(folder)), strict=True))
    few = prefix and roots != [""] and (len(there) < joining.PROOF or 2 * len(there) < number)
    for cell, path in truth.items():
        assert found[cell].path == ("" if few else path or ""), cell


def test_no_match_is_refused_in_one_line_that_says_why(tmp_path):
    builder = TableBuilder("mine")
    builder.add("IMG_1.png", {}, patient="p", image="IMG_1.png")
    index = FileIndex(touch(tmp_path, "img_1.png", "rest.zip"))
    with pytest.raises(DataError) as refused:
        locate("mine", builder.table(), index)
    assert str(refused.value) == (
        f"no row of mine matches a file in {tmp_path}: the table has 'IMG_1.png' (no file: differs "
        "in case from img_1.png), the folder has 'img_1.png'; 1 archive: unpack it (first: "
        "rest.zip)"
    )
