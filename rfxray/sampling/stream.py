"""Many images to disk: in bounded memory, resumable, the same whatever interrupts it.

The n images are cut into blocks of one size, and blocks into parts. A part is written whole, then
its fragment (`parts/00003.json`): if there is a fragment, the part is done, and a killed run
continues with the parts that have none. Block k always holds the same indices in the same rows of
the same program: on the same devices the images are equal to the last bit, on others within a
level of 16 bits. While a block is written the next is being drawn. `plan.json` says what the
directory holds, and refuses another plan. ArrayRecord files are written as every data set is
(`rfxray/data`), a part being a shard.
"""

import dataclasses
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from rfxray.attributes.states import State
from rfxray.attributes.vocabulary import FINDING_NAMES, NAMES
from rfxray.data.dataset import open_dataset, stored
from rfxray.data.manifest import publish, read_manifest
from rfxray.data.pixels import to_float, to_uint8, to_uint16
from rfxray.data.plan import Plan as DataPlan
from rfxray.data.plan import make_plan
from rfxray.data.shards import write_shard
from rfxray.errors import ConfigError, DataError
from rfxray.outputs import contact_sheet, dicom, files, gallery, lock
from rfxray.sampling.pretrained import Model
from rfxray.sampling.requests import Requests
from rfxray.sampling.sampler import Batches, Pictures, Settings, finite
from rfxray.sampling.samples import SAYS, describe, save_sheet

FORMATS = ("png", "dicom", "array_record")

SHARD = 1024  # images of an ArrayRecord shard, rounded up to whole blocks
ON_SHEET = 64  # images of grid.png
SHOWN = 400  # images of the gallery: some 5 MB
WRITERS = 4  # threads: compressing a PNG lets go of the interpreter's lock


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a directory is to hold.

    Attributes:
      n: Number of images.
      first: Index of the first image among those of the seed.
      block: Number of images drawn at once; a directory that was begun keeps its own number if the
        devices divide it.
      format: One of `FORMATS`.
      names: Names of the files, without their ending; they are numbered if empty.
    """

    n: int
    first: int
    block: int
    format: str
    names: tuple[str, ...] = ()

    def __post_init__(self):
        if self.format not in FORMATS:
            raise ConfigError(f"no format {self.format!r}, only {', '.join(FORMATS)}")
        if self.names and self.format == "array_record":
            raise ConfigError("--file-names is for files, and array_record has none of an image")
        if self.n < 1 or self.first < 0 or self.first + self.n > 2**32:
            raise ConfigError(
                "--n must be at least 1, --first-index at least 0, and their sum at most 2³² "
                f"(got --n {self.n} and --first-index {self.first})"
            )

    @property
    def parts(self) -> list[range]:
        """The numbers of the images of each part."""
        size = self.block
        if self.format == "array_record":
            size *= -(-SHARD // self.block)
        return [range(i, min(i + size, self.n)) for i in range(0, self.n, size)]


def write(
    model: Model,
    settings: Settings,
    requests: Requests,
    plan: Plan,
    out: Path,
    extra: Mapping[str, object] | None = None,
    progress: Callable[[int], None] = lambda new: None,
) -> None:
    """Draws what the plan says and writes it, with `samples.json` and `gallery.html` at the end.

    Args:
      model: Model from `load`.
      settings: Settings that images are drawn with.
      requests: Attributes of the image of each index.
      plan: What the directory is to hold.
      out: Directory that is absent, empty, or was begun with the same plan.
      extra: Further entries of `samples.json`.
      progress: Function called with the number of images that each block added; those of an earlier
        run (`finished`) are not among them.

    Raises:
      ConfigError: if `out` holds something else.
      NonFiniteError: if a generated image is not finite.
    """
    block = _begun(out).get("block", plan.block)
    draw = Batches(model, settings, plan.block if block % model.mesh.size else block)
    plan = dataclasses.replace(plan, block=draw.size)
    out.mkdir(parents=True, exist_ok=True)
    with lock.locked(out):
        _claim(out, plan, model, settings, requests)
        if (out / "samples.json").exists():
            return
        files.remove_temporary(out)
        _write_parts(draw, requests, plan, out, progress)
        _publish(out, plan, model, settings, requests, extra or {})


def _write_parts(
    draw: Batches, requests: Requests, plan: Plan, out: Path, progress: Callable[[int], None]
) -> None:
    """Draws and writes the parts that have no fragment."""
    parts = enumerate(plan.parts)
    pending = [(number, part) for number, part in parts if not _fragment(out, number).exists()]
    if not pending:
        return
    folders = ("parts", "partial") if plan.format == "array_record" else ("parts",)
    for folder in folders:
        (out / folder).mkdir(exist_ok=True)
        files.remove_temporary(out / folder)
    shards = _data_plan(plan, draw.model).shards
    starts = [k for _, part in pending for k in range(part.start, part.stop, plan.block)]
    blocks = _drawn(draw, requests, plan, starts)
    for number, part in pending:
        of_part = itertools.islice(blocks, -(-len(part) // plan.block))
        entries = []
        if plan.format == "array_record":
            records = _records(requests, of_part, entries, progress)
            write_shard(shards[number], out, draw.model.size, records)
        else:
            for drawn in of_part:
                entries += _save(drawn, requests, plan, out)
                progress(len(drawn.images))
        files.write_whole(_fragment(out, number), json.dumps(entries))


def _fragment(out: Path, number: int) -> Path:
    """File of what `samples.json` will say of a part."""
    return out / "parts" / f"{number:05d}.json"


def _drawn(
    draw: Batches, requests: Requests, plan: Plan, starts: Sequence[int]
) -> Iterator[Pictures]:
    """The blocks that begin there; the next is being drawn while one is being written."""

    def begin(start):
        # The last block wraps, so that one program serves all; what wrapped is thrown away.
        indices = plan.first + np.arange(start, start + plan.block) % plan.n
        attributes = requests.rows(indices)
        return indices, attributes, draw(indices, attributes)

    ahead = begin(starts[0])
    for start, following in zip(starts, [*starts[1:], None], strict=True):
        indices, attributes, images = ahead
        if following is not None:
            ahead = begin(following)
        new = min(plan.block, plan.n - start)
        images = np.clip(finite(np.asarray(images)[:new, ..., 0]), -1.0, 1.0)
        attributes, indices = attributes.rows(slice(new)), indices[:new]
        yield Pictures(images, attributes, indices, draw.settings, draw.model.source)


# ---------------------------------------------------------------------------------------------
# Parts


def _save(drawn: Pictures, requests: Requests, plan: Plan, out: Path) -> list[dict]:
    """Writes the images of a block to files of their own; returns the entries of
    `samples.json`."""

    def save(image: np.ndarray, entry: dict) -> dict:
        file = out / _file_name(plan, entry["index"] - plan.first)
        if plan.format == "dicom":
            dicom.save(file, image, entry)
        else:
            files.save_png(file, image, {**SAYS, "rfxray": entry})
        return {"file": file.name, **entry, **_note(requests, entry["index"])}

    entries = [describe(drawn, k) for k in range(len(drawn.images))]
    with ThreadPoolExecutor(WRITERS) as pool:
        return list(pool.map(save, to_uint16(drawn.images), entries))


def _records(
    requests: Requests,
    blocks: Iterable[Pictures],
    entries: list[dict],
    progress: Callable[[int], None],
) -> Iterator[dict]:
    """The records of some blocks, in order; the entries of `samples.json` go to `entries`."""
    for drawn in blocks:
        for k, image in enumerate(to_uint16(drawn.images)):
            made = _record(image, drawn, k)
            entry = describe(drawn, k)
            entries.append({"key": made["key"], **entry, **_note(requests, int(drawn.indices[k]))})
            yield made
        progress(len(drawn.images))


def _note(requests: Requests, index: int) -> dict[str, Mapping[str, str]]:
    """What the table says of the image of an index, for `samples.json` and nothing else."""
    return {"row": note} if (note := requests.note(index)) else {}


def _record(image: np.ndarray, drawn: Pictures, k: int) -> dict:
    """A generated image as a record that training reads; `synthetic/` begins its key."""
    values, known = drawn.attributes.rows(k)
    states = np.where(known, State.STATED, State.UNLABELLED).astype(np.int8)
    for i, name in enumerate(NAMES):
        if known[i] and name in FINDING_NAMES:
            states[i] = State.POSITIVE if values[i] > 0.5 else State.NEGATIVE
    patient = f"synthetic/{drawn.settings.seed}-{drawn.indices[k]}"
    return {
        "image": image,
        "content_box": [0, 0, *image.shape],
        "original_size": image.shape,
        "original_bits": 16,
        "pixel_spacing": [0.0, 0.0],
        "laterality": "",
        "attributes": np.where(known, values, 0).astype(np.float32),
        "states": states,
        "key": f"{patient}/{drawn.source.get('step', 0)}/{drawn.indices[k]}",
        "patient": patient,
    }


# ---------------------------------------------------------------------------------------------
# The directory


def begun_step(out: Path, checkpoint: Path) -> int | None:
    """Step of the checkpoint that a directory was begun with, if it was of this run.

    Raises:
      ConfigError: if its `plan.json` does not parse.
    """
    there = _begun(out)
    return there["step"] if there.get("checkpoint") == str(checkpoint) else None


def _begun(out: Path) -> dict:
    """The plan of a directory that was begun, as its `plan.json` has it; {} of another."""
    file = out / "plan.json"
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text()))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{file}, the record of an earlier run in --out, cannot be read ({error}), so that run "
            "cannot be resumed; choose another --out"
        ) from error


def finished(out: Path, plan: Plan) -> int:
    """How many images of a plan an earlier run wrote to a directory.

    Raises:
      ConfigError: if its `plan.json` does not parse.
    """
    if not (there := _begun(out)):
        return 0
    if (out / "samples.json").exists():
        return plan.n
    plan = dataclasses.replace(plan, block=there.get("block", plan.block))
    parts = enumerate(plan.parts)
    return sum(len(part) for number, part in parts if _fragment(out, number).exists())


def _claim(out: Path, plan: Plan, model: Model, settings: Settings, requests: Requests) -> None:
    """Writes the plan, or compares it with the one that is there."""
    claim = {**_options(plan, settings, requests), **model.source}
    claim = json.loads(json.dumps(claim))  # tuples become lists, as they will be read back
    file = out / "plan.json"
    if there := _begun(out):
        if changed := [key for key in claim if there.get(key) != claim[key]]:
            if changed == ["block"]:
                raise ConfigError(
                    f"{out} is drawn in blocks of {there['block']}, which {model.mesh.size} "
                    "devices do not divide; use as many devices as before, or choose another --out"
                )
            raise ConfigError(
                f"{out} was started with different settings of: {', '.join(changed)}; choose "
                f"another --out, or repeat the command with the values in {file}"
            )
        return
    if not all(files.is_temporary(path) or lock.is_lock(path) for path in out.iterdir()):
        raise ConfigError(f"{out} is not empty and has no plan.json; choose another --out")
    files.write_whole(file, json.dumps(claim, indent=1))


def _options(plan: Plan, settings: Settings, requests: Requests) -> dict[str, object]:
    """What decides the images of a model, as JSON values."""
    of_plan = dataclasses.asdict(plan)
    del of_plan["names"]  # the fingerprint covers them
    asked = {"requests": requests.fingerprint()}
    return {**of_plan, **dataclasses.asdict(settings), **asked}


def _data_plan(plan: Plan, model: Model, options: Mapping[str, object] | None = None) -> DataPlan:
    """The plan of an ArrayRecord directory: the parts are its shards."""
    return make_plan(
        {"train": range(plan.n)},
        name="synthetic",
        size=model.size,
        shard_examples=len(plan.parts[0]),
        description=dicom.NOTE,
        options=options,
    )


def _publish(
    out: Path,
    plan: Plan,
    model: Model,
    settings: Settings,
    requests: Requests,
    extra: Mapping[str, object],
) -> None:
    """Joins the fragments; `samples.json` comes last and says that all is there."""

    def pictures() -> Iterator[dict]:
        for number in range(len(plan.parts)):
            yield from json.loads(_fragment(out, number).read_text())

    if plan.format == "array_record" and read_manifest(out) is None:
        data_plan = _data_plan(plan, model, _options(plan, settings, requests))
        publish(data_plan, out, {"synthetic": model.source})
    shown = list(itertools.islice(pictures(), SHOWN))
    title = f"{plan.n:,} images of {model.source.get('checkpoint', 'a model')}"
    note = f"The first {len(shown):,} are shown." if len(shown) < plan.n else ""
    images = (first_pictures(out, plan) >> 8).astype(np.uint8)
    requested = [entry["attributes"] for entry in shown]
    gallery.write(out / "gallery.html", zip(images, requested, strict=True), title, note)
    with files.whole_file(out / "samples.json") as temporary, temporary.open("w") as file:
        head = json.dumps({**extra, "pictures": None}, indent=1).removesuffix("null\n}")
        file.write(head + "[")
        for number, entry in enumerate(pictures()):
            file.write(("," if number else "") + "\n  " + json.dumps(entry))
        file.write("\n ]\n}\n")
    shutil.rmtree(out / "parts")


def first_pictures(out: Path, plan: Plan) -> np.ndarray:
    """The first images of a finished directory, at most `SHOWN`: [n, height, width] uint16.

    Raises:
      DataError: if one of them is gone.
    """
    n = min(plan.n, SHOWN)
    if plan.format == "array_record":
        records = itertools.islice(stored(open_dataset(out), "train"), n)
        return np.stack([each["image"] for each in records])
    read = dicom.read if plan.format == "dicom" else files.read_png
    try:
        return np.stack([read(out / _file_name(plan, number)) for number in range(n)])
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is gone from {out}; choose another --out") from error


def save_first(out: Path, plan: Plan, heading: str) -> np.ndarray:
    """Writes the first images of a finished directory as `grid.png`, with a heading.

    Returns:
      All images of its gallery, [n, height, width] float32 in [−1, 1].
    """
    shown = to_float(first_pictures(out, plan))
    save_sheet(out, contact_sheet.grid(to_uint8(shown[:ON_SHEET]), title=heading))
    return shown


def _file_name(plan: Plan, number: int) -> str:
    stem = plan.names[number] if plan.names else f"sample_{number:05d}"
    return f"{stem}.{'dcm' if plan.format == 'dicom' else 'png'}"
