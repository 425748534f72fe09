"""Many pictures to disk: in bounded memory, resumable, the same whatever interrupts it.

The n pictures are cut into blocks of one size, and blocks into parts. A part is written whole, then
its fragment (`parts/00003.json`), so where there is a fragment the part is done; a killed run goes
on with the parts that have none. Block k always holds the same indices in the same rows of the same
program: on the same devices the pictures are equal to the last bit, on others within a level of 16
bits. While a block is written the next is being drawn. `plan.json` says what the directory holds,
and refuses another plan.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from rfxray.attributes.states import State
from rfxray.attributes.vocabulary import FINDING_NAMES, NAMES
from rfxray.data import record
from rfxray.data.dataset import open_dataset, stored
from rfxray.data.pixels import to_uint16
from rfxray.errors import ConfigError, DataError
from rfxray.outputs import dicom, files, gallery
from rfxray.sampling.pretrained import Model
from rfxray.sampling.requests import Requests
from rfxray.sampling.sampler import Batches, Pictures, Settings, finite
from rfxray.sampling.samples import SAYS, describe

FORMATS = ("png", "dicom", "array_record")

SHARD = 1024  # pictures of an ArrayRecord shard, rounded up to whole blocks
SHOWN = 400  # pictures of the gallery: some 5 MB
WRITERS = 4  # threads: compressing a PNG lets go of the interpreter's lock


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a directory is to hold.

    Attributes:
      n: pictures.
      first: index of the first among those of the seed.
      block: pictures drawn at once; a directory that was begun keeps its own where the devices
        divide it.
      format: one of `FORMATS`.
    """

    n: int
    first: int
    block: int
    format: str

    def __post_init__(self):
        if self.format not in FORMATS:
            raise ConfigError(f"no format {self.format!r}, only {', '.join(FORMATS)}")
        if self.n < 1 or self.first < 0 or self.first + self.n > 2**32:
            raise ConfigError("--n is at least 1, --first-index at least 0, and both below 2³²")

    @property
    def parts(self) -> list[range]:
        """The numbers of the pictures of each part."""
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
      model, settings: as for `generate`.
      requests: picture of index i is asked row i, counted round.
      plan: how many, which, as what.
      out: a directory: absent, empty, or begun with the same plan.
      extra: further entries of `samples.json`.
      progress: called with the number of pictures that are done, at first with those of an
        earlier run.

    Raises:
      ConfigError: where `out` holds something else.
      NonFiniteError: where a picture comes out as no picture.
    """
    block = begun(out).get("block", plan.block)
    draw = Batches(model, settings, plan.block if block % model.mesh.size else block)
    plan = dataclasses.replace(plan, block=draw.size)
    _claim(out, plan, model, settings, requests)
    fragments = out / "parts"
    if (out / "samples.json").exists():
        progress(plan.n)
        return
    fragments.mkdir(exist_ok=True)
    pending = []
    for number, part in enumerate(plan.parts):
        if (fragments / f"{number:05d}.json").exists():
            progress(len(part))
        else:
            pending.append((number, part))
    starts = [k for _, part in pending for k in range(part.start, part.stop, plan.block)]
    blocks = _drawn(draw, requests, plan, starts)
    for number, part in pending:
        entries, shard = [], _Shard(out, number, len(plan.parts), plan)
        for drawn in itertools.islice(blocks, -(-len(part) // plan.block)):
            entries += shard.add(drawn)
            progress(len(drawn.images))
        about = {"pictures": entries, "shard": shard.close()}
        files.write_whole(fragments / f"{number:05d}.json", json.dumps(about).encode())
    _publish(out, plan, model, extra or {})


def _drawn(
    draw: Batches, requests: Requests, plan: Plan, starts: Sequence[int]
) -> Iterator[Pictures]:
    """The blocks that begin there; the next is being drawn while one is being written."""

    def begin(start):
        # The last block wraps, so that one program serves all; what wrapped is thrown away.
        indices = plan.first + np.arange(start, start + plan.block) % plan.n
        attributes, known = requests.rows(indices)
        return indices, attributes, known, draw(indices, attributes, known)

    ahead = begin(starts[0])
    for start, following in zip(starts, [*starts[1:], None], strict=True):
        *asked, images = ahead
        if following is not None:
            ahead = begin(following)
        new = min(plan.block, plan.n - start)
        images = np.clip(finite(np.asarray(images)[:new, ..., 0]), -1.0, 1.0)
        indices, attributes, known = (a[:new] for a in asked)
        yield Pictures(images, attributes, known, indices, draw.settings, draw.model.source)


# ---------------------------------------------------------------------------------------------
# Parts


class _Shard:
    """One part on its way to disk."""

    def __init__(self, out: Path, number: int, parts: int, plan: Plan):
        self._out, self._plan = out, plan
        self._file = f"synthetic-train.array_record-{number:05d}-of-{parts:05d}"
        self._digests: list[str] = []
        self._writer = None
        if plan.format == "array_record":
            self._temporary = out / f".{self._file}.tmp"
            # One record a group, as training reads them at random.
            self._writer = ArrayRecordWriter(os.fspath(self._temporary), "group_size:1")

    def add(self, drawn: Pictures) -> list[dict]:
        """Writes a block; returns the entries of `samples.json`."""
        images = to_uint16(drawn.images)
        entries = [describe(drawn, k) for k in range(len(images))]
        if not self._writer:
            with ThreadPoolExecutor(WRITERS) as pool:
                return list(pool.map(self._save, images, entries))
        keyed = []
        for k, (image, entry) in enumerate(zip(images, entries, strict=True)):
            made = _record(image, drawn, k)
            self._writer.write(record.serialize(made))
            self._digests.append(hashlib.sha256(image.tobytes()).hexdigest())
            keyed.append({"key": made["key"], **entry})
        return keyed

    def _save(self, image: np.ndarray, entry: dict) -> dict:
        """Writes a picture to a file of its own; returns its entry with the file's name."""
        file = self._out / _file_name(self._plan, entry["index"] - self._plan.first)
        if self._plan.format == "dicom":
            dicom.save(file, image, entry)
        else:
            files.save_png(file, image, {**SAYS, "rfxray": entry})
        return {"file": file.name, **entry}

    def close(self) -> dict | None:
        """Puts an ArrayRecord shard in its place; returns how the manifest describes it."""
        if not self._writer:
            return None
        self._writer.close()
        with self._temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.replace(self._temporary, self._out / self._file)
        size = (self._out / self._file).stat().st_size
        about = {"file": self._file, "examples": len(self._digests), "bytes": size}
        return about | {"sha256": digest, "digests": self._digests}


def _record(image: np.ndarray, drawn: Pictures, k: int) -> dict:
    """A generated picture as a record that training reads; `synthetic/` begins its key."""
    attributes, known = drawn.attributes[k], drawn.known[k]
    states = np.where(known, State.STATED, State.UNLABELLED).astype(np.int8)
    for i, name in enumerate(NAMES):
        if known[i] and name in FINDING_NAMES:
            states[i] = State.POSITIVE if attributes[i] > 0.5 else State.NEGATIVE
    patient = f"synthetic/{drawn.settings.seed}-{drawn.indices[k]}"
    return {
        "image": image,
        "content_box": [0, 0, *image.shape],
        "original_size": image.shape,
        "original_bits": 16,
        "pixel_spacing": [0.0, 0.0],
        "laterality": "",
        "attributes": np.where(known, attributes, 0).astype(np.float32),
        "states": states,
        "key": f"{patient}/{drawn.source.get('step', 0)}/{drawn.indices[k]}",
        "patient": patient,
    }


# ---------------------------------------------------------------------------------------------
# The directory


def begun(out: Path) -> dict:
    """The plan of a directory that was begun, as its `plan.json` has it; {} of another.

    Raises:
      ConfigError: where it does not parse.
    """
    file = out / "plan.json"
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text()))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{file} does not parse ({error}); take another --out") from error


def _claim(out: Path, plan: Plan, model: Model, settings: Settings, requests: Requests) -> None:
    """Writes the plan, or compares it with the one that is there."""
    told = {**dataclasses.asdict(plan), **dataclasses.asdict(settings), **model.source}
    told["requests"] = requests.fingerprint()
    told = json.loads(json.dumps(told))  # tuples as a file has them
    file = out / "plan.json"
    if there := begun(out):
        if changed := [key for key in told if there.get(key) != told[key]]:
            if changed == ["block"]:
                raise ConfigError(
                    f"{out} is drawn in blocks of {there['block']}, and {model.mesh.size} devices "
                    "do not divide them; go on with as many as before, or take another --out"
                )
            raise ConfigError(
                f"{out} was begun with another command: {', '.join(changed)} differ; take another "
                f"--out, or what stands in {file}"
            )
        return
    if out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty and holds no plan.json; take another --out")
    out.mkdir(parents=True, exist_ok=True)
    files.write_whole(file, json.dumps(told, indent=1).encode())


def _publish(out: Path, plan: Plan, model: Model, extra: Mapping[str, object]) -> None:
    """Joins the fragments; `samples.json` comes last and says that all is there."""
    fragments = [out / "parts" / f"{number:05d}.json" for number in range(len(plan.parts))]
    shards, shown = [], []
    temporary = out / ".samples.json.tmp"
    with temporary.open("w") as file:
        head = json.dumps({**extra, "pictures": None}, indent=1).removesuffix("null\n}")
        file.write(head + "[")
        for number, fragment in enumerate(fragments):
            about = json.loads(fragment.read_text())
            if about["shard"]:
                shards.append(about["shard"])
            shown += about["pictures"][: SHOWN - len(shown)]
            lines = ",\n  ".join(json.dumps(entry) for entry in about["pictures"])
            file.write(("," if number else "") + "\n  " + lines)
        file.write("\n ]\n}\n")
    if shards:
        _describe_dataset(out, plan, model, shards)
    title = f"{plan.n:,} pictures of {model.source.get('checkpoint', 'a model')}"
    note = f"The first {len(shown):,} are shown." if len(shown) < plan.n else ""
    images = (first_pictures(out, plan) >> 8).astype(np.uint8)
    told = [entry["attributes"] for entry in shown]
    gallery.write(out / "gallery.html", zip(images, told, strict=True), title, note)
    os.replace(temporary, out / "samples.json")
    shutil.rmtree(out / "parts")


def _describe_dataset(out: Path, plan: Plan, model: Model, shards: list[dict]) -> None:
    """The manifest that `dataset.open_dataset` reads, and what tfds reads, of the shards."""
    import tensorflow_datasets as tfds

    digest = hashlib.sha256()
    for shard in shards:
        for each in shard.pop("digests"):
            digest.update(bytes.fromhex(each))
    size = model.config.model.size
    manifest = {
        "name": "synthetic",
        "size": size,
        "description": dicom.NOTE,
        "synthetic": model.source,
        "fingerprint": digest.hexdigest(),
        "splits": {"train": {"examples": plan.n, "shards": shards}},
    }
    template = tfds.core.ShardedFileTemplate(
        data_dir=tfds.core.Path(out), dataset_name="synthetic", filetype_suffix="array_record"
    )
    split = tfds.core.SplitInfo(
        name="train",
        shard_lengths=[shard["examples"] for shard in shards],
        num_bytes=sum(shard["bytes"] for shard in shards),
        filename_template=template.replace(split="train"),
    )
    tfds.folder_dataset.write_metadata(
        data_dir=os.fspath(out),
        features=record.features(size),
        split_infos=[split],
        check_data=False,  # the check imports TensorFlow
        description=dicom.NOTE,
    )
    files.write_whole(out / "manifest.json", json.dumps(manifest, indent=1).encode())


def first_pictures(out: Path, plan: Plan) -> np.ndarray:
    """The first pictures of a finished directory, at most `SHOWN`: [n, height, width] uint16.

    Raises:
      DataError: where one of them is not there any more.
    """
    n = min(plan.n, SHOWN)
    if plan.format == "array_record":
        records = itertools.islice(stored(open_dataset(out), "train"), n)
        return np.stack([each["image"] for each in records])
    read = dicom.read if plan.format == "dicom" else files.read_png
    try:
        return np.stack([read(out / _file_name(plan, number)) for number in range(n)])
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is gone from {out}; take another --out") from error


def _file_name(plan: Plan, number: int) -> str:
    return f"sample_{number:05d}.{'dcm' if plan.format == 'dicom' else 'png'}"
