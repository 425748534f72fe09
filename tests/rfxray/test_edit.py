import json
import shlex
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from data_prep.phantom.dataset import write_table
from rfxray import edit
from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import NAMES, PATHOLOGY_NAMES
from rfxray.commands import causes_fit
from rfxray.data.pixels import to_float
from rfxray.outputs import dicom
from rfxray.outputs.files import file_sha256, read_png
from rfxray.sampling import edit_flags, edits
from rfxray.sampling.editing import EditSettings
from rfxray.sampling.interventions import before_and_after, changed

FAST = ["--steps", "2"]
RECORD_ONLY = ("checkpoint", "command", "versions", "path", "files", "flow_loss")
RECORD_ONLY += ("flow_loss_limit",)
INVERT = ["--solver", "euler", "--corrections", "1"]


@pytest.fixture(scope="module")
def radiograph(tmp_path_factory):
    """An 8-bit PNG of 48 × 40 pixels."""
    y, x = np.mgrid[:48, :40]
    noise = np.random.default_rng(0).normal(0, 6, y.shape)
    image = np.clip(60 + 2 * y + 40 * np.sin(x / 6) + noise, 0, 255).astype(np.uint8)
    path = tmp_path_factory.mktemp("edit") / "chest.png"
    Image.fromarray(image).save(path)
    return path


def mask(path, shape, rows=slice(None)):
    array = np.zeros(shape, np.uint8)
    array[rows] = 255
    Image.fromarray(array).save(path)
    return path


def run(trained, image, out, *flags):
    argv = ["--checkpoint", trained, "--image", image, "--out", out, *FAST, *flags]
    edit.main([str(a) for a in argv])
    return json.loads((out / "edit.json").read_text())


@pytest.fixture(scope="module")
def edited(trained, radiograph, tmp_path_factory):
    out = tmp_path_factory.mktemp("edited") / "out"
    flags = ["--from", "view=AP", "--from", "sex=M", "--set", "cardiomegaly=present", "--dicom"]
    flags += INVERT
    return out, run(trained, radiograph, out, *flags)


def test_edit_writes_all_files_and_marks_the_edit_synthetic(edited):
    out, entry = edited
    pictures = {"original.png", "edited.png", "edited.dcm", "difference.png", "mask.png"}
    assert {path.name for path in out.iterdir()} == pictures | {"edit.json", "plan.json"}
    assert entry["files"] == {name: file_sha256(out / name) for name in pictures}
    before, after = (read_png(out / f"{name}.png") for name in ("original", "edited"))
    assert before.dtype == after.dtype == np.uint16
    assert before.shape == after.shape == (32, 32)
    with Image.open(out / "edited.png") as picture:
        assert "synthetic" in picture.text["Description"]
        said = json.loads(picture.text["rfxray"])
    assert said == {key: entry[key] for key in entry if key not in RECORD_ONLY}
    assert entry["synthetic"] is True
    requested = {"view": "AP", "sex": "M", "cardiomegaly": "present"}
    assert entry["attributes"] == {**requested, "no_finding": "absent"}  # no_finding follows
    assert (entry["from"], entry["set"]) == (
        {"view": "AP", "sex": "M"},
        {"cardiomegaly": "present"},
    )
    # 48 × 40 becomes 32 × 27: what pads it does not change, and does not count.
    assert entry["content_box"] == [0, 2, 32, 27]
    inside = np.zeros(before.shape, bool)
    inside[:, 2:29] = True
    np.testing.assert_array_equal(before[~inside], after[~inside])
    change = np.abs(to_float(after) - to_float(before))[inside].mean() * 127.5
    assert entry["mean_absolute_change"] == pytest.approx(change, abs=0.01)
    file = pydicom.dcmread(out / "edited.dcm")
    np.testing.assert_array_equal(file.pixel_array, after)
    assert (file.SyntheticData, file.ConversionType) == ("YES", "SYN")
    assert entry["image_sha256"] in file.DerivationDescription
    assert "BurnedInAnnotation" not in file
    np.testing.assert_array_equal(read_png(out / "mask.png") > 0, before != after)
    for text in (file.StudyDescription, file.SeriesDescription, file.DerivationDescription):
        assert "not as it was taken" in text
        assert "not of a person" not in text


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"masks_sha256": {"keep": "another"}}, ("patient",)),
        ({"guidance": 2.0}, ("patient",)),
        ({"image_sha256": "another"}, ()),
        ({"attributes": {"sex": "F"}}, ()),
    ],
)
def test_dicom_ids_depend_on_the_inputs_not_on_the_command(edited, tmp_path, change, same):
    """The patient depends on the radiograph and attributes, the file also on masks and settings."""
    _, entry = edited
    image = np.zeros((4, 4), np.uint16)
    files = []
    for number, requested in enumerate((entry, entry | change)):
        dicom.save(tmp_path / f"{number}.dcm", image, requested, "edited")
        files.append(pydicom.dcmread(tmp_path / f"{number}.dcm"))
    found = [file.SOPInstanceUID for file in files]
    assert (found[0] == found[1]) == ("picture" in same)
    for of in ("PatientID", "StudyInstanceUID"):
        found = [file[of].value for file in files]
        assert (found[0] == found[1]) == ("patient" in same)


def test_command_in_the_sidecar_reproduces_the_edit(edited, tmp_path):
    out, entry = edited
    command = shlex.split(entry["command"])
    assert command[:3] == ["python", "-m", "rfxray.edit"]
    assert command[-2:] == ["--step", "12"]
    edit.main([*command[3:], "--out", str(tmp_path / "again")])
    np.testing.assert_array_equal(
        read_png(out / "edited.png"), read_png(tmp_path / "again" / "edited.png")
    )


def test_masks_of_the_radiographs_size_are_resized_with_it(trained, radiograph, tmp_path):
    keep = mask(tmp_path / "keep.png", (48, 40), slice(0, 24))
    flags = ["--set", "edema=present", "--method", "noise", "--keep", keep]
    run(trained, radiograph, tmp_path / "out", *flags)
    before, after = (read_png(tmp_path / "out" / f"{name}.png") for name in ("original", "edited"))
    # The upper half of the content box; 48 × 40 becomes 32 × 27, padded by 2 and 3 columns.
    np.testing.assert_array_equal(before[:16, 3:29], after[:16, 3:29])
    assert (before != after)[17:].mean() > 0.5


@pytest.mark.parametrize("flags", [["--set", "view=PA"], []])
def test_inpainting_changes_only_the_hole(trained, radiograph, tmp_path, flags):
    hole = mask(tmp_path / "hole.png", (32, 32), slice(10, 20))
    run(trained, radiograph, tmp_path / "out", *flags, "--inpaint", hole)
    before, after = (read_png(tmp_path / "out" / f"{name}.png") for name in ("original", "edited"))
    different = (before != after).any(1)
    assert different[10:20].all()
    assert not different[:10].any()
    assert not different[20:].any()


@pytest.mark.parametrize("method", ["flow", "noise"])
def test_strip_shows_five_strengths(trained, radiograph, tmp_path, method):
    flags = ["--set", "view=PA", "--method", method, "--strip", "strength"]
    assert run(trained, radiograph, tmp_path / "out", *flags)["method"] == method
    # The original and five strengths, images above and differences below, 128 pixels each.
    width, height = Image.open(tmp_path / "out" / "strip.png").size
    assert 6 * 130 < width < 6 * 130 + 100
    assert height == 2 * 130 + 20


def test_strip_omits_strengths_below_the_floor(trained, radiograph, tmp_path):
    flags = ["--set", "view=PA", "--strip", "strength", "--floor", "0.5", *INVERT]
    run(trained, radiograph, tmp_path / "out", *flags)
    width, _ = Image.open(tmp_path / "out" / "strip.png").size
    assert 4 * 130 < width < 4 * 130 + 100  # the original, and strengths 0.7, 0.9 and 1


def test_propagate_updates_descendants(trained, radiograph, tiny_data, tmp_path, capsys):
    graph = tmp_path / "graph.json"
    graph.write_text(json.dumps({"name": "one", "parents": {"cardiomegaly": ["age"]}}))
    flags = ["--from", "age=60", "--from", "cardiomegaly=absent", "--set", "age=30"]
    flags += ["--propagate", tiny_data, "--graph", graph, *INVERT]
    entry = run(trained, radiograph, tmp_path / "out", *flags)
    assert entry["follows"].keys() == {"cardiomegaly"}
    assert 0 <= entry["follows"]["cardiomegaly"]["probability"] <= 1
    assert entry["attributes"]["age"] == 30.0
    assert "follows: cardiomegaly=" in capsys.readouterr().out


def test_propagate_takes_a_fitted_model_with_the_graph_it_has(
    trained, radiograph, tmp_path, refusal
):
    graph, table = tmp_path / "graph.json", tmp_path / "table.csv"
    graph.write_text(json.dumps({"name": "one", "parents": {"cardiomegaly": ["age"]}}))
    write_table(table, "additive", 500, 0)
    causes_fit.run(str(table), graph, tmp_path / "model", boosting=False)
    flags = ["--from", "age=60", "--from", "cardiomegaly=absent", "--set", "age=30"]
    flags += ["--propagate", tmp_path / "model", *INVERT]
    entry = run(trained, radiograph, tmp_path / "out", *flags)
    assert entry["follows"].keys() == {"cardiomegaly"}
    record = json.loads((tmp_path / "model" / "causes.json").read_text())
    assert entry["propagate"] == {"model": record["tensors_sha256"]}
    argv = ["--checkpoint", trained, "--image", radiograph, "--out", tmp_path / "b", *flags]
    code, line = refusal(edit.main, [*argv, "--graph", graph])
    assert (code, "leave --graph out" in line) == (78, True)
    code, line = refusal(edit.main, ["age=119" if each == "age=30" else each for each in argv])
    assert (code, "age=119 is outside of what the table shows" in line) == (78, True)


def test_twins_draw_what_follows_by_the_radiograph_and_their_number(
    trained, radiograph, tmp_path, refusal
):
    graph, table = tmp_path / "graph.json", tmp_path / "table.csv"
    graph.write_text(json.dumps({"name": "one", "parents": {"cardiomegaly": ["age"]}}))
    write_table(table, "additive", 500, 0)
    causes_fit.run(str(table), graph, tmp_path / "model", boosting=False)
    flags = ["--from", "age=20", "--from", "cardiomegaly=absent", "--set", "age=95", "--method"]
    flags += ["flow", "--propagate", tmp_path / "model", "--twins", "4"]
    argv = ["--checkpoint", trained, "--out", tmp_path / "out", *FAST]
    edit.main([str(a) for a in [*argv, "--image", radiograph, *flags]])
    one = {k: json.loads((tmp_path / f"out/twin_{k}/edit.json").read_text()) for k in range(4)}
    drawn = [one[k]["attributes"]["cardiomegaly"] for k in range(4)]
    assert set(drawn) == {"absent", "present"}
    assert len({one[k]["follows"]["cardiomegaly"]["probability"] for k in range(4)}) == 1
    # In a table, at another place, after another radiograph, the draws are the same.
    other = tmp_path / "other.png"
    Image.fromarray(np.asarray(Image.open(radiograph))[::-1].copy()).save(other)
    (tmp_path / "edits.csv").write_text(f"image,name\n{other},other\n{radiograph},same\n")
    argv[3] = tmp_path / "table"
    edit.main([str(a) for a in [*argv, "--csv", tmp_path / "edits.csv", *flags]])
    for k in range(4):
        again = json.loads((tmp_path / f"table/same_twin_{k}/edit.json").read_text())
        assert again["attributes"] == one[k]["attributes"]
    code, line = refusal(edit.main, [*map(str, argv), "--image", radiograph, *flags[:-1], "0"])
    assert (code, "--twins must be from 1" in line) == (78, True)


@pytest.mark.parametrize(
    ("shown", "change", "no_finding"),
    [
        ({"no_finding": "present"}, {"cardiomegaly": "absent"}, "present"),
        ({"no_finding": "present"}, {"view": "PA"}, "present"),
        ({"no_finding": "present"}, {"cardiomegaly": "present"}, "absent"),
        ({"no_finding": "absent"}, {"cardiomegaly": "present"}, "absent"),
        ({"no_finding": "absent"}, {"cardiomegaly": "absent"}, None),
        ({"no_finding": "absent", "edema": "present"}, {"edema": "Absent"}, None),
        ({"no_finding": "absent", "edema": "absent"}, {"edema": "Absent"}, "absent"),
    ],
)
def test_no_finding_follows_the_change_or_becomes_unknown(shown, change, no_finding):
    _, target = before_and_after(shown, change)
    decoded = vocabulary.decode(target.rows(0))
    assert decoded.get("no_finding") == no_finding


def test_an_edit_that_asks_for_nothing_changes_nothing(trained, radiograph, tmp_path, refusal):
    for value in ("edema=present", "no_finding=present", "no_finding=absent"):
        source, target = before_and_after(*[dict([value.split("=")])] * 2)
        assert not changed(source, target).any()
    flags = ["--checkpoint", trained, "--image", radiograph, "--out", tmp_path / "out"]
    flags += ["--from", "edema=present", "--set", "edema=present"]
    code, line = refusal(edit.main, flags)
    assert code == 78
    assert "nothing would change" in line


@pytest.mark.parametrize(
    ("shown", "change", "differ"),
    [
        ({"no_finding": "absent"}, {"no_finding": "present"}, {*PATHOLOGY_NAMES, "no_finding"}),
        ({"no_finding": "present"}, {"edema": "present"}, {"edema", "no_finding"}),
        ({"no_finding": "present"}, {"no_finding": "absent"}, {*PATHOLOGY_NAMES, "no_finding"}),
        ({"edema": "present", "view": "PA"}, {"edema": "absent"}, {"edema", "no_finding"}),
        (dict.fromkeys(PATHOLOGY_NAMES, "absent"), {"no_finding": "present"}, set()),
    ],
)
def test_what_no_finding_and_the_pathologies_say_of_each_other_holds_before_and_after(
    shown, change, differ
):
    source, target = before_and_after(shown, change)
    assert {NAMES[i] for i in np.flatnonzero(changed(source, target)[0])} == differ


def test_difference_is_red_if_brighter_and_blue_if_darker():
    picture = edits.difference(np.array([[0.5, -0.5, 0.0, 2.0]]), np.zeros((1, 4)))
    assert picture[0].tolist() == [[255, 0, 0], [0, 0, 255], [255, 255, 255], [255, 0, 0]]


# ---------------------------------------------------------------------------------------------
# Bad input


def colour(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 40, 3), np.uint8)).save(path)
    return path


def several_frames(path):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = 3, 48, 40
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelData = np.zeros((3, 48, 40), np.uint16).tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    ("flags", "code", "parts"),
    [
        (["--set", "edema=present", "--set", "no_finding=present"], 78, ["contradicts"]),
        (["--from", "edema=present", "--set", "no_finding=present"], 78, ["contradicts"]),
        (["--set", "view=sideways"], 78, ["sideways"]),
        (["--from", "view=AP", "--set", "view=AP"], 78, ["nothing would change", "--from"]),
        ([], 78, ["nothing would change", "--set"]),
        (["--set", "view=AP", "--solver", "ddim"], 78, ["ddim", "heun"]),
        (["--set", "view=AP", "--solver", "ab2"], 78, ["ab2", "inverted"]),
        (["--set", "view=AP", "--guidance", "-1"], 78, ["guidance=-1"]),
        (["--set", "view=AP", "--strength", "2"], 78, ["strength=2"]),
        (["--set", "view=AP", "--method", "magic"], 78, ["magic", "flow"]),
        (["--set", "view=AP", "--method", "noise", "--floor", "0.1"], 78, ["noise", "--floor"]),
        (["--set", "view=AP", "--method", "flow", "--solver", "heun"], 78, ["flow", "--solver"]),
        (["--set", "view=AP", "--method", "flow", "--corrections", "1"], 78, ["--corrections"]),
        (["--set", "view=AP", "--unchanged", "2"], 78, ["contrast", "--unchanged"]),
        (["--set", "view=AP", "--graph", "g.json"], 78, ["--propagate", "--graph"]),
        (["--set", "view=AP", "--twins", "2"], 78, ["--propagate", "--twins"]),
        (["--set", "view=AP", "--method", "flow", "--inpaint", "SMALL"], 78, ["--inpaint", "flow"]),
        (["--set", "view=AP", "--method", "noise", "--mask", "SMALL"], 78, ["--keep", "--inpaint"]),
        (["--set", "view=AP", "--keep", "BLACK"], 78, ["black.png", "black"]),
        (["--set", "view=AP", "--mask", "COLOUR"], 65, ["colour.png", "in colour"]),
        (["--set", "view=AP", "--mask", "SMALL"], 78, ["small.png", "10 × 10", "48 × 40"]),
        (["--set", "view=AP", "--keep", "SMALL"], 78, ["10 × 10"]),
        (["--set", "view=AP", "--keep", "/none.png"], 65, ["/none.png"]),
        (["--set", "view=AP", "--inpaint", "SMALL", "--keep", "SMALL"], 78, ["--inpaint"]),
        (["--set", "view=AP", "--image", "COLOUR"], 65, ["colour"]),
        (["--set", "view=AP", "--image", "FRAMES"], 65, ["several frames"]),
        (["--set", "view=AP", "--image", "/none.png"], 65, ["/none.png", "unreadable"]),
        (["--set", "view=AP", "--propagate", "/none"], 65, ["/none"]),
        (
            ["--from", "age=60", "--set", "age=unknown", "--propagate", "/none"],
            78,
            ["--set age", "unknown"],
        ),
    ],
)
def test_bad_input_exits_with_one_line_and_a_code(
    trained, radiograph, tmp_path, refusal, flags, code, parts
):
    stands_for = {
        "SMALL": lambda: mask(tmp_path / "small.png", (10, 10)),
        "BLACK": lambda: mask(tmp_path / "black.png", (48, 40), slice(0)),
        "COLOUR": lambda: colour(tmp_path / "colour.png"),
        "FRAMES": lambda: several_frames(tmp_path / "frames.dcm"),
    }
    flags = [stands_for[f]() if f in stands_for else f for f in flags]
    out = tmp_path / "out"
    argv = ["--checkpoint", trained, "--image", radiograph, "--out", out, *FAST, *flags]
    found, line = refusal(edit.main, argv)
    assert found == code
    assert line.startswith("rfxray.edit: error: ")
    for part in parts:
        assert part in line
    assert not out.exists()


@pytest.mark.parametrize("below", ["", "edit"])
def test_output_path_that_is_a_file_is_rejected(trained, radiograph, tmp_path, refusal, below):
    (tmp_path / "taken").write_text("mine")
    argv = ["--checkpoint", trained, "--image", radiograph, "--set", "view=AP", *FAST]
    code, line = refusal(edit.main, [*argv, "--out", tmp_path / "taken" / below])
    assert code == 78
    assert f"{tmp_path / 'taken'} is a file" in line


# ---------------------------------------------------------------------------------------------
# Flags


def test_flags_become_one_typed_request():
    flags = ["--checkpoint", "run", "--image", "a.png", "--out", "out", "--from", "age=60"]
    flags += ["--set", "age=30", "--method", "flow", "--keep", "keep.png", "--guidance", "2"]
    flags += ["--allow-kind", "mine.nets:unet"]
    request = edit_flags.request_of(edit_flags.parser().parse_args(flags))
    assert request.checkpoint == Path("run")
    change = edit_flags.Change(Path("a.png"), "", {"age": "60"}, {"age": "30"})
    assert request.changes == (change,)
    assert request.settings == EditSettings(method="flow", guidance=2.0)
    assert request.masks == {"keep": Path("keep.png")}
    assert request.allow_kinds == ["mine.nets:unet"]
    given = zip(request.words[::2], request.words[1::2], strict=True)
    assert set(given) == set(zip(flags[::2], (*flags[1::2],), strict=True)) - {
        ("--guidance", "2")
    } | {("--guidance", "2.0")}
