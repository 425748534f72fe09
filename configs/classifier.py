"""A classifier of findings, from scratch: what samples are worth is measured with it.

    rfxray train --config classifier --workdir runs/classifier
    rfxray evaluate control --classifier run=runs/classifier …
    rfxray evaluate utility …

A residual network of 0.08 M parameters for phantoms of 64², half a minute on two cores. For films,
`classifier:size=224` has 0.6 M; set --config.data.dirs=DIR. Unknown and uncertain findings have no
loss.
"""

from rfxray.config.schema import defaults


def get_config(argument: str = "size=64"):
    name, _, size = argument.partition("=")
    if name != "size" or not size.isdigit() or int(size) < 32:
        raise ValueError(f"{argument!r} must be size=PIXELS, from 32 on")

    c = defaults(
        model="classifier",
        objective="classification",
        evaluators={"validation_loss": "validation_loss"},
    )
    c.steps = 300
    c.batch_size = 32

    c.data.dirs = ("runs/smoke/phantom",)
    c.data.make = "rfxray phantom --out runs/smoke/phantom --n 16384 --size 64 --seed 0"

    c.model.size = int(size)
    if int(size) > 128:
        c.model.width, c.model.multipliers = 16, (1, 2, 4, 8, 8)

    c.optim.learning_rate = 4e-3
    c.optim.warmup = 50
    c.optim.schedule = "wsd"
    c.optim.decay = 200
    c.optim.weight_decay = 0.05

    c.log_every = 100
    c.checkpoint_every = 0
    c.evaluators.validation_loss.every = 300
    return c
