"""Where the side markers of a phantom stand, and how they are hidden from a reader."""

import numpy as np

# Where a side marker can stand, as left, top, right, bottom in the image. "R" is on the
# patient's right, which is the image's left.
MARKER_BOXES = {"R": (-0.97, -0.97, -0.79, -0.72), "L": (0.79, -0.97, 0.97, -0.72)}


def mask_markers(images: np.ndarray) -> np.ndarray:
    """The images [n, size, size] with both marker regions filled with the darkest value of the
    rest of each."""
    size = images.shape[-1]
    centres = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1).astype(np.float32)
    x, y = centres[None, None, :], centres[None, :, None]
    hidden = np.zeros((1, size, size), bool)
    for left, top, right, bottom in MARKER_BOXES.values():
        margin = 2 / size
        hidden |= (np.abs(x - (left + right) / 2) < (right - left) / 2 + margin) & (
            np.abs(y - (top + bottom) / 2) < (bottom - top) / 2 + margin
        )
    darkest = images[:, ~hidden[0]].min(-1)
    return np.where(hidden, darkest[:, None, None], images)
