"""The images that a study may show: a folder and its table, samples, or a data set of ours."""

import csv
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from rfxray.attributes import vocabulary
from rfxray.attributes.spellings import BLANK
from rfxray.attributes.vocabulary import PATHOLOGY_NAMES
from rfxray.command_line import require
from rfxray.errors import ConfigError, DataError
from rfxray.evaluate.pictures import Pictures, open_pictures

BURNED_IN = "burned_in_text"  # stratum that is read from the pixels of an image when it is drawn


@dataclasses.dataclass(frozen=True)
class Candidate:
    """An image that may be chosen.

    Attributes:
      name: Name of the file or key of the record, for messages.
      patient: Name of its patient, "" if unknown.
      facts: Attributes by name, as text, with `age_decade` and `finding`.
      pixels: Function of a side in pixels that gives `[side, side] uint16`.
      key: Key by which the image is known in every set, "" for a file.
    """

    name: str
    patient: str
    facts: Mapping[str, str]
    pixels: Callable[[int], np.ndarray]
    key: str = ""


def find(source: str | Path, table: Path | None, match: Sequence[str]) -> list[Candidate]:
    """Lists the images of a source, without decoding any.

    Args:
      source: Path of a data set (`DATA` or `DATA:SPLIT`), of a folder that `rfxray sample` wrote,
        or of a folder of files.
      table: CSV with a column `image` (file name in the folder) and columns of attributes, and
        optionally `patient`; columns of any other name are strata too.
      match: Names that must be known of an image; others are not candidates.

    Raises:
      DataError: If the source has no images, or the table does not fit it.
    """
    pictures = open_pictures(source, table)
    more = {} if table is None else _columns(table, pictures.keys)
    found = []
    for number, (key, patient) in enumerate(zip(pictures.keys, pictures.patients, strict=True)):
        facts = dict(more.get(key, {}))
        if pictures.attributes is not None:
            known = vocabulary.decode(pictures.attributes.rows(number))
            facts |= {name: str(value) for name, value in known.items()}
        pixels = functools.partial(_square, pictures, number)
        identity = key if pictures.records else ""
        found.append(Candidate(key, patient, _derived(facts), pixels, identity))
    asked = [name for name in match if name != BURNED_IN]
    names = {name for each in found for name in each.facts}
    if unknown := [name for name in asked if name not in names]:
        known = ", ".join([*sorted(names), BURNED_IN])
        raise DataError(
            f"no image of {source} ({len(found)} images) has a known {unknown[0]}; --match takes "
            f"{known}"
        )
    kept = [each for each in found if all(each.facts.get(name) for name in asked)]
    if not kept:
        raise DataError(
            f"no image of {source} ({len(found)} images) has a known {' and '.join(asked)}; choose "
            "another --match"
        )
    return kept


def refuse_overlap(real: Sequence[Candidate], synthetic: Sequence[Candidate]) -> None:
    """Raises a DataError if an image or a patient is in both sets."""
    for what in ("key", "patient"):
        first, second = (
            {getattr(each, what) for each in side} - {""} for side in (real, synthetic)
        )
        if both := sorted(first & second):
            raise DataError(
                f"the sets overlap: {len(both)} {what}s are in both, such as {both[0]}; give sets "
                "that share no image and no patient"
            )


def _columns(table: Path, keys: Sequence[str]) -> dict[str, dict[str, str]]:
    """The columns of a table that are not attributes of ours, by the key of each picture."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = {(row["image"] or "").strip(): row for row in csv.DictReader(file)}
    found = {}
    for key in keys:
        row = next(rows[n] for n in (key, Path(key).name, Path(key).stem) if n in rows)
        texts = {n: v.strip() for n, v in row.items() if n and isinstance(v, str)}
        other = texts.keys() - {"image", "patient", *vocabulary.NAMES}
        found[key] = {name: texts[name] for name in other if texts[name].lower() not in BLANK}
    return found


def _derived(found: dict[str, str]) -> dict[str, str]:
    """The attributes with the decade of an age, and with all findings in one, `edema+fracture`."""
    if "age" in found:
        found["age_decade"] = str(int(float(found["age"])) // 10 * 10)
    findings = {name: found[name] for name in PATHOLOGY_NAMES if name in found}
    present = [name for name, text in findings.items() if text == "present"]
    if findings or "no_finding" in found:
        found.setdefault("finding", "+".join(present) or "none")
    return found


def _square(pictures: Pictures, number: int, side: int) -> np.ndarray:
    require("prep", "cv2", "pydicom")
    from rfxray.data import canonical

    image = pictures.read(number)
    if max(image.shape) < side:
        # Enlarged images are smooth: a set that is enlarged more than the other shows it
        raise ConfigError(
            f"{pictures.name}: {pictures.keys[number]} has {max(image.shape)} pixels on its longer "
            f"side, fewer than --size {side}; images are never enlarged, give --size "
            f"{max(image.shape)} or less"
        )
    return np.rint(canonical.to_square(image, side)[0] * np.float32(65535)).astype(np.uint16)
