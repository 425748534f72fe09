import gzip

import numpy as np
import pytest

from data_prep.columns import parse_columns, parse_map
from data_prep.sources.folder import FileIndex, read_folder
from data_prep.table import make_key
from rfxray.conditioning import INDEX, PATHOLOGY_NAMES, decode
from rfxray.errors import ConfigError, DataError
from rfxray.record import State, known_from_states


def touch(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x" * 10)
    return folder


def read(folder, table, columns=("image=image",), mapped=(), source="other"):
    metadata = folder.parent / "table.csv"
    metadata.write_text(table, encoding="utf-8")
    return read_folder(folder, metadata, parse_columns(columns), parse_map(mapped), "set", source)


def attributes(row):
    states = np.frombuffer(row.states, np.int8)
    return decode(np.frombuffer(row.attributes, np.float32), known_from_states(states))


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
    ],
)
def test_a_cell_finds_its_file(images, cell, path):
    assert FileIndex(images).find(cell) == (path, "")


@pytest.mark.parametrize(
    "cell", ["e", "other/a.png", "deep/a.png", "notes.txt", "../images/a", "A"]
)
def test_a_cell_does_not_find_another_file(images, cell):
    assert FileIndex(images).find(cell) == ("", "no file")


def test_ambiguous_names_are_said(tmp_path):
    index = FileIndex(touch(tmp_path, "x/a.png", "y/a.png", "b.png", "b.dcm", "z/1.2.3.dcm"))
    assert index.find("a") == ("", "several files: x/a.png and y/a.png")
    assert index.find("x/a") == ("x/a.png", "")
    assert index.find("b")[1].startswith("several files")
    assert index.find("b.dcm") == ("b.dcm", "")
    assert index.find("1.2.3") == ("z/1.2.3.dcm", "")


def test_rows_and_files_without_each_other_are_listed(images):
    table = read(images, "image\na\nmissing\na.png\n\n,\nb\n")
    assert [row.path for row in table.rows] == ["a.png", "b.jpg"]
    assert [(drop.key, drop.reason) for drop in table.dropped] == [
        ("missing", "no file"),
        ("a.png", "the file of an earlier row"),
        ("line 6", "a row that names no image"),
        ("deep/c.dcm", "no row in the table"),
        ("deep/er/d.PNG", "no row in the table"),
    ]
    assert (table.notes["rows"], table.notes["files"], table.notes["matched"]) == (5, 4, 2)


def test_short_rows_are_dropped_not_shifted(images):
    table = read(images, "view,image\nPA,a\nAP\n", ["image=image", "view=view"])
    assert len(table.rows) == 1
    assert ("line 3", "a row with too few cells") in {(d.key, d.reason) for d in table.dropped}


def test_attributes_and_states(images):
    table = read(
        images,
        "image,proj,gender,years,c,e,x\n"
        "a,ap,m,063Y,1,0,9\n"
        "b,Frontal,?,,-1,,9\n"
        "c,oblique,o,414,maybe,1.0,9\n",
        ["image=image", "view=proj", "sex=gender", "age=years", "cardiomegaly=c", "edema=e"],
        mapped=["view:frontal=PA"],
    )
    assert [attributes(row) for row in table.rows] == [
        {
            "view": "AP",
            "sex": "M",
            "age": 63.0,
            "source": "other",
            "cardiomegaly": "present",
            "edema": "absent",
            "no_finding": "absent",
        },
        {"view": "PA", "source": "other"},
        {"source": "other", "edema": "present", "no_finding": "absent"},
    ]
    states = np.stack([np.frombuffer(row.states, np.int8) for row in table.rows])
    assert states[:, INDEX["cardiomegaly"]].tolist() == [
        *(State.POSITIVE, State.UNCERTAIN, State.UNLABELLED)
    ]
    assert states[:, INDEX["no_finding"]].tolist() == [
        *(State.NEGATIVE, State.UNLABELLED, State.NEGATIVE)
    ]
    assert table.notes["not_understood"] == {
        "view": {"oblique": 1},
        "sex": {"o": 1},
        "age": {"414": 1},
        "cardiomegaly": {"maybe": 1},
    }
    assert table.notes["no_finding"] == {"derived": 2, "contradicted": 0}


def test_no_finding_follows_the_pathologies(images):
    names = [*PATHOLOGY_NAMES, "no_finding"]
    header = ",".join(["image", *names])
    rows = [
        ["a", *["0"] * 12, ""],  # all absent: derived
        ["b", "1", *[""] * 11, "1"],  # contradicts: the pathology wins
        ["c", *[""] * 12, "1"],  # given, and nothing speaks against it
    ]
    table = read(
        images,
        "\n".join([header, *map(",".join, rows)]),
        ["image=image", *(f"{name}={name}" for name in names)],
    )
    assert [attributes(row)["no_finding"] for row in table.rows] == ["present", "absent", "present"]
    assert table.notes["no_finding"] == {"derived": 1, "contradicted": 1}


def test_source_may_stand_in_a_column_or_be_set(images):
    table = read(images, "image,s\na,nih\nb,\n", ["image=image", "source=s"], source="padchest")
    assert [attributes(row)["source"] for row in table.rows] == ["nih", "padchest"]


def test_keys_keep_ids_as_text(images):
    long = "20536686640136348236148679891455886468"
    table = read(
        images,
        f"image,p,s\na,{long},007\nb,7/8%,Ä ö\nc,,\n",
        ["image=image", "patient=p", "study=s"],
    )
    assert [(row.key, row.patient) for row in table.rows] == [
        (f"set/{long}/007/a", f"set/{long}"),
        ("set/7%2F8%25/Ä ö/b", "set/7%2F8%25"),
        ("set/c//c", "set/c"),
    ]
    assert table.notes["without_patient"] == 1


def test_a_key_comes_apart_again():
    key, patient = make_key("set", "a/b", "", "deep/c.png")
    assert key.split("/", 3) == ["set", "a%2Fb", "", "deep/c.png"]
    assert key.startswith(patient + "/")
    key, _ = make_key("set", "p", "s", b"\xff.png".decode("utf-8", "surrogateescape"))
    key.encode()  # a file name that is no UTF-8 still makes a key that protobuf takes


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("zipped", [False, True])
def test_delimiters_quotes_gzip_and_byte_order_mark(images, tmp_path, delimiter, zipped):
    text = delimiter.join(["image", '"my ""view"""']) + "\r\n" + delimiter.join(['"a"', "PA"])
    path = tmp_path / ("t.csv.gz" if zipped else "t.csv")
    data = ("\ufeff" + text).encode()
    path.write_bytes(gzip.compress(data) if zipped else data)
    table = read_folder(images, path, {"image": "image", "view": 'my "view"'}, {}, "set", "other")
    assert attributes(table.rows[0])["view"] == "PA"


def test_official_split_is_kept_and_an_odd_one_refused(images):
    columns = ["image=image", "split=fold"]
    table = read(
        images, "image,fold\na,Train\nb,valid\nc,holdout\n", columns, ["split:holdout=test"]
    )
    assert [row.split for row in table.rows] == ["train", "validation", "test"]
    with pytest.raises(ConfigError, match=r"split 'holdout'.*--map split:holdout=test"):
        read(images, "image,fold\na,holdout\n", columns)


@pytest.mark.parametrize(
    ("table", "columns", "kind", "said"),
    [
        ("image,projection\na,PA\n", ["image=image", "view=projektion"], ConfigError, "projection"),
        ("image\na\n", ["image=path"], ConfigError, "has no column 'path'; it has image"),
        ("image,image\na,b\n", ["image=image"], ConfigError, "2 columns 'image'"),
        ("image\na\n", ["view=image"], ConfigError, "--column image=HEADER"),
        ("image\nq\n", ["image=image"], DataError, "no row.*matches.*'q'.*'a.png'"),
        ("image\n", ["image=image"], DataError, "has no rows"),
        ("", ["image=image"], ConfigError, "has no column 'image'"),
    ],
)
def test_bad_tables_are_refused(images, table, columns, kind, said):
    with pytest.raises(kind, match=said):
        read(images, table, columns)


def test_unreadable_inputs_are_refused(images, tmp_path):
    columns = {"image": "image"}
    with pytest.raises(DataError, match="no folder"):
        read_folder(tmp_path / "nowhere", tmp_path, columns, {}, "set", "other")
    with pytest.raises(DataError, match="no table"):
        read_folder(images, tmp_path / "nothing.csv", columns, {}, "set", "other")
    with pytest.raises(DataError, match=r"no file ending in \.png"):
        read_folder(touch(tmp_path / "texts", "a.txt"), tmp_path, columns, {}, "set", "other")
    (tmp_path / "latin.csv").write_bytes("image,name\na,M\u00fcller\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        read_folder(images, tmp_path / "latin.csv", columns, {}, "set", "other")
    whole = gzip.compress(b"image\n" + b"a\n" * 1000)
    (tmp_path / "torn.csv.gz").write_bytes(whole[:-12])
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_folder(images, tmp_path / "torn.csv.gz", columns, {}, "set", "other")
