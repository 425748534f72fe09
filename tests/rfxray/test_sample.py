import json
import re
import shlex
import shutil
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from rfxray import edit, sample, sampling
from rfxray.attributes import vocabulary
from rfxray.outputs import files
from rfxray.sampling import edit_flags, flags
from rfxray.sampling.requests import Requests
from rfxray.sampling.settings import Settings
from rfxray.sampling.tables import Table

FAST = sampling.Settings(steps=3, solver="euler", batch_size=2)
ASKED = {"view": "lateral", "age": 40, "cardiomegaly": "present"}
NEEDED = ["--checkpoint", "run", "--out", "out"]


def request(*flags: str) -> sample.SampleRequest:
    words = [*NEEDED, *flags]
    return sample.request_of(sample.parser().parse_args(words))


def test_flags_become_one_typed_request():
    asked = request("--set", "view=PA", "--steps", "8", "--interval", "0.1,0.9", "--n", "3")
    assert (asked.checkpoint, asked.out) == (Path("run"), Path("out"))
    assert asked.settings == Settings(guidance=2.0, steps=8, interval=(0.1, 0.9))
    assert isinstance(asked.asks, Requests)
    assert asked.plan.n == 3
    assert asked.words == [*NEEDED, *asked.words[4:]]


def test_grid_becomes_a_table_of_every_cell():
    asked = request("--grid", "sex=F,M", "--grid", "age=20,50,80", "--n", "2")
    assert isinstance(asked.asks, Table)
    assert asked.asks.images == 12
    assert asked.plan.indices(np.arange(12)).tolist() == [0] * 6 + [1] * 6


def test_autoguide_and_allow_kind_are_parsed():
    asked = request("--autoguide", "0.10@1000", "--allow-kind", "a.b:c", "--allow-kind", "d:e")
    assert asked.weak == (0.1, 1000)
    assert asked.allow_kinds == ["a.b:c", "d:e"]
    assert request("--autoguide", "0.10").weak == (0.1, None)


@pytest.mark.parametrize("command", [flags, edit_flags])
def test_every_flag_states_its_meaning_and_default(command):
    for action in command.parser()._actions:
        if action.option_strings in (["-h", "--help"], ["--version"], ["--list"]):
            assert action.help
            continue
        assert action.help, action.option_strings
        assert action.required or "default" in action.help, action.option_strings


@pytest.mark.parametrize("command", [flags, edit_flags])
def test_help_is_printed(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.parser().parse_args(["--help"])
    assert stopped.value.code == 0
    assert "--allow-kind" in capsys.readouterr().out


@pytest.fixture(scope="module")
def drawn(trained, tmp_path_factory):
    """Folder of three samples that the command wrote."""
    out = tmp_path_factory.mktemp("sample") / "out"
    argv = ["--checkpoint", trained, "--out", out, "--n", 3, "--set", "view=PA", "--set", "age=63"]
    argv += ["--solver", "euler", "--steps", 3, "--batch-size", 2, "--seed", 5, "--first-index", 9]
    sample.main([str(a) for a in argv])
    return out


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_command_writes_samples_marked_synthetic(drawn, trained):
    sidecar = json.loads((drawn / "samples.json").read_text())
    entries = sidecar["pictures"]
    assert [e["file"] for e in entries] == [f"sample_{i:05d}.png" for i in range(3)]
    assert [e["index"] for e in entries] == [9, 10, 11]
    for entry in entries:
        with Image.open(drawn / entry["file"]) as picture:
            assert (picture.mode, picture.size) == ("I;16", (32, 32))
            assert "synthetic" in picture.text["Description"]
            text = json.loads(picture.text["rfxray"])
        assert text == {k: v for k, v in entry.items() if k not in ("file", "sha256")}
        assert text["synthetic"] is True
        assert text["attributes"] == {"view": "PA", "age": 63.0}
        assert (text["step"], text["ema"], text["seed"]) == (12, 0.05, 5)
        assert (text["solver"], text["steps"], text["guidance"]) == ("euler", 3, 2.0)
        assert str(trained) not in json.dumps(entry)
    assert sidecar["plan"]["checkpoint"] == str(trained)
    with Image.open(drawn / "grid.png") as grid:
        assert "synthetic" in grid.text["Description"]
        assert min(grid.size) > 2 * 128


def test_command_in_the_sidecar_reproduces_the_samples(drawn, tmp_path):
    command = shlex.split(json.loads((drawn / "samples.json").read_text())["command"])
    assert command[:3] == ["python", "-m", "rfxray.sample"]
    assert command[-2:] == ["--step", "12"]  # the run may have a newer checkpoint by now
    sample.main([*command[3:], "--out", str(tmp_path)])
    for path in sorted(drawn.glob("sample_*.png")):
        np.testing.assert_array_equal(pixels(path), pixels(tmp_path / path.name))


def test_command_in_the_sidecar_names_the_weak_network(trained, tmp_path):
    argv = ["--checkpoint", trained, "--out", tmp_path / "out", "--n", 1, "--autoguide", "0.1"]
    sample.main([str(a) for a in [*argv, "--solver", "euler", "--steps", 2]])
    command = shlex.split(json.loads((tmp_path / "out" / "samples.json").read_text())["command"])
    assert command[-4:] == ["--step", "12", "--autoguide", "0.1@12"]


TABLE = """view,Sex,image_id,path,name
PA,Female,DOE-JOHN-1,ward/DOE/1.dcm,chest DOE
lateral,male,DOE-JOHN-2,ward/DOE/2.dcm,second_DOE.png
"""


def of_table(trained, folder: Path, out: Path, *flags: str) -> list[dict]:
    (folder / "DOE.csv").write_text(TABLE)
    argv = ["--checkpoint", trained, "--out", out, "--csv", folder / "DOE.csv"]
    argv += ["--solver", "euler", "--steps", 3, "--batch-size", 2, *flags]
    sample.main([str(a) for a in argv])
    return json.loads((out / "samples.json").read_text())["pictures"]


@pytest.mark.parametrize(("form", "ending"), [("png", "png"), ("dicom", "dcm")])
def test_table_names_files_and_its_rows_stand_in_the_sidecar_only(trained, tmp_path, form, ending):
    out = tmp_path / "out"
    flags = ["--file-names", "name", "--per-row", "2", "--format", form]
    entries = of_table(trained, tmp_path, out, *flags)
    stems = ["chest DOE_0", "chest DOE_1", "second_DOE_0", "second_DOE_1"]
    assert [entry["file"] for entry in entries] == [f"{stem}.{ending}" for stem in stems]
    assert [entry["index"] for entry in entries] == [0, 1, 2, 3]
    assert [entry["attributes"]["sex"] for entry in entries] == ["F", "F", "M", "M"]
    assert entries[3]["row"] == {"image_id": "DOE-JOHN-2", "path": "ward/DOE/2.dcm"}
    assert len({(out / entry["file"]).read_bytes() for entry in entries}) == 4
    for file in out.iterdir():
        if file.name == "gallery.html":  # its links name the files, and nothing else does
            assert re.findall(r'[^ ]*DOE[^ ]*"', file.read_text()) == [
                f'href="{quote(entry["file"])}"' for entry in entries if "DOE" in entry["file"]
            ]
        elif file.name != "samples.json":
            assert b"DOE" not in file.read_bytes(), file


def test_anonymous_carries_nothing_of_a_table_except_attributes(trained, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "without.csv").write_text(TABLE)
    with pytest.raises(SystemExit) as stopped:  # the column of names is no attribute
        of_table(trained, tmp_path, out, "--anonymous")
    assert stopped.value.code == 78
    table = TABLE.replace(",name\n", "\n").replace(",chest DOE", "").replace(",second_DOE.png", "")
    (tmp_path / "DOE.csv").write_text(table)
    argv = ["--checkpoint", trained, "--out", out, f"--csv={tmp_path / 'DOE.csv'}", "--anonymous"]
    sample.main([str(a) for a in [*argv, "--solver", "euler", "--steps", 3, "--batch-size", 2]])
    assert sorted(file.name for file in out.glob("*.png")) == [
        "grid.png",
        "sample_00000.png",
        "sample_00001.png",
    ]
    for file in out.iterdir():
        assert b"DOE" not in file.read_bytes(), file


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--anonymous", "--file-names", "name"], ["--anonymous", "--file-names"]),
        (["--file-names", "title"], ["DOE.csv", "'title'", "'name'"]),
        (["--file-names", "path"], ["DOE.csv, line 1, column 5", "no attribute 'name'"]),
        (["--file-names", "name", "--n", "3"], ["--file-names", "2 images", "--n"]),
        (["--file-names", "name", "--format", "array_record"], ["--file-names", "array_record"]),
        (["--per-row", "0"], ["--per-row", "at least 1"]),
        (["--set", "sex=F", "--file-names", "name"], ["column sex", "--set"]),
    ],
)
def test_wrong_use_of_a_table_is_refused_in_one_line(trained, tmp_path, refusal, flags, parts):
    (tmp_path / "DOE.csv").write_text(TABLE)
    out = tmp_path / "out"
    argv = ["--checkpoint", trained, "--out", out, "--csv", tmp_path / "DOE.csv", *flags]
    code, line = refusal(sample.main, argv)
    assert code == 78
    for part in parts:
        assert part in line
    assert not out.exists()


@pytest.mark.parametrize("flags", [["--per-row", "2"], ["--file-names", "a"], ["--anonymous"]])
def test_flags_of_a_table_need_one(refusal, flags):
    code, line = refusal(sample.main, [*NEEDED, *flags])
    assert code == 78
    assert f"without --csv does not read {flags[0]}" in line


@pytest.mark.parametrize("command", [sample, edit])
def test_list_prints_every_attribute_and_value(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["--list"])
    assert stopped.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:19]] == list(vocabulary.NAMES)
    for line, attribute in zip(lines, vocabulary.ATTRIBUTES, strict=False):
        assert all(value in line for value in attribute.values or ("0 to 120 years",))


def test_grid_varies_attributes_over_the_same_noise(trained, tmp_path):
    argv = ["--checkpoint", trained, "--out", tmp_path, "--n", 2, "--set", "sex=F", "--steps", 3]
    argv += ["--solver", "euler", "--batch-size", 2]
    argv += ["--grid", "cardiomegaly=absent,present", "--grid", "age=20,50,80"]
    sample.main([str(a) for a in argv])
    entries = json.loads((tmp_path / "samples.json").read_text())["pictures"]
    assert [e["index"] for e in entries] == [0] * 6 + [1] * 6
    asked = [(e["attributes"]["cardiomegaly"], e["attributes"]["age"]) for e in entries]
    assert asked[:6] == [(c, a) for c in ("absent", "present") for a in (20.0, 50.0, 80.0)]
    assert asked[6:] == asked[:6]
    assert {e["attributes"]["sex"] for e in entries} == {"F"}
    # 4 rows of 3 images, each 32² enlarged four times, with labels beside and above.
    width, height = Image.open(tmp_path / "grid.png").size
    assert 3 * 130 < width < 3 * 130 + 250
    assert height == 4 * 130 + 40


def test_grid_rejects_a_folder_with_other_files(trained, tmp_path, refusal):
    argv = ["--checkpoint", trained, "--n", 1, "--solver", "euler", "--steps", 2]
    streamed, table, mine = (tmp_path / name for name in ("streamed", "table", "mine"))
    sample.main([str(a) for a in [*argv, "--out", streamed]])
    for _ in range(2):  # rerunning the same command is allowed
        sample.main([str(a) for a in [*argv, "--out", table, "--grid", "sex=F,M"]])
    mine.mkdir()
    (mine / "thesis.tex").write_text("all of it")
    for out, grid in ((streamed, "sex=F,M"), (table, "sex=M"), (mine, "sex=F,M")):
        before = {path: path.read_bytes() for path in out.iterdir()}
        code, line = refusal(sample.main, [*argv, "--out", out, "--grid", grid])
        assert (code, before) == (78, {path: path.read_bytes() for path in out.iterdir()})
        assert str(out) in line


@pytest.mark.parametrize("grid", [[], ["--grid", "sex=F,M"]])
@pytest.mark.parametrize("below", ["", "deep/er"])
def test_output_path_that_is_a_file_is_rejected(trained, tmp_path, refusal, grid, below):
    (tmp_path / "taken").write_text("mine")
    argv = ["--checkpoint", trained, "--out", tmp_path / "taken" / below, *grid]
    code, line = refusal(sample.main, argv)
    assert code == 78
    assert f"{tmp_path / 'taken'} is a file" in line


@pytest.mark.parametrize("grid", [[], ["--grid", "sex=F,M"]])
def test_full_disk_exits_with_one_line(trained, tmp_path, refusal, monkeypatch, grid):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "save_png", full)
    argv = ["--checkpoint", trained, "--out", tmp_path / "out", "--n", 1, *grid]
    code, line = refusal(sample.main, [*argv, "--solver", "euler", "--steps", 2])
    assert code == 75
    assert "No space left on device" in line


@pytest.mark.parametrize(
    ("flags", "code", "parts"),
    [
        (["--set", "sex=Z"], 78, ["sex", "'Z'"]),
        (["--set", "cardiomegally=present"], 78, ["cardiomegaly"]),
        (["--set", "view"], 78, ["NAME=VALUE"]),
        (["--set", "age=20", "--set", "age=30"], 78, ["age is given twice"]),
        (["--set", "no_finding=present", "--set", "edema=present"], 78, ["contradicts"]),
        (["--grid", "age"], 78, ["--grid", "NAME=VALUE"]),
        (["--grid", "age=20,old"], 78, ["age=old"]),
        (["--grid", "age=20", "--grid", "age=30"], 78, ["age is given twice"]),
        (["--grid", "age=20", "--set", "age=30"], 78, ["by --set too"]),
        (["--grid", "age=20", "--grid", "sex=F", "--grid", "view=PA"], 78, ["not 3 attributes"]),
        (["--n", "0"], 78, ["--n"]),
        (["--n", "many"], 78, ["--n", "many"]),
        (["--nonsense"], 78, ["--nonsense"]),
        (["--first-index", "-1"], 78, ["--first-index"]),
        (["--first-index", "4294967295"], 78, ["2³²"]),
        (["--solver", "ddim"], 78, ["ddim", "heun"]),
        (["--steps", "0"], 78, ["steps=0"]),
        (["--batch-size", "0"], 78, ["batch_size=0"]),
        (["--guidance", "-1"], 78, ["guidance=-1"]),
        (["--shift", "0"], 78, ["shift=0"]),
        (["--seed", "-1"], 78, ["seed=-1"]),
        (["--ema", "0.07"], 78, ["0.070", "0.050, 0.100"]),
        (["--step", "7"], 78, ["step 7", "[6, 12]"]),
        (["--spacing", "cubic"], 78, ["cubic", "quadratic"]),
        (["--times", "1,x,0"], 78, ["--times"]),
        (["--times", "1,nan,0"], 78, ["from 1 to 0"]),
        (["--times", "1,0", "--steps", "4"], 78, ["--times", "--steps"]),
        (["--times", "1,0", "--shift", "2"], 78, ["--times", "--shift"]),
        (["--times", "1,0", "--spacing", "uniform"], 78, ["--times", "--spacing"]),
        (["--solver", "adaptive", "--steps", "4"], 78, ["adaptive", "--steps"]),
        (["--solver", "adaptive", "--times", "1,0"], 78, ["adaptive", "--times"]),
        (["--tolerance", "0.1"], 78, ["adaptive", "--tolerance"]),
        (["--interval", "0.5"], 78, ["--interval", "LOW,HIGH"]),
        (["--guidance", "1", "--interval", "0.1,0.9"], 78, ["interval", "leave"]),
        (["--guidance", "1", "--rescale", "0.5"], 78, ["rescale", "leave"]),
        (["--guidance", "1", "--optimised"], 78, ["optimised", "leave"]),
        (["--guidance", "1", "--negative", "view=AP"], 78, ["negative", "leave"]),
        (["--negative", "view=oblique"], 78, ["view", "oblique", "PA, AP"]),
        (["--negative", "view=AP", "--autoguide", "0.1"], 78, ["--autoguide", "--negative"]),
        (["--last", "mean"], 78, ["mean", "velocity, data"]),
        (["--last", "data", "--solver", "adaptive"], 78, ["last", "adaptive"]),
        (["--weight", "view"], 78, ["--weight", "NAMES=W"]),
        (["--weight", "viev=2"], 78, ["viev", "view"]),
        (["--weight", "view+sex+view=2"], 78, ["view+sex+view", "twice"]),
        (["--steps", "10001"], 78, ["steps=10001", "10,000"]),
        (["--steps", "9" * 400], 78, ["steps=9999", "…"]),
        (["--seed", "9" * 400], 78, ["seed=9999", "…"]),
        (["--n", "9" * 5000], 78, ["--n"]),
        (["--grid", "view=PA,AP", "--n", "4000000000"], 78, ["8,000,000,000", "10,000"]),
        (["--grid", "sex=F,Female"], 78, ["sex=F,Female", "twice"]),
        (["--grid", "view=PA,,AP"], 78, ["view", "''"]),
        (["--like", ""], 78, ["--like", "empty"]),
        (["--nearest", ""], 78, ["--nearest", "empty"]),
        (["--nearest", "gs://bucket/data"], 78, ["--nearest", "gs://bucket/data"]),
        (["--csv", ""], 78, ["--csv", "empty"]),
        (["--checkpoint", ""], 78, ["--checkpoint", "empty"]),
        (["--balance", ""], 78, ["no attribute ''"]),
        (["--autoguide", ""], 78, ["--autoguide"]),
        (["--set", "возраст=63"], 78, ["no attribute 'возраст'", "--list"]),
        (["--shift", "nan"], 78, ["shift=nan"]),
        (["--guidance", "inf"], 78, ["guidance=inf"]),
        (["--ema", "nan"], 78, ["nan", "0.050, 0.100"]),
        (["--weight", "view=-2"], 78, ["guidance=-2"]),
        (["--autoguide", "weak"], 78, ["--autoguide"]),
        (["--autoguide", "0.05@newest"], 78, ["--autoguide", "EMA@STEP"]),
        (["--autoguide", "0.05"], 78, ["another network"]),
        (["--format", "jpeg"], 78, ["jpeg", "dicom"]),
        (["--balance", "age"], 78, ["age_decade"]),
        (["--balance", "sex", "--set", "sex=F"], 78, ["sex", "--set"]),
        (["--balance", "sex", "--grid", "view=PA,AP"], 78, ["--balance"]),
        (["--step", "6", "--autoguide", "0.1@12"], 78, ["step 6", "step 12", "later"]),
        (["--csv", "/nonexistent.csv"], 65, ["/nonexistent.csv"]),
        (["--like", "/nonexistent"], 65, ["/nonexistent"]),
        (["--checkpoint", "/nonexistent/run"], 65, ["/nonexistent/run", "config.json"]),
    ],
)
def test_bad_flag_exits_with_one_line_and_a_code(trained, tmp_path, refusal, flags, code, parts):
    out = tmp_path / "out"
    found, line = refusal(sample.main, ["--checkpoint", trained, "--out", out, *flags])
    assert found == code
    assert line.startswith("rfxray.sample: error: ")
    assert len(line) < 400
    for part in parts:
        assert part in line
    assert not out.exists()


def test_damaged_checkpoint_exits_with_65(trained, tmp_path, refusal):
    run = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "12" / "ema_0.050")
    code, line = refusal(sample.main, ["--checkpoint", run, "--out", tmp_path / "out"])
    assert code == 65
    assert "is damaged" in line
