"""Two small forms of an image, for finding one picture in another by its pixels.

The *edges* are the image between two Gaussian filters at `SIDE`², of zero mean and unit norm:
without brightness, contrast, the finest detail, and the slow shades that all chests share. The
*shades* are the image at `SMALL`², of zero mean and unit norm: what is left after a blur.
"""

import hashlib

import numpy as np
from einops import reduce
from jaxtyping import Float
from scipy import ndimage

from rfxray.evaluate.extractors.extractor import Extractor, Preprocessing

SIDE, SMALL = 64, 16  # pixels
FINE, WIDE = 1.0, 2.0  # sigmas of the filters, pixels of the template
_FLAT = 1e-6  # norm of an image without edges
_VERSION = 1  # changes with what a template is


def forms(images: Float[np.ndarray, "n side side 1"]) -> Float[np.ndarray, "n width"]:
    """Edges and shades of images; 0 for one that has none.

    Args:
      images: Images, [n, SIDE, SIDE, 1] float32 in [0, 1].

    Returns:
      [n, SIDE² + SMALL²] float32; `edges` and `shades` are its parts.
    """
    whole = images[..., 0]
    band = ndimage.gaussian_filter(whole, (0, FINE, FINE), mode="nearest")
    band -= ndimage.gaussian_filter(whole, (0, WIDE, WIDE), mode="nearest")
    small = reduce(whole, "n (h a) (w b) -> n h w", "mean", h=SMALL, w=SMALL)
    return np.concatenate([_normalised(band), _normalised(small)], 1)


def edges(rows: Float[np.ndarray, "n width"]) -> Float[np.ndarray, "n edges"]:
    return rows[:, : SIDE * SIDE]


def shades(rows: Float[np.ndarray, "n width"]) -> Float[np.ndarray, "n shades"]:
    return rows[:, SIDE * SIDE :]


def spectra(rows: Float[np.ndarray, "n width"]) -> Float[np.ndarray, "n spectra"]:
    """Amplitudes of the edges up to 15 cycles, which a shift leaves as they are; of unit norm.

    Their square roots, as one strong frequency would decide otherwise.
    """
    found = np.abs(np.fft.rfft2(edges(rows).reshape(-1, SIDE, SIDE)))
    found = np.sqrt(found[:, np.r_[:16, -15:0], :16].reshape(len(rows), -1))
    return (found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), _FLAT)).astype("f4")


def _normalised(images: np.ndarray) -> np.ndarray:
    rows = images.reshape(len(images), -1)
    rows = rows - rows.mean(1, keepdims=True)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(norms > _FLAT, rows / np.maximum(norms, _FLAT), 0).astype(np.float32)


def open_template() -> Extractor:
    """Both forms as an extractor, so that they are streamed, resumed and cached as features are."""
    decides = f"{_VERSION} {SIDE} {SMALL} {FINE} {WIDE}"
    return Extractor(
        name="template",
        hash=hashlib.sha256(decides.encode()).hexdigest(),
        width=SIDE * SIDE + SMALL * SMALL,
        preprocessing=Preprocessing(SIDE, "pad", "area", False, 1, (0.0,), (1.0,)),
        features=forms,
        trained_on=(),
    )
