"""A config of an autoencoder with every term of its loss, which compiles in seconds."""

from rfxray.config.schema import defaults


def get_config():
    c = defaults(
        model="vae",
        objective="autoencoding",
        parts={"discriminator": "patch_discriminator"},
        frozen={"perceptual": "grey_vit"},
    )
    c.model.size, c.model.width, c.model.multipliers = 32, 4, (1, 2)
    c.model.blocks, c.model.groups, c.model.z, c.model.mid_attention = 1, 2, 2, False
    judge = c.parts.discriminator
    judge.model.width, judge.model.layers = 4, 1
    judge.optim.warmup, judge.optim.b1, judge.optim.learning_rate = 0, 0.5, 1e-3
    eye = c.parts.perceptual.model
    eye.width, eye.depth, eye.heads, eye.side, eye.size = 16, 1, 2, 2, 28
    c.parts.perceptual.licence = "Apache-2.0"
    eye.mean, eye.std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    o = c.objective
    o.perceptual_weight, o.kl_weight, o.adversarial_weight = 10.0, 1e-4, 0.5
    o.adversarial_start, o.equivariance, o.latent_noise = 32, 0.5, 0.1
    c.batch_size, c.steps = 8, 12
    c.optim.learning_rate, c.optim.warmup = 3e-3, 2
    c.log_every, c.checkpoint_every = 4, 6
    c.evaluators.validation_loss.every = c.evaluators.sample_grid.every = 12
    c.evaluators.validation_loss.batches, c.evaluators.sample_grid.n = 1, 4
    return c
