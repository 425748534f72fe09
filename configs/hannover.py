"""A small set of real radiographs at 64², on any CPU: what a model of few images memorises.

The COVID-19 Image Repository of Hannover Medical School (CC BY 3.0):

    rfxray build --source folder --images HANNOVER/png --metadata HANNOVER/metadata.csv \\
      --column patient=patient_id --column image=image_id --column view=projection \\
      --column sex=sex --size 64 --name hannover --out runs/hannover/data
    rfxray train --config hannover --workdir runs/hannover/train

The network of configs/smoke.py; about six minutes on two cores. The model memorises its 136 images.
"""

from rfxray.configs import smoke  # pyright: ignore[reportMissingImports]  installed so


def get_config():
    c = smoke.get_config()
    c.steps = 3000
    c.optim.decay = 1500
    c.data.dirs = ("runs/hannover/data",)
    c.data.make = "rfxray build --source folder … (configs/hannover.py)"
    c.evaluators.validation_loss.batches = 1  # 15 radiographs are held out
    return c
