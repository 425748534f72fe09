import gzip
import os

import numpy as np
import pytest

from data_prep.sources.folder import read_folder
from data_prep.tables.columns import parse_columns, parse_map
from data_prep.tables.csv_table import MISFIT
from data_prep.tables.description import Description
from data_prep.tables.table import make_key
from rfxray.attributes.states import State, known_from_states
from rfxray.attributes.vocabulary import INDEX, PATHOLOGY_NAMES, Attributes, decode, encode
from rfxray.errors import ConfigError, DataError


def touch(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x" * 10)
    return folder


def read(folder, table, columns=("image=image",), mapped=(), source="other"):
    metadata = folder.parent / "table.csv"
    metadata.write_text(table, encoding="utf-8")
    described = Description(metadata, parse_columns(columns), parse_map(mapped), source)
    return read_folder(folder, described, "set")


def attributes(row):
    states = np.frombuffer(row.states, np.int8)
    return decode(Attributes(np.frombuffer(row.attributes, np.float32), known_from_states(states)))


@pytest.fixture
def images(tmp_path):
    return touch(tmp_path / "images", "a.png", "b.jpg", "deep/c.dcm", "deep/er/d.PNG", "notes.txt")


def test_rows_without_files_and_files_without_rows_are_listed(images):
    table = read(images, "image\na\nmissing\na.png\n\n,\nb\n")
    assert [row.path for row in table.rows] == ["a.png", "b.jpg"]
    assert [(drop.path or drop.detail, drop.reason) for drop in table.dropped] == [
        ("table.csv line 6", "a row that names no image"),
        ("missing", "no file"),
        ("a.png", "the file of an earlier row"),
        ("deep/c.dcm", "no row in the table"),
        ("deep/er/d.PNG", "no row in the table"),
    ]
    assert (table.notes["rows"], table.notes["files"], table.notes["matched"]) == (5, 4, 2)


def reasons(table):
    return {
        drop.path or drop.detail: drop.reason
        + (f": {drop.detail}" if drop.detail and drop.path else "")
        for drop in table.dropped
    }


def test_file_of_a_dropped_row_is_not_listed_as_rowless(tmp_path):
    images = touch(tmp_path / "images", "x/a.png", "y/a.png", "b.png", "c.png")
    table = read(images, "image\na\nb\n")
    assert reasons(table) == {
        "a": "several files: x/a.png and y/a.png",
        "c.png": "no row in the table",
    }


def test_row_does_not_take_the_file_of_another_path_with_the_same_ending(tmp_path):
    images = touch(tmp_path / "images", "p1/1.png", "p2/2.png", "3.png")
    table = read(
        images,
        "image,who\ntest/p1/1.png,T1\ntrain/p1/1.png,P1\ntest/p2/2.png,T2\np2/2.png,P2\n3,P3\n",
        ["image=image", "patient=who"],
    )
    assert [row.key for row in table.rows] == ["set/P2//p2/2.png", "set/P3//3"]
    assert reasons(table) == {
        "test/p1/1.png": "no file",
        "train/p1/1.png": "no file",
        "test/p2/2.png": "no file",
        "p1/1.png": "no row in the table",
    }


@pytest.mark.parametrize(
    ("rows", "kept", "said"),
    [
        ("a,p1,F\na.png,p1,F\n", 1, {"a.png": "the file of an earlier row"}),
        ("a,p1,F\na.png,,F\n", 1, {"a.png": "the file of an earlier row"}),
        ("a,p1,F\na.png,p1,M\n", 1, {"a.png": "contradicts an earlier row"}),
        ("a,,F\na.png,,M\n", 1, {"a.png": "contradicts an earlier row"}),
        (
            "a,p1,F\na.png,p2,F\n",
            0,
            dict.fromkeys(("a", "a.png"), "contradicts another row: the patients differ"),
        ),
    ],
)
def test_contradicting_rows_of_one_image_are_dropped(tmp_path, rows, kept, said):
    images = touch(tmp_path / "images", "a.png", "b.png")
    columns = ["image=image", "patient=who", "sex=sex"]
    table = read(images, f"image,who,sex\n{rows}b,p9,M\n", columns)
    assert [row.path for row in table.rows] == ["a.png"] * kept + ["b.png"]
    assert reasons(table) == said
    contradictions = [reason for reason in said.values() if reason.startswith("contradicts")]
    assert table.notes["contradicting"] == len(contradictions)
    assert table.notes["patients"] == kept + 1


@pytest.mark.parametrize(
    ("header", "row", "fits"),
    [
        ("view,image", "AP", False),
        ("image,view,age,notes", "b,60,fine", False),  # it is unknown which cell is missing
        ("image,view,age,", "b,AP,60", True),  # the header of NIH ends in a comma, its rows may not
        ("image,view,age,", "b,AP,60,", True),
        ("image,view,age", "b,AP,60,,", True),
        ("image,view,age", "b,AP,60,x", False),
    ],
)
def test_rows_that_do_not_fit_the_header_are_dropped(images, header, row, fits):
    first = ",".join("a" if name == "image" else "" for name in header.split(","))
    table = read(images, f"{header}\n{first}\n{row}\n", ["image=image", "view=view"])
    assert len(table.rows) == 1 + fits
    assert reasons(table).get("table.csv line 3") == (None if fits else MISFIT)


def test_cells_become_attributes_and_states(images):
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
    counts = {"derived": 2, "contradicted": 0, "doubted": 0, "implied": 0}
    assert table.notes["no_finding"] == counts


def test_no_finding_is_derived_from_the_pathologies(images):
    names = [*PATHOLOGY_NAMES, "no_finding"]
    header = ",".join(["image", *names])
    rows = [
        ["a", *["0"] * 12, ""],  # all absent: derived
        ["b", "1", *[""] * 11, "1"],  # contradicts: the pathology wins
        ["c", *[""] * 12, "1"],  # given and not contradicted
    ]
    table = read(
        images,
        "\n".join([header, *map(",".join, rows)]),
        ["image=image", *(f"{name}={name}" for name in names)],
    )
    assert [attributes(row)["no_finding"] for row in table.rows] == ["present", "absent", "present"]
    counts = {"derived": 1, "contradicted": 1, "doubted": 0, "implied": 1}
    assert table.notes["no_finding"] == counts


NF, BLANK, OFF = State.NEGATIVE_NO_FINDING, State.UNLABELLED, State.NEGATIVE


@pytest.mark.parametrize(
    ("cells", "of_pathologies", "of_no_finding"),
    [
        ([""] * 12, [NF] * 12, State.POSITIVE),
        (["0", *[""] * 11], [OFF, *[NF] * 11], State.POSITIVE),
        (["-1", "0", *[""] * 10], [State.UNCERTAIN, OFF, *[BLANK] * 10], State.UNCERTAIN),
        (["1", "-1", *[""] * 10], [State.POSITIVE, State.UNCERTAIN, *[BLANK] * 10], OFF),
        (["perhaps", *[""] * 11], [BLANK] * 12, State.POSITIVE),  # not understood: not blank
        ([""] * 11, [BLANK] * 12, State.POSITIVE),  # a table without Fracture
    ],
)
def test_labelled_no_finding_makes_pathologies_absent_if_the_table_has_all_twelve(
    images, cells, of_pathologies, of_no_finding
):
    names = [*PATHOLOGY_NAMES[: len(cells)], "no_finding"]
    text = f"image,{','.join(names)}\na,{','.join([*cells, '1'])}\n"
    table = read(images, text, ["image=image", *(f"{name}={name}" for name in names)])
    states, origins, values = (
        np.frombuffer(getattr(table.rows[0], field), dtype)
        for field, dtype in (("states", np.int8), ("origins", np.uint8), ("attributes", "<f4"))
    )
    columns = [INDEX[name] for name in PATHOLOGY_NAMES]
    assert states[columns].tolist() == of_pathologies
    assert states[INDEX["no_finding"]] == of_no_finding
    assert values[INDEX["no_finding"]] == (of_no_finding == State.POSITIVE)
    assert {table.origins[i] for i in origins[states == NF]} <= {"column no_finding"}
    assert (origins[states == BLANK] == 0).all()
    # What is known of a finding agrees with what a request for it would conclude.
    shown = attributes(table.rows[0])
    concluded = decode(encode(shown))
    if of_pathologies != [BLANK] * 12:
        assert concluded == shown


def test_closed_list_of_all_twelve_with_no_finding_in_it_makes_them_absent(images):
    metadata = images.parent / "table.csv"
    metadata.write_text("image,found\na,No Finding\nb,Edema\n")
    columns = {"image": "image", "findings": "found"}
    described = Description(metadata, columns, closed=PATHOLOGY_NAMES)
    table = read_folder(images, described, "set")
    states = np.stack([np.frombuffer(row.states, np.int8) for row in table.rows])
    columns = [INDEX[name] for name in PATHOLOGY_NAMES]
    assert states[0, columns].tolist() == [NF] * 12
    assert NF not in states[1]


def test_a_labeller_who_denies_no_finding_says_of_no_pathology_that_it_is_absent(images):
    """Nothing on the closed list: that is what makes No Finding present, not the labeller."""
    metadata = images.parent / "table.csv"
    metadata.write_text("image,found,normal\na,Support Devices,0\n")
    columns = {"image": "image", "findings": "found", "no_finding": "normal"}
    table = read_folder(
        images, Description(metadata, columns, closed=(*PATHOLOGY_NAMES, "support_devices")), "set"
    )
    states = np.frombuffer(table.rows[0].states, np.int8)
    columns = [INDEX[name] for name in PATHOLOGY_NAMES]
    assert states[columns].tolist() == [State.NEGATIVE_CLOSED_VOCABULARY] * 12


def test_source_comes_from_a_column_or_the_default(images):
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


def test_placeholders_are_not_patient_or_study_ids(images):
    table = read(
        images,
        "image,p,s\na,nan,N/A\nb, Unknown ,none\nc,NULL,7\n",
        ["image=image", "patient=p", "study=s"],
    )
    assert [row.key for row in table.rows] == ["set/a//a", "set/b//b", "set/c/7/c"]
    assert table.notes["without_patient"] == 3


def test_key_can_be_split_into_its_parts():
    key, patient = make_key("set", "a/b", "", "deep/c.png")
    assert key.split("/", 3) == ["set", "a%2Fb", "", "deep/c.png"]
    assert key.startswith(patient + "/")
    key, _ = make_key("set", "p", "s", b"\xff.png".decode("utf-8", "surrogateescape"))
    key.encode()  # a file name that is not UTF-8 must still give a key that protobuf accepts


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("zipped", [False, True])
def test_reads_delimiters_quotes_gzip_and_byte_order_mark(images, tmp_path, delimiter, zipped):
    text = delimiter.join(["image", '"my ""view"""']) + "\r\n" + delimiter.join(['"a"', "PA"])
    path = tmp_path / ("t.csv.gz" if zipped else "t.csv")
    data = ("\ufeff" + text).encode()
    path.write_bytes(gzip.compress(data) if zipped else data)
    table = read_folder(images, Description(path, {"image": "image", "view": 'my "view"'}), "set")
    assert attributes(table.rows[0])["view"] == "PA"


def test_official_split_is_kept_and_unknown_split_is_refused(images):
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
        read_folder(tmp_path / "nowhere", Description(tmp_path, columns), "set")
    with pytest.raises(DataError, match="no table"):
        read_folder(images, Description(tmp_path / "nothing.csv", columns), "set")
    with pytest.raises(DataError, match=r"no file ending in \.png"):
        read_folder(touch(tmp_path / "texts", "a.txt"), Description(tmp_path, columns), "set")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match=r"no table .*: it is not a regular file"):
        read_folder(images, Description(tmp_path / "pipe.csv", columns), "set")
    (tmp_path / "latin.csv").write_bytes("image,name\na,M\u00fcller\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        read_folder(images, Description(tmp_path / "latin.csv", columns), "set")
    whole = gzip.compress(b"image\n" + b"a\n" * 1000)
    (tmp_path / "torn.csv.gz").write_bytes(whole[:-12])
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_folder(images, Description(tmp_path / "torn.csv.gz", columns), "set")
