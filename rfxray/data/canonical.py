"""Decoded pixels of any range and size → the canonical square of 16-bit grey.

Intensity: linear from the 0.5th to the 99.5th percentile of the exposed pixels to 0..65535,
clipped. `exposed` excludes outliers (below the 5th or above the 95th percentile by three times the
distance between these two, which are taken over every fourth pixel in each direction without the
darkest and the brightest value), then pixels within 1% of the remaining range of its darkest and
its brightest value, so that hot pixels, black padding, collimation, burned-in markers and saturated
air do not decide the contrast. If the outliers are a film (a dense area of many greys, at least 32
pixels wide and high), the plate around it is noise, and only the box of the film counts. The
mapping is monotone, without histogram equalisation, and right for a 12-bit image in a 16-bit file.

Size: the longer side becomes `size`, the aspect is kept; area averaging down (antialiased, and
unlike Lanczos it cannot ring at the edge of a marker), linear up. Padded to the square with black,
centred, an odd pixel below or right. Borders and collimation in the file are kept: the edge of the
field is a guess on many films, and a cut would lose a costophrenic angle for good. The percentiles
keep them from deciding the contrast.
"""

from typing import Any

import cv2
import numpy as np

from rfxray.data.decoded import Radiograph, Refused

PERCENTILES = (0.5, 99.5)
BULK = (5, 95)  # percentiles; markers have fewer pixels than are outside
FENCE = 3.0  # times their distance; at 3 no pixel of 151 real radiographs is beyond, at 2 of 14
EXTREMES = 0.01  # share of the range, excluded at both ends; more than JPEG noise in padding
LARGEST_ASPECT = 4.0  # a dozen BRAX files are strips of aspect > 10; long lateral films reach 2
SMALLEST_SIDE = 32
# Spread of the greys of a film beyond the fence, in relation to its distance from the fence.
# Burned-in markers have one grey (JPEG noise: 0.03); a flat film of ±10% has 0.2.
FILM_SPREAD = 0.1

cv2.setNumThreads(1)  # the processes are the parallelism


def square(radiograph: Radiograph, size: int) -> dict:
    """The fields of a record that come from the radiograph (see `rfxray.data.record`).

    Returns:
      Fields `image` [size, size] uint16, `content_box`, `original_size`, `original_bits`,
      `pixel_spacing`, `laterality`.

    Raises:
      Refused: With the reason.
    """
    height, width = radiograph.pixels.shape
    check_shape(height, width)
    image, content_box = to_square(normalise(radiograph.pixels), size)
    return {
        "image": np.rint(image * np.float32(65535)).astype(np.uint16),
        "content_box": content_box,
        "original_size": (height, width),
        "original_bits": radiograph.bits,
        "pixel_spacing": radiograph.pixel_spacing,
        "laterality": radiograph.laterality,
    }


def check_shape(height: int, width: int) -> None:
    """Raises Refused for an image that is too small or too narrow for a radiograph."""
    if min(height, width) < SMALLEST_SIDE:
        raise Refused(f"too small: {height} × {width} pixels")
    if max(height, width) > LARGEST_ASPECT * min(height, width):
        raise Refused(
            f"too narrow: {height} × {width} pixels, more than {LARGEST_ASPECT:g} times as long as "
            "wide"
        )


def normalise(pixels: np.ndarray) -> np.ndarray:
    """Maps [height, width] float32 of any range to float32 in [0, 1], by the percentiles above.

    Raises:
      Refused: If there are fewer than three greys.
    """
    dark, bright = contrast(pixels)
    return np.clip((pixels - dark) / (bright - dark), 0, 1).astype(np.float32)


def contrast(pixels: np.ndarray) -> tuple[Any, Any]:
    """The values of [height, width] float32, as such, that `normalise` makes black and white; its
    errors."""
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite([low, high]).all():
        raise Refused("not finite: NaN or infinite pixels")
    if low == high:
        raise Refused("blank: one grey value")
    middle = _exposed(pixels, low, high)
    if not middle.size:
        raise Refused("only black and white")
    # "lower" picks the value of a pixel, without arithmetic that could differ between machines
    dark, bright = np.percentile(middle, PERCENTILES, method="lower")
    if dark == bright:
        raise Refused("blank: one grey value except for the darkest and brightest pixels")
    return dark, bright


def exposed(pixels: np.ndarray) -> np.ndarray:
    """The pixels of [height, width] that decide the contrast, [count]; none if all are extreme."""
    return _exposed(pixels, float(pixels.min()), float(pixels.max()))


def _exposed(pixels: np.ndarray, darkest: float, brightest: float) -> np.ndarray:
    low, high = _reach(pixels, darkest, brightest)
    if (low, high) != (darkest, brightest) and (film := _film(pixels, low, high)):
        pixels = pixels[film]
        low, high = _reach(pixels, float(pixels.min()), float(pixels.max()))
    margin = EXTREMES * (high - low)
    return pixels[(pixels > low + margin) & (pixels < high - margin)]


def _reach(pixels: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """The darkest and the brightest pixel from `low` to `high` that are not outliers."""
    few = pixels[::4, ::4]  # a sixteenth of the time
    few = few[(few > low) & (few < high)]
    dark, bright = np.percentile(few, BULK, method="lower") if few.size else (low, high)
    reach = FENCE * (bright - dark)
    if dark == bright or (dark - reach <= low and high <= bright + reach):
        return low, high
    kept = pixels[(pixels >= dark - reach) & (pixels <= bright + reach)]
    return float(kept.min()), float(kept.max())


def _film(pixels: np.ndarray, low: float, high: float) -> tuple[slice, ...] | None:
    """Box of the largest area beyond `low` and `high`, if it is a film and not a marker."""
    beyond = (pixels < low) | (pixels > high)
    side = max(3, min(pixels.shape) // 64 | 1)  # strokes of letters and hot pixels are narrower
    dense = cv2.blur(beyond.astype(np.uint8) * 255, (side, side)) > 127
    # Twice as far around, so that the parts of a film beside its lungs are one area
    joined = cv2.dilate(dense.astype(np.uint8), np.ones((2 * side + 1,) * 2, np.uint8))
    _, areas, boxes, _ = cv2.connectedComponentsWithStats(joined)
    if len(boxes) < 2:
        return None
    area = dense & (areas == 1 + int(np.argmax(boxes[1:, cv2.CC_STAT_AREA])))
    rows, columns = (np.flatnonzero(area.any(axis)) for axis in (1, 0))
    if min(len(rows), len(columns)) < SMALLEST_SIDE:
        return None
    # Without the edge, which the plate shines through
    box = tuple(slice(at[1 + len(at) // 200], at[-1 - len(at) // 200]) for at in (rows, columns))
    values = pixels[beyond & area]
    distance = np.median(np.maximum(low - values, values - high))
    dark, bright = np.percentile(values, BULK, method="lower")
    return box if bright - dark >= FILM_SPREAD * distance else None


def to_square(image: np.ndarray, size: int) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Resizes and pads [height, width] float32 to [size, size], aspect kept.

    Returns:
      Square and its content box: top, left, height, width in pixels.
    """
    height, width = image.shape
    longer = max(height, width)
    new_height = max(1, (height * size + longer // 2) // longer)
    new_width = max(1, (width * size + longer // 2) // longer)
    how = cv2.INTER_AREA if longer >= size else cv2.INTER_LINEAR
    top, left = (size - new_height) // 2, (size - new_width) // 2
    square = np.zeros((size, size), np.float32)
    square[top : top + new_height, left : left + new_width] = cv2.resize(
        image, (new_width, new_height), interpolation=how
    )
    return square, (top, left, new_height, new_width)
