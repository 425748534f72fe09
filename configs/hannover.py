"""A small set of real radiographs at 64², on any CPU: an example of the whole path.

The COVID-19 Image Repository of Hannover Medical School (CC BY 3.0), as the README builds it:

    rfxray train --config hannover --workdir runs/hannover/train

The network of configs/smoke.py; about six minutes on two cores. The model memorises its 136 images.
"""

from rfxray.configs import smoke  # pyright: ignore[reportMissingImports]  installed so


def get_config():
    c = smoke.get_config()
    c.steps = 3000
    c.optim.decay = 1500
    c.data.dirs = ("runs/hannover/data",)
    c.data.make = "rfxray build --source folder … (README.md, Real radiographs)"
    c.evaluators.validation_loss.batches = 1  # 15 radiographs are held out
    return c
