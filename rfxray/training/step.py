"""The train step: one update of every trained part.

Everything that is drawn for an example (t, noise, dropout) is keyed by the seed of the run and the
position of the example in the endless global order, never by device, host or row, so a run draws
the same on any mesh, also if it resumes on another. A skipped step changes only its number and the
guard.
"""

import functools
from collections.abc import Callable, Mapping

import clu.metrics
import jax
import jax.numpy as jnp
import optax
from einops import rearrange
from jaxtyping import Array, Key, PyTree, UInt32

from rfxray.arrays import AnyArray, Params
from rfxray.checkpoints.weights import ema_name
from rfxray.objectives.objective import Batch, Loss, Outcome, Parts, batch_shapes
from rfxray.runtime.sharding import BATCH, constrain
from rfxray.training import skip_guard
from rfxray.training.ema import ema_update
from rfxray.training.recipe import Recipe
from rfxray.training.state import State

TRAINING, VALIDATION = 0, 1  # streams of random numbers, which never share a key

Step = Callable[[State, clu.metrics.Collection, Batch], tuple[State, clu.metrics.Collection]]


def example_keys(seed: int, stream: int, index: UInt32[AnyArray, " batch"]) -> Key[Array, " batch"]:
    """Typed PRNG keys of examples, [batch], from their positions in the order of the data."""
    key = jax.random.fold_in(jax.random.key(seed), stream)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


def _gradient(
    recipe: Recipe, part: str, loss: Loss, params: Parts, batch: Batch
) -> tuple[Params, Outcome]:
    """The gradient of a part's mean loss in its own parameters, and the outcome, [batch].

    The batch is split into `recipe.accumulate` pieces, which are computed one after another.
    """

    def of(rows: Batch) -> tuple[Params, Outcome]:
        keys = example_keys(recipe.seed, TRAINING, rows["index"])

        def mean(own: Params) -> tuple[jax.Array, Outcome]:
            outcome = loss({**params, part: own}, rows, keys, True)
            return outcome.losses.mean(), outcome

        gradient, outcome = jax.grad(mean, has_aux=True)(params[part])
        return gradient, outcome

    pieces = recipe.accumulate
    if pieces == 1:
        return of(batch)

    def split(x: jax.Array) -> jax.Array:
        # Every piece has rows of every device, so that nothing moves between devices.
        x = rearrange(x, "(b a) ... -> a b ...", a=pieces)
        return constrain(x, None, "batch", *(None,) * (x.ndim - 2))

    def add(total: Params, rows: Batch) -> tuple[Params, Outcome]:
        gradient, outcome = of(rows)
        return jax.tree.map(jnp.add, total, gradient), outcome

    zero = jax.tree.map(jnp.zeros_like, params[part])
    total, outcome = jax.lax.scan(add, zero, jax.tree.map(split, batch))
    # Restores the order of the batch.
    outcome = jax.tree.map(lambda x: rearrange(x, "a b ... -> (b a) ..."), outcome)
    return jax.tree.map(lambda g: g / pieces, total), outcome


def _observe(
    recipe: Recipe,
    outcomes: Mapping[str, Outcome],
    gradients: Mapping[str, Params],
    updates: Mapping[str, Params],
) -> clu.metrics.Collection:
    """What one step adds to the metrics."""
    seen = {}
    for part, outcome in outcomes.items():
        prefix = "" if part == "model" else f"{part}_"
        seen[f"{prefix}loss"] = outcome.losses.mean()
        seen[f"{prefix}grad_norm"] = optax.tree.norm(gradients[part])
    return recipe.metrics.single_from_model_output(
        update_norm=optax.tree.norm(updates["model"]), **seen, **outcomes["model"].observed
    )


def train_step(recipe: Recipe) -> Step:
    """The function `(state, metrics, batch) → (state, metrics)`, to jit under a mesh."""
    losses = recipe.objective.losses

    def step(
        state: State, metrics: clu.metrics.Collection, batch: Batch
    ) -> tuple[State, clu.metrics.Collection]:
        gradients, outcomes = {}, {}
        for part, loss in losses.items():
            gradients[part], outcomes[part] = _gradient(recipe, part, loss, state["params"], batch)
        # A step is skipped for all parts: what is bad for one also harms the others. Only the norm
        # of `model` must be as usual. A discriminator that begins in a running training has one of
        # another scale (measured: 4 to 44 beside 0.4 of its autoencoder), and its optimizer clips.
        norm = optax.tree.norm(gradients["model"])
        per_example = functools.reduce(jnp.add, [o.losses for o in outcomes.values()])
        good = skip_guard.judge(state["guard"], norm, per_example, recipe.skip_factor)
        for part, gradient in gradients.items():
            if part != "model":
                good &= jnp.isfinite(optax.tree.norm(gradient))

        updates, moments, params = {}, {}, dict(state["params"])
        for part, optimizer in recipe.optimizers.items():
            updates[part], moments[part] = optimizer.update(
                gradients[part], state["optimizer"][part], params[part]
            )
            params[part] = optax.apply_updates(params[part], updates[part])
        count = state["step"] + 1
        averaged = {part: params[part] for part in recipe.objective.averaged}
        ema = {
            ema_name(sigma): ema_update(state["ema"][ema_name(sigma)], averaged, count, sigma)
            for sigma in recipe.sigmas
        }
        seen = metrics.merge(_observe(recipe, outcomes, gradients, updates))

        def if_good(new: PyTree, old: PyTree) -> PyTree:
            return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)

        trained = {"params": params, "optimizer": moments, "ema": ema}
        kept = if_good(trained, {key: state[key] for key in trained})
        guard = skip_guard.remember(state["guard"], good, count, norm, per_example, batch["index"])
        return State(**kept, guard=guard, step=count), if_good(seen, metrics)

    return step


def abstract_batch(recipe: Recipe, mesh: jax.sharding.Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch of a run as `jax.ShapeDtypeStruct`, split over data × fsdp."""
    place = jax.sharding.NamedSharding(mesh, BATCH)
    shapes = batch_shapes(recipe.batch_size, recipe.model.input_shape)
    return {
        key: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place) for key, s in shapes.items()
    }
