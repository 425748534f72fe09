"""What a person needs to look at steps that the guard kept out of a run."""

import json
from pathlib import Path

import jax
import numpy as np

from rfxray.data import batches
from rfxray.data.faults import Faults
from rfxray.outputs import contact_sheet, files
from rfxray.training import skip_guard


def line(config, datasets, skip: skip_guard.Skip, faults: Faults) -> str:
    """The log line of a skipped step, with its examples; `faults` as for `input.batches`."""
    (worst,) = batches.records_at(config, datasets, [skip.worst], faults)
    return (
        f"step {skip.step}: skipped, the gradient norm is {skip.norm:.3g}; examples {skip.first} "
        f"to {skip.first + config.batch_size - 1}, the largest loss at {skip.worst} "
        f"({worst['key']})"
    )


def keep(workdir: Path, config, datasets, state: dict, step: int, faults: Faults) -> Path:
    """Writes down the skipped steps that a guard remembers.

    Args:
      workdir, config, datasets: of the run.
      state: the guard, fetched.
      step: that the run stops at.
      faults: as for `input.batches`.

    Returns:
      a folder with `skips.json` (each step, its gradient norm and the keys of its examples) and,
      of the last one, `batch.png` and `batch.npz` (`image` uint16, `attributes`, `states`).
    """
    folder = workdir / "skipped" / f"step_{step:08d}"
    if jax.process_index():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for skip in skip_guard.remembered(state):
        places = range(skip.first, skip.first + config.batch_size)
        batch = batches.records_at(config, datasets, places, faults)
        (worst,) = batches.records_at(config, datasets, [skip.worst], faults)
        rows.append(
            {
                "step": skip.step,
                "gradient_norm": str(skip.norm),  # inf and nan are no JSON numbers
                "largest_loss": {"example": skip.worst, "key": worst["key"]},
                "examples": [skip.first, places[-1]],
                "keys": [each["key"] for each in batch],
            }
        )
    (folder / "skips.json").write_text(json.dumps(rows, indent=1) + "\n")
    arrays = {
        key: np.stack([each[key] for each in batch]) for key in ("image", "attributes", "states")
    }
    np.savez_compressed(folder / "batch.npz", **arrays)
    files.save_png(
        folder / "batch.png", contact_sheet.grid((arrays["image"] >> 8).astype(np.uint8))
    )
    return folder
