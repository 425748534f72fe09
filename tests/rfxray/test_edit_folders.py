"""What the folder of an edit holds: of whom, of which request, and after which end."""

import csv
import errno
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw

from rfxray import edit
from rfxray.outputs import files, lock
from rfxray.outputs.files import read_png
from rfxray.sampling import edits

FAST = ["--steps", "2", "--method", "flow", "--set", "cardiomegaly=present"]


def film(path, size=(48, 40), seed=0, text=""):
    """An 8-bit PNG of height × width pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]] / max(size)
    grey = 60 + 90 * y + 40 * np.sin(9 * x) + rng.normal(0, 4, size)
    image = Image.fromarray(np.clip(grey, 0, 225).astype(np.uint8))
    ImageDraw.Draw(image).text((8, 8), text, 255, font_size=28)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


@pytest.fixture
def run(trained):
    def command(out, *flags):
        edit.main([str(f) for f in ("--checkpoint", trained, "--out", out, *FAST, *flags)])

    return command


def state(folder):
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*.*")
        if path.is_file()
    }


@pytest.mark.parametrize("method", ["invert", "noise", "flow"])
@pytest.mark.parametrize("inpaint", [False, True])
def test_what_pads_the_radiograph_never_changes(trained, tmp_path, method, inpaint):
    if inpaint and method != "noise":
        return
    flags = ["--checkpoint", trained, "--out", tmp_path / "out", "--steps", 2, "--set", "view=PA"]
    flags += ["--image", film(tmp_path / "a.png"), "--method", method]
    flags += ["--solver", "euler"] if method == "invert" else []
    if inpaint:
        Image.new("L", (32, 32), 255).save(tmp_path / "all.png")
        flags += ["--inpaint", tmp_path / "all.png"]
    edit.main([str(f) for f in flags])
    before, after = (read_png(tmp_path / "out" / f"{name}.png") for name in ("original", "edited"))
    different = before != after
    assert different[:, 2:29].mean() > 0.5
    assert not different[:, :2].any()
    assert not different[:, 29:].any()
    assert not before[:, :2].any()


@pytest.mark.parametrize("flag", ["--mask", "--inpaint", "--keep"])
def test_masks_that_leave_nothing_of_the_radiograph_are_refused(trained, tmp_path, refusal, flag):
    picture = np.full((32, 32), 255 if flag == "--keep" else 0, np.uint8)
    picture[:, :2] = 255  # padding
    Image.fromarray(picture).save(tmp_path / "mask.png")
    flags = ["--checkpoint", trained, "--out", tmp_path / "out", "--set", "view=PA", "--steps", 2]
    flags += ["--image", film(tmp_path / "a.png"), flag, tmp_path / "mask.png"]
    code, line = refusal(edit.main, flags)
    assert code == 78
    assert f"{flag}: no pixel of the radiograph is left" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("anonymous", [False, True])
def test_the_name_of_a_file_is_in_edit_json_only_or_nowhere(run, tmp_path, anonymous):
    image = film(tmp_path / "WARD7" / "DOE^JOHN_MRN-12345.png")
    hole = film(tmp_path / "MRN-777" / "hole.png", (32, 32))
    flags = ["--image", image, "--dicom", "--keep", hole] + ["--anonymous"] * anonymous
    picture = np.zeros((32, 32), np.uint8)
    picture[:4] = 255
    Image.fromarray(picture).save(hole)
    run(tmp_path / "out", *flags)
    for file in (tmp_path / "out").iterdir():
        content = file.read_bytes()
        says = any(name in content for name in (b"DOE", b"12345", b"WARD7", b"MRN-777"))
        assert says == (file.name == "edit.json" and not anonymous), file
    record = json.loads((tmp_path / "out" / "edit.json").read_text())
    assert record.get("path") == (None if anonymous else str(image))
    assert record["versions"]["rfxray"]
    assert ("--image IMAGE" in record["command"]) == anonymous
    digest = files.file_sha256(image)
    assert record["image_sha256"] == digest
    dicom = pydicom.dcmread(tmp_path / "out" / "edited.dcm")
    assert digest in dicom.DerivationDescription
    assert digest in dicom.ImageComments


@pytest.mark.parametrize("text", ["", "DOE JOHN 4711"])
def test_burned_in_annotation_is_yes_or_absent(run, tmp_path, capsys, text):
    run(tmp_path / "out", "--image", film(tmp_path / "a.png", (512, 512), text=text), "--dicom")
    found = pydicom.dcmread(tmp_path / "out" / "edited.dcm").get("BurnedInAnnotation")
    assert found == ("YES" if text else None)
    assert ("may show text" in capsys.readouterr().out) == bool(text)


def test_the_same_command_again_changes_nothing(run, tmp_path):
    flags = [tmp_path / "out", "--image", film(tmp_path / "a.png"), "--dicom"]
    run(*flags)
    before = state(tmp_path / "out")
    run(*flags)
    assert state(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("flags", "key"),
    [
        (["--guidance", "2"], "guidance"),
        (["--seed", "5"], "seed"),
        (["--dicom"], "dicom"),
        (["--step", "6"], "step"),
        (["--from", "sex=M"], "edits"),
        (["--image", "OTHER"], "edits"),
    ],
)
def test_the_folder_of_another_edit_is_refused(trained, run, tmp_path, refusal, flags, key):
    first = ["--image", film(tmp_path / "a.png")]
    run(tmp_path / "out", *first)
    before = state(tmp_path / "out")
    other = film(tmp_path / "b.png", seed=1)
    flags = [other if flag == "OTHER" else flag for flag in flags]
    argv = ["--checkpoint", trained, "--out", tmp_path / "out", *FAST, *first, *flags]
    code, line = refusal(edit.main, argv)
    assert code == 78
    assert "holds another edit" in line
    assert key in line
    assert state(tmp_path / "out") == before


def test_a_folder_of_something_else_is_refused(trained, tmp_path, refusal):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "edited.dcm").write_text("mine")
    flags = ["--checkpoint", trained, "--out", tmp_path / "out", *FAST]
    code, line = refusal(edit.main, [*flags, "--image", film(tmp_path / "a.png")])
    assert code == 78
    assert "is not empty and has no plan.json" in line
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["edited.dcm"]


@pytest.mark.parametrize("harm", ["torn picture", "lost picture", "torn record", "lost record"])
def test_a_folder_is_believed_only_if_its_files_agree(run, tmp_path, harm):
    flags = [tmp_path / "out", "--image", film(tmp_path / "a.png")]
    run(*flags)
    before = {path: content for path, (_, content) in state(tmp_path / "out").items()}
    file = tmp_path / "out" / ("edited.png" if "picture" in harm else "edit.json")
    if "lost" in harm:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:100])
    run(*flags)
    assert {path: content for path, (_, content) in state(tmp_path / "out").items()} == before


# ---------------------------------------------------------------------------------------------
# Several radiographs


def table(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "from", "set", "name"])
        writer.writerows(rows)
    return path


@pytest.fixture
def listed(tmp_path):
    for seed in range(3):
        film(tmp_path / "films" / f"{seed}.png", (48, 40 + seed), seed)
    rows = [["0.png", "view=AP;sex=M", "edema=present", "first"]]
    rows += [["1.png", "", "", "second"], ["2.png", "age=60", "", "third one"]]
    return table(tmp_path / "films" / "edits.csv", rows)


def test_a_table_edits_each_row_into_a_folder_of_its_own(run, tmp_path, listed):
    run(tmp_path / "out", "--csv", listed)
    records = {
        path.parent.name: json.loads(path.read_text())
        for path in (tmp_path / "out").rglob("edit.json")
    }
    assert records.keys() == {"first", "second", "third one"}
    assert records["first"]["from"] == {"view": "AP", "sex": "M"}
    assert records["first"]["set"] == {"cardiomegaly": "present", "edema": "present"}
    assert records["third one"]["path"].endswith("films/2.png")
    run(tmp_path / "single", "--image", listed.parent / "2.png", "--from", "age=60")
    for name in ("edited.png", "difference.png", "mask.png", "original.png"):
        one, of_list = (tmp_path / "single" / name, tmp_path / "out" / "third one" / name)
        np.testing.assert_array_equal(*(np.asarray(Image.open(file)) for file in (one, of_list)))


@pytest.mark.parametrize("end", [errno.ENOSPC, None])
def test_a_list_that_was_ended_continues(trained, run, tmp_path, listed, monkeypatch, refusal, end):
    whole, saved = edits.save_edit, []

    def dying(*arguments, **named):
        saved.append(arguments)
        if len(saved) == 2:
            (tmp_path / "out" / "second" / "edited.png").write_bytes(b"torn")
            raise OSError(end, "No space left") if end else SystemError("killed")
        whole(*arguments, **named)

    monkeypatch.setattr(edits, "save_edit", dying)
    if end:
        argv = ["--checkpoint", trained, "--out", tmp_path / "out", *FAST, "--csv", listed]
        code, line = refusal(edit.main, argv)
        assert code == 75
        assert "check free space" in line
    else:
        with pytest.raises(SystemError):
            run(tmp_path / "out", "--csv", listed)
    monkeypatch.undo()
    first = state(tmp_path / "out" / "first")
    run(tmp_path / "out", "--csv", listed)
    assert state(tmp_path / "out" / "first") == first
    run(tmp_path / "again", "--csv", listed)
    for name in ("second", "third one"):
        np.testing.assert_array_equal(
            *(read_png(tmp_path / out / name / "edited.png") for out in ("out", "again"))
        )


@pytest.mark.drill
def test_a_list_that_was_killed_continues(trained, tmp_path, listed):
    def command(out):
        flags = ["--checkpoint", trained, "--out", out, *FAST, "--csv", listed]
        return [sys.executable, "-m", "rfxray.edit", *map(str, flags)]

    killed = subprocess.Popen(command(tmp_path / "out"))
    while not (tmp_path / "out" / "first" / "edit.json").exists():
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "out" / "third one" / "edit.json").exists()
    first = state(tmp_path / "out" / "first")
    for out in ("out", "again"):
        subprocess.run(command(tmp_path / out), check=True)
    assert state(tmp_path / "out" / "first") == first
    for name in ("first", "second", "third one"):
        np.testing.assert_array_equal(
            *(read_png(tmp_path / out / name / "edited.png") for out in ("out", "again"))
        )


@pytest.mark.parametrize(
    ("rows", "code", "parts"),
    [
        ([["0.png", "view=AP", "view=sideways", "a"]], 78, ["line 2", "sideways"]),
        ([["0.png", "", "", "a"], ["1.png", "", "", "A"]], 78, ["line 3", "line 2"]),
        ([["0.png", "", "", "../a"]], 78, ["line 2", "separator"]),
        ([["", "", "", "a"]], 78, ["line 2", "no image"]),
        ([["0.png", "", "cardiomegaly=absent", "a"]], 78, ["line 2", "given twice"]),
        ([["none.png", "", "", "a"]], 65, ["none.png", "unreadable"]),
        ([["0.png", "", ""]], 65, ["line 2", "cells"]),
        ([], 65, ["no rows"]),
    ],
)
def test_a_wrong_table_is_refused(trained, tmp_path, listed, refusal, rows, code, parts):
    argv = ["--checkpoint", trained, "--out", tmp_path / "out", *FAST]
    found, line = refusal(edit.main, [*argv, "--csv", table(listed, rows)])
    assert found == code
    for part in parts:
        assert part in line
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------
# Folders that cannot be


def test_an_edit_waits_for_no_other_process(trained, tmp_path, refusal):
    (tmp_path / "out").mkdir()
    argv = ["--checkpoint", trained, "--out", tmp_path / "out", *FAST]
    argv += ["--image", film(tmp_path / "a.png")]
    with lock.locked(tmp_path / "out"):
        code, line = refusal(edit.main, argv)
    assert code == 78
    assert "another process is writing" in line


def test_a_bucket_is_refused_as_a_folder(trained, tmp_path, refusal, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = ["--checkpoint", trained, "--out", "gs://bucket/edit", *FAST, "--image", "a.png"]
    code, line = refusal(edit.main, argv)
    assert code == 78
    assert "gs://bucket/edit is not a path" in line
    assert not list(tmp_path.iterdir())


def test_no_strip_is_drawn_unless_requested(run, tmp_path):
    run(tmp_path / "out", "--image", film(tmp_path / "a.png"))
    assert not (tmp_path / "out" / "strip.png").exists()


def test_the_difference_has_a_scale_of_grey_levels():
    picture = edits.with_legend(np.full((64, 48, 3), 255, np.uint8))
    assert picture.shape == (64 * 5 + 44, 48 * 5, 3)
    scale = picture[64 * 5 + 12]
    blue, red = scale[10].astype(int), scale[-11].astype(int)
    assert blue[2] - blue[0] > 200
    assert red[0] - red[2] > 200
    assert scale[120].min() > 240
