"""Many images to disk: in bounded memory, resumable, the same whatever interrupts it.

The n images are cut into blocks of one size, and blocks into parts. A part is written whole, then
its fragment (`parts/00003.json`, with a checksum of every file): what a fragment lists and the disk
has is done, and a killed run continues with the rest. Block k always holds the same indices in the
same rows of the same program: on the same devices the images are equal to the last bit, on others
within a level of 16 bits. While a block is written the next is being drawn. `plan.json` says what
the directory holds, and refuses another plan (`claims`). A finished folder is believed only if its
index, its files and the plan agree: an image that is missing or damaged is drawn again.

Several hosts share the parts: each draws every N-th of them on its own devices, and the first one
begins the folder and publishes it.
"""

import dataclasses
import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from rfxray.data.shards import write_shard
from rfxray.outputs import files
from rfxray.runtime import distributed
from rfxray.sampling import claims, parts, publishing, samples
from rfxray.sampling.plan import FORMATS, Asks, Part, Plan
from rfxray.sampling.pretrained import Model
from rfxray.sampling.publishing import first_pictures
from rfxray.sampling.sampler import Batches, Pictures, finite
from rfxray.sampling.settings import Settings

__all__ = ["FORMATS", "Plan", "begun_step", "finished", "first_pictures", "write"]

CHUNK = 4096  # requests that are hashed at once

# Seconds that hosts wait for each other's parts: one may have far more left of a run that was
# killed. A host that dies ends the others within RFXRAY_HEARTBEAT_TIMEOUT.
PATIENCE = 7 * 86400.0


def write(
    model: Model,
    settings: Settings,
    asks: Asks,
    plan: Plan,
    out: Path,
    extra: Mapping[str, object] | None = None,
    progress: Callable[[int], None] = lambda new: None,
) -> None:
    """Draws what the plan says and writes it; then `gallery.html`, `grid.png`, `samples.json`.

    Args:
      model: Model from `load`.
      settings: Settings that images are drawn with.
      asks: Attributes of each image, such as `Requests` or a `Table`.
      plan: What the directory is to hold.
      out: Directory that is absent, empty, or was begun with the same plan, or one of fewer images.
      extra: Further entries of `samples.json`.
      progress: Function called with the number of images that each block added; those of an earlier
        run (`finished`) are not among them.

    Raises:
      ConfigError: If `out` holds something else, or another process writes there.
      DataError: If the index of `out` is not that of its plan, or a data set is damaged.
      NonFiniteError: If a generated image is not finite.
    """
    plan = dataclasses.replace(plan, block=plan.block + -plan.block % model.mesh.size)
    host, _ = distributed.place()
    with claims.held(out):
        begun = _begin(model, settings, asks, plan, out) if host == 0 else None
        if distributed.joined():
            begun = _agreed(begun, model, settings, asks, plan, out)
        if begun is not None:
            plan, there = begun
            _write_parts(model, settings, asks, plan, out, progress)
            distributed.barrier("the parts of the samples", PATIENCE)
            if host == 0:
                head = {**(extra or {}), "plan": there, "written_by": claims.written_by()}
                publishing.publish(out, plan, model, settings, asks, head)
                shutil.rmtree(out / "parts")
        distributed.barrier("the end of the samples", PATIENCE)


def _begin(
    model: Model, settings: Settings, asks: Asks, plan: Plan, out: Path
) -> tuple[Plan, dict] | None:
    """Begins or continues a folder: its plan, and what `plan.json` says; None if it is finished."""
    there = claims.read(out)
    if there:
        claims.compare(out, there, _claimed(plan, settings, model))
    plan = plan.begun(there, out)
    if there and there["requests"] != requested(asks, plan, there["n"]):
        claims.refuse(out, ["requests"])
    entries = claims.read_index(out, there) if there else None
    if entries is not None and len(entries) == plan.n and parts.are_intact(out, plan, entries):
        publishing.refresh(out, plan, settings, asks, entries)
        shutil.rmtree(out / "parts", ignore_errors=True)
        return None
    if entries is not None:
        parts.unfold(out, plan, entries)
    if there.get("n") != plan.n:
        growing = {"n": plan.n, "block": plan.block, "earlier": plan.earlier}
        growing["requests"] = requested(asks, plan, plan.n)
        records = {name: there[name] for name in ("checkpoint", "written_by") if there}
        records = records or {
            "checkpoint": model.source.get("checkpoint"),
            "written_by": claims.written_by(),
        }
        there = {**_claimed(plan, settings, model), **growing, **records}
        claims.begin(out, there)
    (out / claims.INDEX).unlink(missing_ok=True)
    if plan.format == "array_record" and not (out / "parts").exists():
        (out / "manifest.json").unlink(missing_ok=True)  # of shards that are drawn again
    files.remove_temporary(out)
    for folder in ("parts", "partial") if plan.format == "array_record" else ("parts",):
        (out / folder).mkdir(exist_ok=True)
        files.remove_temporary(out / folder)
    return plan, there


def _agreed(
    begun: tuple[Plan, dict] | None,
    model: Model,
    settings: Settings,
    asks: Asks,
    plan: Plan,
    out: Path,
) -> tuple[Plan, dict] | None:
    """What `_begin` of the first host returned, on every host.

    The first host says it: what the others see of the folder may be a minute old.

    Raises:
      ConfigError: If this host was asked for something else.
    """
    own = json.dumps([begun is None, claims.read(out)]) if distributed.place()[0] == 0 else None
    said = distributed.of_first("the plan of the samples", own, PATIENCE)
    finished, there = json.loads(said)
    claims.compare(out, there, _claimed(plan, settings, model))
    if plan.n != there["n"]:
        claims.refuse(out, ["n"])
    plan = plan.begun(there, out)
    if there["requests"] != requested(asks, plan, plan.n):
        claims.refuse(out, ["requests"])
    return None if finished else (plan, there)


def _claimed(plan: Plan, settings: Settings, model: Model) -> dict[str, object]:
    """What another run in the same folder must agree in, and its checkpoint, as JSON values."""
    same = {"kind": "rfxray.sample", "first": plan.first, "cells": plan.cells}
    identity = samples.identity(settings, model.source)
    checkpoint = model.source.get("checkpoint")
    return {**same, "format": plan.format, **identity, "checkpoint": checkpoint}


def requested(asks: Asks, plan: Plan, n: int) -> str:
    """sha256 of all that is requested of the first n images, with their files and notes, hex."""
    digest = hashlib.sha256()
    for start in range(0, n, CHUNK):
        numbers = np.arange(start, min(start + CHUNK, n))
        positions = plan.positions(numbers)
        values, known = map(np.asarray, asks.rows(positions))
        digest.update(np.asarray(values, "<f4").tobytes() + known.tobytes())
        notes = [dict(asks.note(int(position))) for position in positions]
        names = plan.names[start : min(start + CHUNK, n)]
        digest.update(json.dumps([notes, names]).encode())
    return digest.hexdigest()


def begun_step(out: Path) -> int | None:
    """Step of the checkpoint that a directory was begun with, if it was.

    Raises:
      ConfigError: If its `plan.json` does not parse.
    """
    return claims.read(out).get("step")


def finished(out: Path, plan: Plan) -> int:
    """How many images of a plan an earlier run wrote to a directory, as its records say.

    Raises:
      ConfigError: If its `plan.json` does not parse, or holds more images.
    """
    there = claims.read(out)
    if there.get("kind") != "rfxray.sample":
        return 0
    if (out / claims.INDEX).exists():
        return min(plan.n, there["n"])
    every = enumerate(plan.begun(there, out).parts)
    return sum(len(part.numbers) for k, part in every if parts.fragment(out, k).exists())


# ---------------------------------------------------------------------------------------------
# Blocks


class _Block(NamedTuple):
    """Numbers [block] of images that are drawn together, and which of its rows are written."""

    numbers: Int[np.ndarray, " block"]
    wanted: Int[np.ndarray, " rows"]


def _blocks(part: Part, missing: Sequence[int]) -> list[_Block]:
    """The blocks of a part that hold a missing image."""
    found = []
    for k, numbers in enumerate(part.blocks()):
        stop = min(part.numbers.start + (k + 1) * part.block, part.numbers.stop)
        own = np.arange(part.numbers.start + k * part.block, stop)
        wanted = np.flatnonzero(np.isin(own, missing))
        if len(wanted):
            found.append(_Block(numbers, wanted))
    return found


def _write_parts(
    model: Model,
    settings: Settings,
    asks: Asks,
    plan: Plan,
    out: Path,
    progress: Callable[[int], None],
) -> None:
    """Draws and writes what no fragment lists, or the disk does not have as it is listed."""
    pending, (host, hosts) = [], distributed.place()
    for number, part in enumerate(plan.parts):
        if number % hosts != host:
            continue
        kept = parts.kept(out, plan, number, part.numbers)
        if missing := [k for k in part.numbers if k not in kept]:
            pending.append((number, kept, _blocks(part, missing)))
    drawn = _drawn(model, settings, asks, plan, [b for _, _, blocks in pending for b in blocks])
    shards = publishing.data_plan(plan, model).shards if plan.format == "array_record" else ()
    for number, kept, blocks in pending:
        of_part = itertools.islice(drawn, len(blocks))
        entries = dict(kept)
        if shards:
            records = parts.records(asks, plan, of_part, entries, progress)
            write_shard(shards[number], out, model.size, records)
        else:
            for numbers, pictures in of_part:
                entries |= parts.save(pictures, numbers, asks, plan, out)
                progress(len(numbers))
        in_order = [entries[k] for k in sorted(entries)]
        files.write_whole(parts.fragment(out, number), json.dumps(in_order))


def _drawn(
    model: Model, settings: Settings, asks: Asks, plan: Plan, blocks: Sequence[_Block]
) -> Iterator[tuple[Int[np.ndarray, " images"], Pictures]]:
    """The wanted images of the blocks with their numbers; the next block is being drawn while one
    is being written."""

    def begin(block: _Block):
        draw = Batches(model, settings, len(block.numbers))
        # Devices that do not divide the block draw some images twice.
        numbers = np.resize(block.numbers, draw.size)
        attributes = asks.rows(plan.positions(numbers))
        return attributes, draw(plan.indices(numbers), attributes)

    ahead = begin(blocks[0]) if blocks else None
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        assert ahead is not None
        attributes, images = ahead
        ahead = begin(following) if following is not None else None
        images = np.clip(finite(np.asarray(images)[block.wanted, ..., 0]), -1.0, 1.0)
        numbers, attributes = block.numbers[block.wanted], attributes.rows(block.wanted)
        yield numbers, Pictures(images, attributes, plan.indices(numbers), settings, model.source)
