"""Which remat policy, mesh and accumulation to try first on a pod: an analytic ranking.

Rough on purpose: it only has to put good candidates among the first, `compile_pod` then compiles
them and reads memory and time from the module. Its two fitted constants come from XL compiled for
v5p; docs/pods.md compares it with what was compiled.
"""

import dataclasses
import itertools

from rfxray.networks import radit
from rfxray.perf import flops
from rfxray.perf.chips import Chip

HEADROOM = 0.1  # of a chip's memory, what has to stay free


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
        return {"remat": self.remat, "accumulate": self.accumulate, **mesh}

    def __str__(self) -> str:
        return (
            f"remat={self.remat} mesh.data={self.data} mesh.fsdp={self.fsdp} "
            f"mesh.tensor={self.tensor} accumulate={self.accumulate}: about "
            f"{self.memory / 2**30:.1f} GiB, {self.seconds * 1e3:.0f} ms"
        )


def rank(config, chips: int, chip: Chip, parameters: int, slices: int = 1) -> list[Candidate]:
    """Every candidate that should fit, the fastest first.

    Args:
      config: whose batch size and `mesh.sequence` are kept.
      chips: in the pod.
      chip: its peaks.
      parameters: of the network.
      slices: of the pod, between which only the data axis runs.
    """
    chips //= config.mesh.sequence
    ways = [n for n in range(1, chips + 1) if chips % n == 0]
    shape = config.model
    found = []
    for fsdp, tensor, remat, accumulate in itertools.product(
        ways, (1, 2, 4), ("none", "dots", "attention", "full"), (1, 2, 4)
    ):
        data = chips // (fsdp * tensor)
        if data * fsdp * tensor != chips or config.batch_size % (data * fsdp * accumulate):
            continue
        if data % slices:
            continue
        if shape.heads % tensor or shape.mlp_width % tensor or shape.width % fsdp:
            continue
        # A gather of thin shards is written by the compiler as an all-reduce of padded weights,
        # twice the bytes and nothing beside it: seen at 6 and at 32 rows, not at 64 and more.
        if fsdp > 1 and shape.width // fsdp < min(64, shape.width):
            continue
        place = (remat, data, fsdp, tensor, accumulate)
        memory = _memory(config, parameters, *place)
        if memory < (1 - HEADROOM) * chip.memory:
            found.append(Candidate(*place, memory, _seconds(config, parameters, chip, *place)))
    return sorted(found, key=lambda candidate: candidate.seconds)


def _tokens(config, parts: int) -> float:
    """On a chip, of a batch in so many parts."""
    tokens = radit.model_config(config).tokens / config.mesh.sequence
    return config.batch_size // parts * tokens


def _memory(config, parameters, remat, data, fsdp, tensor, accumulate) -> float:
    m = config.model
    tokens = _tokens(config, data * fsdp * accumulate)
    # Parameters, two moments, averages and the gradient; float32.
    state = 4.0 * parameters * (4 + len(config.ema_sigmas)) / (fsdp * tensor)
    gathered = 3 * 2.0 * parameters / m.depth / tensor
    wide = m.mlp_width / m.width / tensor
    # Activations kept of a layer, in units of its input; bfloat16.
    kept = {
        "full": 1.0,
        "attention": 1 + 4 / tensor,
        "dots": 3 + 4 / tensor + 2 * wide,
        "none": 8 + 9 / tensor + 5 * wide,
    }[remat]
    one = 2.0 * tokens * m.width
    backward = (8 + 6 / tensor + 4 * wide) * one  # of the layer that is being worked on
    return state + gathered + kept * one * m.depth + backward


# Of the peak, what XL's step of `dots` reaches on 64 chips of v5p by the estimate of roofline.py.
_EFFICIENCY = 0.67


# Of the time of the links, the part that was not overlapped there, and on 512 chips.
_EXPOSED = 0.45


def _seconds(config, parameters, chip, remat, data, fsdp, tensor, accumulate) -> float:
    m = config.model
    chips = data * fsdp * tensor * config.mesh.sequence
    wide = m.mlp_width / m.width
    # Forward passes that are taken again. `none` saves element-wise work and pays by writing and
    # reading twice as much as `dots`.
    again = {"none": 0.0, "dots": 0.0, "attention": 2 * wide / (4 + 3 * wide), "full": 1.0}[remat]
    compute = flops.train_step(config) / chips * (1 + again / 3) / chip.flops / _EFFICIENCY
    tokens = _tokens(config, data * fsdp)
    moved = 0.0
    if fsdp > 1:  # gathered forward and backward, and the gradient scattered: bfloat16
        moved += accumulate * 3 * 2.0 * parameters / tensor
    if data > 1:  # the gradient's shards reduced, which goes round twice: float32
        moved += 2 * 4.0 * parameters / (fsdp * tensor)
    if tensor > 1:  # two all-reduces of the activations a layer, forward and backward
        moved += 2 * 4 * 2.0 * tokens * m.width * m.depth
    links = moved / (4 * chip.link)
    optimizer = 2 * 4.0 * parameters * (4 + len(config.ema_sigmas)) / (fsdp * tensor)
    return max(compute, links) + _EXPOSED * links + optimizer / chip.bandwidth
