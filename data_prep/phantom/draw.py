"""Radiographs of phantoms: attenuation to grey, side markers, quantum noise."""

import functools

import numpy as np

from data_prep.phantom import anatomy, frontal, lateral
from data_prep.phantom.noise import Noise
from data_prep.phantom.patient import Patients
from data_prep.phantom.raster import band, grid, segment
from rfxray.attributes.vocabulary import INDEX
from rfxray.data.markers import MARKER_BOXES
from rfxray.errors import ConfigError

SIZES = (32, 1024)
_LATERAL = 2  # index among the views


# Strokes within the marker's box: x0, y0, x1, y1.
_STROKES = {
    "R": (
        (0.25, 0.12, 0.25, 0.75),
        (0.25, 0.12, 0.65, 0.17),
        (0.65, 0.17, 0.72, 0.30),
        (0.72, 0.30, 0.62, 0.43),
        (0.62, 0.43, 0.25, 0.46),
        (0.45, 0.46, 0.78, 0.75),
    ),
    "L": ((0.25, 0.12, 0.25, 0.75), (0.25, 0.75, 0.75, 0.75)),
}


# As many pixels are worked on at once as keep a layer (1 MiB of float32) within the cache.
_PIXELS_AT_ONCE = 2**18


def draw_images(
    attributes: np.ndarray,
    seed: int,
    indices: np.ndarray,
    size: int,
    heart: np.ndarray | None = None,
) -> np.ndarray:
    """The radiographs of some patients, uint16 [n, size, size], white is 65535.

    Picture i depends only on its attributes, the seed and its own index. Changing an attribute
    changes what that attribute draws; the patient's anatomy and noise stay.

    Args:
      attributes: True values [n, 19]; race and source are not looked at.
      seed, indices: Patients, as given to `draw_attributes`.
      size: Pixels of a side, 32 to 1024.
      heart: Cardiothoracic ratios [n], see `interacting`; None lets them follow from cardiomegaly.

    Raises:
      ConfigError: For a size that cannot be drawn.
    """
    if not SIZES[0] <= size <= SIZES[1]:
        raise ConfigError(f"a phantom is {SIZES[0]} to {SIZES[1]} pixels a side, not {size}")
    patients = Patients(np.asarray(attributes, np.float32), Noise(seed, np.asarray(indices)), heart)
    images = np.empty((len(patients), size, size), np.uint16)
    at_once = max(1, _PIXELS_AT_ONCE // size**2)
    sideways = patients.attributes[:, INDEX["view"]] == _LATERAL
    for rows, draw in ((~sideways, frontal.draw), (sideways, lateral.draw)):
        rows = np.flatnonzero(rows)
        for start in range(0, len(rows), at_once):
            part = rows[start : start + at_once]
            images[part] = _expose(patients.take(part), draw(patients.take(part), size), size)
    return images


def truth(attributes: np.ndarray, seed: int, indices: np.ndarray) -> dict[str, np.ndarray]:
    """What the geometry says of the pictures: `cardiothoracic_ratio` float32 [n], NaN for lateral
    views, where there is none."""
    patients = Patients(np.asarray(attributes, np.float32), Noise(seed, np.asarray(indices)))
    ratio = anatomy.cardiothoracic_ratio(patients)[:, 0, 0]
    sideways = patients.attributes[:, INDEX["view"]] == _LATERAL
    return {"cardiothoracic_ratio": np.where(sideways, np.nan, ratio).astype(np.float32)}


def _expose(patients: Patients, attenuation: np.ndarray, size: int) -> np.ndarray:
    contrast = patients.normal("exposure/contrast", 0.04, 1.0)
    offset = patients.normal("exposure/offset", 0.018)
    # A film's curve: nothing is blacker than the background, the densest parts run together.
    grey = np.maximum(attenuation * contrast + offset, 0)
    grey = 0.02 + 0.96 * np.tanh(grey * 1.15)
    # A pixel a quarter the size catches a quarter of the quanta; half of that law, as after the
    # edge-preserving smoothing of a detector's software: 0.007 at 64², 0.014 at 256².
    sigma = 0.007 * (size / 64) ** 0.5
    grain = patients.noise.normal("exposure/grain", size, size)
    grey += sigma * grain * (0.5 + grey)
    marker = _marker(patients, size)
    grey += (0.97 - grey) * marker
    return (np.clip(grey, 0, 1) * 65535).astype(np.uint16)


def _marker(patients: Patients, size: int) -> np.ndarray:
    """An R or an L of lead; a portable machine's marker is underlined."""
    right = patients.chance("marker/right", 0.5) > 0.5
    ink, bar = (np.where(right, *pair) for pair in zip(*_glyphs(size), strict=True))
    return np.maximum(ink, patients.supine * bar)


@functools.lru_cache(maxsize=8)
def _glyphs(size: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """(letter, the bar below it), each [1, size, size], for R and for L."""
    x, y = grid(size)
    width = 2 / size
    glyphs = []
    for letter, strokes in _STROKES.items():
        left, top, right, bottom = MARKER_BOXES[letter]
        u, v = (x - left) / (right - left), (y - top) / (bottom - top)
        # Distances are taken in a box made square by the mean of its sides.
        scale = (right - left + bottom - top) / 2
        near = np.minimum.reduce([segment(u, v, *stroke) for stroke in strokes])
        bar = segment(u, v, 0.1, 0.93, 0.9, 0.93)
        glyphs.append((band(near * scale, 0.014, width), band(bar * scale, 0.012, width)))
    return tuple(glyphs)
