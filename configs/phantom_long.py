"""Phantoms at 64² for longer: the model of docs/sampling.md.

    rfxray train --config phantom_long --workdir runs/phantom_long/train

The network and the phantoms of configs/smoke.py, trained 2.4 times as long: 9,000 steps of 16,
about twenty minutes on two cores, forty on one. To resume, run the same command again.
"""

from rfxray.configs import smoke  # pyright: ignore[reportMissingImports]  installed so


def get_config():
    c = smoke.get_config()
    c.steps = 9000
    c.optim.decay = 4500
    c.evaluators.validation_loss.every = 3000
    c.evaluators.sample_grid.every = 3000
    return c
