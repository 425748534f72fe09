"""Reading training data: order of examples, content of a batch, and refused data sets."""

import dataclasses
import itertools
import shutil

import numpy as np
import pytest

from rfxray.attributes import states, vocabulary
from rfxray.data import pixels
from rfxray.data.batches import (
    Reading,
    first_examples,
    fixed_batches,
    open_mixture,
    records_at,
    train_batches,
)
from rfxray.data.dataset import stored
from rfxray.errors import ConfigError, DataError
from rfxray.train import open_data

TRAIN, VALIDATION = 50, 20  # as in conftest.py
SHAPE = (32, 32, 1)
BATCH = 8
READING = Reading()
EDEMA, PNEUMONIA = (vocabulary.INDEX[name] for name in ("edema", "pneumonia"))


def mixture_of(*dirs, weights=(1.0,), split="train", seed=0, closed=True):
    return open_mixture([str(d) for d in dirs], weights, split, seed, closed)


@pytest.fixture(scope="module")
def mixture(tiny_data):
    return mixture_of(tiny_data)


def numbers(batch) -> list[int]:
    """Numbers of the examples of a batch, stored in their first pixel."""
    return pixels.to_uint16(batch["image"][:, 0, 0, 0]).tolist()


def read(mixture, n, step=0, batch_size=BATCH, reading=READING, **hosts):
    """n batches, starting at a step."""
    batches = train_batches(mixture, batch_size, reading, batch_size * step, **hosts)
    return list(itertools.islice(batches, n))


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])
        assert a[key].dtype == b[key].dtype


@pytest.fixture(scope="module")
def three_epochs(mixture):
    """19 batches of 8: a little more than 3 epochs of 50."""
    return read(mixture, 19)


def test_order_of_a_seed_never_changes(mixture):
    """Checkpoints rely on it: a position must mean the same example in every version."""
    numbers = [int(r["image"][0, 0]) for r in records_at(mixture, [*range(12), 50, 51, 52])]
    assert numbers == [21, 37, 31, 14, 9, 46, 28, 6, 24, 41, 36, 15, 24, 23, 1]


def test_every_epoch_is_a_new_order_of_all_examples(three_epochs):
    order = [n for batch in three_epochs for n in numbers(batch)]
    epochs = [order[i * TRAIN : (i + 1) * TRAIN] for i in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(TRAIN))
    for a, b in itertools.combinations([*epochs, list(range(TRAIN))], 2):
        assert a != b


def test_every_example_carries_its_position_in_the_data_order(three_epochs):
    places = np.concatenate([batch["index"] for batch in three_epochs])
    np.testing.assert_array_equal(places, np.arange(19 * 8, dtype=np.uint32))
    assert places.dtype == np.uint32


@pytest.mark.parametrize("step", [1, 7, 18])
def test_reading_from_a_step_continues_the_same_order(mixture, three_epochs, step):
    (batch,) = read(mixture, 1, step)
    assert_same(batch, three_epochs[step])


def test_position_is_step_times_batch_size(mixture):
    iterator = train_batches(mixture, BATCH, position=5 * 8)
    assert iterator.get_state()["global_next_index"] == 5 * 8
    next(iterator)
    assert iterator.get_state()["global_next_index"] == 6 * 8


@pytest.mark.parametrize("hosts", [2, 4])
def test_any_number_of_hosts_reads_the_same_global_batches(mixture, three_epochs, hosts):
    shares = [read(mixture, 3, 5, host=h, hosts=hosts) for h in range(hosts)]
    for share, whole in zip(zip(*shares, strict=True), three_epochs[5:8], strict=True):
        for h, rows in enumerate(share):
            assert_same(rows, {key: value[h::hosts] for key, value in whole.items()})


def test_order_depends_on_the_seed(tiny_data, three_epochs):
    (batch,) = read(mixture_of(tiny_data, seed=1), 1)
    assert numbers(batch) != numbers(three_epochs[0])


def test_worker_processes_read_the_same_batches(mixture, three_epochs):
    found = read(mixture, 2, 3, reading=Reading(workers=1))
    for batch, expected in zip(found, three_epochs[3:5], strict=True):
        assert_same(batch, expected)


def test_records_at_returns_the_records_of_a_batch(mixture, three_epochs):
    places = three_epochs[7]["index"]
    records = records_at(mixture, places)
    assert [record["key"] for record in records] == [
        f"phantom/p{number}/s/i" for number in numbers(three_epochs[7])
    ]
    assert all("states" in record for record in records)


# ---------------------------------------------------------------------------------------------
# Content of an example


def test_batches_hold_the_decoded_records(three_epochs, tiny_records):
    for batch in three_epochs[:4]:
        assert batch["image"].dtype == np.float32
        for row, written in enumerate(tiny_records(numbers(batch))):
            expected = written["image"].astype(np.float64) / 65535 * 2 - 1
            # Two roundings with a relative error of 6e-8, of numbers up to 2.
            np.testing.assert_allclose(batch["image"][row, :, :, 0], expected, atol=2.4e-7)
            assert batch["content_box"][row].tolist() == written["content_box"]
            known = states.known_from_states(written["states"])
            np.testing.assert_array_equal(batch["known"][row], known)
            np.testing.assert_array_equal(
                batch["attributes"][row], np.where(known, written["attributes"], 0)
            )


def test_uncertain_attributes_are_unknown(three_epochs, tiny_records):
    (written,) = tiny_records([0])
    assert written["attributes"][PNEUMONIA] == 1  # the record keeps the raw value
    for batch in three_epochs:
        assert not batch["known"][:, PNEUMONIA].any()
        assert not batch["attributes"][:, PNEUMONIA].any()
        assert np.isfinite(batch["attributes"]).all()


def test_closed_vocabulary_negatives_are_absent_or_unknown(tiny_data, three_epochs):
    assert three_epochs[0]["known"][:, EDEMA].all()
    (batch,) = read(mixture_of(tiny_data, closed=False), 1)
    assert not batch["known"][:, EDEMA].any()
    without = np.arange(19) != EDEMA
    np.testing.assert_array_equal(batch["known"][:, without], three_epochs[0]["known"][:, without])


def test_pixels_round_trip_through_float():
    every = np.arange(2**16, dtype=np.uint16)
    floats = pixels.to_float(every)
    assert (floats.min(), floats.max()) == (-1.0, 1.0)
    np.testing.assert_array_equal(pixels.to_uint16(floats), every)
    np.testing.assert_array_equal(pixels.to_uint16(np.array([-7.0, 7.0])), [0, 65535])


# ---------------------------------------------------------------------------------------------
# Mixtures


def test_mixture_takes_its_share_of_each_data_set(tiny_data, other_data):
    mixed = mixture_of(tiny_data, other_data, weights=(3.0, 1.0))
    batches = read(mixed, 5, batch_size=40)
    order = [n for batch in batches for n in numbers(batch)]
    first = [n for n in order if n < 1000]
    second = [n for n in order if n >= 1000]
    assert (len(first), len(second)) == (150, 50)
    for part, examples in ((first, range(TRAIN)), (second, range(1000, 1030))):
        assert sorted(part[: len(examples)]) == list(examples)  # each data set has its own epochs
    places = np.concatenate([batch["index"] for batch in batches])
    np.testing.assert_array_equal(places, np.arange(200))
    (later,) = read(mixed, 1, step=3, batch_size=40)
    assert_same(later, batches[3])
    assert mixed.fingerprint == "+".join(dataset.fingerprint for dataset in mixed.datasets)


# ---------------------------------------------------------------------------------------------
# Held-out examples


def test_fixed_batches_are_the_same_examples_in_stored_order(mixture):
    whole = fixed_batches(mixture, "validation", BATCH, 3)
    held_out = list(range(TRAIN, TRAIN + VALIDATION))
    assert [n for batch in whole for n in numbers(batch)] == held_out + held_out[:4]
    places = np.concatenate([batch["index"] for batch in whole])
    np.testing.assert_array_equal(places, np.arange(24))  # repeated examples have their own index
    for h in range(2):
        share = fixed_batches(mixture, "validation", BATCH, 3, host=h, hosts=2)
        for rows, batch in zip(share, whole, strict=True):
            assert_same(rows, {key: value[h::2] for key, value in batch.items()})


@pytest.mark.parametrize(("split", "first"), [("validation", TRAIN), ("train", 0)])
def test_first_examples_follow_the_stored_order_of_the_split(mixture, tiny_records, split, first):
    found = first_examples(mixture, split, 8)
    assert numbers(found) == list(range(first, first + 8))
    np.testing.assert_array_equal(found["index"], np.arange(8))
    for row, written in enumerate(tiny_records(range(first, first + 8))):
        known = states.known_from_states(written["states"])
        np.testing.assert_array_equal(found["known"][row], known)
        np.testing.assert_array_equal(
            found["attributes"][row], np.where(known, written["attributes"], 0)
        )


def test_first_examples_repeat_when_the_split_is_too_small(mixture):
    found = first_examples(mixture, "validation", VALIDATION + 2)
    assert numbers(found)[-2:] == numbers(found)[:2]
    np.testing.assert_array_equal(found["index"], np.arange(VALIDATION + 2))


def test_stored_records_come_in_order(mixture, tiny_records):
    records = list(stored(mixture.datasets[0], "validation"))
    assert [r["key"] for r in records] == [
        r["key"] for r in tiny_records(range(TRAIN, TRAIN + VALIDATION))
    ]


# ---------------------------------------------------------------------------------------------
# Errors of one line


def refused(kind, call, *arguments) -> str:
    with pytest.raises(kind) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_data_set_error_names_the_command_that_makes_it(make_config, tmp_path):
    config = make_config(f"data.dirs={tmp_path / 'none'}", "data.make=python -m make --n 3")
    line = refused(DataError, open_data, config, SHAPE)
    assert (
        line == f"data set {tmp_path / 'none'} does not exist; make it with: python -m make --n 3"
    )


def test_unfinished_data_set_is_reported_as_incomplete(tmp_path):
    line = refused(DataError, mixture_of, tmp_path)
    assert "is not complete (no manifest.json)" in line
    assert "data_prep.build" in line


@pytest.mark.parametrize("text", ["{", "[]", '{"size": 32}'])
def test_malformed_manifest_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    assert f"{tmp_path}/manifest.json " in refused(DataError, mixture_of, tmp_path)


@pytest.fixture
def copy(tiny_data, tmp_path):
    return shutil.copytree(tiny_data, tmp_path / "copy")


def test_missing_shard_is_named(copy):
    shard = sorted(copy.glob("*train*"))[1]
    shard.unlink()
    assert refused(DataError, mixture_of, copy) == f"data set {copy} lacks its shard {shard.name}"


@pytest.mark.parametrize("cut", [0, 100, 70_000])
def test_truncated_shard_is_named(copy, cut):
    shard = sorted(copy.glob("*train*"))[1]
    shard.write_bytes(shard.read_bytes()[:cut])
    assert shard.name in refused(DataError, mixture_of, copy)


@pytest.mark.parametrize(
    ("shape", "said", "hint"),
    [
        ((64, 64, 1), "the network takes 64 × 64 × 1", "set config.model.size"),
        ((32, 32, 16), "the network takes 32 × 32 × 16", "use a config of pixels"),
    ],
)
def test_images_of_another_shape_than_the_network_are_refused(mixture, shape, said, hint):
    line = refused(ConfigError, mixture.require_shape, shape)
    for part in ("holds images of 32 × 32 × 1", said, hint):
        assert part in line
    mixture.require_shape(SHAPE)


def test_missing_split_error_lists_the_existing_ones(tiny_data):
    line = refused(ConfigError, lambda: mixture_of(tiny_data, split="test"))
    assert "no split 'test', only train, validation; set config.data.split" in line


def test_split_is_required_only_by_evaluators_that_run(make_config, other_data):
    loss = "evaluators.validation_loss"
    config = make_config(f"data.dirs={other_data}", f"{loss}.every=3")
    line = refused(ConfigError, open_data, config, SHAPE)
    assert "no split 'validation', only train" in line
    assert f"set config.{loss}.split, or config.{loss}.every=0" in line
    never = open_data(make_config(f"data.dirs={other_data}"), SHAPE)
    assert [dataset.examples for dataset in never.datasets] == [{"train": 30}]
    other = make_config(f"data.dirs={other_data}", f"{loss}.every=3", f"{loss}.split=train")
    assert open_data(other, SHAPE).split == "train"


def test_open_data_follows_the_config(make_config, tiny_data, other_data):
    config = make_config(
        f"data.dirs={tiny_data},{other_data}",
        "data.weights=3.0,1.0",
        "seed=5",
        "data.closed_vocabulary_negatives=false",
    )
    opened = open_data(config, SHAPE)
    wanted = mixture_of(tiny_data, other_data, weights=(3.0, 1.0), seed=5, closed=False)
    assert dataclasses.asdict(opened) == dataclasses.asdict(wanted)
