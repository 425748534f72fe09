import csv
import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pydicom
import pytest
from jax.experimental.compilation_cache import compilation_cache

from rfxray import sample
from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import INDEX, Attributes
from rfxray.data.dataset import open_dataset, stored
from rfxray.data.manifest import read_manifest
from rfxray.errors import ConfigError, NonFiniteError
from rfxray.outputs.files import read_png
from rfxray.sampling import Settings, requests, stream
from rfxray.sampling import plan as planning
from rfxray.sampling.stream import Plan

ROOT = Path(__file__).resolve().parents[3]
FAST = Settings(steps=2, solver="euler", guidance=1.0, batch_size=4)
ASKED = {"view": "PA", "sex": "F", "age": 40, "edema": "present"}


def everything(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(out.iterdir()) if p.is_file()}


@pytest.mark.parametrize("format", stream.FORMATS)
def test_interrupted_run_resumes_to_identical_files(analytic, tmp_path, monkeypatch, format):
    monkeypatch.setattr(planning, "SHARD", 4)
    asks, plan = requests.alike(ASKED), Plan(14, 3, 4, format)
    stream.write(analytic, FAST, asks, plan, tmp_path / "whole")

    class Killed(Exception):
        pass

    for _ in range(2):  # killed in the second block each time
        done = []

        def count(new, done=done):
            done.append(new)
            if len(done) == 2:
                raise Killed

        with pytest.raises(Killed):
            stream.write(analytic, FAST, asks, plan, tmp_path / "parts", None, count)
    seen, before = [], stream.finished(tmp_path / "parts", plan)
    assert before == 8
    stream.write(analytic, FAST, asks, plan, tmp_path / "parts", None, seen.append)
    assert sum(seen) == 14 - before
    one, other = everything(tmp_path / "whole"), everything(tmp_path / "parts")
    assert one == other
    assert not (tmp_path / "parts" / "parts").exists()
    stream.write(analytic, FAST, asks, plan, tmp_path / "parts", None, seen.append)  # complete
    assert sum(seen) == 14 - before
    assert stream.finished(tmp_path / "parts", plan) == 14


@pytest.mark.parametrize("format", stream.FORMATS)
def test_next_block_is_drawn_while_one_is_written(analytic, tmp_path, monkeypatch, format):
    monkeypatch.setattr(planning, "SHARD", 4)  # each part is one block
    begun, written = [], []
    draw = stream.Batches.__call__

    def counting(self, *asked):
        begun.append(asked[0])
        return draw(self, *asked)

    monkeypatch.setattr(stream.Batches, "__call__", counting)
    out, plan = tmp_path / "out", Plan(14, 0, 4, format)
    stream.write(
        *(analytic, FAST, requests.alike(ASKED), plan, out, None),
        lambda new: written.append((new, len(begun))),
    )
    assert written == [(4, 2), (4, 3), (4, 4), (2, 4)]  # at most one block ahead


def test_resume_keeps_the_block_size_of_the_first_run(analytic, tmp_path):
    """A different number of devices may round the block size differently."""
    asks = requests.alike(ASKED)
    stream.write(analytic, FAST, asks, Plan(14, 3, 5, "png"), tmp_path / "whole")

    def stop(new):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        stream.write(analytic, FAST, asks, Plan(14, 3, 5, "png"), tmp_path / "parts", None, stop)
    stream.write(analytic, FAST, asks, Plan(14, 3, 4, "png"), tmp_path / "parts")
    assert everything(tmp_path / "whole") == everything(tmp_path / "parts")


def test_rerun_ignores_a_newer_checkpoint(trained, tmp_path, capsys):
    run, out = shutil.copytree(trained, tmp_path / "run"), tmp_path / "out"
    newest = run / "checkpoints" / "12"
    newest.rename(tmp_path / "later")
    argv = ["--checkpoint", run, "--out", out, "--n", 2, "--steps", 2, "--solver", "euler"]
    sample.main([str(a) for a in argv])
    (tmp_path / "later").rename(newest)
    sample.main([str(a) for a in argv])
    assert capsys.readouterr().out.count("at step 6") == 2
    said = json.loads((out / "samples.json").read_text())
    assert {entry["step"] for entry in said["pictures"]} == {6}


def test_nonfinite_images_are_not_written(analytic, tmp_path):
    def broken(params, x, t, attributes):
        return x / 0.0

    model = dataclasses.replace(analytic, velocity=broken)
    asks, out = requests.alike(ASKED), tmp_path / "out"
    with pytest.raises(NonFiniteError, match="4 of 4 images"):
        stream.write(model, FAST, asks, Plan(8, 0, 4, "png"), out)
    assert not list(out.glob("*.png"))


def test_index_gives_the_same_image_in_any_run(analytic, tmp_path):
    table = requests.balanced(("view", "age_decade"), {}, seed=1)
    stream.write(analytic, FAST, table, Plan(16, 0, 4, "png"), tmp_path / "all")
    stream.write(analytic, FAST, table, Plan(8, 8, 4, "png"), tmp_path / "half")
    for k in range(8):
        whole = read_png(tmp_path / "all" / f"sample_{k + 8:05d}.png")
        np.testing.assert_array_equal(read_png(tmp_path / "half" / f"sample_{k:05d}.png"), whole)
    entries = json.loads((tmp_path / "half" / "samples.json").read_text())["pictures"]
    assert [e["index"] for e in entries] == list(range(8, 16))


def test_generated_records_open_as_a_data_set(analytic, tmp_path):
    asks = requests.alike(ASKED)
    stream.write(analytic, FAST, asks, Plan(6, 0, 4, "array_record"), tmp_path / "set")
    stream.write(analytic, FAST, asks, Plan(6, 0, 4, "png"), tmp_path / "png")
    dataset = open_dataset(tmp_path / "set")
    assert dataset.examples == {"train": 6}
    for k, made in enumerate(stored(dataset, "train")):
        np.testing.assert_array_equal(
            made["image"], read_png(tmp_path / "png" / f"sample_{k:05d}.png")
        )
        assert made["key"].startswith("synthetic/")
        values, known = vocabulary.encode(ASKED)
        np.testing.assert_array_equal(made["attributes"], values)
        from rfxray.attributes.states import known_from_states

        np.testing.assert_array_equal(known_from_states(made["states"]), known)
    import tensorflow_datasets as tfds

    assert tfds.builder_from_directory(tmp_path / "set").info.splits["train"].num_examples == 6
    assert json.loads((tmp_path / "set" / "manifest.json").read_text())["synthetic"]


def test_fingerprint_depends_on_the_requested_attributes(analytic, tmp_path):
    images, prints = [], []
    for sex in ("F", "M"):
        asks, out = requests.alike({"age": 40, "sex": sex}), tmp_path / sex
        stream.write(analytic, FAST, asks, Plan(4, 0, 4, "array_record"), out)
        images.append([made["image"] for made in stored(open_dataset(out), "train")])
        prints.append(open_dataset(out).fingerprint)
    np.testing.assert_array_equal(*images)
    assert prints[0] != prints[1]


def test_sampled_set_has_the_manifest_keys_of_a_data_set(analytic, tiny_data, tmp_path):
    asks = requests.alike({"age": 40})
    stream.write(analytic, FAST, asks, Plan(4, 0, 4, "array_record"), tmp_path / "out")
    manifest, other = read_manifest(tmp_path / "out"), read_manifest(tiny_data)
    assert manifest.keys() - {"synthetic"} == other.keys()
    assert manifest["splits"]["train"].keys() == other["splits"]["train"].keys()
    assert manifest["splits"]["train"]["counts"]["age"]["values"] == {"40-49": 4}
    assert manifest["synthetic"] == analytic.source
    assert manifest["options"]["steps"] == FAST.steps


def test_sampled_set_is_identical_after_a_kill_at_any_rename(analytic, tmp_path, monkeypatch):
    class Killed(BaseException):
        """Stands in for SIGKILL: nothing catches it."""

    monkeypatch.setattr(planning, "SHARD", 4)
    asks, plan, replace = requests.alike(ASKED), Plan(6, 0, 4, "array_record"), os.replace
    stream.write(analytic, FAST, asks, plan, tmp_path / "whole")
    expected = everything(tmp_path / "whole")
    for deaths in range(100):
        left, out = iter(range(deaths)), tmp_path / f"killed{deaths}"

        def dying(*args, left=left):
            if next(left, None) is None:
                raise Killed
            replace(*args)

        monkeypatch.setattr(os, "replace", dying)
        try:
            stream.write(analytic, FAST, asks, plan, out)
            break
        except Killed:
            monkeypatch.setattr(os, "replace", replace)
        stream.write(analytic, FAST, asks, plan, out)
        assert everything(out) == expected, f"after {deaths} renames"
        assert not (out / "partial").exists(), f"after {deaths} renames"
    # plan, 2 × (shard, fragment, entries), dropped.csv, 2 names, manifest, gallery, samples.json
    assert deaths >= 13


def test_dicom_files_are_marked_synthetic_in_several_tags(analytic, tmp_path):
    out = tmp_path / "dicom"
    stream.write(analytic, FAST, requests.alike(ASKED), Plan(3, 0, 4, "dicom"), out)
    files = [pydicom.dcmread(out / f"sample_{k:05d}.dcm") for k in range(3)]
    first = files[0]
    assert first.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert first.file_meta.MediaStorageSOPInstanceUID == first.SOPInstanceUID
    assert all(pydicom.uid.UID(f.SOPInstanceUID).is_valid for f in files)
    # Every file has its own patient, study and series.
    for of in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID"):
        assert len({f[of].value for f in files}) == 3
    assert max(len(f.PatientID) for f in files) <= 64
    assert (first.SyntheticData, first.ConversionType) == ("YES", "SYN")
    assert "SYNTHETIC" in first.ImageType
    assert "SYNTHETIC" in str(first.PatientName)
    assert "synthetic" in first.SeriesDescription
    assert (first.PatientSex, first.PatientAge, first.ViewPosition) == ("F", "040Y", "PA")
    said = json.loads(first.ImageComments)
    assert (said["index"], said["attributes"]["edema"]) == (0, "present")
    assert (first.BitsStored, first.PhotometricInterpretation) == (16, "MONOCHROME2")
    others = requests.alike({**ASKED, "sex": "M"})
    stream.write(analytic, FAST, others, Plan(1, 0, 4, "dicom"), tmp_path / "other")
    other = pydicom.dcmread(tmp_path / "other" / "sample_00000.dcm")
    for of in ("StudyInstanceUID", "SeriesInstanceUID", "PatientID"):
        assert other[of].value != first[of].value
    stream.write(analytic, FAST, requests.alike(ASKED), Plan(3, 0, 4, "png"), tmp_path / "png")
    same = read_png(tmp_path / "png" / "sample_00000.png")
    np.testing.assert_array_equal(first.pixel_array, same)


def test_gallery_is_one_file_with_filters_for_what_varies(analytic, tmp_path):
    table = requests.balanced(("sex", "age_decade"), {"view": "PA"})
    stream.write(analytic, FAST, table, Plan(28, 0, 4, "png"), tmp_path / "out")
    page = (tmp_path / "out" / "gallery.html").read_text()
    assert page.count("<figure") == 28
    assert page.count("data:image/png;base64") == 28
    assert 'select name="sex"' in page
    assert "<option>20-29</option>" in page
    assert 'select name="view"' not in page
    assert "not of persons" in page
    assert "://" not in page


def test_folder_of_another_command_is_rejected(analytic, tmp_path):
    asks = requests.alike(ASKED)
    stream.write(analytic, FAST, asks, Plan(4, 0, 4, "png"), tmp_path / "out")
    other = dataclasses.replace(FAST, seed=1)
    with pytest.raises(ConfigError, match="different settings of: seed;"):
        stream.write(analytic, other, asks, Plan(4, 0, 4, "png"), tmp_path / "out")
    with pytest.raises(ConfigError, match="different settings of: requests"):
        stream.write(analytic, FAST, requests.alike({}), Plan(4, 0, 4, "png"), tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("all of it")
    with pytest.raises(ConfigError, match="not empty"):
        stream.write(analytic, FAST, asks, Plan(4, 0, 4, "png"), tmp_path / "mine")


# ---------------------------------------------------------------------------------------------
# Drills


@pytest.mark.drill
def test_memory_stays_flat_over_fifty_thousand_samples(analytic, tmp_path):
    table = requests.balanced(("sex", "view", "age_decade"), {})
    settings = dataclasses.replace(FAST, batch_size=512)
    seen, peaks = [], []

    def watch(new):
        seen.append(new)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

    out = tmp_path / "many"
    stream.write(analytic, settings, table, Plan(50_000, 0, 512, "array_record"), out, None, watch)
    assert sum(seen) == 50_000
    # After the first tenth peak memory grows by less than 30 MiB; the float32 pixels of all
    # samples would take 195 MiB.
    assert peaks[-1] - peaks[len(peaks) // 10] < 30
    dataset = open_dataset(out)
    assert dataset.examples == {"train": 50_000}
    entries = json.loads((out / "samples.json").read_text())["pictures"]
    assert [e["index"] for e in entries] == list(range(50_000))
    asked, _ = table.rows(np.arange(600))
    for row, made in zip(asked, stored(dataset, "train"), strict=False):
        assert made["attributes"][INDEX["age"]] == row[INDEX["age"]]


@pytest.mark.drill
def test_run_killed_twice_ends_in_the_same_files(trained, tmp_path, environment):
    """2,000 samples of 8 Euler steps, by a network trained for only a few steps."""
    flags = ["--checkpoint", trained, "--n", 2000, "--steps", 8, "--solver", "euler"]
    flags += ["--batch-size", 50, "--guidance", 1, "--balance", "sex,view,age_decade"]

    def start(out):
        command = [sys.executable, "-m", "rfxray.sample", *flags, "--out", out]
        return subprocess.Popen(
            [str(part) for part in command], cwd=ROOT, env=environment(), stderr=subprocess.PIPE
        )

    assert start(tmp_path / "whole").wait(300) == 0
    for share in (0.2, 0.6):
        process = start(tmp_path / "killed")
        while len(list((tmp_path / "killed").glob("*.png"))) < share * 2000:
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert start(tmp_path / "killed").wait(300) == 0
    one, other = everything(tmp_path / "whole"), everything(tmp_path / "killed")
    assert len([name for name in one if name.startswith("sample_")]) == 2000
    assert one.keys() == other.keys()
    assert all(one[name] == other[name] for name in one if name != "samples.json")


@pytest.mark.drill
def test_four_devices_match_one_within_one_grey_level(trained, tmp_path, run_module):
    levels = []
    for devices in (1, 4):
        out = tmp_path / str(devices)
        flags = ["--checkpoint", trained, "--out", out, "--n", 10, "--steps", 8, "--batch-size", 8]
        done = run_module("rfxray.sample", *map(str, flags), devices=devices)
        assert done.returncode == 0, done.stderr
        images = [read_png(out / f"sample_{k:05d}.png") for k in range(10)]
        levels.append(np.stack(images).astype(int))
    assert np.abs(levels[0] - levels[1]).max() <= 1


def test_command_reads_requests_from_csv(trained, tmp_path):
    table = tmp_path / "asks.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["view", "age"], ["PA", 30], ["AP", 60], ["lateral", ""]])
    flags = ["--checkpoint", trained, "--out", tmp_path / "out", "--n", 4, "--csv", table]
    flags += ["--solver", "euler", "--steps", 2, "--format", "dicom"]
    sample.main([str(flag) for flag in flags])
    entries = json.loads((tmp_path / "out" / "samples.json").read_text())["pictures"]
    assert [e["attributes"].get("view") for e in entries] == ["PA", "AP", "lateral", "PA"]
    assert [e["file"] for e in entries] == [f"sample_{k:05d}.dcm" for k in range(4)]
    assert (tmp_path / "out" / "grid.png").exists()


@pytest.fixture
def compiled_here(tmp_path):
    """An empty compilation cache that stores every program."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in zip(names, (str(tmp_path / "cache"), 0), strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield tmp_path / "cache"
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_compile_draws_nothing_and_run_uses_the_cached_programs(analytic, compiled_here):
    asked = []

    def asking(params, x, t, attributes):
        jax.debug.callback(lambda: asked.append(1))
        return x

    model = dataclasses.replace(analytic, velocity=asking)
    asks = Attributes(np.zeros((3, 19), np.float32), np.zeros((3, 19), bool))
    stream.Batches(model, FAST, 3).compile()
    assert not asked
    draw = stream.Batches(analytic, FAST, 3)
    draw.compile()
    programs = sorted(path.name.partition("-")[0] for path in compiled_here.glob("*-cache"))
    assert programs == ["jit_integrate", "jit_noise"]
    draw(np.arange(3), asks)
    assert len(list(compiled_here.glob("jit_integrate-*-cache"))) == 1
    assert len(list(compiled_here.glob("jit_noise-*-cache"))) == 1


@pytest.mark.parametrize(("more", "size"), [([], 4), (["--grid", "age=20,50,80"], 12)])
def test_compile_only_writes_nothing(trained, tmp_path, capsys, more, size):
    flags = ["--checkpoint", trained, "--out", tmp_path / "out", "--n", 4, "--compile-only"]
    sample.main([str(flag) for flag in [*flags, "--solver", "euler", "--steps", 2, *more]])
    assert f"compiled for {size} " in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
