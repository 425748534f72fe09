"""RadiT at 512² in four sizes, on latents or pixels: 1,024 tokens per image.

    rfxray train --config radit:size=xl,space=pixel --workdir /mnt/rfxray/xl
    rfxray compile-pod --config radit:size=xl,space=pixel --topology v5p:4x4x4

`space=latent` (64² × 16 channels, patch 2, velocity predicted) or `space=pixel` (512² × 1 channel,
patch 16, data predicted, arXiv 2511.13720). Latents are read from a data set that `rfxray encode`
wrote (docs/latents.md).

| size | parameters | GFLOP a token | tokens of a full run | steps | chip-hours v6e, v5p, v4, v5e |
|---|---|---|---|---|---|
| s  | 44.3 M | 0.307 | 0.1 T | 381,470 | 19, 37, 62, 87 |
| m  | 130.4 M | 0.845 | 0.2 T | 381,470 | 102, 205, 342, 477 |
| b  | 286.6 M | 1.79 | 0.4 T | 381,470 | 434, 869, 1,450, 2,024 |
| xl | 1,364.9 M | 8.01 | 1.6 T | 762,939 | 7,750, 15,500, 25,900, 36,100 |

With space=pixel a model has 0.2 to 0.8 M parameters more. GFLOPs count forward and backward,
attention included; chip-hours are estimates: FLOPs per token × tokens / (peak × 0.5 MFU).
docs/pods.md has the figures of the TPU compiler for XL with the mesh and remat below; on 64 chips
of v4 add `--config.accumulate=2`.
"""

import dataclasses

from rfxray.config.schema import defaults

TOKENS = 1024


@dataclasses.dataclass(frozen=True)
class Size:
    """One size: the shape of the network, tokens of a full run, and how it is trained."""

    width: int
    depth: int
    heads: int
    mlp_width: int
    adaln_rank: int
    tokens: float
    batch_size: int
    learning_rate: float  # a starting point: nothing was tuned at scale
    fsdp: int


SIZES = {
    "s": Size(512, 12, 4, 1408, 64, 0.1e12, 256, 5e-4, 1),
    "m": Size(768, 16, 6, 2112, 96, 0.2e12, 512, 4e-4, 1),
    "b": Size(1024, 20, 8, 2816, 128, 0.4e12, 1024, 3e-4, 8),
    "xl": Size(2048, 24, 16, 5632, 256, 1.6e12, 2048, 2e-4, 32),
}
SPACES = ("latent", "pixel")


def get_config(argument: str = "size=xl,space=latent"):
    given = {"size": "xl", "space": "latent"}
    for word in argument.split(","):
        name, _, value = word.partition("=")
        if value not in {"size": SIZES, "space": SPACES}.get(name, ()):
            raise ValueError(
                f"{argument!r} must be size=NAME,space=NAME with a size of {', '.join(SIZES)} and "
                f"a space of {', '.join(SPACES)}"
            )
        given[name] = value
    size = SIZES[given["size"]]

    c = defaults()
    m = c.model
    m.width, m.depth, m.heads = size.width, size.depth, size.heads
    m.mlp_width, m.adaln_rank = size.mlp_width, size.adaln_rank
    m.remat = "dots"
    if given["space"] == "latent":
        m.size, m.channels, m.patch = 64, 16, 2
    else:
        m.size, m.channels, m.patch = 512, 1, 16
        c.objective.prediction = "x"
    c.objective.shift = 2.0  # side of the token grid over that of 256², eq. 23 of arXiv 2403.03206

    c.batch_size = size.batch_size
    c.steps = round(size.tokens / (c.batch_size * TOKENS))
    c.optim.learning_rate = size.learning_rate
    c.optim.warmup = 5000
    c.optim.schedule = "wsd"
    c.optim.decay = c.steps // 5

    c.mesh.fsdp = size.fsdp
    c.checkpoint_every = 2000
    c.ema_every = 20_000  # XL: 39 snapshots of both averages, 11 GB each (rfxray/posthoc_ema.py)
    c.evaluators.validation_loss.every = 5000
    c.evaluators.sample_grid.every = 5000
    return c
