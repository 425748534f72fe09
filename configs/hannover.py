"""A small set of real radiographs at 64², on any CPU: it memorises, and is meant to show the path.

The COVID-19 Image Repository of Hannover Medical School (CC BY 3.0), as the README builds it:

    python -m rfxray.train --config configs/hannover.py --workdir runs/hannover/train

The network of configs/smoke.py; about six minutes on two cores.
"""

from rfxray.configs import smoke


def get_config():
    c = smoke.get_config()
    c.steps = 3000
    c.optim.decay = 1500
    c.data.dirs = ("runs/hannover/data",)
    c.data.make = "python -m data_prep.build --source folder … (README.md, Real radiographs)"
    c.evaluators.validation_loss.batches = 1  # 15 pictures are held out
    return c
