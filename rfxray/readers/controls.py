"""Controls of a study: real images that were changed, shown among the cases.

A degraded image was changed by a known strength; a reconstruction went through an autoencoder.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from rfxray.errors import ConfigError, DataError
from rfxray.readers import degrade
from rfxray.readers.candidates import Candidate
from rfxray.readers.key import DEGRADED, RECONSTRUCTED
from rfxray.readers.matching import Drawn, Source

LEAST = 6  # degraded images: of five pairs that are all found the interval still holds .5


@dataclasses.dataclass(frozen=True)
class Control:
    """A control that was made.

    Attributes:
      kind: `DEGRADED` or `RECONSTRUCTED`.
      change: What was done to the image.
      original: Image before.
      altered: Image after.
    """

    kind: str
    change: str
    original: Drawn
    altered: Drawn


def refuse_few(count: int) -> None:
    """Raises a ConfigError unless this number of degraded images can show attention."""
    if count and count < LEAST:
        raise ConfigError(
            f"--degraded must be 0 or at least {LEAST}: fewer cannot show that a reader looked "
            f"(got {count})"
        )


def make(
    source: Source,
    real: Sequence[Candidate],
    degraded: int,
    reconstructions: Sequence[Candidate],
    reconstructed: int,
    rng: np.random.Generator,
) -> list[Control]:
    """Controls from real images of patients that have no other image in the study.

    Args:
      source: What draws images; it has drawn the cases.
      real: Real images.
      degraded: Number of degraded images.
      reconstructions: Reconstructions of real images, under the same keys or names of files.
      reconstructed: Number of them to show.
      rng: Source of noise.

    Raises:
      DataError: If there are too few images, or a reconstruction has no original.
    """
    found = []
    # Originals that have a reconstruction are the scarcer ones
    if reconstructed:
        pairs = _paired(real, reconstructions)
        originals = source.singles([first for first, _ in pairs.values()], reconstructed)
        for original in originals:
            altered = source.again(pairs[original.name][1])
            found.append(Control(RECONSTRUCTED, "reconstruction", original, altered))
    for number, original in enumerate(source.singles(real, degraded)):
        change, image = degrade.degraded(original.image, number, rng)
        altered = dataclasses.replace(original, image=image)
        found.append(Control(DEGRADED, change, original, altered))
    return found


def _paired(
    real: Sequence[Candidate], reconstructions: Sequence[Candidate]
) -> dict[str, tuple[Candidate, Candidate]]:
    """Originals with their reconstructions, by the name of the original."""
    by_name = {_stem(each.name): each for each in reconstructions}
    if len(by_name) < len(reconstructions):
        raise DataError("two reconstructions have the same name; give each original one")
    found = {
        each.name: (each, by_name[_stem(each.name)]) for each in real if _stem(each.name) in by_name
    }
    if not found:
        raise DataError(
            f"no reconstruction has the key or file name of a real image, such as {real[0].name}; "
            f"the first is {reconstructions[0].name}"
        )
    return found


def _stem(name: str) -> str:
    """The last part of a key or path, without the ending of a file."""
    return PurePosixPath(name).stem
