"""A trained network, ready to sample."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import ml_collections

from rfxray.checkpoints import weights
from rfxray.config import load as configuration
from rfxray.errors import ConfigError
from rfxray.networks import radit
from rfxray.objectives import flow
from rfxray.runtime import sharding
from rfxray.sampling.guidance import ParametricVelocity, Params


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained network, ready to sample.

    Attributes:
      params: Parameters of one EMA profile, on the devices of `mesh`.
      velocity: `(params, x, t [n], attributes [n, 19]) → dx/dt`, shaped like x. Compiled programs
        are cached by this function: equal configs have the same one.
      shape: Height, width and channels of one example.
      mesh: Devices over which a batch is split.
      source: Where the parameters come from: `checkpoint`, `step` and `ema`, and `weak`, if any.
      weak: Parameters of a lesser network of the same run, for autoguidance.
    """

    params: Params
    velocity: ParametricVelocity
    shape: tuple[int, int, int]
    mesh: jax.sharding.Mesh
    source: Mapping[str, object]
    weak: Params | None = None

    @property
    def size(self) -> int:
        """Side of the square images, pixels."""
        return self.shape[0]


def load(
    workdir: str | Path,
    ema: float = 0.05,
    step: int | None = None,
    weak: tuple[float, int | None] | None = None,
    allow_kinds: Sequence[str] = (),
) -> Model:
    """The network of a run, with the weights of one of its EMA profiles.

    Args:
      workdir: Workdir of `rfxray.train`.
      ema: Relative width of the profile, one of the run's `ema_sigmas` or one that
        `rfxray.posthoc_ema` made.
      step: Step of the checkpoint; the newest when None.
      weak: (Profile, step) of the network that autoguidance leads away from; its step is that of
        the network itself when None.
      allow_kinds: Kinds `package.module:name` outside of rfxray that the run's config may name.
        Their code is run; without this a config that names one is refused.

    Raises:
      ConfigError: for an unknown profile or step, or a weak network that is the same one or of a
        later step.
      DataError: if there is no checkpoint, or it is damaged.
    """
    workdir = Path(workdir)
    config = configuration.from_json(weights.read_config(workdir))
    # The attention kernel that a run was trained with may not exist on this machine.
    config = configuration.override(config, {"attention": "auto"})
    mesh = sharding.make_mesh(-1, 1, 1)
    whole = sharding.replicated(mesh)
    shapes = radit.abstract(radit.model_config(config))[1]
    shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=whole), shapes)

    def restore(ema, step):
        return weights.restore_ema(workdir, shapes, weights.ema_name(ema), step)

    params, step = restore(ema, step)
    source = {"checkpoint": str(workdir), "step": step, "ema": ema}
    lesser = None
    if weak is not None:
        weak_ema, weak_step = weak[0], step if weak[1] is None else weak[1]
        if (weak_ema, weak_step) == (ema, step):
            raise ConfigError("autoguidance needs another network than the one it guides")
        if weak_step > step:
            raise ConfigError(f"autoguidance of step {step} by step {weak_step}, which is later")
        source["weak"] = {"step": weak_step, "ema": weak_ema}
        lesser, _ = restore(weak_ema, weak_step)
    return Model(params, velocity(config), shape(config), mesh, source, lesser)


def shape(config: ml_collections.FrozenConfigDict) -> tuple[int, int, int]:
    """Height, width and channels of one example of a config."""
    return config.model.size, config.model.size, config.model.channels


@functools.lru_cache(maxsize=8)
def velocity(config: ml_collections.FrozenConfigDict) -> ParametricVelocity:
    """The network of a config as `(params, x, t [n], attributes [n, 19]) → dx/dt`, float32."""
    network = radit.apply(radit.model_config(config), radit.execution(config))

    def dx_dt(params, x, t, attributes):
        return flow.velocity(network(params, x, t, attributes), x, t, config.flow.prediction)

    return dx_dt
