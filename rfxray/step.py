"""The train step and the validation step: one optimizer update, one loss on fixed draws.

Whatever is drawn for an example (t, noise, dropout) is keyed by the run's seed and the example's
place in the endless global order, never by device, host or row, so that a run on any mesh, or
resumed on another, draws the same.
"""

import jax
import optax

from rfxray import conditioning, flow, model, optim, telemetry


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
    known = batch["known"]
    if dropout:
        known = conditioning.drop(for_drop, known, config.dropout.all_null, config.dropout.each)
    x_t = flow.interpolate(x, noise, t)
    output = network(params, x_t, t, batch["attributes"], known)
    return flow.loss(flow.velocity(output, x_t, t, config.flow.prediction), x, noise), t


def train_step(config):
    """The function `(state, metrics, batch) → (state, metrics)`, to be jitted under a mesh.

    Args (of the function):
      state: as state.py.
      metrics: `telemetry.TrainMetrics`, accumulated on the device.
      batch: `image` [batch, size, size, channels] float32, `attributes` [batch, 19] float32,
        `known` [batch, 19] bool, `index` [batch] uint32.
    """
    shape = model.model_config(config)
    network = model.apply(shape, model.execution(config))
    transformation = optim.optimizer(config, model.abstract(shape)[2])

    def step(state, metrics, batch):
        keys = _example_keys(config.seed, 0, batch["index"])

        def objective(params):
            losses, t = _losses(config, network, params, batch, keys, dropout=True)
            return losses.mean(), (losses, t)

        (_, (losses, t)), gradient = jax.value_and_grad(objective, has_aux=True)(state["params"])
        updates, moments = transformation.update(gradient, state["optimizer"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        count = state["step"] + 1
        ema = {
            optim.ema_name(sigma): optim.ema_update(
                state["ema"][optim.ema_name(sigma)], params, count, sigma
            )
            for sigma in config.ema_sigmas
        }
        metrics = metrics.merge(
            telemetry.TrainMetrics.single_from_model_output(
                loss=losses.mean(),
                loss_by_t=(losses, t),
                grad_norm=optax.global_norm(gradient),
                update_norm=optax.global_norm(updates),
            )
        )
        return {"params": params, "optimizer": moments, "ema": ema, "step": count}, metrics

    return step


def validation_step(config):
    """The function `(params, batch) → mean loss`: no dropout, always the same t and noise."""
    network = model.apply(model.model_config(config), model.execution(config))

    def step(params, batch):
        keys = _example_keys(config.seed, 1, batch["index"])
        return _losses(config, network, params, batch, keys, dropout=False)[0].mean()

    return step
