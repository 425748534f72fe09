import functools
import hashlib
import os
import shutil

import pyarrow.parquet as pq
import pytest

from data_prep.harmonise import main
from data_prep.images import content, records, survey
from data_prep.images.decoder import decoder
from data_prep.tables.table import TableBuilder
from rfxray.data import writing
from rfxray.data.plan import Dropped
from tests.data_prep import raw_trees

NAMES = [f"{i}.png" for i in range(5)]


@pytest.fixture
def folder(tmp_path):
    """Five radiographs; the second is torn, and as long as it would be if it were not."""
    for i, name in enumerate(NAMES):
        raw_trees.put(tmp_path / "files" / name, raw_trees.pictures()[i])
    torn = tmp_path / "files" / NAMES[1]
    whole = torn.read_bytes()
    (tmp_path / "whole.png").write_bytes(whole)
    torn.write_bytes(whole[: len(whole) // 2] + b"\0" * (len(whole) - len(whole) // 2))
    return tmp_path / "files"


@pytest.fixture
def rows(folder):
    builder = TableBuilder("mine")
    for name in NAMES:
        builder.add(name, {}, patient=name, image=name)
    return builder.table().rows


@pytest.fixture
def looked(monkeypatch):
    """Names of the files that were decoded."""
    names = []
    decode = decoder().decode

    def noted(path, size):
        names.append(os.path.basename(path))
        return decode(path, size)

    monkeypatch.setattr(decoder(), "decode", noted)
    return names


def look(rows, folder, out, workers=1):
    """Runs a survey, two files to a chunk; what it says of each file."""
    run = functools.partial(writing.run_tasks, workers=workers)
    paths = survey.survey(rows, {"mine": str(folder)}, out, run=run, command="test")
    assert sorted(out.iterdir()) == sorted(paths)
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(survey, "CHUNK", 2)


def test_survey_notes_length_time_and_content_of_every_file(rows, folder, tmp_path):
    for name, seen in zip(NAMES, look(rows, folder, tmp_path / "survey"), strict=True):
        file = folder / name
        assert seen["key"] == f"mine/{name}//{name}"
        assert seen["length"] == file.stat().st_size
        assert seen["mtime_ns"] == file.stat().st_mtime_ns
        assert seen["content"] == hashlib.sha256(file.read_bytes()).digest()
        assert seen["notes"] == []
        assert seen["reason"].startswith("does not decode: ") == (name == NAMES[1])
        assert (seen["thumbnail"] is None) == (name == NAMES[1])


def test_unchanged_files_are_neither_decoded_nor_read(rows, folder, tmp_path, looked, monkeypatch):
    first = look(rows, folder, tmp_path / "survey")
    before = {path: path.read_bytes() for path in (tmp_path / "survey").iterdir()}
    assert looked == NAMES
    monkeypatch.setattr(content, "sha256", pytest.fail)
    assert look(rows, folder, tmp_path / "survey") == first
    assert looked == NAMES
    assert {path: path.read_bytes() for path in (tmp_path / "survey").iterdir()} == before


def test_file_mended_in_place_with_the_same_length_is_looked_at_again(
    rows, folder, tmp_path, looked
):
    first = look(rows, folder, tmp_path / "survey")
    looked.clear()
    os.utime(folder / NAMES[1], ns=(1, 1))
    shutil.copyfile(tmp_path / "whole.png", folder / NAMES[1])
    assert (folder / NAMES[1]).stat().st_size == first[1]["length"]
    mended = look(rows, folder, tmp_path / "survey")
    assert looked == [NAMES[1]]  # not the other file of its chunk
    assert mended[1]["reason"] == ""
    assert mended[1]["thumbnail"] is not None
    assert [mended[i] for i in (0, 2, 3, 4)] == [first[i] for i in (0, 2, 3, 4)]


def test_good_file_that_is_replaced_by_another_is_looked_at_again(rows, folder, tmp_path, looked):
    first = look(rows, folder, tmp_path / "survey")
    looked.clear()
    raw_trees.put(folder / NAMES[2], raw_trees.pictures()[9])
    again = look(rows, folder, tmp_path / "survey")
    assert looked == [NAMES[2]]
    assert again[2]["pixels"] != first[2]["pixels"]


def test_copied_files_with_new_times_are_not_decoded_again(rows, folder, tmp_path, looked):
    first = look(rows, folder, tmp_path / "survey")
    looked.clear()
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for i, name in enumerate(NAMES):
        os.utime(copy / name, ns=(0, 10**18 + i))
    again = look(rows, copy, tmp_path / "survey")
    assert looked == []
    assert [row["mtime_ns"] for row in again] == [10**18 + i for i in range(5)]
    timeless = [[{**row, "mtime_ns": 0} for row in rows] for rows in (first, again)]
    assert timeless[0] == timeless[1]


def test_times_are_noted_so_that_a_copy_is_read_only_once(rows, folder, tmp_path, monkeypatch):
    look(rows, folder, tmp_path / "survey")
    os.utime(folder / NAMES[3], ns=(0, 10**18))
    again = look(rows, folder, tmp_path / "survey")
    monkeypatch.setattr(content, "sha256", pytest.fail)
    assert look(rows, folder, tmp_path / "survey") == again


def test_missing_file_is_refused_and_looked_at_again(rows, folder, tmp_path, looked):
    first = look(rows, folder, tmp_path / "survey")
    (folder / NAMES[4]).rename(tmp_path / "away.png")
    gone = look(rows, folder, tmp_path / "survey")
    assert gone[4]["reason"] == "unreadable: No such file or directory"
    assert (gone[4]["content"], gone[4]["length"]) == (None, None)
    (tmp_path / "away.png").rename(folder / NAMES[4])
    looked.clear()
    assert look(rows, folder, tmp_path / "survey") == first
    assert looked == [NAMES[4]]


def test_file_that_changes_while_it_is_read_is_refused_until_it_rests(
    rows, folder, tmp_path, monkeypatch
):
    decode = decoder().decode

    def growing(path, size):
        answer = decode(path, size)
        if path.endswith(NAMES[0]):
            with open(path, "ab") as file:
                file.write(b"more")
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(decoder(), "decode", growing)
        seen = look(rows, folder, tmp_path / "survey")
    assert seen[0]["reason"] == "changed while it was read"
    assert seen[0]["content"] is None
    assert look(rows, folder, tmp_path / "survey")[0]["reason"] == ""


def test_survey_after_changes_has_the_bytes_of_a_new_one(rows, folder, tmp_path):
    look(rows, folder, tmp_path / "survey")
    shutil.copyfile(tmp_path / "whole.png", folder / NAMES[1])
    os.utime(folder / NAMES[0], ns=(0, 10**18))
    (folder / NAMES[4]).unlink()
    look(rows, folder, tmp_path / "survey", workers=2)
    look(rows, folder, tmp_path / "other")
    for path in (tmp_path / "other").iterdir():
        assert path.read_bytes() == (tmp_path / "survey" / path.name).read_bytes()


def test_fifo_and_folder_have_no_content(tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    for name in ("fifo.png", ".", "absent"):
        assert content.stamp(str(tmp_path / name)) is None
        assert content.sha256(str(tmp_path / name)) is None


def test_record_of_a_file_that_changed_since_the_survey_is_dropped(rows, folder):
    digest = content.sha256(str(folder / NAMES[0]))
    same, other = rows[0]._replace(content=digest), rows[0]._replace(content=b"\0" * 32)
    made = list(records.make_records([same, other], {"mine": str(folder)}, 32))
    assert made[0]["key"] == same.key
    assert isinstance(made[1], Dropped)
    assert (made[1].stage, made[1].reason) == ("decode", "changed after it was surveyed")


def test_mended_file_is_another_plan_and_a_copy_with_new_times_is_not(tmp_path, capsys):
    root, out = raw_trees.write(tmp_path / "raw")["nih"], tmp_path / "out"
    file = min(root.rglob("*.png"))
    whole = file.read_bytes()
    file.write_bytes(whole[:200] + b"\0" * (len(whole) - 200))

    def harmonise(out):
        main([*("--set", f"nih={root}", "--out", str(out), "--size", "32", "--workers", "1")])

    def files():
        return {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    harmonise(out)
    assert "does not decode" in (out / "dropped.csv").read_text()
    before = files()
    for path in root.rglob("*.png"):
        os.utime(path, ns=(0, 10**18))
    harmonise(out)
    changed = {path for path, data in files().items() if data != before[path]}
    assert changed == set((out / "survey").iterdir())  # where the times are
    file.write_bytes(whole)  # of the same length
    with pytest.raises(SystemExit) as stopped:
        harmonise(out)
    assert stopped.value.code == 78
    assert "a data set of another plan" in capsys.readouterr().err
    harmonise(tmp_path / "new")
    assert "does not decode" not in (tmp_path / "new" / "dropped.csv").read_text()


def test_remarks_about_how_a_file_was_read_are_noted(tmp_path):
    flipped = {"PatientOrientation": ["R", "F"]}
    raw_trees.dicom(tmp_path / "a.dcm", raw_trees.pictures()[3], **flipped)
    builder = TableBuilder("mine")
    builder.add("a.dcm", {}, patient="p", image="a")
    (seen,) = look(builder.table().rows, tmp_path, tmp_path / "survey")
    assert seen["reason"] == ""
    assert seen["notes"] == ["unusual PatientOrientation: R\\F"]
