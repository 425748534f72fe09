"""Edited radiographs as files: the images, what changed, and how they were made."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rfxray.data import pixels
from rfxray.data.pixels import to_uint16
from rfxray.outputs import contact_sheet, dicom, files

SAYS = {"Software": "rfxray", "Description": dicom.EDITED}

FULL = 0.5  # difference, of a range of 2, that is drawn in full colour: a quarter
LEAST = 256  # pixels, width of a difference that has a legend


@dataclasses.dataclass(frozen=True, eq=False)
class Edit:
    """An edited radiograph.

    Attributes:
      original: Image before, [height, width] float32 in [−1, 1].
      edited: Image after, likewise.
      variants: Edits of other guidance or strength, by their label; empty if none are requested.
      content_box: Top, left, height and width of the radiograph within its padding, pixels.
    """

    original: np.ndarray
    edited: np.ndarray
    variants: Mapping[str, np.ndarray]
    content_box: tuple[int, int, int, int]

    @property
    def mean_absolute_change(self) -> float:
        """Mean absolute difference of the pixels of the radiograph, in levels of 8 bits."""
        top, left, height, width = self.content_box
        change = np.abs(self.edited - self.original)[top : top + height, left : left + width]
        return round(float(change.mean() * 127.5), 3)

    @property
    def changed(self) -> np.ndarray:
        """Where the 16-bit images before and after differ, [height, width] bool."""
        return to_uint16(self.edited) != to_uint16(self.original)


def difference(edited: np.ndarray, original: np.ndarray) -> np.ndarray:
    """What an edit changed, as colour on white: [height, width, 3] uint8.

    Red if it became brighter, blue if darker, full at a quarter of the range.
    """
    amount = np.clip((edited - original) / FULL, -1, 1)
    fade = 255 * (1 - np.abs(amount))
    red, blue = (np.where(side, 255, fade) for side in (amount >= 0, amount <= 0))
    return np.round(np.stack([red, fade, blue], axis=-1)).astype(np.uint8)


def with_legend(picture: np.ndarray) -> np.ndarray:
    """A difference [height, width, 3] uint8, enlarged if small, above a scale in grey levels."""
    factor = max(1, round(LEAST / picture.shape[1]))
    picture = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width, _ = picture.shape
    sheet = Image.new("RGB", (width, height + 44), "white")
    sheet.paste(Image.fromarray(picture), (0, 0))
    scale = difference(np.linspace(-FULL, FULL, width - 16)[None].repeat(12, 0), np.zeros(1))
    sheet.paste(Image.fromarray(scale), (8, height + 6))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    draw.line((0, height, width, height), "grey")
    draw.rectangle((7, height + 5, width - 8, height + 18), outline="grey")
    full = f"{FULL * 127.5:.0f}"
    for text, x, anchor in (
        (f"darker −{full}", 6, "la"),
        ("0", width / 2, "ma"),
        (f"+{full} brighter", width - 6, "ra"),
    ):
        draw.text((x, height + 23), text, "black", font, anchor=anchor)
    return np.asarray(sheet)


def strip(original: np.ndarray, edits: Mapping[str, np.ndarray]) -> np.ndarray:
    """The original and edits in a row, below each what changed (grey: nothing): uint8."""
    images = [original, *edits.values()]
    rows = [images, [0.5 * (image - original) for image in images]]
    return contact_sheet.table(
        pixels.to_uint8(np.array(rows)), ["image", "change"], ["original", *edits]
    )


def save_edit(
    edit: Edit,
    entry: Mapping[str, Any],
    record: Mapping[str, object],
    folder: Path,
    as_dicom: bool = False,
    burned_in: bool = False,
    native: tuple[Any, np.ndarray] | None = None,
) -> None:
    """Writes the images of an edit, and `edit.json` with their digests last.

    Args:
      edit: Images to write.
      entry: JSON values that reproduce the edit, for every file; none is the name of a file.
      record: Further values, for `edit.json` only.
      folder: Existing directory.
      as_dicom: Whether to write `edited.dcm` too.
      burned_in: Whether the radiograph seems to show text.
      native: Stored values of the radiograph's file (`data.stored.Stored`) and these after the
        edit, for `native.png` or `native.dcm` and `native_mask.png`.
    """
    (folder / "edit.json").unlink(missing_ok=True)  # until all files are new
    edited, said = to_uint16(edit.edited), {**SAYS, "rfxray": dict(entry)}
    pictures = {
        "original": (to_uint16(edit.original), {"Software": "rfxray"}),
        "edited": (edited, said),
        "difference": (with_legend(difference(edit.edited, edit.original)), SAYS),
        "mask": (edit.changed.astype(np.uint8) * 255, SAYS),
    }
    if native is not None:
        stored, values = native
        pictures["native_mask"] = ((values != stored.values).astype(np.uint8) * 255, SAYS)
        if stored.dataset is None:
            pictures["native"] = (values, said)
    if edit.variants:
        pictures["strip"] = (strip(edit.original, edit.variants), SAYS)
    names = []
    for name, (image, says) in pictures.items():
        names.append(f"{name}.png")
        files.save_png(folder / names[-1], image, says)
    derived = f"edited from the image of sha256 {entry['image_sha256']}"
    text = burned_in or None  # that none was found does not say that there is none
    if as_dicom:
        names.append("edited.dcm")
        dicom.save(folder / names[-1], edited, entry, derived, text)
    if native is not None and native[0].dataset is not None:
        from rfxray.data.passing_tags import passing  # needs the extra `prep`

        names.append("native.dcm")
        tags = passing(*native, view_is_known="view" in entry["attributes"])
        dicom.save(folder / names[-1], edited, {**entry, "at": "native"}, derived, text, tags)
    digests = {name: files.file_sha256(folder / name) for name in names}
    content = {**entry, **record, "files": digests}
    files.write_whole(folder / "edit.json", json.dumps(content, indent=1) + "\n")
