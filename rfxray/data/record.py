"""One radiograph on disk: the schema that the writers and the trainer share.

A data set is a TensorFlow Datasets directory with `file_format="array_record"`: `features.json`
describes the fields below, any tfds user can open it, and the trainer reads the same shards through
Grain. A record is a serialised `tf.train.Example`; `deserialize` reads it with protobuf only, so
training imports neither TensorFlow nor tfds.

| field | type | meaning |
|---|---|---|
| image | 16-bit greyscale PNG, [size, size, 1] | square after an aspect-preserving resize and pad |
| content_box | int32 [4] | top, left, height, width of the radiograph within the square, pixels |
| original_size | int32 [2] | height and width of the file it came from, pixels |
| original_bits | int32 | bits stored per pixel in that file |
| pixel_spacing | float32 [2] | row and column spacing of that file in mm, 0 where not known |
| laterality | text | `L`, `R` or empty, as the file says |
| attributes | float32 [19] | as `attributes/vocabulary.py` encodes them |
| states | int8 [19] | a `State` per attribute: what is known and how |
| key | text | `source/patient/study/image` |
| patient | text | `source/patient`: what a split never divides |
"""

import hashlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from PIL import Image

from rfxray.attributes.states import State
from rfxray.attributes.vocabulary import NUM_ATTRIBUTES, all_known, refuse_outside
from rfxray.errors import ConfigError, DataError


def encode_png(image: np.ndarray) -> bytes:
    """[height, width] uint16 as the bytes of a 16-bit greyscale PNG."""
    buffer = io.BytesIO()
    # Level 1: 28 ms a radiograph of 512² against 40 ms at level 6, for 1 % more bytes.
    Image.fromarray(np.ascontiguousarray(image, np.uint16)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def decode_png(data: bytes) -> np.ndarray:
    """The inverse of `encode_png`: [height, width] uint16.

    Raises:
      DataError: If the bytes are not a 16-bit greyscale PNG.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            mode, image = picture.mode, np.asarray(picture)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"a record holds a PNG that does not decode: {error}") from error
    if not mode.startswith("I;16"):
        raise DataError(f"a record holds a PNG of mode {mode}, not 16-bit grey")
    return image


def features(size: int):
    """The tfds feature dictionary of a data set of `size` × `size` radiographs (imports tfds)."""
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(
                shape=(size, size, 1), dtype=np.uint16, encoding_format="png"
            ),
            "content_box": tfds.features.Tensor(shape=(4,), dtype=np.int32),
            "original_size": tfds.features.Tensor(shape=(2,), dtype=np.int32),
            "original_bits": np.int32,
            "pixel_spacing": tfds.features.Tensor(shape=(2,), dtype=np.float32),
            "laterality": tfds.features.Text(),
            "attributes": tfds.features.Tensor(shape=(NUM_ATTRIBUTES,), dtype=np.float32),
            "states": tfds.features.Tensor(shape=(NUM_ATTRIBUTES,), dtype=np.int8),
            "key": tfds.features.Text(),
            "patient": tfds.features.Text(),
        }
    )


# ---------------------------------------------------------------------------------------------
# tf.train.Example, declared here because its only packaged Python classes come with a builder or
# a framework that training does not need. Wire format: tensorflow/core/example/feature.proto.
def _example_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="rfxray/example.proto", package="rfxray", syntax="proto3"
    )
    kinds = descriptor_pb2.FieldDescriptorProto

    def message(parent, name, *fields):
        added = parent.add(name=name)
        for number, (field, kind, repeated, type_name) in enumerate(fields, 1):
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            added.field.add(
                name=field, number=number, label=label, type=kind, type_name=type_name or None
            )
        return added

    top = file.message_type
    message(top, "BytesList", ("value", kinds.TYPE_BYTES, True, ""))
    message(top, "FloatList", ("value", kinds.TYPE_FLOAT, True, ""))
    message(top, "Int64List", ("value", kinds.TYPE_INT64, True, ""))
    feature = message(
        top,
        "Feature",
        ("bytes_list", kinds.TYPE_MESSAGE, False, ".rfxray.BytesList"),
        ("float_list", kinds.TYPE_MESSAGE, False, ".rfxray.FloatList"),
        ("int64_list", kinds.TYPE_MESSAGE, False, ".rfxray.Int64List"),
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    entries = message(
        top, "Features", ("feature", kinds.TYPE_MESSAGE, True, ".rfxray.Features.FeatureEntry")
    )
    entry = message(
        entries.nested_type,
        "FeatureEntry",
        ("key", kinds.TYPE_STRING, False, ""),
        ("value", kinds.TYPE_MESSAGE, False, ".rfxray.Feature"),
    )
    entry.options.map_entry = True
    message(top, "Example", ("features", kinds.TYPE_MESSAGE, False, ".rfxray.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("rfxray.Example"))


_Example = _example_class()


# field: (list of the Example, dtype or None for text and bytes, shape), in the order in which a
# digest takes them.
FIELDS = {
    "image": ("bytes_list", None, ()),
    "content_box": ("int64_list", np.int32, (4,)),
    "original_size": ("int64_list", np.int32, (2,)),
    "original_bits": ("int64_list", np.int32, ()),
    "pixel_spacing": ("float_list", np.float32, (2,)),
    "laterality": ("bytes_list", None, ()),
    "attributes": ("float_list", np.float32, (NUM_ATTRIBUTES,)),
    "states": ("int64_list", np.int8, (NUM_ATTRIBUTES,)),
    "key": ("bytes_list", None, ()),
    "patient": ("bytes_list", None, ()),
}


def serialize(record: Mapping[str, Any]) -> bytes:
    """A record as the bytes of one ArrayRecord entry.

    Args:
      record: Every field of the table above; `image` as [size, size] uint16, text as str, numbers
        as arrays or scalars.

    Raises:
      ValueError: If a field is missing, unknown or of another shape, or a state does not exist.
    """
    if record.keys() != FIELDS.keys():
        raise ValueError(f"a record has exactly the fields {sorted(FIELDS)}, not {sorted(record)}")
    example = _Example()
    for name, (kind, dtype, _) in FIELDS.items():
        value = record[name]
        entry = getattr(example.features.feature[name], kind).value
        if name == "image":
            entry.append(encode_png(value))
        elif dtype is None:
            entry.append(value.encode())
        else:
            entry.extend(_numbers(name, value).ravel().tolist())
    return example.SerializeToString(deterministic=True)


def digest(record: Mapping[str, Any]) -> str:
    """SHA-256 over every field of a record, hex: the same on every machine.

    Of each field in the order of `FIELDS`: its name, then its content, each behind its length as 8
    bytes. Text is UTF-8, numbers are little-endian in the type of the field, and the image is its
    height and width as 8 bytes each, then its pixels as little-endian uint16: how the PNG was
    compressed does not matter.

    Args:
      record: As `serialize` takes it, or `deserialize` returns it.
    """
    whole = hashlib.sha256()
    for name, (_, dtype, _) in FIELDS.items():
        value = record[name]
        if name == "image":
            content = np.asarray(np.shape(value), "<i8").tobytes()
            content += np.ascontiguousarray(value, "<u2").tobytes()
        elif dtype is None:
            content = value.encode()
        else:
            array = _numbers(name, value)
            content = array.astype(array.dtype.newbyteorder("<")).tobytes()
        for part in (name.encode(), content):
            whole.update(len(part).to_bytes(8, "little"))
            whole.update(part)
    return whole.hexdigest()


def deserialize(data: bytes, image: bool = True) -> dict:
    """The inverse of `serialize`: `image` [size, size] uint16, text as str, numbers as arrays.

    Args:
      data: Bytes of one ArrayRecord entry.
      image: Whether the image is decoded; without it the record has no field `image`.

    Raises:
      DataError: If the bytes are not such a record.
    """
    try:
        entries = _Example.FromString(data).features.feature
    except Exception as error:  # protobuf's DecodeError has no stable import path
        raise DataError(f"not a tf.train.Example: {error}") from error
    record = {}
    for name, (kind, dtype, shape) in FIELDS.items():
        if name not in entries:
            raise DataError(f"a record has no field {name!r}; was it written by another version?")
        if name == "image" and not image:
            continue
        value = getattr(entries[name], kind).value
        try:
            if name == "image":
                record[name] = decode_png(value[0])
            elif dtype is None:
                record[name] = value[0].decode()
            else:
                record[name] = np.array(value, dtype).reshape(shape)
            if name == "states":
                _check_states(record[name])
        except (IndexError, OverflowError, ValueError) as error:
            raise DataError(f"the field {name!r} of a record is malformed: {error}") from error
    return record


def check(record: Mapping[str, Any], size: int) -> None:
    """Checks what the types of a record leave open: readers and writers call it for every record.

    Args:
      record: Record as `serialize` takes it, or `deserialize` returns it, perhaps without image.
      size: Side of the square images of its data set, pixels.

    Raises:
      DataError: If the image has another size or type, or an attribute, known or not, has a value
        outside of its vocabulary.
    """
    image = np.asarray(record["image"]) if "image" in record else None
    if image is not None and (image.shape != (size, size) or image.dtype != np.uint16):
        raise DataError(
            f"its image is {' × '.join(map(str, image.shape))} of {image.dtype}, not {size} × "
            f"{size} of uint16 as the data set says"
        )
    try:
        refuse_outside(all_known(np.asarray(record["attributes"])))
    except ConfigError as error:
        raise DataError(str(error)) from error


def _numbers(name: str, value: Any) -> np.ndarray:
    """A field of numbers in its type and shape."""
    _, dtype, shape = FIELDS[name]
    array = np.asarray(value, dtype)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, not {shape}")
    if name == "states":
        _check_states(array)
    return array


def _check_states(states: np.ndarray) -> None:
    if states.min() < min(State) or states.max() > max(State):
        raise ValueError(f"states are {min(State):d} to {max(State):d}, not {states.tolist()}")
