"""A set of pictures as a model of a smaller size would have them."""

import dataclasses
import hashlib

import numpy as np

from rfxray.command_line import require
from rfxray.evaluate.pictures import Pictures


def through(pictures: Pictures, side: int) -> Pictures:
    """The pictures as padded squares of `side` pixels, resized as those of a data set are."""
    require("prep", "cv2")
    from rfxray.data import canonical

    how = f"through {side}²"
    return dataclasses.replace(
        pictures,
        name=f"{pictures.name} {how}",
        boxes=None,
        fingerprint=hashlib.sha256(f"{pictures.fingerprint} {how}".encode()).hexdigest(),
        reading=f"{pictures.reading}; {how}, area averaged",
        load=lambda number: np.clip(canonical.to_square(pictures.load(number), side)[0], 0, 1),
    )
