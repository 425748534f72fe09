"""What a user should hear about the join of a table and its files before the long work begins."""

from collections.abc import Iterator, Mapping

from data_prep.sources.entries import packed
from data_prep.tables.table import Table

SHARE = 0.1  # of the rows or files; the published sets lack below 1%


def remarks(table: Table) -> Iterator[str]:
    """A line for each thing that looks wrong in a table from `locate.locate`, with examples."""
    notes = table.notes
    if others := notes.get("tables_not_read"):
        yield f"reads {', '.join(notes['tables'])}; there too, but not read: {', '.join(others)}"
    if count := notes["contradicting"]:
        yield f"WARNING: {count:,} rows contradict another row of their image; see dropped.csv"
    missing = notes["without_file"]["count"]
    if missing > SHARE * notes["rows"]:
        yield (
            f"WARNING: {missing:,} of {notes['rows']:,} rows have no file"
            f"{_examples(notes['without_file'])}"
        )
        if archives := notes["archives"]["examples"]:
            yield f"the folder has {packed(archives, notes['archives']['count'])}"
    extra = notes["without_row"]["count"]
    if extra > SHARE * notes["files"]:
        yield (
            f"WARNING: {extra:,} of {notes['files']:,} files have no row"
            f"{_examples(notes['without_row'])}"
        )
    if count := notes["in_another_case"]["count"]:
        yield (
            f"WARNING: {count:,} rows differ from a file only in upper and lower case"
            f"{_examples(notes['in_another_case'])}; rename the files or mend the table"
        )
    if count := notes["not_files"]["count"]:
        yield (
            f"WARNING: {count:,} FIFOs, sockets, devices or links to nothing are left out"
            f"{_examples(notes['not_files'])}"
        )
    if count := notes["alike_patients"]["count"]:
        yield (
            f"WARNING: {count:,} patients have ids that are written differently and may be one "
            f"person{_examples(notes['alike_patients'])}; write each in one way"
        )


def _examples(counted: Mapping) -> str:
    return f" (such as {', '.join(counted['examples'])})"
