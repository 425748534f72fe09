"""RadiT-S at 512²: latents or pixels, 1,024 tokens a picture.

    python -m rfxray.train --config configs/radit_s.py:space=pixel --workdir runs/s

`space=latent` or `space=pixel` as in radit_xl.py.

44.3 M parameters (44.5 M for pixels), 0.307 GFLOP a token of training (forward and backward,
attention included). A full run of 0.1 T tokens is 381,470 steps. Estimate of its chip-hours, FLOPs
a token × tokens / (peak × 0.5 MFU): 19 on v6e, 37 on v5p, 62 on v4 and 87 on v5e.
"""

from configs import radit_xl


def get_config(argument: str = "space=latent"):
    c = radit_xl.get_config(argument)
    m = c.model
    m.width, m.depth, m.heads, m.mlp_width, m.adaln_rank = 512, 12, 4, 1408, 64

    c.batch_size = 256
    c.steps = round(0.1e12 / (c.batch_size * radit_xl.TOKENS))
    c.optim.learning_rate = 5e-4
    c.optim.decay = c.steps // 5

    c.mesh.fsdp = 1
    c.remat = "dots"
    return c
