"""The page of one reader: one HTML file with its images, without a network and without truth."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rfxray.outputs import page
from rfxray.readers.answers import COLUMNS

_FOLDER = Path(__file__).parent

# Every text of the page. A translation replaces values and keeps names (--strings FILE).
STRINGS = {
    "welcome": "Reading of chest radiographs",
    "task": "Some images were made by a computer. Judge each image; there is no time limit.",
    "keys": "Keys: 1 to 5 answer, Enter confirms; for pairs the left and right arrows pick a "
    "side first. Drag changes window and level; with Shift or Pan it moves; wheel, + and - "
    "zoom; arrows up and down, [ and ] change level and window; i inverts, r resets, p pauses.",
    "patches": "Four grey patches, each with a slightly different square in its middle",
    "screen": "Dim the room. Do you see a square in each of the four patches?",
    "yes": "yes",
    "no": "no",
    "experience": "Years of experience in reading radiographs",
    "begin": "Begin",
    "load": "or load saved progress",
    "progress": "Progress",
    "pause": "Pause",
    "tools": "Display",
    "zoom_in": "Zoom in",
    "zoom_out": "Zoom out",
    "pan": "Pan",
    "invert": "Invert",
    "reset": "Reset",
    "answer": "Answer",
    "resume": "Continue",
    "save": "Save progress",
    "export": "Download answers",
    "image": "Radiograph",
    "left": "Left is synthetic",
    "right": "Right is synthetic",
    "next": "Confirm",
    "training": "Training",
    "paused": "Paused. Answers are kept in this browser; save them to go on elsewhere.",
    "finished": "Finished. Download the answers and send the file to the study.",
    "score_1": "surely real",
    "score_2": "rather real",
    "score_3": "undecided",
    "score_4": "rather synthetic",
    "score_5": "surely synthetic",
    "sure_1": "guess",
    "sure_2": "unsure",
    "sure_3": "fairly sure",
    "sure_4": "sure",
    "sure_5": "certain",
    "feedback_real": "This image is real.",
    "feedback_synthetic": "This image is synthetic.",
    "feedback_left": "The left image is synthetic.",
    "feedback_right": "The right image is synthetic.",
    "go_on": "Confirm to go on.",
    "incomplete": "Answer both questions first.",
    "not_stored": "This browser cannot store answers: save progress before you close this page.",
    "elsewhere": "This study is open in another window, which has other answers. Close one of them "
    "and load this page again; download the answers of this window first if you need them.",
    "broken": "An image cannot be shown. Stop here and send this file back.",
    "other_file": "That file is not progress of this reader in this study.",
    "older_file": "That file has fewer answers than this browser; it was not loaded.",
}


def render(
    *,
    study: str,
    reader: str,
    modality: str,
    key_sha256: str,
    items: Sequence[Mapping[str, Any]],
    images: Mapping[str, str],
    strings: Mapping[str, str],
) -> str:
    """Renders the page.

    Args:
      study: Name of the study.
      reader: Name of the reader.
      modality: `single` or `pairs`.
      key_sha256: SHA-256 of the sealed key, hex.
      items: Items in the order of this reader: item, case, images, repeat, phase; training items
        also have `feedback`, the name of a string.
      images: Data URI of each image by name.
      strings: Texts, as `STRINGS`.
    """
    shown = {
        "study": study,
        "reader": reader,
        "modality": modality,
        "key_sha256": key_sha256,
        "columns": COLUMNS,
        "items": list(items),
        "images": dict(images),
    }
    return page.render(
        _FOLDER / "reader_page.html",
        title=f"{study}, {reader}",
        script=(_FOLDER / "reader_page.js").read_text(encoding="utf-8"),
        study=json.dumps(shown),
        strings=json.dumps(dict(strings)),
        text=strings,
    )
