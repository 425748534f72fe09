import csv
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import data_prep
from data_prep.build import main
from rfxray.data.record import deserialize
from tests.data_prep import raw_trees

ROOT = Path(data_prep.__file__).parents[1]
SHARED = Path(os.environ.get("RFXRAY_SHARED", ROOT.parent / "shared"))
HANNOVER = SHARED / "real_cxr" / "hannover"

COLUMNS = [
    *("--column", "image=image_id", "--column", "patient=patient_id"),
    *("--column", "view=projection", "--column", "sex=sex", "--column", "age=age"),
]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A table and 30 images of 12 patients; one image is truncated and one is too narrow."""
    folder = tmp_path_factory.mktemp("raw")
    images = folder / "images"
    images.mkdir()
    rows = ["patient_id,image_id,sex,age,projection"]
    for i, drawn in enumerate(raw_trees.frontal(30)):
        shape = (40, 200) if i == 7 else (50 + i, 60)
        picture = 200 + cv2.resize(drawn, shape[::-1], interpolation=cv2.INTER_AREA) // 24
        Image.fromarray(picture).save(images / f"i{i}.png")
        rows.append(
            f"p{i % 12},i{i},{'mf'[i % 2]},{'' if i % 3 else 40 + i},{['ap', 'PA', 'odd'][i % 3]}"
        )
    torn = images / "i3.png"
    torn.write_bytes(torn.read_bytes()[:2000])
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return folder


def arguments(raw, out, **changed):
    options = {
        "--images": raw / "images",
        "--metadata": raw / "table.csv",
        "--size": 32,
        "--out": out,
        "--shard-examples": 8,
        "--validation": 0.3,
        "--workers": 1,
    } | {f"--{name.replace('_', '-')}": value for name, value in changed.items()}
    return [*COLUMNS, *(str(word) for pair in options.items() for word in pair)]


def records(out, split="train"):
    from array_record.python.array_record_module import ArrayRecordReader

    manifest = json.loads((out / "manifest.json").read_text())
    for shard in manifest["splits"][split]["shards"]:
        yield from map(deserialize, ArrayRecordReader(str(out / shard["file"])).read_all())


def hashes(out):
    files = [path for path in out.rglob("*") if path.is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def built(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "set"
    main(arguments(raw, out))
    return out


def test_every_image_becomes_a_record_or_is_dropped_with_a_reason(built):
    found = [record for split in ("train", "validation") for record in records(built, split)]
    dropped = raw_trees.ledger(built)
    assert set(dropped) == {"radiographs/p3//i3", "radiographs/p7//i7"}
    assert dropped["radiographs/p7//i7"] == (
        "too narrow: 40 × 200 pixels, more than 4 times as long as wide"
    )
    assert dropped["radiographs/p3//i3"].startswith("does not decode: ")
    assert {record["key"].rpartition("/")[2] for record in found} == {
        f"i{i}" for i in range(30) if i not in (3, 7)
    }
    for record in found:
        assert record["image"].shape == (32, 32)
        assert record["image"].max() > 30_000  # from stored values below 3,000
        assert record["original_size"][1] == 60
        assert record["key"].startswith(record["patient"] + "/")


def test_each_patient_is_in_one_split_only(built):
    patients = {
        split: {record["patient"] for record in records(built, split)}
        for split in ("train", "validation")
    }
    assert patients["train"]
    assert patients["validation"]
    assert not patients["train"] & patients["validation"]


def test_manifest_lists_options_versions_and_cells_not_understood(built):
    manifest = json.loads((built / "manifest.json").read_text())
    assert manifest["notes"]["sets"]["radiographs"]["not_understood"] == {"view": {"odd": 10}}
    assert manifest["dropped_reasons"] == {"does not decode": 1, "too narrow": 1}
    assert manifest["preprocessing"]["percentiles"] == [0.5, 99.5]
    assert manifest["versions"]["pillow"]
    assert manifest["options"]["own"]["radiographs"]["columns"]["view"] == "projection"
    states = Counter()
    for split in manifest["splits"].values():
        states.update(split["counts"]["age"]["states"])
    assert states == {"stated": 9, "unlabelled": 19}
    assert "/" not in json.dumps(manifest["options"])  # no path of this machine


def test_two_worker_processes_write_the_same_bytes_as_one(raw, built, tmp_path):
    out = tmp_path / "set"
    done = subprocess.run(
        [sys.executable, "-m", "data_prep.build", *arguments(raw, out, workers=2)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert hashes(out) == hashes(built)
    assert done.stdout.strip().startswith(f"{out}: train ")
    assert done.stdout.strip().endswith(f"2 dropped (reasons in {out / 'dropped.csv'})")
    assert "view: 'odd' × 10 not understood, taken as unknown" in done.stderr


def test_rerun_reports_complete_and_other_size_is_refused(raw, built, capsys):
    before = hashes(built)
    main(arguments(raw, built))
    assert "complete already" in capsys.readouterr().err
    line = fails(arguments(raw, built, size=48), 78, capsys)
    assert "size is 32 there and 48 here" in line
    assert hashes(built) == before


def test_moving_the_raw_folder_keeps_the_plan(raw, built, tmp_path, capsys):
    (tmp_path / "elsewhere").symlink_to(raw)
    main(arguments(tmp_path / "elsewhere", built))
    assert "complete already" in capsys.readouterr().err


def fails(argv, code, capsys):
    """Error line of a command that must fail with this exit code."""
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("data_prep.build: error: ")
    return last


@pytest.mark.parametrize(
    ("extra", "changed", "code", "said"),
    [
        ([], {"images": "/nowhere"}, 65, "no folder /nowhere"),
        ([], {"metadata": "/nothing.csv"}, 65, "no table /nothing.csv"),
        (["--column", "edema=oedema"], {}, 78, "no column 'oedema'"),
        (["--column", "oedema=edema"], {}, 78, "did you mean edema"),
        (["--column", "race"], {}, 78, "not NAME=HEADER"),
        (["--map", "view:odd=oblique"], {}, 78, "view has no value 'oblique'"),
        (["--set-source", "nhi"], {}, 78, "source has no value 'nhi'"),
        (["--set-source", "unknown"], {}, 78, "always known"),
        ([], {"size": 8}, 78, "--size 8 is not from 16 to"),
        ([], {"validation": 1.0}, 78, "a sum below 1"),
        ([], {"name": "Mein Satz"}, 78, "cannot be the name"),
        ([], {"shard_examples": 0}, 78, "--shard-examples and --size must be at least 1"),
        (["--map", "race:w=White"], {}, 78, "name it: --column race=HEADER"),
        ([], {"images": "gs://bucket/images"}, 78, "mount the bucket"),
        (["--out", "gs://bucket/set"], {}, 78, "mount the bucket"),
        (["--metadata", "gs://bucket/table.csv"], {}, 78, "mount the bucket"),
    ],
)
def test_bad_input_ends_with_one_line_and_its_exit_code(
    raw, tmp_path, capsys, extra, changed, code, said
):
    line = fails([*arguments(raw, tmp_path / "set", **changed), *extra], code, capsys)
    assert said in line
    assert not (tmp_path / "set").exists()


def test_images_that_match_no_row_are_an_error(raw, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    Image.new("L", (64, 64)).save(tmp_path / "images" / "stranger.png")
    (tmp_path / "table.csv").write_text((raw / "table.csv").read_text())
    line = fails(arguments(tmp_path, tmp_path / "set"), 65, capsys)
    assert "no row of" in line
    assert "stranger.png" in line


def write_set(folder, names, broken):
    (folder / "images").mkdir()
    for drawn, name in zip(raw_trees.frontal(30), names, strict=False):
        Image.fromarray(drawn * (name not in broken)).save(folder / "images" / f"{name}.png")
    (folder / "table.csv").write_text(
        "patient_id,image_id,sex,age,projection\n" + "".join(f",{name},,,\n" for name in names)
    )


def test_all_images_unusable_is_an_error(tmp_path, capsys):
    write_set(tmp_path, "abc", broken="abc")
    line = fails(arguments(tmp_path, tmp_path / "set"), 65, capsys)
    assert "3 dropped (most often: blank)" in line


def test_warns_of_unusable_images_and_missing_patient_ids(tmp_path, capsys):
    write_set(tmp_path, "abc", broken="ab")
    main(arguments(tmp_path, tmp_path / "set", validation=0))
    err = capsys.readouterr().err
    assert "WARNING: only 1 of 3 images with a row" in err
    assert "3 rows have no patient id" in err


def test_patient_in_several_splits_keeps_only_the_most_held_out_one(tmp_path, capsys):
    write_set(tmp_path, "abcd", broken="")
    folds = [("p", "a", "train"), ("p", "b", "test"), ("q", "c", "train"), ("p", "d", "valid")]
    (tmp_path / "table.csv").write_text(
        "patient_id,image_id,sex,age,projection,fold\n"
        + "".join(f"{patient},{image},,,,{fold}\n" for patient, image, fold in folds)
    )
    out = tmp_path / "set"
    main([*arguments(tmp_path, out), "--column", "split=fold"])
    err = capsys.readouterr().err
    assert "WARNING: an official split divides patients" in err
    assert "2 images of the other are left out" in err
    kept = {split: [r["key"] for r in records(out, split)] for split in ("train", "test")}
    assert kept == {"train": ["radiographs/q//c"], "test": ["radiographs/p//b"]}
    dropped = raw_trees.ledger(out)
    why = "its patient is in test: the set's own split divides it"
    assert dropped == {"radiographs/p//a": why, "radiographs/p//d": why}


def test_copies_of_one_picture_are_never_on_both_sides_of_a_split(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for i in range(20):
        Image.fromarray(raw_trees.frontal(30)[0]).save(tmp_path / "images" / f"{i}.png")
    (tmp_path / "table.csv").write_text(
        "patient_id,image_id,sex,age,projection\n" + "".join(f"p{i},{i},,,\n" for i in range(20))
    )
    out = tmp_path / "set"
    main(arguments(tmp_path, out, validation=0.5))
    manifest = json.loads((out / "manifest.json").read_text())
    assert {split: part["examples"] for split, part in manifest["splits"].items()} == {
        "validation": 1
    }
    assert manifest["dropped_reasons"] == {"a duplicate": 19}
    assert "left out: a duplicate × 19" in capsys.readouterr().err


def test_what_is_odd_is_kept_counted_and_listed_with_its_scores(tmp_path, capsys):
    write_set(tmp_path, "abc", broken="")
    Image.fromarray(raw_trees.pictures()[1]).save(tmp_path / "images" / "a.png")  # a lateral
    table = (tmp_path / "table.csv").read_text().replace(",a,,,", ",a,,,PA")
    (tmp_path / "table.csv").write_text(table)
    out = tmp_path / "set"
    main(arguments(tmp_path, out, validation=0))
    flag = "looks lateral but is labelled PA"
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["notes"]["sets"]["radiographs"]["flagged"] == {flag: 1}
    assert f"radiographs: flagged: {flag} × 1" in capsys.readouterr().err
    rows = {row["image"]: row for row in pq.read_table(out / "table.parquet").to_pylist()}
    assert {name: row["flags"] for name, row in rows.items()} == {"a": [flag], "b": [], "c": []}
    assert rows["a"]["score_lateral"] > rows["a"]["score_upright"] + 0.17
    assert not any(row["fate"] for row in rows.values())


def test_contradicting_rows_are_dropped_with_a_warning(tmp_path, capsys):
    write_set(tmp_path, "abc", broken="")
    with (tmp_path / "table.csv").open("a") as table:
        table.write(",a,M,,\n")
    main(arguments(tmp_path, tmp_path / "set", validation=0))
    err = capsys.readouterr().err
    assert "WARNING: 1 rows contradict another row of their image; see dropped.csv" in err
    assert "left out: contradicts an earlier row × 1" in err


@pytest.mark.skipif(not HANNOVER.is_dir(), reason=f"no real radiographs in {HANNOVER}")
def test_real_radiographs_keep_their_attributes_and_contrast(tmp_path):
    with open(HANNOVER / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    out = tmp_path / "hannover"
    main(
        [
            *(*COLUMNS, "--images", str(HANNOVER / "png")),
            *("--metadata", str(HANNOVER / "metadata.csv"), "--size", "64"),
            *("--out", str(out), "--name", "hannover", "--workers", "1"),
        ]
    )
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["dropped"] == 0
    views, sexes, ages = Counter(), Counter(), Counter()
    for split in manifest["splits"].values():
        views.update(split["counts"]["view"]["values"])
        sexes.update(split["counts"]["sex"]["values"])
        ages.update(split["counts"]["age"]["values"])
    assert views == Counter(row["projection"].upper() for row in rows)
    assert sexes == Counter(row["sex"].upper() for row in rows)
    assert ages == {"unknown": len(rows)}  # redacted
    patients = len({row["patient_id"] for row in rows})
    assert manifest["notes"]["sets"]["hannover"]["patients"] == patients
    for record in records(out):
        top, left, height, width = record["content_box"]
        content = record["image"][top : top + height, left : left + width] / 65535
        # a bright marker must not darken the radiograph, and none may be washed out
        assert 0.3 < np.median(content) < 0.85, record["key"]
        assert np.percentile(content, 99) > 0.85
        assert np.percentile(content, 1) < 0.2
