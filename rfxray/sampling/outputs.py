"""Pictures as files that say of themselves that they are synthetic, and how they were made."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from rfxray import conditioning, pictures
from rfxray.input import to_uint16
from rfxray.sampling.generate import Pictures

SAYS = {"Software": "rfxray", "Description": "synthetic radiograph, not of a person"}


def describe(drawn: Pictures, i: int) -> dict[str, object]:
    """All that reproduces picture i, as JSON values."""
    return {
        "synthetic": True,
        "index": int(drawn.indices[i]),
        "attributes": conditioning.decode(drawn.attributes[i], drawn.known[i]),
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
        pictures.save_png(paths[-1], to_uint16(image), {**SAYS, "rfxray": entry})
        entries.append({"file": paths[-1].name, **entry})
    sidecar = {**(extra or {}), "pictures": entries}
    (out / "samples.json").write_text(json.dumps(sidecar, indent=1) + "\n")
    return paths
