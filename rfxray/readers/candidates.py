"""The images that a study may show: a folder and its table, samples, or a data set of ours."""

import csv
import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from rfxray.attributes import vocabulary
from rfxray.attributes.spellings import BLANK
from rfxray.attributes.states import known_from_states
from rfxray.attributes.vocabulary import Attributes
from rfxray.command_line import require
from rfxray.data.dataset import Records, open_dataset
from rfxray.data.manifest import NAME
from rfxray.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True)
class Candidate:
    """An image that may be chosen.

    Attributes:
      name: Name of the file or key of the record, for messages.
      patient: Name of its patient, "" if unknown.
      facts: Attributes by name, as text.
      pixels: Function of a side in pixels that gives `[side, side] uint16`.
    """

    name: str
    patient: str
    facts: Mapping[str, str]
    pixels: Callable[[int], np.ndarray]


def find(source: Path, table: Path | None, match: Sequence[str]) -> list[Candidate]:
    """Lists the images of a source, without decoding files.

    Args:
      source: Path of a data set, of a folder that `rfxray sample` wrote, or of a folder of files.
      table: CSV with a column `image` (file name in the folder) and columns of attributes, and
        optionally `patient`.
      match: Names that must be known of an image; others are not candidates.

    Raises:
      DataError: If the source has no images, or the table does not fit it.
    """
    if (source / NAME).is_file():
        if table is not None:
            raise ConfigError(f"{source} is a data set and has attributes; leave its table out")
        found = _of_dataset(source)
    elif table is not None:
        found = _of_table(source, table)
    elif (source / "samples.json").is_file():
        found = _of_samples(source)
    else:
        raise DataError(
            f"{source} is neither a data set nor a folder of samples; give the CSV that describes "
            "its files (--real-csv or --synthetic-csv, with a column image)"
        )
    kept = [each for each in found if all(each.facts.get(name) for name in match)]
    if not kept:
        raise DataError(
            f"no image of {source} ({len(found)} images) has a known {' and '.join(match)}; choose "
            "another --match"
        )
    return kept


def _of_dataset(source: Path) -> list[Candidate]:
    dataset = open_dataset(source)
    found = []
    for split in dataset.shards:
        records = Records(dataset, split)
        for number in range(len(records)):
            record = records[number]
            known = known_from_states(record["states"])
            facts = vocabulary.decode(Attributes(record["attributes"], known))
            pixels = functools.partial(_resized_record, records, number)
            found.append(Candidate(record["key"], record["patient"], _facts(facts), pixels))
    return found


def _of_samples(source: Path) -> list[Candidate]:
    try:
        entries = json.loads((source / "samples.json").read_text(encoding="utf-8"))["pictures"]
        pairs = [(str(each["file"]), dict(each["attributes"])) for each in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{source / 'samples.json'} does not list files of images") from error
    return [_of_file(source, name, "", facts) for name, facts in pairs]


def _of_table(source: Path, table: Path) -> list[Candidate]:
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or "image" not in rows[0]:
        raise DataError(f"{table} must have a header with a column image, and rows")
    return [
        _of_file(source, row.pop("image") or "", row.pop("patient", "") or "", row) for row in rows
    ]


def _of_file(source: Path, name: str, patient: str, facts: Mapping) -> Candidate:
    file = source / name
    if not file.resolve().is_relative_to(source.resolve()) or not file.is_file():
        raise DataError(f"{source} has no file {name!r}, which its table lists")
    patient = "" if patient.strip().lower() in BLANK else patient.strip()
    return Candidate(name, patient, _facts(facts), functools.partial(_decoded, file))


def _facts(values: Mapping) -> dict[str, str]:
    """Attributes as text, with the decade of an age."""
    texts = {str(k): str(v).strip() for k, v in values.items() if k and v is not None}
    found = {k: v for k, v in texts.items() if v.lower() not in BLANK}
    if "age" in found:
        try:
            found["age_decade"] = str(int(float(found["age"])) // 10 * 10)
        except (ValueError, OverflowError) as error:
            raise DataError(f"age must be a number of years (got {found['age']!r})") from error
    return found


def _decoded(file: Path, side: int) -> np.ndarray:
    require("prep", "cv2", "pydicom")
    from rfxray.data import radiograph

    try:
        return radiograph.ingest(file, side)["image"]
    except radiograph.Refused as refusal:
        raise DataError(f"{file}: {refusal}") from None


def _resized_record(records: Records, number: int, side: int) -> np.ndarray:
    require("prep", "cv2", "pydicom")
    from rfxray.data import canonical
    from rfxray.data.decoded import Radiograph, Refused

    try:
        image = records[number]["image"].astype(np.float32)
        return canonical.square(Radiograph(image, 16), side)["image"]
    except Refused as refusal:
        raise DataError(f"record {number}: {refusal}") from None
