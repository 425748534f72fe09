"""The smallest run: phantoms at 64², on any CPU, in minutes.

    rfxray train --config smoke --workdir runs/smoke/train

1.2 M parameters, 64 tokens per image, x-prediction in pixel space (arXiv 2511.13720). About eight
minutes on two cores; the loss ends near 0.065, and samples show chests from step 1000 on.
"""

from rfxray.config.schema import defaults


def get_config():
    c = defaults()
    c.steps = 3800
    c.batch_size = 16

    c.data.dirs = ("runs/smoke/phantom",)
    c.data.make = "rfxray phantom --out runs/smoke/phantom --n 16384 --size 64 --seed 0"

    c.model.size = 64
    c.model.patch = 8
    c.model.width = 128
    c.model.depth = 4
    c.model.heads = 2
    c.model.mlp_width = 352
    c.model.adaln_rank = 32
    c.model.dtype = "float32"

    # Predicting x in pixel space works best with more weight on noise; 0.4 keeps enough weight near
    # data for a run of minutes (0.8 left samples soft, 0 left findings unlearned).
    c.objective.prediction = "x"
    c.objective.t_mean = 0.4

    # Small batches and many steps; half of them with a falling rate, which gains most.
    c.optim.learning_rate = 2e-3
    c.optim.warmup = 100
    c.optim.schedule = "wsd"
    c.optim.decay = 1900

    c.model.unroll = 4
    c.log_every = 200
    c.checkpoint_every = 1000
    c.evaluators.validation_loss.every = 1000
    c.evaluators.validation_loss.batches = 16
    c.evaluators.sample_grid.every = 1000
    return c
