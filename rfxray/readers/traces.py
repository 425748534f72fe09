"""What a file leaves in the pixels of an image, and what readers see in it, as numbers."""

import numpy as np
from scipy import ndimage

from rfxray.command_line import require

# Periods of a grid, pixels: JPEG's 8, or what a resize makes of it. Longer ones are anatomy, and
# below 2 there are no pixels for them.
PERIODS = (2.1, 16)
PEAK = 2.5  # half the width of a peak, lines of the spectrum: of a Hann window 2
BESIDE = np.array([-12, -10, -8, -6, 6, 8, 10, 12])  # half lines from a peak to what is around it
BANDS = 12  # of the spectrum, of equal width up to the Nyquist frequency
BINS = 16  # of the histogram
CHANCE = 3  # deviations of the number of gaps that chance explains
AROUND = 9  # levels around one: gaps of 8 bits that were stretched come every second to sixth level


def burned_in(image: np.ndarray) -> bool:
    """Whether an image [side, side] uint8 shows a line of text."""
    require("prep", "cv2")
    from rfxray.data import burned_text

    return bool(burned_text.lines(image.astype(np.uint16) << 8))


def grey_levels(image: np.ndarray) -> float:
    """Share of the grey levels that are used: 8 bits that were stretched leave gaps.

    A level is empty by chance, too, with few pixels: with exp(−n) for n pixels expected by the
    levels around it (Poisson). Such gaps are content, and do not count. Between the percentiles 5
    and 95, because the counts around a level say little at the ends.
    """
    middle = np.sort(image[(image > 0) & (image < 255)])
    middle = middle[len(middle) // 20 : len(middle) - len(middle) // 20]
    if not middle.size:
        return 1.0
    counts = np.bincount(middle - middle[0]).astype(np.float64)
    by_chance = np.exp(-ndimage.uniform_filter1d(counts, AROUND, mode="nearest"))
    deviation = np.sqrt((by_chance * (1 - by_chance)).sum())
    gaps = (counts == 0).sum() - by_chance.sum() - CHANCE * deviation
    return float(1 - max(gaps, 0) / counts.size)


def border(image: np.ndarray) -> float:
    """Number of rows and columns at the edges that have one grey."""
    total = 0
    for turned in (image, image[::-1], image.T, image.T[::-1]):
        flat = np.ptp(turned, axis=1) == 0
        total += len(flat) if flat.all() else int(np.argmin(flat))
    return float(total)


def grids(image: np.ndarray, own: float | None = None) -> dict[float, float]:
    """Strength of a grid by its period in pixels: logarithm in relation to periods beside it.

    The mean size of the third differences along rows (and columns) is a profile that has no
    anatomy. The edges of the blocks of a JPEG are peaks of it, also if the JPEG was resized later,
    and so is the pattern of an interpolation (Gallagher 2005, CRV, "Detection of linear and cubic
    interpolation in JPEG compressed images").

    Args:
      image: Image [side, side] uint8.
      own: Period of a grid that is left out with its harmonics.
    """
    count = len(image) - 3
    lines = np.fft.rfftfreq(2 * count)  # half a line apart, so that none falls between two
    kept = np.ones(len(lines), bool)
    if own is not None:
        kept = np.abs(lines * own - np.rint(lines * own)) * count / own > PEAK
    inside = (lines >= 1 / PERIODS[1]) & (lines <= 1 / PERIODS[0])
    at = np.flatnonzero(inside)[::2]
    at = at[kept[at]]
    beside = np.clip(at[:, None] + BESIDE, 0, len(lines) - 1)
    at, beside = at[kept[beside].any(1)], beside[kept[beside].any(1)]
    found = np.zeros(len(at))
    for turned in (image, image.T):
        profile = np.abs(np.diff(turned.astype(np.float64), n=3, axis=1)).mean(0)
        smooth = np.convolve(profile, np.ones(9) / 9, "same")
        rest = (profile / np.maximum(smooth, 1e-6) - 1) * np.hanning(count)
        power = np.log(np.abs(np.fft.rfft(rest, 2 * count)) ** 2 + 1e-12)
        around = np.where(kept, power, np.nan)[beside]
        found += power[at] - np.nanmedian(around, 1)  # the peak of another period is not in it
    return dict(zip((1 / lines[at]).tolist(), np.round(found, 6).tolist(), strict=True))


def looks(image: np.ndarray) -> dict[str, float]:
    """Brightness and sharpness, which readers see."""
    grey = image.astype(np.float64)
    fine = grey - (np.roll(grey, 1, 0) + np.roll(grey, -1, 0)) / 2
    return {
        "mean": float(grey.mean()),
        "contrast": float(grey.std()),
        "fine detail": float(np.abs(fine[1:-1]).mean()),
    }


def spectrum(image: np.ndarray) -> np.ndarray:
    """Logarithm of the power in rings of frequencies, `[BANDS]`."""
    side = len(image)
    window = np.hanning(side)[:, None] * np.hanning(side)
    power = np.abs(np.fft.rfft2((image - image.mean()) * window)) ** 2
    rows, columns = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)
    ring = np.minimum((np.hypot(rows, columns) * 2 * BANDS).astype(int), BANDS)
    sums = np.bincount(ring.ravel(), power.ravel(), BANDS + 1)[:BANDS]
    return np.log(sums + 1e-6)


def histogram(image: np.ndarray) -> np.ndarray:
    """Shares of grey levels, `[BINS]`."""
    return np.bincount(image.ravel() >> 4, minlength=BINS) / image.size
