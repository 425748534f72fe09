"""The parts of a folder of samples: files of images or records, and the list of them."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from rfxray.attributes.states import State
from rfxray.attributes.vocabulary import FINDING_NAMES, NAMES
from rfxray.data.manifest import read_manifest
from rfxray.data.pixels import to_uint16
from rfxray.errors import DataError
from rfxray.outputs import dicom, files
from rfxray.sampling.plan import Asks, Plan
from rfxray.sampling.sampler import Pictures
from rfxray.sampling.samples import SAYS, describe

WRITERS = 4  # threads: compressing a PNG lets go of the interpreter's lock

Entries: TypeAlias = dict[int, dict]  # of `samples.json`, by the number of the image


def fragment(out: Path, part: int) -> Path:
    """File of what `samples.json` will say of a part."""
    return out / "parts" / f"{part:05d}.json"


def kept(out: Path, plan: Plan, part: int, numbers: range) -> Entries:
    """The images of a part that its fragment lists and that are on the disk as it says."""
    try:
        listed = json.loads(fragment(out, part).read_text())
    except (FileNotFoundError, ValueError):  # not written yet, or torn by a disk that failed
        return {}
    if plan.format == "array_record":  # its shard is written before, and checked when published
        return dict(zip(numbers, listed, strict=True)) if len(listed) == len(numbers) else {}
    entries = {entry["file"]: entry for entry in listed}
    found = {k: entries[plan.file(k)] for k in numbers if plan.file(k) in entries}
    return {k: entry for k, entry in found.items() if is_intact(out, entry)}


def is_intact(out: Path, entry: Mapping[str, Any]) -> bool:
    """Whether the file of an image is what was written, to the last byte."""
    try:
        return files.file_sha256(out / entry["file"]) == entry["sha256"]
    except FileNotFoundError:
        return False


def are_intact(out: Path, plan: Plan, entries: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all images of a finished folder are what was written.

    Raises:
      DataError: If a shard of a data set is missing or damaged.
    """
    if plan.format != "array_record":
        named = [entry.get("file") for entry in entries] == [*map(plan.file, range(plan.n))]
        return named and all(is_intact(out, entry) for entry in entries)
    manifest = read_manifest(out)
    if manifest is None:
        raise DataError(f"{out} has no manifest.json; delete the folder and rerun the command")
    for shard in manifest["splits"]["train"]["shards"]:
        file = out / shard["file"]
        if not file.is_file() or files.file_sha256(file) != shard["sha256"]:
            raise DataError(
                f"{file} is missing or damaged; delete the folder {out} and rerun the command"
            )
    return True


def unfold(out: Path, plan: Plan, entries: Sequence[Mapping[str, Any]]) -> None:
    """Writes the fragments of a folder that was finished and is continued."""
    (out / "parts").mkdir(exist_ok=True)
    for number, part in enumerate(plan.parts):
        if part.numbers.start < len(entries) and not fragment(out, number).exists():
            own = entries[part.numbers.start : part.numbers.stop]
            files.write_whole(fragment(out, number), json.dumps(own))


def save(
    drawn: Pictures, numbers: Sequence[int] | np.ndarray, asks: Asks, plan: Plan, out: Path
) -> Entries:
    """Writes images to files of their own; returns their entries of `samples.json`."""

    def one(k: int, image: np.ndarray) -> dict:
        number, entry = int(numbers[k]), describe(drawn, k)
        file = out / plan.file(number)
        if plan.format == "dicom":
            from rfxray.data import burned_text  # loads OpenCV, which only DICOM needs here

            # That none was found does not say that there is none: small letters are not read.
            dicom.save(file, image, entry, burned_in=bool(burned_text.lines(image)) or None)
        else:
            files.save_png(file, image, {**SAYS, "rfxray": entry})
        listed = {"file": file.name, "sha256": files.file_sha256(file), **entry}
        return {**listed, **_note(asks, plan, number)}

    images = to_uint16(drawn.images)
    with ThreadPoolExecutor(WRITERS) as pool:
        entries = list(pool.map(one, range(len(images)), images))
    return {int(number): entry for number, entry in zip(numbers, entries, strict=True)}


def records(
    asks: Asks,
    plan: Plan,
    blocks: Iterable[tuple[np.ndarray, Pictures]],
    entries: Entries,
    progress: Callable[[int], None],
) -> Iterator[dict]:
    """The records of some blocks, in order; the entries of `samples.json` go to `entries`."""
    for numbers, drawn in blocks:
        for k, image in enumerate(to_uint16(drawn.images)):
            entry = describe(drawn, k)
            made = _record(image, drawn, k, entry)
            number = int(numbers[k])
            entries[number] = {"key": made["key"], **entry, **_note(asks, plan, number)}
            yield made
        progress(len(drawn.images))


def _note(asks: Asks, plan: Plan, number: int) -> dict[str, Mapping[str, str]]:
    """What the table says of an image, for `samples.json` and nothing else."""
    note = asks.note(int(plan.positions(np.asarray(number))))
    return {"row": note} if note else {}


def _record(image: np.ndarray, drawn: Pictures, k: int, entry: Mapping[str, Any]) -> dict:
    """A generated image as a record that training reads; `synthetic/` begins its key."""
    values, known = drawn.attributes.rows(k)
    states = np.where(known, State.STATED, State.UNLABELLED).astype(np.int8)
    for i, name in enumerate(NAMES):
        if known[i] and name in FINDING_NAMES:
            states[i] = State.POSITIVE if values[i] > 0.5 else State.NEGATIVE
    patient = f"synthetic/{dicom.patient(entry)}"
    return {
        "image": image,
        "content_box": [0, 0, *image.shape],
        "original_size": image.shape,
        "original_bits": 16,
        "pixel_spacing": [0.0, 0.0],
        "laterality": "",
        "attributes": np.where(known, values, 0).astype(np.float32),
        "states": states,
        "key": f"{patient}/{drawn.indices[k]}/{entry['pixels_sha256'][:16]}",
        "patient": patient,
    }
