"""The flow loss of single images at fixed times and with fixed noise, for membership inference."""

from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from rfxray.attributes.vocabulary import Attributes
from rfxray.errors import NonFiniteError
from rfxray.objectives import flow
from rfxray.sampling.pretrained import Model

TIMES = (0.1, 0.2, 0.3, 0.5, 0.7)
_BATCH = 32  # images


def flow_losses(
    model: Model,
    images: Iterable[Float[np.ndarray, "size size"]],
    attributes: Attributes,
    times: Sequence[float] = TIMES,
    seed: int = 0,
    done: Callable[[int], None] | None = None,
) -> Float[np.ndarray, " n"]:
    """Mean of (v̂(x_t) − (ε − x))² over times; every image gets the same noise at a time.

    Args:
      model: Network that was trained.
      images: Images in [-1, 1], [size, size] float32 each, read one after the other.
      attributes: Known attributes of each, [n, 19].
      times: Times in (0, 1).
      seed: Seed of the noise.
      done: Function that is called with the number of images after each batch.

    Returns:
      [n] float32.

    Raises:
      NonFiniteError: If a loss is not finite.
    """
    keys = jax.random.split(jax.random.key(seed), len(times))
    noise = jnp.stack([jax.random.normal(key, model.shape) for key in keys])

    @jax.jit
    def losses(params, x, rows):
        def at(pair):
            time, e = pair
            wide = jnp.broadcast_to(e, x.shape)
            t = jnp.full(len(x), time)
            found = model.velocity(params, flow.interpolate(x, wide, t), t, rows)
            return flow.loss(found, x, wide)

        return jax.lax.map(at, (jnp.asarray(times, jnp.float32), noise)).mean(0)

    found, batch, start = [], [], 0
    n = len(attributes.values)

    def run() -> None:
        nonlocal batch, start
        count = len(batch)
        rows = np.minimum(np.arange(start, start + _BATCH), n - 1)
        padded = np.stack([*batch, *[batch[-1]] * (_BATCH - count)])
        values = losses(model.params, model.cells(padded), attributes.rows(rows))
        found.append(np.asarray(values)[:count])
        batch, start = [], start + count
        if done is not None:
            done(count)

    for image in images:
        batch.append(image)
        if len(batch) == _BATCH:
            run()
    if batch:
        run()
    whole = np.concatenate(found)
    if wrong := int((~np.isfinite(whole)).sum()):
        raise NonFiniteError(
            f"the model's loss of {wrong} of {n} images is not finite; give another --step of "
            "--checkpoint"
        )
    return whole
