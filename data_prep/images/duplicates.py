"""The same radiograph twice, within a set or across sets; and the patients that it ties together.

Exact: equal decoded pixels. Near: between patients, first by perceptual hash, which is cheap and
wrong at times (radiographs all look alike), then confirmed by registered correlation: thumbnails of
128² without their low frequencies, correlated at every shift of a few pixels.

Measured (`python -m benchmarks.duplicates`) on 151 frontal radiographs of 48 patients of one
hospital, 10,783 pairs of different patients: their hashes differ in 68 of 256 bits or more, their
correlation is 0.35 at most, that of two films of one patient 0.58. Of 2.0M pairs of phantoms, more
alike than people are, 525 are within 40 bits and none is taken for a copy, if barely (0.80). A copy
(JPEG at quality 50, half or 0.6 of the size, gamma 1.5, squashed to a square) stays within 26 bits
and above 0.96. Of copies cropped by 1% at every side, 87 of 151 are found, by 2% none; a marker
burned in later hides 1 of 151.

A second film of the same patient is not a duplicate, however alike: only exact copies are dropped
within a patient.
"""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from data_prep.images.survey import HASH_SIDE

HASH_BITS = 40  # of 256 that may differ
CORRELATION = 0.8
SHIFT = 8  # pixels of 128, either way
SMOOTHING = 3.0  # pixels of 128: what is wider (the outline of any chest) is left out
BAND_BITS = 16
NEIGHBOURS = 32  # compared in each of the 16 orders

THRESHOLDS = {
    "hash_bits_of_256": HASH_BITS,
    "registered_correlation": CORRELATION,
    "shift_pixels_of_128": SHIFT,
    "smoothing_pixels_of_128": SMOOTHING,
}


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two rows, by index, that show the same radiograph; `correlation` is 1 for equal pixels."""

    first: int
    second: int
    correlation: float


def exact_pairs(digests: Sequence[bytes]) -> list[Pair]:
    """Each row with the pixels of an earlier row, with the first such row."""
    first: dict[bytes, int] = {}
    pairs = []
    for index, digest in enumerate(digests):
        earlier = first.setdefault(digest, index)
        if earlier != index:
            pairs.append(Pair(earlier, index, 1.0))
    return pairs


def candidates(hashes: np.ndarray) -> np.ndarray:
    """Pairs of rows with hashes that differ in at most `HASH_BITS` bits, int64 [pairs, 2].

    The hashes are sorted 16 times, each time by another 16 of their bits first, and each compared
    with its next `NEIGHBOURS`: near copies agree in at least one such band. Memory and time grow
    with the number of hashes, not with its square.

    Args:
      hashes: Hashes, uint8 [rows, 32].
    """
    if len(hashes) < 2:
        return np.zeros((0, 2), np.int64)
    # A band of neighbouring frequencies is alike in all chests: deal the bits out over the bands
    order = np.random.default_rng(0).permutation(HASH_SIDE**2)
    dealt = np.packbits(np.unpackbits(hashes, axis=1)[:, order], axis=1)
    words = np.ascontiguousarray(hashes).view(np.uint64)
    found = []
    for band in range(0, HASH_SIDE**2 // 8, BAND_BITS // 8):
        first = np.ascontiguousarray(np.roll(dealt, -band, axis=1)[:, :8])  # 64 bits decide
        ranked = np.argsort(first.view(">u8").ravel(), kind="stable")
        for step in range(1, min(NEIGHBOURS, len(ranked) - 1) + 1):
            one, other = ranked[:-step], ranked[step:]
            differing = np.bitwise_count(words[one] ^ words[other]).sum(axis=1)
            near = differing <= HASH_BITS
            found.append(np.sort(np.stack([one[near], other[near]], axis=1), axis=1))
    return np.unique(np.concatenate(found), axis=0).astype(np.int64)


def registered_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """The highest correlation of the detail of two [128, 128] uint8 over shifts; in [-1, 1]."""
    inner = _detail(other)[SHIFT:-SHIFT, SHIFT:-SHIFT]
    return float(cv2.matchTemplate(_detail(one), inner, cv2.TM_CCOEFF_NORMED).max())


def _detail(thumbnail: np.ndarray) -> np.ndarray:
    image = thumbnail.astype(np.float32)
    return image - cv2.GaussianBlur(image, (0, 0), SMOOTHING)
