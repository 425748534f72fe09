"""What the cells of a metadata table mean, as attributes with their states.

Codes are read in any case, with spaces, hyphens and underscores alike. What is not understood is
said so (None), for the caller to count: it becomes unknown, never a guess.
"""

import difflib
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rfxray.attributes import spellings
from rfxray.attributes.ages import likely_age, read_age
from rfxray.attributes.states import State
from rfxray.attributes.views import likely_view
from rfxray.attributes.vocabulary import ATTRIBUTES, FINDING_NAMES, INDEX, NAMES, encode_value
from rfxray.errors import ConfigError, DataError

IDENTIFIERS = ("image", "patient", "study", "split")
FINDINGS = "findings"  # a column that lists several in one cell; see sources/findings.py

_STATES = {
    "present": (1.0, State.POSITIVE),
    "absent": (0.0, State.NEGATIVE),
    spellings.UNCERTAIN: (0.0, State.UNCERTAIN),
}
# What to offer for cells that are close to one of these, but not certain enough to be read so
_LIKELY_FINDINGS = {
    **dict.fromkeys(("-", "–", "not present", "nil"), "absent"),
    **dict.fromkeys(
        ("+/-", "±", "maybe", "possible", "possibly", "probable", "likely", "equivocal", "u"),
        "uncertain",
    ),
    "unclear": "uncertain",
}

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "validate", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def understand(name: str, text: str) -> tuple[float, State] | None:
    """A cell of the column of an attribute as (number, state); None where it is not understood.

    Blank is `UNLABELLED`. Ages are read by `ages`, categories and findings by `spellings`.
    """
    cell = text.strip().lower()
    if cell in spellings.BLANK:
        return 0.0, State.UNLABELLED
    if name in FINDING_NAMES:
        return _STATES.get(spellings.read(name, cell) or "")
    if name == "age":
        value = read_age(cell)
    else:
        value = spellings.read(name, cell) or cell
    try:
        return (encode_value(name, value)[0], State.STATED) if value is not None else None
    except ConfigError:
        return None


def likely(name: str, text: str) -> str:
    """The value to offer for a cell that was not understood; empty if none is near."""
    cell = text.strip().lower()
    if name == "view" and (view := likely_view(cell)):
        return view
    if name == "age":
        age = likely_age(cell)
        return age if age and understand(name, age) else ""
    if name in FINDING_NAMES:
        normal = {"normal": "present", "abnormal": "absent"} if name == "no_finding" else {}
        return (_LIKELY_FINDINGS | normal).get(cell, "")
    if set(cell) <= set("-–—."):
        return "unknown"
    values = {value.lower(): value for value in ATTRIBUTES[INDEX[name]].values}
    values |= spellings.CODES.get(name, {})
    near = difflib.get_close_matches(cell, values, n=1, cutoff=0.75)
    return values[near[0]] if near else ""


def identifier(text: str) -> str:
    """The id of a patient or study as a table has it; empty where it says that there is none."""
    return "" if text.strip().lower() in spellings.BLANK else text.strip()


def split_of(text: str) -> str | None:
    """`train`, `validation` or `test` as a table's official split says; None for another word."""
    return _SPLITS.get(text.strip().lower())


def official_split(text: str, path: Path, line: int) -> str:
    """`split_of` a cell of a published table; empty where it is blank.

    Raises:
      DataError: For another word: a hash would put its images into training.
    """
    split = split_of(text)
    if split is None and identifier(text):
        raise DataError(f"{path} line {line} has a split {text.strip()!r}, which we do not know")
    return split or ""


# ---------------------------------------------------------------------------------------------
# What a command line says of a table


def parse_columns(assignments: Sequence[str]) -> dict[str, str]:
    """`["patient=patient_id", "view=projection"]` as a mapping of our name to the table's header.

    Raises:
      ConfigError: For what is not NAME=HEADER, an unknown name, or a name given twice.
    """
    columns: dict[str, str] = {}
    for assignment in assignments:
        given, separator, header = assignment.partition("=")
        if not separator or not header.strip():
            raise ConfigError(
                f"--column {assignment!r} is not NAME=HEADER, such as view=projection"
            )
        name = _canonical(given)
        if name in columns:
            raise ConfigError(f"--column {name} is given twice")
        columns[name] = header.strip()
    return columns


def parse_map(assignments: Sequence[str]) -> dict[tuple[str, str], str]:
    """`["view:frontal=AP"]` as {("view", "frontal"): "AP"}: what a cell is to be read as.

    Raises:
      ConfigError: For what is not NAME:CELL=VALUE, an unknown name, or a value not understood.
    """
    mapped: dict[tuple[str, str], str] = {}
    for assignment in assignments:
        match = re.fullmatch(r"([^:]+):(.*)=([^=]+)", assignment)
        if not match:
            raise ConfigError(
                f"--map must be NAME:CELL=VALUE, for example view:frontal=AP (got {assignment!r})"
            )
        name = match[1].strip().lower()
        name = name if name == FINDINGS else _canonical(name)
        cell, value = match[2].strip().lower(), match[3].strip()
        if name == FINDINGS:
            mapped[name, cell] = value  # checked against the vocabulary when the column is read
            continue
        if name == "split":
            understood = split_of(value)
        elif name in INDEX:
            understood = understand(name, value)
        else:
            raise ConfigError(f"--map {assignment!r}: {name} is text and is taken as it is")
        if understood is None:
            allowed = "train, validation, test"
            if name in INDEX:
                allowed = ", ".join(ATTRIBUTES[INDEX[name]].values) or "years"
            raise ConfigError(f"--map {assignment!r}: {name} has no value {value!r}: {allowed}")
        mapped[name, cell] = value
    return mapped


def reader(mapped: Mapping[tuple[str, str], str]):
    """`understand` after `mapped`, remembering cells: a table of a million rows repeats few."""

    @functools.lru_cache(maxsize=1 << 16)
    def read(name: str, text: str) -> tuple[float, State] | None:
        return understand(name, mapped.get((name, text.strip().lower()), text))

    return read


def _canonical(given: str) -> str:
    name = given.strip().lower().replace(" ", "_").replace("-", "_")
    if name in IDENTIFIERS or name in INDEX:
        return name
    if name == FINDINGS:
        raise ConfigError("a column that lists findings is named by --findings HEADER")
    near = difflib.get_close_matches(name, (*IDENTIFIERS, *NAMES), n=3, cutoff=0.5)
    hint = ", ".join(near or (*IDENTIFIERS, *NAMES))
    raise ConfigError(f"no column or attribute {given!r}; did you mean {hint}?")
