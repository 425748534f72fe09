"""Power-function averages of the parameters (Karras et al. 2024, arXiv 2312.02696, §3.1)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt


def ema_gamma(sigma: float) -> float:
    """The exponent γ of the profile with relative width `sigma` (eq. 124 there).

    σ² = (γ + 1) / ((γ + 2)²·(γ + 3)), a cubic in γ with one positive root for σ in (0, 0.288).
    """
    inverse = sigma**-2.0
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return float(max(root.real for root in roots if abs(root.imag) < 1e-8 * abs(root)))


def ema_update(average, params, step: jax.Array, sigma: float):
    """The average after `step` (1 for the first) optimizer steps: β = (1 − 1/step)^(γ + 1).

    The weight 1 − β of the newest parameters is computed through logarithms: late in a long run,
    1 − 1/step in float32 has so few digits left that the weight would be off by a few percent.
    """
    decay = (ema_gamma(sigma) + 1.0) * jnp.log1p(-1.0 / step.astype(jnp.float32))
    weight = -jnp.expm1(decay)
    return jax.tree.map(lambda a, p: a + weight * (p - a), average, params)


# ---------------------------------------------------------------------------------------------
# An average of another width, from those that were kept (§3.2 and appendix C.3 there)


def inner_product(
    step: npt.ArrayLike, gamma: npt.ArrayLike, other_step: npt.ArrayLike, other_gamma: npt.ArrayLike
) -> np.ndarray:
    """∫ p·q over time of the profiles p(τ) = (γ + 1)·τ^γ / t^(γ+1) on [0, t].

    Args:
      step, gamma: t and γ of one profile, float64, broadcast against the other.
      other_step, other_gamma: t and γ of the other.
    """
    a, b = np.asarray(gamma) + 1, np.asarray(other_gamma) + 1
    t, u = np.log(step), np.log(other_step)
    # Through logarithms: t^(γ+1) overflows float64 at a million steps.
    return a * b / (a + b - 1) * np.exp((a + b - 1) * np.minimum(t, u) - a * t - b * u)


def coefficients(
    steps: Sequence[int], sigmas: Sequence[float], step: int, sigma: float
) -> tuple[np.ndarray, float]:
    """The weights with which kept averages sum up to another one, in the least-squares sense.

    Divided by their sum, as the published code of the paper does: a least-squares fit of few
    profiles does not sum to 1, and a network scaled by 0.82 is another network.

    Args:
      steps, sigmas: [n] steps and widths of the kept averages, none later than `step`.
      step, sigma: Step and width of the wanted average.

    Returns:
      [n] float64 weights, and the relative error: the norm of the difference of the profiles over
      the norm of the wanted one.
    """
    ends = np.asarray(steps, np.float64)
    gammas = np.array([ema_gamma(s) for s in sigmas])
    gamma = ema_gamma(sigma)
    gram = inner_product(ends[:, None], gammas[:, None], ends, gammas)
    target = inner_product(ends, gammas, step, gamma)
    # Scaled to a diagonal of 1: early snapshots have narrow, high profiles.
    scale = np.sqrt(np.diag(gram))
    scaled = gram / scale[:, None] / scale
    weights = np.linalg.lstsq(scaled, target / scale, rcond=1e-12)[0] / scale
    weights /= weights.sum()
    whole = inner_product(step, gamma, step, gamma)
    missed = 1 - (2 * target @ weights - weights @ gram @ weights) / whole
    return weights, float(np.sqrt(max(0.0, missed)))
