import csv
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import data_prep
from data_prep.phantom import draw_attributes, draw_states, observe
from rfxray.attributes.states import State
from rfxray.attributes.vocabulary import encode
from rfxray.data import manifest as manifests
from rfxray.data import plan, record, shards
from rfxray.data.record import deserialize
from rfxray.data.writing import write_dataset
from rfxray.errors import ConfigError, DataError

SIZE = 16
FINGERPRINT = "12bcf99db9f3d6fb00b3abb9b3612728975f92ffed61caa30f5a31db3db79a38"
ROOT = Path(data_prep.__file__).parents[1]


def draw(i):
    attributes, known = encode({"view": "PA", "age": 40 + i % 50, "source": "phantom"})
    return {
        "image": np.random.default_rng(i).integers(0, 1 << 16, (SIZE, SIZE)).astype(np.uint16),
        "content_box": (0, 0, SIZE, SIZE),
        "original_size": (SIZE, SIZE),
        "original_bits": 16,
        "pixel_spacing": (0.0, 0.0),
        "laterality": "",
        "attributes": attributes,
        "states": known * np.int8(State.STATED),
        "key": f"toy/{i}//{i}",
        "patient": f"toy/{i}",
    }


def make(items):
    """One record per item, except 10 to 19 (a whole shard) and every seventh, which are dropped."""
    for i in items:
        if 10 <= i < 20 or i % 7 == 3:
            yield plan.Dropped("toy", f"toy/{i}", f"{i}.png", "decode", "torn", f"at {i}")
        else:
            yield draw(i)


def toy_plan(shard_examples=10, **changed):
    splits = {"train": range(40), "validation": range(40, 50)}
    return plan.make_plan(
        **{"splits": splits, "name": "toy", "size": SIZE, "shard_examples": shard_examples}
        | {"options": {"seed": 0}}
        | changed
    )


def hashes(directory):
    files = sorted(path for path in Path(directory).rglob("*") if path.is_file())
    return {
        str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("written") / "toy"
    return out, write_dataset(toy_plan(), make, out)


def test_tfds_reads_every_written_record(written):
    out, _ = written
    import tensorflow_datasets as tfds

    source = tfds.builder_from_directory(out).as_data_source(split="train")
    kept = [i for i in range(40) if not (10 <= i < 20 or i % 7 == 3)]
    assert [source[j]["key"].decode() for j in range(len(source))] == [
        f"toy/{i}//{i}" for i in kept
    ]
    for j in (0, len(kept) - 1):
        expected, found = draw(kept[j]), source[j]
        np.testing.assert_array_equal(found["image"][..., 0], expected["image"])
        for field in ("attributes", "states", "content_box", "original_bits"):
            np.testing.assert_array_equal(found[field], expected[field])
    assert "tensorflow" not in sys.modules


def test_manifest_describes_the_written_files(written):
    from array_record.python.array_record_module import ArrayRecordReader

    out, manifest = written
    assert json.loads((out / "manifest.json").read_text()) == manifest
    train = manifest["splits"]["train"]
    # 10..19 are all dropped: their shard is not written and the others are numbered without a gap
    assert [s["file"] for s in train["shards"]] == [
        f"toy-train.array_record-{i:05d}-of-00003" for i in range(3)
    ]
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            data = (out / shard["file"]).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (
                shard["bytes"],
                shard["sha256"],
            )
            reader = ArrayRecordReader(str(out / shard["file"]))
            assert reader.num_records() == shard["examples"]
            assert "group_size:1," in reader.writer_options_string()
            deserialize(reader.read([0])[0])
    assert train["examples"] == sum(s["examples"] for s in train["shards"]) == 26
    assert train["counts"]["view"] == {"values": {"PA": 26}, "states": {"stated": 26}}
    assert sum(train["counts"]["age"]["values"].values()) == 26
    assert train["counts"]["edema"]["states"] == {"unlabelled": 26}
    assert manifest["dropped"] == 50 - 26 - manifest["splits"]["validation"]["examples"]
    assert manifest["dropped_reasons"] == {"torn": manifest["dropped"]}
    with open(out / "dropped.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["set", "key", "path", "stage", "reason", "detail"]
    assert rows[1] == ["toy", "toy/3", "3.png", "decode", "torn", "at 3"]
    assert len(rows) == 1 + manifest["dropped"]
    assert not (out / "partial").exists()


def test_fingerprint_does_not_depend_on_sharding(written, tmp_path):
    _, manifest = written
    other = write_dataset(toy_plan(shard_examples=7), make, tmp_path / "toy")
    assert other["fingerprint"] == manifest["fingerprint"]
    assert len(other["splits"]["train"]["shards"]) > 3


def changed(value):
    """A different value for a field of a record."""
    if isinstance(value, str):
        return value + "L"
    array = np.array(value)
    array.flat[-1] += 1
    return array


@pytest.mark.parametrize("field", ["image", *record.FIELDS])
def test_changing_any_field_changes_the_fingerprint(field, tmp_path):
    def make_other(items):
        for example in map(draw, items):
            if example["key"] == "toy/2//2":
                example[field] = changed(example[field])
            yield example

    two = plan.make_plan({"train": range(4)}, name="toy", size=SIZE, shard_examples=3)
    one = write_dataset(two, lambda items: map(draw, items), tmp_path / "one")
    other = write_dataset(two, make_other, tmp_path / "other")
    assert one["fingerprint"] != other["fingerprint"]


def test_digest_does_not_depend_on_encoding():
    one = draw(1)
    typed = {
        **one,
        "image": one["image"].astype(">u2"),
        "attributes": one["attributes"].astype(">f4"),
        "original_bits": np.int64(16),
        "content_box": np.array(one["content_box"], ">i8"),
    }
    assert record.digest(one) == record.digest(typed)
    assert record.digest(one) == record.digest(deserialize(record.serialize(one)))


def test_digest_separates_neighbouring_fields_and_shapes():
    one = draw(1)
    moved = one | {"key": one["key"] + "p", "patient": one["patient"][1:]}
    tall = one | {"image": one["image"].reshape(2 * SIZE, SIZE // 2)}
    assert len({record.digest(example) for example in (one, moved, tall)}) == 3


def test_fingerprint_of_a_tiny_data_set_never_changes(tmp_path):
    """Another fingerprint would change the identity of every run. The images use integer arithmetic
    because phantom images differ in the last bit between processors."""
    two = plan.make_plan(
        {"train": range(5), "validation": range(5, 7)}, name="tiny", size=SIZE, shard_examples=2
    )

    def make_tiny(items):
        attributes = draw_attributes(0, np.array(items))
        states = draw_states(0, np.array(items), attributes)
        for i, values, known in zip(items, observe(attributes, states), states, strict=True):
            image = (np.arange(SIZE * SIZE) * (i + 1) * 251 % 65536).reshape(SIZE, SIZE)
            yield draw(i) | {
                "image": image.astype(np.uint16),
                "attributes": values,
                "states": known,
                "key": f"phantom/p{i:07d}/s0/i0",
                "patient": f"phantom/p{i:07d}",
                "pixel_spacing": (0.5, 0.25),
                "laterality": "L",
            }

    found = write_dataset(two, make_tiny, tmp_path / "tiny")["fingerprint"]
    assert found == FINGERPRINT


def test_fingerprint_depends_on_order_and_split():
    a, b = (record.digest(draw(i)) for i in (1, 2))
    prints = [{"train": [a, b]}, {"train": [b, a]}, {"train": [a], "test": [b]}, {"test": [a, b]}]
    assert len({shards.fingerprint(digests) for digests in prints}) == 4


def test_manifest_with_any_changed_digit_is_refused(written, tmp_path):
    text = (written[0] / "manifest.json").read_text()
    file = tmp_path / "manifest.json"
    for at in (i for i, letter in enumerate(text) if letter.isdigit()):
        file.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
        with pytest.raises(DataError) as refused:
            manifests.read_manifest(tmp_path)
        assert str(refused.value).startswith(f"{file} is damaged: ")
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", ["[]", "{}", '{"name": "toy", "splits": {}}'])
def test_manifest_without_a_checksum_is_refused(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=r"manifest\.json was written by another version"):
        manifests.read_manifest(tmp_path)


def test_manifest_checksum_ignores_formatting(written, tmp_path):
    _, manifest = written
    (tmp_path / "manifest.json").write_text(json.dumps(dict(reversed(manifest.items()))))
    assert manifests.read_manifest(tmp_path) == manifest


def test_dropped_csv_is_written_when_nothing_is_dropped(tmp_path):
    write_dataset(toy_plan(splits={"train": range(3)}), make, tmp_path / "toy")
    assert (tmp_path / "toy" / "dropped.csv").read_text() == (
        '"set","key","path","stage","reason","detail"\n'
    )


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+49 30", "-1.png", "@sum", "\t=x", "\r=x", "'=x", "'", "a=b", 'say "x",\ny', ""],
)
def test_no_cell_of_dropped_csv_is_a_formula_and_each_is_read_back(tmp_path, text):
    drop = plan.Dropped("toy", text, text, "decode", text, text)
    manifests.publish_ledger(tmp_path, [drop])
    with open(tmp_path / "dropped.csv", encoding="utf-8", newline="") as file:
        _, row = csv.reader(file)
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row)
    assert manifests.read_ledger(tmp_path) == [drop]


def test_complete_data_set_is_reported_and_not_changed(written, capsys):
    out, manifest = written
    before = hashes(out)
    assert write_dataset(toy_plan(), pytest.fail, out) == manifest
    assert "complete already" in capsys.readouterr().err
    assert hashes(out) == before


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"options": {"seed": 1}}, "options.seed is 0 there and 1 here"),
        ({"options": {"seed": 0, "tilt": 2}}, "options.tilt is only here"),
        ({"shard_examples": 11}, "shard_examples is 10 there and 11 here"),
        ({"splits": {"train": range(1, 41), "validation": range(40, 50)}}, "the inputs differ"),
        ({"versions": {"pillow": "1"}}, "versions.pillow is only here"),
    ],
)
def test_other_plan_in_the_same_directory_is_refused(written, changed, named):
    out, _ = written
    before = hashes(out)
    with pytest.raises(ConfigError, match=named):
        write_dataset(toy_plan(**changed), make, out)
    assert hashes(out) == before


def test_directory_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"no plan\.json"):
        write_dataset(toy_plan(), make, tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]
    with pytest.raises(ConfigError, match="cannot create --out"):
        write_dataset(toy_plan(), make, tmp_path / "thesis.tex")


def test_second_writer_is_refused(tmp_path):
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(ConfigError, match="another process"):
        write_dataset(toy_plan(), make, tmp_path)
    os.close(handle)
    write_dataset(toy_plan(), make, tmp_path)


def test_dropping_every_item_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"10 dropped \(most often: torn\).*dropped\.csv"):
        write_dataset(toy_plan(splits={"train": range(10, 20)}), make, tmp_path / "toy")
    assert (tmp_path / "toy" / "dropped.csv").read_text().count("torn") == 10
    assert not (tmp_path / "toy" / "manifest.json").exists()


def test_bad_plans_are_refused():
    with pytest.raises(ConfigError, match="cannot be the name"):
        toy_plan(name="My Set")
    with pytest.raises(ConfigError, match="--shard-examples and --size must be at least 1"):
        toy_plan(shard_examples=0)


def test_make_must_yield_one_result_per_item(tmp_path):
    with pytest.raises(ValueError, match="shorter"):
        write_dataset(toy_plan(), lambda items: make(items[:-1]), tmp_path / "toy")


class Killed(BaseException):
    """Simulates SIGKILL: nothing catches it."""


def test_resume_after_a_kill_at_any_rename_gives_the_same_bytes(written, tmp_path, monkeypatch):
    """Kills the run at the 1st, 2nd, … rename and resumes it; every effect on disk is a rename."""
    expected = hashes(written[0])
    out, replace = tmp_path / "toy", os.replace
    for deaths in range(100):
        left = iter(range(deaths))

        def dying(*args, left=left, deaths=deaths):
            if next(left, None) is None:
                raise Killed(deaths)
            replace(*args)

        monkeypatch.setattr(os, "replace", dying)
        try:
            write_dataset(toy_plan(), make, out)
            break
        except Killed:
            pass
        monkeypatch.setattr(os, "replace", replace)
        finished = len(list(out.glob("partial/*.json")))
        again = tmp_path / f"again{deaths}"
        subprocess.run(["cp", "-r", out, again], check=True)
        write_dataset(toy_plan(), make, again)
        assert hashes(again) == expected, f"after {deaths} renames, {finished} fragments"
        subprocess.run(["rm", "-r", out], check=True)
    # plan, 5 × (shard, fragment), dropped.csv, 4 final names, manifest; tfds may add more
    assert deaths >= 17


# ---------------------------------------------------------------------------------------------
# Processes: workers import `make` again, so these tests run a separate script

SCRIPT = r"""
import os, sys, time
sys.path.insert(0, {tests!r})
import test_writing
from rfxray.data.writing import write_dataset
from rfxray.command_line import exit_on_error

def make(items):
    mode = os.environ.get("TOY_MODE")
    if mode == "crash" and items[0] == 20:
        os._exit(9)
    if mode == "slow":
        os.write(1, b"pid %d\n" % os.getpid())  # one write, because the workers share the pipe
        time.sleep(0.2 if items[0] == 0 else 60)
    return test_writing.make(items)

if __name__ == "__main__":
    with exit_on_error("toy"):
        write_dataset(test_writing.toy_plan(), make, sys.argv[1], workers=int(sys.argv[2]))
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))

    def start(out, workers, mode=""):
        return subprocess.Popen(
            [sys.executable, path, out, str(workers)],
            env=os.environ | {"PYTHONPATH": str(ROOT), "TOY_MODE": mode},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Background jobs of a shell ignore SIGINT, and their children inherit this.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    return start


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_resume_after_worker_crash_and_kill_gives_the_same_bytes(written, script, tmp_path):
    out = tmp_path / "toy"
    crashed = script(out, 2, "crash")
    _, err = crashed.communicate(timeout=120)
    assert crashed.returncode == 75
    assert err.splitlines()[-1].startswith("toy: stopped: a worker process died")
    for path in out.glob("partial/train-00000.*"):
        path.unlink()

    slow = script(out, 2, "slow")
    workers = set()
    while len(workers) < 2:  # one worker may report two shards before the other starts
        line = slow.stdout.readline()
        assert line, slow.stderr.read()
        workers.add(int(line.split()[1]))
    wait_for((out / "partial" / "train-00000.json").exists)
    os.kill(slow.pid, signal.SIGKILL)
    slow.communicate()
    wait_for(lambda: not any(map(alive, workers)))  # no orphans
    resumed = script(out, 2)
    _, err = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, err
    assert "continuing in" in err
    assert hashes(out) == hashes(written[0])


def test_interrupt_prints_one_line_and_can_resume(written, script, tmp_path):
    out = tmp_path / "toy"
    slow = script(out, 1, "slow")
    slow.stdout.readline()
    wait_for((out / "partial" / "train-00000.json").exists)
    slow.send_signal(signal.SIGINT)
    _, err = slow.communicate(timeout=60)
    assert slow.returncode == 75
    assert err.splitlines()[-1].startswith("toy: stopped: interrupted")
    assert write_dataset(toy_plan(), make, out) == written[1]
    assert hashes(out) == hashes(written[0])
