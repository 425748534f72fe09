"""Generated images as files that say that they are synthetic, and how they were made."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import Values
from rfxray.data.pixels import to_uint16
from rfxray.errors import ConfigError
from rfxray.outputs import dicom, files
from rfxray.sampling.sampler import Pictures

SAYS = {"Software": "rfxray", "Description": dicom.NOTE}


def describe(drawn: Pictures, i: int) -> dict[str, object]:
    """Everything that reproduces image i, as JSON values."""
    return {
        "synthetic": True,
        "index": int(drawn.indices[i]),
        "attributes": vocabulary.decode(drawn.attributes.rows(i)),
        **dataclasses.asdict(drawn.settings),
        **drawn.source,
    }


def save(drawn: Pictures, out: str | Path, extra: Mapping[str, object] | None = None) -> list[Path]:
    """Writes 16-bit PNGs and `samples.json`.

    Every PNG says in its text chunks what made it, and that it is synthetic.

    Args:
      drawn: Images from `generate`.
      out: Directory, made if absent.
      extra: Further entries of `samples.json`.

    Returns:
      Paths of the PNGs.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    paths, entries = [], []
    for i, image in enumerate(drawn.images):
        entry = describe(drawn, i)
        paths.append(out / f"sample_{i:05d}.png")
        files.save_png(paths[-1], to_uint16(image), {**SAYS, "rfxray": entry})
        entries.append({"file": paths[-1].name, **entry})
    sidecar = {**(extra or {}), "pictures": entries}
    files.write_whole(out / "samples.json", json.dumps(sidecar, indent=1) + "\n")
    return paths


def title(asked: Values, guidance: float) -> str:
    """Title of a contact sheet: what was requested of all its images, and the guidance."""
    values = ", ".join(f"{name}={value}" for name, value in asked.items())
    return f"synthetic: {values or 'nothing else requested'}, guidance {guidance:g}"


def save_sheet(out: Path, sheet: np.ndarray) -> None:
    """Writes a contact sheet, [height, width] uint8, as `grid.png` into a directory."""
    files.save_png(out / "grid.png", sheet, {"Description": "synthetic radiographs"})


def refuse_folder(out: Path) -> None:
    """Raises a ConfigError if no folder can be made or written there, before hours go into it."""
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ConfigError(f"cannot create the folder {out}: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{out} cannot be written: {there} does not permit it")
