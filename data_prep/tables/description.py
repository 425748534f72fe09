"""What a CSV table of one's own says, as the flags of a command describe it."""

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from data_prep.tables.columns import IDENTIFIERS, parse_columns, parse_map
from data_prep.tables.table import Table
from rfxray.attributes.vocabulary import NAMES, SOURCES, encode_value
from rfxray.command_line import local_path
from rfxray.errors import ConfigError

FLAGS = ("metadata", "column", "map", "set_source")


@dataclasses.dataclass(frozen=True)
class Description:
    """What a table says.

    Attributes:
      metadata: Path of the table.
      columns: Our name of a column → its header in the table.
      mapped: (our name, cell) → the value that the cell is read as.
      source: Attribute `source` of every image without a column for it.
    """

    metadata: Path
    columns: Mapping[str, str]
    mapped: Mapping[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    source: str = "other"

    @property
    def options(self) -> dict:
        """What of it decides a record, for the plan; JSON."""
        return {
            "columns": self.columns,
            "map": {f"{name}:{cell}": value for (name, cell), value in self.mapped.items()},
            "set_source": self.source,
        }


def describe(
    name: str,
    metadata: Path,
    column: Sequence[str] = (),
    map: Sequence[str] = (),
    set_source: str | None = None,
) -> Description:
    """The description that the flags of `add_arguments` give, checked.

    Args:
      name: Name of the set.
      metadata, column, map, set_source: The flags.

    Raises:
      ConfigError: If they do not go together.
    """
    columns, mapped = parse_columns(column), parse_map(map)
    for attribute, cell in mapped:
        if attribute not in columns:
            raise ConfigError(
                f"--map {attribute}:{cell}=… reads no column; name it: --column {attribute}=HEADER"
            )
    source = set_source or (name if name in SOURCES else "other")
    if not encode_value("source", source)[1]:
        raise ConfigError(f"--set-source {source}: the source of an image is always known")
    return Description(metadata, columns, mapped, source)


def add_arguments(parser: argparse.ArgumentParser, required: bool) -> None:
    """Adds the flags that say what a CSV table means."""
    add = parser.add_argument
    add(
        "--metadata",
        type=local_path,
        metavar="FILE.csv",
        required=required,
        help="CSV table of your images, one row per image; may be gzipped (.csv.gz)",
    )
    add(
        "--column",
        action="append",
        default=[],
        metavar="NAME=HEADER",
        help="what a column holds (NAME) and its title in the table (HEADER), such as "
        f"view=projection; repeat for each column. NAME is one of {', '.join(IDENTIFIERS)} or an "
        f"attribute: {', '.join(NAMES)} (default: other columns are not read)",
    )
    add(
        "--map",
        action="append",
        default=[],
        metavar="NAME:CELL=VALUE",
        help="read CELL in the column of NAME as VALUE, such as view:frontal=AP; repeatable "
        "(default: cells are read as they are)",
    )
    add(
        "--set-source",
        metavar="SOURCE",
        help=f"attribute `source` of images without a column for it: {', '.join(SOURCES)} "
        "(default: the name of the set if it is one of these, else other)",
    )


def contradictions(table: Table) -> Iterator[str]:
    """A line if rows of a table contradict each other."""
    if count := table.notes["contradicting"]:
        yield f"WARNING: {count:,} rows contradict another row of their image; see dropped.csv"
