"""From noise to images: the one pure function, and the loop over batches."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Key
from PIL import Image

from rfxray.arrays import AnyArray
from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import Attributes
from rfxray.errors import ConfigError, NonFiniteError
from rfxray.objectives.objective import Parts
from rfxray.objectives.objective import Velocity as ParametricVelocity
from rfxray.runtime import compiler_options, sharding
from rfxray.sampling import adaptive, shown, solvers, stochastic
from rfxray.sampling import guidance as guide
from rfxray.sampling.batching import blocks
from rfxray.sampling.given import Asked, rows_of, to_pil
from rfxray.sampling.pretrained import Model
from rfxray.sampling.settings import Settings, with_changes

DEFAULT = Settings()

Shape: TypeAlias = tuple[int, int, int]  # height, width and channels of one example

Seed: TypeAlias = Integer[AnyArray, ""]
Indices: TypeAlias = Integer[AnyArray, " batch"]  # which images of a seed
Images: TypeAlias = Float[Array, "batch height width channels"]

# `(params, weak, x, seed, weights, indices, attributes) → images`
Integration: TypeAlias = Callable[
    [Parts, Parts | None, Images, Seed, Float[Array, "..."], Indices, Attributes], Images
]

# `(params, seed, weight, indices, attributes) → images`
Sampler: TypeAlias = Callable[[Parts, Seed, Float[Array, "..."], Indices, Attributes], Images]


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Generated images and everything that made them.

    Attributes:
      images: Images, [n, height, width] float32 in [−1, 1].
      attributes: Requested attributes of each, [n, 19].
      indices: Index of the noise of the seed that each started from, [n] int.
      settings: Settings that they were drawn with.
      source: `Model.source` of the model that drew them.
    """

    images: Float[np.ndarray, "n height width"]
    attributes: Attributes
    indices: Integer[np.ndarray, " n"]
    settings: Settings
    source: Mapping[str, object]

    def __repr__(self) -> str:
        sizes = " × ".join(map(str, np.shape(self.images)))
        return f"Pictures({sizes}, {self.settings!r}, {dict(self.source)})"

    def _repr_html_(self) -> str:
        made = f"{len(self.images)} images, {self.settings!r}, {self.source.get('checkpoint', '')}"
        return shown.figure(self.images, made)

    def pil(self) -> list[Image.Image]:
        """The images as 8-bit grey images of Pillow, see `to_pil`."""
        return to_pil(self.images)


# ---------------------------------------------------------------------------------------------
# The integration as a pure function


def keys_of(seed: int | Seed, indices: Indices) -> Key[Array, " batch"]:
    """The randomness of image i of a seed: [batch] typed PRNG keys."""
    key = jax.random.key(seed)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(indices)


def noise(shape: Shape, seed: int | Seed, indices: Indices) -> Images:
    """What image i of a seed starts from: [batch, height, width, channels] float32.

    Args:
      shape: Height, width and channels of one example.
      seed: Seed of the noise, a scalar.
      indices: Which images of the seed, [batch] uint32.
    """
    keys = keys_of(seed, indices)
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def flow_to_data(velocity: ParametricVelocity, settings: Settings) -> Integration:
    """The integration from given noise, to be jitted.

    Args:
      velocity: `(params, x, t [n], attributes [n, 19]) → dx/dt`.
      settings: Settings of which only `program()` is read.

    Returns:
      `(params, weak, x, seed, weights, indices, attributes) → images`, of which `weak` is None
      except for autoguidance and `weights` is `settings.traced_weights()`; seed and indices key the
      noise that a stochastic sampler adds.
    """
    times = settings.grid()
    if settings.optimised:
        times = times[1:]  # skipping the first interval is the same for every solver
    if settings.last == "data" and settings.solver != "adaptive":
        times = solvers.above_floor(times)

    def guided(params, weak, weights, attributes):
        plain = network = functools.partial(velocity, params)
        base = settings.base(attributes)
        if weak is not None:
            network = guide.autoguided(velocity, params, weak)
            branches = guide.alike(attributes, weights)
        elif settings.weights:
            groups = guide.group_masks([names for names, _ in settings.weights])
            branches = guide.factored(attributes, groups, weights, base)
        elif settings.guidance == 1:
            branches = guide.unguided(attributes)
        else:
            branches = guide.classifier_free(attributes, weights, base)
        return guide.guided(network, branches, settings.rule(), settings.interval, plain)

    def adaptively(params, weak, x, weights, attributes):
        # One by one: the length of a step would otherwise depend on the other images of a batch.
        def one(x, *row):
            single = jax.tree.map(lambda a: a[None], Attributes(*row))
            dx_dt = guided(params, weak, weights, single)
            start, end = float(times[0]), float(times[-1])
            return adaptive.integrate(dx_dt, x[None], start, end, settings.tolerance)[0][0]

        return jax.vmap(one)(x, *attributes)

    def integrate(params, weak, x, seed, weights, indices, attributes):
        if settings.solver == "adaptive":
            return adaptively(params, weak, x, weights, attributes)
        dx_dt = guided(params, weak, weights, attributes)
        if settings.churn:
            x = stochastic.integrate(dx_dt, x, times, keys_of(seed, indices), settings.churn)
        else:
            x = solvers.integrate(dx_dt, x, times, settings.solver)
        return solvers.data_estimate(dx_dt, x, float(times[-1])) if settings.last == "data" else x

    return integrate


def make_sampler(velocity: ParametricVelocity, shape: Shape, settings: Settings) -> Sampler:
    """Noise and integration as one pure function, to be jitted.

    Args:
      velocity: `(params, x, t [n], attributes [n, 19]) → dx/dt`.
      shape: Height, width and channels of one example.
      settings: Settings of which only `program()` is read.

    Returns:
      `(params, seed, weight, indices [batch] uint32, attributes [batch, 19]) → images [batch,
      height, width, channels] float32`, where seed and weight stand for those of the settings (so
      that a sweep over them compiles once) and image i starts from noise keyed only by (seed, i).
    """
    integrate = flow_to_data(velocity, settings)

    def sample(params, seed, weight, indices, attributes):
        x = noise(shape, seed, indices)
        return integrate(params, None, x, seed, weight, indices, attributes)

    return sample


# ---------------------------------------------------------------------------------------------
# Batches


class Batches:
    """A model and settings, compiled once for one shape of batch.

    Args:
      model: Model from `load`.
      settings: Settings that images are drawn with.
      size: Number of images in a batch, rounded up to a multiple of the devices.

    Raises:
      ConfigError: For autoguidance together with factored weights.
    """

    def __init__(self, model: Model, settings: Settings, size: int):
        if model.weak is not None and settings.weights:
            raise ConfigError("autoguidance takes one weight, not one for each group of attributes")
        if model.weak is not None and settings.negative:
            raise ConfigError("autoguidance leads away from a network; leave negative out")
        settings.refuse_idle()
        self.model, self.settings = model, settings
        self.size = size + -size % model.mesh.size
        self._start, self._integrate = _programs(
            model.velocity, model.shape, settings.program(), model.mesh
        )

    def __call__(self, indices: Integer[np.ndarray, " batch"], attributes: Attributes) -> Images:
        """Draws one batch: images [size, height, width, 1] float32, still on the devices."""
        settings, model = self.settings, self.model
        batch = sharding.global_batch(
            model.mesh, {"indices": indices.astype(np.uint32), **attributes._asdict()}
        )
        places, asked = batch.pop("indices"), Attributes(**batch)
        seed, weights = jnp.uint32(settings.seed), jnp.asarray(settings.traced_weights())
        with jax.set_mesh(model.mesh):  # so that attention kernels run on each device's own rows
            x = self._start(seed, places)
            x = self._integrate(model.params, model.weak, x, seed, weights, places, asked)
            return model.images(x)

    def compile(self) -> None:
        """Compiles without drawing anything; the persistent cache keeps the result."""
        settings, model = self.settings, self.model
        rows = jax.sharding.NamedSharding(model.mesh, sharding.BATCH)

        example = (np.uint32(0), np.zeros(model.shape, np.float32), vocabulary.encode({}))
        indices, x, attributes = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((self.size, *a.shape), a.dtype, sharding=rows), example
        )
        seed, weights = jnp.uint32(settings.seed), jnp.asarray(settings.traced_weights())
        with jax.set_mesh(model.mesh):
            self._start.lower(seed, indices).compile()
            self._integrate.lower(
                model.params, model.weak, x, seed, weights, indices, attributes
            ).compile()


@functools.lru_cache(maxsize=8)
def _programs(
    velocity: ParametricVelocity, shape: Shape, settings: Settings, mesh: jax.sharding.Mesh
):
    rows = jax.sharding.NamedSharding(mesh, sharding.BATCH)
    start = jax.jit(functools.partial(noise, shape), out_shardings=rows)
    # Donate the noise: the images reuse its buffer.
    integrate = jax.jit(
        flow_to_data(velocity, settings),
        donate_argnames="x",
        out_shardings=rows,
        compiler_options=compiler_options.options_for(mesh.devices.flat[0].device_kind),
    )
    return start, integrate


def finite(images: Float[np.ndarray, " n *shape"]) -> Float[np.ndarray, " n *shape"]:
    """The images, unchanged, if all of them are finite.

    Raises:
      NonFiniteError: If one is not.
    """
    if wrong := int((~np.isfinite(images)).reshape(len(images), -1).any(1).sum()):
        raise NonFiniteError(
            f"{wrong} of {len(images)} images are not finite: take less guidance, another solver "
            "or more steps, or another checkpoint"
        )
    return images


def generate(
    model: Model,
    attributes: Asked,
    n: int | None = None,
    indices: Sequence[int] | Integer[np.ndarray, " n"] | None = None,
    settings: Settings = DEFAULT,
    progress: Callable[[int], None] | None = None,
    guidance: float | None = None,
    seed: int | None = None,
) -> Pictures:
    """Draws images.

    Args:
      model: Model from `load`.
      attributes: Mapping such as `{"view": "PA", "age": 63}`, the same for every image, or a list
        of one mapping for each image, or `Attributes` [n, 19]; what is not requested is
        unconditioned.
      n: Number of images; may be left out if `attributes` has rows or `indices` are given.
      indices: Which images of the seed; 0 … n − 1 when None. The same index under other attributes
        starts from the same noise.
      settings: Seed, solver and guidance.
      progress: Function called with the number of images that each batch added.
      guidance: Guidance in place of that of the settings.
      seed: Seed in place of that of the settings.

    Returns:
      `Pictures` in the order requested.

    Raises:
      ConfigError: For a wrong attribute, or numbers that do not fit each other.
      NonFiniteError: If a generated image is not finite.
    """
    settings = with_changes(settings, guidance, seed)
    if isinstance(attributes, Mapping) and n is None:
        n = 1 if indices is None else len(indices)
    attributes = rows_of(attributes, n)
    n = len(attributes.values) if n is None else n
    places = np.arange(n) if indices is None else np.asarray(indices)
    rows = len(attributes.values)
    if not rows == len(attributes.known) == len(places) == n or n < 1:
        raise ConfigError(f"{rows} rows of attributes, {len(places)} indices and n={n}")
    if places.min() < 0 or places.max() >= 2**32:
        raise ConfigError("indices must lie in [0, 2³²)")

    draw = Batches(model, settings, min(settings.batch_size, max(1, n)))
    images = []
    for rows, new in blocks(n, draw.size):
        drawn = np.asarray(draw(places[rows], attributes.rows(rows)))
        images.append(finite(drawn[:new]))
        if progress:
            progress(new)
    images = np.clip(np.concatenate(images), -1.0, 1.0)[..., 0]
    return Pictures(images, attributes, places, settings, model.source)
