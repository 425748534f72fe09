"""How far an image is from the training data: the flow loss at a fixed time, with a fixed noise.

A network explains an image like those it was trained on better than another one. The loss
mean (v̂(x_t) − (ε − x))² at t = 0.3, without attributes, is compared with that of held-out images:
the trainer logs their quantile into `metrics.jsonl` with each validation loss.

Of t = 0.1 to 0.9 the smallest loss of 919 radiographs (Hannover, NIH) under a model of phantoms of
`configs/smoke.py` was furthest above all 1,023 held-out phantoms at 0.3; at 0.9 half of them
overlapped. Another run of it logs a limit of 0.157 from the first 256 of the held-out phantoms: it
warns of 0.5% of the other 767 (at most 0.174), and of all 919 radiographs (at least 0.182).
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rfxray.attributes.vocabulary import NUM_ATTRIBUTES, Attributes
from rfxray.objectives import flow
from rfxray.objectives.objective import Parts
from rfxray.objectives.objective import Velocity as ParametricVelocity

TIME = 0.3
# Share of held-out images below the limit: 1 of 200 is warned of in vain. A higher one would be the
# maximum of the 256 images that a validation loss reads.
SHARE = 0.995
NAME = f"flow_loss/quantile_{SHARE}"

Losses = Callable[[Parts, Float[Array, "n height width channels"]], Float[Array, " n"]]


@functools.lru_cache(maxsize=8)
def losses(velocity: ParametricVelocity) -> Losses:
    """The function `(params, images [n, height, width, channels]) → losses [n]` of a network."""

    def of(params, images):
        n = len(images)
        noise = jax.random.normal(jax.random.key(0), images.shape[1:])
        noise = jnp.broadcast_to(noise, images.shape)
        times = jnp.full((n,), TIME)
        unknown = Attributes(jnp.zeros((n, NUM_ATTRIBUTES)), jnp.zeros((n, NUM_ATTRIBUTES), bool))
        found = velocity(params, flow.interpolate(images, noise, times), times, unknown)
        return jnp.square(found - (noise - images)).mean((1, 2, 3))

    return of


def limit(workdir: Path, step: int) -> float | None:
    """The quantile that a run logged last, up to a step; None if it logged none."""
    found = None
    try:
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if NAME not in line:
            continue
        try:
            row = json.loads(line)
        except ValueError:  # torn by a kill
            continue
        if row["step"] <= step:
            found = float(row[NAME])
    return found
