"""A folder of image files and one CSV table that describes them."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from data_prep.sources.files import FileIndex
from data_prep.sources.findings import FindingsColumn
from data_prep.sources.locate import locate
from data_prep.tables.columns import FINDINGS, split_of
from data_prep.tables.csv_table import MISFIT, rows
from data_prep.tables.description import Description
from data_prep.tables.table import Table, TableBuilder
from rfxray.attributes.vocabulary import FINDING_NAMES, INDEX
from rfxray.errors import ConfigError


def read_folder(images: str | os.PathLike, described: Description, name: str) -> Table:
    """Joins the table and the files.

    Args:
      images: Folder of the files; they are found by extension, at any depth.
      described: What the table says, one row per image.
      name: Beginning of keys and patients.

    Raises:
      DataError: Where the folder or the table is missing or unreadable, or nothing matches.
      ConfigError: Where the table has no column of a given header.
    """
    metadata, columns, mapped = described.metadata, described.columns, described.mapped
    if "image" not in columns:
        raise ConfigError(f"{metadata}: which column names the image file? --column image=HEADER")
    files = FileIndex(images)
    given = [attribute for attribute in columns if attribute in INDEX]
    builder = TableBuilder(name, mapped)
    listed = FindingsColumn(described, builder) if FINDINGS in columns else None
    told_source = builder.cell("source", described.source, "--set-source")
    for line, cells in rows(Path(metadata), columns):
        image = cells["image"].strip() if cells else ""
        if not cells or not image:
            reason = "a row that names no image" if cells else MISFIT
            builder.drop("", reason, f"{Path(metadata).name} line {line}")
            continue
        values = told_source | (listed.values(cells[FINDINGS]) if listed else {})
        for attribute in given:
            # A blank does not replace what the list of findings says.
            labelled = attribute in FINDING_NAMES and attribute not in values
            interpret = builder.finding if labelled else builder.cell
            values |= interpret(attribute, cells[attribute], f"column {columns[attribute]}")
        builder.add(
            image,
            values,
            patient=cells.get("patient", "").strip(),
            study=cells.get("study", "").strip(),
            image=image,
            split=_official(cells, mapped, metadata),
        )
    table = locate(name, builder.table(), files)
    patients = len({row.patient for row in table.rows})
    return dataclasses.replace(table, notes={**table.notes, "patients": patients})


def _official(cells: Mapping[str, str], mapped: Mapping, metadata: str | os.PathLike) -> str:
    if "split" not in cells:
        return ""
    cell = cells["split"].strip()
    split = split_of(mapped.get(("split", cell.lower()), cell))
    if split is None:
        raise ConfigError(
            f"{metadata} has a split {cell!r}, which is not train, validation or test; say what it "
            f"is: --map split:{cell}=test"
        )
    return split
