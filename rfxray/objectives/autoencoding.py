"""Autoencoding: an image, through the latents of a Gaussian posterior, and back.

    loss = distance + spectrum_weight · spectrum + perceptual_weight · perceptual + kl_weight · KL
           + adversarial_weight · λ · G

(Rombach et al. 2022, arXiv 2112.10752, appendix G; for the spectrum see spectrum.py). Every term is
a mean: over pixels, windows, latent values, states of a network, or logits. λ makes the adversarial
term G as strong as the reconstruction, see adversarial.py. Images are never flipped: a radiograph
has a left and a right.

Without training, latents are the means of the posterior, the spectrum counts from the first
example, and G is left out: it compares with a discriminator that changes, so it would say nothing
about the autoencoder.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import clu.metrics
import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Bool, Float, Key

from rfxray.arrays import AnyArray
from rfxray.errors import ConfigError
from rfxray.objectives import adversarial, equivariance, perceptual, spectrum
from rfxray.objectives.objective import Batch, Loss, Objective, Outcome, Parts

# The decoder's last kernel, by diffusers' name, in which the adaptive weight compares gradients.
LAST = "decoder.conv_out.weight"
BLACK = -1.0
# Least mean squared error that a PSNR is made of: 106 dB, finer than an image of 16 bits.
_LEAST_ERROR = 1e-10


class Pair(NamedTuple):
    """What is compared.

    Attributes:
      latents: Latents that were decoded, [batch, rows, columns, z] float32.
      image: Image that they should become, [batch, height, width, 1] float32 in [-1, 1].
      inside: Pixels that count; outside, both images are black.
      radiograph: Pixels of the radiograph itself, without the margins of its square.
      mean, log_variance: Posterior, like the latents.
    """

    latents: Float[Array, "batch rows columns z"]
    image: Float[Array, "batch height width 1"]
    inside: Bool[Array, "batch height width 1"]
    radiograph: Bool[Array, "batch height width 1"]
    mean: Float[Array, "batch rows columns z"]
    log_variance: Float[Array, "batch rows columns z"]


def build(
    section: ml_collections.ConfigDict, networks: Mapping[str, Callable[..., jax.Array]]
) -> Objective:
    """The objective of a config's `objective` section.

    Args:
      section: Keys of the section, see `config.schema`.
      networks: Network `model`: `(params, image, method="encode") → (mean, log_variance)` and
        `(params, latents, method="decode") → image`. `discriminator`, if its weight is above 0:
        `(params, image) → logits`. `perceptual`, likewise: `(params, image, method="hidden") →
        states` of every block.

    Raises:
      ConfigError: If a term has a weight and no network, or a network no weight.
    """
    _check_parts(section, set(networks))
    model = networks["model"]

    def pair(params: Parts, batch: Batch, keys: Key[Array, " batch"], training: bool) -> Pair:
        image = jnp.asarray(batch["image"])
        mean, log_variance = model(params["model"], image, method="encode")
        latents, scale = mean, jnp.ones(len(image))
        if training:
            split = jax.vmap(lambda key: jax.random.split(key, 4))(keys)
            for_posterior, for_sigma, for_noise, for_scale = split.swapaxes(0, 1)
            latents = mean + jnp.exp(0.5 * log_variance) * _normal(for_posterior, mean.shape[1:])
            if section.latent_noise:
                sigma = section.latent_noise * jnp.abs(_normal(for_sigma, (1, 1, 1)))
                latents = latents + sigma * _normal(for_noise, mean.shape[1:])
            if section.equivariance:
                scale = equivariance.sample_scale(for_scale, section.equivariance)
                latents = equivariance.shrink(latents, scale)
                image = equivariance.shrink(image, scale)
        height, width = image.shape[1:3]
        inside = equivariance.inside(scale, height, width)
        film = equivariance.inside(scale, height, width, jnp.asarray(batch["content_box"]))
        return Pair(latents, jnp.where(inside, image, BLACK), inside, film, mean, log_variance)

    def decode(params: Parts, found: Pair, kernel: jax.Array | None = None) -> jax.Array:
        own = params["model"] if kernel is None else {**params["model"], LAST: kernel}
        made = model(own, found.latents, method="decode")
        return jnp.where(found.inside, made, BLACK)

    def reconstruction(
        params: Parts, made: jax.Array, found: Pair, spectral: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Weighted distances to the image, [batch], and the bare ones by name.

        `spectral` is the weight of the spectrum term of each example.
        """
        terms = {"distance": distance(made, found.image, found.inside, section.distance)}
        total = terms["distance"]
        if section.spectrum_weight:
            terms["spectrum"] = spectrum.distance(made, found.image)
            total = total + spectral * terms["spectrum"]
        if section.perceptual_weight:
            made, image = (
                networks["perceptual"](params["perceptual"], x, method="hidden")
                for x in (made, found.image)
            )
            terms["perceptual"] = perceptual.distance(made, image)
            total = total + section.perceptual_weight * terms["perceptual"]
        return total, terms

    def judge(params: Parts, image: jax.Array) -> jax.Array:
        return networks["discriminator"](params["discriminator"], image)

    def of_model(
        params: Parts, batch: Batch, keys: Key[Array, " batch"], training: bool
    ) -> Outcome:
        found = pair(params, batch, keys, training)
        made = decode(params, found)
        begun = _begun(section.spectrum_start, batch) if training else 1.0
        spectral = jnp.full(len(made), section.spectrum_weight) * begun
        total, seen = reconstruction(params, made, found, spectral)
        kl = divergence(found.mean, found.log_variance)
        seen |= {
            "psnr": psnr(made, found.image, found.radiograph),
            "kl": kl,
            "latent_std": found.mean.std((1, 2, 3)),
        }
        total = total + section.kl_weight * kl
        if training and section.adversarial_weight:
            fixed, held = jax.lax.stop_gradient((params, found))
            weight = adversarial.adaptive_weight(
                lambda kernel: decode(fixed, held, kernel),
                params["model"][LAST],
                lambda image: reconstruction(fixed, image, held, spectral)[0],
                lambda image: adversarial.fooled(judge(fixed, image)),
            )
            seen["adversarial"] = adversarial.fooled(judge(params, made))
            seen["adaptive_weight"] = jnp.full_like(kl, weight)
            begun = _begun(section.adversarial_start, batch)
            total = total + section.adversarial_weight * begun * weight * seen["adversarial"]
        return Outcome(total, seen)

    def of_discriminator(
        params: Parts, batch: Batch, keys: Key[Array, " batch"], training: bool
    ) -> Outcome:
        found = pair(params, batch, keys, training)
        losses = adversarial.hinge(judge(params, found.image), judge(params, decode(params, found)))
        return Outcome(_begun(section.adversarial_start, batch) * losses, {})

    def show(
        params: Parts, batch: Batch, keys: Key[Array, " batch"]
    ) -> Float[Array, "batch columns height width"]:
        """Image, reconstruction and their difference, which is grey where they agree."""
        found = pair(params, batch, keys, False)
        made = decode(params, found)
        columns = jnp.stack([found.image, made, made - found.image], 1)[..., 0]
        return jnp.clip(columns, -1, 1)

    losses: dict[str, Loss] = {"model": of_model}
    observed = ["distance", "psnr", "kl", "latent_std"]
    if section.spectrum_weight:
        observed += ["spectrum"]
    if section.perceptual_weight:
        observed += ["perceptual"]
    if section.adversarial_weight:
        losses["discriminator"] = of_discriminator
        observed += ["adversarial", "adaptive_weight"]
    metrics = {name: clu.metrics.Average.from_output(name) for name in observed}
    return Objective(losses=losses, metrics=metrics, show=show)


def distance(
    made: Float[AnyArray, "batch height width 1"],
    image: Float[AnyArray, "batch height width 1"],
    inside: Bool[AnyArray, "batch height width 1"],
    kind: str,
) -> Float[Array, " batch"]:
    """Mean over the pixels inside of |made − image| (`l1`) or of its square (`l2`)."""
    apart = jnp.abs(made - image)
    apart = jnp.square(apart) if kind == "l2" else apart
    return jnp.where(inside, apart, 0).sum((1, 2, 3)) / inside.sum((1, 2, 3))


def divergence(
    mean: Float[AnyArray, "batch rows columns z"],
    log_variance: Float[AnyArray, "batch rows columns z"],
) -> Float[Array, " batch"]:
    """Mean over latent values of KL(N(mean, variance) ‖ N(0, 1)), nats."""
    variance = jnp.exp(log_variance)
    return 0.5 * (jnp.square(mean) + variance - 1 - log_variance).mean((1, 2, 3))


def psnr(
    made: Float[AnyArray, "batch height width 1"],
    image: Float[AnyArray, "batch height width 1"],
    inside: Bool[AnyArray, "batch height width 1"],
) -> Float[Array, " batch"]:
    """Peak signal-to-noise ratio over the pixels inside, dB; the range of pixels is 2."""
    error = distance(made, image, inside, "l2")
    return 10 * jnp.log10(4 / jnp.maximum(error, _LEAST_ERROR))


def _normal(keys: Key[Array, " batch"], shape: tuple[int, ...]) -> Float[Array, "batch ..."]:
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def _begun(start: int, batch: Batch) -> Float[Array, " batch"]:
    """1 for examples that come after the start of a term, 0 for those before."""
    return jnp.asarray(batch["index"] >= start, jnp.float32)


def _check_parts(section: ml_collections.ConfigDict, parts: set[str]) -> None:
    for term in ("adversarial", "spectrum"):
        if (start := section[f"{term}_start"]) >= 2**32:
            raise ConfigError(
                f"objective.{term}_start must be below the 2³² examples that a run counts (got "
                f"{start})"
            )
    for weight, part in (("perceptual", "perceptual"), ("adversarial", "discriminator")):
        value = section[f"{weight}_weight"]
        if value and part not in parts:
            raise ConfigError(
                f"objective.{weight}_weight={value:g} needs a network parts.{part}; add one, or "
                f"set objective.{weight}_weight=0"
            )
        if part in parts and not value:
            raise ConfigError(
                f"objective.{weight}_weight=0 leaves parts.{part} without a use; remove it, or set "
                "a weight above 0"
            )
    if other := parts - {"model", "perceptual", "discriminator"}:
        raise ConfigError(
            f"objective.kind=autoencoding knows the parts discriminator and perceptual (got "
            f"parts.{min(other)})"
        )
