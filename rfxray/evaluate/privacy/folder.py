"""The folder of an evaluation of privacy: page, results, rows, pictures, card."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rfxray.evaluate import report, results, strata
from rfxray.evaluate.extractors.extractor import Preprocessing
from rfxray.evaluate.figure import Figure
from rfxray.evaluate.folder import REJECTED, rejected, save
from rfxray.evaluate.intervals import proportion
from rfxray.evaluate.pictures import Pictures
from rfxray.evaluate.privacy import card
from rfxray.evaluate.privacy.near import Found
from rfxray.outputs import contact_sheet, page, spreadsheet

SAMPLES, COPIES, CARD = "samples.csv", "copies.png", "model_card.md"
FILES = (report.NAME, results.NAME, SAMPLES, COPIES, CARD, REJECTED)
KIND = "rfxray.evaluate.privacy"
_SHOWN, _LEAST, _PARTS = 24, 3, 8
_SIDE = 128  # pixels of a shown image
_COLUMNS = ("sample", "training image", "difference")


def write(
    out: Path,
    found: Mapping[str, Any],
    near: Found,
    sets: Mapping[str, Pictures],
    show_training: bool,
) -> Path:
    """Writes all files, or none of them; `results.json` comes last.

    Args:
      out: Folder, which exists.
      found: Results, with `figures` and `gate`.
      near: Near-copies.
      sets: `synthetic`, `train` and `heldout`.
      show_training: Whether training images and their keys are on the page and in the table.

    Returns:
      Path of the page.
    """
    shown = _nearest(near)
    train = sets["train"]
    phantoms = strata.sources(train.attributes) == {"phantom"}
    hidden = not (phantoms or show_training)
    triples = [_triple(sets, near, number) for number in shown]
    texts = [_text(sets, near, number, show_training) for number in shown]
    pairs = []
    if not hidden:
        pairs = [
            {"image": page.data_uri(np.concatenate(list(triple), 1)), "text": text}
            for triple, text in zip(triples, texts, strict=True)
        ]
    found = {
        **found,
        "parts": [
            {"part": name, **dataclasses.asdict(row)}
            for name, row in parts(sets["synthetic"], near)
        ],
    }
    html = page.render(
        Path(report.__file__).with_name("privacy.html"),
        title=f"Privacy of {sets['synthetic'].name}",
        found=found,
        pairs=pairs,
        hidden=hidden,
        value=report.value,
        interval=report.interval,
    )
    others = {
        SAMPLES: _samples(sets, near, show_training),
        REJECTED: rejected(sets),
        COPIES: _png(contact_sheet.table(np.stack(triples), texts, _COLUMNS)),
        CARD: card.markdown(found),
    }
    return save(out, found, html, others)


def parts(synthetic: Pictures, near: Found) -> list[tuple[str, Figure]]:
    """Share of near-copies of the parts where it is largest, by what was requested."""
    if synthetic.attributes is None:
        return []
    found = []
    for name, mask in strata.of(synthetic.attributes).items():
        if mask.sum() >= strata.LEAST:
            rows = near.listed[mask]
            found.append((name, proportion(name, rows, np.arange(len(rows)), 0, len(rows))))
    return sorted(found, key=lambda pair: -(pair[1].value or 0))[:_PARTS]


def _nearest(near: Found) -> list[int]:
    """The samples on the page: listed ones first, the surest first, one for each training image."""
    sure = np.min(np.stack(list(near.p.values())), 0)
    ratio = np.min(np.stack(list(near.synthetic.ratios.values())), 0)
    order = np.lexsort((ratio, sure, ~near.listed))
    first = np.sort(np.unique(near.nearest[order], return_index=True)[1])
    listed = int(near.listed[order[first]].sum())
    return order[first[: max(_LEAST, min(_SHOWN, listed))]].tolist()


def _triple(sets: Mapping[str, Pictures], near: Found, number: int) -> np.ndarray:
    """A sample, the training image, and their difference around grey: [3, side, side] uint8."""
    view = Preprocessing(_SIDE, "pad", "area", False, 1, (0.0,), (1.0,))
    images = [
        view.prepare(sets["synthetic"].read(number))[..., 0],
        view.prepare(sets["train"].read(int(near.nearest[number])))[..., 0],
    ]
    images.append(np.clip(0.5 + (images[0] - images[1]) / 2, 0, 1))
    return np.rint(np.stack(images) * 255).astype(np.uint8)


def _text(sets: Mapping[str, Pictures], near: Found, number: int, keys: bool) -> str:
    by = str(near.by[number])
    ratio = near.synthetic.ratios[by][number]
    text = f"not listed, {by} {ratio:.2f}"
    if near.listed[number]:
        same = int((near.nearest[near.listed] == near.nearest[number]).sum())
        text = f"listed, {by} {ratio:.2f}" + f", with {same - 1:,} more" * (same > 1)
    if keys:
        text += f", {sets['train'].keys[int(near.nearest[number])]}"
    return text


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _samples(sets: Mapping[str, Pictures], near: Found, keys: bool) -> str:
    """A row for each sample: whether it is listed, by what, and how near it is."""
    names = list(near.p)
    head = ["key", "listed", "by", "correlation"]
    head += [f"{name} {what}" for name in names for what in ("ratio", "p")]
    rows: list[Sequence[object]] = [head + ["training image"] * keys]
    synthetic = sets["synthetic"]
    of_patients = synthetic.records and not synthetic.synthetic
    for number, key in enumerate(synthetic.keys):
        name = number if of_patients and not keys else key
        row: list[object] = [name, int(near.listed[number]), near.by[number]]
        row.append(f"{near.synthetic.correlation[number]:.4f}")
        for name in names:
            row.append(f"{near.synthetic.ratios[name][number]:.4f}")
            row.append(f"{near.p[name][number]:.2g}")
        if keys:
            row.append(sets["train"].keys[int(near.nearest[number])])
        rows.append(row)
    return spreadsheet.text(rows)
