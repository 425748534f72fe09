"""Pictures as files that say of themselves that they are synthetic, and how they were made."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path

from rfxray.attributes import vocabulary
from rfxray.data.pixels import to_uint16
from rfxray.errors import ConfigError
from rfxray.outputs import dicom, files
from rfxray.sampling.sampler import Pictures

SAYS = {"Software": "rfxray", "Description": dicom.NOTE}


def describe(drawn: Pictures, i: int) -> dict[str, object]:
    """All that reproduces picture i, as JSON values."""
    return {
        "synthetic": True,
        "index": int(drawn.indices[i]),
        "attributes": vocabulary.decode(drawn.attributes.rows(i)),
        **dataclasses.asdict(drawn.settings),
        **drawn.source,
    }


def save(drawn: Pictures, out: str | Path, extra: Mapping[str, object] | None = None) -> list[Path]:
    """Writes 16-bit PNGs and `samples.json`.

    Every PNG carries what made it as text, and says that it is synthetic.

    Args:
      drawn: from `generate`.
      out: a directory, made where it is absent.
      extra: further entries of `samples.json`.

    Returns:
      the paths of the PNGs.
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
    files.write_whole(out / "samples.json", (json.dumps(sidecar, indent=1) + "\n").encode())
    return paths


def refuse_folder(out: Path) -> None:
    """Raises a ConfigError where no folder can be made or written, before hours go into it."""
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ConfigError(f"{out} can be no folder: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{out} cannot be written: {there} does not permit it")
