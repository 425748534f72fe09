"""Lines about cells that were not understood, with the flags that would read them."""

import shlex
from collections.abc import Iterator, Mapping

from data_prep.sources.findings import OTHER, likely_finding
from data_prep.tables.columns import FINDINGS, likely
from rfxray.attributes.vocabulary import ATTRIBUTES, FINDING_NAMES, INDEX

SHOWN_CELLS = 5
LONGEST_CELL = 60  # characters; a longer one is a text, which no --map could read


def not_understood(counted: Mapping[str, Mapping[str, int]], own: bool) -> Iterator[str]:
    """A line per column with such cells.

    Args:
      counted: How often each cell was not understood, by our name of its column.
      own: Whether flags describe the table, so that `--map` reads its cells.
    """
    for name, cells in counted.items():
        listed = list(cells.items())[:SHOWN_CELLS]
        shown = ", ".join(f"{_short(cell)!r} × {count:,}" for cell, count in listed)
        more = f" and {len(cells) - SHOWN_CELLS:,} more" if len(cells) > SHOWN_CELLS else ""
        line = f"{name}: {shown}{more} not understood, taken as unknown"
        flags = [
            shlex.quote(f"{name}:{cell}={_likely(name, cell) or 'VALUE'}")
            for cell, _ in listed
            if own and len(cell) <= LONGEST_CELL
        ]
        if flags:
            said = " ".join(f"--map {flag}" for flag in flags)
            line += f"; if it fits: {said} (VALUE is {_values(name)})"
        yield line


def _likely(name: str, cell: str) -> str:
    return likely_finding(cell) if name == FINDINGS else likely(name, cell)


def _short(cell: str) -> str:
    return cell if len(cell) <= LONGEST_CELL else f"{cell[: LONGEST_CELL - 1]}…"


def _values(name: str) -> str:
    if name == FINDINGS:
        return f"findings separated by |, '{OTHER}' for one without an attribute, or unknown"
    if name in FINDING_NAMES:
        return "present, absent, uncertain or unknown"
    return f"{', '.join(ATTRIBUTES[INDEX[name]].values) or 'an age in years'} or unknown"
