"""Peaks of chips, which MFU and every estimate are relative to."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peaks of one device, from its vendor.

    Attributes:
      flops: Dense bfloat16 operations per second.
      bandwidth: Bandwidth of its memory, bytes per second.
      memory: Memory that a program may use, bytes (for TPUs the limit of the compiler).
      clock: Clock of a TPU core, cycles per second (the peak divided by the operations per cycle of
        its matrix units); 0 for other devices.
      link: Bandwidth of one inter-chip link in one direction, bytes per second; 0 if unknown.
      torus: Chips along a side from which on a slice wraps around; 0 if it never does.
    """

    flops: float
    bandwidth: float
    memory: float
    clock: float = 0.0
    link: float = 0.0
    torus: int = 0


_GIB = 2**30


# TPU: Google Cloud's documentation of each generation; the bandwidth of a link is the total divided
# by the number of links (v4, v5p: a 3-D torus from cubes of 4; v5e, v6e: 2-D, wrapped along full
# sides of 16). GPU: NVIDIA's data sheets, without sparsity.
CHIPS = {
    "v4": Chip(275e12, 1200e9, 30.75 * _GIB, 1.05e9, 50e9, 4),
    "v5e": Chip(197e12, 819e9, 15.75 * _GIB, 1.5e9, 50e9, 16),
    "v5p": Chip(459e12, 2765e9, 95.74 * _GIB, 1.75e9, 100e9, 4),
    "v6e": Chip(918e12, 1638e9, 31.25 * _GIB, 1.75e9, 100e9, 16),
    "A100": Chip(312e12, 2039e9, 80e9),
    "H100": Chip(989e12, 3350e9, 80e9),
    "H200": Chip(989e12, 4800e9, 141e9),
    "B200": Chip(2250e12, 8000e9, 180e9),
}


# Beginnings of `jax.Device.device_kind`, longer ones first.
_KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5p": "v5p",
    "TPU v5": "v5p",
    "TPU v6": "v6e",
    **{f"NVIDIA {name}": name for name in ("A100", "H100", "H200", "B200")},
}


def find(device_kind: str) -> Chip | None:
    """The chip of a `jax.Device.device_kind`, or None if it is not in the table."""
    for beginning, name in _KINDS.items():
        if device_kind.startswith(beginning):
            return CHIPS[name]
    return None
