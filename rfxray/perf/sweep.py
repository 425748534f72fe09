"""Which remat policy, mesh and accumulation to try first on a pod: an analytic ranking.

It is deliberately rough: it only has to rank good candidates among the first, which `compile_pod`
then compiles to read memory and time from the module. Its two fitted constants come from XL
compiled for v5p; docs/pods.md compares the ranking with compiled modules.
"""

import dataclasses
import itertools

from rfxray.perf.chips import Chip

HEADROOM = 0.1  # share of a chip's memory that must stay free


@dataclasses.dataclass(frozen=True)
class Workload:
    """The properties of a transformer and its training that the ranking needs.

    Attributes:
      width, depth, heads, mlp_width: Shape of the transformer.
      tokens: Tokens of an example.
      parameters: Number of parameters.
      averages: Number of averaged copies of the parameters.
      batch_size: Examples of a step.
      flops: Model FLOPs of a step, over all devices.
      sequence: Number of shards of the tokens, which the ranking does not change.
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

    def keys(self) -> dict[str, str | int]:
        """The candidate as keys of a config."""
        mesh = {f"mesh.{axis}": getattr(self, axis) for axis in ("data", "fsdp", "tensor")}
        return {"model.remat": self.remat, "accumulate": self.accumulate, **mesh}

    def __str__(self) -> str:
        return (
            f"model.remat={self.remat} mesh.data={self.data} mesh.fsdp={self.fsdp} "
            f"mesh.tensor={self.tensor} accumulate={self.accumulate}: about "
            f"{self.memory / 2**30:.1f} GiB, {self.seconds * 1e3:.0f} ms"
        )


def rank(work: Workload, chips: int, chip: Chip, slices: int = 1) -> list[Candidate]:
    """All candidates that should fit into memory, fastest first.

    Args:
      work: Workload to train.
      chips: Number of chips of the pod.
      chip: Peaks of one chip.
      slices: Number of slices of the pod; only the data axis may cross them.
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
        # The compiler turns a gather of thin shards into an all-reduce of padded weights: twice the
        # bytes and no overlap, seen at 6 and 32 rows, not at 64 and more.
        if fsdp > 1 and work.width // fsdp < min(64, work.width):
            continue
        place = (remat, data, fsdp, tensor, accumulate)
        memory = _memory(work, *place)
        if memory < (1 - HEADROOM) * chip.memory:
            found.append(Candidate(*place, memory, _seconds(work, chip, *place)))
    return sorted(found, key=lambda candidate: candidate.seconds)


def _tokens(work: Workload, parts: int) -> float:
    """Tokens on a chip of a batch in this many parts."""
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
    backward = (8 + 6 / tensor + 4 * wide) * one  # activations of one layer at a time
    return state + gathered + kept * one * work.depth + backward


# Share of the peak that XL's step with `dots` reaches on 64 chips of v5p, estimated by roofline.py.
_EFFICIENCY = 0.67


# Share of the link time that was not overlapped there and on 512 chips.
_EXPOSED = 0.45


def _seconds(
    work: Workload, chip: Chip, remat: str, data: int, fsdp: int, tensor: int, accumulate: int
) -> float:
    chips = data * fsdp * tensor * work.sequence
    wide = work.mlp_width / work.width
    # Share of the forward pass that is computed again. `none` saves element-wise work, but writes
    # and reads twice as much as `dots`.
    again = {"none": 0.0, "dots": 0.0, "attention": 2 * wide / (4 + 3 * wide), "full": 1.0}[remat]
    compute = work.flops / chips * (1 + again / 3) / chip.flops / _EFFICIENCY
    tokens = _tokens(work, data * fsdp)
    moved = 0.0
    if fsdp > 1:  # gathered forward and backward, and the gradient scattered: bfloat16
        moved += accumulate * 3 * 2.0 * work.parameters / tensor
    if data > 1:  # the shards of the gradient all-reduced, which takes two rounds: float32
        moved += 2 * 4.0 * work.parameters / (fsdp * tensor)
    if tensor > 1:  # two all-reduces of activations per layer, forward and backward
        moved += 2 * 4 * 2.0 * tokens * work.width * work.depth
    links = moved / (4 * chip.link)
    optimizer = 2 * 4.0 * work.parameters * (4 + work.averages) / (fsdp * tensor)
    return max(compute, links) + _EXPOSED * links + optimizer / chip.bandwidth
