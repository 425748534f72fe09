"""Answers and truth in one table, as data sets of reader studies are published: CSV with any
header, or the file of iMRMC."""

import csv
import dataclasses
from collections.abc import Mapping
from pathlib import Path

from rfxray.errors import ConfigError, DataError
from rfxray.readers.answers import number_of, seconds_of, whole_of

# What a mapping may name; any other name becomes a stratum of the cases.
NEEDED = ("reader", "case", "score", "truth")
OPTIONAL = ("modality", "patient", "item", "seconds", "repeat")
IMRMC_START = "BEGIN DATA:"
IMRMC_TRUTH = ("-1", "truth")


@dataclasses.dataclass(frozen=True)
class Row:
    """One answer of a published table.

    Attributes:
      score: Score, or None if it is missing.
      truth: Whether the case is synthetic (or diseased).
      strata: Columns that the mapping gave another name.
      line: Number of its line.
    """

    reader: str
    case: str
    modality: str
    score: float | None
    truth: bool
    patient: str
    item: int | None
    seconds: float | None
    repeat: int
    strata: Mapping[str, str]
    line: int


def mapping(words: list[str]) -> dict[str, str]:
    """`reader=READER_COLUMN` and so on, as a dict.

    Raises:
      ConfigError: If a word has another form, or a needed name is missing.
    """
    found = {}
    for word in words:
        name, equals, column = word.partition("=")
        if not (name and equals and column) or name in found:
            raise ConfigError(f"--map must be NAME=COLUMN, each name once (got {word!r})")
        found[name] = column
    if missing := [name for name in NEEDED if name not in found]:
        raise ConfigError(
            f"--map lacks {missing[0]}; needed are {', '.join(NEEDED)}, known as well "
            f"{', '.join(OPTIONAL)}; any other name is a stratum"
        )
    return found


def read(path: Path, columns: Mapping[str, str]) -> list[Row]:
    """Reads a table with a header.

    Args:
      path: Path of the CSV.
      columns: Our names and the names of its columns, from `mapping`.

    Raises:
      DataError: If a column is missing or a value cannot be read.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            rows = list(csv.reader(file, strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path} is not CSV in UTF-8: {error}") from error
    if not rows:
        raise DataError(f"{path} is empty")
    header = rows[0]
    for column in columns.values():
        if column not in header:
            apart = len(header) == 1 and any(mark in header[0] for mark in ";\t")
            raise DataError(
                f"{path} has no column {column!r}; it has {', '.join(header)}"
                + ("; export it with commas between columns" if apart else "")
            )
    places = {name: header.index(column) for name, column in columns.items()}
    found = []
    for number, values in enumerate(rows[1:], 2):
        if not values:
            continue  # an empty line
        if len(values) != len(header):
            raise DataError(
                f"{path}, line {number} has {len(values)} values, its header {len(header)}"
            )
        found.append(_row(f"{path}, line {number}", number, places, values))
    return found


def _row(where: str, number: int, places: Mapping[str, int], values: list[str]) -> Row:
    def value(name: str, default: str = "") -> str:
        return values[places[name]].strip() if name in places else default

    known = (*NEEDED, *OPTIONAL)
    for name in ("reader", "case"):
        if not value(name):
            raise DataError(f"{where}: {name} is empty")
    return Row(
        reader=value("reader"),
        case=value("case"),
        modality=value("modality", "all") or "all",
        score=number_of(where, "score", value("score")),
        truth=_truth(where, value("truth")),
        patient=value("patient") or value("case"),
        item=whole_of(where, "item", value("item")),
        seconds=seconds_of(where, value("seconds")),
        repeat=whole_of(where, "repeat", value("repeat")) or 0,
        strata={name: value(name) for name in places if name not in known and value(name)},
        line=number,
    )


def _truth(where: str, value: str) -> bool:
    if value not in ("0", "1", "0.0", "1.0"):
        raise DataError(f"{where}: truth must be 0 or 1 (got {value[:40]!r})")
    return float(value) == 1


def is_imrmc(path: Path) -> bool:
    """Whether a file is in the form of iMRMC."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return any(line.strip().upper().startswith(IMRMC_START) for line in file)


def read_imrmc(path: Path) -> list[Row]:
    """Reads the file of iMRMC: `reader,case,modality,score`, and truth as the reader -1.

    Raises:
      DataError: If a line cannot be read, or a case has no truth.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    starts = [i for i, line in enumerate(lines) if line.strip().upper().startswith(IMRMC_START)]
    truth: dict[str, bool] = {}
    answers = []
    for number, line in enumerate(lines[starts[0] + 1 :], starts[0] + 2):
        if not line.strip():
            continue
        values = [value.strip() for value in line.split(",")]
        where = f"{path}, line {number}"
        if len(values) < 4:
            raise DataError(f"{where} must be reader,case,modality,score (got {line[:60]!r})")
        reader, case, modality, score = values[:4]
        if reader.lower() in IMRMC_TRUTH:
            truth[case] = _truth(where, score)
        else:
            answers.append((number, reader, case, modality, number_of(where, "score", score)))
    rows = []
    for number, reader, case, modality, score in answers:
        if case not in truth:
            raise DataError(
                f"{path}, line {number}: case {case} has no truth (a line of reader -1)"
            )
        rows.append(
            Row(reader, case, modality, score, truth[case], case, None, None, 0, {}, number)
        )
    return rows


def imrmc_text(
    name: str, rows: list[tuple[str, str, str, float]], truth: Mapping[str, bool]
) -> str:
    """A file that iMRMC reads.

    Args:
      name: Name of the study, in the first line.
      rows: Reader, case, modality and score of each answer.
      truth: Whether each case is synthetic.
    """
    kinds = list(truth.values())
    counts = {
        "NR": len({reader for reader, *_ in rows}),
        "N0": kinds.count(False),
        "N1": kinds.count(True),
        "NM": len({modality for _, _, modality, _ in rows}),
    }
    lines = [name, *(f"{key}: {count}" for key, count in counts.items()), IMRMC_START]
    lines += [f"-1,{case},0,{int(kind)}" for case, kind in truth.items()]
    lines += [f"{r},{case},{modality},{score:g}" for r, case, modality, score in rows]
    return "\n".join(lines) + "\n"
