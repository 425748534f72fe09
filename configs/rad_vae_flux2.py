"""Rad-VAE as an adapter: the autoencoder of FLUX.2 with a decoder adapted to radiographs.

    rfxray export --weights FLUX2/vae --licence Apache-2.0 --out runs/flux2
    rfxray train --config rad_vae_flux2 --workdir runs/rad_vae_flux2 \\
      --config.model.base=runs/flux2 --config.parts.perceptual.weights=rad_dino=RAD_DINO \\
      --config.parts.perceptual.licence=MIT
    rfxray compile-pod --config rad_vae_flux2 --topology v5p:4x4x4

| size | images | latents | base | adapter | steps × batch | perceptual |
|---|---|---|---|---|---|---|
| tiny | 64² | 16 × 16 × 4 | export of `rad_vae:size=tiny`, 0.36 M | 0.02 M | 300 × 16 | no |
| full | 512² | 32 × 32 × 128 | that of FLUX.2, 84.0 M | 3.60 M | 20,000 × 32 | rad_dino |

The encoder stays that of the base, so latents of the base are decoded by the adapted decoder too.
`perceptual=ssl|rad_dino|no` replaces the last column, as in rad_vae. `size=tiny` shows the path on
a CPU. To adapt another autoencoder, set its keys under `--config.model`; a refusal says which ones
differ. Nothing was tuned.
"""

from rfxray.configs import rad_vae  # pyright: ignore[reportMissingImports]  installed so

from rfxray.config.schema import defaults

CHOICES = {"size": ("tiny", "full"), "perceptual": ("no", "ssl", "rad_dino")}


def get_config(argument: str = "size=full"):
    given = rad_vae.read(argument, CHOICES)
    full = given.get("size", "full") == "full"
    perceptual = given.get("perceptual", "rad_dino" if full else "no")

    c = defaults(
        model="decoder_lora",
        objective="autoencoding",
        frozen={} if perceptual == "no" else {"perceptual": rad_vae.KINDS[perceptual]},
    )
    m = c.model
    if full:
        m.channels, m.z, m.quant_convs, m.patchify = 3, 32, True, True
        m.dtype, m.remat = "bfloat16", "level"
        m.rank, m.alpha = 32, 32.0
        m.targets = ("conv1", "conv2", "to_q", "to_k", "to_v", "to_out.0")
        c.batch_size, c.steps = 32, 20_000
        c.optim.learning_rate = 1e-4
        c.data.make = "rfxray harmonise … --size 512"
        c.evaluators.validation_loss.every = c.evaluators.sample_grid.every = 1000
    else:
        rad_vae.shape(m, rad_vae.SIZES["tiny"])
        m.rank, m.alpha = 4, 4.0
        c.batch_size, c.steps = 16, 300
        c.optim.learning_rate, c.optim.warmup = 1e-3, 50
        c.data.dirs, c.data.make = rad_vae.PHANTOMS
        c.evaluators.validation_loss.every = c.evaluators.sample_grid.every = 100
    c.optim.schedule = "cosine"
    c.objective.kl_weight = 0.0  # the encoder is not trained
    if perceptual != "no":
        c.objective.perceptual_weight = 250.0
        rad_vae.judged(c.parts.perceptual.model, m.size)
    return c
