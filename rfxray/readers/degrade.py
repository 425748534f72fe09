"""Changes of known strength to an image, which an attentive reader finds: positive controls."""

from collections.abc import Callable, Mapping

import numpy as np

from rfxray.command_line import require

BLUR = 1 / 128  # of the side, standard deviation of the Gaussian: 4 pixels at 512
NOISE = 25  # of 255, standard deviation
QUALITY = 5  # of JPEG, of 100: blocks are visible
MARKER = 20  # pixels, fewest of a marker that is worth removing
EDGE = 1 / 4  # of the side, where markers stand


def blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An image [side, side] uint8 without its fine detail."""
    import cv2

    return cv2.GaussianBlur(image, (0, 0), BLUR * len(image))


def noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An image [side, side] uint8 with white noise."""
    drawn = image + rng.normal(0, NOISE, image.shape)
    return np.rint(drawn).clip(0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An image [side, side] uint8 through a JPEG of low quality."""
    import cv2

    _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE))


def no_marker(image: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """An image [side, side] uint8 with its markers painted over; None if it has no marker.

    Markers are thin strokes as white as the image gets, near its left, right or upper edge.
    """
    import cv2

    from rfxray.data import burned_text

    side = max(3, round(burned_text.STROKE * len(image) / burned_text.SIDE)) | 1
    strokes = cv2.morphologyEx(image, cv2.MORPH_TOPHAT, np.ones((side, side), np.uint8))
    marker = (strokes > burned_text.CONTRAST) & (image >= burned_text.SATURATED)
    edge = round(EDGE * len(image))
    marker[edge:, edge:-edge] = False
    if marker.sum() < MARKER:
        return None
    grown = cv2.dilate(marker.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=2)
    return cv2.inpaint(image, grown, 3, cv2.INPAINT_TELEA)


CHANGES: Mapping[str, Callable[[np.ndarray, np.random.Generator], np.ndarray | None]] = {
    f"blur, {BLUR:.2%} of the side": blur,
    f"noise, {NOISE} of 255": noise,
    f"JPEG of quality {QUALITY}": jpeg,
    "marker removed": no_marker,
}


def degraded(image: np.ndarray, number: int, rng: np.random.Generator) -> tuple[str, np.ndarray]:
    """The change of this number, in turn, and the changed image [side, side] uint8.

    An image without a marker gets the next change.
    """
    require("prep", "cv2")
    names = list(CHANGES)
    for k in range(len(names)):
        name = names[(number + k) % len(names)]
        if (changed := CHANGES[name](image, rng)) is not None:
            return name, changed
    raise AssertionError("only the removal of a marker may fail")
