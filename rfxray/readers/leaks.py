"""What tells synthetic images from real ones without being what readers judge.

Size, bit depth, format, metadata and bytes of the files are the same by construction (`encode`),
and are measured nevertheless. What an earlier file leaves in the pixels is measured too: missing
grey levels (8 bits that were stretched), the grid of JPEG's blocks and what a resize makes of it,
constant borders, burned-in text. A difference there blocks a study. Content (brightness, detail,
spectrum, histogram) is what readers see, so it is reported only.

The level is one for all checks together: real and synthetic are exchanged at random within the
strata, and a check blocks if its p is smaller than the smallest p of any check in all except 1% of
the exchanges (Westfall and Young 1993, Resampling-Based Multiple Testing, min-p).
"""

import dataclasses
import io
import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from scipy import stats

from rfxray.errors import DataError
from rfxray.readers import traces

FALSE_ALARM = 0.01  # share of clean studies that are blocked, over all checks together
TEXT, GRID = "burned-in text", "JPEG blocks or resize"
EXCHANGES = 4999  # the smallest p is 1/5000
FOLDS = 5  # of the cross-validation of a content classifier
DRAWN = {b"IHDR", b"IDAT", b"IEND", b"zpAd"}  # chunks that `encode` writes


@dataclasses.dataclass(frozen=True)
class Leak:
    """One check.

    Attributes:
      feature: What was measured.
      auc: AUC of the feature for "synthetic".
      p: p over all checks that may block together; None if this one may not.
    """

    feature: str
    auc: float
    p: float | None

    def blocks(self) -> bool:
        """Whether the study must not be released."""
        return self.p is not None and self.p <= FALSE_ALARM


def shown(image: np.ndarray) -> np.ndarray:
    """The image that a reader sees: [side, side] uint16 as uint8, rounded down."""
    return (image >> 8).astype(np.uint8)


def encode(images: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """8-bit PNGs of equal length without metadata.

    Args:
      images: Images by name, [side, side] uint8.
    """
    encoded = {}
    for name, image in images.items():
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG", optimize=True)
        encoded[name] = buffer.getvalue()
    longest = max(map(len, encoded.values()))
    return {name: _padded(data, longest - len(data)) for name, data in encoded.items()}


def _padded(png: bytes, more: int) -> bytes:
    """A PNG with an ignored chunk of zeros before its end (12 bytes), so that lengths are equal."""
    kind_and_data = b"zpAd" + bytes(more)
    chunk = struct.pack(">I", more) + kind_and_data
    return png[:-12] + chunk + struct.pack(">I", zlib.crc32(kind_and_data)) + png[-12:]


def check(
    images: Sequence[np.ndarray],
    files: Mapping[str, bytes],
    truth: np.ndarray,
    strata: Sequence[str],
    model_grid: float | None = None,
) -> list[Leak]:
    """Compares real and synthetic images, feature by feature.

    Args:
      images: Images, [side, side] uint8.
      files: Files of the images by name, in the same order.
      truth: `[n] bool`, true for synthetic.
      strata: Stratum of each image; every stratum has real and synthetic ones.
      model_grid: Period in pixels of a grid that the model of synthetic images makes, such as of
        its patches: readers may see it, so it is content.
    """
    places = {name: float(k) for k, name in enumerate(sorted(files))}
    rows = [
        {**left_behind(image, data), "order of files": places[name]}
        for image, (name, data) in zip(images, files.items(), strict=True)
    ]
    values = np.array([list(row.values()) for row in rows])
    grids = [traces.grids(image, model_grid) for image in images]
    strengths = np.array([list(grid.values()) for grid in grids])
    texts = np.array([row[TEXT] for row in rows])
    _, stratum = np.unique(list(strata), return_inverse=True)
    p, most = adjusted(values, strengths, texts, truth, stratum)
    found = [
        Leak(name, _area(column, truth), each)
        for name, column, each in zip(rows[0], values.T, p, strict=False)
    ]
    period = list(grids[0])[most]
    named = f"{GRID} ({period:.1f} pixels)"
    found.append(Leak(named, _area(strengths[:, most], truth), p[-2]))
    found.append(Leak(f"{TEXT} by stratum", _by_stratum(texts, truth, stratum), p[-1]))
    looks = [traces.looks(image) for image in images]
    for name in looks[0]:
        found.append(Leak(name, _area(np.array([row[name] for row in looks]), truth), None))
    for content in (traces.spectrum, traces.histogram):
        seen = np.array([content(image) for image in images])
        found.append(Leak(content.__name__, _area(_classified(seen, truth), truth), None))
    return found


def adjusted(
    values: np.ndarray,
    grids: np.ndarray,
    texts: np.ndarray,
    truth: np.ndarray,
    stratum: np.ndarray,
    exchanges: int = EXCHANGES,
) -> tuple[list[float], int]:
    """p of each check, adjusted for all of them, and the grid that differs most.

    Args:
      values: `[n, features]`.
      grids: `[n, periods]`, one check together: the largest deviation of any.
      texts: `[n]`, 1 for an image with text.
      truth: `[n] bool`.
      stratum: `[n] int`, within which truth is exchanged.
      exchanges: Number of them.

    Returns:
      p of the features, of grids and of text by stratum; index of a period.
    """
    rng = np.random.default_rng(0)  # the same study has the same p
    draws = rng.random((exchanges + 1, len(truth)), np.float32)
    draws[0] = ~truth  # the first is what was found
    exchanged = np.zeros(draws.shape)
    ranks = stats.rankdata(np.column_stack([values, grids]), axis=0)
    by_stratum = np.zeros(len(draws))
    for each in np.unique(stratum):
        own = np.flatnonzero(stratum == each)
        chosen = np.argsort(draws[:, own], axis=1)[:, : int(truth[own].sum())]
        np.put_along_axis(exchanged, own[chosen], 1, axis=1)
        ranks[own] -= ranks[own].mean(0)
        centred = texts[own] - texts[own].mean()
        if (spread := centred @ centred) > 0:
            by_stratum += (exchanged[:, own] @ centred) ** 2 / spread
    sums = np.abs(exchanged @ ranks)
    grid = sums[:, values.shape[1] :]
    grid = grid / np.maximum(grid.std(0), 1e-9)
    statistics = np.column_stack([sums[:, : values.shape[1]], grid.max(1), by_stratum])
    # Equal sums are equal in whatever order they were added
    statistics = np.round(statistics, 6)
    single = 1 - (stats.rankdata(statistics, "min", axis=0) - 1) / len(draws)
    p = (single.min(1)[:, None] <= single[0] + 1e-12).mean(0)
    return p.tolist(), int(grid[0].argmax())


def refuse(found: Sequence[Leak]) -> None:
    """Raises a DataError if a check blocks the study."""
    if blocking := [leak for leak in found if leak.blocks()]:
        grid = any(leak.feature.startswith(GRID) for leak in blocking)
        named = ", ".join(f"{x.feature} (AUC {x.auc:.2f}, p {x.p:.1g})" for x in blocking)
        raise DataError(
            f"the images leak what is synthetic: {named}; prepare both sets alike (same format, "
            "bit depth, crop, markers), or match by that feature"
            + ("; a grid of the model's own patches: --model-grid" if grid else "")
        )


def refuse_imbalance(lefts: int, count: int) -> None:
    """Raises a DataError unless the synthetic image is as often left as right (within one)."""
    if abs(2 * lefts - count) > 1:
        raise DataError(
            f"the synthetic image is left in {lefts} of {count} pairs; it must be in half of them"
        )


def _area(values: np.ndarray, truth: np.ndarray) -> float:
    ranks = stats.rankdata(values)[truth]
    count = len(ranks)
    return float((ranks.sum() - count * (count + 1) / 2) / count / (len(truth) - count))


def _by_stratum(texts: np.ndarray, truth: np.ndarray, stratum: np.ndarray) -> float:
    """The mean AUC of text over strata, whichever of the two kinds has more of it."""
    areas, sizes = [], []
    for each in np.unique(stratum):
        own = stratum == each
        area = _area(texts[own], truth[own])
        areas.append(max(area, 1 - area))
        sizes.append(own.sum())
    return float(np.average(areas, weights=sizes))


def left_behind(image: np.ndarray, file: bytes) -> dict[str, float]:
    """What an earlier file left in the pixels of an image, and the facts of its file, by name."""
    with Image.open(io.BytesIO(file)) as opened:
        width, height = opened.size
        depth = file[24] * (1 + 10 * (opened.mode not in ("L", "I;16")))
    return {
        "grey levels": traces.grey_levels(image),
        "border": traces.border(image),
        TEXT: float(traces.burned_in(image)),
        "bytes": float(len(file)),
        "width": float(width),
        "height": float(height),
        "bit depth": float(depth),
        "metadata": float(_metadata(file)),
    }


def _metadata(png: bytes) -> int:
    """Bytes of the chunks of a PNG that `encode` does not write: text, EXIF, colour profiles."""
    total, at = 0, 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        total += 0 if png[at + 4 : at + 8] in DRAWN else 12 + length
        at += 12 + length
    return total


def _classified(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Scores of a linear discriminant that did not see the image it judges, `[n]`."""
    scores = np.zeros(len(truth))
    fold = np.zeros(len(truth), int)
    folds = min(FOLDS, int(truth.sum()), int((~truth).sum()))
    for side in (truth, ~truth):
        fold[side] = np.arange(side.sum()) % folds
    for k in range(folds):
        kept = fold != k
        real, synthetic = values[kept & ~truth], values[kept & truth]
        rest = np.concatenate([real - real.mean(0), synthetic - synthetic.mean(0)])
        shrunk = np.cov(rest.T) + 1e-9 * np.eye(values.shape[1])
        shrunk += (
            np.diag(np.diag(shrunk)) * values.shape[1] / len(rest)
        )  # few images: more diagonal
        weights = np.linalg.solve(shrunk, synthetic.mean(0) - real.mean(0))
        middle = (synthetic.mean(0) + real.mean(0)) / 2
        scores[~kept] = (values[~kept] - middle) @ weights
    return scores
