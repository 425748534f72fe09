"""Edited radiographs as files: the images, what changed, and how they were made."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rfxray.data import pixels
from rfxray.data.pixels import to_uint16
from rfxray.outputs import contact_sheet, dicom, files

SAYS = {"Software": "rfxray", "Description": dicom.EDITED}


@dataclasses.dataclass(frozen=True)
class Edit:
    """An edited radiograph.

    Attributes:
      original: Image before, [height, width] float32 in [−1, 1].
      edited: Image after, likewise.
      variants: Edits of other guidance or strength, by their label.
    """

    original: np.ndarray
    edited: np.ndarray
    variants: Mapping[str, np.ndarray]

    @property
    def mean_absolute_change(self) -> float:
        """Mean absolute difference of the pixels, in levels of 8 bits."""
        return round(float(np.abs(self.edited - self.original).mean() * 127.5), 3)


def difference(edited: np.ndarray, original: np.ndarray) -> np.ndarray:
    """What an edit changed, as colour on white: [height, width, 3] uint8.

    Red if it became brighter, blue if darker, full at a quarter of the range.
    """
    amount = np.clip((edited - original) / 0.5, -1, 1)
    fade = 255 * (1 - np.abs(amount))
    red, blue = (np.where(side, 255, fade) for side in (amount >= 0, amount <= 0))
    return np.round(np.stack([red, fade, blue], axis=-1)).astype(np.uint8)


def strip(original: np.ndarray, edits: Mapping[str, np.ndarray]) -> np.ndarray:
    """The original and edits in a row, below each what changed (grey: nothing): uint8."""
    images = [original, *edits.values()]
    rows = [images, [0.5 * (image - original) for image in images]]
    return contact_sheet.table(
        pixels.to_uint8(np.array(rows)), ["image", "change"], ["original", *edits]
    )


def save_edit(edit: Edit, entry: Mapping[str, object], out: Path, as_dicom: bool = False) -> None:
    """Writes `original.png`, `edited.png`, `difference.png`, `strip.png` and `edit.json`.

    Args:
      edit: Images to write.
      entry: JSON values that reproduce the edit, with `edit_of`, the name of the radiograph's file.
      out: Directory, made if absent.
      as_dicom: Whether to write `edited.dcm` too.
    """
    out.mkdir(parents=True, exist_ok=True)
    edited = to_uint16(edit.edited)
    files.save_png(out / "original.png", to_uint16(edit.original), {"Software": "rfxray"})
    files.save_png(out / "edited.png", edited, {**SAYS, "rfxray": dict(entry)})
    files.save_png(out / "difference.png", difference(edit.edited, edit.original), SAYS)
    files.save_png(out / "strip.png", strip(edit.original, edit.variants), SAYS)
    if as_dicom:
        dicom.save(out / "edited.dcm", edited, entry, f"edited from {entry['edit_of']}")
    files.write_whole(out / "edit.json", json.dumps(entry, indent=1) + "\n")
