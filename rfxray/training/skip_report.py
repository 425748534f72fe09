"""Reports what a person needs to investigate skipped steps."""

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
    """Reports skipped steps and whether there are too many.

    Args:
      workdir: Folder of the run.
      mixture: What the run reads.
      batch_size: Examples of a step.
      limit: Number of skipped steps within `window` that ends the run.
      window: Number of steps.
      seen: Number of skipped steps that are already reported.
    """

    workdir: Path
    mixture: Mixture
    batch_size: int
    limit: int
    window: int
    seen: int = 0

    def new(self, guard: skip_guard.Guard) -> tuple[list[str], bool]:
        """Log lines for the steps skipped since the last call, and whether there are too many.

        Args:
          guard: The guard, fetched.

        Returns:
          Lines with the examples of each step, oldest first, at most for the last steps that the
          guard remembers; and whether the run must end.
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
            f"step {skip.step}: skipped, gradient norm {skip.norm:.3g}; examples {skip.first} to "
            f"{skip.first + self.batch_size - 1}, largest loss at {skip.worst} ({worst['key']})"
        )

    def too_many(self, guard: skip_guard.Guard, step: int, before: str) -> NonFiniteError:
        """Writes the evidence and returns the error that ends the run at a step.

        Args:
          guard: The guard, fetched.
          step: Step at which the state is saved.
          before: Text that names the newest checkpoint from before the skipped steps.
        """
        return NonFiniteError(
            f"{self.limit} or more of {self.window} steps were skipped, because their gradient was "
            f"not finite or exploded; saved at step {step}; see {self._keep(guard, step)}; "
            f"{before}"
        )

    def _keep(self, guard: skip_guard.Guard, step: int) -> Path:
        """Writes what the guard remembers.

        Returns:
          Folder with `skips.json` (for each step its gradient norm and the keys of its examples)
          and, for the last step, `batch.png` and `batch.npz` (`image` uint16, `attributes`,
          `states`).
        """
        folder = self.workdir / "skipped" / f"step_{step:08d}"
        if jax.process_index():
            return folder
        folder.mkdir(parents=True, exist_ok=True)
        rows, batch = [], []
        for skip in skip_guard.remembered(guard):
            places = range(skip.first, skip.first + self.batch_size)
            batch = records_at(self.mixture, places)
            (worst,) = records_at(self.mixture, [skip.worst])
            rows.append(
                {
                    "step": skip.step,
                    "gradient_norm": str(skip.norm),  # JSON has no inf and nan
                    "largest_loss": {"example": skip.worst, "key": worst["key"]},
                    "examples": [skip.first, places[-1]],
                    "keys": [each["key"] for each in batch],
                }
            )
        write_whole(folder / "skips.json", (json.dumps(rows, indent=1) + "\n").encode())
        images = np.stack([each["image"] for each in batch])
        np.savez_compressed(
            folder / "batch.npz",
            image=images,
            attributes=np.stack([each["attributes"] for each in batch]),
            states=np.stack([each["states"] for each in batch]),
        )
        grid = contact_sheet.grid((images >> 8).astype(np.uint8))
        save_png(folder / "batch.png", grid)
        return folder
