"""What a folder of samples is known by: weights by content, pixels, files that are as written."""

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from rfxray import sample, sampling
from rfxray.errors import ConfigError, DataError
from rfxray.outputs.files import pixels_sha256, read_png
from rfxray.sampling import claims, requests, stream
from rfxray.sampling.stream import Plan
from rfxray.sampling.tables import Table

FAST = sampling.Settings(steps=2, solver="euler", batch_size=4)
ASKS = requests.alike({"age": 40, "sex": "F"})


def index(out: Path) -> list[dict]:
    return json.loads((out / "samples.json").read_text())["pictures"]


def images(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("sample_*"))}


def with_weights(model, weights):
    return dataclasses.replace(model, source={**model.source, "weights": weights})


def test_weights_are_known_by_content_at_any_path(trained, tmp_path):
    copy = shutil.copytree(trained, tmp_path / "elsewhere" / "run")
    sources = [sampling.load(folder).source for folder in (trained, copy)]
    assert sources[0]["weights"] == sources[1]["weights"]
    digests = {sampling.load(trained, *key).source["weights"] for key in ((0.1,), (0.05, 6))}
    assert len({*digests, sources[0]["weights"]}) == 3
    weak = sampling.load(trained, weak=(0.1, 6)).source["weak"]
    assert weak["weights"] == sampling.load(trained, 0.1, 6).source["weights"]
    # The same arrays in another network are another model.
    config = json.loads((copy / "config.json").read_text())
    config["objective"]["t_mean"] = 0.1
    (copy / "config.json").write_text(json.dumps(config))
    assert sampling.load(copy).source["weights"] != sources[0]["weights"]


def test_ema_is_recorded_as_it_is_used(trained, tmp_path, refusal):
    assert sampling.load(trained, ema=0.05 + 1e-12).source["ema"] == 0.05
    for flags in (["--ema", "0.0504"], ["--autoguide", "0.0996"]):
        argv = ["--checkpoint", trained, "--out", tmp_path / "out", *flags]
        code, line = refusal(sample.main, argv)
        assert code == 78
        assert flags[1] in line
        assert "three decimals" in line


def test_model_replaced_at_its_path_is_refused(trained, tmp_path, refusal):
    """The newest weights take the place of those that a folder was begun with."""
    run, out = shutil.copytree(trained, tmp_path / "run"), tmp_path / "out"
    argv = ["--checkpoint", run, "--n", 2, "--steps", 2, "--solver", "euler", "--out"]
    sample.main([str(a) for a in [*argv, out]])
    moved = shutil.copytree(trained, tmp_path / "moved")
    argv[1] = moved
    sample.main([str(a) for a in [*argv, out]])  # the same weights at another path go on
    other = json.loads((run / "config.json").read_text())
    other["objective"]["t_mean"] = 0.1
    (run / "config.json").write_text(json.dumps(other))
    before = images(out)
    argv[1] = run
    for n in (2, 4):
        argv[3] = n
        code, line = refusal(sample.main, [*argv, out])
        assert code == 78
        assert "begun with another model" in line
        assert images(out) == before


def test_uids_go_by_pixels_and_not_by_path(analytic, tmp_path):
    moved = dataclasses.replace(analytic, source={**analytic.source, "checkpoint": "/other"})
    brighter = dataclasses.replace(analytic, velocity=lambda *a: analytic.velocity(*a) - 0.01)
    found = []
    for k, model in enumerate((analytic, moved, brighter, with_weights(analytic, "b"))):
        plan, settings = Plan(2, 0, 2, "dicom"), dataclasses.replace(FAST, batch_size=2 + k)
        stream.write(model, settings, ASKS, plan, tmp_path / str(k))
        found.append([pydicom.dcmread(file) for file in sorted((tmp_path / str(k)).glob("*.dcm"))])
    uids = [[file.SOPInstanceUID for file in files] for files in found]
    assert uids[0] == uids[1]
    assert images(tmp_path / "0") == images(tmp_path / "1")
    assert len({uid for of in uids for uid in of}) == 6
    assert found[0][0].PatientID == found[2][0].PatientID  # of one request
    assert found[0][0].PatientID != found[3][0].PatientID  # of another model


def test_no_picture_names_a_path_or_a_command(analytic, tmp_path):
    model = dataclasses.replace(analytic, source={**analytic.source, "checkpoint": "/home/DOE/run"})
    for form in ("png", "dicom"):
        out = tmp_path / form
        stream.write(model, FAST, ASKS, Plan(2, 0, 2, form), out, {"command": "--out /home/DOE"})
        for file in out.iterdir():
            named = file.name in ("samples.json", "plan.json")
            assert (b"DOE" in file.read_bytes()) == named, file


def test_index_has_what_repeats_the_samples(analytic, tmp_path):
    stream.write(analytic, FAST, ASKS, Plan(2, 0, 2, "png"), tmp_path, {"command": "rfxray sample"})
    said = json.loads((tmp_path / "samples.json").read_text())
    assert said["command"] == "rfxray sample"
    assert said["plan"] == json.loads((tmp_path / "plan.json").read_text())
    assert said["plan"]["weights"] == analytic.source["weights"]
    assert {"rfxray", "commit", "jax", "jaxlib", "python", "devices"} == said["written_by"].keys()
    for entry in said["pictures"]:
        assert entry["pixels_sha256"] == pixels_sha256(read_png(tmp_path / entry["file"]))


# ---------------------------------------------------------------------------------------------
# A folder that is believed


@pytest.mark.parametrize("form", ["png", "dicom"])
def test_missing_and_torn_images_are_drawn_again_and_no_other(analytic, tmp_path, form):
    plan, seen = Plan(10, 0, 4, form), []
    stream.write(analytic, FAST, ASKS, plan, tmp_path)
    whole = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    first, torn, flipped = (tmp_path / plan.file(k) for k in (1, 6, 9))
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("sample_*")}
    first.unlink()
    torn.write_bytes(torn.read_bytes()[:-40])
    flipped.write_bytes(flipped.read_bytes()[:-5] + b"\0" + flipped.read_bytes()[-4:])
    stream.write(analytic, FAST, ASKS, plan, tmp_path, None, seen.append)
    assert sum(seen) == 3
    assert whole == {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    kept = [path for path in times if path not in (first, torn, flipped)]
    assert all(path.stat().st_mtime_ns == times[path] for path in kept)


def test_missing_gallery_and_sheet_are_written_again(analytic, tmp_path):
    plan = Plan(4, 0, 4, "png")
    stream.write(analytic, FAST, ASKS, plan, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    (tmp_path / "grid.png").unlink()
    stream.write(analytic, FAST, ASKS, plan, tmp_path)
    assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir()}


def test_damaged_shard_of_a_finished_set_is_65(analytic, tmp_path):
    plan = Plan(4, 0, 4, "array_record")
    stream.write(analytic, FAST, ASKS, plan, tmp_path)
    (shard,) = tmp_path.glob("*array_record-*")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged; delete the folder .* and rerun"):
        stream.write(analytic, FAST, ASKS, plan, tmp_path)


def test_index_of_another_plan_is_not_believed(analytic, tmp_path):
    plan = Plan(4, 0, 4, "png")
    for name, seed in (("one", 0), ("two", 1)):
        settings = dataclasses.replace(FAST, seed=seed)
        stream.write(analytic, settings, ASKS, plan, tmp_path / name)
    shutil.copy(tmp_path / "one" / "samples.json", tmp_path / "two")
    with pytest.raises(DataError, match=r"samples\.json is not the index of what .*plan\.json"):
        stream.write(analytic, dataclasses.replace(FAST, seed=1), ASKS, plan, tmp_path / "two")
    (tmp_path / "two" / "samples.json").write_text('{"torn": ')
    with pytest.raises(DataError, match=r"samples\.json is damaged"):
        stream.write(analytic, dataclasses.replace(FAST, seed=1), ASKS, plan, tmp_path / "two")


def test_save_and_stream_refuse_each_others_folders(analytic, tmp_path):
    drawn = sampling.generate(analytic, {"age": 40}, n=2, settings=FAST)
    other = sampling.generate(analytic, {"age": 50}, n=2, settings=FAST)
    plan = Plan(2, 0, 2, "png")
    stream.write(analytic, FAST, ASKS, plan, tmp_path / "stream")
    for _ in range(2):  # a cell of a notebook that is run again
        sampling.save(drawn, tmp_path / "save")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("all of it")
    before = {p: p.read_bytes() for p in tmp_path.glob("*/*")}
    for act in (
        lambda: sampling.save(drawn, tmp_path / "stream"),
        lambda: sampling.save(other, tmp_path / "save"),
        lambda: sampling.save(drawn, tmp_path / "mine"),
        lambda: stream.write(analytic, FAST, ASKS, plan, tmp_path / "save"),
    ):
        with pytest.raises(ConfigError, match="choose another"):
            act()
    assert before == {p: p.read_bytes() for p in tmp_path.glob("*/*")}


def test_folder_that_another_process_writes_is_refused(analytic, tmp_path):
    drawn = sampling.generate(analytic, {"age": 40}, n=2, settings=FAST)
    table = Table({"sex": ["F", "M"]}, {}, 1)
    with claims.held(tmp_path):
        for act in (
            lambda: stream.write(analytic, FAST, ASKS, Plan(2, 0, 2, "png"), tmp_path),
            lambda: stream.write(analytic, FAST, table, Plan(2, 0, 2, "png", cells=2), tmp_path),
            lambda: sampling.save(drawn, tmp_path),
        ):
            with pytest.raises(ConfigError, match="another process is writing"):
                act()
        assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize("address", ["gs://bucket/out", "s3://bucket/out"])
def test_address_of_a_bucket_is_refused_and_makes_no_folder(
    analytic, tmp_path, monkeypatch, address
):
    monkeypatch.chdir(tmp_path)
    drawn = sampling.generate(analytic, {"age": 40}, n=1, settings=FAST)
    for act in (
        lambda: sampling.save(drawn, address),
        lambda: sampling.generate_to(address, analytic, {"age": 40}, settings=FAST),
        lambda: stream.write(analytic, FAST, ASKS, Plan(1, 0, 1, "png"), Path(address)),
    ):
        with pytest.raises(ConfigError, match="mount the bucket"):
            act()
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------
# A folder that grows


@pytest.mark.parametrize("form", ["png", "dicom"])
@pytest.mark.parametrize("killed", [False, True])
def test_larger_n_adds_images_and_keeps_those_that_are_there(analytic, tmp_path, form, killed):
    class Killed(Exception):
        pass

    def count(new):
        seen.append(new)
        if killed and len(seen) == 2:
            raise Killed

    out, seen = tmp_path / "out", []
    with pytest.raises(Killed) if killed else contextlib.nullcontext():
        stream.write(analytic, FAST, ASKS, Plan(6, 3, 4, form), out, None, count)
    done = stream.finished(out, Plan(6, 3, 4, form))
    assert done == (4 if killed else 6)
    files = sorted(out.glob("sample_*"))[:done]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
    seen = []
    for n in (9, 16):
        stream.write(analytic, FAST, ASKS, Plan(n, 3, 4, form), out, None, seen.append)
    assert sum(seen) == 16 - done
    for path, state in before.items():
        assert (path.stat().st_mtime_ns, path.read_bytes()) == state
    stream.write(analytic, FAST, ASKS, Plan(16, 3, 4, form), tmp_path / "whole")
    assert images(out) == images(tmp_path / "whole")
    assert [entry["index"] for entry in index(out)] == list(range(3, 19))
    with pytest.raises(ConfigError, match=r"16 images .* 9 are requested"):
        stream.write(analytic, FAST, ASKS, Plan(9, 3, 4, form), out)


def test_what_was_requested_stays_when_a_folder_grows(analytic, tmp_path):
    table = requests.balanced(("sex", "age_decade"), {}, seed=2)
    stream.write(analytic, FAST, table, Plan(6, 0, 4, "png"), tmp_path)
    with pytest.raises(ConfigError, match="different settings of: requests"):
        stream.write(analytic, FAST, ASKS, Plan(8, 0, 4, "png"), tmp_path)
    stream.write(analytic, FAST, table, Plan(8, 0, 4, "png"), tmp_path)
    assert len(index(tmp_path)) == 8


def test_a_folder_of_named_files_grows(analytic, tmp_path):
    for names in ("abc", "abcdef"):
        stream.write(analytic, FAST, ASKS, Plan(len(names), 0, 4, "png", tuple(names)), tmp_path)
    assert [entry["file"] for entry in index(tmp_path)] == [f"{name}.png" for name in "abcdef"]


def test_data_set_does_not_grow(analytic, tmp_path):
    stream.write(analytic, FAST, ASKS, Plan(4, 0, 4, "array_record"), tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be extended.*--first-index 4"):
        stream.write(analytic, FAST, ASKS, Plan(8, 0, 4, "array_record"), tmp_path)


def test_table_resumes_grows_and_shows_each_cell_under_the_same_noise(analytic, tmp_path):
    class Killed(Exception):
        pass

    def stop(new):
        raise Killed

    def table(n):
        return Table({"sex": ["F", "M"], "age": ["20", "50", "80"]}, {"view": "PA"}, n)

    plan = Plan(6, 0, 4, "png", cells=6)
    with pytest.raises(Killed):
        stream.write(analytic, FAST, table(1), plan, tmp_path / "out", None, stop)
    for n in (1, 2):
        plan = Plan(6 * n, 0, 4, "png", cells=6)
        stream.write(analytic, FAST, table(n), plan, tmp_path / "out")
    entries = index(tmp_path / "out")
    assert [entry["index"] for entry in entries] == [0] * 6 + [1] * 6
    asked = [(entry["attributes"]["sex"], entry["attributes"]["age"]) for entry in entries]
    assert asked == [(sex, age) for sex in "FM" for age in (20, 50, 80)] * 2
    stream.write(analytic, FAST, table(2), plan, tmp_path / "whole")
    for path in (tmp_path / "whole").glob("*.png"):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("devices", [3, 8])
def test_devices_that_do_not_divide_a_block_draw_the_same(trained, tmp_path, devices, run_module):
    out = tmp_path / "out"
    flags = ["--checkpoint", trained, "--steps", 2, "--solver", "euler", "--out", out, "--n"]
    sample.main([str(flag) for flag in [*flags, 2]])
    done = run_module("rfxray.sample", *map(str, [*flags, 5]), devices=devices)
    assert done.returncode == 0, done.stderr
    sample.main([str(flag) for flag in [*flags[:-2], tmp_path / "one", "--n", 5]])
    for k in range(5):
        one, more = (read_png(folder / f"sample_{k:05d}.png") for folder in (tmp_path / "one", out))
        assert np.abs(one.astype(int) - more).max() <= 1


# ---------------------------------------------------------------------------------------------
# Titles


def test_titles_say_what_is_shared_and_what_differs():
    from rfxray.sampling.samples import title

    settings = sampling.Settings(guidance=2, weights=((("view", "sex"), 3.0),))
    rows = [{"view": "PA", "age": 63.0}, {"view": "PA", "age": 20.0}, {"view": "PA", "sex": "F"}]
    assert title(rows, settings) == "synthetic: view=PA; different age, sex; guidance 2, view+sex 3"
    plain = sampling.Settings(guidance=1.5)
    assert title([{"age": 63.0}] * 2, plain) == "synthetic: age=63; guidance 1.5"
    assert title([{}, {}], plain) == "synthetic: nothing requested; guidance 1.5"


def test_gallery_links_the_images_at_full_size(analytic, tmp_path):
    stream.write(analytic, FAST, ASKS, Plan(3, 0, 4, "png"), tmp_path)
    text = (tmp_path / "gallery.html").read_text()
    for k in range(3):
        assert text.count(f'<a href="sample_{k:05d}.png"><img ') == 1
    with Image.open(tmp_path / "sample_00000.png") as picture:
        assert picture.size == (32, 32)
