"""Many rows in batches of one size."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Integer


def blocks(n: int, size: int) -> Iterator[tuple[Integer[np.ndarray, " {size}"], int]]:
    """Cuts n places into blocks of one size: (places [size], how many of them are new).

    The last block wraps to the first places, so that one shape, one program, serves all.
    """
    for start in range(0, n, size):
        yield np.arange(start, start + size) % n, min(size, n - start)
