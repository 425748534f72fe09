"""The optimizer and its learning rate."""

import jax
import jax.numpy as jnp
import ml_collections
import optax

from rfxray.errors import ConfigError


def schedule(optim: ml_collections.ConfigDict, steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then constant, cosine to 0, or warmup-stable-decay.

    wsd stays at its peak until the last `decay` steps and falls along 1 − √(progress)
    (Hägele et al. 2024, arXiv 2405.18392), so a run can be extended until the decay begins.

    Args:
      optim: Section of the config.
      steps: Steps of the whole run.

    Raises:
      ConfigError: If warm-up or decay do not fit into the run.
    """
    peak, warmup, decay = optim.learning_rate, optim.warmup, optim.decay
    if optim.schedule == "cosine":
        if warmup >= steps:
            raise ConfigError(
                f"optim.warmup must be below steps={steps} to leave the cosine a step "
                f"(got {warmup})"
            )
        body: optax.Schedule = optax.cosine_decay_schedule(peak, steps - warmup)
    elif optim.schedule == "wsd":
        if not 0 < decay <= steps - warmup:
            raise ConfigError(
                f"optim.schedule=wsd needs optim.decay from 1 to steps={steps} minus "
                f"optim.warmup={warmup} (got {decay})"
            )
        begin = steps - warmup - decay

        def fall(step):
            progress = jnp.clip((step - begin) / decay, 0.0, 1.0)
            return peak * (1.0 - jnp.sqrt(progress))

        body = fall

    else:
        body = optax.constant_schedule(peak)
    if not warmup:
        return body
    # Starts at 1/warmup instead of 0, so that the first step has an effect.
    rise = optax.linear_schedule(peak / warmup, peak, warmup)
    return optax.join_schedules([rise, body], [warmup])


def build(
    optim: ml_collections.ConfigDict, steps: int, axes: optax.Params
) -> optax.GradientTransformation:
    """AdamW (arXiv 1711.05101) on gradients clipped by their global norm.

    Args:
      optim: Section of the config.
      steps: Steps of the whole run.
      axes: Tree like the parameters with the names of their dimensions; weight decay skips those
        with one dimension or named `…scale` and `…bias`.

    Raises:
      ConfigError: As in `schedule`, or if b1 or b2 is not below 1.
    """
    if optim.b1 >= 1 or optim.b2 >= 1:
        raise ConfigError(f"optim.b1 and optim.b2 must be below 1 (got {optim.b1} and {optim.b2})")
    matrices = jax.tree_util.tree_map_with_path(
        lambda path, names: len(names) > 1 and not path[-1].key.endswith(("scale", "bias")),
        axes,
        is_leaf=lambda leaf: isinstance(leaf, tuple),
    )
    return optax.chain(
        optax.clip_by_global_norm(optim.clip),
        optax.adamw(
            schedule(optim, steps),
            optim.b1,
            optim.b2,
            optim.eps,
            weight_decay=optim.weight_decay,
            mask=matrices,
        ),
    )
