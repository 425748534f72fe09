import itertools
import shutil

import numpy as np
import pytest

from rfxray.attributes import states, vocabulary
from rfxray.data import pixels
from rfxray.data.batches import (
    fingerprint,
    open_datasets,
    requests,
    train_batches,
    validation_batches,
)
from rfxray.data.dataset import open_dataset, stored
from rfxray.errors import ConfigError, DataError

TRAIN, VALIDATION = 50, 20  # as in conftest.py
EDEMA, PNEUMONIA = (vocabulary.INDEX[name] for name in ("edema", "pneumonia"))


@pytest.fixture(scope="module")
def config(make_config, tiny_data):
    return make_config(f"data.dirs={tiny_data}", f"data.make=make {tiny_data}")


@pytest.fixture(scope="module")
def datasets(config):
    return open_datasets(config)


def numbers(batch) -> list[int]:
    """Which examples a batch holds: their first pixel is their number."""
    return pixels.to_uint16(batch["image"][:, 0, 0, 0]).tolist()


def read(config, datasets, n, step=0, **hosts):
    return list(
        itertools.islice(train_batches(config, datasets, config.batch_size * step, **hosts), n)
    )


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])
        assert a[key].dtype == b[key].dtype


@pytest.fixture(scope="module")
def three_epochs(config, datasets):
    """19 batches of 8: a little more than 3 epochs of 50."""
    return read(config, datasets, 19)


def test_every_epoch_is_another_order_of_all_examples(three_epochs):
    order = [n for batch in three_epochs for n in numbers(batch)]
    epochs = [order[i * TRAIN : (i + 1) * TRAIN] for i in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(TRAIN))
    for a, b in itertools.combinations([*epochs, list(range(TRAIN))], 2):
        assert a != b


def test_every_example_carries_its_place_in_the_endless_order(three_epochs):
    places = np.concatenate([batch["index"] for batch in three_epochs])
    np.testing.assert_array_equal(places, np.arange(19 * 8, dtype=np.uint32))
    assert places.dtype == np.uint32


@pytest.mark.parametrize("step", [1, 7, 18])
def test_reading_from_a_step_goes_on_where_it_would_have(config, datasets, three_epochs, step):
    (batch,) = read(config, datasets, 1, step)
    assert_same(batch, three_epochs[step])


def test_the_position_is_the_step(config, datasets):
    iterator = train_batches(config, datasets, 5 * 8)
    assert iterator.get_state()["global_next_index"] == 5 * 8
    next(iterator)
    assert iterator.get_state()["global_next_index"] == 6 * 8


@pytest.mark.parametrize("hosts", [2, 4])
def test_any_number_of_hosts_reads_the_same_global_batches(config, datasets, three_epochs, hosts):
    shares = [read(config, datasets, 3, 5, host=h, hosts=hosts) for h in range(hosts)]
    for share, whole in zip(zip(*shares, strict=True), three_epochs[5:8], strict=True):
        for h, rows in enumerate(share):
            assert_same(rows, {key: value[h::hosts] for key, value in whole.items()})


def test_the_order_depends_on_the_seed(make_config, tiny_data, datasets, three_epochs):
    other = make_config(f"data.dirs={tiny_data}", "seed=1")
    (batch,) = read(other, datasets, 1)
    assert numbers(batch) != numbers(three_epochs[0])


def test_worker_processes_read_the_same(make_config, tiny_data, datasets, three_epochs):
    config = make_config(f"data.dirs={tiny_data}", "data.workers=1")
    for batch, expected in zip(read(config, datasets, 2, 3), three_epochs[3:5], strict=True):
        assert_same(batch, expected)


# ---------------------------------------------------------------------------------------------
# What an example holds


def test_examples_are_decoded(three_epochs, tiny_records):
    for batch in three_epochs[:4]:
        assert batch["image"].dtype == np.float32
        for row, written in enumerate(tiny_records(numbers(batch))):
            expected = written["image"].astype(np.float64) / 65535 * 2 - 1
            # Two roundings of 6e-8 of numbers up to 2.
            np.testing.assert_allclose(batch["image"][row, :, :, 0], expected, atol=2.4e-7)
            known = states.known_from_states(written["states"])
            np.testing.assert_array_equal(batch["known"][row], known)
            np.testing.assert_array_equal(
                batch["attributes"][row], np.where(known, written["attributes"], 0)
            )


def test_what_is_uncertain_says_nothing(three_epochs, tiny_records):
    (written,) = tiny_records([0])
    assert written["attributes"][PNEUMONIA] == 1  # the record keeps what was read
    for batch in three_epochs:
        assert not batch["known"][:, PNEUMONIA].any()
        assert not batch["attributes"][:, PNEUMONIA].any()
        assert np.isfinite(batch["attributes"]).all()


def test_the_silence_of_a_closed_list_is_absence_or_nothing(
    make_config, tiny_data, datasets, three_epochs
):
    assert three_epochs[0]["known"][:, EDEMA].all()
    key = "data.closed_vocabulary_negatives=false"
    (batch,) = read(make_config(f"data.dirs={tiny_data}", key), datasets, 1)
    assert not batch["known"][:, EDEMA].any()
    without = np.arange(19) != EDEMA
    np.testing.assert_array_equal(batch["known"][:, without], three_epochs[0]["known"][:, without])


def test_pixels_survive_the_way_to_float_and_back():
    every = np.arange(2**16, dtype=np.uint16)
    floats = pixels.to_float(every)
    assert (floats.min(), floats.max()) == (-1.0, 1.0)
    np.testing.assert_array_equal(pixels.to_uint16(floats), every)
    np.testing.assert_array_equal(pixels.to_uint16(np.array([-7.0, 7.0])), [0, 65535])


# ---------------------------------------------------------------------------------------------
# Mixtures


def test_a_mixture_takes_of_each_set_its_share(make_config, tiny_data, other_data):
    config = make_config(
        f"data.dirs={tiny_data},{other_data}", "data.weights=3.0,1.0", "batch_size=40"
    )
    mixed = (open_dataset(tiny_data), open_dataset(other_data))
    batches = read(config, mixed, 5)
    order = [n for batch in batches for n in numbers(batch)]
    first = [n for n in order if n < 1000]
    second = [n for n in order if n >= 1000]
    assert (len(first), len(second)) == (150, 50)
    for part, examples in ((first, range(TRAIN)), (second, range(1000, 1030))):
        assert sorted(part[: len(examples)]) == list(examples)  # an epoch of its own
    places = np.concatenate([batch["index"] for batch in batches])
    np.testing.assert_array_equal(places, np.arange(200))
    (later,) = read(config, mixed, 1, step=3)
    assert_same(later, batches[3])
    assert fingerprint(mixed) == "+".join(dataset.fingerprint for dataset in mixed)


# ---------------------------------------------------------------------------------------------
# Held-out examples


def test_validation_is_always_the_same_examples_in_stored_order(make_config, tiny_data, datasets):
    config = make_config(f"data.dirs={tiny_data}", "eval.every=1", "eval.batches=3")
    whole = validation_batches(config, datasets)
    held_out = list(range(TRAIN, TRAIN + VALIDATION))
    assert [n for batch in whole for n in numbers(batch)] == held_out + held_out[:4]
    places = np.concatenate([batch["index"] for batch in whole])
    np.testing.assert_array_equal(places, np.arange(24))  # the repeated ones have their own place
    for h in range(2):
        share = validation_batches(config, datasets, host=h, hosts=2)
        for rows, batch in zip(share, whole, strict=True):
            assert_same(rows, {key: value[h::2] for key, value in batch.items()})


@pytest.mark.parametrize(("every", "first"), [(1, TRAIN), (0, 0)])
def test_the_sample_grid_asks_for_held_out_attributes(
    make_config, tiny_data, datasets, tiny_records, every, first
):
    config = make_config(f"data.dirs={tiny_data}", f"eval.every={every}", "samples.n=5")
    asked = requests(config, datasets, multiple=4)
    np.testing.assert_array_equal(asked["indices"], np.arange(8))
    for row, written in enumerate(tiny_records(range(first, first + 8))):
        known = states.known_from_states(written["states"])
        np.testing.assert_array_equal(asked["known"][row], known)
        np.testing.assert_array_equal(
            asked["attributes"][row], np.where(known, written["attributes"], 0)
        )


def test_stored_records_come_in_order(datasets, tiny_records):
    records = list(stored(datasets[0], "validation"))
    assert [r["key"] for r in records] == [
        r["key"] for r in tiny_records(range(TRAIN, TRAIN + VALIDATION))
    ]


# ---------------------------------------------------------------------------------------------
# What is wrong with a data set is one line


def refused(kind, config) -> str:
    with pytest.raises(kind) as caught:
        open_datasets(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_absent_data_set_names_the_command_that_makes_it(make_config, tmp_path):
    config = make_config(f"data.dirs={tmp_path / 'none'}", "data.make=python -m make --n 3")
    line = refused(DataError, config)
    assert (
        line == f"data set {tmp_path / 'none'} does not exist; make it with: python -m make --n 3"
    )


def test_an_unfinished_data_set_is_told_from_an_absent_one(make_config, tmp_path):
    line = refused(DataError, make_config(f"data.dirs={tmp_path}", "data.make="))
    assert "is not complete (no manifest.json)" in line
    assert "data_prep.build" in line


@pytest.mark.parametrize("text", ["{", "[]", '{"size": 32}', '{"splits": 3}'])
def test_a_strange_manifest_is_refused(make_config, tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    assert "manifest.json is not a manifest" in refused(
        DataError, make_config(f"data.dirs={tmp_path}")
    )


@pytest.fixture
def copy(tiny_data, tmp_path):
    return shutil.copytree(tiny_data, tmp_path / "copy")


def test_a_missing_shard_is_named(make_config, copy):
    shard = sorted(copy.glob("*train*"))[1]
    shard.unlink()
    assert refused(DataError, make_config(f"data.dirs={copy}")) == (
        f"data set {copy} lacks its shard {shard.name}"
    )


@pytest.mark.parametrize("cut", [0, 100, 70_000])
def test_a_torn_shard_is_named(make_config, copy, cut):
    shard = sorted(copy.glob("*train*"))[1]
    shard.write_bytes(shard.read_bytes()[:cut])
    assert shard.name in refused(DataError, make_config(f"data.dirs={copy}"))


@pytest.mark.parametrize(
    ("override", "hint"),
    [("model.size=64", "config.model.size"), ("model.channels=16", "space=pixel")],
)
def test_pictures_that_the_model_does_not_take_are_refused(make_config, tiny_data, override, hint):
    line = refused(ConfigError, make_config(f"data.dirs={tiny_data}", override))
    assert "32² × 1" in line
    assert hint in line


def test_an_absent_split_is_refused_with_those_there(make_config, tiny_data, other_data):
    line = refused(ConfigError, make_config(f"data.dirs={tiny_data}", "data.split=test"))
    assert "no split 'test', only train, validation" in line
    config = make_config(f"data.dirs={other_data}", "eval.every=3")
    assert "eval.every=0" in refused(ConfigError, config)
    (dataset,) = open_datasets(make_config(f"data.dirs={other_data}"))  # it is never asked
    assert dataset.examples == {"train": 30}
