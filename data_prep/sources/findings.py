"""Findings that a table of one's own lists in one cell: `A|B`, `A; B`, `A, B`, `['a', 'b']`.

What a cell names is present, by the `is` rows of the mapping tables. What it does not name is
unknown, unless the list is closed for it: then it is absent by the closed vocabulary, if every name
of the cell is understood, none leaves the list open, and none may mean it or implies it. Unlike in
the published sets, what a name implies stays unknown: its readers may not have looked for it.
"""

import csv
import dataclasses
import difflib
import functools
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from data_prep.sources.mapping import MAPPINGS
from data_prep.tables.columns import FINDINGS
from data_prep.tables.csv_table import rows
from data_prep.tables.description import SEEN, Description
from data_prep.tables.table import TableBuilder, Value
from rfxray.attributes.states import State
from rfxray.attributes.vocabulary import FINDING_NAMES
from rfxray.errors import ConfigError

VOCABULARIES = ("own", "nih", "vindr", "padchest")  # the first that has a name decides it
OTHER = "other"  # of --map: a finding without an attribute of ours
_BLANK = {"", "nan", "na", "n/a", "null"}
_UNKNOWN = {"unknown", "unk", "?"}
# What makes prose of a cell with commas: in "no effusion, edema" there is no edema
_DOUBT = re.compile(
    r"\b(no|not|non|none|nil|without|absent|absence|negative|neg|denie[sd]|resolved|free|or|vs|versus"
    r"|possibl[ey]|probabl[ey]|likely|suspected|questionable|query|excluded?|ruled?|r/o"
    r"|keine?|ohne|nicht|sin|sem|sans)\b|\?"
)


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What one name, or the list of one cell, says.

    Attributes:
      present: Attributes that it names.
      possible: Attributes that it may mean or implies, so that they are not absent.
      open: Whether it leaves open what else there is.
      strange: Names that are not understood.
    """

    present: frozenset[str] = frozenset()
    possible: frozenset[str] = frozenset()
    open: bool = False
    strange: tuple[str, ...] = ()


class FindingsColumn:
    """Reads the cells of the column of `--findings`.

    Args:
      described: What the table says; it has a column `FINDINGS`.
      builder: Table in the making, which counts what is not understood.

    Raises:
      ConfigError: If `--map` or `--closed-list` has names that are not understood.
    """

    def __init__(self, described: Description, builder: TableBuilder):
        self._builder = builder
        self._mapped = {
            cell: _mapped(cell, value)
            for (name, cell), value in described.mapped.items()
            if name == FINDINGS
        }
        self._origin = f"column {described.columns[FINDINGS]}"
        self._read = functools.lru_cache(maxsize=1 << 16)(self._meaning)
        self.covered = self._closed(described)

    def values(self, cell: str) -> dict[str, Value]:
        """A cell as {attribute: value}; names that are not understood are counted."""
        meaning = self._read(cell.strip())
        if meaning is None:
            return {}
        for name in meaning.strange:
            self._builder.count_strange(FINDINGS, name)
        values = {}
        if not meaning.open and not meaning.strange:
            absent = Value(0.0, State.NEGATIVE_CLOSED_VOCABULARY, self._origin)
            values = dict.fromkeys(sorted(self.covered - meaning.possible), absent)
        present = Value(1.0, State.POSITIVE, self._origin)
        return values | dict.fromkeys(sorted(meaning.present), present)

    def _meaning(self, cell: str) -> Meaning | None:
        """What a cell says; None if it is blank."""
        if (meaning := self._mapped.get(cell.lower())) is not None:
            return None if meaning == _NOTHING_KNOWN else meaning
        if cell.lower() in _BLANK | _UNKNOWN:
            return None
        names = split_list(cell)
        said = _union(self._mapped.get(name.lower()) or read_name(name) for name in names)
        doubtful = any(_DOUBT.search(name.lower()) for name in said.strange)
        if not names or (doubtful and _is_prose(cell)):
            return Meaning(strange=(cell,))  # an empty list: nothing found, or nothing written
        return said

    def _closed(self, described: Description) -> frozenset[str]:
        """The attributes that are absent if they are not listed."""
        if described.closed == (SEEN,):
            cells = {
                row[FINDINGS].strip()
                for _, row in rows(described.metadata, {FINDINGS: described.columns[FINDINGS]})
                if row is not None
            }
            named = (self._read(cell) for cell in sorted(cells))
            covered = frozenset().union(*(m.present for m in named if m is not None))
        else:
            listed = _union(map(read_name, described.closed))
            if listed.strange:
                raise ConfigError(f"--closed-list: {_not_a_finding(listed.strange[0])}")
            covered = listed.present
            if described.closed and not covered - {"no_finding"}:
                raise ConfigError(
                    f"--closed-list {','.join(described.closed)} names no finding of ours that can "
                    f"be absent: {', '.join(n for n in FINDING_NAMES if n != 'no_finding')}"
                )
        return covered - {"no_finding"}  # which follows from the others


def split_list(cell: str) -> list[str]:
    """The names in a cell: a JSON or Python list, or parted by | or else ; or else commas."""
    inner = _LIST.fullmatch(cell)
    if inner is None:
        separator = next((mark for mark in "|;\n" if mark in cell), ",")
        parts = [part.strip().strip("\"'").strip() for part in cell.split(separator)]
    else:
        parts = _quoted(cell, next(part for part in inner.groups() if part is not None))
    return [part for part in parts if part.lower() not in _BLANK]


def read_name(name: str) -> Meaning:
    """What one name says, in any case, with underscores or hyphens, singular or plural."""
    known, folded = _vocabulary(), _fold(name)
    meaning = known.get(folded) or known.get(folded.removesuffix("s"))
    if meaning is None and folded in _UNKNOWN:
        return _NOTHING_KNOWN
    return meaning or Meaning(strange=(name,))


def likely_finding(cell: str) -> str:
    """The finding to offer for a name that is not understood; empty if none is near.

    Only a name of as many words: "no edema" is near to "edema".
    """
    folded = _fold(cell)
    words = len(folded.split())
    names = [name for name, meaning in _vocabulary().items() if meaning.present]
    near = difflib.get_close_matches(folded, names, n=3, cutoff=0.8)
    near = [name for name in near if len(name.split()) == words]
    return "|".join(sorted(_vocabulary()[near[0]].present)) if near else ""


_NOTHING_KNOWN = Meaning(open=True)
_LIST = re.compile(r"\[(.*)\]|\((.*)\)", re.DOTALL)


def _is_prose(cell: str) -> bool:
    return not _LIST.fullmatch(cell) and not re.search(r"[|;\n]", cell)


def _mapped(cell: str, value: str) -> Meaning:
    """VALUE of `--map findings:CELL=VALUE`."""
    meaning = _union(map(read_name, split_list(value) or [value]))
    if meaning.strange:
        raise ConfigError(f"--map findings:{cell}={value}: {_not_a_finding(meaning.strange[0])}")
    return meaning


def _not_a_finding(name: str) -> str:
    near = difflib.get_close_matches(_fold(name), _vocabulary(), n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else f"only {', '.join(FINDING_NAMES)}"
    return f"{name!r} is not a finding; {hint}"


def _union(meanings: Iterable[Meaning]) -> Meaning:
    all_of = list(meanings)
    return Meaning(
        frozenset().union(*(meaning.present for meaning in all_of)),
        frozenset().union(*(meaning.possible for meaning in all_of)),
        any(meaning.open for meaning in all_of),
        tuple(name for meaning in all_of for name in meaning.strange),
    )


def _quoted(cell: str, inner: str) -> Sequence[str]:
    """The entries of a list as text; NumPy writes it without commas, others without quotes."""
    try:
        return [str(entry).strip() for entry in json.loads(cell) if entry is not None]
    except ValueError:
        pass
    found = re.findall(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^,;|\s][^,;|]*)""", inner)
    listed = [re.sub(r"\\(.)", r"\1", one or two or bare).strip() for one, two, bare in found]
    return [entry for entry in listed if entry != "None"]


def _fold(name: str) -> str:
    plain = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(r"[\s_-]+", " ", plain).strip(" .")


@functools.cache
def _vocabulary() -> Mapping[str, Meaning]:
    """What every name means, by the name folded."""
    known: dict[str, Meaning] = {}
    for vocabulary in VOCABULARIES:
        here: dict[str, list[Meaning]] = {}
        for row in _table(MAPPINGS / f"{vocabulary}.csv"):
            here.setdefault(_fold(row["finding"]), []).append(_relation(row))
        known |= {name: _union(said) for name, said in here.items() if name not in known}
    return known


def _relation(row: Mapping[str, str]) -> Meaning:
    attribute = frozenset({row["attribute"]} - {""})
    # The names of the sets for a normal study imply No Finding of a whole list; here they name it
    if row["relation"] == "is" or attribute == {"no_finding"}:
        return Meaning(present=attribute)
    return Meaning(possible=attribute, open=row["relation"] == "open")


def _table(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
