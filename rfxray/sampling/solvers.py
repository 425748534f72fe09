"""ODE solvers: dx/dt = v(x, t) along a given grid of times, in one `lax.scan`.

A solver is a function `(velocity, x, t, dt) → x` that takes one step of the grid; its order is in
`ORDER`. Integration is in float32 whatever the network computes in.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from rfxray import flow
from rfxray.errors import ConfigError

# (x [batch, ...], t scalar) → dx/dt, shaped like x
Velocity = Callable[[jax.Array, jax.Array], jax.Array]


def _euler(velocity: Velocity, x, t, dt):
    return x + dt * velocity(x, t)


def _midpoint(velocity: Velocity, x, t, dt):
    return x + dt * velocity(x + dt / 2 * velocity(x, t), t + dt / 2)


def _heun(velocity: Velocity, x, t, dt):
    """The step that ends at t = 0 is an Euler step: data is a point, not a density, there.

    Evaluating a network at t = 0 asks it what no training example did (Karras et al. 2022,
    arXiv 2206.00364, algorithm 1).
    """
    first = velocity(x, t)
    euler = x + dt * first
    return jax.lax.cond(
        t + dt > 0,
        lambda: x + dt / 2 * (first + velocity(euler, t + dt)),
        lambda: euler,
    )


def _rk4(velocity: Velocity, x, t, dt):
    k1 = velocity(x, t)
    k2 = velocity(x + dt / 2 * k1, t + dt / 2)
    k3 = velocity(x + dt / 2 * k2, t + dt / 2)
    k4 = velocity(x + dt * k3, t + dt)
    return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


SOLVERS = {"euler": _euler, "heun": _heun, "midpoint": _midpoint, "rk4": _rk4}
ORDER = {"euler": 1, "heun": 2, "midpoint": 2, "rk4": 4}
EVALUATIONS = {"euler": 1, "heun": 2, "midpoint": 2, "rk4": 4}


def time_grid(steps: int, shift: float = 1.0) -> np.ndarray:
    """Times from 1 (noise) to 0 (data): [steps + 1] float32, spaced evenly before the shift.

    Args:
      steps: at least 1.
      shift: as in `flow.shift_timestep`; above 1 spends more steps near noise.
    """
    if steps < 1:
        raise ConfigError(f"{steps} solver steps: at least 1 is needed")
    return flow.shift_timestep(np.linspace(1.0, 0.0, steps + 1, dtype=np.float32), shift)


def integrate(velocity: Velocity, x: jax.Array, times: jax.Array, solver: str) -> jax.Array:
    """x at the last of `times`, from x at the first, for dx/dt = velocity(x, t).

    Args:
      velocity: a function of (x [batch, ...] float32, t scalar float32).
      x: [batch, ...], the state at times[0].
      times: [steps + 1], rising or falling.
      solver: a key of `SOLVERS`.

    Returns:
      [batch, ...] float32.

    Raises:
      ConfigError: for an unknown solver.
    """
    if solver not in SOLVERS:
        raise ConfigError(f"no solver {solver!r}, only {', '.join(SOLVERS)}")
    take = SOLVERS[solver]
    times = jnp.asarray(times, jnp.float32)

    def step(x, interval):
        t, dt = interval
        return take(velocity, x, t, dt).astype(jnp.float32), None

    return jax.lax.scan(step, x.astype(jnp.float32), (times[:-1], jnp.diff(times)))[0]
