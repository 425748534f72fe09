"""What `rfxray sample --complete` drew of a data set of samples (`--format array_record`).

Files of samples are listed with it (`pictures.py`). A data set of samples has the same list beside
its manifest, by the keys of its records.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np

from rfxray.attributes.vocabulary import NAMES
from rfxray.errors import DataError, first_line
from rfxray.evaluate import image_files
from rfxray.evaluate.pictures import Pictures


def noted(given: str, pictures: Pictures) -> Pictures:
    """The set with what was drawn, if it is a data set of samples; otherwise as it is.

    Args:
      given: Path of the set, or `DATA:SPLIT`.
      pictures: The set, opened.

    Raises:
      DataError: If the list is damaged, or lacks a record.
    """
    if not pictures.records:
        return pictures
    path = Path(given).expanduser()
    path = path if path.is_dir() else Path(given.rpartition(":")[0]).expanduser()
    index = path / image_files.SAMPLES
    if not index.is_file():
        return pictures
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))["pictures"]
        said = {
            str(each["key"]): dict(each.get("row", {})).get("drawn", "").split(",")
            for each in entries
        }
        drawn = np.array([[name in said[key] for name in NAMES] for key in pictures.keys], bool)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{index} does not list the samples beside it ({type(error).__name__} "
            f"{first_line(error)}); draw them again, or remove it to have the data set read as one "
            "of anybody"
        ) from error
    return dataclasses.replace(pictures, drawn=drawn) if drawn.any() else pictures
