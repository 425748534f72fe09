"""Pixels as numbers: uint16 on disk, float32 in [−1, 1] for a network, uint8 for a screen."""

import numpy as np


def to_float(image: np.ndarray) -> np.ndarray:
    """uint16 pixels as float32 in [−1, 1]."""
    return image.astype(np.float32) / 32767.5 - 1.0


def to_uint16(image: np.ndarray) -> np.ndarray:
    """float pixels in [−1, 1], clipped to that, as uint16: the inverse of `to_float`."""
    return np.round((np.clip(image, -1.0, 1.0) + 1.0) * 32767.5).astype(np.uint16)


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Pixels in [−1, 1], clipped to that, as uint8."""
    return np.round((np.clip(images, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)
