"""The shape of an autoencoder of latent diffusion; see vae.py."""

import dataclasses

import ml_collections

from rfxray.errors import ConfigError

PATCH = 2  # side of the patches that FLUX.2 folds its latents by, cells


@dataclasses.dataclass(frozen=True)
class Vae:
    """The shape of the network; see rfxray/config/models.py for the meaning of each field."""

    size: int
    channels: int
    width: int
    multipliers: tuple[float, ...]
    decoder_multipliers: tuple[float, ...]
    blocks: int
    z: int
    groups: int
    mid_attention: bool
    quant_convs: bool
    patchify: bool
    dtype: str
    fold: int = 1
    linear: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level of the encoder, the largest maps first."""
        return tuple(round(self.width * m) for m in self.multipliers)

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        """Channels of each level of the decoder, the largest maps first."""
        if self.decoder_multipliers == (0,):
            return self.widths
        return tuple(round(self.width * m) for m in self.decoder_multipliers)

    @property
    def block(self) -> int:
        """Pixels of an image to a position of the smallest map, along one side."""
        return self.fold * 2 ** (len(self.multipliers) - 1)

    @property
    def factor(self) -> int:
        """Pixels of an image to a cell of its latents, along one side."""
        return self.block * (PATCH if self.patchify else 1)

    @property
    def latent_channels(self) -> int:
        """Channels of the latents as they are returned."""
        return self.z * (PATCH**2 if self.patchify else 1)


def of_section(section: ml_collections.ConfigDict) -> Vae:
    """The shape that a config's section of kind `vae` describes."""
    return Vae(**{field.name: section[field.name] for field in dataclasses.fields(Vae)})


def check(vae: Vae) -> None:
    """Raises a ConfigError if the shape of a network contradicts itself."""
    if not vae.multipliers:
        raise ConfigError("model.multipliers must have an entry for each level (got none)")
    if len(vae.decoder_widths) != len(vae.widths):
        raise ConfigError(
            f"model.decoder_multipliers must have the {len(vae.widths)} entries of "
            f"model.multipliers, or be 0 (got {len(vae.decoder_widths)})"
        )
    if vae.channels not in (1, 3):
        raise ConfigError(f"model.channels must be 1 or 3 (got {vae.channels})")
    own = () if vae.decoder_multipliers == (0,) else vae.decoder_multipliers
    for key, multipliers in (("multipliers", vae.multipliers), ("decoder_multipliers", own)):
        for width in (vae.width * multiplier for multiplier in multipliers):
            if width < 1 or abs(width - round(width)) > 1e-6 or round(width) % vae.groups:
                raise ConfigError(
                    f"model.{key} times model.width={vae.width} must be multiples of "
                    f"model.groups={vae.groups} (got {width:g})"
                )
    if vae.size % vae.factor:
        raise ConfigError(
            f"model.size must be a multiple of the factor {vae.factor} that "
            f"{len(vae.multipliers)} levels{f', fold={vae.fold}' if vae.fold > 1 else ''}"
            f"{' and patchify' if vae.patchify else ''} make (got {vae.size})"
        )
    if vae.linear and vae.z > vae.block**2:
        raise ConfigError(
            f"model.z must be at most the {vae.block**2} pixels of a block with model.linear=True "
            f"(got {vae.z})"
        )
