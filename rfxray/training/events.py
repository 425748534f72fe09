"""Events of TensorBoard as bytes, which a file may be appended from.

A writer of tensorboardX keeps its file open from start to end. A file of events is a list of
records (length, its CRC-32C, content, its CRC-32C), so it may be closed between two of them.
"""

import re
import socket
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

# Protocol buffers make their classes when they are imported, which a type checker does not see.
Event, SessionLog = (getattr(event_pb2, name) for name in ("Event", "SessionLog"))


def new_file(folder: Path) -> Path:
    """The path of the next file of events of a folder.

    TensorBoard reads the files in the order of their names, so its number is higher than all
    others, even if the clock was set back.
    """
    found = (re.match(r"events\.out\.tfevents\.(\d+)\.", p.name) for p in folder.glob("events.*"))
    newest = max((int(match[1]) for match in found if match), default=0)
    number = max(int(time.time()), newest + 1)
    return folder / f"events.out.tfevents.{number:010d}.{socket.gethostname()}"


def beginning(step: int) -> bytes:
    """How a file begins; TensorBoard then forgets what other files say of `step` and later ones."""
    return b"".join(
        _record(Event(wall_time=time.time(), step=step, **what))
        for what in (
            {"file_version": "brain.Event:2"},
            {"session_log": SessionLog(status=SessionLog.START)},
        )
    )


def scalar(step: int, name: str, value: float) -> bytes:
    """A number of a step."""
    return _record(Event(wall_time=time.time(), step=step, summary=summary.scalar(name, value)))


def image(step: int, name: str, pixels: np.ndarray) -> bytes:
    """An image of a step, [height, width] uint8."""
    made = summary.image(name, pixels[None])
    return _record(Event(wall_time=time.time(), step=step, summary=made))


def _record(event: Any) -> bytes:
    content = event.SerializeToString()
    length = struct.pack("<Q", len(content))
    checksums = (struct.pack("<I", masked_crc32c(part)) for part in (length, content))
    return b"".join((length, next(checksums), content, next(checksums)))
