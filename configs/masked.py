"""An extractor of features from images without labels, for the data that a model is trained on.

    rfxray train --config masked --workdir runs/masked
    rfxray export --checkpoint runs/masked --out runs/encoder
    rfxray evaluate fidelity --extractor ssl=runs/encoder …

A vision transformer of 1.84 M parameters that fills hidden parts of phantoms of 64² (arXiv
2111.09886). For other data: --config.data.dirs=DIR --config.model.size=SIDE; it reads the training
split only. The export states the hash of the weights and the sources of the data.
"""

from rfxray.config.schema import defaults


def get_config():
    c = defaults(model="masked_vit", objective="masked_image")
    c.steps = 4000
    c.batch_size = 64

    c.data.dirs = ("runs/smoke/phantom",)
    c.data.make = "rfxray phantom --out runs/smoke/phantom --n 16384 --size 64 --seed 0"

    c.optim.learning_rate = 1e-3
    c.optim.warmup = 200
    c.optim.schedule = "wsd"
    c.optim.decay = 2000
    c.optim.weight_decay = 0.05

    c.log_every = 100
    c.evaluators.sample_grid.n = 4
    return c
