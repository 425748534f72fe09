"""The embedded default: phantoms at 64², on any CPU, in minutes.

    python -m rfxray.train --config configs/smoke.py --workdir runs/smoke/train

1.2 M parameters, 64 tokens a picture, x-prediction in pixel space (arXiv 2511.13720).
"""

from configs import base


def get_config():
    c = base.get_config()
    c.steps = 4000
    c.batch_size = 32

    c.data.dirs = ("runs/smoke/phantom",)
    c.data.make = (
        "python -m data_prep.phantom --out runs/smoke/phantom --n 16384 --size 64 --seed 0"
    )

    c.model.size = 64
    c.model.patch = 8
    c.model.width = 128
    c.model.depth = 4
    c.model.heads = 2
    c.model.mlp_width = 352
    c.model.adaln_rank = 32
    c.model.dtype = "float32"
    c.flow.prediction = "x"

    c.optim.learning_rate = 2e-3
    c.optim.warmup = 100
    c.optim.schedule = "wsd"
    c.optim.decay = 1000

    c.unroll = 4
    c.log_every = 100
    c.checkpoint_every = 1000
    c.eval.every = 1000
    c.samples.every = 1000
    return c
