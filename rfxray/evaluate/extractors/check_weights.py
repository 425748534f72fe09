"""Features of a built-in picture: the figures by which two machines know the same weights."""

import dataclasses

import numpy as np
from jaxtyping import Float

from rfxray.errors import DataError
from rfxray.evaluate.extractors.extractor import Extractor
from rfxray.evaluate.extractors.twins import Twin

SHOWN = 6  # features of a line
TOLERANCE = 1e-4  # largest difference from the twin, as a share of its largest feature


def picture(side: int = 640) -> Float[np.ndarray, "{side} {side}"]:
    """A smooth picture [side, side] float32 in [0, 1], the same bits on every machine.

    Two triangle waves across each other and a disc: whole numbers divided once, so that no library
    of functions decides its last bit.
    """
    y, x = np.mgrid[:side, :side].astype(np.int64)
    waves = [np.abs((a * x + b * y) % 256 - 128) for a, b in ((3, 1), (-1, 2))]
    disc = np.maximum(side**2 // 9 - (x - side // 2) ** 2 - (y - side // 3) ** 2, 0) * 256
    levels = waves[0] + waves[1] + disc // (side**2 // 9)
    return (levels / 512).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Checked:
    """Features of the built-in picture.

    Attributes:
      features: Our features [width] float32.
      scores: Scores by name, if the extractor has any.
      twin: Features of the PyTorch original [width], or None without it.
      difference: Largest difference, as a share of the twin's largest feature, or None.
    """

    features: np.ndarray
    scores: dict[str, float]
    twin: np.ndarray | None
    difference: float | None


def check(extractor: Extractor, twin: Twin | None) -> Checked:
    """Features of the built-in picture by an extractor, and by its twin if there is one.

    Raises:
      DataError: If the two differ by more than `TOLERANCE`.
    """
    images = extractor.preprocessing.prepare(picture())[None]
    ours = extractor.features(images)[0]
    answers = {} if extractor.scores is None else extractor.scores(images)
    scores = {name: float(values[0]) for name, values in answers.items()}
    if twin is None:
        return Checked(ours, scores, None, None)
    theirs = twin(images)[0]
    difference = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    if not difference <= TOLERANCE:
        raise DataError(
            f"features of {extractor.name} differ from its PyTorch original by {difference:.1e} of "
            f"the largest (allowed: {TOLERANCE:g}); do not use these weights"
        )
    return Checked(ours, scores, theirs, difference)
