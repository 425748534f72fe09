"""Tables as CSV, of which no spreadsheet takes a cell for a formula."""

import csv
import io
from collections.abc import Iterable, Sequence

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")  # what a cell must not begin with


def inert(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: an apostrophe before what looks like one."""
    return "'" + text if text.startswith(_FORMULA) else text


def bare(cell: str) -> str:
    """The text of which `inert` made a cell."""
    return cell[1:] if cell.startswith("'") else cell


def text(rows: Iterable[Sequence[object]], quoted: bool = False) -> str:
    """Rows as CSV with inert cells, all of them in quotes if asked."""
    table = io.StringIO()
    quoting = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    writer = csv.writer(table, quoting=quoting, lineterminator="\n")
    writer.writerows([inert(str(cell)) for cell in row] for row in rows)
    return table.getvalue()
