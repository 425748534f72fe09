"""Real radiographs at 128²: NIH ChestX-ray14, or any data set of `rfxray harmonise` or `build`.

    rfxray harmonise --set nih=DIR --size 128 --out runs/nih/data
    rfxray train --config nih --workdir runs/nih/train            # a CPU
    rfxray train --config nih:on=gpu --workdir runs/nih/train     # a GPU

Another data set is `--config.data.dirs=DIR`. On a CPU it is a draft, which shows that the path from
files to samples works; a GPU sees 3.8 M images, 34 times the radiographs of the whole NIH set.

| on | parameters | tokens an image | steps × batch | time |
|---|---|---|---|---|
| cpu | 6.1 M | 64 | 4,000 × 16 | 29 minutes on two cores (37 images/s) |
| gpu | 25.5 M | 256 | 30,000 × 128 | 25 minutes on an A100 (142 PFLOP; estimate, 30% of peak) |
"""

from rfxray.config.schema import defaults

PLACES = ("cpu", "gpu")


def get_config(argument: str = "on=cpu"):
    name, _, place = argument.partition("=")
    if name != "on" or place not in PLACES:
        raise ValueError(f"{argument!r} must be on=PLACE with a place of {', '.join(PLACES)}")

    c = defaults()
    c.data.dirs = ("runs/nih/data",)
    c.data.make = "rfxray harmonise --set nih=DIR --size 128 --out runs/nih/data"

    c.model.size = 128
    c.objective.prediction = "x"
    c.optim.schedule = "wsd"
    c.evaluators.validation_loss.batches = 1
    if place == "cpu":
        c.steps, c.batch_size = 4000, 16
        c.model.patch, c.model.width, c.model.depth, c.model.heads = 16, 256, 6, 4
        c.model.mlp_width, c.model.adaln_rank = 704, 32
        c.model.dtype = "float32"
        c.model.unroll = 6
        c.objective.t_mean = 0.4  # as configs/smoke.py: a run of minutes needs weight near data
        c.optim.learning_rate, c.optim.warmup, c.optim.decay = 1e-3, 100, 2000
    else:
        c.steps, c.batch_size = 30_000, 128
        c.model.patch, c.model.width, c.model.depth, c.model.heads = 8, 384, 12, 6
        c.model.mlp_width, c.model.adaln_rank = 1056, 64
        c.objective.t_mean = c.objective.t_std = 0.8  # arXiv 2511.13720, its t being 1 − ours
        c.optim.learning_rate, c.optim.warmup, c.optim.decay = 5e-4, 1000, 10_000
    return c
