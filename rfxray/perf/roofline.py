"""Least and expected time of a compiled step, estimated from its text without running it.

- roofline: a lower bound. Every instruction of the schedule takes the longer of its operations at
  the peak and its HBM traffic at full bandwidth, one after another; a collective adds the time of
  its links beyond the work that is scheduled while it is in progress.
- expected: a forecast, not a measurement. A fusion takes the cycles of XLA's own cost model; the
  attention kernel reaches `ATTENTION` of the peak; copies and other kernels reach `MEMORY` of the
  bandwidth; the step takes 1 / `REACHED` of their sum with communication that is not overlapped.

See docs/pods.md for the source of the three factors.
"""

import collections
import dataclasses
import re
from collections.abc import Sequence

from rfxray.perf import hlo
from rfxray.perf.chips import Chip

ATTENTION = 0.5
MEMORY = 0.8
REACHED = 0.9


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Estimate of one step on one device; times in seconds, sizes in bytes.

    Attributes:
      flops: Executed operations of matrix products, with recomputation.
      traffic: Traffic to and from HBM.
      roofline, expected: Times described above, with exposed communication.
      exposed: Time in the roofline during which there is only communication.
      parts: Parts of the expected time: `products`, `attention`, `element-wise`, `copies`,
        `communication`, and `slack`, which `REACHED` adds.
      collectives: Count, bytes, link time and exposed time of each kind.
    """

    flops: float
    traffic: float
    roofline: float
    expected: float
    exposed: float
    parts: dict[str, float]
    collectives: dict[str, dict[str, float]]


def estimate(text: str, chip: Chip, coordinates: Sequence[Sequence[int]]) -> Estimate:
    """Estimates the times of a compiled step.

    Args:
      text: Text from `jax.stages.Compiled.as_text()`.
      chip: Chip that it was compiled for.
      coordinates: Coordinates of each device, in the order of the mesh: its place on the torus of
        its slice, then the number of the slice.
    """
    module = hlo.parse(text)
    flops = traffic = least = 0.0
    parts: dict[str, float] = collections.defaultdict(int)
    for name, times in hlo.executions(module).items():
        shapes = hlo.results(module, name)
        for i in module.computations[name]:
            f, b = hlo.flops(module, i, shapes), hlo.traffic(module, i, shapes)
            flops, traffic = flops + times * f, traffic + times * b
            least += times * _least(i, f, b, chip)
            part, seconds = _likely(i, f, b, chip)
            parts[part] += times * seconds

    def at_least(i, shapes):
        return _least(i, hlo.flops(module, i, shapes), hlo.traffic(module, i, shapes), chip)

    def likely(i, shapes):
        return _likely(i, hlo.flops(module, i, shapes), hlo.traffic(module, i, shapes), chip)[1]

    kinds: dict[str, dict[str, float]] = collections.defaultdict(
        lambda: collections.defaultdict(int)
    )
    for c, slower in zip(
        hlo.collectives(module, at_least), hlo.collectives(module, likely), strict=True
    ):
        takes = link_seconds(c, chip, coordinates)
        kind = kinds[c.kind]
        kind["count"] += c.times
        kind["bytes"] += c.times * c.bytes
        kind["seconds"] += c.times * takes
        kind["exposed"] += c.times * max(0.0, takes - (c.hidden or 0.0))
        parts["communication"] += c.times * max(0.0, takes - (slower.hidden or 0.0))
    # Copies that run in parallel with other work share its memory bandwidth.
    least = max(least, traffic / chip.bandwidth)
    exposed = sum(kind["exposed"] for kind in kinds.values())
    parts["slack"] = sum(parts.values()) * (1 / REACHED - 1)
    return Estimate(
        flops=flops,
        traffic=traffic,
        roofline=least + exposed,
        expected=max(sum(parts.values()), least + exposed),
        exposed=exposed,
        parts=dict(parts),
        collectives={name: dict(kind) for name, kind in kinds.items()},
    )


def _beside(i: hlo.Instruction) -> bool:
    """Whether an instruction itself takes no time: an asynchronous copy runs in parallel with other
    work, and the time of a collective is that of its links."""
    return i.opcode.endswith("-start") or i.opcode in hlo.KINDS


def _least(i: hlo.Instruction, flops: float, traffic: float, chip: Chip) -> float:
    return 0.0 if _beside(i) else max(flops / chip.flops, traffic / chip.bandwidth)


def _likely(i: hlo.Instruction, flops: float, traffic: float, chip: Chip) -> tuple[str, float]:
    """(part, seconds)"""
    least = _least(i, flops, traffic, chip)
    if _beside(i):
        return "copies", 0.0
    found = re.search(r'"estimated_cycles":"(\d+)"', i.rest)
    if i.opcode == "fusion" and found and int(found[1]) != _UNKNOWN:
        part = "products" if flops else "element-wise"
        return part, max(least, float(found[1]) / chip.clock)
    if i.opcode == "custom-call" and flops:
        return "attention", max(least, flops / chip.flops / ATTENTION)
    return "products" if flops else "copies", max(least, traffic / chip.bandwidth / MEMORY)


# Cycles of a fusion that XLA's cost model did not look at, as with JAX_OPTIMIZATION_LEVEL=O0.
_UNKNOWN = 2**63 - 1

# A chip's share of the network of the data centre, bytes per second: 50 Gbit/s for v5p in Cloud
# TPU's documentation (half of that for v5e), used for all.
_BETWEEN_SLICES = 50e9 / 8


def link_seconds(c: hlo.Collective, chip: Chip, coordinates: Sequence[Sequence[int]]) -> float:
    """Time of a collective at full bandwidth of the links, seconds.

    It uses bidirectional rings along every dimension of the torus that its group spans; a dimension
    that does not wrap around counts half. Between slices the slower network counts.
    """
    n = len(c.group)
    if n < 2:
        return 0.0
    rounds = 2 if c.kind == "all-reduce" else 1
    *torus, slices = zip(*(coordinates[d] for d in c.group), strict=True)
    if len(set(slices)) > 1:
        ways = len(set(slices))
        return rounds * c.bytes * (ways - 1) / ways / _BETWEEN_SLICES
    if c.kind == "collective-permute":
        return c.bytes / chip.link
    links = 0
    for along in torus:
        extent = len(set(along))
        if extent > 1:
            links += 2 if extent % chip.torus == 0 else 1
    return rounds * c.bytes * (n - 1) / n / (max(1, links) * chip.link)
