"""What the cells of a metadata table mean, as attributes with their states.

Codes are read in any case, with spaces, hyphens and underscores alike. What is not understood is
said so (None), for the caller to count: it becomes unknown, never a guess.
"""

import difflib
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rfxray.attributes.states import State
from rfxray.attributes.vocabulary import ATTRIBUTES, FINDING_NAMES, INDEX, NAMES, encode_value
from rfxray.errors import ConfigError, DataError

IDENTIFIERS = ("image", "patient", "study", "split")
_BLANK = {"", "unknown", "unk", "none", "nan", "na", "n/a", "null", "?", "[]"}


# By attribute: the code in a table, folded → the value of the attribute.
_CODES: dict[str, dict[str, str]] = {
    "view": {
        **dict.fromkeys(("postero anterior", "posteroanterior"), "PA"),
        **dict.fromkeys(("antero posterior", "anteroposterior"), "AP"),
        **dict.fromkeys(("ap horizontal", "ap supine", "ap erect"), "AP"),
        **dict.fromkeys(("lat", "l", "ll", "rl", "left lateral", "right lateral"), "lateral"),
    },
    "sex": {"female": "F", "male": "M"},
    "race": {
        "caucasian": "White",
        "white or caucasian": "White",
        "black or african american": "Black",
        "african american": "Black",
    },
}

_FINDINGS = {
    **dict.fromkeys(("1", "1.0", "present", "positive", "yes", "true"), (1.0, State.POSITIVE)),
    **dict.fromkeys(("0", "0.0", "absent", "negative", "no", "false"), (0.0, State.NEGATIVE)),
    **dict.fromkeys(("-1", "-1.0", "uncertain"), (0.0, State.UNCERTAIN)),
}

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "validate", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


# DICOM's age string: three digits and a unit
_DAYS = {"y": 365.25, "m": 30.4375, "w": 7.0, "d": 1.0}


def understand(name: str, text: str) -> tuple[float, State] | None:
    """A cell of the column of an attribute as (number, state); None where it is not understood.

    Blank is `UNLABELLED`. A finding is 1 / 0 / -1 or a word for it; an age is years or DICOM's
    `063Y`, `018M`; a category is its value or a common code for it.
    """
    cell = text.strip().lower()
    if cell in _BLANK:
        return 0.0, State.UNLABELLED
    if name in FINDING_NAMES:
        return _FINDINGS.get(cell)
    if name == "age" and (match := re.fullmatch(r"(\d{1,3})([ymwd])", cell)):
        cell = str(int(match[1]) * _DAYS[match[2]] / _DAYS["y"])
    elif name == "age" and not re.fullmatch(r"\d+(\.\d*)?", cell):
        return None  # Python reads 6_3 and 1e2 as numbers, too
    try:
        number, _ = encode_value(name, _CODES.get(name, {}).get(_fold(cell), cell))
    except ConfigError:
        return None
    return number, State.STATED


def identifier(text: str) -> str:
    """The id of a patient or study as a table has it; empty where it says that there is none."""
    return "" if text.strip().lower() in _BLANK else text.strip()


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


def _fold(cell: str) -> str:
    return re.sub(r"[\s_-]+", " ", cell).strip()


# ---------------------------------------------------------------------------------------------
# What a command line says of a table


def parse_columns(assignments: Sequence[str]) -> dict[str, str]:
    """`["patient=patient_id", "view=projection"]` as a mapping of our name to the table's header.

    Raises:
      ConfigError: for what is not NAME=HEADER, an unknown name, or a name given twice.
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
      ConfigError: for what is not NAME:CELL=VALUE, an unknown name, or a value not understood.
    """
    mapped: dict[tuple[str, str], str] = {}
    for assignment in assignments:
        match = re.fullmatch(r"([^:]+):(.*)=([^=]+)", assignment)
        if not match:
            raise ConfigError(
                f"--map must be NAME:CELL=VALUE, for example view:frontal=AP (got {assignment!r})"
            )
        name, cell, value = _canonical(match[1]), match[2].strip().lower(), match[3].strip()
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
    near = difflib.get_close_matches(name, (*IDENTIFIERS, *NAMES), n=3, cutoff=0.5)
    hint = ", ".join(near or (*IDENTIFIERS, *NAMES))
    raise ConfigError(f"no column or attribute {given!r}; did you mean {hint}?")
