"""Events of TensorBoard: the records that its reader expects."""

import re
import struct

import numpy as np
import pytest
from tensorboardX.crc32c import crc32c
from tensorboardX.proto import event_pb2

from rfxray.training import events

Event, SessionLog = event_pb2.Event, event_pb2.SessionLog


def read(content: bytes) -> list[Event]:
    """Events of a file, by the format that TensorFlow documents for TFRecord."""

    def masked(part):
        crc = crc32c(part)
        return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF

    found = []
    while content:
        (length, check) = struct.unpack("<QI", content[:12])
        assert check == masked(content[:8])
        body = content[12 : 12 + length]
        (check,) = struct.unpack("<I", content[12 + length : 16 + length])
        assert check == masked(body)
        found.append(Event.FromString(body))
        content = content[16 + length :]
    return found


def test_records_are_those_of_a_file_of_events():
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    first, start, number, picture = read(
        events.beginning(7) + events.scalar(8, "loss_t/0.25", 0.5) + events.image(8, "grid", pixels)
    )
    assert first.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (7, SessionLog.START)
    (value,) = number.summary.value
    assert (number.step, value.tag, value.simple_value) == (8, "loss_t/0.25", 0.5)
    (value,) = picture.summary.value
    assert (value.tag, value.image.height, value.image.width) == ("grid", 8, 8)
    assert value.image.encoded_image_string.startswith(b"\x89PNG")


def test_file_of_a_later_start_sorts_after_all_others_though_the_clock_was_set_back(
    tmp_path, monkeypatch
):
    names = []
    for now in (2e9, 2e9, 1e9, 3e9):
        monkeypatch.setattr(events.time, "time", lambda now=now: now)
        path = events.new_file(tmp_path)
        path.touch()
        names.append(path.name)
    assert names == sorted(set(names))
    numbers = [int(re.match(r"events\.out\.tfevents\.(\d+)\.", name)[1]) for name in names]
    assert numbers == [2 * 10**9, 2 * 10**9 + 1, 2 * 10**9 + 2, 3 * 10**9]


@pytest.mark.parametrize("value", [1e-30, -3.0, float("inf"), np.float32(0.1)])
def test_any_number_is_written(value):
    (event,) = read(events.scalar(1, "x", value))
    assert event.summary.value[0].simple_value == np.float32(value)
