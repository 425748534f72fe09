"""ODE solvers: dx/dt = v(x, t) along a given grid of times, in one `lax.scan`.

A `Solver` is a function that takes one step of the grid, its order, and what it remembers from step
to step. Integration is in float32 whatever the network computes in; the same solvers run from noise
to data, from data to noise, and (one-step ones) exactly backwards.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from rfxray.arrays import AnyArray
from rfxray.errors import ConfigError
from rfxray.objectives import flow

State: TypeAlias = Float[Array, "batch ..."]
Scalar: TypeAlias = Float[Array, ""]
# What a solver remembers: arrays, the same number of them after every step.
Memory: TypeAlias = tuple[Float[Array, "..."], ...]

# (x [batch, ...], t scalar) → dx/dt, shaped like x
Velocity: TypeAlias = Callable[[State, Scalar], State]


class Solver(NamedTuple):
    """One way to take a step.

    Attributes:
      step: One step, `(velocity, x, t, dt, memory) → (x, memory)`.
      order: Power of dt with which the global error falls.
      evaluations: Evaluations of the velocity in each step.
      memory: Memory before the first step, as a function of x; None for a one-step solver.
    """

    step: Callable[[Velocity, State, Scalar, Scalar, Memory], tuple[State, Memory]]
    order: int
    evaluations: int
    memory: Callable[[State], Memory] | None = None


def _euler(
    velocity: Velocity, x: State, t: Scalar, dt: Scalar, memory: Memory
) -> tuple[State, Memory]:
    return x + dt * velocity(x, t), memory


def _midpoint(
    velocity: Velocity, x: State, t: Scalar, dt: Scalar, memory: Memory
) -> tuple[State, Memory]:
    return x + dt * velocity(x + dt / 2 * velocity(x, t), t + dt / 2), memory


def _heun(
    velocity: Velocity, x: State, t: Scalar, dt: Scalar, memory: Memory
) -> tuple[State, Memory]:
    """The step that ends at t = 0 is an Euler step: data is a point, not a density, there.

    Evaluating a network at t = 0 asks it what no training example did (Karras et al. 2022,
    arXiv 2206.00364, algorithm 1).
    """
    first = velocity(x, t)
    euler = x + dt * first
    x = jax.lax.cond(
        t + dt > 0,
        lambda: x + dt / 2 * (first + velocity(euler, t + dt)),
        lambda: euler,
    )
    return x, memory


def _rk4(
    velocity: Velocity, x: State, t: Scalar, dt: Scalar, memory: Memory
) -> tuple[State, Memory]:
    k1 = velocity(x, t)
    k2 = velocity(x + dt / 2 * k1, t + dt / 2)
    k3 = velocity(x + dt / 2 * k2, t + dt / 2)
    k4 = velocity(x + dt * k3, t + dt)
    return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4), memory


def _nothing_yet(x: State) -> Memory:
    """A last value that was infinitely long ago has no weight: the first step is an Euler step."""
    return (jnp.zeros_like(x), jnp.float32(jnp.inf))


def _adams_bashforth(
    velocity: Velocity, x: State, t: Scalar, dt: Scalar, memory: Memory
) -> tuple[State, Memory]:
    """The velocity, extrapolated linearly from the last two (for steps of any lengths)."""
    last, before = memory
    v = velocity(x, t)
    slope = (v - last) / (t - before)
    return x + dt * (v + dt / 2 * slope), (v, t)


def _exponential(
    velocity: Velocity, x: State, t: Scalar, dt: Scalar, memory: Memory
) -> tuple[State, Memory]:
    """The data estimate x̂ = x − t·v, extrapolated linearly in t; the rest is solved exactly.

    d(x/t)/dt = −x̂/t², so with x̂(s) = x̂ + (s − t)·slope and t' = t + dt
    x(t') = x + dt·v + slope·(t'·ln(t/t') + dt). An x̂ that does not move costs no error at any
    length of step, and neither end of the path is singular. It is DEIS (Zhang and Chen 2022,
    arXiv 2204.13902) on the data estimate, as DPM-Solver++(2M) has it (Lu et al. 2022,
    arXiv 2211.01095), which extrapolates in ln((1 − t)/t) instead.
    """
    last, before = memory
    v = velocity(x, t)
    data = x - t * v
    slope = (data - last) / (t - before)
    end = t + dt
    inner = (t > 0) & (end > 0)  # towards t' = 0 the logarithm's term vanishes; from t = 0 unused
    log = jnp.where(inner, jnp.log(jnp.where(inner, t / end, 1.0)), 0.0)
    return x + dt * v + slope * (end * log + dt), (data, t)


SOLVERS = {
    "euler": Solver(_euler, 1, 1),
    "heun": Solver(_heun, 2, 2),
    "midpoint": Solver(_midpoint, 2, 2),
    "rk4": Solver(_rk4, 4, 4),
    "ab2": Solver(_adams_bashforth, 2, 1, _nothing_yet),
    "exponential": Solver(_exponential, 2, 1, _nothing_yet),
}
ORDER = {name: solver.order for name, solver in SOLVERS.items()}
EVALUATIONS = {name: solver.evaluations for name, solver in SOLVERS.items()}


def find(name: str) -> Solver:
    """The solver of that name.

    Raises:
      ConfigError: If there is none.
    """
    if name not in SOLVERS:
        raise ConfigError(f"no solver {name!r}; choose one of {', '.join(SOLVERS)}")
    return SOLVERS[name]


# ---------------------------------------------------------------------------------------------
# Grids of times

SPACINGS = ("uniform", "quadratic")
MOST_STEPS = 10_000  # 200 times the default; a typing error would ask for days, or for no memory


def time_grid(
    steps: int, shift: float = 1.0, spacing: str = "uniform"
) -> Float[np.ndarray, " {steps+1}"]:
    """Times from 1 (noise) to 0 (data): [steps + 1] float32.

    Args:
      steps: Number of intervals, at least 1.
      shift: Shift as in `flow.shift_timestep`, after the spacing; above 1 it puts more steps near
        noise.
      spacing: `uniform`, or `quadratic`: t = u² for uniform u, with more steps near data.

    Raises:
      ConfigError: For no steps, another spacing, or neighbours that are equal in float32.
    """
    if steps < 1:
        raise ConfigError(f"the number of solver steps must be at least 1 (got {steps})")
    if spacing not in SPACINGS:
        raise ConfigError(f"no spacing {spacing!r}; choose one of {', '.join(SPACINGS)}")
    times = np.linspace(1.0, 0.0, steps + 1, dtype=np.float32)
    with np.errstate(all="ignore"):
        times = flow.shift_timestep(times**2 if spacing == "quadratic" else times, shift)
    if not _falls(times):
        raise ConfigError(
            f"steps={steps} at shift={shift:g}: neighbouring sampling times are not distinct in "
            "float32; use fewer steps or a shift nearer to 1"
        )
    return times


def given_grid(times: Sequence[float]) -> Float[np.ndarray, " times"]:
    """A custom grid, checked: [steps + 1] float32.

    Raises:
      ConfigError: If it does not fall from 1 to 0.
    """
    grid = np.asarray(times, np.float32)
    if grid.ndim != 1 or len(grid) < 2 or not _falls(grid):
        raise ConfigError(f"a time grid must fall from 1 to 0 (got {list(times)})")
    return grid


def _falls(grid: np.ndarray) -> bool:
    """Whether times fall from 1 to 0; if one is NaN they do not."""
    return (grid[0], grid[-1]) == (1, 0) and bool((np.diff(grid) < 0).all())


def above_floor(times: Float[np.ndarray, " times"]) -> Float[np.ndarray, " from_floor"]:
    """The times of a falling grid from `flow.T_FLOOR` on, at least the first."""
    # Not below it by a rounding: 0.05 of a uniform grid is 0.049999997 in float32.
    return times[: max(1, int((times > flow.T_FLOOR - 1e-6).sum()))]


def data_estimate(velocity: Velocity, x: State, t: float) -> State:
    """x̂ = x − t·v, an Euler step from t to 0: the network's estimate of the data.

    From t = `flow.T_FLOOR` on it is the output of an x-prediction itself. Below, where the velocity
    is (x − x̂)/T_FLOOR, a step along it keeps a part of the noise.
    """
    return x - t * velocity(x, jnp.float32(t)).astype(jnp.float32)


# ---------------------------------------------------------------------------------------------
# Integration


def integrate(
    velocity: Velocity,
    x: Float[AnyArray, " batch *shape"],
    times: Float[AnyArray, " times"],
    solver: str,
    arrive: Callable[[State, Int[Array, ""]], State] | None = None,
) -> Float[Array, " batch *shape"]:
    """x at the last of `times`, from x at the first, for dx/dt = velocity(x, t).

    Args:
      velocity: Function of (x [batch, ...] float32, t scalar float32).
      x: State at times[0], [batch, ...].
      times: Times, [steps + 1], rising or falling.
      solver: Key of `SOLVERS`.
      arrive: Function `(x, k) → x` that replaces the state which arrives at times[k].

    Returns:
      State at the last time, [batch, ...] float32.

    Raises:
      ConfigError: For an unknown solver.
    """
    take, times = find(solver), jnp.asarray(times, jnp.float32)
    velocity, x = _float32(velocity), jnp.asarray(x, jnp.float32)

    def step(state, interval):
        x, memory = state
        t, dt, k = interval
        x, memory = take.step(velocity, x, t, dt, memory)
        return (arrive(x, k) if arrive else x, memory), None

    intervals = (times[:-1], jnp.diff(times), jnp.arange(1, len(times)))
    return jax.lax.scan(step, (x, take.memory(x) if take.memory else ()), intervals)[0][0]


def invert(
    velocity: Velocity,
    x: Float[AnyArray, " batch *shape"],
    times: Float[AnyArray, " times"],
    solver: str,
    corrections: int = 2,
) -> Float[Array, " times batch *shape"]:
    """The path on which `integrate` comes to x: the inverse of the discrete steps themselves.

    Every step is first taken backwards, which is wrong by the error of the solver, and then
    corrected by the fixed-point iteration y ← y + x − step(y), which converges if the step is short
    against the curvature of the flow (the backward Euler method, for Euler steps). Without
    corrections it is the plain reversal: Heun inversion, for `heun`.

    Args:
      velocity, times, solver: Arguments as for `integrate`.
      x: State at times[-1], [batch, ...].
      corrections: Rounds of the iteration; each costs one step of the solver.

    Returns:
      States at `times`, [steps + 1, batch, ...] float32; the last is x.

    Raises:
      ConfigError: For a solver with a memory: a step of it depends on the steps before.
    """
    take, times = find(solver), jnp.asarray(times, jnp.float32)
    if take.memory:
        names = [name for name, s in SOLVERS.items() if not s.memory]
        raise ConfigError(
            f"{solver} is a multistep solver and cannot be inverted; choose one of "
            f"{', '.join(names)}"
        )
    velocity, x = _float32(velocity), jnp.asarray(x, jnp.float32)

    def back(x, interval):
        t, dt = interval
        y, _ = take.step(velocity, x, t + dt, -dt, ())

        def correct(y, _):
            return y + (x - take.step(velocity, y, t, dt, ())[0]), None

        y, _ = jax.lax.scan(correct, y, length=corrections)
        return y, y

    intervals = (times[:-1], jnp.diff(times))
    _, path = jax.lax.scan(back, x, intervals, reverse=True)
    return jnp.concatenate([path, x[None]])


def _float32(velocity: Velocity) -> Velocity:
    return lambda x, t: velocity(x, t).astype(jnp.float32)
