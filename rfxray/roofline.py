"""How long a compiled step takes at least, and how long it should take, from its text alone.

Nothing is run. Three numbers, each with its assumption:

- roofline: every instruction of the schedule takes the longer of its operations at the peak and its
  HBM traffic at full bandwidth, one after another; a collective adds what its links need beyond the
  work that is scheduled while it is under way. A bound that no run beats.
- expected: the same with XLA's own cycle estimate for each fusion, where it gives one, and custom
  kernels (attention) at `KERNEL_EFFICIENCY` of the peak. A forecast, not a measurement.
- MFU: model FLOPs (flops.py) over what the chips could have done in either time.
"""

import collections
import dataclasses
import re
from collections.abc import Sequence

from rfxray import hlo
from rfxray.chips import Chip

# Of the peak, for the attention kernel: an assumption. Published splash and flash kernels at head
# dimension 128 reach between .4 and .7 of it.
KERNEL_EFFICIENCY = 0.5


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Of one step on one device; times in seconds, sizes in bytes.

    Attributes:
      flops: executed operations of matrix products, recomputation included.
      traffic: from and to HBM.
      roofline, expected: see above, `exposed` included.
      exposed: time that only communication takes.
      collectives: per kind, how many, their bytes, the time of their links, and what of it is
        exposed.
    """

    flops: float
    traffic: float
    roofline: float
    expected: float
    exposed: float
    collectives: dict[str, dict[str, float]]


def estimate(text: str, chip: Chip, coordinates: Sequence[Sequence[int]]) -> Estimate:
    """Reads a compiled step.

    Args:
      text: of `jax.stages.Compiled.as_text()`.
      chip: it was compiled for.
      coordinates: of each device of the mesh, in its order, on the torus of the slice.
    """
    module = hlo.parse(text)
    flops = traffic = least = expected = 0.0
    for name, times in hlo.executions(module).items():
        shapes = hlo.results(module, name)
        for i in module.computations[name]:
            f, b = hlo.flops(module, i, shapes), hlo.traffic(module, i, shapes)
            flops, traffic = flops + times * f, traffic + times * b
            bound = _bound(i, f, b, chip)
            least += times * bound
            expected += times * max(bound, _cycles(i) / chip.clock, _kernel(i, f, chip))

    def seconds(i, shapes):
        bound = _bound(i, hlo.flops(module, i, shapes), hlo.traffic(module, i, shapes), chip)
        return max(bound, _cycles(i) / chip.clock)

    kinds = collections.defaultdict(collections.Counter)
    for c in hlo.collectives(module, seconds):
        takes = link_seconds(c, chip, coordinates)
        kind = kinds[c.kind]
        kind["count"] += c.times
        kind["bytes"] += c.times * c.bytes
        kind["seconds"] += c.times * takes
        kind["exposed"] += c.times * max(0.0, takes - (c.hidden or 0.0))
    # Copies that run beside other work still share the memory with it.
    least = max(least, traffic / chip.bandwidth)
    expected = max(expected, least)
    exposed = sum(kind["exposed"] for kind in kinds.values())
    return Estimate(flops, traffic, least + exposed, expected + exposed, exposed, dict(kinds))


def _bound(i: hlo.Instruction, flops: float, traffic: float, chip: Chip) -> float:
    # A copy that is started here and awaited elsewhere runs beside other work; a collective's time
    # is that of its links.
    if i.opcode.endswith("-start") or i.opcode in hlo.KINDS:
        return 0.0
    return max(flops / chip.flops, traffic / chip.bandwidth)


def _cycles(i: hlo.Instruction) -> float:
    found = re.search(r'"estimated_cycles":"(\d+)"', i.rest) if i.opcode == "fusion" else None
    return float(found[1]) if found else 0.0


def _kernel(i: hlo.Instruction, flops: float, chip: Chip) -> float:
    return flops / chip.flops / KERNEL_EFFICIENCY if i.opcode == "custom-call" else 0.0


def link_seconds(c: hlo.Collective, chip: Chip, coordinates: Sequence[Sequence[int]]) -> float:
    """What the links need for a collective at full bandwidth, as bidirectional rings along every
    dimension of the torus that its group spans; a dimension that does not wrap around counts half.
    """
    n = len(c.group)
    if n < 2:
        return 0.0
    if c.kind == "collective-permute":
        return c.bytes / chip.link
    links = 0
    for along in zip(*(coordinates[d] for d in c.group), strict=True):
        extent = len(set(along))
        if extent > 1:
            links += 2 if extent % chip.torus == 0 else 1
    rounds = 2 if c.kind == "all-reduce" else 1
    return rounds * c.bytes * (n - 1) / n / (max(1, links) * chip.link)
