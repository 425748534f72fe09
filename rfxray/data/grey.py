"""Images of three channels that hold grey only."""

import numpy as np

from rfxray.data.decoded import Refused

# Chroma subsampling leaves a few levels between the channels of a grey JPEG. A coloured stamp on a
# thousandth of the image (32² in 1024²) exceeds that and should be refused.
GREY_TOLERANCE, COLOURED_SHARE = 8, 0.001


def grey(channels: np.ndarray) -> np.ndarray:
    """[height, width, 3] unsigned integers of equal channels as [height, width] float32.

    Raises:
      Refused: If the channels differ.
    """
    red, green, blue = (np.ascontiguousarray(channels[..., i]) for i in range(3))
    if np.array_equal(red, green) and np.array_equal(green, blue):
        return red.astype(np.float32)
    brightest = np.maximum(np.maximum(red, green), blue)
    spread = brightest - np.minimum(np.minimum(red, green), blue)
    coloured = float((spread > GREY_TOLERANCE * max(1.0, int(brightest.max()) / 255)).mean())
    if coloured > COLOURED_SHARE:
        raise Refused(f"colour: in {coloured:.1%} of the pixels")
    return channels.mean(-1, dtype=np.float32)
