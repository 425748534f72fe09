"""Editing: one thing changed in a given radiograph, the rest left alone.

Three ways put a picture onto the path to noise and bring it back under another condition:

- `invert` abducts its own noise by running the ODE backwards under what is observed, intervenes,
  and integrates again (abduct, intervene, predict: a counterfactual). A network explains a picture
  but for a residual of fine grain, and near t = 0, where v = (x − x̂)/t, the ODE blows that up into
  noise like no other. So the path begins at a small time, `floor`, from the picture with a little
  noise of a fixed seed, and what x̂ left unexplained there is put aside and back at the end:
  x' = x + x̂(x'_floor, target) − x̂(x_floor, source);
- `noise` adds noise instead (SDEdit, Meng et al. 2022, arXiv 2108.01073), which with a keep mask is
  inpainting, and without one paints everything anew, also outside of an edit mask;
- `flow` walks from picture to picture along the difference of two velocities, without inversion
  (FlowEdit, Kulikov et al. 2025, arXiv 2412.08629): the fast one.

Two masks, after RadEdit (Pérez-García et al. 2024, arXiv 2312.12865). Within the *edit mask* the
velocity is the guided one, outside it that of the observed condition. Within the *keep mask* every
state is replaced by the original's own at the very time that the step arrives at (RadEdit's public
code pastes one time late), so that at t = 0 these pixels are the original's to the last bit.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from rfxray.errors import ConfigError
from rfxray.objectives import flow
from rfxray.runtime import sharding
from rfxray.sampling import guidance as guide
from rfxray.sampling import pretrained, solvers
from rfxray.sampling.pretrained import Model
from rfxray.sampling.sampler import blocks, finite, keys_of, noise

METHODS = ("invert", "noise", "flow")
GUIDES = ("contrast", "factored", "plain")


@dataclasses.dataclass(frozen=True)
class EditSettings:
    """How pictures are edited.

    Attributes:
      method: one of `METHODS`.
      guidance: weight of what is changed; 1 is none.
      unchanged: weight of what is not changed, for `factored` guidance.
      guide: `contrast` (the changed attributes given the others), `factored` (each of the two
        groups against nothing told) or `plain` (everything told, exaggerated alike).
      strength: time up to which the picture is taken towards noise; 1 is the whole way.
      floor: time at which an inversion begins and ends; 0 is the bare ODE, without a residual.
      steps, solver: of the way back, and for `invert` of the way there; see `solvers`.
      corrections: fixed-point rounds for each step of the inversion.
      seed: of the noise, for `noise` and `flow`.
      batch_size: pictures at once.
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
                raise ConfigError(f"no way to edit {value!r}, only {', '.join(among)}")
        for name in ("guidance", "unchanged"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name}={getattr(self, name)} must be a number of at least 0")
        if not (0 <= self.floor < 1 and self.low < self.strength <= 1):
            raise ConfigError(
                f"strength={self.strength} must lie above floor={self.low} and up to 1"
            )
        if min(self.steps, self.batch_size) < 1 or self.corrections < 0:
            raise ConfigError("steps and batch_size are at least 1, corrections at least 0")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed={self.seed} must lie in [0, 2³²)")
        if solvers.find(self.solver).memory and self.method == "invert":
            raise ConfigError(f"{self.solver} remembers its past and cannot be inverted; take heun")

    @property
    def low(self) -> float:
        """Where the path ends. What is drawn anew has no grain of its own to be put back."""
        return self.floor if self.method == "invert" else 0.0

    def program(self) -> "EditSettings":
        """The settings that a compiled program depends on."""
        return dataclasses.replace(
            self, guidance=1.0, unchanged=1.0, strength=1.0, seed=0, batch_size=1
        )


@dataclasses.dataclass(frozen=True)
class Condition:
    """What pictures are said to show: `attributes` [n, 19] float32, `known` [n, 19] bool."""

    attributes: np.ndarray
    known: np.ndarray

    def __getitem__(self, rows) -> "Condition":
        return Condition(self.attributes[rows], self.known[rows])

    def __len__(self) -> int:
        return len(self.attributes)


def changed(source: Condition, target: Condition) -> np.ndarray:
    """Which attributes an intervention touches, bool [n, 19]."""
    return (source.known != target.known) | (
        source.known & target.known & (source.attributes != target.attributes)
    )


def abduct(
    model: Model, images: np.ndarray, source: Condition, settings: EditSettings = EditSettings()
) -> np.ndarray:
    """The path on which the model comes to these pictures, given what they show.

    Args:
      model: from `sampling.load`.
      images: [n, size, size] float32 in [−1, 1].
      source: what they show, as far as it is known.
      settings: `invert` inverts the very steps of the solver, `noise` mixes with noise instead;
        strength, steps, solver, corrections, seed.

    Returns:
      [n, states, size, size] float32: from t = strength down to the pictures themselves, the last.

    Raises:
      ConfigError: for pictures that are not of the model's size, or `flow`, which has no such path.
    """
    if settings.method == "flow":
        raise ConfigError("FlowEdit abducts nothing; take invert or noise")
    _refuse_size(model, pictures=images)
    run = _ascent(model.config, settings.program(), model.velocity)

    def one(rows):
        batch = _placed(model, images=images[rows], source=source[rows], rows=rows)
        return run(model.params, _numbers(settings), **batch)

    return _in_batches(model, settings, one, len(images))


def predict(
    model: Model,
    path: np.ndarray,
    source: Condition,
    target: Condition,
    settings: EditSettings = EditSettings(),
    mask: np.ndarray | None = None,
    keep: np.ndarray | None = None,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """From the start of a path to the pictures it leads to under other attributes.

    Args:
      model, settings: as `abduct` was given them, but for the guidance.
      path: from `abduct`.
      source: what the pictures show, as far as it is known.
      target: what they shall show.
      mask: [size, size] or [n, size, size] in [0, 1], where to edit; everywhere when None.
      keep: likewise bool, pixels that are not to be touched at all; nowhere when None.
      progress: called with the number of pictures that each batch added.

    Returns:
      [n, size, size] float32, in [−1, 1] but for kept pixels, which are as they came.

    Raises:
      ConfigError: for masks that are not of the model's size, or that the method has no use for.
      NonFiniteError: where a picture comes out as no picture.
    """
    refuse_masks(settings, mask is not None, keep is not None)
    run = _descent(
        model.config, settings.program(), model.velocity, mask is not None, keep is not None
    )
    masks = _masks(model, len(path), mask, keep)
    if keep is None:
        path = path[:, [0, -2, -1]]  # the rest of the way serves kept pixels alone

    def one(rows):
        there = _placed(
            model,
            path=path[rows],
            source=source[rows],
            target=target[rows],
            masks=tuple(m[rows] for m in masks),
        )
        return run(model.params, _numbers(settings), **there)

    edited = np.clip(_in_batches(model, settings, one, len(path), progress), -1.0, 1.0)
    return edited if keep is None else np.where(masks[1] > 0.5, path[:, -1], edited)


def edit(
    model: Model,
    images: np.ndarray,
    source: Condition,
    target: Condition,
    settings: EditSettings = EditSettings(),
    mask: np.ndarray | None = None,
    keep: np.ndarray | None = None,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Pictures as they would look under other attributes: `abduct` and `predict`, or the fast way.

    Arguments, result and errors are theirs.
    """
    if settings.method != "flow":
        path = abduct(model, images, source, settings)
        return predict(model, path, source, target, settings, mask, keep, progress)
    _refuse_size(model, pictures=images)
    run = _walk(model.config, settings.program(), model.velocity)
    masks = _masks(model, len(images), mask, keep)

    def one(rows):
        there = _placed(
            model,
            images=images[rows],
            source=source[rows],
            target=target[rows],
            rows=rows,
            masks=tuple(m[rows] for m in masks),
        )
        return run(model.params, _numbers(settings), **there)

    edited = np.clip(_in_batches(model, settings, one, len(images), progress), -1.0, 1.0)
    return edited if keep is None else np.where(masks[1] > 0.5, images, edited)


# ---------------------------------------------------------------------------------------------
# Batches


def refuse_masks(settings: EditSettings, masked: bool, keeping: bool) -> None:
    """Raises a ConfigError for an edit mask alone, outside of which `noise` keeps nothing."""
    if settings.method == "noise" and masked and not keeping:
        raise ConfigError(
            "noise paints anew outside of an edit mask too; say what stays by --keep, or what is "
            "drawn anew by --inpaint"
        )


def _refuse_size(model: Model, **arrays) -> None:
    size = model.config.model.size
    for what, array in arrays.items():
        if array is not None and np.shape(array)[-2:] != (size, size):
            shape = " × ".join(map(str, np.shape(array)[-2:]))
            raise ConfigError(f"{what} of {shape} for a model of {size} × {size} pixels")


def _masks(model: Model, n: int, mask, keep) -> tuple[np.ndarray, np.ndarray]:
    """Both masks as [n, size, size] float32; a mask may be one for all pictures."""
    _refuse_size(model, **{"an edit mask": mask, "a keep mask": keep})
    size = model.config.model.size
    given = (1.0 if mask is None else mask, 0.0 if keep is None else keep)
    return tuple(np.broadcast_to(np.asarray(a, np.float32), (n, size, size)) for a in given)


def _numbers(settings: EditSettings) -> dict:
    """What a sweep changes without compiling anew."""
    return {
        "seed": np.uint32(settings.seed),
        "strength": np.float32(settings.strength),
        "weights": np.array([settings.guidance, settings.unchanged], np.float32),
    }


def _placed(model: Model, **batch) -> dict:
    """Rows of arrays, conditions and masks, split over the devices."""
    batch = {
        k: (v.attributes, v.known) if isinstance(v, Condition) else v for k, v in batch.items()
    }
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
def _ascent(config, settings: EditSettings, velocity):
    def run(params, numbers, images, source, rows):
        times = _times(settings, numbers)
        images, straight = images[..., None], noise(config, numbers["seed"], rows)
        if settings.method == "noise":
            path = jnp.stack([flow.interpolate(images, straight, t[None]) for t in times])
        else:
            network = functools.partial(velocity or pretrained.velocity(config), params)
            observed = guide.guided(network, guide.unguided(*source))
            low = flow.interpolate(images, straight, times[-1:])
            path = solvers.invert(observed, low, times, settings.solver, settings.corrections)
        if settings.low:
            path = jnp.concatenate([path, images[None]])
        return rearrange(path, "steps n h w 1 -> n steps h w")

    return jax.jit(run)


@functools.lru_cache(maxsize=16)
def _descent(config, settings: EditSettings, velocity, masked: bool, keeping: bool):
    def run(params, numbers, path, source, target, masks):
        network = functools.partial(velocity or pretrained.velocity(config), params)
        times = _times(settings, numbers)
        mask, keep = (m[..., None] for m in masks)
        path = rearrange(path, "n steps h w -> steps n h w 1")
        branches = _branches(settings.guide, source, target, numbers["weights"])
        if masked:
            # Where the mask is 0 the velocity is that of the source: one branch more, and weights
            # that vary in space.
            told = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), source, branches[:2])
            weights = [1 - mask, *(mask * w for w in branches.weights)]
            branches = guide.Branches(*told, weights)

        def arrive(x, k):
            return jnp.where(keep > 0.5, path[k], x)

        dx_dt = guide.guided(network, branches)
        x = solvers.integrate(dx_dt, path[0], times, settings.solver, arrive if keeping else None)
        if settings.low:
            t, low, images = times[-1], path[-2], path[-1]
            observed = guide.guided(network, guide.unguided(*source))
            x = images + (x - t * dx_dt(x, t)) - (low - t * observed(low, t))
        return rearrange(x, "n h w 1 -> n h w")

    return jax.jit(run)


@functools.lru_cache(maxsize=16)
def _walk(config, settings: EditSettings, velocity):
    """dz = [v_target(z + x_t − x) − v_source(x_t)] dt, with fresh noise in every x_t."""

    def run(params, numbers, images, source, target, rows, masks):
        network = functools.partial(velocity or pretrained.velocity(config), params)
        times = _times(settings, numbers)
        images, keys = images[..., None], keys_of(numbers["seed"], rows)
        mask, keep = (m[..., None] for m in masks)
        branches = _branches(settings.guide, source, target, numbers["weights"])
        told = jax.tree.map(lambda a, b: jnp.concatenate([b, a[None]]), source, branches[:2])
        every = guide.Branches(*told, branches.weights)

        def step(z, interval):
            t, dt, k = interval
            draw = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, k), z.shape[1:]))
            here = flow.interpolate(images, draw(keys), t[None])
            there = z + here - images
            asked = jnp.stack([there] * len(branches.known) + [here])
            *told, base, observed = guide.ask(network, asked, t, every)
            z = z + dt * mask * (guide.affine(told, base, branches.weights, t) - observed)
            return jnp.where(keep > 0.5, images, z), None

        intervals = (times[:-1], jnp.diff(times), jnp.arange(1, len(times)))
        z, _ = jax.lax.scan(step, images, intervals)
        return rearrange(z, "n h w 1 -> n h w")

    return jax.jit(run)


def _times(settings: EditSettings, numbers: dict) -> jax.Array:
    return settings.low + (numbers["strength"] - settings.low) * solvers.time_grid(settings.steps)


def _branches(kind: str, source, target, weights) -> guide.Branches:
    attributes, known = target
    moved = changed(Condition(*source), Condition(*target))
    if kind == "plain":
        return guide.classifier_free(attributes, known, weights[0])
    if kind == "factored":
        # Which attributes are changed differs from picture to picture: groups are [batch, 19].
        return guide.factored(attributes, known, jnp.stack([moved, ~moved]), weights)
    return guide.contrast(attributes, known, moved, weights[0])
