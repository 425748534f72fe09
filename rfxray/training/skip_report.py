"""What a person needs to look at steps that the guard kept out of a run."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np

from rfxray.data.batches import Mixture, records_at
from rfxray.errors import NonFiniteError
from rfxray.outputs import contact_sheet
from rfxray.outputs.files import save_png, write_whole
from rfxray.training import skip_guard


@dataclasses.dataclass
class SkipReport:
    """Reports skipped steps, and says when there are too many.

    Args:
      workdir: Path of the run.
      mixture: What the run reads.
      batch_size: Examples of a step.
      limit: Skipped steps within `window` that end the run.
      window: Steps.
      seen: Skipped steps that were reported before.
    """

    workdir: Path
    mixture: Mixture
    batch_size: int
    limit: int
    window: int
    seen: int = 0

    def new(self, guard: skip_guard.Guard) -> tuple[list[str], bool]:
        """A line for each step skipped since the last call, oldest first, with its examples; and
        whether there are too many now. Of very many only the last ones are listed.

        Args:
          guard: The guard, fetched.
        """
        count = int(guard["skipped"]) - self.seen
        self.seen += count
        new = skip_guard.remembered(guard)[-count:] if count else []
        return [self._line(skip) for skip in new], skip_guard.too_many(
            guard, new, self.limit, self.window
        )

    def _line(self, skip: skip_guard.Skip) -> str:
        (worst,) = records_at(self.mixture, [skip.worst])
        return (
            f"step {skip.step}: skipped, the gradient norm is {skip.norm:.3g}; examples "
            f"{skip.first} to {skip.first + self.batch_size - 1}, the largest loss at {skip.worst} "
            f"({worst['key']})"
        )

    def too_many(self, guard: skip_guard.Guard, step: int) -> NonFiniteError:
        """The error that ends the run at a step, its evidence written."""
        return NonFiniteError(
            f"{self.limit} steps or more within {self.window} had a gradient that is not finite or "
            f"explodes; saved at step {step}; look at {self._keep(guard, step)}"
        )

    def _keep(self, guard: skip_guard.Guard, step: int) -> Path:
        """Writes what the guard remembers.

        Returns:
          A folder with `skips.json` (each step, its gradient norm and the keys of its examples)
          and, of the last one, `batch.png` and `batch.npz` (`image` uint16, `attributes`,
          `states`).
        """
        folder = self.workdir / "skipped" / f"step_{step:08d}"
        if jax.process_index():
            return folder
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for skip in skip_guard.remembered(guard):
            places = range(skip.first, skip.first + self.batch_size)
            batch = records_at(self.mixture, places)
            (worst,) = records_at(self.mixture, [skip.worst])
            rows.append(
                {
                    "step": skip.step,
                    "gradient_norm": str(skip.norm),  # inf and nan are no JSON numbers
                    "largest_loss": {"example": skip.worst, "key": worst["key"]},
                    "examples": [skip.first, places[-1]],
                    "keys": [each["key"] for each in batch],
                }
            )
        write_whole(folder / "skips.json", (json.dumps(rows, indent=1) + "\n").encode())
        arrays = {
            key: np.stack([each[key] for each in batch])
            for key in ("image", "attributes", "states")
        }
        np.savez_compressed(folder / "batch.npz", **arrays)
        grid = contact_sheet.grid((arrays["image"] >> 8).astype(np.uint8))
        save_png(folder / "batch.png", grid)
        return folder
