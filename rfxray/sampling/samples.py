"""Generated images as files that say that they are synthetic, and how they were made."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from rfxray.attributes import vocabulary
from rfxray.command_line import refuse_address
from rfxray.data.pixels import to_uint16
from rfxray.errors import ConfigError
from rfxray.outputs import dicom, files
from rfxray.sampling import claims
from rfxray.sampling.sampler import Pictures
from rfxray.sampling.settings import Settings

SAYS = {"Software": "rfxray", "Description": dicom.NOTE}


def identity(settings: Settings, source: Mapping[str, object]) -> dict[str, object]:
    """What decides the images of a request, as JSON values: not how many are drawn at once."""
    said = dataclasses.asdict(settings)
    del said["batch_size"]
    return {**said, **by_content(source)}


def by_content(source: Mapping[str, object]) -> dict[str, object]:
    """The source of a model without where its checkpoint lay."""
    return {key: value for key, value in source.items() if key != "checkpoint"}


def describe(drawn: Pictures, i: int) -> dict[str, object]:
    """What the file of image i says: all that reproduces it, as JSON values.

    It names neither a path nor a command, so that the same image is the same file wherever its
    checkpoint lay; those are in `samples.json`.
    """
    return {
        "synthetic": True,
        "index": int(drawn.indices[i]),
        "attributes": vocabulary.decode(drawn.attributes.rows(i)),
        **identity(drawn.settings, drawn.source),
        "pixels_sha256": files.pixels_sha256(to_uint16(drawn.images[i])),
    }


def save(drawn: Pictures, out: str | Path, extra: Mapping[str, object] | None = None) -> list[Path]:
    """Writes 16-bit PNGs and `samples.json`.

    Every PNG says in its text chunks what made it, and that it is synthetic.

    Args:
      drawn: Images from `generate`.
      out: Folder that is absent, empty, or was written by `save` from the same images.
      extra: Further entries of `samples.json`.

    Returns:
      Paths of the PNGs.

    Raises:
      ConfigError: If the folder holds something else, or another process writes there.
    """
    out = Path(out)
    entries = [describe(drawn, i) for i in range(len(drawn.images))]
    digest = hashlib.sha256(json.dumps(entries).encode()).hexdigest()
    plan = {
        "kind": "rfxray.sampling.save",
        "n": len(entries),
        **identity(drawn.settings, drawn.source),
        "images_sha256": digest,
        **_record(drawn.source),
    }
    paths = [out / f"sample_{i:05d}.png" for i in range(len(entries))]
    with claims.held(out):
        if there := claims.read(out):
            claims.compare(out, there, plan)
        claims.begin(out, plan)
        for path, image, entry in zip(paths, drawn.images, entries, strict=True):
            files.save_png(path, to_uint16(image), {**SAYS, "rfxray": entry})
        listed = (
            {"file": path.name, "sha256": files.file_sha256(path), **entry}
            for path, entry in zip(paths, entries, strict=True)
        )
        write_index(out, {**(extra or {}), "plan": plan}, listed)
    return paths


def _record(source: Mapping[str, object]) -> dict[str, object]:
    """Entries of a plan for people."""
    return {"checkpoint": source.get("checkpoint"), "written_by": claims.written_by()}


def write_index(
    out: Path, head: Mapping[str, object], entries: Iterator[Mapping[str, object]]
) -> None:
    """Writes `samples.json` entry by entry, whole or not at all."""
    with files.whole_file(out / claims.INDEX) as temporary, temporary.open("w") as file:
        file.write(json.dumps({**head, "pictures": None}, indent=1).removesuffix("null\n}") + "[")
        for number, entry in enumerate(entries):
            file.write(("," if number else "") + "\n  " + json.dumps(entry))
        file.write("\n ]\n}\n")


def title(requested: Sequence[Mapping[str, object]], settings: Settings) -> str:
    """Title of a contact sheet: what all its images share, what differs between them, the guidance.

    Args:
      requested: Attributes requested of each image, as `vocabulary.decode` gives them.
      settings: Settings that the images were drawn with.
    """
    names = dict.fromkeys(name for attributes in requested for name in attributes)
    first = requested[0]
    same = [n for n in names if all(n in a and a[n] == first.get(n) for a in requested)]
    said = [", ".join(f"{name}={_value(first[name])}" for name in same)] if same else []
    if varying := [name for name in names if name not in same]:
        said.append(f"different {', '.join(varying)}")
    guidance = f"guidance {settings.guidance:g}"
    for group, weight in settings.weights:
        guidance += f", {'+'.join(group)} {weight:g}"
    return f"synthetic: {'; '.join(said) or 'nothing requested'}; {guidance}"


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def save_sheet(out: Path, sheet: np.ndarray) -> None:
    """Writes a contact sheet, [height, width] uint8, as `grid.png` into a directory."""
    files.save_png(out / "grid.png", sheet, {"Description": "synthetic radiographs"})


def refuse_folder(out: Path) -> None:
    """Raises a ConfigError if no folder can be made or written there, before hours go into it."""
    refuse_address(out)
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ConfigError(f"cannot create the folder {out}: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{out} cannot be written: {there} does not permit it")
