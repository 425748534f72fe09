"""RadiT-M at 512²: latents or pixels, 1,024 tokens a picture.

    python -m rfxray.train --config configs/radit_m.py:space=pixel --workdir runs/m

`space=latent` or `space=pixel` as in radit_xl.py.

130.4 M parameters (130.7 M for pixels), 0.845 GFLOP a token of training (forward and backward,
attention included). A full run of 0.2 T tokens is 381,470 steps. Estimate of its chip-hours, FLOPs
a token × tokens / (peak × 0.5 MFU): 102 on v6e, 205 on v5p, 342 on v4 and 477 on v5e.
"""

from configs import radit_xl


def get_config(argument: str = "space=latent"):
    c = radit_xl.get_config(argument)
    m = c.model
    m.width, m.depth, m.heads, m.mlp_width, m.adaln_rank = 768, 16, 6, 2112, 96

    c.batch_size = 512
    c.steps = round(0.2e12 / (c.batch_size * radit_xl.TOKENS))
    c.optim.learning_rate = 4e-4
    c.optim.decay = c.steps // 5

    c.mesh.fsdp = 1
    c.remat = "dots"
    return c
