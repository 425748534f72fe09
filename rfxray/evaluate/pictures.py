"""Any set of radiographs or samples, one picture at a time: what an evaluation reads.

| given | keys | patients, attributes | pixels |
|---|---|---|---|
| data set of ours: `DATA` (every split), `DATA:SPLIT` | of records | known ones | as stored |
| folder that `rfxray sample` wrote | file names | unknown, requested ones | as written |
| folder of PNG, JPEG or DICOM files, at any depth | paths in it | of a table | canonical display |

The canonical display is what `rfxray.data.radiograph` and `canonical.normalise` make of a file.

A table (see `image_table`) decides which files are read.

A set is never smaller than what was given: what cannot be read is an error, unless `reject` asks
for it to be left out, counted and listed.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rfxray.attributes import vocabulary
from rfxray.attributes.states import known_from_states
from rfxray.attributes.vocabulary import Attributes
from rfxray.command_line import refuse_address, require
from rfxray.data import manifest
from rfxray.data.dataset import Dataset, Records, open_dataset
from rfxray.errors import ConfigError, DataError, first_line
from rfxray.evaluate import image_files, image_table
from rfxray.outputs import dicom, files

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
      drawn: Attributes that nobody requested and `rfxray sample --complete` drew, [n, 19] bool;
        None if there are none.
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
    drawn: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, number: int) -> np.ndarray:
        """A picture: [height, width] float32 in [0, 1].

        Raises:
          DataError: With the file and what to do, if it cannot be read.
        """
        return self.load(number)


def open_pictures(
    given: str | Path,
    table: Path | None = None,
    reject: bool | None = None,
    display: bool = True,
    repeats: bool = False,
) -> Pictures:
    """Lists a set of pictures.

    Args:
      given: Path of a folder, or `DATA:SPLIT`.
      table: CSV that describes a folder of files.
      reject: Whether files that cannot be read, are in colour or repeat another file are left out
        and listed in `rejected`, instead of refused. Every file is decoded for that; a record of a
        data set is never left out. None, for a command without --skip-rejected, refuses too.
      display: Whether files of anybody get the canonical display; otherwise a PNG or JPEG is its
        stored values over the largest of its bits, as other programs read it.
      repeats: Whether a file may have the content of another one.

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
    if (path / "plan.json").is_file() and not (path / image_files.SAMPLES).is_file():
        raise DataError(f"{path} is not finished; repeat the command that draws its samples first")
    if (path / image_files.SAMPLES).is_file():
        if table is not None:
            raise ConfigError(f"{path} has {image_files.SAMPLES}; leave its table out")
        return _of_samples(path, reject, repeats)
    return _of_files(path, table, reject, display, repeats)


def _path_and_split(text: str) -> tuple[Path, str]:
    """`DATA:SPLIT` in its parts; a folder may have a colon in its name."""
    path = Path(text).expanduser()
    before, colon, split = text.rpartition(":")
    if path.is_dir() or not colon:
        return path, ""
    if not split:
        raise ConfigError(f"{text} names no split after its colon; leave the colon out for all")
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
    every = [(part, number) for part in parts for number in range(len(part))]
    progress = tqdm(every, f"reading the labels of {dataset.path}", unit="record", disable=None)
    labels = [part.labels(number) for part, number in progress]  # 14,000 a second
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


def _of_samples(path: Path, reject: bool | None, repeats: bool) -> Pictures:
    index = path / image_files.SAMPLES
    names, attributes, drawn = _listed(index)
    _refuse_missing(path, names, str(index))
    known = dict(zip(names, range(len(names)), strict=True))
    if len(known) < len(names):
        twice = next(name for number, name in enumerate(names) if known[name] != number)
        raise DataError(f"{index} lists {twice} twice; repeat the command of its samples")
    contents, rejected = image_files.kept(
        path, names, reject, lambda name: _written(path / name), repeats
    )
    names = list(contents)
    rows = np.array([known[name] for name in names])
    there = {name for name in image_files.found(path)[0] if name != "grid.png"}
    unlisted = len(there - known.keys())

    def load(number: int) -> np.ndarray:
        try:
            return _written(path / names[number])
        except DataError as error:
            raise image_files.unreadable(path / names[number], error, reject) from error

    return Pictures(
        name=_last(path),
        keys=tuple(names),
        patients=("",) * len(names),
        attributes=attributes.rows(rows),
        boxes=None,
        fingerprint=_sha256([STORED, *_lines(contents)]),
        reading=STORED,
        records=False,
        synthetic=True,
        rejected=rejected,
        drawn=drawn[rows] if drawn.any() else None,
        notes=(f"{unlisted} files are not in {index.name}, so not in the set",) * bool(unlisted),
        load=load,
    )


def _listed(index: Path) -> tuple[list[str], Attributes, np.ndarray]:
    """The files of samples that an index lists, what was requested of them, and which of that
    `--complete` drew, [n, 19] bool."""
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))["pictures"]
        pairs = [(str(each["file"]), dict(each["attributes"])) for each in entries]
        attributes = [vocabulary.encode(asked) for _, asked in pairs]
        notes = [dict(each.get("row", {})).get("drawn", "").split(",") for each in entries]
        drawn = np.array([[name in note for name in vocabulary.NAMES] for note in notes], bool)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__} {first_line(error)}"
        raise DataError(
            f"{index} does not list files of samples ({why}); draw them again, or remove it to "
            "have the folder read as files of anybody"
        ) from error
    if not pairs:
        raise DataError(f"{index.parent} has no samples; draw some with rfxray sample")
    return [name for name, _ in pairs], vocabulary.stack(attributes), drawn


def _written(file: Path) -> np.ndarray:
    """A file of ours: its 16 bits are the pixels, and are not displayed again.

    Raises:
      DataError: With the reason, in words before a colon that name no file.
    """
    try:
        if file.suffix == ".dcm":
            require("prep", "pydicom")
            image = dicom.read(file)
        else:
            image = files.read_png(file)
    except (OSError, ValueError, AttributeError, SyntaxError, DataError) as error:
        said = first_line(error).replace(str(file), file.name)
        raise DataError(f"cannot be read: {said}") from error
    if image.dtype != np.uint16:
        raise DataError("not of 16 bits: rfxray sample did not write it")
    return image.astype(np.float32) / np.float32(65535)


def _refuse_missing(path: Path, names: Iterable[str], where: str) -> None:
    top = path.resolve()
    for name in names:
        file = path / name
        if not file.resolve().is_relative_to(top) or not file.is_file():
            raise DataError(
                f"{path} has no file {name!r}, which {where} lists; repeat the command that made it"
            )


# ------------------------------------------------------------------------------------------------
# Files of anybody


def _of_files(
    path: Path, table: Path | None, reject: bool | None, display: bool, repeats: bool
) -> Pictures:
    require("prep", "cv2", "pydicom")
    from rfxray.data import radiograph

    found, others = image_files.found(path)
    if table is not None:
        described = image_table.read(path, table, found)
        names, notes = described.names, described.notes
    else:
        described, names = None, found
        notes = [f"{others} files are hidden or not images, so not in the set"] * bool(others)
    if not names:
        raise DataError(
            f"{path} has no images; give a folder of {', '.join(image_files.READ)} files, or a "
            "data set"
        )
    numbers = {name: number for number, name in enumerate(names)}
    contents, rejected = image_files.kept(
        path, names, reject, lambda name: _decoded(path / name, True), repeats
    )
    names = list(contents)
    rows = np.array([numbers[name] for name in names])
    how = json.dumps([radiograph.PREPROCESSING, radiograph.versions()], sort_keys=True)
    reading = f"{'canonical display' if display else 'stored values'} {_sha256([how])}"

    def load(number: int) -> np.ndarray:
        try:
            return _decoded(path / names[number], display)
        except DataError as error:
            raise image_files.unreadable(path / names[number], error, reject) from error

    return Pictures(
        name=_last(path),
        keys=tuple(names),
        patients=tuple(described.patients[row] if described else "" for row in rows),
        attributes=described.attributes.rows(rows) if described else None,
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


# ------------------------------------------------------------------------------------------------
# Contents


def _last(path: Path) -> str:
    return path.resolve().name


def _sha256(lines: Iterable[str]) -> str:
    whole = hashlib.sha256()
    for line in lines:  # a name of a file need not be UTF-8
        whole.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return whole.hexdigest()


def _lines(contents: Mapping[str, str]) -> Iterator[str]:
    return (f"{content} {name}" for name, content in contents.items())
