"""Label mapping tables: data files in `mappings/`, a reason in every row.

A set that lists findings of its own names them by `mappings/SET.csv`, one row a consequence:

| relation | of a finding that is named | of one that is not named |
|---|---|---|
| is | the attribute is present | absent by the closed vocabulary, if no other row speaks for it |
| implies | the attribute is present | says nothing |
| may | the attribute is uncertain, unless another row says present | says nothing |
| none | no attribute of ours | |
| open | the list is not closed for this study: nothing is absent | |

A finding that is named and has no row leaves the list open too: it may mean any of ours.
"""

import csv
import dataclasses
import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from data_prep.tables.table import TableBuilder, Value
from rfxray.attributes.states import State
from rfxray.attributes.vocabulary import ATTRIBUTES, FINDING_NAMES, INDEX

MAPPINGS = Path(__file__).with_name("mappings")
RELATIONS = ("is", "implies", "may", "none", "open")
FINDING_LABELS = {name: ATTRIBUTES[INDEX[name]].label for name in FINDING_NAMES}


@dataclasses.dataclass(frozen=True)
class ClosedList:
    """The findings that a set's readers could name, and what each means.

    Attributes:
      present, uncertain: Attributes by finding.
      covered: Attributes that the list can say are absent.
      open: Findings that leave the list open.
    """

    present: Mapping[str, Collection[str]]
    uncertain: Mapping[str, Collection[str]]
    covered: Collection[str]
    open: Collection[str]

    def values(self, readings: Sequence[Collection[str]], origin: str) -> dict[str, Value]:
        """What the readers of one study named, as {attribute: value}.

        An attribute is present where more than half of the readers imply it, uncertain where fewer
        do, and absent by the closed vocabulary where none does and the list covers it, if it is
        closed for this study.
        """
        votes: dict[str, int] = {}
        doubtful: set[str] = set()
        for named in readings:
            for attribute in {a for finding in named for a in self.present.get(finding, ())}:
                votes[attribute] = votes.get(attribute, 0) + 1
            doubtful.update(a for finding in named for a in self.uncertain.get(finding, ()))
        closed = bool(readings) and all(
            f in self and f not in self.open for named in readings for f in named
        )
        values = {}
        if closed:
            absent = State.NEGATIVE_CLOSED_VOCABULARY
            values = {attribute: Value(0.0, absent, origin) for attribute in self.covered}
        for attribute in doubtful:
            values[attribute] = Value(0.0, State.UNCERTAIN, origin)
        for attribute, count in votes.items():
            if 2 * count > len(readings):
                values[attribute] = Value(1.0, State.POSITIVE, origin)
            else:
                values[attribute] = Value(0.0, State.UNCERTAIN, origin)
        return values

    def __contains__(self, finding: str) -> bool:
        return finding in self.present


@functools.cache
def closed_list(name: str, listed: frozenset[str] | None = None) -> ClosedList:
    """The mapping table of a set, or of an edition of it that lists only some findings."""
    present: dict[str, set[str]] = {}
    uncertain: dict[str, set[str]] = {}
    covered, left_open = set(), set()
    for row in _table(name):
        finding, relation, attribute = row["finding"], row["relation"], row["attribute"]
        if listed is not None and finding not in listed:
            continue
        present.setdefault(finding, set())
        if relation in ("is", "implies"):
            present[finding].add(attribute)
        if relation == "is":
            covered.add(attribute)
        if relation == "may":
            uncertain.setdefault(finding, set()).add(attribute)
        if relation == "open":
            left_open.add(finding)
    return ClosedList(present, uncertain, covered, left_open)


def chexpert_labels(
    builder: TableBuilder, cells: Mapping[str, object], origin: str
) -> dict[str, Value]:
    """The 14 labels of CheXpert, CheXbert or NegBio (1, 0, -1, blank) as {attribute: value}.

    These labellers look for all 14, so a blank beside No Finding is unlabelled by one who looked;
    a row of blanks was not labelled.

    Args:
      cells: Cells by attribute name; text, numbers or None.
    """
    values = {}
    for name in FINDING_NAMES:
        cell = cells.get(name)
        values |= builder.finding(name, "" if cell is None else str(cell), origin)
    return values if any(v.state != State.UNLABELLED for v in values.values()) else {}


def race(builder: TableBuilder, text: str, origin: str) -> dict[str, Value]:
    """A race as a hospital writes it, as {"race": value}; empty where it tells none."""
    folded = " ".join(text.lower().split())
    races = _races()
    return builder.cell("race", races.get(folded, text), origin)


@functools.cache
def _races() -> dict[str, str]:
    return {row["text"]: row["race"] for row in _table("race")}


@functools.cache
def published_prevalence() -> dict[tuple[str, str], float]:
    """Percent of a set's images with a finding, by (set, attribute), as its own table has it."""
    return {(row["set"], row["attribute"]): float(row["percent"]) for row in _table("prevalence")}


def _table(name: str) -> Iterable[dict[str, str]]:
    with open(MAPPINGS / f"{name}.csv", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)
