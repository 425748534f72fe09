"""Which remat policy, mesh and accumulation to try first on a pod: an analytic ranking.

Rough on purpose: it only has to put good candidates among the first, `compile_pod` then compiles
them and reads memory and time from the module. Its two fitted constants come from XL compiled for
v5p; docs/pods.md compares it with what was compiled.
"""

import dataclasses
import itertools

from rfxray.perf.chips import Chip

HEADROOM = 0.1  # of a chip's memory, what has to stay free


@dataclasses.dataclass(frozen=True)
class Workload:
    """A transformer and its training, as far as the ranking reads them.

    Attributes:
      width, depth, heads, mlp_width: Shape of the transformer.
      tokens: Tokens of an example.
      parameters: Number of parameters.
      averages: Copies of the parameters that are averaged.
      batch_size: Examples of a step.
      flops: Model FLOPs of a step, over all devices.
      sequence: Shards of the tokens, which are kept.
    """

    width: int
    depth: int
    heads: int
    mlp_width: int
    tokens: int
    parameters: int
    averages: int
    batch_size: int
    flops: float
    sequence: int = 1


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A way to run a config on a pod, with its estimate: bytes per chip and seconds per step."""

    remat: str
    data: int
    fsdp: int
    tensor: int
    accumulate: int
    memory: float
    seconds: float

    def keys(self) -> dict[str, object]:
        """As keys of a config."""
        mesh = {f"mesh.{axis}": getattr(self, axis) for axis in ("data", "fsdp", "tensor")}
        return {"model.remat": self.remat, "accumulate": self.accumulate, **mesh}

    def __str__(self) -> str:
        return (
            f"model.remat={self.remat} mesh.data={self.data} mesh.fsdp={self.fsdp} "
            f"mesh.tensor={self.tensor} accumulate={self.accumulate}: about "
            f"{self.memory / 2**30:.1f} GiB, {self.seconds * 1e3:.0f} ms"
        )


def rank(work: Workload, chips: int, chip: Chip, slices: int = 1) -> list[Candidate]:
    """Every candidate that should fit, the fastest first.

    Args:
      work: What is trained.
      chips: Number of chips of the pod.
      chip: Peaks of one.
      slices: Slices of the pod, between which only the data axis runs.
    """
    chips //= work.sequence
    ways = [n for n in range(1, chips + 1) if chips % n == 0]
    found = []
    for fsdp, tensor, remat, accumulate in itertools.product(
        ways, (1, 2, 4), ("none", "dots", "attention", "full"), (1, 2, 4)
    ):
        data = chips // (fsdp * tensor)
        if data * fsdp * tensor != chips or work.batch_size % (data * fsdp * accumulate):
            continue
        if data % slices:
            continue
        if work.heads % tensor or work.mlp_width % tensor or work.width % fsdp:
            continue
        # A gather of thin shards is written by the compiler as an all-reduce of padded weights,
        # twice the bytes and nothing beside it: seen at 6 and at 32 rows, not at 64 and more.
        if fsdp > 1 and work.width // fsdp < min(64, work.width):
            continue
        place = (remat, data, fsdp, tensor, accumulate)
        memory = _memory(work, *place)
        if memory < (1 - HEADROOM) * chip.memory:
            found.append(Candidate(*place, memory, _seconds(work, chip, *place)))
    return sorted(found, key=lambda candidate: candidate.seconds)


def _tokens(work: Workload, parts: int) -> float:
    """On a chip, of a batch in so many parts."""
    return work.batch_size // parts * work.tokens / work.sequence


def _memory(
    work: Workload, remat: str, data: int, fsdp: int, tensor: int, accumulate: int
) -> float:
    tokens = _tokens(work, data * fsdp * accumulate)
    # Parameters, two moments, averages and the gradient; float32.
    state = 4.0 * work.parameters * (4 + work.averages) / (fsdp * tensor)
    gathered = 3 * 2.0 * work.parameters / work.depth / tensor
    wide = work.mlp_width / work.width / tensor
    # Activations kept of a layer, in units of its input; bfloat16.
    kept = {
        "full": 1.0,
        "attention": 1 + 4 / tensor,
        "dots": 3 + 4 / tensor + 2 * wide,
        "none": 8 + 9 / tensor + 5 * wide,
    }[remat]
    one = 2.0 * tokens * work.width
    backward = (8 + 6 / tensor + 4 * wide) * one  # of the layer that is being worked on
    return state + gathered + kept * one * work.depth + backward


# Of the peak, what XL's step of `dots` reaches on 64 chips of v5p by the estimate of roofline.py.
_EFFICIENCY = 0.67


# Of the time of the links, the part that was not overlapped there, and on 512 chips.
_EXPOSED = 0.45


def _seconds(
    work: Workload, chip: Chip, remat: str, data: int, fsdp: int, tensor: int, accumulate: int
) -> float:
    chips = data * fsdp * tensor * work.sequence
    wide = work.mlp_width / work.width
    # Forward passes that are taken again. `none` saves element-wise work and pays by writing and
    # reading twice as much as `dots`.
    again = {"none": 0.0, "dots": 0.0, "attention": 2 * wide / (4 + 3 * wide), "full": 1.0}[remat]
    compute = work.flops / chips * (1 + again / 3) / chip.flops / _EFFICIENCY
    tokens = _tokens(work, data * fsdp)
    moved = 0.0
    if fsdp > 1:  # gathered forward and backward, and the gradient scattered: bfloat16
        moved += accumulate * 3 * 2.0 * work.parameters / tensor
    if data > 1:  # the gradient's shards reduced, which goes round twice: float32
        moved += 2 * 4.0 * work.parameters / (fsdp * tensor)
    if tensor > 1:  # two all-reduces of the activations a layer, forward and backward
        moved += 2 * 4 * 2.0 * tokens * work.width * work.depth
    links = moved / (4 * chip.link)
    optimizer = 2 * 4.0 * work.parameters * (4 + work.averages) / (fsdp * tensor)
    return max(compute, links) + _EXPOSED * links + optimizer / chip.bandwidth
