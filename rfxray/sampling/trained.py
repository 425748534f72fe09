"""A trained network, ready to sample."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import ml_collections

from rfxray import checkpoint, flow, model, optim, partition
from rfxray import config as configuration
from rfxray.errors import ConfigError


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
      ema: the relative width of the profile, one of the run's `ema_sigmas`.
      step: of the checkpoint; the newest when None.
      weak: (profile, step) of the network that autoguidance leads away from.

    Raises:
      ConfigError: for a profile or a step that is not there, or a weak network that is the same.
      DataError: where there is no checkpoint, or it is damaged.
    """
    workdir = Path(workdir)
    tree = ml_collections.ConfigDict(checkpoint.read_config(workdir), convert_dict=True)
    config = configuration.base_config()  # what a run did not know of yet has its default
    with config.unlocked(), config.ignore_type():
        config.update(configuration.with_tuples(tree))
        config.attention = "auto"  # a kernel named for training may not be one of this machine
    config = configuration.check(config)
    mesh = partition.make_mesh(-1, 1, 1)
    whole = partition.replicated(mesh)
    shapes = model.abstract(model.model_config(config))[1]
    shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=whole), shapes)

    def restore(ema, step):
        return checkpoint.restore_ema(workdir, shapes, optim.ema_name(ema), step)

    params, step = restore(ema, step)
    source = {"checkpoint": str(workdir), "step": step, "ema": ema}
    if weak is None:
        return Model(params, config, mesh, source)
    weak_params, weak_step = restore(*weak)
    if (weak[0], weak_step) == (ema, step):
        raise ConfigError("autoguidance needs another network than the one it guides")
    source["weak"] = {"step": weak_step, "ema": weak[0]}
    return Model(params, config, mesh, source, weak_params)


def velocity(config) -> Callable:
    """The network of a config as `(params, x, t [n], attributes, known) → dx/dt`, float32."""
    network = model.apply(model.model_config(config), model.execution(config))

    def dx_dt(params, x, t, attributes, known):
        output = network(params, x, t, attributes, known)
        return flow.velocity(output, x, t, config.flow.prediction)

    return dx_dt
