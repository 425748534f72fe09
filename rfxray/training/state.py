"""The train state: what a run is made of besides its data, and how it comes to lie on the mesh.

A nested dict: `params`, `optimizer` (optax), `ema` (a copy of the parameters per profile), `guard`
(see guard.py) and `step` (int32, steps taken). It is born sharded: no device ever holds more than
its part.
"""

import jax
import jax.numpy as jnp
import optax

from rfxray.checkpoints import weights
from rfxray.networks import radit
from rfxray.runtime import sharding
from rfxray.training import optimizer, skip_guard


def shardings(config, mesh) -> dict:
    """The place of every array of the state, a tree of `NamedSharding`."""
    _, shapes, axes = radit.abstract(radit.model_config(config))
    params = jax.tree.map(lambda s, names: sharding.sharding(mesh, s.shape, names), shapes, axes)
    whole = sharding.replicated(mesh)
    transformation = optimizer.optimizer(config, axes)
    moments = optax.tree_map_params(
        transformation,
        lambda _, place: place,
        jax.eval_shape(transformation.init, shapes),
        params,
        transform_non_params=lambda _: whole,
    )
    ema = {weights.ema_name(sigma): params for sigma in config.ema_sigmas}
    watched = jax.tree.map(lambda _: whole, jax.eval_shape(skip_guard.fresh))
    return {"params": params, "optimizer": moments, "ema": ema, "guard": watched, "step": whole}


def _fresh(config, key: jax.Array) -> dict:
    shape = radit.model_config(config)
    params = radit.init(shape, key)
    return {
        "params": params,
        "optimizer": optimizer.optimizer(config, radit.abstract(shape)[2]).init(params),
        "ema": {weights.ema_name(s): jax.tree.map(jnp.copy, params) for s in config.ema_sigmas},
        "guard": skip_guard.fresh(),
        "step": jnp.zeros((), jnp.int32),
    }


def init(config, mesh) -> dict:
    """A fresh state from `config.seed`, every array created where it stays."""
    place = shardings(config, mesh)
    with jax.set_mesh(mesh):
        return jax.jit(lambda key: _fresh(config, key), out_shardings=place)(
            jax.random.key(config.seed)
        )


def abstract(config, mesh) -> dict:
    """The state as `jax.ShapeDtypeStruct` with shardings: what a checkpoint is restored into."""
    shapes = jax.eval_shape(lambda key: _fresh(config, key), jax.random.key(config.seed))
    return jax.tree.map(
        lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place),
        shapes,
        shardings(config, mesh),
    )
