import numpy as np
import pytest


@pytest.fixture(scope="module")
def chest():
    """[200, 160] uint16 of 12 bits: two dark lungs in a bright body, with noise."""
    y, x = np.mgrid[0:200, 0:160]
    lungs = sum(np.exp(-(((x - c) / 25) ** 2 + ((y - 90) / 60) ** 2)) for c in (45, 115))
    noise = np.random.default_rng(0).normal(0, 20, y.shape)
    return np.clip(3000 - 2000 * lungs + 2 * y + noise, 0, 4095).astype(np.uint16)
