import io

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays
from PIL import Image

from rfxray.attributes import vocabulary
from rfxray.attributes.states import State, known_from_states
from rfxray.data import record
from rfxray.errors import DataError

pictures = arrays.arrays(np.uint16, st.tuples(*[st.integers(1, 12)] * 2))
text = st.text(st.characters(codec="utf-8"), max_size=20)
int32 = st.integers(-(2**31), 2**31 - 1)
float32 = st.floats(width=32, allow_nan=False)
records = st.fixed_dictionaries(
    {
        "image": pictures,
        "content_box": arrays.arrays(np.int32, 4, elements=int32),
        "original_size": arrays.arrays(np.int32, 2, elements=int32),
        "original_bits": int32.map(np.int32),
        "pixel_spacing": arrays.arrays(np.float32, 2, elements=float32),
        "laterality": text,
        "attributes": arrays.arrays(np.float32, 19, elements=float32),
        "states": arrays.arrays(np.int8, 19, elements=st.sampled_from([int(s) for s in State])),
        "key": text,
        "patient": text,
    }
)


@given(records)
def test_record_round_trips_and_serialises_deterministically(written):
    data = record.serialize(written)
    read = record.deserialize(data)
    assert read.keys() == written.keys()
    for name, value in written.items():
        np.testing.assert_array_equal(read[name], value)
        assert np.asarray(read[name]).dtype == np.asarray(value).dtype
    assert record.serialize(read) == data  # serialisation is deterministic


@given(pictures)
def test_png_round_trip_is_exact(image):
    np.testing.assert_array_equal(record.decode_png(record.encode_png(image)), image)


def test_tfds_reads_our_records(tiny_records):
    (written,) = tiny_records([7])
    read = record.features(32).deserialize_example_np(record.serialize(written))
    assert read.keys() == written.keys()
    np.testing.assert_array_equal(read["image"][..., 0], written["image"])
    for name in written.keys() - {"image"}:
        value = read[name].decode() if isinstance(written[name], str) else read[name]
        np.testing.assert_array_equal(value, np.asarray(written[name], np.asarray(value).dtype))


@settings(max_examples=20)
@given(written=records)
def test_records_written_by_tfds_read_the_same(written):
    encoded = dict(written, image=written["image"][:8, :8])
    encoded["image"] = np.resize(encoded["image"], (8, 8))
    expected = record.deserialize(record.serialize(encoded))
    features = record.features(8)
    as_tfds = dict(encoded, image=record.encode_png(encoded["image"]))
    data = features.serialize_example(features.encode_example(as_tfds))
    for name, value in record.deserialize(data).items():
        np.testing.assert_array_equal(value, expected[name])


NOISE = np.random.default_rng(0).integers(0, 2**16, (32, 32)).astype(np.uint16)


def grey8() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "does not decode"),
        (b"no picture", "does not decode"),
        (record.encode_png(NOISE)[:-200], "does not decode"),
        (grey8(), "mode L, not 16-bit grey"),
    ],
)
def test_data_that_is_not_a_16_bit_png_is_refused(data, reason):
    with pytest.raises(DataError, match=reason) as caught:
        record.decode_png(data)
    assert "\n" not in str(caught.value)


def malformed(tiny_records):
    """Descriptions and bytes of entries that are not valid records."""
    (good,) = tiny_records([0])
    data = record.serialize(good)
    yield "not an Example", b"\xff" + data
    yield "torn", data[: len(data) // 2]
    yield "empty", b""

    def changed(name, change):
        example = record._Example.FromString(data)
        change(example.features.feature[name])
        return example.SerializeToString()

    for name in good:
        yield f"{name} is empty", changed(name, lambda entry: entry.Clear())
        example = record._Example.FromString(data)
        del example.features.feature[name]
        yield f"{name} is missing", example.SerializeToString()
    yield "a number too many", changed("states", lambda e: e.int64_list.value.append(0))
    yield "no state", changed("states", lambda e: e.int64_list.value.__setitem__(3, -1))
    yield "text for numbers", changed("attributes", lambda e: e.bytes_list.value.append(b"x"))
    yield "not text", changed("key", lambda e: e.bytes_list.value.__setitem__(0, b"\xff\xfe"))


def test_malformed_record_raises_data_error_of_one_line(tiny_records):
    for _wrong, data in malformed(tiny_records):
        with pytest.raises(DataError) as caught:
            record.deserialize(data)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"attributes": np.zeros(18)}, r"attributes has shape \(18,\)"),
        ({"content_box": [0, 0]}, "content_box"),
        ({"states": np.full(19, 8, np.int8)}, "states are 0 to 7"),
        ({"extra": 1}, "exactly the fields"),
    ],
)
def test_serialize_checks_the_schema(tiny_records, change, reason):
    (good,) = tiny_records([0])
    with pytest.raises(ValueError, match=reason):
        record.serialize({**good, **change})


def test_known_states_follow_the_closed_vocabulary_option():
    states = np.array(list(State), np.int8)
    known = {State(s) for s in states[known_from_states(states)]}
    closed = {State.NEGATIVE_CLOSED_VOCABULARY, State.POSITIVE_CLOSED_VOCABULARY}
    stated = {State.POSITIVE, State.NEGATIVE, State.STATED, State.NEGATIVE_NO_FINDING}
    assert known == {*stated, *closed}
    strict = {State(s) for s in states[known_from_states(states, False)]}
    assert strict == known - closed


def test_schema_matches_the_vocabulary():
    assert record.FIELDS["attributes"][2] == (vocabulary.NUM_ATTRIBUTES,)
    assert set(record.features(8)) == {"image", *record.FIELDS}


latents = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4)).flatmap(
    lambda shape: arrays.arrays(np.float16, shape, elements=st.floats(-9, 9, width=16))
)


@given(records, latents, st.booleans())
def test_latent_round_trips_and_serialises_deterministically(written, latent, both):
    written = {name: value for name, value in written.items() if name != "image"}
    written |= {"latent": latent} | ({"log_variance": -latent} if both else {})
    data = record.serialize(written)
    read = record.deserialize(data, latent=latent.shape)
    assert read.keys() == written.keys()
    for name, value in written.items():
        np.testing.assert_array_equal(read[name], value)
    assert record.serialize(read) == data
    assert record.digest(read) == record.digest(written)
    bare = record.deserialize(data, image=False, latent=latent.shape)
    assert bare.keys() == record.FIELDS.keys()


def test_latent_of_another_shape_or_not_finite_is_refused(tiny_records):
    (drawn,) = tiny_records([7])
    drawn = {name: drawn[name] for name in record.FIELDS}
    latent = np.zeros((4, 4, 2), np.float16)
    data = record.serialize({**drawn, "latent": latent})
    with pytest.raises(DataError, match="'latent' of a record is malformed"):
        record.deserialize(data, latent=(4, 4, 3))
    with pytest.raises(DataError, match="no field 'image'"):
        record.deserialize(data)
    record.check({**drawn, "latent": latent}, 32, (4, 4, 2))
    latent[0, 0, 0] = np.inf
    with pytest.raises(DataError, match="its latent is 4 × 4 × 2, not a finite one"):
        record.check({**drawn, "latent": latent}, 32, (4, 4, 2))
    with pytest.raises(ValueError, match="an image or a latent"):
        record.serialize({**drawn, "log_variance": latent})


def test_tfds_reads_our_latents(tiny_records):
    (drawn,) = tiny_records([7])
    written = {name: drawn[name] for name in record.FIELDS}
    latent = np.random.default_rng(0).normal(size=(4, 4, 3)).astype(np.float16)
    written |= {"latent": latent, "log_variance": -latent}
    spec = record.features(32, latent.shape, ("latent", "log_variance"))
    read = spec.deserialize_example_np(record.serialize(written))
    assert read.keys() == written.keys()
    for name in ("latent", "log_variance"):
        assert read[name].dtype == np.float16
        np.testing.assert_array_equal(read[name], written[name])
