"""The canonical table: what every source of radiographs is turned into before a pixel is read."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from data_prep.shards import Dropped
from rfxray.conditioning import INDEX, derive_no_finding
from rfxray.record import State, known_from_states


class Row(NamedTuple):
    """One radiograph. A million of them fit in 0.7 GB; `repr` says all that decides its record.

    Attributes:
      path: of the file, relative to the folder of images.
      length: bytes of the file, so that one that changes before a restart is noticed.
      key: `source/patient/study/image`.
      patient: `source/patient`.
      split: as the source's own split says; empty where it has none.
      attributes: float32 [19], its bytes.
      states: int8 [19], its bytes.
    """

    path: str
    length: int
    key: str
    patient: str
    split: str
    attributes: bytes
    states: bytes


@dataclasses.dataclass(frozen=True)
class Table:
    """A source, read.

    Attributes:
      rows: in the order of the source.
      dropped: what the source names and is not to be had, or has and does not name.
      notes: counts for the manifest; JSON.
    """

    rows: Sequence[Row]
    dropped: Sequence[Dropped]
    notes: Mapping[str, Any]


def make_key(source: str, patient: str, study: str, image: str) -> tuple[str, str]:
    """(key, patient) of a record. A slash within a patient or study is written %2F.

    The image, last, keeps its slashes: `key.split("/", 3)` takes a key apart.
    """
    patient, study = (part.replace("%", "%25").replace("/", "%2F") for part in (patient, study))
    whole = f"{source}/{patient}/{study}/{image}", f"{source}/{patient}"
    # A file name that is no UTF-8 reaches Python as lone surrogates, which no protobuf takes
    return tuple(text.encode("utf-8", "backslashreplace").decode() for text in whole)


def settle_no_finding(
    attributes: np.ndarray, states: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """No Finding as the pathologies imply it, on float32 and int8 [rows, 19].

    Where nothing is given it is derived; where something else is given, the pathologies win.

    Returns:
      Both arrays anew, and how many were `derived` and how many `contradicted`.
    """
    column = INDEX["no_finding"]
    known = known_from_states(states)
    implied, told = derive_no_finding(attributes, known)
    value, was_known = implied[:, column], known[:, column]
    changed = told[:, column] & (~was_known | (value != attributes[:, column]))
    states = states.copy()
    states[changed, column] = np.where(value[changed] > 0.5, State.POSITIVE, State.NEGATIVE)
    counts = {
        "derived": int((changed & ~was_known).sum()),
        "contradicted": int((changed & was_known).sum()),
    }
    return implied, states, counts
