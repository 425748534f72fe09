"""Radiographs of your own at 256², on one GPU.

    rfxray build --source folder --images DIR --metadata FILE.csv … --size 256 --out data/mine
    rfxray train --config own --workdir runs/mine

44.5 M parameters (width and depth of `radit:size=s`), 256 tokens per image, data predicted in pixel
space (arXiv 2511.13720). 60,000 steps of 128 images take about an hour and a half on an A100
(estimate: 495 PFLOP at 30% of its peak). That is 70 passes over 110,000 radiographs; a small set is
memorised long before, so lower `--config.steps` and `--config.optim.decay` to about 70 passes over
yours, compare checkpoints by the validation loss, and look at `--nearest` (rfxray sample).

If it does not fit in memory, add `--config.accumulate=2`: the result is the same. Without a GPU use
configs/nih.py and `--size 128`.
"""

from rfxray.config.schema import defaults


def get_config():
    c = defaults()
    c.steps = 60_000
    c.batch_size = 128
    c.data.dirs = ("data/mine",)
    c.data.make = "rfxray build … --size 256 --out data/mine (README.md, Real radiographs)"

    c.model.size = 256
    c.model.patch = 16
    c.model.width = 512
    c.model.depth = 12
    c.model.heads = 8
    c.model.mlp_width = 1408
    c.model.adaln_rank = 64

    c.objective.prediction = "x"
    c.objective.t_mean = c.objective.t_std = 0.8  # arXiv 2511.13720, its t being 1 − ours
    c.optim.learning_rate = 3e-4
    c.optim.schedule = "wsd"
    c.optim.decay = 15_000
    c.evaluators.validation_loss.batches = 1
    return c
