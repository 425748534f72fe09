"""Phantoms at 64² for longer: the model that editing is measured on (docs/sampling.md).

    python -m rfxray.train --config configs/phantom_long.py --workdir runs/phantom_long/train

The network of configs/smoke.py and its phantoms, seen 2.4 times as often: 9,000 steps of 16, some
twenty minutes on two cores, forty on one. Resumable; run the same command again.
"""

from rfxray.configs import smoke


def get_config():
    c = smoke.get_config()
    c.steps = 9000
    c.optim.decay = 4500
    c.evaluators.validation_loss.every = 3000
    c.evaluators.sample_grid.every = 3000
    return c
