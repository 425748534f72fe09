"""Power-function averages of the parameters (Karras et al. 2024, arXiv 2312.02696, §3.1)."""

import jax
import jax.numpy as jnp
import numpy as np


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
