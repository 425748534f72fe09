"""What a CSV table of one's own says, as the flags of a command describe it."""

import argparse
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.tables.columns import FINDINGS, IDENTIFIERS, parse_columns, parse_map
from rfxray.attributes.vocabulary import NAMES, SOURCES, encode_value
from rfxray.command_line import local_path
from rfxray.errors import ConfigError

SEEN = "seen"  # of --closed-list: all that the column names somewhere


class Given(NamedTuple):
    """A flag that was given, by its name without dashes."""

    flag: str
    value: Any


@dataclasses.dataclass(frozen=True)
class Description:
    """What a table says.

    Attributes:
      metadata: Path of the table.
      columns: Our name of a column → its header in the table; `FINDINGS` is one that lists several.
      mapped: (our name, cell) → the value that the cell is read as.
      source: Attribute `source` of every image without a column for it.
      closed: Names of the findings that are absent in a row that does not list them, or `SEEN` for
        all that the column lists somewhere; empty if none is.
    """

    metadata: Path
    columns: Mapping[str, str]
    mapped: Mapping[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    source: str = "other"
    closed: tuple[str, ...] = ()

    @property
    def options(self) -> dict:
        """What of it decides a record, for the plan; JSON."""
        return {
            "columns": self.columns,
            "map": {f"{name}:{cell}": value for (name, cell), value in self.mapped.items()},
            "set_source": self.source,
            "closed_list": self.closed,
        }


def describe(name: str, given: Sequence[Given]) -> Description:
    """The description that the flags of `add_arguments` give, checked.

    Args:
      name: Name of the set.
      given: The flags, in any order.

    Raises:
      ConfigError: If one is missing or given twice, or they do not go together.
    """
    values: dict[str, list] = {}
    for flag, value in given:
        values.setdefault(flag, []).append(value)
    for flag in ("metadata", "findings", "closed-list", "set-source"):
        if len(values.setdefault(flag, [])) > 1:
            raise ConfigError(f"--{flag} is given twice for {name}; a table has one")
    if not values["metadata"]:
        raise ConfigError(f"{name} needs its table: --metadata FILE.csv --column …")
    columns, mapped = parse_columns(values.get("column", ())), parse_map(values.get("map", ()))
    if values["findings"]:
        columns[FINDINGS] = values["findings"][0]
    for attribute, cell in mapped:
        if attribute not in columns:
            flag = "--findings HEADER" if attribute == FINDINGS else f"--column {attribute}=HEADER"
            raise ConfigError(f"--map {attribute}:{cell}=… reads no column; name it: {flag}")
    closed = tuple(part.strip() for text in values["closed-list"] for part in text.split(","))
    if closed and FINDINGS not in columns:
        raise ConfigError("--closed-list closes the list of a column; name it: --findings HEADER")
    source = next(iter(values["set-source"]), name if name in SOURCES else "other")
    if not encode_value("source", source)[1]:
        raise ConfigError(f"--set-source {source}: the source of an image is always known")
    return Description(values["metadata"][0], columns, mapped, source, closed)


def add_arguments(parser: argparse.ArgumentParser, required: bool) -> None:
    """Adds the flags that say what a CSV table means; `described` has them in the order given."""

    add = functools.partial(add_described, parser)

    add(
        "metadata",
        read=local_path,
        required=required,
        metavar="FILE.csv",
        help="CSV table of your images, one row per image; may be gzipped (.csv.gz)"
        + ("" if required else " (default: none; each --folder needs one)"),
    )
    add(
        "column",
        metavar="NAME=HEADER",
        help="what a column holds (NAME) and its title in the table (HEADER), such as "
        f"view=projection; repeat for each column. NAME is one of {', '.join(IDENTIFIERS)} or an "
        f"attribute: {', '.join(NAMES)} (default: other columns are not read)",
    )
    add(
        "findings",
        metavar="HEADER",
        help="title of a column that lists findings, as 'A|B', 'A; B', 'A, B' or "
        """"['a', 'b']": those that a cell names are present, the others unknown """
        "(default: no such column)",
    )
    add(
        "closed-list",
        metavar="NAMES",
        help="findings, separated by commas, that are absent if a list in the column of --findings "
        f"does not name them; or '{SEEN}', for all that the column names in some row "
        "(default: none, so what is not named is unknown)",
    )
    add(
        "map",
        metavar="NAME:CELL=VALUE",
        help="read CELL in the column of NAME as VALUE, such as view:frontal=AP, or "
        "findings:CELL=VALUE for a name or a whole cell in the column of --findings; repeatable "
        "(default: cells are read as they are)",
    )
    add(
        "set-source",
        metavar="SOURCE",
        help=f"attribute `source` of images without a column for it: {', '.join(SOURCES)} "
        "(default: the name of the set if it is one of these, else other)",
    )


def add_described(
    parser: argparse.ArgumentParser,
    flag: str,
    read: Callable[[str], Any] = str,
    required: bool = False,
    **shown: str,
) -> None:
    """Adds a flag that is appended to `described` as `Given`, whatever flags stand around it."""

    def given(text: str) -> Given:
        return Given(flag, read(text))

    parser.add_argument(
        f"--{flag}",
        dest="described",
        action="append",
        type=given,
        default=[],
        required=required,
        **shown,
    )
