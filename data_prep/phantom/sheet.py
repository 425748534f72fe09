"""One patient under many attributes, side by side: what each attribute is meant to look like."""

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from data_prep.phantom.causes import draw_attributes
from data_prep.phantom.dataset import SEEDS
from data_prep.phantom.draw import draw_images
from rfxray.attributes.vocabulary import PATHOLOGY_NAMES, encode_value
from rfxray.errors import ConfigError
from rfxray.outputs.files import saving, whole_file

COLUMNS = 7
_CAPTION = 16  # pixels
_GAP = 3
_GREYS = 40  # as many as the film's grain leaves apart; the file is a quarter of one of 256

_HEALTHY = {"view": "PA", "sex": "M", "age": 50} | dict.fromkeys(
    (*PATHOLOGY_NAMES, "support_devices"), "absent"
)
_FINDINGS = (*PATHOLOGY_NAMES, "support_devices")

TILES: tuple[tuple[str, dict], ...] = (
    ("PA, man of 50", {}),
    ("AP", {"view": "AP"}),
    ("lateral", {"view": "lateral"}),
    ("woman", {"sex": "F"}),
    ("woman, lateral", {"sex": "F", "view": "lateral"}),
    ("AP, cardiomegaly", {"view": "AP", "cardiomegaly": "present"}),
    ("AP, support devices", {"view": "AP", "support_devices": "present"}),
    *((f"age {age}", {"age": age}) for age in (5, 20, 50, 80)),
    *((f"age {age}, lateral", {"age": age, "view": "lateral"}) for age in (5, 50, 80)),
    ("no finding", {}),
    *((name.replace("_", " "), {name: "present"}) for name in _FINDINGS),
    ("lateral, no finding", {"view": "lateral"}),
    *((name.replace("_", " "), {name: "present", "view": "lateral"}) for name in _FINDINGS),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Which sheet to draw: the PNG file, the side of a tile in pixels, the patient's seed."""

    file: Path
    size: int
    seed: int


def save(options: Options) -> str:
    """Draws the sheet into its file; returns the closing line.

    Raises:
      ConfigError: If it cannot be drawn, or the folder of the file does not exist.
    """
    file = options.file
    if file.suffix != ".png" or not file.parent.is_dir():
        raise ConfigError(
            f"--contact-sheet must end in .png and lie in a folder that exists (got {file})"
        )
    if not 0 <= options.seed < SEEDS:
        raise ConfigError(f"--seed {options.seed} is not from 0 to {SEEDS - 1}")
    sheet = contact_sheet(options.size, options.seed)
    with saving(file), whole_file(file) as temporary:
        sheet.save(temporary, "PNG", optimize=True)
    return f"{file}: {sheet.width} × {sheet.height}"


def contact_sheet(size: int = 256, seed: int = 0, index: int = 3) -> Image.Image:
    """All of `TILES`, `size` pixels each, drawn with the noise of one patient."""
    rows = -(-len(TILES) // COLUMNS)
    pitch_x, pitch_y = size + _GAP, size + _CAPTION + _GAP
    sheet = Image.new("L", (COLUMNS * pitch_x - _GAP, rows * pitch_y - _GAP), 255)
    for place, (caption, changed) in enumerate(TILES):
        row, column = divmod(place, COLUMNS)
        left, top = column * pitch_x, row * pitch_y
        do = {name: encode_value(name, v)[0] for name, v in (_HEALTHY | changed).items()}
        patient = np.array([index])
        image = draw_images(draw_attributes(seed, patient, do), seed, patient, size)[0]
        label = Image.new("L", (size, _CAPTION), 255)
        ImageDraw.Draw(label).text((3, 2), caption, fill=0)
        sheet.paste(label, (left, top))
        sheet.paste(Image.fromarray((image >> 8).astype(np.uint8)), (left, top + _CAPTION))
    return sheet.quantize(_GREYS, dither=Image.Dither.NONE)
