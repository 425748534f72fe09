"""What ends a folder of samples: its gallery, its contact sheet and `samples.json`, the index."""

import itertools
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rfxray.data.dataset import open_dataset, stored
from rfxray.data.manifest import publish as publish_dataset
from rfxray.data.manifest import read_manifest
from rfxray.data.pixels import to_float, to_uint8
from rfxray.data.plan import Plan as DataPlan
from rfxray.data.plan import make_plan
from rfxray.errors import DataError
from rfxray.outputs import contact_sheet, dicom, files, gallery
from rfxray.sampling import parts
from rfxray.sampling.plan import Asks, Plan
from rfxray.sampling.pretrained import Model
from rfxray.sampling.samples import identity, save_sheet, title, write_index
from rfxray.sampling.settings import Settings
from rfxray.sampling.tables import Table

ON_SHEET = 64  # images of grid.png
SHOWN = 400  # images of the gallery: some 5 MB


def publish(
    out: Path,
    plan: Plan,
    model: Model,
    settings: Settings,
    asks: Asks,
    head: Mapping[str, object],
) -> None:
    """Joins the fragments; `samples.json` comes last and says that all is there.

    Args:
      out: Folder with all parts.
      plan: What it holds.
      model: Model that drew the images.
      settings: Settings that they were drawn with.
      asks: What was requested; a `Table` has a sheet of its own.
      head: Entries of `samples.json` before those of the images.
    """

    def entries() -> Iterator[dict]:
        for number in range(len(plan.parts)):
            yield from json.loads(parts.fragment(out, number).read_text())

    if plan.format == "array_record" and read_manifest(out) is None:
        options = {**identity(settings, model.source), "n": plan.n, "first": plan.first}
        publish_dataset(data_plan(plan, model, options), out, {"synthetic": dict(model.source)})
    shutil.rmtree(out / "partial", ignore_errors=True)  # of a run killed after the manifest
    _show(out, plan, settings, asks, list(itertools.islice(entries(), SHOWN)))
    write_index(out, head, entries())


def refresh(
    out: Path, plan: Plan, settings: Settings, asks: Asks, entries: Sequence[Mapping[str, Any]]
) -> None:
    """Writes the gallery and the sheet of a finished folder again, if one of them is gone."""
    if not ((out / "gallery.html").exists() and (out / "grid.png").exists()):
        _show(out, plan, settings, asks, entries[:SHOWN])


def _show(
    out: Path, plan: Plan, settings: Settings, asks: Asks, entries: Sequence[Mapping[str, Any]]
) -> None:
    images = first_pictures(out, plan)
    requested = [entry["attributes"] for entry in entries]
    thumbnails = (images >> 8).astype(np.uint8)
    links = [entry.get("file") for entry in entries]
    shown = zip(thumbnails, requested, links, strict=True)
    gallery.write(out / "gallery.html", shown, _heading(plan, settings, requested))
    if isinstance(asks, Table):
        everything = first_pictures(out, plan, plan.n)
        sheet = asks.sheet(to_float(everything), title([asks.asked], settings))
    else:
        heading = _heading(plan, settings, requested[:ON_SHEET])
        sheet = contact_sheet.grid(to_uint8(to_float(images[:ON_SHEET])), title=heading)
    save_sheet(out, sheet)


def _heading(plan: Plan, settings: Settings, requested: Sequence[Mapping[str, Any]]) -> str:
    of = f"the first {len(requested):,} of {plan.n:,}, " if len(requested) < plan.n else ""
    return of + title(requested, settings)


def first_pictures(out: Path, plan: Plan, most: int = SHOWN) -> np.ndarray:
    """The first images of a finished directory, at most `most`: [n, height, width] uint16.

    Raises:
      DataError: If one of them is gone.
    """
    n = min(plan.n, most)
    if plan.format == "array_record":
        records = itertools.islice(stored(open_dataset(out), "train"), n)
        return np.stack([each["image"] for each in records])
    read = dicom.read if plan.format == "dicom" else files.read_png
    try:
        return np.stack([read(out / plan.file(number)) for number in range(n)])
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is gone; rerun the command to draw it again") from error


def data_plan(plan: Plan, model: Model, options: Mapping[str, object] | None = None) -> DataPlan:
    """The plan of an ArrayRecord directory: the parts are its shards."""
    return make_plan(
        {"train": range(plan.n)},
        name="synthetic",
        size=model.size,
        shard_examples=len(plan.parts[0].numbers),
        description=dicom.NOTE,
        options=options,
    )
