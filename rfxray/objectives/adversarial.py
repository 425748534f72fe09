"""The adversarial term of an autoencoder: hinge losses, and its weight against the reconstruction.

A discriminator gives a logit for each patch of an image, above 0 for one that it takes for real.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rfxray.arrays import AnyArray

# Of the adaptive weight, as published: added to the norm that it divides by, and its largest value.
EPSILON, LARGEST = 1e-4, 1e4


def hinge(
    real: Float[AnyArray, "batch rows columns 1"], made: Float[AnyArray, "batch rows columns 1"]
) -> Float[Array, " batch"]:
    """The discriminator's loss: ½·(mean max(0, 1 − real) + mean max(0, 1 + made)).

    Lim and Ye 2017, arXiv 1705.02894, with the ½ of latent diffusion (arXiv 2112.10752).
    """
    return 0.5 * (_mean(jax.nn.relu(1 - real)) + _mean(jax.nn.relu(1 + made)))


def fooled(made: Float[AnyArray, "batch rows columns 1"]) -> Float[Array, " batch"]:
    """The autoencoder's loss: the mean logit of what it made, negated."""
    return -_mean(made)


def adaptive_weight(
    decode: Callable[[jax.Array], Float[Array, "batch height width channels"]],
    kernel: Float[AnyArray, "..."],
    reconstruction: Callable[[jax.Array], jax.Array],
    adversarial: Callable[[jax.Array], jax.Array],
) -> Float[Array, ""]:
    """λ = ‖∇ reconstruction‖ / (‖∇ adversarial‖ + 1e-4), at most 1e4, with no gradient of its own.

    The gradients are those of the mean loss in the last kernel of the decoder (Esser et al. 2021,
    arXiv 2012.09841, eq. 7). Only that layer is differentiated, once for both.

    Args:
      decode: Image as a function of the kernel.
      kernel: Last kernel of the decoder.
      reconstruction, adversarial: Losses [batch] as functions of the image.
    """
    image, pull = jax.vjp(decode, jax.lax.stop_gradient(kernel))

    def norm(losses: Callable[[jax.Array], jax.Array]) -> jax.Array:
        (gradient,) = pull(jax.grad(lambda x: losses(x).mean())(image))
        return jnp.sqrt(jnp.square(gradient).sum())

    weight = norm(reconstruction) / (norm(adversarial) + EPSILON)
    return jax.lax.stop_gradient(jnp.clip(weight, 0, LARGEST))


def _mean(x: AnyArray) -> Float[Array, " batch"]:
    return jnp.asarray(x).reshape(len(x), -1).mean(-1)
