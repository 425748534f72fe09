"""Editing: one thing changed in a given radiograph, everything else kept.

Three methods put an image onto the path to noise and bring it back under another condition:

- `invert` abducts its own noise by running the ODE backwards under what is observed, intervenes,
  and integrates again (abduct, intervene, predict: a counterfactual). A network explains an image
  except for a residual of fine grain, and near t = 0, where v = (x − x̂)/t, the ODE amplifies that
  into noise unlike any it was trained on. So the path begins at a small time, `floor`, from the
  image with a little noise of a fixed seed, and what x̂ does not explain there is put aside and
  added again at the end: x' = x + x̂(x'_floor, target) − x̂(x_floor, source);
- `noise` adds noise instead (SDEdit, Meng et al. 2022, arXiv 2108.01073), which with a keep mask is
  inpainting, and without one redraws everything, also outside of an edit mask;
- `flow` walks from image to image along the difference of two velocities, without inversion
  (FlowEdit, Kulikov et al. 2025, arXiv 2412.08629): the fast one.

Two masks, after RadEdit (Pérez-García et al. 2024, arXiv 2312.12865). Within the *edit mask* the
velocity is the guided one, outside it that of the observed condition. Within the *keep mask* every
state is replaced by the original's own at the very time that the step arrives at (RadEdit's public
code pastes one time late), so that at t = 0 these pixels are the original's to the last bit.

A model of latents edits the cells of its autoencoder. What the decoder does not explain of an image
is put aside and added again, as above: x' = x + D(z') − D(z), except where the image is redrawn.
Masks act on pixels: an edit mask takes every cell of which it covers a part, a keep mask those that
it covers whole, and kept pixels are the original's to the last bit all the same.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Integer, Shaped

from rfxray.arrays import AnyArray
from rfxray.attributes.vocabulary import Attributes, requested
from rfxray.errors import ConfigError
from rfxray.objectives import flow
from rfxray.objectives.objective import Velocity as ParametricVelocity
from rfxray.runtime import sharding
from rfxray.sampling import guidance as guide
from rfxray.sampling import solvers
from rfxray.sampling.batching import blocks
from rfxray.sampling.given import AnyImages, Asked, images_of, pair_of
from rfxray.sampling.interventions import changed
from rfxray.sampling.pretrained import Model
from rfxray.sampling.sampler import Shape, finite, keys_of, noise
from rfxray.sampling.shown import settings_repr

METHODS = ("invert", "noise", "flow")
GUIDES = ("contrast", "factored", "plain")
Progress: TypeAlias = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class EditSettings:
    """How images are edited.

    Attributes:
      method: One of `METHODS`.
      guidance: Weight of the changed attributes; 1 is none.
      unchanged: Weight of the other attributes, for `factored` guidance.
      guide: `contrast` (the changed attributes given the others), `factored` (each of the two
        groups against no condition) or `plain` (all known attributes, exaggerated equally).
      strength: Time up to which the image is taken towards noise; 1 is the whole way.
      floor: Time at which an inversion begins and ends; 0 is the bare ODE, without a residual.
      steps: Solver steps of the way back, and for `invert` of the way to noise.
      solver: Key of `solvers.SOLVERS`.
      corrections: Fixed-point rounds for each step of the inversion.
      seed: Seed of the noise.
      batch_size: Images per call of the network (times the branches of guidance).
    """

    method: str = "invert"
    guidance: float = 3.0
    unchanged: float = 1.0
    guide: str = "contrast"
    strength: float = 1.0
    floor: float = 0.2
    steps: int = 50
    solver: str = "heun"
    corrections: int = 2
    seed: int = 0
    batch_size: int = 32

    def __post_init__(self):
        for value, among in ((self.method, METHODS), (self.guide, GUIDES)):
            if value not in among:
                raise ConfigError(f"no way to edit {value!r}; choose one of {', '.join(among)}")
        for name in ("guidance", "unchanged"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name}={getattr(self, name)} must be a number of at least 0")
        if not (0 <= self.floor < 1 and self.low < self.strength <= 1):
            raise ConfigError(
                f"strength={self.strength} must lie above floor={self.low} and up to 1"
            )
        most = solvers.MOST_STEPS
        if not (1 <= self.steps <= most and self.batch_size >= 1 and 0 <= self.corrections <= most):
            raise ConfigError(
                "steps and batch_size are at least 1, corrections at least 0, steps and "
                f"corrections at most {most:,} (got {self.steps}, {self.batch_size} and "
                f"{self.corrections})"
            )
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed={self.seed} must lie in [0, 2³²)")
        if solvers.find(self.solver).memory and self.method == "invert":
            raise ConfigError(
                f"{self.solver} is a multistep solver and cannot be inverted; use heun"
            )

    def __repr__(self) -> str:
        return settings_repr(self)

    @property
    def low(self) -> float:
        """Time at which the path ends. A redrawn image has no grain of its own to add again."""
        return self.floor if self.method == "invert" else 0.0

    def program(self) -> "EditSettings":
        """The settings that a compiled program depends on."""
        return dataclasses.replace(
            self, guidance=1.0, unchanged=1.0, strength=1.0, seed=0, batch_size=1
        )


class Abduction(NamedTuple):
    """How a model comes to images.

    Attributes:
      states: What the network sees from t = strength down to the images themselves, which come
        last, [n, states, *model.shape] float32.
      images: The images, [n, size, size] float32 in [−1, 1].
    """

    states: Float[np.ndarray, "n states rows columns channels"]
    images: Float[np.ndarray, "n height width"]


def abduct(
    model: Model,
    images: Float[np.ndarray, "n height width"],
    source: Attributes,
    settings: EditSettings = EditSettings(),
    numbers: Integer[np.ndarray, " n"] | None = None,
) -> Abduction:
    """The path on which the model comes to these images, given what they show.

    Args:
      model: Model from `sampling.load`.
      images: Images, [n, size, size] float32 in [−1, 1].
      source: What they show, as far as it is known, [n, 19].
      settings: Settings of which method, strength, floor, steps, solver, corrections and seed are
        read. `invert` inverts the very steps of the solver, `noise` mixes with noise instead.
      numbers: Number by which the noise of each image is drawn, uint32 [n]; its place when None.

    Raises:
      ConfigError: For images that are not of the model's size, or `flow`, which has no such path.
    """
    if settings.method == "flow":
        raise ConfigError("FlowEdit has no path to abduct; use invert or noise")
    _refuse_size(model, images=images)
    source = requested(source)
    run = _ascent(model.velocity, model.shape, settings.program())
    cells, drawn = model.cells(images), _drawn(numbers, len(images))

    def one(rows):
        batch = _placed(model, images=cells[rows], source=source.rows(rows), rows=drawn[rows])
        return run(model.params, _numbers(settings), **batch)

    return Abduction(_in_batches(model, settings, one, len(images)), images)


def predict(
    model: Model,
    path: Abduction,
    source: Attributes,
    target: Attributes,
    settings: EditSettings = EditSettings(),
    mask: Shaped[np.ndarray, "..."] | None = None,
    keep: Shaped[np.ndarray, "..."] | None = None,
    progress: Progress | None = None,
) -> Float[np.ndarray, "n height width"]:
    """From the start of a path to the images it leads to under other attributes.

    Args:
      model: Model that `abduct` was given.
      path: Path from `abduct`.
      source: What the images show, as far as it is known, [n, 19].
      target: What they are to show, [n, 19].
      settings: Settings that `abduct` was given, except for the guidance.
      mask: Share of the edit in each pixel, [size, size] or [n, size, size] in [0, 1]; None: all.
      keep: Pixels that must not change at all, bool of these shapes; none when None.
      progress: Function called with the number of images that each batch added.

    Returns:
      Images [n, size, size] float32 in [−1, 1], except for kept pixels, which are as given.

    Raises:
      ConfigError: For masks that are not of the model's size, or that the method has no use for.
      NonFiniteError: If an edited image is not finite.
    """
    refuse_masks(settings, mask is not None, keep is not None)
    source, target = requested(source), requested(target)
    run = _descent(model.velocity, settings.program(), mask is not None, keep is not None)
    masks = _masks(model, len(path.images), mask, keep)
    states = path.states
    if keep is None:
        states = states[:, [0, -2, -1]]  # the rest of the path serves only kept pixels

    def one(rows):
        there = _placed(
            model,
            path=states[rows],
            source=source.rows(rows),
            target=target.rows(rows),
            masks=tuple(m[rows] for m in masks),
        )
        return run(model.params, _numbers(settings), **there)

    edited = _in_batches(model, settings, one, len(states), progress)
    shown = _shown(model, edited, states[:, -1] if settings.low else None, path.images)
    return shown if keep is None else np.where(_over(keep, shown), path.images, shown)


def edit(
    model: Model,
    images: AnyImages,
    source: Asked,
    target: Asked,
    settings: EditSettings = EditSettings(),
    mask: Shaped[np.ndarray, "..."] | None = None,
    keep: Shaped[np.ndarray, "..."] | None = None,
    progress: Progress | None = None,
    guidance: float | None = None,
    seed: int | None = None,
    numbers: Integer[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, "n height width"]:
    """Images as they would look under other attributes: `abduct` and `predict`, or FlowEdit.

    Arguments, result and errors are those of the two; guidance and seed replace those of the
    settings. Images may be as `given.images_of` reads them (of Pillow, or of integers), and
    attributes as `given.pair_of` does: a mapping says what is shown, or what is to change.
    """
    changes = {"guidance": guidance, "seed": seed}
    changes = {name: value for name, value in changes.items() if value is not None}
    settings = dataclasses.replace(settings, **changes)
    images = images_of(images, model.size)
    source, target = pair_of(source, target, len(images))
    if settings.method != "flow":
        path = abduct(model, images, source, settings, numbers)
        return predict(model, path, source, target, settings, mask, keep, progress)
    run = _walk(model.velocity, settings.program())
    masks = _masks(model, len(images), mask, keep)
    cells, drawn = model.cells(images), _drawn(numbers, len(images))

    def one(rows):
        there = _placed(
            model,
            images=cells[rows],
            source=source.rows(rows),
            target=target.rows(rows),
            rows=drawn[rows],
            masks=tuple(m[rows] for m in masks),
        )
        return run(model.params, _numbers(settings), **there)

    edited = _in_batches(model, settings, one, len(images), progress)
    shown = _shown(model, edited, cells, images)
    return shown if keep is None else np.where(_over(keep, shown), images, shown)


def _shown(
    model: Model, edited: np.ndarray, cells: np.ndarray | None, images: np.ndarray
) -> Float[np.ndarray, "n height width"]:
    """The images of edited states, in [−1, 1]; what the decoder leaves out of the cells of the
    images is added again, unless these are None."""
    drawn = np.asarray(model.images(edited))[..., 0]
    if model.space and cells is not None:
        drawn = images + (drawn - np.asarray(model.images(cells))[..., 0])
    return np.clip(drawn, -1.0, 1.0)


def _over(keep: np.ndarray, images: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.asarray(keep, np.float32) > 0.5, images.shape)


# ---------------------------------------------------------------------------------------------
# Batches


def refuse_masks(settings: EditSettings, masked: bool, keeping: bool) -> None:
    """Raises a ConfigError for an edit mask without a keep mask, for a method that redraws all."""
    if settings.method == "noise" and masked and not keeping:
        raise ConfigError(
            "--method noise also redraws outside of an edit mask; add --keep, or use --inpaint"
        )


def _refuse_size(model: Model, **arrays) -> None:
    wanted = (model.size, model.size)
    for what, array in arrays.items():
        if array is not None and (found := np.shape(array)[-2:]) != wanted:
            given, size = (" × ".join(map(str, shape)) for shape in (found, wanted))
            raise ConfigError(f"{what} of {given} pixels for a model of {size}")


def _masks(model: Model, n: int, mask, keep) -> tuple[np.ndarray, np.ndarray]:
    """Both masks as [n, rows, columns] float32 of what the network sees; one may serve all."""
    _refuse_size(model, **{"an edit mask": mask, "a keep mask": keep})
    given = np.asarray(1.0 if mask is None else mask), np.asarray(0.0 if keep is None else keep)
    shape = (n, model.size, model.size)
    edit_mask, keep_mask = (np.broadcast_to(a.astype(np.float32), shape) for a in given)
    # A cell is edited where the mask has any part of it, and kept where it has all of it
    return _of_cells(edit_mask, model, np.max), _of_cells(keep_mask, model, np.min)


def _of_cells(mask: np.ndarray, model: Model, over: Callable[..., np.ndarray]) -> np.ndarray:
    rows, columns, _ = model.shape
    cells = rearrange(
        mask, "n (rows y) (columns x) -> n rows columns (y x)", rows=rows, columns=columns
    )
    return over(cells, axis=-1)


def _numbers(settings: EditSettings) -> dict[str, np.ndarray]:
    """What a sweep changes without compiling again."""
    return {
        "seed": np.asarray(settings.seed, np.uint32),
        "strength": np.asarray(settings.strength, np.float32),
        "weights": np.array([settings.guidance, settings.unchanged], np.float32),
    }


def _drawn(numbers: np.ndarray | None, n: int) -> np.ndarray:
    """The number by which the noise of each image is drawn, [n]."""
    return np.arange(n) if numbers is None else np.asarray(numbers)


def _placed(model: Model, **batch) -> dict:
    """Rows of arrays, attributes and masks, split over the devices."""
    rows = jax.sharding.NamedSharding(model.mesh, sharding.BATCH)
    return jax.tree.map(lambda a: jax.device_put(np.asarray(a), rows), batch)


def _in_batches(model, settings, one, n: int, progress=None) -> np.ndarray:
    size = min(settings.batch_size, max(1, n))
    size += -size % model.mesh.size
    done = []
    for rows, new in blocks(n, size):
        with jax.set_mesh(model.mesh):
            done.append(finite(np.asarray(one(rows))[:new]))
        if progress:
            progress(new)
    return np.concatenate(done)


# ---------------------------------------------------------------------------------------------
# The programs: pure functions of arrays [batch, ...], compiled once per shape


@functools.lru_cache(maxsize=16)
def _ascent(velocity: ParametricVelocity, shape: Shape, settings: EditSettings):
    def run(params, numbers, images, source, rows):
        times = _times(settings, numbers)
        straight = noise(shape, numbers["seed"], rows)
        if settings.method == "noise":
            path = jnp.stack([flow.interpolate(images, straight, t[None]) for t in times])
        else:
            network = functools.partial(velocity, params)
            observed = guide.guided(network, guide.unguided(source))
            low = flow.interpolate(images, straight, times[-1:])
            path = solvers.invert(observed, low, times, settings.solver, settings.corrections)
        if settings.low:
            path = jnp.concatenate([path, images[None]])
        return jnp.moveaxis(path, 0, 1)

    return jax.jit(run)


@functools.lru_cache(maxsize=16)
def _descent(velocity: ParametricVelocity, settings: EditSettings, masked: bool, keeping: bool):
    def run(params, numbers, path, source, target, masks):
        network = functools.partial(velocity, params)
        times = _times(settings, numbers)
        mask, keep = (m[..., None] for m in masks)
        path = jnp.moveaxis(path, 1, 0)
        branches = _branches(settings.guide, source, target, numbers["weights"])
        if masked:
            # Where the mask is 0 the velocity is that of the source: one branch more, and weights
            # that vary in space.
            conditions = jax.tree.map(
                lambda a, b: jnp.concatenate([a[None], b]), source, branches.attributes
            )
            weights = [1 - mask, *(mask * w for w in branches.weights)]
            branches = guide.Branches(conditions, weights)

        def arrive(x, k):
            return jnp.where(keep > 0.5, path[k], x)

        dx_dt = guide.guided(network, branches)
        x = solvers.integrate(dx_dt, path[0], times, settings.solver, arrive if keeping else None)
        if settings.low:
            t, low, images = times[-1], path[-2], path[-1]
            observed = guide.guided(network, guide.unguided(source))
            x = images + (x - t * dx_dt(x, t)) - (low - t * observed(low, t))
        return x

    return jax.jit(run)


@functools.lru_cache(maxsize=16)
def _walk(velocity: ParametricVelocity, settings: EditSettings):
    """dz = [v_target(z + x_t − x) − v_source(x_t)] dt, with fresh noise in every x_t."""

    def run(params, numbers, images, source, target, rows, masks):
        network = functools.partial(velocity, params)
        times = _times(settings, numbers)
        keys = keys_of(numbers["seed"], rows)
        mask, keep = (m[..., None] for m in masks)
        branches = _branches(settings.guide, source, target, numbers["weights"])
        conditions = jax.tree.map(
            lambda a, b: jnp.concatenate([b, a[None]]), source, branches.attributes
        )

        def step(z, interval):
            t, dt, k = interval
            draw = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, k), z.shape[1:]))
            here = flow.interpolate(images, draw(keys), t[None])
            there = z + here - images
            states = jnp.stack([there] * len(branches.attributes.known) + [here])
            *others, base, observed = guide.evaluate_branches(network, states, t, conditions)
            z = z + dt * mask * (guide.affine(others, base, branches.weights, t) - observed)
            return jnp.where(keep > 0.5, images, z), None

        intervals = (times[:-1], jnp.diff(times), jnp.arange(1, len(times)))
        z, _ = jax.lax.scan(step, images, intervals)
        return z

    return jax.jit(run)


def _times(settings: EditSettings, numbers: Mapping[str, AnyArray]) -> Float[Array, " times"]:
    grid = jnp.asarray(solvers.time_grid(settings.steps))
    return settings.low + (jnp.asarray(numbers["strength"]) - settings.low) * grid


def _branches(kind: str, source: Attributes, target: Attributes, weights) -> guide.Branches:
    moved = changed(source, target)
    if kind == "plain":
        return guide.classifier_free(target, weights[0])
    if kind == "factored":
        # Which attributes are changed differs from image to image: groups are [batch, 19].
        return guide.factored(target, jnp.stack([moved, ~moved]), weights)
    return guide.contrast(target, moved, weights[0])
