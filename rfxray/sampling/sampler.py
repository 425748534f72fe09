"""From noise to radiographs: the settings, the one pure function, and the loop over batches."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rfxray.attributes import vocabulary
from rfxray.errors import ConfigError, NonFiniteError
from rfxray.runtime import compiler_options, sharding
from rfxray.sampling import adaptive, pretrained, solvers, stochastic
from rfxray.sampling import guidance as guide
from rfxray.sampling.pretrained import Model


@dataclasses.dataclass(frozen=True)
class Settings:
    """How pictures are drawn from a model.

    Attributes:
      seed: picture i of a seed starts from the same noise, whatever else is asked.
      steps: intervals of the time grid.
      solver: a key of `solvers.SOLVERS`, or `adaptive`, which chooses its steps by `tolerance`. The
        default has the least error on an even grid (docs/sampling.md).
      guidance: classifier-free weight w; 1 is none.
      shift: of the time grid, see `flow.shift_timestep`.
      batch_size: pictures per call of the network (times the branches of guidance).
      spacing: of the time grid, one of `solvers.SPACINGS`.
      times: a grid of one's own, falling from 1 to 0, in place of steps, shift and spacing.
      weights: factored guidance, ((attribute names, weight), …); `guidance` is then the weight of
        the attributes that no group names.
      interval: times within which there is guidance.
      rescale: share of the contrast added by guidance that is taken back, 0 to 1.
      optimised: the base scaled and the first interval of the grid at rest, as CFG-Zero* has it.
      churn: above 0 the stochastic sampler, see `stochastic.integrate`; 1 is w = σ_t of SiT's
        equation, 2 what its public code does by default.
      tolerance: of the adaptive solver.
    """

    seed: int = 0
    steps: int = 50
    solver: str = "ab2"
    guidance: float = 1.0
    shift: float = 1.0
    batch_size: int = 64
    spacing: str = "uniform"
    times: tuple[float, ...] = ()
    weights: tuple[tuple[tuple[str, ...], float], ...] = ()
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0
    optimised: bool = False
    churn: float = 0.0
    tolerance: float = 1e-3

    def __post_init__(self):
        if self.solver != "adaptive" and self.solver not in solvers.SOLVERS:
            names = ", ".join((*solvers.SOLVERS, "adaptive"))
            raise ConfigError(f"no solver {self.solver!r}, only {names}")
        for weight in (self.guidance, *(weight for _, weight in self.weights)):
            if not 0 <= weight < float("inf"):
                raise ConfigError(f"guidance={weight} must be a number of at least 0")
        if self.steps < 1 or self.batch_size < 1:
            raise ConfigError(f"steps={self.steps}, batch_size={self.batch_size}: at least 1 each")
        if not 0 < self.shift < float("inf"):
            raise ConfigError(f"shift={self.shift} must be a number above 0")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed={self.seed} must lie in [0, 2³²)")
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ConfigError(f"interval={low:g},{high:g} does not rise within 0 to 1")
        if not 0 <= self.rescale <= 1:
            raise ConfigError(f"rescale={self.rescale} must lie in 0 to 1")
        if not 0 <= self.churn < float("inf") or not 0 < self.tolerance < 1:
            raise ConfigError(
                f"churn={self.churn} must be at least 0 and tolerance={self.tolerance} in (0, 1)"
            )
        if self.churn and self.solver != "euler":
            raise ConfigError(f"churn={self.churn} is for the euler solver, not {self.solver}")
        guide.group_masks([names for names, _ in self.weights])
        if len(self.grid()) < 3 and self.optimised:
            raise ConfigError("optimised rests in the first step, and there is no other")

    def grid(self) -> np.ndarray:
        """The times, [steps + 1] float32 from 1 to 0."""
        if self.times:
            return solvers.given_grid(self.times)
        return solvers.time_grid(self.steps, self.shift, self.spacing)

    def rule(self) -> guide.Rule:
        """How the branches of guidance are combined."""
        rule = guide.optimised(guide.affine) if self.optimised else guide.affine
        rule = guide.rescaled(rule, self.rescale) if self.rescale else rule
        return guide.within(rule, *self.interval) if self.interval != (0.0, 1.0) else rule

    def traced_weights(self) -> np.ndarray:
        """What a sweep over weights changes without compiling anew: a scalar, or one a group."""
        if not self.weights:
            return np.float32(self.guidance)
        return np.array([*(weight for _, weight in self.weights), self.guidance], np.float32)

    def program(self) -> "Settings":
        """The settings that a compiled program depends on."""
        return dataclasses.replace(
            self,
            seed=0,
            batch_size=1,
            guidance=float(self.guidance == 1),
            weights=tuple((names, 1.0) for names, _ in self.weights),
        )


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Generated pictures and all that made them.

    Attributes:
      images: [n, height, width] float32 in [−1, 1].
      attributes, known: [n, 19], what each was asked to be.
      indices: [n] int, which noise of the seed each started from.
      settings: as they were drawn.
      source: of the model.
    """

    images: np.ndarray
    attributes: np.ndarray
    known: np.ndarray
    indices: np.ndarray
    settings: Settings
    source: dict[str, object]


# ---------------------------------------------------------------------------------------------
# The integration as a pure function


def keys_of(seed, indices: jax.Array) -> jax.Array:
    """The randomness of picture i of a seed: [batch] typed PRNG keys."""
    key = jax.random.key(seed)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(indices)


def noise(config, seed, indices: jax.Array) -> jax.Array:
    """What picture i of a seed starts from: [batch, height, width, channels] float32."""
    m = config.model
    keys = keys_of(seed, indices)
    return jax.vmap(lambda k: jax.random.normal(k, (m.size, m.size, m.channels)))(keys)


def flow_to_data(config, settings: Settings, velocity: Callable | None = None) -> Callable:
    """The integration from given noise, to be jitted.

    Returns:
      `(params, weak, x, seed, weights, indices, attributes, known) → images`; `weak` is None but
      for autoguidance, `weights` is `settings.traced_weights()`, seed and indices key the noise
      that a stochastic sampler adds.
    """
    velocity = velocity or pretrained.velocity(config)
    times = settings.grid()
    if settings.optimised:
        times = times[1:]  # to rest in a step is not to take it, whatever the solver remembers

    def integrate(params, weak, x, seed, weights, indices, attributes, known):
        network = functools.partial(velocity, params)
        if weak is not None:
            network = guide.autoguided(velocity, params, weak)
            branches = guide.alike(attributes, known, weights)
        elif settings.weights:
            groups = guide.group_masks([names for names, _ in settings.weights])
            branches = guide.factored(attributes, known, groups, weights)
        elif settings.guidance == 1:
            branches = guide.unguided(attributes, known)
        else:
            branches = guide.classifier_free(attributes, known, weights)
        dx_dt = guide.guided(network, branches, settings.rule())
        if settings.churn:
            return stochastic.integrate(dx_dt, x, times, keys_of(seed, indices), settings.churn)
        if settings.solver == "adaptive":
            return adaptive.integrate(dx_dt, x, float(times[0]), 0.0, settings.tolerance)[0]
        return solvers.integrate(dx_dt, x, times, settings.solver)

    return integrate


def make_sampler(config, settings: Settings) -> Callable:
    """Noise and integration as one pure function, to be jitted.

    Args:
      config: of the run that trained the network.
      settings: of which `seed` is not read, and `guidance` only for whether it is 1 (none).

    Returns:
      `(params, seed, weight, indices [batch] uint32, attributes, known) → images [batch, height,
      width, channels] float32`, where seed and weight stand for those of the settings (so that a
      sweep over them compiles once) and picture i starts from noise keyed by (seed, i) alone.
    """
    integrate = flow_to_data(config, settings)

    def sample(params, seed, weight, indices, attributes, known):
        x = noise(config, seed, indices)
        return integrate(params, None, x, seed, weight, indices, attributes, known)

    return sample


# ---------------------------------------------------------------------------------------------
# Batches


class Batches:
    """A model and settings, compiled for one shape of batch: once, whatever is asked of it.

    Args:
      model: from `load`.
      settings: how pictures are drawn.
      size: pictures in a batch, rounded up to a multiple of the devices.

    Raises:
      ConfigError: for autoguidance together with factored weights.
    """

    def __init__(self, model: Model, settings: Settings, size: int):
        if model.weak is not None and settings.weights:
            raise ConfigError("autoguidance takes one weight, not one for each group of attributes")
        self.model, self.settings = model, settings
        self.size = size + -size % model.mesh.size
        self._start, self._integrate = _programs(
            model.config, settings.program(), model.velocity, model.mesh
        )

    def __call__(self, indices: np.ndarray, attributes: np.ndarray, known: np.ndarray) -> jax.Array:
        """Draws one batch: [size, height, width, channels] float32, still on the devices."""
        settings, model = self.settings, self.model
        batch = {"i": indices.astype(np.uint32), "a": attributes, "k": known}
        batch = sharding.global_batch(model.mesh, batch)
        seed, weights = jnp.uint32(settings.seed), jnp.asarray(settings.traced_weights())
        with jax.set_mesh(model.mesh):  # so that attention kernels run on each device's own rows
            x = self._start(seed, batch["i"])
            return self._integrate(
                model.params, model.weak, x, seed, weights, batch["i"], batch["a"], batch["k"]
            )

    def compile(self) -> None:
        """Compiles without drawing anything; the persistent cache keeps the result."""
        settings, model, m = self.settings, self.model, self.model.config.model
        rows = jax.sharding.NamedSharding(model.mesh, sharding.BATCH)

        def batch(dtype, *shape):
            return jax.ShapeDtypeStruct((self.size, *shape), dtype, sharding=rows)

        indices, x = batch(jnp.uint32), batch(jnp.float32, m.size, m.size, m.channels)
        told = [batch(dtype, vocabulary.NUM_ATTRIBUTES) for dtype in (jnp.float32, bool)]
        seed, weights = jnp.uint32(settings.seed), jnp.asarray(settings.traced_weights())
        with jax.set_mesh(model.mesh):
            self._start.lower(seed, indices).compile()
            self._integrate.lower(
                model.params, model.weak, x, seed, weights, indices, *told
            ).compile()


@functools.lru_cache(maxsize=8)
def _programs(config, settings: Settings, velocity, mesh):
    rows = jax.sharding.NamedSharding(mesh, sharding.BATCH)
    start = jax.jit(functools.partial(noise, config), out_shardings=rows)
    # The noise is given up: the pictures come to lie where it lay.
    integrate = jax.jit(
        flow_to_data(config, settings, velocity),
        donate_argnames="x",
        out_shardings=rows,
        compiler_options=compiler_options.options_for(mesh.devices.flat[0].device_kind),
    )
    return start, integrate


def finite(images: np.ndarray) -> np.ndarray:
    """The images as they came, where all of them are finite.

    Raises:
      NonFiniteError: where one is not.
    """
    if wrong := int((~np.isfinite(images)).reshape(len(images), -1).any(1).sum()):
        raise NonFiniteError(
            f"{wrong} of {len(images)} pictures came out not finite: take less guidance, another "
            "solver or more steps, or another checkpoint"
        )
    return images


def blocks(n: int, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Cuts n places into blocks of one size: (places [size], how many of them are new).

    The last block wraps to the first places, so that one shape, one program, serves all.
    """
    for start in range(0, n, size):
        yield np.arange(start, start + size) % n, min(size, n - start)


def generate(
    model: Model,
    attributes: Mapping[str, object] | tuple[np.ndarray, np.ndarray],
    n: int | None = None,
    indices: Sequence[int] | None = None,
    settings: Settings = Settings(),
    progress: Callable[[int], None] | None = None,
) -> Pictures:
    """Draws radiographs.

    Args:
      model: from `load`.
      attributes: a mapping such as `{"view": "PA", "age": 63}` for every picture alike, or
        (`attributes`, `known`), each [n, 19], one row a picture; what is not told is null.
      n: how many; may be left out where `attributes` has rows or `indices` are given.
      indices: which pictures of the seed; 0 … n − 1 when None. The same index under other
        attributes starts from the same noise.
      settings: seed, solver and guidance.
      progress: called with the number of pictures that each batch added.

    Returns:
      `Pictures` in the order asked.

    Raises:
      ConfigError: for a wrong attribute, or numbers that do not fit each other.
      NonFiniteError: where a picture comes out as no picture.
    """
    if isinstance(attributes, Mapping):
        row, told = vocabulary.encode(attributes)
        if n is None:
            n = 1 if indices is None else len(indices)
        values, known = np.tile(row, (max(0, n), 1)), np.tile(told, (max(0, n), 1))
    else:
        values, known = (np.asarray(a) for a in attributes)
        n = len(values) if n is None else n
    indices = np.arange(n) if indices is None else np.asarray(indices)
    if not len(values) == len(known) == len(indices) == n or n < 1:
        raise ConfigError(f"{len(values)} rows of attributes, {len(indices)} indices and n={n}")
    if indices.min() < 0 or indices.max() >= 2**32:
        raise ConfigError("indices must lie in [0, 2³²)")

    draw = Batches(model, settings, min(settings.batch_size, max(1, n)))
    images = []
    for rows, new in blocks(n, draw.size):
        images.append(finite(np.asarray(draw(indices[rows], values[rows], known[rows]))[:new]))
        if progress:
            progress(new)
    images = np.clip(np.concatenate(images), -1.0, 1.0)[..., 0]
    return Pictures(images, values, known, indices, settings, model.source)
