"""Several folders of one's own in one run of harmonise, each described by its own flags."""

import json

import pyarrow.parquet as pq
import pytest

from data_prep.harmonise import main
from tests.data_prep import raw_trees


def folder(root, name, pictures, header, rows):
    for file, picture in pictures.items():
        raw_trees.put(root / name / f"{file}.png", raw_trees.eight(picture))
    table = root / f"{name}.csv"
    raw_trees.table(table, header, rows)
    return [f"--folder={name}={root / name}", f"--metadata={table}"]


@pytest.fixture
def one(tmp_path):
    rows = [["a", "P1", "AP semi-erect", "Cardiomegaly|Effusion"], ["b", "P2", "portable", "gout"]]
    flags = folder(tmp_path, "one", {"a": 34, "b": 35}, ["file", "who", "how", "labels"], rows)
    columns = ["--column=image=file", "--column=patient=who", "--column=view=how"]
    return [*flags, *columns, "--findings=labels", "--map=view:portable=AP"]


@pytest.fixture
def two(tmp_path):
    rows = [["c", "P1", "['edema']", "LAT"], ["d", "P3", "['normal']", "portable"]]
    flags = folder(tmp_path, "two", {"c": 36, "d": 37}, ["image", "id", "seen", "pos"], rows)
    columns = ["--column=image=image", "--column=patient=id", "--column=view=pos"]
    return [*flags, *columns, "--findings=seen", "--closed-list=seen", "--set-source=vindr"]


def rest(out):
    return ["--out", str(out), "--size", "48", "--validation", "0", "--test", "0", "--workers", "1"]


def fails(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 78
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("data_prep.harmonise: error: ")


def test_each_folder_is_read_by_the_flags_that_follow_it(one, two, tmp_path, capsys):
    out = tmp_path / "out"
    main([*rest(out), *two, *one])
    rows = {row["key"]: row for row in pq.read_table(out / "table.parquet").to_pylist()}
    assert {key: row["view"] for key, row in rows.items()} == {
        "one/P1//a": "AP",
        "one/P2//b": "AP",
        "two/P1//c": "lateral",
        "two/P3//d": None,  # --map of the other folder
    }
    names = ("cardiomegaly", "pleural_effusion", "edema", "no_finding", "pneumothorax")
    states = {key: [row[f"{name}_state"] for name in names] for key, row in rows.items()}
    unknown = "unlabelled"
    assert states == {
        "one/P1//a": ["positive", "positive", unknown, "negative", unknown],
        "one/P2//b": [unknown] * 5,
        "two/P1//c": [unknown, unknown, "positive", "negative", unknown],
        "two/P3//d": [unknown, unknown, "negative_closed_vocabulary", "positive", unknown],
    }
    assert rows["two/P1//c"]["edema_origin"] == "column seen"
    manifest = json.loads((out / "manifest.json").read_text())
    assert list(manifest["notes"]["sets"]) == ["one", "two"]
    assert manifest["notes"]["sets"]["one"]["not_understood"] == {"findings": {"gout": 1}}
    assert manifest["options"]["own"]["two"]["closed_list"] == ["seen"]
    err = capsys.readouterr().err
    assert "one: findings: 'gout' × 1 not understood, taken as unknown; if it fits: --map" in err
    assert "two: view: 'portable' × 1 not understood" in err
    assert "--map view:portable=AP" in err
    main([*rest(out), *one, *two])  # the order of the folders does not matter
    assert "complete already" in capsys.readouterr().err


def test_flags_of_a_single_folder_may_stand_anywhere(one, tmp_path, capsys):
    shuffled = [*reversed(one), *rest(tmp_path / "out"), "--column=veiw=how"]
    assert "no column or attribute 'veiw'" in fails(shuffled, capsys)


def test_flags_of_several_folders_have_to_follow_one(one, two, tmp_path, capsys):
    out = rest(tmp_path / "out")
    line = fails([*out, "--column=view=how", *one, *two], capsys)
    assert line.startswith("--column is before the first --folder")
    assert "--folder one is given twice" in fails([*out, *one, *one], capsys)
    assert "two needs its table" in fails([*out, *one, two[0]], capsys)
    twice = fails([*out, *one, two[1], *two], capsys)
    assert "--metadata is given twice for one" in twice
    assert not (tmp_path / "out").exists()
