"""Any set of radiographs or samples, one picture at a time: what an evaluation reads.

| given | keys | patients, attributes | pixels |
|---|---|---|---|
| data set of ours: `DATA` (every split), `DATA:SPLIT` | of records | known ones | as stored |
| folder that `rfxray sample` wrote | file names | unknown, requested ones | as written |
| folder of PNG, JPEG or DICOM files, at any depth | paths in it | of a table | canonical display |

The canonical display is what `rfxray.data.radiograph` and `canonical.normalise` make of a file.

A table is a CSV with a column `image` (a path below the folder; a name of a file, or that without
its ending, is enough if it is unique), and perhaps `patient` and attributes. It decides which files
are read, and every row must have its file.

A set is never smaller than what was given: what cannot be read is an error, unless `reject` asks
for it to be left out, counted and listed.
"""

import csv
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from rfxray.attributes import vocabulary
from rfxray.attributes.spellings import BLANK
from rfxray.attributes.states import known_from_states
from rfxray.attributes.vocabulary import Attributes
from rfxray.command_line import refuse_address, require
from rfxray.data import manifest
from rfxray.data.dataset import Dataset, Records, open_dataset
from rfxray.errors import ConfigError, DataError, first_line
from rfxray.outputs import dicom, files

# Endings of images; those that the decoder cannot read are refused and not overlooked.
READ = (".png", ".jpg", ".jpeg", ".jpe", ".dcm", ".dicom")
NOT_READ = (".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".npy", ".npz", ".gz")
STORED = "16-bit pixels as they are stored, over 65535"


@dataclasses.dataclass(frozen=True)
class Pictures:
    """A set of pictures that can be read by number.

    Attributes:
      name: Name of the set for people: the last part of its path, with the split.
      keys: Keys of the pictures, unique, [n].
      patients: Patients, "" if unknown, [n].
      attributes: Known or requested attributes, [n, 19]; None if nothing says any.
      boxes: Top, left, height and width in pixels of the radiograph within its padded square,
        [n, 4] int32; None for files.
      fingerprint: SHA-256 by content, of the set in this order and of how it is read, hex.
      reading: How a file becomes pixels in [0, 1].
      records: Whether it is a data set of ours: its keys and patients mean the same in every set.
      synthetic: Whether the files say that a model made them.
      rejected: Reason for each file that `reject` left out, by key.
      notes: Remarks for people about what was found.
    """

    name: str
    keys: tuple[str, ...]
    patients: tuple[str, ...]
    attributes: Attributes | None
    boxes: np.ndarray | None
    fingerprint: str
    reading: str
    records: bool
    synthetic: bool
    rejected: Mapping[str, str]
    notes: tuple[str, ...]
    load: Callable[[int], np.ndarray] = dataclasses.field(repr=False)

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, number: int) -> np.ndarray:
        """A picture: [height, width] float32 in [0, 1].

        Raises:
          DataError: With the file and what to do, if it cannot be read.
        """
        return self.load(number)


def open_pictures(
    given: str | Path, table: Path | None = None, reject: bool = False, display: bool = True
) -> Pictures:
    """Lists a set of pictures.

    Args:
      given: Path of a folder, or `DATA:SPLIT`.
      table: CSV that describes a folder of files.
      reject: Whether files that cannot be read, are in colour or repeat another file are left out
        and listed in `rejected`, instead of refused. Every file is decoded for that.
      display: Whether files of anybody get the canonical display; otherwise a PNG or JPEG is its
        stored values over the largest of its bits, as other programs read it.

    Raises:
      ConfigError: If there is no such split, or the table is not for this set.
      DataError: If the folder is empty, a file is missing, or two files have the same content.
    """
    refuse_address(given)
    path, split = _path_and_split(str(given))
    if not path.is_dir():
        raise DataError(f"no folder {path}; give a data set, or a folder of images")
    if (path / manifest.NAME).is_file():
        if table is not None:
            raise ConfigError(f"{path} is a data set and has attributes; leave its table out")
        return _of_dataset(open_dataset(path), split)
    if split:
        raise ConfigError(f"{path} is not a data set and has no split {split!r}; give its path")
    if (path / "plan.json").is_file() and not (path / "samples.json").is_file():
        raise DataError(f"{path} is not finished; repeat the command that draws its samples first")
    if (path / "samples.json").is_file():
        if table is not None:
            raise ConfigError(f"{path} has samples.json; leave its table out")
        return _of_samples(path)
    return _of_files(path, table, reject, display)


def _path_and_split(text: str) -> tuple[Path, str]:
    """`DATA:SPLIT` in its parts; a folder may have a colon in its name."""
    path = Path(text).expanduser()
    before, colon, split = text.rpartition(":")
    if path.is_dir() or not colon:
        return path, ""
    return Path(before).expanduser(), split


# ------------------------------------------------------------------------------------------------
# Data sets of ours


def _of_dataset(dataset: Dataset, split: str) -> Pictures:
    if split and split not in dataset.shards:
        raise ConfigError(
            f"data set {dataset.path} has no split {split!r}, only {', '.join(dataset.shards)}"
        )
    splits = [split] if split else list(dataset.shards)
    parts = [Records(dataset, each) for each in splits]
    labels = [part.labels(number) for part in parts for number in range(len(part))]
    ends = np.cumsum([len(part) for part in parts])
    states = np.stack([each["states"] for each in labels])
    known = known_from_states(states)
    values = np.where(known, np.stack([each["attributes"] for each in labels]), 0)

    def load(number: int) -> np.ndarray:
        part = int(np.searchsorted(ends, number, side="right"))
        image = parts[part][number - (int(ends[part - 1]) if part else 0)]["image"]
        return image.astype(np.float32) / np.float32(65535)

    about = manifest.read_manifest(dataset.path) or {}
    return Pictures(
        name=f"{_last(dataset.path)}:{'+'.join(splits)}",
        keys=tuple(each["key"] for each in labels),
        patients=tuple(each["patient"] for each in labels),
        attributes=Attributes(values.astype(np.float32), known),
        boxes=np.stack([each["content_box"] for each in labels]).astype(np.int32),
        fingerprint=_sha256([STORED, dataset.fingerprint, *splits]),
        reading=STORED,
        records=True,
        synthetic="synthetic" in about,
        rejected={},
        notes=(),
        load=load,
    )


# ------------------------------------------------------------------------------------------------
# Samples


def _of_samples(path: Path) -> Pictures:
    index = path / "samples.json"
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))["pictures"]
        pairs = [(str(each["file"]), dict(each["attributes"])) for each in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{index} does not list files of samples; draw them again, or remove it to have the "
            "folder read as files of anybody"
        ) from error
    names = [name for name, _ in pairs]
    _refuse_missing(path, names, str(index))
    if not names:
        raise DataError(f"{path} has no samples; draw some with rfxray sample")
    attributes = vocabulary.stack([vocabulary.encode(asked) for _, asked in pairs])
    contents = _contents(path, names)
    _refuse_repeated(path, contents)

    def load(number: int) -> np.ndarray:
        return _written(path / names[number])

    return Pictures(
        name=_last(path),
        keys=tuple(names),
        patients=("",) * len(names),
        attributes=attributes,
        boxes=None,
        fingerprint=_sha256([STORED, *_lines(contents)]),
        reading=STORED,
        records=False,
        synthetic=True,
        rejected={},
        notes=(),
        load=load,
    )


def _written(file: Path) -> np.ndarray:
    """A file of ours: its 16 bits are the pixels, and are not displayed again."""
    try:
        if file.suffix == ".dcm":
            require("prep", "pydicom")
            image = dicom.read(file)
        else:
            image = files.read_png(file)
    except (OSError, ValueError, AttributeError, SyntaxError) as error:
        raise DataError(
            f"{file} cannot be read ({first_line(error)}); repeat the command of its samples.json"
        ) from error
    if image.dtype != np.uint16:
        raise DataError(f"{file} is not of 16 bits, so rfxray sample did not write it")
    return image.astype(np.float32) / np.float32(65535)


# ------------------------------------------------------------------------------------------------
# Files of anybody


def _of_files(path: Path, table: Path | None, reject: bool, display: bool) -> Pictures:
    require("prep", "cv2", "pydicom")
    from rfxray.data import radiograph

    found = sorted(_walk(path))
    notes = []
    if table is None:
        names, patients, attributes = found, [""] * len(found), None
    else:
        names, patients, attributes = _described(path, table, found)
        if unlisted := len(found) - len(names):
            notes.append(f"{unlisted} files are not in {table.name}, so not in the set")
    if not names:
        raise DataError(
            f"{path} has no images; give a folder of {', '.join(READ)} files, or a data set"
        )
    contents = _contents(path, names)
    rejected: dict[str, str] = {}
    if reject:
        rejected = _rejected(path, contents)
        kept = [k for k, name in enumerate(names) if name not in rejected]
        if not kept:
            name, why = next(iter(rejected.items()))
            raise DataError(f"no file of {path} can be read; the first: {name}: {why}")
        names = [names[k] for k in kept]
        patients = [patients[k] for k in kept]
        attributes = attributes.rows(np.array(kept)) if attributes is not None else None
        contents = {name: contents[name] for name in names}
    else:
        _refuse_repeated(path, contents)
    how = json.dumps([radiograph.PREPROCESSING, radiograph.versions()], sort_keys=True)
    reading = f"{'canonical display' if display else 'stored values'} {_sha256([how])}"

    def load(number: int) -> np.ndarray:
        try:
            return _decoded(path / names[number], display)
        except DataError as error:
            raise DataError(
                f"{path / names[number]}: {error}; repair or remove the file, or leave out what is "
                "rejected with --skip-rejected"
            ) from error

    return Pictures(
        name=_last(path),
        keys=tuple(names),
        patients=tuple(patients),
        attributes=attributes,
        boxes=None,
        fingerprint=_sha256([reading, *_lines(contents)]),
        reading=reading,
        records=False,
        synthetic=False,
        rejected=rejected,
        notes=tuple(notes),
        load=load,
    )


def _decoded(file: Path, display: bool) -> np.ndarray:
    from rfxray.data import canonical, radiograph

    found = radiograph.read(file)
    canonical.check_shape(*found.pixels.shape)
    if display or found.pixels.min() < 0 or found.pixels.max() >= 2**found.bits:
        return canonical.normalise(found.pixels)
    return found.pixels / np.float32(2**found.bits - 1)


def _walk(folder: Path) -> Iterator[str]:
    """Paths of the images below a folder, with forward slashes; hidden files are not looked at."""
    entered = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in entered:  # a link to a folder that has been entered
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            file = Path(root, name)
            if not name.startswith(".") and _is_image(file):
                yield file.relative_to(folder).as_posix()


def _is_image(file: Path) -> bool:
    if file.suffix.lower() in (*READ, *NOT_READ):
        return True
    if file.suffix and not file.suffix[1:].isdigit():
        return False
    try:  # DICOM files are often named by a UID, or without an ending
        with file.open("rb") as opened:
            return opened.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _described(
    path: Path, table: Path, found: Sequence[str]
) -> tuple[list[str], list[str], Attributes]:
    """Names, patients and attributes of the rows of a table, in the order of the names."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read ({first_line(error)}); give a CSV") from error
    if not rows or "image" not in rows[0]:
        raise DataError(f"{table} must have a header with a column image, and rows")
    there = set(found)
    by_name: dict[str, set[str]] = {}
    for name in found:
        for alias in (name, Path(name).name, Path(name).stem):
            by_name.setdefault(alias, set()).add(name)
    known: dict[str, tuple[str, Attributes]] = {}
    for line, row in enumerate(rows, 2):
        image = (row.get("image") or "").strip()
        match = [image] if image in there else sorted(by_name.get(image, ()))
        if len(match) != 1:
            how = "has no such file" if not match else f"has {len(match)} such files"
            raise DataError(f"{table} line {line} names {image!r}, and {path} {how}; correct it")
        if match[0] in known:
            raise DataError(f"{table} line {line} names {image!r} a second time; keep one row")
        cells = {name: (row.get(name) or "").strip() for name in vocabulary.NAMES if name in row}
        given = {name: cell for name, cell in cells.items() if cell.lower() not in BLANK}
        try:
            attributes = vocabulary.encode(given)
        except ConfigError as error:
            raise DataError(f"{table} line {line}: {error}") from error
        patient = (row.get("patient") or "").strip()
        known[match[0]] = ("" if patient.lower() in BLANK else patient, attributes)
    names = sorted(known)
    stacked = vocabulary.stack([known[name][1] for name in names])
    return names, [known[name][0] for name in names], stacked


def _rejected(path: Path, contents: Mapping[str, str]) -> dict[str, str]:
    """Why files cannot be in a set, by name: what `Pictures.read` refuses, and repeated files."""
    first: dict[str, str] = {}
    found = {}
    for name, content in contents.items():
        if (there := first.setdefault(content, name)) != name:
            found[name] = f"the same content as {there}"

    def reason(name: str) -> str:
        try:
            _decoded(path / name, True)
        except DataError as error:
            return str(error)
        return ""

    remaining = [name for name in contents if name not in found]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found |= zip(remaining, pool.map(reason, remaining), strict=True)
    return {name: why for name, why in sorted(found.items()) if why}


# ------------------------------------------------------------------------------------------------
# Contents


def _last(path: Path) -> str:
    return path.resolve().name


def _sha256(lines: Iterable[str]) -> str:
    whole = hashlib.sha256()
    for line in lines:
        whole.update(line.encode() + b"\n")
    return whole.hexdigest()


def _lines(contents: Mapping[str, str]) -> Iterator[str]:
    return (f"{content} {name}" for name, content in contents.items())


def _contents(path: Path, names: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each file, by name, in the order of the names."""

    def one(name: str) -> str:
        try:
            return files.file_sha256(path / name)
        except OSError as error:
            raise DataError(
                f"{path / name} cannot be read ({error.strerror}); check its permissions, or "
                "remove it"
            ) from error

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing releases the GIL
        return dict(zip(names, pool.map(one, names), strict=True))


def _refuse_missing(path: Path, names: Sequence[str], where: str) -> None:
    top = path.resolve()
    for name in names:
        file = path / name
        if not file.resolve().is_relative_to(top) or not file.is_file():
            raise DataError(
                f"{path} has no file {name!r}, which {where} lists; repeat the command that made it"
            )


def _refuse_repeated(path: Path, contents: Mapping[str, Any]) -> None:
    first: dict[str, str] = {}
    for name, content in contents.items():
        if (there := first.setdefault(content, name)) != name:
            raise DataError(
                f"{path / name} has the same content as {there}; remove one of them, or leave out "
                "what is rejected with --skip-rejected"
            )
