"""The folder of a comparison: its page, its results, and tables of pictures by their keys."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rfxray.evaluate import report, results, strata
from rfxray.evaluate.fidelity import Judged, Row
from rfxray.evaluate.gathering import Gathered, Sets
from rfxray.evaluate.pictures import Pictures
from rfxray.outputs import files, page, spreadsheet

IMAGES, REJECTED = "images.csv", "rejected.csv"
FILES = (IMAGES, REJECTED, report.NAME, results.NAME)
HARDEST = 12  # pictures shown of a set
THUMBNAIL = 224  # pixels


def announce(label: str, pictures: Pictures, say: Callable[[str], None]) -> None:
    """Says what a set is, before anything is read from it."""
    say(f"{label}: {len(pictures):,} images of {pictures.name}")
    for note in pictures.notes:
        say(f"{label}: {note}")
    if pictures.rejected:
        say(f"{label}: {len(pictures.rejected):,} files rejected; see {REJECTED}")


def write(
    out: Path,
    sets: Sets,
    gathered: Sequence[Gathered],
    judged: Sequence[Judged],
    head: Mapping[str, Any],
    published: Sequence[Gathered] = (),
    published_rows: Sequence[Row] = (),
    show_files: bool = False,
) -> Path:
    """Writes all files, or none of them; `results.json` comes last.

    Args:
      out: Folder, which exists.
      sets: Sets that were compared.
      gathered: Features of each extractor.
      judged: What each extractor says, in the same order.
      head: Entries of the results before the others.
      published: Features by the path of a published benchmark.
      published_rows: Figures of it.
      show_files: Whether images of folders of files, which may be of patients, are on the page.

    Returns:
      Path of the page.
    """
    found = {
        **head,
        "sets": {
            label: results.described(sets, label, gathered[0].features) for label in sets.named()
        },
        "extractors": {
            of.extractor.name: results.extractor(of, said)
            for of, said in zip(gathered, judged, strict=True)
        },
        "published": {of.extractor.name: str(of.extractor.preprocessing) for of in published},
        "figures": [
            results.flat(row)
            for rows in (*(said.rows for said in judged), published_rows)
            for row in rows
        ],
    }
    names = [of.extractor.name for of in gathered]
    hidden = {label: why for label in sets.synthetic if (why := _hidden(sets, label, show_files))}
    hardest = {
        f"{name} {label}": _hardest(sets, label, said)
        for name, said in zip(names, judged, strict=True)
        for label in sets.synthetic
        if label not in hidden
    }
    others = {IMAGES: _images(sets, names, judged), REJECTED: rejected(sets.named())}
    return save(out, found, report.html(found, hardest, hidden), others)


def save(out: Path, found: Mapping[str, Any], html: str, others: Mapping[str, str | bytes]) -> Path:
    """Writes all files of an evaluation, or none of them; `results.json` comes last.

    Args:
      out: Folder, which exists.
      found: Results; numbers are finite.
      html: Page of the results.
      others: Text or bytes of the other files, by name.

    Returns:
      Path of the page.
    """
    numbers = json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    with files.saving(out):
        files.write_together(out, {**others, report.NAME: html, results.NAME: numbers})
    return out / report.NAME


def _hidden(sets: Sets, label: str, show_files: bool) -> str:
    """Why no picture of a set may be on a page that is made to be shared; empty if they may."""
    pictures = sets.synthetic[label]
    if pictures.synthetic or strata.sources(pictures.attributes) == {"phantom"}:
        return ""
    if pictures.records:
        return "it is a data set of patients"
    if show_files:
        return ""
    return "nothing says that its files are not of patients (--show-files says so)"


def _hardest(sets: Sets, label: str, said: Judged) -> list[dict[str, str]]:
    """The pictures of a set that are farthest from every real one."""
    pictures, seen = sets.synthetic[label], said.images[label]
    shown = []
    for number in np.argsort(-seen.nearest, kind="stable")[:HARDEST]:
        image = np.rint(pictures.read(int(number)) * 255).astype(np.uint8)
        text = f"distance {seen.nearest[number]:.3g}"
        if seen.inside is not None and not seen.inside[number]:
            text += ", outside of the reals"
        shown.append({"image": page.data_uri(image, THUMBNAIL), "text": text})
    return shown


def _images(sets: Sets, names: Sequence[str], judged: Sequence[Judged]) -> str:
    """A row for each synthetic picture: what each extractor sees of it."""
    rows = []
    for label, pictures in sets.synthetic.items():
        columns: dict[str, Sequence[object]] = {
            "set": [label] * len(pictures),
            "key": pictures.keys,
        }
        for name, said in zip(names, judged, strict=True):
            seen = said.images[label]
            columns[f"{name} nearest"] = [f"{value:.6g}" for value in seen.nearest]
            masks = {"inside": seen.inside, "copy": seen.copy, "authentic": seen.authentic}
            for what, mask in masks.items():
                cells = [""] * len(pictures) if mask is None else mask.astype(int).tolist()
                columns[f"{name} {what}"] = cells
        if not rows:
            rows.append(list(columns))
        rows += zip(*columns.values(), strict=True)
    return spreadsheet.text(rows)


def rejected(sets: Mapping[str, Pictures]) -> str:
    """A row for each file that was left out, and why, as CSV."""
    rows: list[Sequence[object]] = [("set", "file", "reason")]
    for label, pictures in sets.items():
        rows += [(label, name, why) for name, why in pictures.rejected.items()]
    return spreadsheet.text(rows)
