"""A trained network, ready to sample."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import ml_collections

from rfxray.attributes.vocabulary import Attributes
from rfxray.checkpoints import weights
from rfxray.config import load as configuration
from rfxray.errors import ConfigError
from rfxray.networks import radit
from rfxray.objectives import flow
from rfxray.runtime import sharding


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained network, ready to sample.

    Attributes:
      params: of one EMA profile, on the devices of `mesh`.
      config: of the run that trained it.
      mesh: over which a batch is split.
      source: where it came from: `checkpoint`, `step` and `ema`.
      weak: parameters of a lesser network of the same run, for autoguidance.
      velocity: `(params, x, t [n], attributes, known) → dx/dt` in place of the config's network.
    """

    params: dict
    config: ml_collections.ConfigDict
    mesh: jax.sharding.Mesh
    source: dict[str, object]
    weak: dict | None = None
    velocity: Callable | None = None


def load(
    workdir: str | Path,
    ema: float = 0.05,
    step: int | None = None,
    weak: tuple[float, int | None] | None = None,
) -> Model:
    """The network of a run as one of its EMA profiles has it.

    Args:
      workdir: of `rfxray.train`.
      ema: the relative width of the profile, one of the run's `ema_sigmas` or one that
        `rfxray.posthoc_ema` made.
      step: of the checkpoint; the newest when None.
      weak: (profile, step) of the network that autoguidance leads away from; its step is that of
        the network itself when None.

    Raises:
      ConfigError: for a profile or a step that is not there, or a weak network that is the same or
        of a later step.
      DataError: where there is no checkpoint, or it is damaged.
    """
    workdir = Path(workdir)
    config = configuration.from_json(weights.read_config(workdir))
    # A kernel named for training may not be one of this machine.
    config = configuration.override(config, {"attention": "auto"})
    mesh = sharding.make_mesh(-1, 1, 1)
    whole = sharding.replicated(mesh)
    shapes = radit.abstract(radit.model_config(config))[1]
    shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=whole), shapes)

    def restore(ema, step):
        return weights.restore_ema(workdir, shapes, weights.ema_name(ema), step)

    params, step = restore(ema, step)
    source = {"checkpoint": str(workdir), "step": step, "ema": ema}
    if weak is None:
        return Model(params, config, mesh, source)
    weak_ema, weak_step = weak[0], step if weak[1] is None else weak[1]
    if (weak_ema, weak_step) == (ema, step):
        raise ConfigError("autoguidance needs another network than the one it guides")
    if weak_step > step:
        raise ConfigError(f"autoguidance of step {step} by step {weak_step}, which is later")
    source["weak"] = {"step": weak_step, "ema": weak_ema}
    return Model(params, config, mesh, source, restore(weak_ema, weak_step)[0])


def velocity(config) -> Callable:
    """The network of a config as `(params, x, t [n], attributes, known) → dx/dt`, float32."""
    network = radit.apply(radit.model_config(config), radit.execution(config))

    def dx_dt(params, x, t, attributes, known):
        output = network(params, x, t, Attributes(attributes, known))
        return flow.velocity(output, x, t, config.flow.prediction)

    return dx_dt
