"""The page of one reader: one HTML file with its images, without a network and without truth.

Images lie in the page, or beside it in the folder `images`, as many as the page then loads one by
one. A page that was opened from a file may not read the bytes of another file, with one exception:
it may load a style sheet and read its values. So a file of the folder is a style sheet that holds a
PNG as text. The page knows the SHA-256 of every PNG and refuses one that was changed; and unlike a
script, a style sheet can do nothing.

Items are dicts, in the order of this reader:

| name | content |
|---|---|
| item | 1, 2, … through all phases |
| case | name of the case in the key; of the image, in the phase of diagnosis |
| images | names of its images, from the left |
| repeat | 0 for the first showing, 1 for the second |
| phase | `diagnosis`, `training` or `reading`, in this order |
| feedback | name of a string, training only |

The welcome and the phase of diagnosis do not say what the study asks; the question comes after it.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rfxray.attributes.vocabulary import lookup
from rfxray.errors import ConfigError
from rfxray.outputs import page
from rfxray.readers.answers import COLUMNS
from rfxray.readers.diagnosis import ABNORMAL, ASKED, PREFIX

_HERE = Path(__file__).parent
# The parts of the script, in the order in which they need each other.
_SCRIPTS = ("reader_record.js", "reader_store.js", "reader_view.js", "reader_page.js")
FOLDER = "images"  # of the files beside the page
# Most characters of all images in one page. Chromium loads a page of 490 MiB in 4 s; V8 has no
# string above 512 MiB, and the page is one.
MOST = 400 << 20
# Characters of one value of a style sheet: Chromium takes at most 2 MiB.
_PART = 1 << 20

# Every text of the page. A translation replaces values and keeps names (--strings FILE).
STRINGS = {
    "language": "en",
    "welcome": "Reading of chest radiographs",
    "about": "You will judge images one after another. There is no time limit, and you can pause "
    "at any time. Your answers stay in this browser until you download them.",
    "experience": "Years of experience in reading radiographs",
    "go_on": "Continue",
    "check": "Check of the screen",
    "room": "Dim the room: no lamp or window should be reflected by the screen.",
    "room_asked": "Is the room dim?",
    "patches": "Four grey patches, each with a slightly different square in its middle",
    "patches_asked": "Do you see a square in each of the four patches?",
    "steps": "A scale of 18 greys from black to white",
    "steps_asked": "Do you see the border between every two greys of the scale?",
    "lines": "Two fields of fine lines, upright and level",
    "lines_asked": "Do you see separate lines in both fields, without patterns or colours?",
    "check_failed": "If an answer is no, set brightness and contrast, choose another screen or set "
    "the zoom of the browser to 100%. Your answers are kept with the study.",
    "screen_size": "Screen, pixels:",
    "yes": "yes",
    "no": "no",
    "diagnosis": "Diagnosis",
    "diagnosis_task": "Say of each image whether it is normal, and which of the findings it has.",
    "training": "Training",
    "training_task": "In this training you learn after each answer what it was; nothing counts.",
    "reading": "Reading",
    "reading_task": "You do not learn whether an answer is right, and an image may come again.",
    "single_task": "Some images were made by a computer. Judge for each whether it is one of them.",
    "pairs_task": "Of each two images one was made by a computer. Say which, and how sure you are.",
    "begin": "Begin",
    "help": "Keys, mouse and touch",
    "help_score": "1 to 5: answer",
    "help_side": "left and right arrow: choose a side",
    "help_finding": "n, a: normal, abnormal; the letter on a button: that finding",
    "help_confirm": "Enter: confirm",
    "help_window": "drag: window (across) and level (up and down)",
    "help_window_keys": "up and down arrow: level; with Shift, or [ and ]: window",
    "help_zoom": "wheel, pinch, + and −: zoom",
    "help_pan": "drag with Shift, two fingers or the right button, or m and the arrows: move",
    "help_others": "i: invert; r: reset; p: pause",
    "load": "or load saved progress",
    "progress": "Progress",
    "of": "of",
    "pause": "Pause",
    "tools": "Display",
    "zoom_in": "Zoom in",
    "zoom_out": "Zoom out",
    "pan": "Move",
    "invert": "Invert",
    "reset": "Reset",
    "window": "Window",
    "level": "Level",
    "answer": "Answer",
    "save": "Save progress",
    "export": "Download answers",
    "image": "Radiograph",
    "left": "Left is synthetic",
    "right": "Right is synthetic",
    "left_image": "Left radiograph",
    "right_image": "Right radiograph",
    "next": "Confirm",
    "normal": "normal",
    "abnormal": "abnormal",
    "paused": "Paused",
    "pause_text": "Answers are kept in this browser, if its window is not a private one. Save them "
    "to go on elsewhere.",
    "finished": "Finished",
    "finished_text": "Thank you. Download the answers and send the file to the study.",
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
    "confirm_to_go_on": "Confirm to go on.",
    "incomplete": "Answer every question first; years are a number from 0 to 80.",
    "not_stored": "This browser cannot store answers: save progress before you close this page.",
    "damaged": "What this browser had stored of this study is damaged; a copy was set aside. Load "
    "saved progress if you have it.",
    "elsewhere": "This study is open in another window, which has other answers. Close one of them "
    "and load this page again; download the answers of this window first if you need them.",
    "broken": "An image cannot be shown. Stop here and tell the study. Missing or unreadable:",
    "changed": "An image differs from the one that this page was made with. Stop here and tell the "
    "study:",
    "other_file": "That file is not progress of this reader in this study.",
    "edited_file": "That file was edited or damaged after it was saved; it was not loaded.",
    "older_file": "That file has fewer answers than this browser; it was not loaded.",
    "differing_file": "That file has other answers than this browser; it was not loaded.",
    **{f"finding_{name}": lookup(name).label for name in ASKED},
}


def sheets(images: Mapping[str, bytes]) -> dict[str, str]:
    """The files of the folder beside the page, by file name: style sheets that hold the images.

    Args:
      images: PNG of each image by name.
    """
    return {f"{name}.css": _sheet(name, png) for name, png in images.items()}


def _sheet(name: str, png: bytes) -> str:
    text = base64.b64encode(png).decode()
    parts = [text[k : k + _PART] for k in range(0, len(text), _PART)]
    return "#study{" + "".join(f'--{name}-{k}:"{part}";' for k, part in enumerate(parts)) + "}\n"


def render(
    *,
    study: str,
    reader: str,
    modality: str,
    key_sha256: str,
    items: Sequence[Mapping[str, Any]],
    images: Mapping[str, bytes],
    folder: bool,
    findings: Sequence[str],
    strings: Mapping[str, str],
) -> str:
    """Renders the page.

    Args:
      study: Name of the study.
      reader: Name of the reader.
      modality: `single` or `pairs`.
      key_sha256: SHA-256 of the sealed key, hex.
      items: Items, see above.
      images: PNG of each image by name.
      folder: Whether images lie beside the page, as `sheets` has them.
      findings: Names of the findings that the phase of diagnosis asks for.
      strings: Texts, as `STRINGS`.

    Raises:
      ConfigError: If the images are too large for a page.
    """
    size = sum(map(len, images.values())) * 4 // 3
    if not folder and size > MOST:
        raise ConfigError(
            f"{len(images)} images are {size >> 20} MiB in a page, of which a browser takes "
            f"{MOST >> 20}; give --images folder, or a smaller --size"
        )
    shown = {
        "study": study,
        "reader": reader,
        "modality": modality,
        "key_sha256": key_sha256,
        "columns": COLUMNS,
        "diagnosis": [PREFIX + name for name in (ABNORMAL, *findings)] if findings else [],
        "items": list(items),
        "images": {} if folder else {n: base64.b64encode(p).decode() for n, p in images.items()},
        "sha256": {n: hashlib.sha256(p).hexdigest() for n, p in images.items()} if folder else {},
    }
    return page.render(
        _HERE / "reader_page.html",
        title=f"{study}, {reader}",
        script="\n".join((_HERE / name).read_text(encoding="utf-8") for name in _SCRIPTS),
        study=json.dumps(shown),
        strings=json.dumps(dict(strings)),
        text=strings,
        folder=folder,
    )
