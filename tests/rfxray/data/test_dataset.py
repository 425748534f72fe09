import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from rfxray.attributes.vocabulary import INDEX
from rfxray.data import dataset, plan, record, shards
from rfxray.data.dataset import Records, open_dataset, verify
from rfxray.data.faults import Faults
from rfxray.data.manifest import read_manifest, write_manifest
from rfxray.errors import ConfigError, DataError


@pytest.fixture
def copy(tiny_data, tmp_path):
    """Writable copy of the tiny data set: 50 + 20 records, 16 per shard."""
    return shutil.copytree(tiny_data, tmp_path / "data")


def shard(folder, number=1):
    return sorted(folder.glob("*train*"))[number]


def first_pixels(records) -> list[int]:
    return [int(record["image"][0, 0]) for record in records]


def test_records_are_read_by_number(tiny_data):
    records = Records(open_dataset(tiny_data), "train")
    assert len(records) == 50
    assert first_pixels(records[i] for i in (0, 17, 49)) == [0, 17, 49]


def test_damaged_record_is_named_with_its_file(copy, damage_record):
    damage_record(copy, 5, shard=1)
    with pytest.raises(DataError, match=r"record 5 of .*train.*00001-of-00004 is damaged"):
        Records(open_dataset(copy), "train")[16 + 5]


def test_damaged_record_is_replaced_by_the_next_one(copy, tmp_path, damage_record):
    damage_record(copy, 5, shard=1)
    damage_record(copy, 6, shard=1)
    faults = Faults(tmp_path / "faults.jsonl", tolerate=2)
    records = Records(open_dataset(copy), "train", faults)
    assert first_pixels([records[21]]) == [23]
    assert first_pixels([records[20], records[24]]) == [20, 24]
    assert faults.count == 2
    lines = faults.new()
    assert len(lines) == 2
    assert "record 5 of" in lines[0]
    assert "of 2 tolerated" in lines[0]
    assert faults.new() == []
    # A record that is read again, later or by another process, is not counted twice.
    assert first_pixels([records[21]]) == [23]
    again = Faults(tmp_path / "faults.jsonl", tolerate=2)
    assert first_pixels([Records(open_dataset(copy), "train", again)[22]]) == [23]
    assert again.count == 2
    assert again.new() == []


def test_too_many_damaged_records_are_refused(copy, tmp_path, damage_record):
    damage_record(copy, 5, shard=1)
    damage_record(copy, 9, shard=1)
    records = Records(open_dataset(copy), "train", Faults(tmp_path / "faults.jsonl", tolerate=1))
    assert first_pixels([records[21]]) == [22]
    with pytest.raises(DataError, match=r"record 9 of .*\(1 of 1 so far\)"):
        records[25]


def test_concurrent_readers_count_a_damaged_record_once(tmp_path):
    faults = Faults(tmp_path / "faults.jsonl", tolerate=2)

    def meet(number):
        try:
            faults.add("shard", number, "torn")
        except DataError:
            return number

    with ThreadPoolExecutor(16) as readers:
        refused = set(readers.map(meet, [1, 2, 3, 4] * 40)) - {None}
    assert faults.count == 2
    assert len(refused) == 2


def test_truncated_line_of_faults_does_not_hide_others(tmp_path):
    (tmp_path / "faults.jsonl").write_text('{"file": "shard", "rec')
    faults = Faults(tmp_path / "faults.jsonl", tolerate=2)
    faults.add("shard", 1, "torn")
    faults.add("shard", 2, "torn")
    assert faults.count == 2


def replace_record(folder, number: int, **change) -> None:
    """Writes the first training shard again, with other fields in one record."""
    (records, file) = Records(open_dataset(folder), "train"), shard(folder, 0)
    entries = [dict(records[i]) for i in range(16)]
    attributes = entries[number]["attributes"].copy()
    for name, value in change.pop("values", {}).items():
        attributes[INDEX[name]] = value
    entries[number] |= {"attributes": attributes, **change}
    writer = ArrayRecordWriter(str(file), shards.WRITER_OPTIONS)
    for entry in entries:
        writer.write(record.serialize(entry))
    writer.close()
    manifest = read_manifest(folder)
    manifest["splits"]["train"]["shards"][0]["bytes"] = file.stat().st_size
    write_manifest(folder, manifest)


IMPOSSIBLE = [
    ({"values": {"view": 7}}, r"view is 7; allowed are 0 \(PA\), 1 \(AP\), 2 \(lateral\)"),
    ({"values": {"view": -3}}, "view is -3; allowed are"),
    ({"values": {"view": 0.5}}, "view is 0.5;"),
    ({"values": {"source": 9}}, "source is 9;"),
    ({"values": {"edema": 2}}, r"edema is 2; allowed are 0 \(absent\), 1 \(present\)"),
    ({"values": {"age": 121}}, "age is 121; allowed are 0 to 120 years"),
    ({"values": {"age": -1}}, "age is -1;"),
    ({"values": {"age": np.nan}}, "age is nan;"),
    ({"values": {"sex": np.inf}}, "sex is inf;"),
    ({"image": np.zeros((31, 32), np.uint16)}, "image is 31 × 32 of uint16, not 32 × 32"),
    ({"image": np.zeros((64, 64), np.uint16)}, "image is 64 × 64 of uint16, not 32 × 32"),
]


@pytest.mark.parametrize(("change", "reason"), IMPOSSIBLE)
def test_impossible_record_is_named_with_its_file_and_may_be_replaced(
    copy, tmp_path, change, reason
):
    replace_record(copy, 5, **change)
    with pytest.raises(
        DataError, match=rf"record 5 of .*00000-of-00004 is damaged .*{reason}"
    ) as e:
        Records(open_dataset(copy), "train")[5]
    assert "\n" not in str(e.value)
    faults = Faults(tmp_path / "faults.jsonl", tolerate=1)
    assert first_pixels([Records(open_dataset(copy), "train", faults)[5]]) == [6]
    assert faults.count == 1


@pytest.mark.parametrize("view", [7, -3])
def test_writer_refuses_a_record_that_a_reader_would_refuse(tiny_records, tmp_path, view):
    (good,) = tiny_records([0])
    attributes = np.array(good["attributes"])
    attributes[INDEX["view"]] = view
    (tmp_path / "partial").mkdir()
    first = plan.Shard("train", 0, ["item 0"])
    with pytest.raises(
        DataError, match=rf"'item 0' made a record that is not valid: view is {view};"
    ):
        shards.write_shard(first, tmp_path, 32, [{**good, "attributes": attributes}])
    with pytest.raises(
        DataError, match=r"'item 0' made .* image is 32 × 32 of uint16, not 16 × 16"
    ):
        shards.write_shard(first, tmp_path, 16, [good])
    assert not list((tmp_path / "partial").iterdir())


def test_damaged_last_record_is_replaced_by_the_first(copy, tmp_path, damage_record):
    damage_record(copy, 1, shard=3)
    records = Records(open_dataset(copy), "train", Faults(tmp_path / "faults.jsonl", tolerate=1))
    assert first_pixels([records[49]]) == [0]


@pytest.mark.parametrize("how", ["none", "sample", "full"])
def test_undamaged_data_set_passes_verification(tiny_data, how):
    verify(open_dataset(tiny_data), how)


def test_full_verification_finds_any_flipped_bit(copy):
    file = shard(copy)
    content = bytearray(file.read_bytes())
    content[len(content) - 7] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"train.*00001-of-00004 is not what was written"):
        verify(open_dataset(copy), "full")
    # With two hosts, the second one verifies this shard.
    verify(open_dataset(copy), "full", host=0, hosts=2)
    with pytest.raises(DataError):
        verify(open_dataset(copy), "full", host=1, hosts=2)


def test_sample_verification_finds_an_unreadable_shard(copy):
    file = shard(copy)
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(DataError, match=rf"shard .*{file.name} cannot be opened"):
        verify(open_dataset(copy), "sample")
    with pytest.raises(DataError, match=rf"shard .*{file.name} cannot be opened"):
        Records(open_dataset(copy), "train")


def test_damaged_sampled_record_error_says_how_to_continue(copy, damage_record):
    first = open_dataset(copy).shards["train"][0]
    damage_record(copy, int(first.sha256[:8], 16) % first.examples)
    with pytest.raises(DataError, match=r"record \d+ of .* is damaged .*verify=none .*tolerate=N"):
        verify(open_dataset(copy), "sample")


def test_shards_with_fewer_records_than_the_manifest_are_refused(copy):
    manifest = read_manifest(copy)
    manifest["splits"]["train"]["shards"][0]["examples"] += 1
    manifest["splits"]["train"]["examples"] += 1
    write_manifest(copy, manifest)
    with pytest.raises(DataError, match="hold 50 records instead of 51"):
        Records(open_dataset(copy), "train")


def test_damaged_manifest_is_refused(copy):
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(text.replace('"size": 32', '"size": 33'))
    with pytest.raises(DataError, match=r"manifest\.json is damaged: its content does not match"):
        open_dataset(copy)


def test_manifest_of_another_layout_is_refused(tmp_path):
    write_manifest(tmp_path, {"size": 32, "splits": 3})
    with pytest.raises(DataError, match=r"cannot read the manifest .*manifest\.json"):
        open_dataset(tmp_path)


def test_bucket_url_is_refused():
    with pytest.raises(ConfigError, match=r"gs://bucket/data is not a path; mount the bucket"):
        open_dataset("gs://bucket/data")


def test_stored_records_come_once_in_order(tiny_data):
    assert first_pixels(dataset.stored(open_dataset(tiny_data), "validation")) == list(
        range(50, 70)
    )
