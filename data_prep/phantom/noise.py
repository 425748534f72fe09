"""Named, counter-based noise: every number is a pure function of (seed, index, name, position).

No generator is advanced, so a patient is the same whatever the batch, the order or the number of
workers, and a new named variable leaves the others as they were. The bits are the finaliser of
SplitMix64 (Steele, Lea and Flood 2014), which, unlike numpy's distributions, no release changes.
"""

import dataclasses
import zlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


def _mix(bits: np.ndarray) -> np.ndarray:
    bits = (bits ^ (bits >> _SHIFTS[0])) * _MIX[0]
    bits = (bits ^ (bits >> _SHIFTS[1])) * _MIX[1]
    return bits ^ (bits >> _SHIFTS[2])


@dataclasses.dataclass(frozen=True)
class Noise:
    """The exogenous noise of some patients.

    Attributes:
      seed: Seed of the whole population.
      indices: Numbers of these patients in it, [n] integers from 0.
    """

    seed: int
    indices: np.ndarray

    def bits(self, name: str, *shape: int) -> np.ndarray:
        """[n, *shape] uint64, uniform bits."""
        start = np.array([self.seed], np.uint64) * _GOLDEN + np.uint64(zlib.crc32(name.encode()))
        patient = _mix(_mix(start) + np.asarray(self.indices).astype(np.uint64) * _GOLDEN)
        counter = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64).reshape(shape) * _GOLDEN
        return _mix(patient.reshape(-1, *[1] * len(shape)) + counter)

    def uniform(self, name: str, *shape: int) -> np.ndarray:
        """[n, *shape] float32 in [0, 1)."""
        return (self.bits(name, *shape) >> np.uint64(40)).astype(np.float32) * 2**-24

    def normal(self, name: str, *shape: int) -> np.ndarray:
        """[n, *shape] float32, mean 0, standard deviation 1, all within ±3.47.

        The sum of the four 16-bit quarters of the bits (Irwin-Hall): close to normal, without a
        tail that would draw a chest nobody has.
        """
        quarters = self.bits(name, *shape).view(np.uint16).reshape(len(self.indices), *shape, 4)
        total = quarters.sum(-1, dtype=np.int32).astype(np.float32)
        return (total / 65536 - 2) * 3**0.5

    def take(self, rows: np.ndarray) -> "Noise":
        """The noise of some of the patients."""
        return Noise(self.seed, np.asarray(self.indices)[rows])
