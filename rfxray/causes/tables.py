"""Tables that a causal model is fitted to: of a data set, of a CSV file, or of arrays."""

import csv
import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rfxray.attributes import spellings, vocabulary
from rfxray.attributes.states import known_from_states
from rfxray.attributes.vocabulary import Attributes
from rfxray.causes.graph import Graph
from rfxray.data.dataset import Dataset, Records, open_dataset
from rfxray.errors import ConfigError, DataError, first_line


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of known and unknown values.

    Attributes:
      values: Encoded values, float64 [n, variables], in the order of `Graph.variables`.
      known: Which are known, bool [n, variables].
      patients: Number of the patient of each row, int [n].
      keys: A number that names each row, whatever its place, uint64 [n].
    """

    values: np.ndarray
    known: np.ndarray
    patients: np.ndarray
    keys: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, index: np.ndarray | slice) -> "Table":
        """Some of the rows."""
        return Table(*(getattr(self, field.name)[index] for field in dataclasses.fields(self)))

    def fingerprint(self) -> str:
        """SHA-256 of the rows, hex, without the names of patients."""
        digest = hashlib.sha256()
        for array in (self.values, self.known, self.patients):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def held_out(self, share: float = 0.125) -> np.ndarray:
        """Which rows are of held-out patients, bool [n], by the patient's number only."""
        noise = np.random.default_rng(0).random(self.patients.max(initial=0) + 1)
        return noise[self.patients] < share


def of_attributes(attributes: Attributes, measures: np.ndarray | None = None) -> Table:
    """A table of attributes [n, 19], each of a patient of their own, named by their place.

    Args:
      attributes: Attributes of the rows.
      measures: Values of the measures of a graph, [n, m], all known.
    """
    values = np.asarray(attributes.values, np.float64)
    known = np.asarray(attributes.known)
    if measures is not None:
        values = np.concatenate([values, measures], 1)
        known = np.concatenate([known, np.ones(measures.shape, bool)], 1)
    numbers = np.arange(len(values))
    return Table(values, known, numbers, numbers.astype(np.uint64))


def size(place: str | Path) -> int:
    """About how many rows `read` will read, for a progress bar.

    Raises:
      ConfigError, DataError: See `read`.
    """
    if _is_csv(place):
        try:
            with Path(place).open("rb") as file:
                return sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))
        except OSError as error:
            raise DataError(f"the table {place} cannot be read: {error}") from error
    dataset, split = _split(str(place))
    return sum(shard.examples for shard in dataset.shards[split])


def _is_csv(place: str | Path) -> bool:
    return str(place).lower().endswith(".csv")


def _split(place: str) -> tuple[Dataset, str]:
    if Path(place).is_file():
        raise DataError(f"{place} is not a data set; a table is a CSV file with .csv in its name")
    path, _, split = place.partition(":")
    dataset = open_dataset(path, latents=True)
    if (split := split or "train") not in dataset.shards:
        raise ConfigError(
            f"data set {dataset.path} has no split {split!r}; it has {', '.join(dataset.shards)}"
        )
    return dataset, split


def read(
    place: str | Path, graph: Graph, advance: Callable[[int], None] = lambda new: None
) -> Table:
    """The table of a CSV file, or of a split of a data set (`DATA:SPLIT`, or its train split).

    A CSV file has a column for each attribute or measure that it knows, `patient` if rows share
    patients, and perhaps `key`; other columns are not read. Names of attributes are read in any
    case. A blank cell, or NA or nan, is unknown.

    Args:
      place: Path.
      graph: Graph, which names the measures.
      advance: Function called with the number of rows read since the last call.

    Raises:
      ConfigError: If there is no such split, or a cell is not in the vocabulary.
      DataError: If it cannot be read.
    """
    if _is_csv(place):
        return _of_csv(Path(place), graph, advance)
    dataset, split = _split(str(place))
    records = Records(dataset, split)
    count, width = len(records), len(graph.variables)
    values, known = np.zeros((count, width)), np.zeros((count, width), bool)
    patients, keys = {}, np.empty(count, np.uint64)
    numbers = np.empty(count, int)
    last = vocabulary.NUM_ATTRIBUTES
    for i in range(count):
        each = records.labels(i)
        values[i, :last] = each["attributes"]
        known[i, :last] = known_from_states(each["states"])
        numbers[i] = patients.setdefault(each["patient"], len(patients))
        keys[i] = named(str(each["key"]))
        advance(1)
    return Table(values, known, numbers, keys)


def named(key: str) -> np.uint64:
    """The number that names a record by its key."""
    return np.uint64(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little"))


def _of_csv(path: Path, graph: Graph, advance: Callable[[int], None]) -> Table:
    index = graph.index
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            given = next(reader, [])
            header = [_column(graph, name) for name in given]
            columns = [(i, index[name]) for i, name in enumerate(header) if name in index]
            for name in (*index, "patient", "key"):
                if header.count(name) > 1:
                    raise DataError(f"{path} has two columns {name}; leave one out")
            if not columns:
                raise DataError(
                    f"{path} has no column that is named as a variable, such as age (its header: "
                    f"{','.join(given)[:80]!r}); separate columns by commas"
                )
            cells: list[dict[str, tuple[float, bool]]] = [{} for _ in header]
            rows, who = [], []
            keys: dict[np.uint64, int] = {}  # with the line of each
            patient, key = (header.index(n) if n in header else -1 for n in ("patient", "key"))
            for row in filter(None, reader):  # a blank line is not a row
                if len(row) != len(header):
                    raise DataError(
                        f"{path}, line {reader.line_num}: {len(row)} cells under {len(header)} "
                        "columns"
                    )
                for i, at in columns:
                    if row[i] not in cells[i]:
                        cells[i][row[i]] = _cell(graph, at, row[i], path, reader.line_num)
                rows.append([cells[i][row[i]] for i, _ in columns])
                # Without a name, a row is of a patient of its own.
                name = row[patient].strip() if patient >= 0 else ""
                who.append(name or f" {len(who)}")
                own = named(row[key] if key >= 0 else str(len(keys)))
                if own in keys:
                    raise DataError(
                        f"{path}, line {reader.line_num}: its key {row[key]!r} is that of line "
                        f"{keys[own]}, too; give each row a key of its own"
                    )
                keys[own] = reader.line_num
                if len(rows) % 1024 == 0:
                    advance(1024)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"the table {path} cannot be read ({first_line(error)}); give a CSV in UTF-8"
        ) from error
    if not rows:
        raise DataError(f"the table {path} has no rows")
    advance(len(rows) % 1024)
    read_values = np.array(rows, np.float64)
    values = np.zeros((len(rows), len(index)))
    known = np.zeros(values.shape, bool)
    for place, (_, at) in enumerate(columns):
        values[:, at], known[:, at] = read_values[:, place, 0], read_values[:, place, 1] > 0
    _, numbers = np.unique(np.array(who), return_inverse=True)
    return Table(values, known, numbers, np.array(list(keys), np.uint64))


def _column(graph: Graph, header: str) -> str:
    """The name of the variable that a header names; else the header."""
    try:
        return graph.variable(header.strip()).name
    except ConfigError:
        return header.strip().lower()


def _cell(graph: Graph, at: int, text: str, path: Path, line: int) -> tuple[float, bool]:
    variable = graph.variables[at]
    if text.strip().lower() in spellings.BLANK:
        return 0.0, False
    try:
        return encoded(graph, variable.name, text)
    except ConfigError as error:
        raise DataError(f"{path}, line {line}: {error}") from None


def encoded(graph: Graph, name: str, text: str) -> tuple[float, bool]:
    """A value as written, as (number, known), of an attribute or a measure.

    Raises:
      ConfigError: For a value outside of the vocabulary or the range.
    """
    variable = graph.variable(name)
    if variable.name in vocabulary.INDEX:
        return vocabulary.encode_value(name, text)
    if text.strip().lower() == vocabulary.UNKNOWN:
        return 0.0, False
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not variable.low <= number <= variable.high:
        raise ConfigError(
            f"{variable.name}={text} is not a number from {variable.low:g} to {variable.high:g}"
        )
    return number, True
