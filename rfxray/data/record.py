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

A data set of latents, which `rfxray encode` writes, has these fields in the place of `image`:

| field | type | meaning |
|---|---|---|
| latent | float16 [height, width, channels] | mean of the encoder's posterior; little-endian |
| log_variance | float16, likewise | its log-variance, only if it was asked for |
"""

import hashlib
import io
from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from PIL import Image

from rfxray.attributes.states import State
from rfxray.attributes.vocabulary import NUM_ATTRIBUTES, all_known, refuse_outside
from rfxray.errors import ConfigError, DataError

IMAGE = "image"
CONTENTS = (IMAGE, "latent", "log_variance")  # fields of which a record has one, or the last two
_SHOWN = ((IMAGE,), ("latent",), ("latent", "log_variance"))
Shape: TypeAlias = tuple[int, int, int]  # of a latent: height, width, channels


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


def features(size: int, latent: Shape | None = None, shown: Collection[str] = (IMAGE,)):
    """The tfds feature dictionary of a data set (imports tfds).

    Args:
      size: Side of the square images, pixels.
      latent: Shape of the latents of a data set of latents.
      shown: Fields that it has of `CONTENTS`.
    """
    import tensorflow_datasets as tfds

    def content(name: str):
        if name == IMAGE:
            shape = (size, size, 1)
            return tfds.features.Image(shape=shape, dtype=np.uint16, encoding_format="png")
        assert latent is not None
        raw = tfds.features.Encoding.BYTES
        return tfds.features.Tensor(shape=latent, dtype=np.float16, encoding=raw)

    return tfds.features.FeaturesDict(
        {
            **{name: content(name) for name in shown},
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


# field: (list of the Example, dtype or None for text, shape), in the order in which a digest takes
# them, after those of `CONTENTS`.
FIELDS = {
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


def shown(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Which fields of `CONTENTS` a record has, in their order."""
    return tuple(name for name in CONTENTS if name in record)


def serialize(record: Mapping[str, Any]) -> bytes:
    """A record as the bytes of one ArrayRecord entry.

    Args:
      record: Every field of a table above; `image` as [size, size] uint16, latents as float16, text
        as str, numbers as arrays or scalars.

    Raises:
      ValueError: If a field is missing, unknown or of another shape, or a state does not exist.
    """
    contents = shown(record)
    if contents not in _SHOWN or record.keys() != {*contents, *FIELDS}:
        raise ValueError(
            f"a record has exactly the fields {sorted(FIELDS)} and an image or a latent, not "
            f"{sorted(record)}"
        )
    example = _Example()
    for name in contents:
        value = record[name]
        content = encode_png(value) if name == IMAGE else _halves(value).tobytes()
        example.features.feature[name].bytes_list.value.append(content)
    for name, (kind, dtype, _) in FIELDS.items():
        value = record[name]
        entry = getattr(example.features.feature[name], kind).value
        if dtype is None:
            entry.append(value.encode())
        else:
            entry.extend(_numbers(name, value).ravel().tolist())
    return example.SerializeToString(deterministic=True)


def digest(record: Mapping[str, Any]) -> str:
    """SHA-256 over every field of a record, hex: the same on every machine.

    Of each field in the order of `CONTENTS` and `FIELDS`: its name, then its content, each behind
    its length as 8 bytes. Text is UTF-8, numbers are little-endian in the type of the field, and an
    image or a latent is its shape as 8 bytes a dimension, then its values as little-endian uint16
    or float16: how the PNG was compressed does not matter.

    Args:
      record: Record that `serialize` takes or `deserialize` returns.
    """
    whole = hashlib.sha256()

    def add(name: str, content: bytes) -> None:
        for part in (name.encode(), content):
            whole.update(len(part).to_bytes(8, "little"))
            whole.update(part)

    for name in shown(record):
        value = record[name]
        values = np.ascontiguousarray(value, "<u2") if name == IMAGE else _halves(value)
        add(name, np.asarray(np.shape(value), "<i8").tobytes() + values.tobytes())
    for name, (_, dtype, _) in FIELDS.items():
        value = record[name]
        if dtype is None:
            add(name, value.encode())
        else:
            array = _numbers(name, value)
            add(name, array.astype(array.dtype.newbyteorder("<")).tobytes())
    return whole.hexdigest()


def deserialize(data: bytes, image: bool = True, latent: Shape | None = None) -> dict:
    """The inverse of `serialize`: `image` [size, size] uint16, text as str, numbers as arrays.

    Args:
      data: Bytes of one ArrayRecord entry.
      image: Whether image or latent are decoded; without it the record has no such field.
      latent: Shape of the latents, if the data set is one of latents.

    Raises:
      DataError: If the bytes are not such a record.
    """
    try:
        entries = _Example.FromString(data).features.feature
    except Exception as error:  # protobuf's DecodeError has no stable import path
        raise DataError(f"not a tf.train.Example: {error}") from error
    record = {}
    contents = shown(entries) if latent else (IMAGE,)
    for name in (*(contents or ("latent",)), *FIELDS):
        if name not in entries:
            raise DataError(f"a record has no field {name!r}; was it written by another version?")
        if name in CONTENTS and not image:
            continue
        kind, dtype, shape = FIELDS.get(name, ("bytes_list", None, ()))
        value = getattr(entries[name], kind).value
        try:
            if name == IMAGE:
                record[name] = decode_png(value[0])
            elif name in CONTENTS:
                record[name] = np.frombuffer(value[0], "<f2").reshape(latent)
            elif dtype is None:
                record[name] = value[0].decode()
            else:
                record[name] = np.array(value, dtype).reshape(shape)
            if name == "states":
                _check_states(record[name])
        except (IndexError, OverflowError, ValueError) as error:
            raise DataError(f"the field {name!r} of a record is malformed: {error}") from error
    return record


def check(record: Mapping[str, Any], size: int, latent: Shape | None = None) -> None:
    """Checks what the types of a record leave open: readers and writers call it for every record.

    Args:
      record: Record as `serialize` takes it, or `deserialize` returns it, perhaps without image.
      size: Side of the square images of its data set, pixels.
      latent: Shape of the latents, if the data set is one of latents.

    Raises:
      DataError: If the image has another size or type, a latent has another shape or is not finite,
        or an attribute, known or not, has a value outside of its vocabulary.
    """
    for name in shown(record) if latent else ():
        values = np.asarray(record[name])
        if values.shape != latent or not np.isfinite(values).all():
            raise DataError(
                f"its {name} is {' × '.join(map(str, values.shape))}, not a finite one of "
                f"{' × '.join(map(str, latent or ()))}"
            )
    image = np.asarray(record[IMAGE]) if IMAGE in record else None
    if image is not None and (image.shape != (size, size) or image.dtype != np.uint16):
        raise DataError(
            f"its image is {' × '.join(map(str, image.shape))} of {image.dtype}, not {size} × "
            f"{size} of uint16 as the data set says"
        )
    try:
        refuse_outside(all_known(np.asarray(record["attributes"])))
    except ConfigError as error:
        raise DataError(str(error)) from error


def _halves(values: Any) -> np.ndarray:
    return np.ascontiguousarray(values, "<f2")


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
