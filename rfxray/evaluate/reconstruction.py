"""How much of an image an autoencoder keeps: PSNR, SSIM and power by spatial frequency.

Pairs are found by key, and only the radiograph itself is compared, not the margins of its square:
black margins are easy, and a film with wide ones would get a better figure.

| measure | of a pair |
|---|---|
| PSNR | 10 log₁₀ (1 / mean squared error), dB |
| SSIM | Wang et al. 2004: Gaussian window of σ 1.5 and 11 pixels, K₁ = .01, K₂ = .03 |
| kept | power of the reconstruction over that of the original, by band |
| error | power of the difference over that of the original, by band |
| correlation | of both images in the band: low where power was kept by invented texture |

A band is an octave of cycles per picture, the side of the square, whatever the content box is: 2 to
4, 4 to 8, … A Hann window keeps the edges of the box from leaking into all bands.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

from rfxray.errors import DataError
from rfxray.evaluate import intervals
from rfxray.evaluate.figure import Figure, not_estimable

WINDOW = 11  # pixels of SSIM: σ 1.5 to 3.5 deviations on each side
_SIGMA, _TRUNCATE = 1.5, 3.5
_FIRST = 2.0  # cycles per picture: below two, the Hann window leaves nothing of its own
_C1, _C2 = 0.01**2, 0.03**2  # of images in [0, 1]


@dataclasses.dataclass(frozen=True)
class Pair:
    """Measures of one image and its reconstruction; None if there is no finite one.

    Attributes:
      psnr: PSNR, dB; None if both are the same.
      ssim: SSIM, at most 1.
      kept: Share of the power kept, by lower end of the band in cycles per picture; None if the
        original has no power in the band.
      error: Power of the difference as a share of that of the original, likewise.
      correlation: Correlation of both in the band, -1 to 1; None if one has no power in it.
    """

    psnr: float | None
    ssim: float
    kept: Mapping[float, float | None]
    error: Mapping[float, float | None]
    correlation: Mapping[float, float | None]


# Measures of a pair that have a value for each band.
BANDED = ("kept", "error", "correlation")


def matched(originals: Sequence[str], reconstructed: Sequence[str]) -> np.ndarray:
    """The number of the reconstruction of each original, by key and never by position.

    A file `KEY.png` is of the key `KEY`; two files of the same name without its ending are refused.

    Args:
      originals: Keys of the originals, unique.
      reconstructed: Keys of the reconstructions, unique.

    Raises:
      DataError: Unless each original has exactly one reconstruction, and there is no other.
    """
    theirs = _by_name(reconstructed, "reconstructions")
    ours = _by_name(originals, "originals")
    missing = [key for key in ours if key not in theirs]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(ours)} originals have no reconstruction of their key (first: "
            f"{missing[0]}); write one for each, named by its key"
        )
    more = [key for key in theirs if key not in ours]
    if more:
        raise DataError(
            f"{len(more)} reconstructions have no original of their key (first: {more[0]}); "
            "remove them, or give the set that they were made of"
        )
    return np.array([theirs[key] for key in ours], np.int64)


def _by_name(keys: Sequence[str], what: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for number, key in enumerate(keys):
        name = key
        for ending in (".png", ".jpg", ".jpeg", ".dcm"):
            name = name.removesuffix(ending)
        if name in found:
            raise DataError(f"two {what} have the key {name}; keep one")
        found[name] = number
    return found


def measure(original: np.ndarray, reconstructed: np.ndarray, box: np.ndarray | None) -> Pair:
    """Measures of a pair.

    Args:
      original: Image, `[height, width] float32` in [0, 1].
      reconstructed: Image of the same shape.
      box: Top, left, height and width of the radiograph in it, pixels; None for the whole image.

    Raises:
      DataError: For other shapes, values that are not finite, or a box below 11 pixels.
    """
    if original.shape != reconstructed.shape:
        raise DataError(
            f"the original is {_size(original)} and its reconstruction {_size(reconstructed)}; "
            "write reconstructions in the size of the originals"
        )
    side = max(original.shape)
    top, left, height, width = (0, 0, *original.shape) if box is None else box
    if min(height, width) < WINDOW:
        raise DataError(f"a radiograph of {width}×{height} is smaller than the window of SSIM, 11")
    inside = slice(top, top + height), slice(left, left + width)
    x, y = (image[inside].astype(np.float64) for image in (original, reconstructed))
    if not np.isfinite(y).all():
        raise DataError("the reconstruction is not finite; look at the decoder")
    squared = float(((x - y) ** 2).mean())
    kept, error, correlation = {}, {}, {}
    of_x, of_y, of_gap = (spectrum(image, side) for image in (x, y, x - y))
    for band, power in of_x.items():
        kept[band] = of_y[band] / power if power > 0 else None
        error[band] = of_gap[band] / power if power > 0 else None
        both = 2 * np.sqrt(power * of_y[band])
        correlation[band] = (power + of_y[band] - of_gap[band]) / both if both > 0 else None
    decibels = 10 * np.log10(1 / squared) if squared > 0 else None
    return Pair(decibels, ssim(x, y), kept, error, correlation)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}×{image.shape[0]}"


def ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Mean structural similarity of images `[height, width] float64` in [0, 1], Wang et al. 2004.

    The mean is over the pixels with a whole window, and variances are divided by its weight.
    """

    def blur(image: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(image, _SIGMA, truncate=_TRUNCATE)

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    bottom = (mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2)
    edge = WINDOW // 2
    return float((top / bottom)[edge:-edge, edge:-edge].mean())


def spectrum(image: np.ndarray, side: int) -> dict[float, float]:
    """Power of an image by octave, `{lower end in cycles per picture: power}`.

    Args:
      image: Image, `[height, width] float64`.
      side: Side of the picture that it was cut from, pixels.
    """
    height, width = image.shape
    window = np.outer(np.hanning(height), np.hanning(width))
    image = (image - (image * window).sum() / window.sum()) * window
    power = np.abs(np.fft.rfft2(image)) ** 2
    power[:, 1 : (width + 1) // 2] *= 2  # the half of the plane that rfft2 leaves out
    radius = side * np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    ends = [_FIRST]
    while ends[-1] * 2 < side / 2:
        ends.append(ends[-1] * 2)
    # The last band ends at the highest frequency of a row, half a cycle per pixel.
    bands = zip(ends, [*ends[1:], side / 2 + 1e-9], strict=True)
    return {low: float(power[(radius >= low) & (radius < high)].sum()) for low, high in bands}


def figures(pairs: Sequence[Pair], clusters: np.ndarray) -> list[Figure]:
    """Means over the pairs with 95% intervals by patient.

    Args:
      pairs: Measures of each pair.
      clusters: Patient of each pair, `[n] int`.
    """
    found = [
        _mean("PSNR", [pair.psnr for pair in pairs], clusters, "are the same as their original"),
        _mean("SSIM", [pair.ssim for pair in pairs], clusters, ""),
    ]
    for what in BANDED:
        for low in pairs[0].kept:
            values = [getattr(pair, what).get(low) for pair in pairs]
            name = f"{what} from {low:g} cycles/picture"
            found.append(_mean(name, values, clusters, "have no power in this band"))
    return found


def _mean(
    name: str, values: Sequence[float | None], clusters: np.ndarray, why_missing: str
) -> Figure:
    n = len(values)
    missing = sum(value is None for value in values)
    if missing:
        return not_estimable(name, n, n, f"{missing} of {n} images {why_missing}")
    array = np.array(values, np.float64)
    variance, count = intervals.cluster_variance(array, clusters)
    return intervals.student(name, float(array.mean()), variance, count, n, n)
