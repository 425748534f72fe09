"""The canonical table on disk: one Parquet file over all sets, for pandas, DuckDB or the audit.

| column | meaning |
|---|---|
| key, source, patient, study, image, path, split | as in the records; `split` is the final one |
| stage, fate | empty if the image became a record, else what rejected it, and why |
| view, sex, race, age | the value, null where unknown |
| NAME_state | how the attribute is known, or not: a `State` of rfxray/attributes/states.py |
| NAME_origin | where its value was read, empty if it is unknown |
| score_NAME | what the quality filters judge by; null for a file that does not decode |
| notes, flags | remarks on how the file was read, and what is odd about the picture |
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.tables.table import Row, Table
from rfxray.attributes.states import State
from rfxray.attributes.vocabulary import ATTRIBUTES, FINDING_NAMES, NUM_ATTRIBUTES
from rfxray.data.plan import Dropped
from rfxray.errors import DataError, first_line
from rfxray.outputs.files import whole_file

BATCH = 65_536  # rows at once: 40 MiB
_STATES = pa.array([state.name.lower() for state in State])


def write(
    path: Path,
    tables: Mapping[str, Table],
    splits: Mapping[str, str],
    fates: Mapping[str, Dropped],
    looks: pa.Table,
) -> None:
    """Writes every row of every table: what has neither row nor file is only in the ledger.

    Args:
      splits: Final split by key.
      fates: Line of the ledger by key, of the rows that did not become a record.
      looks: Further columns, what the survey saw of the file of each row in order.
    """
    writer = None
    done = 0
    with whole_file(path) as temporary:
        for table in tables.values():
            for start in range(0, len(table.rows), BATCH):
                rows = table.rows[start : start + BATCH]
                batch = _batch(rows, table.origins, splits, fates)
                for name, column in zip(looks.column_names, looks.columns, strict=True):
                    batch = batch.append_column(name, column.slice(done, len(rows)))
                done += len(rows)
                writer = writer or pq.ParquetWriter(temporary, batch.schema)
                writer.write_table(batch)
        if writer is not None:
            writer.close()


def read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file, or some columns of it.

    Raises:
      DataError: Where it is damaged.
    """
    try:
        return pq.read_table(path, columns=None if columns is None else list(columns))
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path} is damaged ({first_line(error)}); delete it and harmonise again"
        ) from error


def _batch(rows: Sequence[Row], origins: Sequence[str], splits, fates) -> pa.Table:
    parts = [row.key.split("/", 3) for row in rows]
    columns = {
        "key": [row.key for row in rows],
        "source": _dictionary(part[0] for part in parts),
        "patient": [row.patient for row in rows],
        "study": [part[2] for part in parts],
        "image": [part[3] for part in parts],
        "path": [row.path for row in rows],
        "split": _dictionary(splits.get(row.key, row.split) for row in rows),
        "stage": _dictionary(fates[row.key].stage if row.key in fates else "" for row in rows),
        "fate": _dictionary(fates[row.key].why if row.key in fates else "" for row in rows),
    }
    numbers, states, codes = (
        np.frombuffer(b"".join(getattr(row, field) for row in rows), dtype).reshape(
            -1, NUM_ATTRIBUTES
        )
        for field, dtype in (("attributes", "<f4"), ("states", "i1"), ("origins", "u1"))
    )
    for i, attribute in enumerate(ATTRIBUTES):
        unknown = states[:, i] != State.STATED
        if attribute.continuous:
            columns[attribute.name] = pa.array(numbers[:, i], mask=unknown)
        elif attribute.name not in FINDING_NAMES and attribute.name != "source":
            indices = pa.array(numbers[:, i].astype(np.int32), mask=unknown)
            values = pa.array(attribute.values)
            columns[attribute.name] = pa.DictionaryArray.from_arrays(indices, values)
        columns[f"{attribute.name}_state"] = pa.DictionaryArray.from_arrays(
            pa.array(states[:, i].astype(np.int32)), _STATES
        )
        columns[f"{attribute.name}_origin"] = pa.DictionaryArray.from_arrays(
            pa.array(codes[:, i].astype(np.int32)), pa.array(origins)
        )
    return pa.table(columns)


def _dictionary(texts: Iterable[str]) -> pa.Array:
    return pa.array(texts, pa.string()).dictionary_encode()
