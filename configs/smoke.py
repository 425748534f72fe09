"""The smallest run: phantoms at 64², on any CPU, in minutes.

    rfxray train --config smoke --workdir runs/smoke/train
    rfxray train --config smoke:space=latent --workdir runs/smoke/latent_train

1.2 M parameters, 64 tokens per image, x-prediction in pixel space (arXiv 2511.13720). About eight
minutes on two cores; the loss ends near 0.065, and samples show chests from step 1000 on.

`space=latent` is the same network on the latents of `rad_vae:size=tiny`, 16² × 4 at patch 2, with
the velocity predicted (docs/latents.md).
"""

from rfxray.config.schema import defaults

SPACES = ("pixel", "latent")


def get_config(argument: str = "space=pixel"):
    name, _, space = argument.partition("=")
    if name != "space" or space not in SPACES:
        raise ValueError(f"{argument!r} must be space=NAME with a space of {', '.join(SPACES)}")

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
    if space == "latent":
        c.data.dirs = ("runs/smoke/latents",)
        c.data.make = "bash launch/smoke.sh --latent"
        c.model.size, c.model.channels, c.model.patch = 16, 4, 2
        c.objective.prediction, c.objective.t_mean = "v", 0.0

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
