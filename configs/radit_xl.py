"""RadiT-XL at 512², the model that a pod is for: latents or pixels, 1,024 tokens a picture.

    python -m rfxray.train --config configs/radit_xl.py:space=pixel --workdir /mnt/rfxray/xl
    python -m rfxray.compile_pod --config configs/radit_xl.py:space=pixel --topology v5p:4x4x4

`space=latent` (64² × 16 channels, patch 2, the velocity predicted) or `space=pixel` (512² × 1,
patch 16, the data predicted, arXiv 2511.13720). Latents can be compiled for a pod, and not yet be
trained on: no encoder is here.

1,364.9 M parameters (1,365.7 M for pixels), 8.01 GFLOP a token of training (forward and backward,
attention included). A full run of 1.6 T tokens is 762,939 steps. Estimate of its chip-hours, FLOPs
a token × tokens / (peak × 0.5 MFU): 7,750 on v6e, 15,500 on v5p, 25,900 on v4 and 36,100 on v5e.
docs/pods.md has what the TPU compiler makes of it; mesh and remat below are those of its table, and
64 chips of v4 should take `--config.accumulate=2` beside.
"""

from rfxray.config.schema import defaults

TOKENS = 1024


def get_config(argument: str = "space=latent"):
    c = defaults()
    key, _, space = argument.partition("=")
    if key != "space" or space not in ("latent", "pixel"):
        raise ValueError(f"{argument!r} is neither space=latent nor space=pixel")

    m = c.model
    m.width, m.depth, m.heads, m.mlp_width, m.adaln_rank = 2048, 24, 16, 5632, 256
    if space == "latent":
        m.size, m.channels, m.patch = 64, 16, 2
    else:
        m.size, m.channels, m.patch = 512, 1, 16
        c.flow.prediction = "x"
    c.flow.shift = 2.0  # the side of the token grid against that of 256², eq. 23 of 2403.03206

    c.batch_size = 2048
    c.steps = round(1.6e12 / (c.batch_size * TOKENS))
    c.optim.learning_rate = 2e-4  # a starting point: nothing here was tuned at this size
    c.optim.warmup = 5000
    c.optim.schedule = "wsd"
    c.optim.decay = c.steps // 5

    c.mesh.fsdp = 32
    c.remat = "dots"
    c.checkpoint_every = 2000
    c.ema_every = 20_000  # 39 snapshots of both averages, 11 GB each (see rfxray/posthoc_ema.py)
    c.eval.every = 5000
    c.samples.every = 5000
    return c
