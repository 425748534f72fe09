"""RadiT-B at 512²: latents or pixels, 1,024 tokens a picture.

    python -m rfxray.train --config configs/radit_b.py:space=pixel --workdir runs/b

`space=latent` or `space=pixel` as in radit_xl.py.

286.6 M parameters (287.0 M for pixels), 1.79 GFLOP a token of training (forward and backward,
attention included). A full run of 0.4 T tokens is 381,470 steps. Estimate of its chip-hours, FLOPs
a token × tokens / (peak × 0.5 MFU): 434 on v6e, 869 on v5p, 1,450 on v4 and 2,024 on v5e.
"""

from configs import radit_xl


def get_config(argument: str = "space=latent"):
    c = radit_xl.get_config(argument)
    m = c.model
    m.width, m.depth, m.heads, m.mlp_width, m.adaln_rank = 1024, 20, 8, 2816, 128

    c.batch_size = 1024
    c.steps = round(0.4e12 / (c.batch_size * radit_xl.TOKENS))
    c.optim.learning_rate = 3e-4
    c.optim.decay = c.steps // 5

    c.mesh.fsdp = 8
    c.remat = "dots"
    return c
