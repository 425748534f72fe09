"""How a decoding process and the process that asks it talk: JSON and raw pixels, all of it checked.

A message is the length of its header as 4 bytes, little-endian, then the header as ASCII JSON. An
answer with a picture is followed by its pixels as little-endian uint16, of the size that was asked
for: no length that the decoder states is believed beyond `MOST_HEADER`. What a file made of the
decoder decides at most which of the checks below fails; nothing that it sends is executed.
"""

import json
import math
import os
import select
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

MOST_HEADER = 1 << 16  # bytes; an honest one has a few hundred, a path at most 6 × 4,096
MOST_TEXT = 300  # characters of a reason or a note
MOST_NOTES = 16
MOST_SIDE = 1 << 30  # pixels of the file that the picture came from

_FIELDS = ("content_box", "original_size", "original_bits", "pixel_spacing", "laterality")


class Nonsense(ValueError):
    """An answer that the protocol does not allow; the text says what is wrong with it."""


class TornAnswer(EOFError):
    """The other side ended before its message did."""


# ---------------------------------------------------------------------------------------------
# Both sides


def send(pipe: int, header: Mapping[str, Any], pixels: np.ndarray | None = None) -> None:
    """Writes one message to a file descriptor."""
    text = json.dumps(header, allow_nan=False).encode("ascii")
    rest = memoryview(len(text).to_bytes(4, "little") + text)
    if pixels is not None:
        _write(pipe, rest)
        rest = np.ascontiguousarray(pixels, "<u2").data.cast("B")
    _write(pipe, rest)


def receive_header(pipe: int, deadline: float | None = None) -> dict[str, Any]:
    """Reads the header of a message.

    Args:
      pipe: File descriptor.
      deadline: Time of `time.monotonic` at which it must be complete; None waits for ever.

    Raises:
      TornAnswer: If the other side ends first.
      Nonsense: If it is too long, no JSON object, or not complete in time.
    """
    size = bytearray(4)
    _fill(pipe, memoryview(size), deadline)
    length = int.from_bytes(size, "little")
    if length > MOST_HEADER:
        raise Nonsense(f"a header of {length:,} bytes")
    text = bytearray(length)
    _fill(pipe, memoryview(text), deadline)
    try:
        header = json.loads(text.decode("ascii"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Nonsense("a header that is not JSON") from None
    if not isinstance(header, dict):
        raise Nonsense("a header that is not an object")
    return header


def _no_constant(name: str):
    raise ValueError(name)


def _write(pipe: int, rest: memoryview) -> None:
    while rest:
        rest = rest[os.write(pipe, rest) :]


def _fill(pipe: int, rest: memoryview, deadline: float | None) -> None:
    while rest:
        if deadline is not None:
            wait = max(0.0, deadline - time.monotonic())
            if not select.select([pipe], [], [], wait)[0]:
                raise Nonsense("an answer that does not end")
        count = os.readv(pipe, [rest])
        if not count:
            raise TornAnswer
        rest = rest[count:]


# ---------------------------------------------------------------------------------------------
# The side of the decoder


def send_refusal(pipe: int, reason: str) -> None:
    """Answers that the file is refused."""
    send(pipe, {"refused": plain(reason)})


def send_picture(pipe: int, fields: Mapping[str, Any], digest: bytes, notes: tuple) -> None:
    """Answers with the fields of `radiograph.square`, a sha256 and the notes of a file."""
    header = {
        "fields": {name: fields[name] for name in _FIELDS},
        "digest": digest.hex(),
        "notes": [plain(note) for note in notes[:MOST_NOTES]],
    }
    send(pipe, header, fields["image"])


def plain(text: str) -> str:
    """A text as the checks want it: short, on one line, of characters that can be printed. The
    message of a library may quote any byte of the file.
    """
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:MOST_TEXT])


# ---------------------------------------------------------------------------------------------
# The side that asks


def receive_answer(
    pipe: int, size: int, deadline: float
) -> str | tuple[dict, bytes, tuple[str, ...]]:
    """Reads and checks one answer.

    Args:
      pipe: File descriptor.
      size: Side of the picture that was asked for, pixels.
      deadline: Time of `time.monotonic` at which the answer must be complete.

    Returns:
      Reason of a refusal; or fields as of `radiograph.square`, sha256 and notes.

    Raises:
      TornAnswer: If the decoder ends first.
      Nonsense: If it is anything else than a complete answer to this request.
    """
    header = receive_header(pipe, deadline)
    if header.keys() == {"refused"}:
        _check(_is_text(header["refused"]), "a reason that is not a short line of text")
        return header["refused"]
    _check(header.keys() == {"fields", "digest", "notes"}, "a header with other entries")
    fields, digest, notes = header["fields"], header["digest"], header["notes"]
    _check(isinstance(fields, dict) and fields.keys() == set(_FIELDS), "other fields")
    top, left, height, width = _integers(fields, "content_box", 4, 0, size)
    inside = min(height, width) > 0 and top + height <= size and left + width <= size
    _check(inside, "a content_box outside of the picture")
    spacing = fields["pixel_spacing"]
    floats = isinstance(spacing, list) and [type(x) for x in spacing] == [float, float]
    finite = floats and all(x >= 0 and math.isfinite(x) for x in spacing)
    _check(finite, "a pixel_spacing that is not two finite numbers")
    _check(fields["laterality"] in ("", "L", "R"), "a laterality that is not L, R or empty")
    _check(isinstance(digest, str) and len(digest) == 64, "a digest of another length")
    fits = isinstance(notes, list) and len(notes) <= MOST_NOTES and all(map(_is_text, notes))
    _check(fits, "notes that are not short lines of text")
    checked = {
        "content_box": (top, left, height, width),
        "original_size": _integers(fields, "original_size", 2, 1, MOST_SIDE),
        "original_bits": _integers(fields, "original_bits", 0, 1, 64)[0],
        "pixel_spacing": tuple(spacing),
        "laterality": fields["laterality"],
    }
    try:
        sha256 = bytes.fromhex(digest)
    except ValueError:
        raise Nonsense("a digest that is not hexadecimal") from None
    _check(len(sha256) == 32, "a digest of another length")  # `fromhex` skips spaces
    image = np.empty((size, size), "<u2")
    _fill(pipe, image.data.cast("B"), deadline)
    return {"image": image, **checked}, sha256, tuple(notes)


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Nonsense(otherwise)


def _integers(fields: Mapping, name: str, count: int, least: int, most: int) -> tuple[int, ...]:
    """A list of `count` integers within bounds; of one number if `count` is 0."""
    values = fields[name] if count else [fields[name]]
    good = isinstance(values, list) and len(values) == max(count, 1)
    good = good and all(type(x) is int and least <= x <= most for x in values)
    _check(good, f"{name} out of range")
    return tuple(values)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MOST_TEXT and value.isprintable()
