from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import INDEX
from rfxray.data.dataset import open_dataset
from rfxray.errors import ConfigError, DataError
from rfxray.sampling import Settings, requests
from rfxray.sampling.file_names import file_stem

ROOT = Path(__file__).resolve().parents[3]
FAST = Settings(steps=2, solver="euler", guidance=1.0, batch_size=4)
ASKED = {"view": "PA", "sex": "F", "age": 40, "edema": "present"}


def test_balanced_requests_cover_subgroups_equally():
    table = requests.balanced(("sex", "race", "view", "age_decade"), {"edema": "present"})
    attributes, known = table.rows(np.arange(400))
    cells = Counter(
        (*row[[INDEX["sex"], INDEX["race"], INDEX["view"]]].astype(int), int(row[3]) // 10)
        for row in attributes
    )
    assert len(cells) == 2 * 4 * 3 * 7
    assert set(cells.values()) == {2, 3}
    ages = attributes[:, INDEX["age"]]
    assert 20 <= ages.min() < 22
    assert 87 < ages.max() <= 89
    assert set(ages % 10) == set(range(10))
    assert known[:, INDEX["edema"]].all()
    # The largest index needs no earlier one, and a row does not depend on the other indices.
    far = np.array([7, 2**32 - 1])
    np.testing.assert_array_equal(table.rows(far)[0][0], attributes[7])
    assert len(table.attributes.values) == 2 * 4 * 3 * 7
    again = requests.balanced(("sex", "race", "view", "age_decade"), {"edema": "present"}, seed=1)
    assert (again.rows(np.arange(400))[0] != attributes).any(1).mean() > 0.8


def test_no_finding_means_that_all_twelve_are_absent_by_every_door(tmp_path):
    """By --set, a table, --balance, a mapping, and arrays that leave the pathologies out."""
    normal = {"no_finding": "present"}
    (tmp_path / "asked.csv").write_text("no_finding\n1\n")
    last = INDEX["no_finding"]
    only = vocabulary.Attributes(*(np.zeros((1, 19), kind) for kind in (np.float32, bool)))
    only.values[:, last], only.known[:, last] = 1, True
    doors = {
        "set": requests.alike(vocabulary.parse(["no_finding=present"])),
        "csv": requests.from_csv(tmp_path / "asked.csv", {}),
        "mapping": requests.alike(normal),
        "arrays": requests.Requests(only),
    }
    pathologies = [INDEX[name] for name in vocabulary.PATHOLOGY_NAMES]
    for door, table in doors.items():
        values, known = table.rows(np.arange(2))
        assert known[:, [*pathologies, last]].all(), door
        assert known.sum() == 2 * 13, door
        assert values.sum() == values[:, last].sum() == 2, door
    balanced = requests.balanced(("no_finding",), {}).rows(np.arange(2))
    assert balanced.known[balanced.values[:, last] == 1][:, pathologies].all()
    for wrong in ({"edema": "present"}, {"fracture": 1}):
        with pytest.raises(ConfigError, match="contradicts"):
            requests.alike(normal | wrong)


@pytest.mark.parametrize(
    "sizes", [(2,), (2, 4), (4, 2), (2, 2, 2), (2, 4, 3, 7), (3, 9, 2, 6), (7, 2, 9, 4, 2)]
)
def test_spread_has_every_cell_once_and_every_prefix_is_balanced_in_each_axis(sizes):
    cells = requests.spread(sizes)
    assert len({*map(tuple, cells)}) == len(cells) == np.prod(sizes)
    for column, size in zip(cells.T, sizes, strict=True):
        counts = np.cumsum(column[:, None] == np.arange(size), axis=0)
        assert np.ptp(counts, axis=1).max() <= 1


def test_a_few_balanced_requests_show_both_sexes_and_every_race():
    table = requests.balanced(("sex", "race", "view", "age_decade"), {})
    few = table.rows(np.arange(16)).values
    for name, counts in (("sex", [8, 8]), ("race", [4] * 4), ("view", [6, 5, 5])):
        assert np.bincount(few[:, INDEX[name]].astype(int)).tolist() == counts
    assert len(np.unique(few[:8][:, [INDEX["sex"], INDEX["race"]]], axis=0)) == 8


def test_csv_rows_are_requested_in_turn(tmp_path):
    file = tmp_path / "asks.csv"
    file.write_text("View,age,Pleural Effusion\nAP,63,present\nPA,,absent\n")
    table = requests.from_csv(file, {"sex": "M"})
    values, known = table.rows(np.array([0, 1, 2]))
    assert vocabulary.decode(table.rows(np.array([0])).rows(0)) == {
        **{"view": "AP", "sex": "M", "age": 63.0, "pleural_effusion": "present"},
        "no_finding": "absent",
    }
    assert not known[1, INDEX["age"]]
    np.testing.assert_array_equal(values[2], values[0])


def test_csv_cells_are_read_as_tables_spell_them(tmp_path):
    file = tmp_path / "asks.csv"
    text = 'Sex,"Age",cardiomegaly,edema,image_id,Path\r\n'
    text += "Female,063Y,1.0,-1.0,a,p/a.png\r\n\r\nMale,n/a,0.0,,b,\r\n"
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    table = requests.from_csv(file, {})
    shown = [vocabulary.decode(table.attributes.rows(i)) for i in range(2)]
    first = {"sex": "F", "age": 63.0, "cardiomegaly": "present", "no_finding": "absent"}
    assert shown == [first, {"sex": "M", "cardiomegaly": "absent"}]
    assert table.notes == ({"image_id": "a", "path": "p/a.png"}, {"image_id": "b", "path": ""})
    nothing = requests.from_csv(file, {}, anonymous=True)
    assert nothing.notes == ()


def test_several_images_of_a_row_follow_each_other(tmp_path):
    file = tmp_path / "asks.csv"
    file.write_text("view,file\nPA,a.png\nAP,é b\n")
    table = requests.from_csv(file, {}, per_row=3, name_column="file")
    assert table.images == 6
    views = table.rows(np.arange(9)).values[:, INDEX["view"]]
    assert views.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0]
    assert [table.name(i) for i in range(6)] == ["a_0", "a_1", "a_2", "é b_0", "é b_1", "é b_2"]
    single = requests.from_csv(file, {}, name_column="file")
    assert [single.name(i) for i in range(2)] == ["a", "é b"]


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "a/b", "a\\b", "/etc/passwd", "..", "../a", ".hidden", "a\tb", "a\0b", "a:b"),
        *("a*", "a?", '"a"', "a|b", "<a>", "-rf", "a.", "x" * 181, "é" * 91, "CON", "con.txt"),
        *("grid", "Nearest.png", "samples.json", "plan", ".png", "~a", "$a", "a\u202eb", "\ud83d"),
    ],
)
def test_unsafe_name_of_a_file_is_refused(name):
    with pytest.raises(ConfigError):
        file_stem(name)


def test_column_of_paths_names_no_files(tmp_path):
    file = tmp_path / "asks.csv"
    file.write_text("path,view\nward/1.png,PA\n")
    with pytest.raises(ConfigError, match=r"line 2, column path: .*path separator"):
        requests.from_csv(file, {}, name_column="path")


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (["a", "a"], "line 3.*line 2"),
        (["Chest", "chEST.png"], "line 3.*line 2"),
        (["\u00e9", "e\u0301"], "line 3.*line 2"),
        (["a.png", "b/c.png"], "line 3, column file.*path separator"),
        (["a", ""], "line 3, column file.*empty"),
    ],
)
def test_names_that_collide_or_leave_the_folder_are_refused(tmp_path, names, part):
    file = tmp_path / "asks.csv"
    file.write_text("file,view\n" + "".join(f"{name},PA\n" for name in names))
    with pytest.raises(ConfigError, match=part):
        requests.from_csv(file, {}, name_column="file")


@pytest.mark.parametrize(
    ("text", "kind", "part"),
    [
        ("", DataError, "no row"),
        ("view\n", DataError, "no row"),
        ("viev\nPA\n", ConfigError, "viev"),
        ("view\nPA\nupside\n", ConfigError, "line 3.*upside"),
        ("no_finding,edema\npresent,present\n", ConfigError, "line 2.*contradicts"),
        ("view,sex\nPA,F\nPA,Z\n", ConfigError, "asks.csv, line 3, column sex: .*'Z'"),
        ("view,age\nPA,-inf\n", ConfigError, "line 2, column age: .*-inf"),
        ("view,patient\nPA,DOE\n", ConfigError, "line 1, column 2: .*no attribute 'patient'"),
        ("view,\nPA,\n", ConfigError, "line 1, column 2: .*no attribute ''"),
        ("image_id,Image ID\na,b\n", ConfigError, "two columns"),
        ("view,view\nPA,AP\n", ConfigError, "two columns"),
        ('view\n"PA\n', DataError, "cannot be read as a table"),
        ("view,age\nPA\n", ConfigError, "line 2: not the 2 cells"),
        ("age,Age\n30,40\n", ConfigError, "two columns"),
    ],
)
def test_invalid_csv_is_rejected(tmp_path, text, kind, part):
    file = tmp_path / "asks.csv"
    file.write_text(text)
    with pytest.raises(kind, match=part):
        requests.from_csv(file, {})


def test_attribute_in_both_column_and_set_is_rejected(tmp_path):
    file = tmp_path / "asks.csv"
    file.write_text("view,Age\nPA,30\n")
    with pytest.raises(ConfigError, match="column age, which --set gives too"):
        requests.from_csv(file, {"age": "40"})


def test_requests_from_a_data_set_copy_its_known_attributes(tiny_data):
    table = requests.from_dataset(open_dataset(tiny_data), "train", {"sex": "F"})
    assert table.attributes.values.shape == (50, 19)
    shown = vocabulary.decode(table.attributes.rows(7))
    assert (shown["view"], shown["age"], shown["sex"]) == ("AP", 7.0, "F")
    assert "pneumonia" not in shown  # uncertain
    few = requests.from_dataset(open_dataset(tiny_data), "train", {"sex": "F"}, n=8)
    np.testing.assert_array_equal(few.attributes.values, table.attributes.values[:8])
    for first in (30, 48, 1048):  # the last two wrap around
        some = requests.from_dataset(open_dataset(tiny_data), "train", {"sex": "F"}, 8, first)
        assert len(some.attributes.values) == 8
        numbers = np.arange(first, first + 8)
        for part, whole in zip(some.rows(numbers), table.rows(numbers), strict=True):
            np.testing.assert_array_equal(part, whole)
