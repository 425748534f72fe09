"""The files that a reader study exchanges: answers of one reader, and the key to all of them.

**Answers** are CSV, UTF-8, with a header and one line for each row; several files of one study are
read together. No column says what is real.

| column | content |
|---|---|
| study | name of the study, the same in every file and in the key |
| reader | name of the reader, the same in all rows of a file |
| item | place in the order of this reader, 1, 2, … through all phases |
| case | name of the image in the key; of the pair, when two are shown side by side |
| modality | how images were shown, one word such as `single` or `pairs`; `diagnosis:FINDING` |
| score | `single`: 1 (surely real) to 5 (surely synthetic); `pairs`: confidence 1 to 5, or empty |
| side | `pairs`: `left` or `right`, the image that the reader takes for synthetic; else empty |
| seconds | time from the display to the answer |
| repeat | 0 for the first showing of a case to this reader, 1 for the second, … |
| phase | see below |
| previous_sha256 | SHA-256 (hex) of the line above, the header for the first, without line end |

Phases are `about` (a fact of the file: `case` names it, `score` holds it; `key_sha256` is one, and
`experience_years` another), `diagnosis` (`rfxray.readers.diagnosis`; `score` is 1 or 0), `training`
(with feedback, not analysed), `reading` (what is analysed), and `end`, the last row of every file,
so that a removed line shows. A question that was left open is a row with an empty score, or no row.
No field holds a line break. Lines end with a newline.

**The key** is JSON, UTF-8. Its SHA-256 stands in the protocol and in every file of answers
(`key_sha256`), and `nonce` makes that a seal: without it a key of few cases could be guessed.

    {"study": "lung-1", "modality": "single", "nonce": "64 hex digits",
     "cases": {"c017": {"truth": 1, "patient": "p4", "view": "AP", "finding": "Edema"}, …},
     "sides": {"reader-1": {"12": "left", …}, …}}

`truth` is 1 for a synthetic image and 0 for a real one. `patient` clusters images of one patient;
without it each case is a cluster. `control` marks a control (`degraded`, `reconstructed`), which is
reported apart. All other fields of a case are strata, by which results are
listed. `sides` is for pairs only: for each reader and item, the side that showed the synthetic
image; their cases have no `truth`.
"""

import csv
import dataclasses
import hashlib
import io
import math
from collections.abc import Iterable
from pathlib import Path

from rfxray.errors import DataError

COLUMNS = (
    "study",
    "reader",
    "item",
    "case",
    "modality",
    "score",
    "side",
    "seconds",
    "repeat",
    "phase",
    "previous_sha256",
)
PHASES = ("about", "diagnosis", "training", "reading", "end")
SIDES = ("left", "right")
SCORES = (1, 2, 3, 4, 5)
# What stands for "no answer" in a table of answers; the comparison ignores case.
MISSING = ("", "na", "n/a", "nan", "null", "none")


@dataclasses.dataclass(frozen=True)
class Answer:
    """One row of a file; see the table above.

    Attributes:
      score: Score, or None if the question was left open; as text for a fact or a diagnosis.
      seconds: Time, or None if it is unknown.
      line: Number of its line, for error messages.
    """

    study: str
    reader: str
    item: int | None
    case: str
    modality: str
    score: float | str | None
    side: str
    seconds: float | None
    repeat: int
    phase: str
    line: int = 0


@dataclasses.dataclass(frozen=True)
class ReaderFile:
    """A file of answers that was read and checked.

    Attributes:
      path: Path of the file.
      study: Name of the study.
      reader: Name of the reader.
      about: Facts of the file.
      answers: Rows of all phases except `about` and `end`.
    """

    path: Path
    study: str
    reader: str
    about: dict[str, str]
    answers: tuple[Answer, ...]


def text(answers: Iterable[Answer]) -> str:
    """A file of answers, chained and ended; there is a row, and all are of one reader."""
    lines = [",".join(COLUMNS)]
    rows = list(answers)
    ending = dataclasses.replace(
        rows[-1], item=None, case="", score=None, side="", seconds=None, repeat=0, phase="end"
    )
    for row in [*rows, ending]:
        values = [getattr(row, name) for name in COLUMNS[:-1]]
        values.append(_sha256(lines[-1].encode()))
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="").writerow(["" if v is None else v for v in values])
        lines.append(buffer.getvalue())
    return "\n".join(lines) + "\n"


def read(path: Path) -> ReaderFile:
    """Reads the answers of a reader, and checks that its chain of hashes is whole.

    Raises:
      DataError: If a line was changed, added or removed, or does not follow the format.
    """
    lines = [line.removesuffix(b"\r") for line in path.read_bytes().split(b"\n")]
    if lines[-1] == b"":
        lines.pop()
    if not lines or lines[0].decode("utf-8", "replace").split(",") != list(COLUMNS):
        raise DataError(
            f"{path} is not a file of answers: its first line must be {','.join(COLUMNS)}; for a "
            "table of another form give --map"
        )
    rows = []
    for number, line in enumerate(lines[1:], 2):
        rows.append(_row(path, number, line))
        if rows[-1][1] != _sha256(lines[number - 2]):
            raise DataError(
                f"{path}, line {number - 1} or {number} was edited after the reading: the chain of "
                "hashes breaks there; take the file as the page exported it"
            )
    answers = [answer for answer, _ in rows]
    if not answers or answers[-1].phase != "end":
        raise DataError(
            f"{path} has no line of phase end: its last lines are missing; export it from the page "
            "again"
        )
    for name in ("study", "reader"):
        if len(found := sorted({getattr(answer, name) for answer in answers})) != 1:
            raise DataError(f"{path} must have one {name} in all lines (found {found[:3]})")
    answers.pop()
    about = {a.case: str(a.score or "") for a in answers if a.phase == "about"}
    rest = tuple(a for a in answers if a.phase not in ("about", "end"))
    return ReaderFile(path, answers[0].study, answers[0].reader, about, rest)


def _row(path: Path, number: int, line: bytes) -> tuple[Answer, str]:
    try:
        values = next(csv.reader([line.decode("utf-8")], strict=True))
    except (UnicodeDecodeError, csv.Error, StopIteration) as error:
        raise DataError(f"{path}, line {number} is not a line of CSV in UTF-8") from error
    if len(values) != len(COLUMNS):
        raise DataError(
            f"{path}, line {number} has {len(values)} values; the {len(COLUMNS)} columns are "
            f"{', '.join(COLUMNS)}"
        )
    row = dict(zip(COLUMNS, values, strict=True))
    where = f"{path}, line {number}"
    if row["phase"] not in PHASES:
        raise DataError(f"{where}: phase must be one of {', '.join(PHASES)} (got {row['phase']!r})")
    reading = row["phase"] in ("training", "reading")
    side = row["side"].strip().lower()
    if reading and side not in ("", *SIDES):
        raise DataError(f"{where}: side must be left, right or empty (got {row['side']!r})")
    score = number_of(where, "score", row["score"]) if reading else row["score"]
    if reading and score is not None and score not in SCORES:
        raise DataError(f"{where}: score must be 1, 2, 3, 4, 5 or empty (got {row['score']!r})")
    item = whole_of(where, "item", row["item"])
    if reading and item is None:
        raise DataError(f"{where}: item must be a whole number (it is empty)")
    answer = Answer(
        study=row["study"],
        reader=row["reader"],
        item=item,
        case=row["case"],
        modality=row["modality"],
        score=score,
        side=side,
        seconds=seconds_of(where, row["seconds"]),
        repeat=whole_of(where, "repeat", row["repeat"]) or 0,
        phase=row["phase"],
        line=number,
    )
    return answer, row["previous_sha256"]


def number_of(where: str, name: str, value: str) -> float | None:
    """A number of a table, None if it is missing.

    Raises:
      DataError: If it is neither a finite number nor one of `MISSING`.
    """
    if value.strip().lower() in MISSING:
        return None
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise DataError(f"{where}: {name} must be a number, empty or NA (got {value[:40]!r})")
    return found


def whole_of(where: str, name: str, value: str) -> int | None:
    """A whole number of at least 0 of a table, None if it is missing.

    Raises:
      DataError: If it is another value.
    """
    found = number_of(where, name, value)
    if found is None:
        return None
    if found < 0 or found != int(found):
        raise DataError(f"{where}: {name} must be a whole number from 0 on (got {value[:40]!r})")
    return int(found)


def seconds_of(where: str, value: str) -> float | None:
    """A time of a table, None if it is missing.

    Raises:
      DataError: If it is below 0 or no number.
    """
    found = number_of(where, "seconds", value)
    if found is not None and found < 0:
        raise DataError(f"{where}: seconds must be 0 or more, empty or NA (got {value[:40]!r})")
    return found


def _sha256(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
