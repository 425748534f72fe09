"""What the survey saw, beside what was decided: pictures that were dropped or flagged, and why."""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data_prep.audit.gather import spread
from data_prep.images import survey
from data_prep.tables import parquet
from rfxray.data.manifest import read_ledger

SHEET = 12  # pictures per set and reason or flag
BINS = 48  # of a histogram of correlations, from LEAST to 1
LEAST = -0.5


@dataclasses.dataclass(frozen=True)
class Sheet:
    """Pictures with something in common.

    Attributes:
      count: All that have it.
      pictures: Some of them, each [128, 128] uint8, squeezed to a square; none if no file with it
        could be decoded.
    """

    count: int
    pictures: list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Looks:
    """What the survey saw. Titles are those of a set and a reason or flag, "nih: inverted".

    Attributes:
      dropped: Files that became no record, by title.
      flagged: Records that are odd, though kept, by title.
      notes: Files by set and remark about how they were read.
      upright: Share of the pictures of each set in each of 48 classes of likeness to an upright
        frontal chest, from -0.5 to 1.
    """

    dropped: dict[str, Sheet]
    flagged: dict[str, Sheet]
    notes: dict[tuple[str, str], int]
    upright: dict[str, list[float]]


def gather_looks(out: Path) -> Looks | None:
    """What the survey of a harmonised data set saw; None if it was deleted.

    Raises:
      DataError: If a file of the data set is damaged.
    """
    # A survey that was begun with other tables leaves chunks behind: the last word counts
    paths = sorted((out / "survey").glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    if not paths:
        return None
    keys = survey.columns(paths, ("key",))["key"].to_pylist()
    at = {key: number for number, key in enumerate(keys)}
    names = ("key", "fate", "notes", "flags", "score_upright")
    table = parquet.read(out / "table.parquet", names).to_pydict()

    dropped: dict[str, list[str]] = {}
    for drop in read_ledger(out):
        dropped.setdefault(f"{drop.set}: {drop.reason}", []).append(drop.key)
    flagged: dict[str, list[str]] = {}
    notes: Counter = Counter()
    upright: dict[str, list[float]] = {}
    decoded = set()
    for key, fate, remarks, odd, score in zip(*(table[name] for name in names), strict=True):
        name = key.partition("/")[0]
        for note in remarks or ():
            notes[name, note.partition(":")[0]] += 1
        if score is None:
            continue
        decoded.add(key)
        upright.setdefault(name, []).append(score)
        if not fate:
            for flag in odd:
                flagged.setdefault(f"{name}: {flag}", []).append(key)

    shown = {
        (kind, title): spread([at[key] for key in members if key in decoded and key in at], SHEET)
        for kind, titles in (("dropped", dropped), ("flagged", flagged))
        for title, members in titles.items()
    }
    wanted = sorted({number for numbers in shown.values() for number in numbers})
    pictures = dict(zip(wanted, survey.thumbnails(paths, wanted) if wanted else (), strict=True))

    def sheets(kind: str, titles: dict[str, list[str]]) -> dict[str, Sheet]:
        return {
            title: Sheet(len(titles[title]), [pictures[i] for i in shown[kind, title]])
            for title in sorted(titles, key=lambda title: (-len(titles[title]), title))
        }

    return Looks(
        dropped=sheets("dropped", dropped),
        flagged=sheets("flagged", flagged),
        notes=dict(sorted(notes.items(), key=lambda item: (item[0][0], -item[1], item[0][1]))),
        upright={name: _histogram(values) for name, values in sorted(upright.items())},
    )


def _histogram(values: Iterable[float]) -> list[float]:
    counts, _ = np.histogram(list(values), BINS, (LEAST, 1.0))
    return (counts / max(counts.sum(), 1)).tolist()
