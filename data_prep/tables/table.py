"""The canonical table: what every source of radiographs is turned into before a pixel is read."""

import array
import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.tables import csv_table
from data_prep.tables.columns import FINDINGS, identifier, reader
from rfxray.attributes.states import State, known_from_states
from rfxray.attributes.vocabulary import (
    INDEX,
    NAMES,
    NUM_ATTRIBUTES,
    PATHOLOGY_NAMES,
    Attributes,
    derive_no_finding,
)
from rfxray.data.plan import Dropped

LISTED_CELLS = 1000  # of an attribute, in the manifest; a column of free text has no end of them
UNTOLD, DERIVED = "", "derived from the 12 pathologies"
# In the plan of a data set: one that was made by another rule is refused.
NO_FINDING_RULE = (
    "absent beside a present pathology, uncertain beside an uncertain one, present if all 12 are "
    "absent; present from a labeller of all 12 makes those it left blank absent"
)

_PATHOLOGIES = [INDEX[name] for name in PATHOLOGY_NAMES]


class Row(NamedTuple):
    """One radiograph. A million of them fit in 0.7 GB; `repr` says all that decides its record.

    Attributes:
      path: Path of the file, relative to the folder of images.
      key: `source/patient/study/image`.
      patient: `source/patient`.
      split: Split by the source itself; empty if it has none.
      attributes: Bytes of float32 [19].
      states: Bytes of int8 [19].
      origins: Bytes of uint8 [19], an index of `Table.origins` for each value.
      content: SHA-256 of the file, so that one that changes is noticed; empty until it is read.
    """

    path: str
    key: str
    patient: str
    split: str
    attributes: bytes
    states: bytes
    origins: bytes
    content: bytes = b""


class Value(NamedTuple):
    """What a source tells of one attribute: a number, how it is known, and where it was read.

    An unlabelled value says that the labeller looked for the finding and wrote nothing of it.
    """

    number: float
    state: State
    origin: str


@dataclasses.dataclass(frozen=True)
class Table:
    """A source, read.

    Attributes:
      rows: Rows in the order of the source.
      dropped: Files that the source names and does not have, or has and does not name.
      notes: Counts for the manifest; JSON.
      origins: Origins of values, in words; the first is empty, for what is unknown.
      carved: Whether the source's own split knows only train and test, so that a share of its train
        patients is to be validation. Of the source as published, whichever files are there.
    """

    rows: Sequence[Row]
    dropped: Sequence[Dropped]
    notes: Mapping[str, Any]
    origins: Sequence[str] = (UNTOLD,)
    carved: bool = False


class TableBuilder:
    """Takes rows one by one, settles No Finding over all of them, and ends in a `Table`.

    Args:
      name: Name that keys and patients begin with.
      mapped: Cells to read as something else, as `columns.parse_map` gives it.
    """

    def __init__(self, name: str, mapped: Mapping[tuple[str, str], str] | None = None):
        self.name = name
        self.dropped: list[Dropped] = []
        self.without_patient = self.without_split = self.row_count = 0
        self._read = reader(mapped or {})
        self._named: list[tuple[str, str, str, str]] = []
        self._numbers, self._states = array.array("f"), array.array("b")
        self._origin_codes = array.array("B")
        self._origins = {UNTOLD: 0, DERIVED: 1}
        self._strange: dict[str, Counter] = {}

    def __len__(self) -> int:
        return len(self._named)

    def rows(
        self, path: Path, columns: Mapping[str, str | Sequence[str]], optional: Sequence[str] = ()
    ) -> Iterator[tuple[int, dict[str, str]]]:
        """`csv_table.rows` of a published table; its misfits go to the ledger."""
        for line, cells in csv_table.rows(path, columns, optional):
            if cells is None:
                self.drop("", csv_table.MISFIT, f"{path.name} line {line}")
            else:
                yield line, cells

    def cell(self, attribute: str, text: str, origin: str) -> dict[str, Value]:
        """A cell as {attribute: value}; empty where it is blank, or not understood, and counted."""
        understood = self._read(attribute, text)
        if understood is None:
            self.count_strange(attribute, text)
            return {}
        number, state = understood
        return {} if state == State.UNLABELLED else {attribute: Value(number, state, origin)}

    def finding(self, attribute: str, text: str, origin: str) -> dict[str, Value]:
        """As `cell`, of a labeller who looked for the finding: a blank is unlabelled."""
        understood = self._read(attribute, text)
        if understood is not None and understood[1] == State.UNLABELLED:
            return {attribute: Value(*understood, origin)}
        return self.cell(attribute, text, origin)

    def count_strange(self, attribute: str, text: str) -> None:
        """Notes that a cell was not understood and taken as unknown."""
        self._strange.setdefault(attribute, Counter())[text.strip()] += 1

    def drop(self, path: str, reason: str, detail: str = "", stage: str = "table") -> None:
        """Lists a row that becomes none of `rows`; `path` is what it says of its file."""
        self.row_count += 1
        self.dropped.append(Dropped(self.name, "", path, stage, reason, detail))

    def add(
        self,
        path: str,
        values: Mapping[str, Value],
        *,
        patient: str,
        study: str = "",
        image: str,
        split: str = "",
    ) -> None:
        """One row; what `values` does not name is unlabelled, an id such as `nan` is none."""
        patient, study = identifier(patient), identifier(study)
        self.row_count += 1
        self.without_patient += not patient
        self.without_split += not split
        numbers = [0.0] * NUM_ATTRIBUTES
        states = [State.UNLABELLED] * NUM_ATTRIBUTES
        origins = [0] * NUM_ATTRIBUTES
        for attribute, (number, state, origin) in values.items():
            i = INDEX[attribute]
            numbers[i], states[i] = number, state
            origins[i] = self._origins.setdefault(origin, len(self._origins))
        self._numbers.extend(numbers)
        self._states.extend(states)
        self._origin_codes.extend(origins)
        key, patient = make_key(self.name, patient or image, study, image)
        self._named.append((path, key, patient, split))

    def table(self, *, carved: bool = False, **notes: Any) -> Table:
        numbers = np.frombuffer(self._numbers, np.float32).reshape(-1, NUM_ATTRIBUTES)
        states = np.frombuffer(self._states, np.int8).reshape(-1, NUM_ATTRIBUTES)
        origins = np.frombuffer(self._origin_codes, np.uint8).reshape(-1, NUM_ATTRIBUTES)
        looked = (origins[:, _PATHOLOGIES] != self._origins[UNTOLD]).all(axis=1)
        numbers, settled, no_finding = settle_no_finding(numbers, states, looked)
        implied = settled == State.NEGATIVE_NO_FINDING
        labeller = origins[:, [INDEX["no_finding"]]]
        origins = np.where(settled != states, self._origins[DERIVED], origins)
        origins = np.where(implied, labeller, origins).astype(np.uint8)
        origins[settled == State.UNLABELLED] = self._origins[UNTOLD]
        same: dict[bytes, bytes] = {}  # states and origins repeat: a million rows have few
        rows = [
            Row(*named, n.tobytes(), same.setdefault(s, s), same.setdefault(o, o))
            for named, n, s, o in zip(
                self._named,
                numbers,
                map(bytes, settled.view(np.uint8)),
                map(bytes, origins),
                strict=True,
            )
        ]
        counted = {
            "rows": self.row_count,
            "patients": len({row.patient for row in rows}),
            "without_patient": self.without_patient,
            "rows_without_split": self.without_split,
            "no_finding": no_finding,
            "not_understood": {
                name: _listed(self._strange[name])
                for name in (*NAMES, FINDINGS)
                if name in self._strange
            },
        }
        return Table(rows, self.dropped, {**counted, **notes}, tuple(self._origins), carved)


def dropped(row: Row, stage: str, why: str) -> Dropped:
    """The line of the ledger for a row, `why` being a reason and, after a colon, its detail."""
    reason, _, detail = why.partition(": ")
    return Dropped(row.key.partition("/")[0], row.key, row.path, stage, reason, detail)


def make_key(source: str, patient: str, study: str, image: str) -> tuple[str, str]:
    """(key, patient) of a record. A slash within a patient or study is written %2F.

    The image, last, keeps its slashes: `key.split("/", 3)` takes a key apart.
    """
    patient, study = (part.replace("%", "%25").replace("/", "%2F") for part in (patient, study))
    whole = f"{source}/{patient}/{study}/{image}", f"{source}/{patient}"
    # A file name that is not UTF-8 reaches Python as lone surrogates, which no protobuf takes
    key, person = (text.encode("utf-8", "backslashreplace").decode() for text in whole)
    return key, person


def settle_no_finding(
    attributes: np.ndarray, states: np.ndarray, looked: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """No Finding and the pathologies as they imply each other, on float32 and int8 [rows, 19].

    If nothing is given, No Finding is derived; if something else is given, the pathologies win:
    beside an uncertain one it is uncertain. What depends on the silence of a closed list says so by
    its state. If No Finding was labelled by someone who looked for all 12 pathologies, those
    left blank are absent; a closed list without Fracture does not say so.

    Args:
      attributes, states: Values and states.
      looked: Whether the labeller of a row looked for all 12 pathologies, bool [rows].

    Returns:
      New arrays, and the number of rows in which No Finding was `derived`, `contradicted` or
      `doubted`, or says (`implied`) that pathologies are absent.
    """
    column = INDEX["no_finding"]
    known = known_from_states(states)
    derived, settled_known = derive_no_finding(Attributes(attributes, known))
    values, was_known = np.array(derived), known[:, column]
    value = values[:, column]
    changed = settled_known[:, column] & (~was_known | (value != attributes[:, column]))
    states = states.copy()
    pathologies = states[:, _PATHOLOGIES]
    silent = (pathologies == State.NEGATIVE_CLOSED_VOCABULARY).any(axis=1)
    present = np.where(silent, State.POSITIVE_CLOSED_VOCABULARY, State.POSITIVE)
    states[changed, column] = np.where(value > 0.5, present, State.NEGATIVE)[changed]

    normal = was_known & (attributes[:, column] > 0.5) & (value > 0.5)
    doubted = normal & (pathologies == State.UNCERTAIN).any(axis=1)
    values[doubted, column], states[doubted, column] = 0.0, State.UNCERTAIN
    unnamed = (State.UNLABELLED, State.NEGATIVE_CLOSED_VOCABULARY)
    absent = (normal & ~doubted & looked)[:, None] & np.isin(pathologies, unnamed)
    states[:, _PATHOLOGIES] = np.where(absent, State.NEGATIVE_NO_FINDING, pathologies)
    counts = {
        "derived": int((changed & ~was_known).sum()),
        "contradicted": int((changed & was_known).sum()),
        "doubted": int(doubted.sum()),
        "implied": int(absent.any(axis=1).sum()),
    }
    return values, states, counts


def _listed(cells: Counter) -> dict[str, int]:
    listed = dict(cells.most_common(LISTED_CELLS))
    rest = cells.total() - sum(listed.values())
    return {**listed, "(others)": rest} if rest else listed
