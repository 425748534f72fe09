"""The rows of a table that have a file, and what becomes of the other rows and files."""

import dataclasses
import re
from collections.abc import Sequence

from data_prep.sources.entries import packed
from data_prep.sources.files import FileIndex, bare
from data_prep.sources.joining import OTHER_CASE, Found, find_files
from data_prep.sources.layout import Layout
from data_prep.tables.table import Row, Table, make_key
from rfxray.data.plan import Dropped
from rfxray.errors import DataError

EXAMPLES = 3  # of what a note counts
NO_FILE = ("no file", "several files", "a format that is not read", "not a regular file")


def locate(name: str, table: Table, files: FileIndex, layout: Layout | None = None) -> Table:
    """The table with the rows that have a file, and its path; the others go to the ledger: under
    their key, or without it if a row that is kept has that key.

    Args:
      name: Name of the set.
      table: What was published; its paths are as the table says.
      files: Folder of the files.
      layout: What is known of the folder.

    Raises:
      DataError: If no row has a file.
    """
    cells = [row.path for row in table.rows]
    found = list(find_files([*cells, *(drop.path for drop in table.dropped)], files, layout))
    found = found[: len(cells)]  # files of dropped rows are not without a row
    rows, lost = _settled(table.rows, found)
    ledger = [*table.dropped]
    for row, reason, detail in lost:
        key = "" if row.key in rows else row.key
        ledger.append(Dropped(name, key, row.path, "files", reason, detail))
    if not rows:
        raise DataError(_nothing_matches(name, files, ledger))
    unnamed = files.unnamed()
    for path in unnamed:
        ledger.append(Dropped(name, "", path, "files", "no row in the table"))
    for path, kind in files.unnamed_special().items():
        ledger.append(Dropped(name, "", path, "files", "not a regular file", kind))
    for path in files.leftovers:
        ledger.append(Dropped(name, "", path, "files", "a leftover of a broken download"))
    missing = [row.path for row, reason, _ in lost if reason in NO_FILE]
    folded = [f"{row.path}: {detail}" for row, _, detail in lost if detail.startswith(OTHER_CASE)]
    notes = {
        **table.notes,
        "files": len(files.paths),
        "matched": len(rows),
        "contradicting": sum(reason.startswith("contradicts ") for _, reason, _ in lost),
        "without_file": _counted(missing),
        "in_another_case": _counted(folded),
        "not_files": _counted([f"{path}: {kind}" for path, kind in files.special.items()]),
        "without_row": _counted(unnamed),
        "archives": _counted(files.archives),
        "alike_patients": _alike(list(rows.values())),
    }
    return dataclasses.replace(table, rows=list(rows.values()), dropped=ledger, notes=notes)


def _settled(
    rows: Sequence[Row], found: Sequence[Found]
) -> tuple[dict[str, Row], list[tuple[Row, str, str]]]:
    """The rows with a file by key, with its path; and the others with reason and detail."""
    lost, kept = [], {}
    others = one_row_a_file(rows, found)
    for i, (row, file) in enumerate(zip(rows, found, strict=True)):
        if not file.path:
            lost.append((row, file.reason, file.detail))
        elif i in others:
            lost.append((row, *others[i]))
        elif kept.setdefault(row.key, located := row._replace(path=file.path)) is not located:
            lost.append((row, "the key of an earlier row", file.path))
    return kept, lost


def one_row_a_file(rows: Sequence[Row], found: Sequence[Found]) -> dict[int, tuple[str, str]]:
    """The rows that lose their file to another one, by their index, with reason and detail.

    The row that fits the file best keeps it (`joining.Found.rank`). If several names fit it
    equally, nobody knows which row the file belongs to. Of what is left the first row stays, unless
    they name different patients: then none does.

    Args:
      rows: Rows with their path as the table says it.
      found: File of each, if it has one.
    """
    first: dict[str, int] = {}
    claims: dict[str, list[int]] = {}
    for i, file in enumerate(found):
        if file.path and (earlier := first.setdefault(file.path, i)) != i:
            claims.setdefault(file.path, [earlier]).append(i)
    others: dict[int, tuple[str, str]] = {}
    for path, claim in claims.items():
        best = min(found[i].rank for i in claim)
        left = [i for i in claim if found[i].rank == best]
        others |= {i: ("the file of another row", path) for i in claim if i not in left}
        if len({bare(rows[i].path) for i in left}) > 1:
            others |= dict.fromkeys(left, ("ambiguous", f"several rows may mean {path}"))
            continue
        if len({rows[i].patient for i in left if _has_patient(rows[i])}) > 1:
            others |= dict.fromkeys(left, ("contradicts another row", "the patients differ"))
            continue
        for i in left[1:]:
            same = _said(rows[i]) == _said(rows[left[0]])
            reason = "the file of an earlier row" if same else "contradicts an earlier row"
            others[i] = reason, path if rows[i].path != path else ""
    return others


def _said(row: Row) -> tuple[str, bytes, bytes]:
    return row.split, row.attributes, row.states


def _has_patient(row: Row) -> bool:
    """Whether the table names one; else the image counts as a patient of its own."""
    source, _, _, image = row.key.split("/", 3)
    return row.patient != make_key(source, image, "", image)[1]


def _counted(paths: Sequence[str]) -> dict:
    return {"count": len(paths), "examples": list(paths[:EXAMPLES])}


def _alike(rows: Sequence[Row]) -> dict:
    """Patients with ids that differ only in case, zeros in front or a decimal point: `12`, `012`,
    `12.0`, or `p1`, `P1`. They may be one patient, whom a split would then divide.
    """
    groups: dict[str, set[str]] = {}
    for patient in {row.patient for row in rows if _has_patient(row)}:
        written = patient.partition("/")[2]
        groups.setdefault(_folded(written), set()).add(written)
    alike = sorted(sorted(group) for group in groups.values() if len(group) > 1)
    return {"count": len(alike), "examples": [" = ".join(group) for group in alike[:EXAMPLES]]}


def _folded(patient: str) -> str:
    text = patient.casefold().strip()
    number = re.fullmatch(r"(\D*)0*(\d+)(?:\.0*)?", text)
    return f"{number[1]}{number[2]}" if number else text


def _nothing_matches(name: str, files: FileIndex, ledger: Sequence[Dropped]) -> str:
    if not ledger:
        return f"the table of {name} has no rows"
    first = max(ledger, key=lambda drop: drop.stage == "files")  # a row, if there is one
    hint = f"; {packed(files.archives)}" if files.archives else ""
    return (
        f"no row of {name} matches a file in {files.folder}: the table has {first.path!r} "
        f"({first.why}), the folder has {files.paths[0]!r}{hint}"
    )
