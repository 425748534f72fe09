"""An extractor of features from images without labels, for the data that a model is trained on.

    rfxray train --config masked --workdir runs/masked
    rfxray export --checkpoint runs/masked --out runs/encoder
    rfxray evaluate fidelity --extractor ssl=runs/encoder …

A vision transformer of 0.6 M parameters that draws covered parts of phantoms of 64² (arXiv
2111.09886), and reads the training split only. For films of 128² add
--config.data.dirs=DIR --config.model.size=128 --config.model.patch=16 --config.objective.cell=32.
docs/extractors.md says what its features know.
"""

from rfxray.config.schema import defaults


def get_config():
    c = defaults(model="masked_vit", objective="masked_image")
    c.steps = 1500
    c.batch_size = 32

    c.data.dirs = ("runs/smoke/phantom",)
    c.data.make = "rfxray phantom --out runs/smoke/phantom --n 16384 --size 64 --seed 0"

    c.optim.learning_rate = 1e-3
    c.optim.warmup = 100
    c.optim.schedule = "wsd"
    c.optim.decay = 750
    c.optim.weight_decay = 0.05

    c.log_every = 100
    c.evaluators.sample_grid.n = 4
    return c
