import dataclasses
import gzip
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import data_prep
from data_prep import raw_sets
from data_prep.audit import __main__ as audit_command
from data_prep.decide import assign_splits
from data_prep.harmonise import main
from data_prep.sources.files import FileIndex
from data_prep.sources.locate import locate
from data_prep.sources.sets import SETS
from data_prep.tables.splits import hashed_split
from data_prep.tables.table import TableBuilder
from rfxray.attributes.states import State, known_from_states
from rfxray.attributes.vocabulary import FINDING_NAMES, Attributes, decode
from rfxray.data import writing
from rfxray.data.plan import Dropped
from rfxray.data.record import deserialize
from tests.data_prep import raw_trees
from tests.data_prep.expected import KEPT, LEDGER, STATES

ROOT = Path(data_prep.__file__).parents[1]


def arguments(roots, out, workers=1):
    sets = [word for name, root in roots.items() for word in ("--set", f"{name}={root}")]
    return [
        *(*sets, "--out", str(out), "--size", "48", "--shard-examples", "4"),
        *("--validation", "0", "--test", "0", "--workers", str(workers)),
    ]


def records(out):
    """Split and content of every record of a data set."""
    from array_record.python.array_record_module import ArrayRecordReader

    manifest = json.loads((out / "manifest.json").read_text())
    for name, split in manifest["splits"].items():
        for shard in split["shards"]:
            reader = ArrayRecordReader(str(out / shard["file"]))
            yield from ((name, deserialize(data)) for data in reader.read_all())


def hashes(out):
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    return raw_trees.write(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def harmonised(roots, tmp_path_factory):
    out = tmp_path_factory.mktemp("harmonised") / "cxr7"
    main(arguments(roots, out))
    return out


def test_every_row_and_file_becomes_a_record_or_is_in_dropped_csv(harmonised):
    found = {record["key"]: split for split, record in records(harmonised)}
    assert found == {key: split for key, (split, _) in KEPT.items()}
    dropped = raw_trees.ledger(harmonised)
    assert set(dropped) == set(LEDGER)
    for key, begins in LEDGER.items():
        assert dropped[key].startswith(begins), key


def test_attributes_match_the_raw_tables_exactly(harmonised):
    for _, record in records(harmonised):
        known = known_from_states(record["states"], closed_vocabulary_negatives=False)
        found = decode(Attributes(record["attributes"], known))
        assert found.pop("source") == record["key"].partition("/")[0]
        expected = dict(word.split("=") for word in KEPT[record["key"]][1].split())
        age = expected.pop("age", None)
        assert found.pop("age", None) == (age and pytest.approx(float(age), rel=1e-3))
        assert found == expected, record["key"]


def test_shards_hold_the_planned_records_in_order(harmonised):
    from array_record.python.array_record_module import ArrayRecordReader

    manifest = json.loads((harmonised / "manifest.json").read_text())
    for name in ("train", "validation", "test"):
        planned = [key for key, (split, _) in KEPT.items() if split == name]
        found = []
        for shard in manifest["splits"][name]["shards"]:
            data = ArrayRecordReader(str(harmonised / shard["file"])).read_all()
            found.append([deserialize(one)["key"] for one in data])
            assert hashes(harmonised)[shard["file"]] == shard["sha256"]
        # shards are planned with four rows each; rows without a usable file are dropped later
        assert [key for keys in found for key in keys] == planned
        assert [len(keys) for keys in found] == [
            len(planned[start : start + 4]) for start in range(0, len(planned), 4)
        ]


def test_images_match_their_phantoms_for_every_file_format(harmonised):
    numbers = {
        "mimic/10000032/50414267/02aa804e-bde0afdd": 0,  # JPEG
        "chexpert/patient64541/study1/view1_frontal.jpg": 12,  # MONOCHROME1 without HighBit
        f"vindr/{raw_trees.HEX[0]}//{raw_trees.HEX[0]}": 23,  # JPEG 2000
        f"vindr/{raw_trees.HEX[2]}//{raw_trees.HEX[2]}": 25,  # MONOCHROME1
        f"padchest/{raw_trees.LONG}1/{raw_trees.LONG}/{raw_trees.LONG}_a.png": 13,  # 12 in 16 bits
        "nih/2/0/00000002_000.png": 21,  # RGBA
    }
    seen = {record["key"]: record for _, record in records(harmonised)}
    for key, number in numbers.items():
        drawn = raw_trees.pictures()[number].reshape(48, 2, 48, 2).mean((1, 3))
        image = seen[key]["image"]
        assert np.corrcoef(drawn.ravel(), image.ravel())[0, 1] > 0.99, key
        assert image.max() > 60_000
    assert (
        seen["chexpert/patient64541/study1/view1_frontal.jpg"]["pixel_spacing"].tolist()
        == [pytest.approx(0.2)] * 2
    )


def test_no_patient_crosses_splits_and_no_name_is_stored(harmonised):
    sides = {}
    for split, record in records(harmonised):
        sides.setdefault(record["patient"], set()).add(split)
    assert all(len(side) == 1 for side in sides.values())
    for path in harmonised.iterdir():
        if path.is_file():
            assert b"Doe^Jane" not in path.read_bytes()


def test_manifest_counts_each_set(harmonised):
    manifest = json.loads((harmonised / "manifest.json").read_text())
    sets = manifest["notes"]["sets"]
    assert {name: counts["published"] for name, counts in sets.items()} == {
        name: SETS[name].published for name in SETS
    }
    for name, counts in sets.items():
        kept = sum(key.startswith(f"{name}/") for key in KEPT)
        left_out = sum(key.startswith((f"{name}/", f"{name}:")) for key in LEDGER)
        assert counts["kept"] == kept
        assert sum(counts["dropped"].values()) == left_out
    assert sets["mimic"]["race_conflicts"] == 1
    assert sets["chexpert"]["labels"] == "report_fixed.json"
    assert sets["chexpert"]["not_understood"]["age"] == {"0": 1}
    assert sets["rexgradient"]["not_understood"]["view"] == {"LAO": 1}
    assert sets["vindr"]["not_understood"]["age"] == {"000Y": 1}
    duplicates = manifest["notes"]["duplicates"]
    assert (duplicates["exact_duplicates"], duplicates["near_duplicates"]) == (1, 1)
    assert duplicates["dropped_for_a_held_out_patient"] == 1
    assert "/tmp" not in json.dumps(manifest)


def test_table_has_fate_and_origin_of_every_row(harmonised):
    table = pq.read_table(harmonised / "table.parquet").to_pylist()
    rows = {row["key"]: row for row in table}
    signs = dict(zip(State, ".+-c?", strict=False)) | {State.NEGATIVE_NO_FINDING: "n"}
    states = {
        key: "".join(signs[State[row[f"{name}_state"].upper()]] for name in FINDING_NAMES)
        for key, row in rows.items()
    }
    assert states == STATES
    kept = {key for key, row in rows.items() if not row["fate"]}
    assert kept == set(KEPT)
    fates = {key: row["fate"] for key, row in rows.items() if row["fate"]}
    assert fates.items() <= raw_trees.ledger(harmonised).items()
    first = rows["mimic/10000032/50414267/02aa804e-bde0afdd"]
    assert (first["view"], first["race"], first["age"]) == ("PA", "White", 52.0)
    assert first["race_origin"] == "MIMIC-IV: admissions.race"
    assert first["pneumonia_state"] == "uncertain"
    assert first["no_finding_origin"] == "derived from the 12 pathologies"
    assert (first["fracture_state"], first["fracture_origin"]) == ("unlabelled", "")
    assert rows["nih/2/0/00000002_000.png"]["age"] is None
    vindr = rows[f"vindr/{raw_trees.HEX[0]}//{raw_trees.HEX[0]}"]
    assert vindr["consolidation_state"] == "uncertain"  # one of three readers
    assert vindr["pneumothorax_origin"] == "image_labels_train.csv: 3 readers"
    assert vindr["edema_state"] == State.NEGATIVE_CLOSED_VOCABULARY.name.lower()


def test_worker_count_and_set_order_do_not_change_the_bytes(roots, harmonised, tmp_path):
    out = tmp_path / "cxr7"
    backwards = dict(reversed(roots.items()))
    done = subprocess.run(
        [sys.executable, "-m", "data_prep.harmonise", *arguments(backwards, out, workers=2)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert hashes(out) == hashes(harmonised)
    assert done.stdout.startswith(f"{out}: train 13, validation 3, test 2 examples of 48²")
    assert "padchest: 5 rows, 3 kept, 160,846 published" in done.stderr


class Killed(BaseException):
    """Simulates SIGKILL: nothing catches it."""


def test_resume_after_a_kill_at_a_rename_gives_the_same_bytes(
    roots, harmonised, tmp_path, monkeypatch
):
    out, replace = tmp_path / "cxr7", os.replace
    for survives in (0, 2, 3):
        left = iter(range(survives))

        def dying(*args, left=left):
            if next(left, None) is None:
                raise Killed
            replace(*args)

        monkeypatch.setattr(os, "replace", dying)
        with pytest.raises(Killed):
            main(arguments(roots, out))
        monkeypatch.setattr(os, "replace", replace)
    main(arguments(roots, out))
    assert hashes(out) == hashes(harmonised)


@pytest.mark.drill
def test_resume_after_ten_random_kills_gives_the_same_bytes(tmp_path):
    """Each kill waits for a random number of new files, so that the kills are spread over the work
    whatever the speed of the machine."""
    root = raw_trees.many(tmp_path / "nih", 600)
    whole, out = tmp_path / "whole", tmp_path / "killed"
    main(arguments({"nih": root}, whole))
    command = [sys.executable, "-m", "data_prep.harmonise", *arguments({"nih": root}, out, 2)]
    moments, kills = random.Random(0), 0

    def finished():
        return {path for path in out.rglob("*") if path.is_file() and path.suffix != ".tmp"}

    while kills < 10:
        before, pieces = finished(), moments.randint(1, 8)
        process = subprocess.Popen(
            command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        while process.poll() is None and len(finished() - before) < pieces:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.02))
        process.kill()
        process.wait()
        time.sleep(1)  # workers without a parent exit
        kills += 1
        assert not (out / "manifest.json").exists(), f"kill {kills} came too late to tell anything"
    main(arguments({"nih": root}, out))
    assert hashes(out) == hashes(whole)


def fails(argv, code, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("data_prep.harmonise: error: ")
    return last


def test_bad_input_ends_with_one_line_and_its_exit_code(roots, tmp_path, capsys):
    out = tmp_path / "out"
    nih = {"nih": roots["nih"]}
    assert "SET one of mimic" in fails(arguments({"nhi": roots["nih"]}, out), 78, capsys)
    twice = [*arguments(nih, out), "--set", f"nih={roots['nih']}"]
    assert "given twice" in fails(twice, 78, capsys)
    for flag, cell in (("column", "image=x"), ("map", "view:a=PA"), ("set-source", "nih")):
        line = fails([*arguments(nih, out), f"--{flag}", cell], 78, capsys)
        assert f"--{flag} describes a --folder NAME=DIR, which is not given" in line
    assert "mount the bucket" in fails(arguments({"nih": "gs://bucket/nih"}, out), 78, capsys)
    assert "mount the bucket" in fails(arguments(nih, "gs://bucket/cxr7"), 78, capsys)
    assert "nothing to harmonise" in fails(arguments({}, out), 78, capsys)
    assert "no folder" in fails(arguments({"nih": tmp_path / "nowhere"}, out), 65, capsys)
    assert "has no Data_Entry_2017" in fails(arguments({"nih": roots["brax"]}, out), 65, capsys)
    assert not out.exists()


def test_unusable_out_is_refused_before_any_image_is_decoded(
    roots, harmonised, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(raw_sets.survey, "survey", pytest.fail)
    nih = {"nih": roots["nih"]}
    foreign = raw_trees.put(tmp_path / "foreign/thesis.tex", "x").parent
    assert "no data set was begun there" in fails(arguments(nih, foreign), 78, capsys)
    assert os.listdir(foreign) == ["thesis.tex"]
    under = foreign / "thesis.tex" / "out"
    assert ": Not a directory" in fails(arguments(nih, under), 78, capsys)
    another = [*arguments(roots, harmonised), "--size", "64"]
    assert "another plan: size is 48 there and 64 here" in fails(another, 78, capsys)
    with writing.claimed(tmp_path / "busy"):
        line = fails(arguments(nih, tmp_path / "busy"), 78, capsys)
    assert "another process is writing" in line


def test_truncated_survey_is_redone_and_damaged_survey_is_reported(roots, tmp_path, capsys):
    out, nih = tmp_path / "out", {"nih": roots["nih"]}
    main(arguments(nih, out))
    (chunk,) = (out / "survey").iterdir()
    whole, before = chunk.read_bytes(), hashes(out)
    chunk.write_bytes(whole[:-100])
    main(arguments(nih, out))
    assert hashes(out) == before
    chunk.write_bytes(b"\0" * (len(whole) // 2) + whole[len(whole) // 2 :])
    assert f"{chunk} is damaged" in fails(arguments(nih, out), 65, capsys)


def test_repeated_row_does_not_change_the_first_one(roots, tmp_path, capsys):
    root, out = tmp_path / "nih", tmp_path / "out"
    shutil.copytree(roots["nih"], root)
    path = root / "Data_Entry_2017.csv"
    lines = path.read_text().splitlines()
    contrary = lines[3].replace("Hernia", "Edema")
    path.write_text("\n".join([*lines, lines[2], contrary]))
    main(arguments({"nih": root}, out))
    rows = pq.read_table(out / "table.parquet").to_pylist()
    assert {row["key"]: row["fate"] for row in rows} == {row["key"]: "" for row in rows}
    reasons = raw_trees.ledger(out)
    first, third = (f"images_00{i}/images/0000000{i + 1}_000.png" for i in (1, 2))
    assert reasons["nih: 00000002_000.png"] == f"the file of an earlier row: {first}"
    assert reasons["nih: 00000003_000.png"] == f"contradicts an earlier row: {third}"
    assert "nih: WARNING: 1 rows contradict another row" in capsys.readouterr().err
    audit_command.main([str(out)])


@pytest.mark.parametrize("there", [slice(None), slice(0, 20), slice(20, None)])
def test_validation_split_does_not_depend_on_which_files_exist(there):
    tables = {}
    for name, carved in (("nih", True), ("mine", False)):
        builder = TableBuilder(name)
        for i in range(40):
            split = "train" if i < 20 else "test"
            builder.add(f"{i}.png", {}, patient=str(i), image=f"{i}.png", split=split)
        table = builder.table(carved=carved)
        tables[name] = dataclasses.replace(table, rows=table.rows[there])
    splits = assign_splits(tables, 0.5, 0.0)
    for row in tables["nih"].rows:
        train = hashed_split(row.patient, 0.5, 0.0)
        assert splits[row.key] == (train if row.split == "train" else "test")
    assert all(splits[row.key] == row.split for row in tables["mine"].rows)


def test_changed_table_is_refused_as_another_plan(roots, tmp_path, capsys):
    out, root = tmp_path / "out", tmp_path / "nih"
    shutil.copytree(roots["nih"], root)
    main(arguments({"nih": root}, out))
    before = hashes(out)
    table = root / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("Hernia", "Edema"))
    assert "the inputs differ" in fails(arguments({"nih": root}, out), 78, capsys)
    assert {k: v for k, v in hashes(out).items() if "survey" not in k} == {
        k: v for k, v in before.items() if "survey" not in k
    }


def test_patient_in_several_splits_keeps_only_the_most_held_out_one(roots, tmp_path):
    root, out = tmp_path / "mimic", tmp_path / "out"
    shutil.copytree(roots["mimic"], root)
    path = root / "mimic-cxr-2.0.0-split.csv.gz"
    content = gzip.decompress(path.read_bytes()).decode().replace("train", "test", 1)
    path.write_bytes(gzip.compress(content.encode()))
    main(arguments({"mimic": root}, out))
    first, second = "02aa804e-bde0afdd", "174413ec-4ec4c1f7"  # of one patient
    assert {record["key"].rpartition("/")[2]: split for split, record in records(out)} == {
        first: "test",
        "2a2277a9-b0ded155": "validation",
    }
    reason = raw_trees.ledger(out)[f"mimic/10000032/50414267/{second}"]
    assert reason == "its patient is in test: the set's own split divides it"


def test_own_folder_is_harmonised_with_the_sets(roots, tmp_path, capsys):
    folder, out = tmp_path / "mine", tmp_path / "out"
    raw_trees.put(folder / "pictures/a.png", raw_trees.eight(34))
    raw_trees.put(folder / "pictures/b.png", raw_trees.eight(22))  # an NIH image without a row here
    raw_trees.put(folder / "pictures/c.png", raw_trees.eight(21))  # the second NIH image
    raw_trees.table(
        folder / "table.csv",
        ["file", "who", "projection"],
        [["a", "p1", "frontal"], ["c", "p2", "frontal"], ["z", "p3", "frontal"]],
    )
    own = [
        *("--folder", f"mine={folder / 'pictures'}", "--metadata", str(folder / "table.csv")),
        *("--column", "image=file", "--column", "patient=who", "--column", "view=projection"),
        *("--map", "view:frontal=PA"),
    ]
    main([*arguments({"nih": roots["nih"]}, out), *own])
    split = {record["key"]: split for split, record in records(out)}
    assert split["mine/p1//a"] == "train"
    reasons = {
        key: reason for key, reason in raw_trees.ledger(out).items() if key.startswith("mine")
    }
    assert reasons == {
        "mine/p2//c": "a duplicate: the same pixels as nih/2/0/00000002_000.png",
        "mine/p3//z": "no file",
        "mine: b.png": "no row in the table",
    }
    notes = json.loads((out / "manifest.json").read_text())["notes"]["sets"]["mine"]
    assert (notes["rows"], notes["kept"], notes["published"]) == (3, 1, None)
    assert "mine: 3 rows, 1 kept" in capsys.readouterr().err
    assert "needs its table" in fails([*arguments({}, out), *own[:2]], 78, capsys)
    assert "other than mimic" in fails([*arguments({}, out), "--folder", "nih=x"], 78, capsys)


def test_missing_extra_is_reported_in_one_line(tmp_path):
    build = ["--images", "x", "--metadata", "x.csv", "--size", "32", "--out", "x"]
    harmonise = ["--set", "nih=x", "--size", "32", "--out", "x"]
    for command, flags in (("build", build), ("harmonise", harmonise), ("audit", ["x"])):
        hidden = "import sys, runpy; sys.modules['cv2'] = None; "
        run = f"runpy.run_module('data_prep.{command}', run_name='__main__', alter_sys=True)"
        done = subprocess.run(
            [sys.executable, "-c", hidden + run, *flags], cwd=ROOT, capture_output=True, text=True
        )
        said = f"data_prep.{command}: error: cv2 missing: install the extra, pip install "
        assert done.stderr == f"{said}'rfxray[prep]'\n"
        assert done.returncode == 78


def test_second_row_with_the_same_key_is_dropped(tmp_path):
    builder = TableBuilder("nih")
    for folder in ("a", "b"):
        raw_trees.put(tmp_path / folder / "x.png", raw_trees.eight(0))
        builder.add(f"{folder}/x.png", {}, patient="p", image="x.png")
    located = locate("nih", builder.table(), FileIndex(tmp_path))
    assert [row.path for row in located.rows] == ["a/x.png"]
    (drop,) = located.dropped
    assert drop == Dropped("nih", "", "b/x.png", "files", "the key of an earlier row", "b/x.png")
