"""The nearest reference rows of each row, in blocks, without those of its own patient."""

import dataclasses
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

_ROWS, _COLUMNS = 1024, 4096  # a block of distances has 16 MB


class Rows(Protocol):
    """Features that are read in slices, [m, width] float32: an array, or what computes them."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class Nearest:
    """The nearest rows of a reference.

    Attributes:
      rows: Numbers of the reference rows, the nearest first, [n, k] int; -1 where there is none.
      distances: Euclidean distances, [n, k] float32; infinite where there is none.
    """

    rows: Int[np.ndarray, "n k"]
    distances: Float[np.ndarray, "n k"]


def nearest(
    reference: Rows,
    patients: Int[np.ndarray, " m"],
    rows: Float[np.ndarray, "n width"],
    own: Int[np.ndarray, " n"],
    count: int,
) -> Nearest:
    """The `count` nearest reference rows of each row, other patients' only.

    Args:
      reference: Features.
      patients: Patient of each reference row, [m] int.
      rows: Features, [n, width] float32.
      own: Patient of each row in the same numbering, [n] int; -1 for one who is in no set.
      count: Number k of neighbours.
    """
    least = np.full((len(rows), count), np.inf, np.float32)
    which = np.full((len(rows), count), -1, np.int64)
    norms = np.einsum("ij,ij->i", rows, rows)
    for begin in range(0, len(reference), _COLUMNS):
        block = np.asarray(reference[begin : begin + _COLUMNS])
        squares_of_block = np.einsum("ij,ij->i", block, block)
        for start in range(0, len(rows), _ROWS):
            part = slice(start, start + _ROWS)
            squares = norms[part, None] - 2 * (rows[part] @ block.T) + squares_of_block
            squares[own[part, None] == patients[None, begin : begin + _COLUMNS]] = np.inf
            both = np.concatenate([least[part], squares], 1)
            numbers = np.concatenate(
                [which[part], np.broadcast_to(begin + np.arange(len(block)), squares.shape)], 1
            )
            chosen = np.argpartition(both, count - 1, axis=1)[:, :count]
            least[part] = np.take_along_axis(both, chosen, 1)
            which[part] = np.take_along_axis(numbers, chosen, 1)
    order = np.argsort(least, 1, kind="stable")
    least, which = (np.take_along_axis(x, order, 1) for x in (least, which))
    return Nearest(
        np.where(np.isinf(least), -1, which), np.sqrt(np.maximum(least, 0)).astype(np.float32)
    )


def ratios(near: Nearest, patients: Int[np.ndarray, " m"]) -> Float[np.ndarray, " n"]:
    """Distance to the nearest row over that to the nearest of another patient (Lowe 2004).

    Small for a copy, near 1 for what is new, whatever the density around it. With all neighbours of
    one patient the farthest of them stands for the other patient, so the ratio is too large.

    Returns:
      [n] float32 in [0, 1]; 1 where there are no two neighbours.
    """
    there = near.rows >= 0
    of = np.where(there, patients[near.rows], -1)
    another = there & (of != of[:, :1])
    last = np.maximum(there.sum(1) - 1, 0)
    second = np.where(another.any(1), another.argmax(1), last)
    rows = np.arange(len(of))
    far = near.distances[rows, second]
    usable = np.isfinite(far) & (far > 0) & (second > 0)
    found = np.where(usable, near.distances[:, 0] / np.where(usable, far, 1), 1)
    # An image that two patients have is at distance 0 of both.
    return np.where(near.distances[:, 0] == 0, 0, found).astype(np.float32)
