"""Which rows of the harmonised tables become records, and in which split."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data_prep.images import duplicates, quality, survey
from data_prep.tables.splits import HELD_OUT_FIRST, hashed_split, leaks
from data_prep.tables.table import Row, Table, dropped
from rfxray.attributes.states import State
from rfxray.attributes.vocabulary import ATTRIBUTES, INDEX
from rfxray.data.plan import Dropped


def assign_splits(tables: Mapping[str, Table], validation: float, test: float) -> dict[str, str]:
    """The split of every row, by key.

    As the set's own split says; else by a hash of the patient. A set that is `carved` (NIH's
    `train_val`, VinDr) gives a share of its train patients to validation.
    """
    splits = {}
    for table in tables.values():
        for row in table.rows:
            split = row.split
            if not split:
                split = hashed_split(row.patient, validation, test)
            elif table.carved and split == "train":
                split = hashed_split(row.patient, validation, 0.0)
            splits[row.key] = split
    return splits


# ---------------------------------------------------------------------------------------------
# Decisions: pure functions of the tables and the survey


def decide(
    rows: Sequence[Row], splits: Mapping[str, str], seen: Sequence[Path]
) -> tuple[dict[str, Dropped], dict]:
    """Which rows become no record, by key; and what was found on the way, for the notes."""
    fates = _unfit(rows, seen)
    alive = [i for i, row in enumerate(rows) if row.key not in fates]
    # The copy that is kept is the first in the split that is held out most
    alive.sort(key=lambda i: HELD_OUT_FIRST.index(splits[rows[i].key]))
    measured = survey.columns(seen, ("pixels", "hash"))
    pixels, hashes = measured["pixels"].to_pylist(), measured["hash"].to_pylist()
    exact = duplicates.exact_pairs([pixels[i] for i in alive])
    copies = {pair.second for pair in exact}
    near, tried = _near_pairs(rows, alive, hashes, copies, seen)
    for pair in (*exact, *near):
        kept, copy = rows[alive[pair.first]], rows[alive[pair.second]]
        kind = "the same pixels as" if pair.correlation == 1 else "nearly the same picture as"
        why = f"a duplicate: {kind} {kept.key}"
        fates.setdefault(copy.key, dropped(copy, "duplicate", why))
    both = [(rows[alive[p.first]].patient, rows[alive[p.second]].patient) for p in (*exact, *near)]
    tied = tie_patients(both) if both else []
    left = [row for row in rows if row.key not in fates]
    why_leaked = leaks(left, splits, tied)
    leaked = {r.key: dropped(r, "split", why_leaked[r.key]) for r in left if r.key in why_leaked}
    found = {
        "exact_duplicates": len(exact),
        "near_candidates_between_patients": tried,
        "near_duplicates": len(near),
        "patients_tied": sum(len(group) for group in tied),
        "most_tied_together": max(map(len, tied), default=0),
        "dropped_for_a_held_out_patient": len(leaked),
        "pairs": [
            [rows[alive[p.first]].key, rows[alive[p.second]].key, round(p.correlation, 3)]
            for p in (*exact, *near)[:1000]
        ],
    }
    return fates | leaked, found


def _unfit(rows: Sequence[Row], seen: Sequence[Path]) -> dict[str, Dropped]:
    """What was refused when it was decoded, and what fails the quality filters."""
    judged = survey.columns(seen, ("reason", "scores")).to_pydict()
    fates = {}
    for row, reason, scores in zip(rows, judged["reason"], judged["scores"], strict=True):
        stage = "decode"
        if not reason:
            stage = "quality"
            reason = quality.verdict(quality.Scores(*scores), view_of(row) in quality.FRONTAL)
        if reason:
            fates[row.key] = dropped(row, stage, reason)
    return fates


def flags(rows: Sequence[Row], scores: Sequence[Sequence[float] | None]) -> list[tuple[str, ...]]:
    """What is odd about the picture of each row, dropped or not; empty if it was not decoded."""
    return [
        quality.flags(quality.Scores(*judged), view_of(row)) if judged else ()
        for row, judged in zip(rows, scores, strict=True)
    ]


def view_of(row: Row) -> str:
    """The view that the table of a row states; empty if it states none."""
    view = INDEX["view"]
    number, state = (
        np.frombuffer(row.attributes, np.float32)[view],
        np.frombuffer(row.states, np.int8)[view],
    )
    return ATTRIBUTES[view].values[int(number)] if state == State.STATED else ""


def _near_pairs(rows, alive, hashes, copies, seen) -> tuple[list[duplicates.Pair], int]:
    """The confirmed near-duplicates between patients, and how many candidates the hash gave."""
    whole = [i for i in range(len(alive)) if i not in copies]
    packed = np.frombuffer(b"".join(hashes[alive[i]] for i in whole), np.uint8).reshape(-1, 32)
    pairs = [
        (whole[one], whole[other])
        for one, other in duplicates.candidates(packed).tolist()
        if rows[alive[whole[one]]].patient != rows[alive[whole[other]]].patient
    ]
    if not pairs:
        return [], 0
    wanted = sorted({alive[i] for pair in pairs for i in pair})
    slot = {row: i for i, row in enumerate(wanted)}
    thumbnails = survey.thumbnails(seen, wanted)
    confirmed = []
    for one, other in pairs:
        correlation = duplicates.registered_correlation(
            thumbnails[slot[alive[one]]], thumbnails[slot[alive[other]]]
        )
        if correlation >= duplicates.CORRELATION:
            confirmed.append(duplicates.Pair(one, other, min(correlation, 0.999)))
    return confirmed, len(pairs)


def tie_patients(pairs: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Patients who share an image, directly or through others, are taken for one person.

    Args:
      pairs: Patients of the two images of each duplicate; they may be the same.

    Returns:
      Groups of two or more, each sorted, in the order of their first names.
    """
    names, ends = np.unique(np.array(pairs, str).reshape(-1, 2), return_inverse=True)
    first, second = ends.reshape(-1, 2).T
    edges = coo_array((np.ones(len(first)), (first, second)), (len(names), len(names)))
    tied: dict[int, list[str]] = {}
    for name, group in zip(names.tolist(), connected_components(edges)[1].tolist(), strict=True):
        tied.setdefault(group, []).append(name)
    return [group for group in tied.values() if len(group) > 1]
