"""The audit page: the numbers and pictures of a data set as one HTML file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.audit.gather import Audit
from data_prep.audit.looks import Looks, Sheet
from data_prep.sources.sets import raw_set
from rfxray.attributes.vocabulary import ATTRIBUTES, FINDING_NAMES, INDEX
from rfxray.outputs import page

THUMBNAIL = 112  # pixels: ten to a row of a window that is 1280 wide
PAIRS = 20  # duplicates that are listed

# State → colour: warm for positive, cool for negative, darker if it follows from a closed
# vocabulary, paler if it follows from No Finding.
_STATES = {
    "positive": "#e4604c",
    "positive_closed_vocabulary": "#8f4a43",
    "uncertain": "#e0a63c",
    "negative": "#4a93c8",
    "negative_no_finding": "#9cc4e0",
    "negative_closed_vocabulary": "#2f5674",
    "unlabelled": "#3a3f48",
}


def render(manifest: Mapping[str, Any], audit: Audit, looks: Looks | None) -> str:
    """The page, from the manifest of a data set, what `gather` found in it, and what its survey saw
    (None if that was deleted).
    """
    notes = manifest["notes"]
    return page.render(
        Path(__file__).with_suffix(".html"),
        title=f"Audit of {manifest['name']}",
        manifest=manifest,
        audit=audit,
        labels={name: ATTRIBUTES[INDEX[name]].label for name in FINDING_NAMES},
        states=_STATES,
        thumbnail=THUMBNAIL,
        sets=_sets(notes["sets"], audit),
        categories={name: _categories(name, by_set) for name, by_set in audit.categories.items()},
        duplicates=_duplicates(notes["duplicates"]),
        pairs=[(*pair, f"{value:.3f}") for *pair, value in notes["duplicates"]["pairs"][:PAIRS]],
        dropped=[
            (name, reason, f"{count:,}")
            for name, counts in notes["sets"].items()
            for reason, count in counts["dropped"].items()
        ],
        looks=looks,
        dropped_sheets=_sheets(looks.dropped) if looks else {},
        flagged_sheets=_sheets(looks.flagged) if looks else {},
        notes=[(*which, f"{count:,}") for which, count in looks.notes.items()] if looks else [],
        upright={name: _points(shares) for name, shares in looks.upright.items()} if looks else {},
        intensities={name: _points(shares) for name, shares in audit.histograms.items()},
        sheets={
            kind: {
                title: [page.data_uri(image.astype("uint8"), THUMBNAIL) for image in images]
                for title, images in by_title.items()
            }
            for kind, by_title in audit.sheets.items()
        },
        terms=[
            (s.title, s.terms, s.redistribute, s.train, s.publish_weights)
            for s in map(raw_set, audit.kept)
        ],
    )


def _sets(notes: Mapping[str, Mapping], audit: Audit) -> list[dict]:
    """The row of each set."""
    return [
        {
            "title": raw_set(name).title,
            "rows": counts["rows"],
            "matched": counts["matched"],
            "kept": audit.kept.get(name, 0),
            "published": counts["published"],
            "splits": [
                audit.splits.get(name, {}).get(split, 0)
                for split in ("train", "validation", "test")
            ],
        }
        for name, counts in notes.items()
    ]


def _categories(name: str, by_set: Mapping[str, Mapping[str, int]]) -> dict[str, Sequence]:
    """The table of a categorical attribute: rows of each value by set, and of all sets."""
    values = [*ATTRIBUTES[INDEX[name]].values, "unknown"]
    rows = [
        {"title": source, "counts": [counts.get(value, 0) for value in values]}
        for source, counts in by_set.items()
    ]
    total = [sum(column) for column in zip(*(row["counts"] for row in rows), strict=True)]
    return {"columns": values, "rows": [*rows, {"title": "all", "counts": total}]}


def _duplicates(notes: Mapping[str, Any]) -> dict[str, int]:
    """What is counted → pictures."""
    return {
        "equal pixels": notes["exact_duplicates"],
        "similar hashes, of different patients": notes["near_candidates_between_patients"],
        "of these confirmed by registered correlation": notes["near_duplicates"],
        "patients linked by a picture": notes["patients_tied"],
        "of these linked into one person at most": notes["most_tied_together"],
        "dropped, because their patient is held out": notes["dropped_for_a_held_out_patient"],
    }


def _sheets(sheets: Mapping[str, Sheet]) -> dict[str, list[str]]:
    """Title with its count → pictures; what has no picture is only in the table of reasons."""
    return {
        f"{title} ({sheet.count:,})": [page.data_uri(image, THUMBNAIL) for image in sheet.pictures]
        for title, sheet in sheets.items()
        if sheet.pictures
    }


def _points(shares: Sequence[float]) -> str:
    """The line of a histogram in an SVG of 232 × 80."""
    highest, step = max(*shares, 1e-9), 220.5 / (len(shares) - 1)
    return " ".join(
        f"{4 + i * step:.1f},{74 - 66 * share / highest:.1f}" for i, share in enumerate(shares)
    )
