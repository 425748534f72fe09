"""The train step and the validation step: one optimizer update, one loss on fixed draws.

Whatever is drawn for an example (t, noise, dropout) is keyed by the run's seed and the example's
place in the endless global order, never by device, host or row, so that a run on any mesh, or
resumed on another, draws the same. A step that the guard does not let pass changes nothing but its
number.
"""

import jax
import jax.numpy as jnp
import optax
from einops import rearrange

from rfxray.attributes import conditioning, vocabulary
from rfxray.attributes.vocabulary import Attributes
from rfxray.checkpoints import weights
from rfxray.networks import radit
from rfxray.objectives import flow
from rfxray.runtime.sharding import BATCH, constrain
from rfxray.training import optimizer, skip_guard
from rfxray.training.ema import ema_update
from rfxray.training.metrics import TrainMetrics


def _example_keys(seed: int, stream: int, index: jax.Array) -> jax.Array:
    """[batch] PRNG keys; streams (0 training, 1 validation) never share one."""
    key = jax.random.fold_in(jax.random.key(seed), stream)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


def _losses(config, network, params, batch, keys, dropout: bool):
    """(loss, t), each [batch] float32."""
    x = batch["image"]
    for_t, for_noise, for_drop = jax.vmap(lambda key: jax.random.split(key, 3))(keys).swapaxes(0, 1)
    t = flow.sample_timestep(for_t, config.flow.t_mean, config.flow.t_std, config.flow.shift)
    noise = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(for_noise)
    attributes = Attributes(batch["attributes"], batch["known"])
    if dropout:
        attributes = conditioning.drop(
            for_drop, attributes, config.dropout.all_null, config.dropout.each
        )
    x_t = flow.interpolate(x, noise, t)
    output = network(params, x_t, t, attributes)
    return flow.loss(flow.velocity(output, x_t, t, config.flow.prediction), x, noise), t


def _gradient(config, network, params, batch):
    """(gradient of the mean loss, losses [batch], t [batch]), the batch taken part by part."""

    def of(rows):
        keys = _example_keys(config.seed, 0, rows["index"])

        def objective(params):
            losses, t = _losses(config, network, params, rows, keys, dropout=True)
            return losses.mean(), (losses, t)

        (_, aux), gradient = jax.value_and_grad(objective, has_aux=True)(params)
        return gradient, aux

    parts = config.accumulate
    if parts == 1:
        gradient, (losses, t) = of(batch)
        return gradient, losses, t

    def split(x):
        # Every part takes some of each device's rows, so that nothing moves.
        x = rearrange(x, "(b a) ... -> a b ...", a=parts)
        return constrain(x, None, "batch", *(None,) * (x.ndim - 2))

    def add(total, rows):
        gradient, aux = of(rows)
        return jax.tree.map(jnp.add, total, gradient), aux

    zero = jax.tree.map(jnp.zeros_like, params)
    total, (losses, t) = jax.lax.scan(add, zero, jax.tree.map(split, batch))
    losses, t = (rearrange(x, "a b -> (b a)") for x in (losses, t))  # as the batch has its rows
    return jax.tree.map(lambda g: g / parts, total), losses, t


def train_step(config):
    """The function `(state, metrics, batch) → (state, metrics)`, to be jitted under a mesh.

    Args (of the function):
      state: as state.py.
      metrics: `telemetry.TrainMetrics`, accumulated on the device.
      batch: `image` [batch, size, size, channels] float32, `attributes` [batch, 19] float32,
        `known` [batch, 19] bool, `index` [batch] uint32.
    """
    shape = radit.model_config(config)
    network = radit.apply(shape, radit.execution(config))
    transformation = optimizer.optimizer(config, radit.abstract(shape)[2])

    def step(state, metrics, batch):
        gradient, losses, t = _gradient(config, network, state["params"], batch)
        norm = optax.tree.norm(gradient)
        good = skip_guard.judge(state["guard"], norm, losses, config.skip.factor)
        updates, moments = transformation.update(gradient, state["optimizer"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        count = state["step"] + 1
        ema = {
            weights.ema_name(sigma): ema_update(
                state["ema"][weights.ema_name(sigma)], params, count, sigma
            )
            for sigma in config.ema_sigmas
        }
        seen = metrics.merge(
            TrainMetrics.single_from_model_output(
                loss=losses.mean(),
                loss_by_t=(losses, t),
                grad_norm=norm,
                update_norm=optax.tree.norm(updates),
            )
        )

        def if_good(new, old):
            return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)

        trained = {"params": params, "optimizer": moments, "ema": ema}
        kept = if_good(trained, {key: state[key] for key in trained})
        remembered = skip_guard.remember(state["guard"], good, count, norm, losses, batch["index"])
        return {**kept, "guard": remembered, "step": count}, if_good(seen, metrics)

    return step


def abstract_batch(config, mesh) -> dict:
    """A batch of a run as `jax.ShapeDtypeStruct`, split over data × fsdp."""
    m, n = config.model, config.batch_size
    shapes = {
        "image": ((n, m.size, m.size, m.channels), jnp.float32),
        "attributes": ((n, vocabulary.NUM_ATTRIBUTES), jnp.float32),
        "known": ((n, vocabulary.NUM_ATTRIBUTES), bool),
        "index": ((n,), jnp.uint32),
    }
    place = jax.sharding.NamedSharding(mesh, BATCH)
    return {key: jax.ShapeDtypeStruct(*shape, sharding=place) for key, shape in shapes.items()}


def validation_step(config):
    """The function `(params, batch) → mean loss`: no dropout, always the same t and noise."""
    network = radit.apply(radit.model_config(config), radit.execution(config))

    def step(params, batch):
        keys = _example_keys(config.seed, 1, batch["index"])
        return _losses(config, network, params, batch, keys, dropout=False)[0].mean()

    return step
