"""What tells synthetic images from real ones without being what readers judge.

Size, bit depth, format, metadata and bytes of the files are the same by construction (`shown`).
What an earlier file leaves in the pixels is measured: missing grey levels (8 bits that were
stretched), the 8 × 8 blocks of JPEG, constant borders, burned-in text. A difference there blocks a
study. Content (brightness, contrast, fine detail) is what readers see, so it is reported only.
"""

import dataclasses
import io
import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from scipy import stats

from rfxray.command_line import require
from rfxray.errors import DataError

FALSE_ALARM = 0.01  # most clean studies that are blocked, over all checks together (Bonferroni)
BLOCKING = ("grey levels", "JPEG blocks", "border", "burned-in text", "bytes", "metadata")


@dataclasses.dataclass(frozen=True)
class Leak:
    """One check: AUC of the feature for "synthetic", Mann and Whitney's p, whether it may block."""

    feature: str
    auc: float
    p: float
    blocking: bool

    def blocks(self) -> bool:
        """Whether the study must not be released."""
        return self.blocking and self.p < FALSE_ALARM / len(BLOCKING)


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


def check(images: Sequence[np.ndarray], files: Sequence[bytes], truth: np.ndarray) -> list[Leak]:
    """Compares real and synthetic images, feature by feature.

    Args:
      images: Images, [side, side] uint8.
      files: Files of the images.
      truth: `[n] bool`, true for synthetic.
    """
    pairs = zip(images, files, strict=True)
    rows = [{**_left_behind(image, file), **_content(image)} for image, file in pairs]
    found = []
    for feature in rows[0]:
        values = np.array([row[feature] for row in rows])
        area, p = 0.5, 1.0
        if np.ptp(values):
            test = stats.mannwhitneyu(values[truth], values[~truth], alternative="two-sided")
            area, p = float(test.statistic) / (truth.sum() * (~truth).sum()), float(test.pvalue)
        found.append(Leak(feature, area, p, feature in BLOCKING))
    return found


def refuse(found: Sequence[Leak]) -> None:
    """Raises a DataError if a check blocks the study."""
    if blocking := [leak for leak in found if leak.blocks()]:
        named = ", ".join(f"{x.feature} (AUC {x.auc:.2f}, p {x.p:.1g})" for x in blocking)
        raise DataError(
            f"the images leak what is synthetic: {named}; prepare both sets alike (same format, "
            "bit depth, crop, markers), or match by that feature"
        )


def refuse_imbalance(lefts: int, count: int) -> None:
    """Raises a DataError unless the synthetic image is as often left as right (within one)."""
    if abs(2 * lefts - count) > 1:
        raise DataError(
            f"the synthetic image is left in {lefts} of {count} pairs; it must be in half of them"
        )


def _left_behind(image: np.ndarray, file: bytes) -> dict[str, float]:
    require("prep", "cv2")
    from rfxray.data import burned_text

    with Image.open(io.BytesIO(file)) as opened:
        metadata = len(opened.info)
    middle = image[(image > 0) & (image < 255)]
    used = np.unique(middle)
    reach = int(used[-1]) - int(used[0]) + 1 if used.size else 1
    return {
        "grey levels": used.size / reach,
        "JPEG blocks": _blocks(image),
        "border": _border(image),
        "burned-in text": float(bool(burned_text.lines(image.astype(np.uint16) << 8))),
        "bytes": float(len(file)),
        "metadata": float(metadata),
    }


def _blocks(image: np.ndarray) -> float:
    """Mean step over the edges of 8 × 8 blocks, relative to the mean of all steps."""
    ratios = []
    for turned in (image, image.T):
        # Second differences: a gradient of the anatomy has none.
        steps = np.abs(np.diff(turned.astype(np.float64), n=3, axis=1)).mean(0)
        at = np.arange(6, len(steps), 8)  # the middle of the four pixels is the edge
        ratios.append(steps[at].mean() / max(steps.mean(), 1e-6))
    return float(np.round(np.mean(ratios), 6))


def _border(image: np.ndarray) -> float:
    """Rows and columns at the edges that have one grey."""
    total = 0
    for turned in (image, image[::-1], image.T, image.T[::-1]):
        flat = np.ptp(turned, axis=1) == 0
        total += len(flat) if flat.all() else int(np.argmin(flat))
    return float(total)


def _content(image: np.ndarray) -> dict[str, float]:
    grey = image.astype(np.float64)
    fine = grey - (np.roll(grey, 1, 0) + np.roll(grey, -1, 0)) / 2
    return {
        "mean": float(grey.mean()),
        "contrast": float(grey.std()),
        "fine detail": float(np.abs(fine[1:-1]).mean()),
    }
