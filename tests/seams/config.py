"""A config of kinds from outside rfxray; see plugins.py."""

from rfxray.config.schema import defaults


def get_config():
    c = defaults(
        model="tests.seams.plugins:autoencoder",
        objective="tests.seams.plugins:adversarial",
        evaluators={
            "validation_loss": "validation_loss",
            "sample_grid": "sample_grid",
            "brightness": "tests.seams.plugins:brightness",
        },
        parts={"discriminator": "tests.seams.plugins:discriminator"},
    )
    c.batch_size = 8
    c.steps = 12
    c.optim.learning_rate = 2e-3
    c.optim.warmup = 2
    c.parts.discriminator.optim.learning_rate = 1e-3
    c.parts.discriminator.optim.warmup = 0
    c.parts.discriminator.optim.b1 = 0.5
    c.log_every = 4
    c.checkpoint_every = 6
    c.evaluators.validation_loss.every = 6
    c.evaluators.validation_loss.batches = 1
    c.evaluators.sample_grid.every = 6
    c.evaluators.sample_grid.n = 4
    return c
