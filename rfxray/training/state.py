"""The train state, and its sharding on the mesh.

A nested dict of named parts:

- `params`: parameters of every part by name (`model`, and what else the objective reads);
- `optimizer`: optax state of every trained part by name;
- `ema`: averaged parts of every profile;
- `guard`: see skip_guard.py;
- `step`: number of steps taken, int32.

It is created sharded: no device ever holds more than its part.
"""

from typing import TypedDict

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int32, Key, PyTree

from rfxray.arrays import AnyArray, Params
from rfxray.checkpoints.weights import ema_name
from rfxray.objectives.objective import Parts
from rfxray.runtime import sharding
from rfxray.training import skip_guard
from rfxray.training.recipe import Recipe


class State(TypedDict):
    """The train state, or a tree like it of shapes or of shardings."""

    params: dict[str, Params]
    optimizer: dict[str, optax.OptState]
    ema: dict[str, dict[str, Params]]
    guard: skip_guard.Guard
    step: Int32[Array, ""]


def _place(recipe: Recipe, mesh: jax.sharding.Mesh) -> PyTree[jax.sharding.NamedSharding]:
    """The sharding of every array of the state."""
    whole = sharding.replicated(mesh)
    params, moments = {}, {}
    for name, network in recipe.networks.items():
        place = jax.tree.map(
            lambda s, axes: sharding.sharding(mesh, s.shape, axes), network.shapes, network.axes
        )
        params[name] = place
        if name in recipe.optimizers:
            moments[name] = optax.tree_map_params(
                recipe.optimizers[name],
                lambda _, place: place,
                jax.eval_shape(recipe.optimizers[name].init, network.shapes),
                place,
                transform_non_params=lambda _: whole,
            )
    averaged = {name: params[name] for name in recipe.objective.averaged}
    return {
        "params": params,
        "optimizer": moments,
        "ema": {ema_name(sigma): averaged for sigma in recipe.sigmas},
        "guard": jax.tree.map(lambda _: whole, jax.eval_shape(skip_guard.fresh)),
        "step": whole,
    }


def _fresh(recipe: Recipe, key: Key[Array, ""]) -> State:
    params = {
        # The first part uses the key itself, so that adding a part does not change it.
        name: network.init(jax.random.fold_in(key, number) if number else key)
        for number, (name, network) in enumerate(recipe.networks.items())
    }
    averaged = {name: params[name] for name in recipe.objective.averaged}
    return {
        "params": params,
        "optimizer": {name: opt.init(params[name]) for name, opt in recipe.optimizers.items()},
        "ema": {ema_name(s): jax.tree.map(jnp.copy, averaged) for s in recipe.sigmas},
        "guard": skip_guard.fresh(),
        "step": jnp.zeros((), jnp.int32),
    }


def init(recipe: Recipe, mesh: jax.sharding.Mesh, given: Parts | None = None) -> State:
    """A new state from the seed of the recipe; every array is created with its sharding.

    Args:
      recipe: Recipe of the run.
      mesh: Mesh of the run.
      given: Parameters of the parts that are not trained, by name; without them they are fresh.
    """
    place = _place(recipe, mesh)
    with jax.set_mesh(mesh):
        state = jax.jit(lambda key: _fresh(recipe, key), out_shardings=place)(
            jax.random.key(recipe.seed)
        )
    state["params"] |= placed(recipe, mesh, given or {})
    return state


def placed(recipe: Recipe, mesh: jax.sharding.Mesh, given: Parts) -> dict[str, Params]:
    """Parameters of some parts, which every host has, on the devices of a mesh."""
    place = _place(recipe, mesh)["params"]
    return {name: jax.tree.map(_put, params, place[name]) for name, params in given.items()}


def _put(array: AnyArray, place: jax.sharding.Sharding) -> jax.Array:
    """An array that every host has, on the devices of a sharding."""
    return jax.make_array_from_callback(array.shape, place, lambda index: array[index])


def abstract(recipe: Recipe, mesh: jax.sharding.Mesh) -> State:
    """The state as `jax.ShapeDtypeStruct` with shardings, to restore a checkpoint into."""
    shapes = jax.eval_shape(lambda key: _fresh(recipe, key), jax.random.key(recipe.seed))
    return jax.tree.map(
        lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place),
        shapes,
        _place(recipe, mesh),
    )


def shardings(state: State) -> PyTree[jax.sharding.Sharding]:
    """The sharding of every array of a state, real or abstract."""
    return jax.tree.map(lambda leaf: leaf.sharding, state)


def averaged(recipe: Recipe) -> Parts:
    """The parts that a profile holds, as `jax.ShapeDtypeStruct`."""
    return {name: recipe.networks[name].shapes for name in recipe.objective.averaged}
