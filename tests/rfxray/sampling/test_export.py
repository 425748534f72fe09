"""An export is opened as its run is, carries nothing of the user, and shows any damage."""

import contextlib
import errno
import itertools
import json
import pickletools
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors import safe_open

from rfxray import edit, sample, sampling
from rfxray.checkpoints import exported
from rfxray.checkpoints.exported import CONFIG, MANIFEST, MODEL
from rfxray.commands import export
from rfxray.errors import ConfigError, DataError
from rfxray.outputs import lock
from rfxray.outputs.folders import whole_folder
from rfxray.sampling.exporting import ExportRequest
from tests import conftest, full_disk

DRAW = ["--n", "2", "--solver", "euler", "--steps", "2", "--batch-size", "2"]


def run(main, *words):
    with conftest.keep_signal_handlers():
        main([str(word) for word in words])


@pytest.fixture(scope="module")
def exports(trained, tmp_path_factory) -> Path:
    """Folder of two exports of the trained run, `float32` and `bfloat16`. Do not write."""
    folder = tmp_path_factory.mktemp("exports")
    for dtype in ("float32", "bfloat16"):
        run(export.main, "--checkpoint", trained, "--out", folder / dtype, "--dtype", dtype)
    return folder


@pytest.fixture
def copy(exports, tmp_path) -> Path:
    return shutil.copytree(exports / "float32", tmp_path / "copy")


def images(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("sample_*"))}


# ---------------------------------------------------------------------------------------------
# The same network


def test_float32_export_is_the_network_of_the_run(trained, exports, assert_bitwise):
    ours, theirs = sampling.load(trained), sampling.load(exports / "float32")
    assert_bitwise(theirs.params, ours.params)
    assert theirs.flow_loss_limit == ours.flow_loss_limit is not None
    assert dict(theirs.source) == {**ours.source, "checkpoint": str(exports / "float32")}


def test_bfloat16_export_is_another_network_which_names_its_source(trained, exports):
    ours, theirs = sampling.load(trained), sampling.load(exports / "bfloat16")
    assert theirs.source["weights"] != ours.source["weights"]
    facts = exported.read(exports / "bfloat16")[1]
    assert facts.weights == theirs.source["weights"]
    assert facts.source_weights == ours.source["weights"]
    for a, b in zip(jax.tree.leaves(theirs.params), jax.tree.leaves(ours.params), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=2**-8)
    sizes = [(exports / name / MODEL).stat().st_size for name in ("float32", "bfloat16")]
    assert sizes[0] > 1.9 * sizes[1]


def test_folder_begun_with_the_run_goes_on_with_its_export(trained, exports, tmp_path, refusal):
    out, whole = tmp_path / "out", tmp_path / "whole"
    run(sample.main, "--checkpoint", trained, "--out", out, *DRAW)
    flags = ["--n", 4, *DRAW[2:], "--out"]
    run(sample.main, "--checkpoint", exports / "float32", *flags, out)
    run(sample.main, "--checkpoint", trained, *flags, whole)
    assert images(out) == images(whole)
    code, line = refusal(
        sample.main, ["--checkpoint", exports / "bfloat16", "--n", 6, *flags[2:], out]
    )
    assert code == 78
    assert "was begun with another model" in line


def test_export_of_another_step_is_another_model_for_a_folder(trained, exports, tmp_path, refusal):
    out = tmp_path / "out"
    run(sample.main, "--checkpoint", trained, "--step", 6, "--out", out, *DRAW)
    code, line = refusal(sample.main, ["--checkpoint", exports / "float32", "--out", out, *DRAW])
    assert code == 78
    assert "begun with another model: step 6 of" in line


def test_edit_with_an_export_is_that_with_the_run(trained, exports, tmp_path):
    run(sample.main, "--checkpoint", trained, "--out", tmp_path / "drawn", *DRAW)
    flags = ["--image", tmp_path / "drawn" / "sample_00000.png", "--set", "view=AP"]
    flags += ["--method", "flow", "--steps", "2", "--out"]
    records = []
    for name, model in (("run", trained), ("export", exports / "float32")):
        run(edit.main, "--checkpoint", model, *flags, tmp_path / name)
        records.append(json.loads((tmp_path / name / "edit.json").read_text()))
    for key in ("weights", "step", "ema", "flow_loss", "flow_loss_limit", "files"):
        assert records[0][key] == records[1][key], key


def test_same_checkpoint_gives_the_same_bytes(trained, exports, tmp_path):
    run(export.main, "--checkpoint", trained, "--out", tmp_path / "again")
    for name in (MANIFEST, CONFIG, MODEL):
        assert (tmp_path / "again" / name).read_bytes() == (exports / "float32" / name).read_bytes()


def test_chosen_profile_and_step_are_exported(trained, tmp_path):
    out = tmp_path / "new" / "deep"
    run(export.main, "--checkpoint", trained, "--out", out, "--ema", "0.1", "--step", "6")
    source = sampling.load(out).source
    assert (source["ema"], source["step"]) == (0.1, 6)
    assert source["weights"] == sampling.load(trained, 0.1, 6).source["weights"]
    assert sampling.load(out, 0.1, 6).source == source


# ---------------------------------------------------------------------------------------------
# What is in the files


def test_tensors_are_named_by_their_path_in_the_parameter_tree(exports):
    with safe_open(exports / "float32" / MODEL, framework="np") as stored:
        names = list(stored.keys())
        shapes = {name: tuple(stored.get_slice(name).get_shape()) for name in names}
    assert shapes["model.embed"] == (64, 32)
    assert shapes["model.condition.time.inner"] == (256, 32)
    assert shapes["model.blocks.qkv"] == (2, 32, 3, 2, 16)  # blocks first
    assert shapes["model.head"] == (32, 64)
    assert len(shapes) == 19


def test_header_states_the_facts_as_text(exports):
    for dtype in ("float32", "bfloat16"):
        folder = exports / dtype
        about = json.loads((folder / MANIFEST).read_text())
        with safe_open(folder / MODEL, framework="np") as stored:
            header = stored.metadata()
        assert header["format"] == "rfxray.export"
        assert header["dtype"] == dtype
        assert header["config_sha256"] == about["files"][CONFIG][1]
        for name in ("step", "ema", "synthetic_only", "parameters", "trained_on"):
            assert json.loads(header[name]) == about[name]
        for name in ("weights", "source_weights", "data_fingerprint", "licence"):
            assert header[name] == about[name]


def test_nothing_of_the_user_or_the_data_is_in_an_export(trained, tiny_data, exports):
    config = json.loads((exports / "float32" / CONFIG).read_text())
    assert set(config) == {"model", "objective", "parts", "evaluators"}
    hidden = [str(trained), str(tiny_data), trained.parent.name, "tiny", str(Path.home())]
    for file in exports.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not [word for word in hidden if word.encode() in content], file
            with pytest.raises(ValueError, match=r".*"):  # no pickle
                list(pickletools.genops(content))
    assert {p.name for p in (exports / "float32").iterdir()} == {MANIFEST, CONFIG, MODEL}


def test_sources_are_those_of_the_data_that_the_run_names_or_that_are_given(
    trained, tiny_data, other_data, tmp_path, exports, refusal
):
    facts = exported.read(exports / "float32")[1]
    stated = (("phantom",), False, "not stated")
    assert (facts.trained_on, facts.synthetic_only, facts.licence) == stated
    words = ["--checkpoint", trained, "--out", tmp_path / "out", "--licence", "CC BY 4.0", "--data"]
    code, line = refusal(export.main, [*words, other_data])
    assert code == 78
    assert "not what the run was trained on" in line
    run(export.main, *words, tiny_data)
    facts = exported.read(tmp_path / "out")[1]
    # The source of each record is phantom; the data set is not one that `rfxray phantom` drew.
    assert (facts.trained_on, facts.synthetic_only) == (("phantom",), False)
    assert facts.licence == "CC BY 4.0"


# ---------------------------------------------------------------------------------------------
# Refusals


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--step", "6"], ["step 12", "no step 6", "leave --step out"]),
        (["--ema", "0.1"], ["EMA 0.05", "no EMA 0.1", "leave --ema out"]),
        (["--autoguide", "0.1"], ["no second network", "leave --autoguide out"]),
        (["--ema", "0.0504"], ["three decimals"]),
    ],
)
def test_flags_that_ask_for_more_than_an_export_holds_are_refused(
    exports, tmp_path, refusal, flags, words
):
    argv = ["--checkpoint", exports / "float32", "--out", tmp_path / "out", *DRAW, *flags]
    code, line = refusal(sample.main, argv)
    assert code == 78
    assert all(word in line for word in words), line
    run(sample.main, *argv[: -len(flags)], "--step", 12, "--ema", 0.05)


def damage(name: str, change) -> object:
    def act(folder: Path) -> None:
        file = folder / name
        file.write_bytes(change(file.read_bytes()))

    return act


def flip(at: float):
    def change(content: bytes) -> bytes:
        place = min(int(at * len(content)), len(content) - 1)
        return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]

    return change


@pytest.mark.parametrize("name", [MANIFEST, CONFIG, MODEL])
@pytest.mark.parametrize(
    "change",
    [*(flip(at) for at in (0, 0.01, 0.37, 0.71, 0.999)), lambda c: c[:-7], lambda c: b""],
    ids=["first", "head", "third", "later", "last", "truncated", "empty"],
)
def test_damage_of_any_file_is_one_line(copy, name, change):
    damage(name, change)(copy)
    with pytest.raises(DataError, match=rf"the export .* is damaged \({name}.*export or copy it"):
        sampling.load(copy)


@pytest.mark.parametrize("name", [MANIFEST, CONFIG, MODEL])
def test_missing_file_and_file_of_another_export_are_one_line(copy, exports, tmp_path, name):
    shutil.copy(exports / "bfloat16" / name, copy / name)
    # The config of both exports is the same.
    with (
        contextlib.nullcontext() if name == CONFIG else pytest.raises(DataError, match="is damaged")
    ):
        sampling.load(copy)
    (copy / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        sampling.load(copy)


def test_config_of_another_network_is_damage(copy):
    config = json.loads((copy / CONFIG).read_text())
    config["objective"]["t_mean"] = 0.1
    (copy / CONFIG).write_text(json.dumps(config, indent=1) + "\n")
    with pytest.raises(DataError, match=r"is damaged \(config\.json is not what was written"):
        sampling.load(copy)


def test_manifest_that_lacks_a_fact_is_one_line(copy):
    about = json.loads((copy / MANIFEST).read_text())
    del about["licence"]
    about["checksum"] = exported._checksum(about)
    (copy / MANIFEST).write_text(json.dumps(about))
    with pytest.raises(DataError, match=r"lacks something: KeyError\('licence'\)"):
        sampling.load(copy)


def test_export_of_a_later_version_is_78(copy):
    about = json.loads((copy / MANIFEST).read_text()) | {"version": 2}
    about["checksum"] = exported._checksum(about)
    (copy / MANIFEST).write_text(json.dumps(about))
    with pytest.raises(ConfigError, match="version 2, and this rfxray reads version 1"):
        sampling.load(copy)


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--dtype", "float16"], 78, ["float16", "float32, bfloat16"]),
        (["--ema", "0.07"], 78, ["no EMA profile 0.070", "0.050, 0.100"]),
        (["--step", "9"], 78, ["no checkpoint of step 9"]),
        (["--checkpoint", "/nonexistent/run"], 65, ["/nonexistent/run", "config.json"]),
        (["--data", "/nonexistent/data"], 65, ["/nonexistent/data is not a data set"]),
    ],
)
def test_wrong_request_is_one_line_and_writes_nothing(
    trained, tmp_path, refusal, flags, code, words
):
    found, line = refusal(export.main, ["--checkpoint", trained, "--out", tmp_path / "out", *flags])
    assert found == code
    assert line.startswith("rfxray.export: error: ")
    assert all(word in line for word in words), line
    assert not list(tmp_path.iterdir())


def test_folder_that_is_not_empty_and_an_export_of_an_export_are_refused(
    trained, exports, tmp_path, refusal
):
    (tmp_path / "thesis.tex").write_text("all of it")
    for out in (tmp_path, tmp_path / "thesis.tex"):
        code, line = refusal(export.main, ["--checkpoint", trained, "--out", out])
        assert code == 78
        assert "choose another --out" in line
    code, line = refusal(
        export.main, ["--checkpoint", exports / "float32", "--out", tmp_path / "out"]
    )
    assert code == 78
    assert "give the workdir of its run" in line
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_foreign_kind_is_run_only_if_it_is_allowed(copy):
    about = json.loads((copy / MANIFEST).read_text())
    config = json.loads((copy / CONFIG).read_text())
    config["objective"] = {"kind": "os.path:join"}
    text = json.dumps(config)
    (copy / CONFIG).write_text(text)
    about["files"][CONFIG] = [len(text), exported.files.file_sha256(copy / CONFIG)]
    about["checksum"] = exported._checksum(about)
    (copy / MANIFEST).write_text(json.dumps(about))
    with pytest.raises(ConfigError, match=r"add --allow-kind os\.path:join"):
        sampling.load(copy)


# ---------------------------------------------------------------------------------------------
# A disk that refuses, a second process


CODES = {errno.ENOSPC: 75, errno.EDQUOT: 75, errno.EIO: 75, errno.EROFS: 78, errno.EACCES: 78}


def test_disk_that_refuses_any_call_leaves_no_export_and_says_so(
    trained, exports, tmp_path, capsys
):
    out = tmp_path / "place" / "out"
    words = ["--checkpoint", str(trained), "--out", str(out)]
    numbers = itertools.cycle(CODES)
    for first in itertools.count():
        number = next(numbers)
        with full_disk.refusing(tmp_path, first, number) as calls, conftest.keep_signal_handlers():
            code = 0
            try:
                export.main(words)
            except SystemExit as end:
                code = end.code
        error = capsys.readouterr().err
        if len(calls) <= first:
            assert code == 0
            break
        assert code == CODES[number], (first, error)
        assert error.count("rfxray.export: error: ") == 1, error
        assert "Traceback" not in error
        assert not out.exists()
    assert first > 8  # folders, lock, three files, the final name
    for name in (MANIFEST, CONFIG, MODEL):
        assert (out / name).read_bytes() == (exports / "float32" / name).read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_second_process_is_refused_and_the_first_one_finishes(trained, tmp_path, refusal):
    out = tmp_path / "out"
    with whole_folder(out) as folder:
        assert lock.read(folder.parent / lock.NAME) is not None
        code, line = refusal(export.main, ["--checkpoint", trained, "--out", out])
        assert code == 78
        assert "another process is writing" in line
        (folder / "a").write_text("whole")
        assert not out.exists()
    assert (out / "a").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_export_left_is_replaced(trained, tmp_path):
    left = tmp_path / ".out.tmp" / "whole"
    left.mkdir(parents=True)
    (left / "torn").write_text("half")
    (tmp_path / "out").mkdir()
    run(export.main, "--checkpoint", trained, "--out", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {MANIFEST, CONFIG, MODEL}


def test_folder_that_is_filled_meanwhile_keeps_its_content(tmp_path):
    out = tmp_path / "out"

    def fill():
        with whole_folder(out) as folder:
            (folder / "a").write_text("ours")
            out.mkdir()
            (out / "b").write_text("theirs")

    with pytest.raises(ConfigError, match="is not empty"):
        fill()
    assert [path.name for path in out.iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_defaults_of_a_request_are_those_of_the_flags():
    flags = export.parser().parse_args(["--checkpoint", "a", "--out", "b"])
    plain = ExportRequest(Path("a"), Path("b"))
    assert (flags.dtype, flags.ema, flags.step) == (plain.dtype, plain.ema, plain.step)
    assert flags.licence == plain.licence
