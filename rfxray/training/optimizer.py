"""The optimizer, its schedules, and power-function averages of the parameters."""

import jax
import jax.numpy as jnp
import optax


def schedule(config) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then constant, cosine to 0, or warm-up-stable-decay.

    wsd stays at its peak until the last `optim.decay` steps and falls along 1 − √(progress)
    (Hägele et al. 2024, arXiv 2405.18392), so that a run can be lengthened until the decay begins.
    """
    o, steps = config.optim, config.steps
    if o.schedule == "cosine":
        body = optax.cosine_decay_schedule(o.learning_rate, steps - o.warmup)
    elif o.schedule == "wsd":
        begin = steps - o.warmup - o.decay

        def body(step):
            progress = jnp.clip((step - begin) / o.decay, 0.0, 1.0)
            return o.learning_rate * (1.0 - jnp.sqrt(progress))

    else:
        body = optax.constant_schedule(o.learning_rate)
    # From 1/warmup, not 0: the first step should move.
    warmup = optax.linear_schedule(o.learning_rate / max(1, o.warmup), o.learning_rate, o.warmup)
    return optax.join_schedules([warmup, body], [o.warmup]) if o.warmup else body


def optimizer(config, axes: dict) -> optax.GradientTransformation:
    """AdamW under a clipped global gradient norm (arXiv 1711.05101).

    Args:
      config: a run's config.
      axes: a tree like the parameters; weight decay leaves those named `…scale` and `…bias` alone.
    """
    o = config.optim
    matrices = jax.tree_util.tree_map_with_path(
        lambda path, _: not path[-1].key.endswith(("scale", "bias")),
        axes,
        is_leaf=lambda leaf: isinstance(leaf, tuple),
    )
    return optax.chain(
        optax.clip_by_global_norm(o.clip),
        optax.adamw(
            schedule(config), o.b1, o.b2, o.eps, weight_decay=o.weight_decay, mask=matrices
        ),
    )
