"""What a config describes, built: networks, objective, optimizers, settings of the train step."""

import dataclasses
from collections.abc import Mapping

import clu.metrics
import jax
import ml_collections
import optax

from rfxray.config.load import override
from rfxray.config.schema import is_frozen
from rfxray.errors import ConfigError
from rfxray.networks import kinds as networks
from rfxray.networks.network import Network
from rfxray.objectives import kinds as objectives
from rfxray.objectives.objective import Loss, Objective, Parts, batch_shapes
from rfxray.perf import flops
from rfxray.training import optimizer
from rfxray.training.metrics import collection

BASE = "base"  # part of a network that `model` adapts


@dataclasses.dataclass(frozen=True, eq=False)
class Recipe:
    """Everything that the train step is made of.

    Attributes:
      networks: Network of every part, by its name; `model` comes first. What `model` adapts is the
        part `base`.
      objective: What is minimised.
      optimizers: Optimizer of every part that has a loss.
      learning_rate: Schedule of `model`, by optimizer step.
      metrics: Class of the accumulators that the train step updates.
      sigmas: Relative widths of the EMA profiles.
      seed: Seed of initialisation and of the draws for every example.
      batch_size: Examples of a step, over all devices.
      accumulate: Number of pieces of a batch that are computed one after another.
      skip_factor: Multiple of the usual gradient norm above which a step is skipped.
    """

    networks: Mapping[str, Network]
    objective: Objective
    optimizers: Mapping[str, optax.GradientTransformation]
    learning_rate: optax.Schedule
    metrics: type[clu.metrics.Collection]
    sigmas: tuple[float, ...]
    seed: int
    batch_size: int
    accumulate: int
    skip_factor: float

    @property
    def model(self) -> Network:
        """The network that is sampled from."""
        return self.networks["model"]

    @property
    def parameters(self) -> int:
        """Number of parameters of all parts."""
        return sum(network.parameters for network in self.networks.values())


def build(config: ml_collections.FrozenConfigDict) -> Recipe:
    """Builds what a checked config describes.

    Raises:
      ConfigError: If keys of a part contradict each other, or the parts are not those that the
        objective trains.
    """
    sections = {"model": config.model} | {name: part.model for name, part in config.parts.items()}
    built = {name: networks.build(section) for name, section in sections.items()}
    objective = objectives.build(config.objective, {name: n.apply for name, n in built.items()})
    if (base := built["model"].base) is not None:
        if BASE in built:
            raise ConfigError(
                f"parts.{BASE} is the name of what model.kind={config.model.kind} adapts; give the "
                "part another name"
            )
        built[BASE] = base
        objective = _adapted(objective, built["model"])
    if unknown := set(objective.losses) - set(built):
        raise ConfigError(
            f"objective.kind={config.objective.kind} trains the parts "
            f"{', '.join(objective.losses)}, but the config has no parts.{min(unknown)}"
        )
    frozen = {name for name, part in config.parts.items() if is_frozen(part)}
    if given := frozen & set(objective.losses):
        raise ConfigError(
            f"objective.kind={config.objective.kind} trains parts.{min(given)}, which must have an "
            "optimizer instead of weights; name it in parts=, not in frozen="
        )
    if idle := set(config.parts) - frozen - set(objective.losses):
        raise ConfigError(
            f"objective.kind={config.objective.kind} does not train parts.{min(idle)}, which must "
            "have weights instead of an optimizer; name it in frozen=, not in parts="
        )
    trained = {name: part.optim for name, part in config.parts.items() if name not in frozen}
    optims = {"model": config.optim} | trained
    return Recipe(
        networks=built,
        objective=objective,
        optimizers={
            name: optimizer.build(optims[name], config.steps, built[name].axes)
            for name in objective.losses
        },
        learning_rate=optimizer.schedule(config.optim, config.steps),
        metrics=collection(objective),
        sigmas=tuple(config.ema_sigmas),
        seed=config.seed,
        batch_size=config.batch_size,
        accumulate=config.accumulate,
        skip_factor=config.skip.factor,
    )


def _adapted(objective: Objective, network: Network) -> Objective:
    """The objective of a network that adapts another: it sees both as one network, `model`."""
    merge, show = network.merge, objective.show
    assert merge is not None

    def merged(params: Parts) -> Parts:
        return {**params, "model": merge(params[BASE], params["model"])}

    def of(loss: Loss) -> Loss:
        return lambda params, *rest: loss(merged(params), *rest)

    return dataclasses.replace(
        objective,
        losses={name: of(loss) for name, loss in objective.losses.items()},
        show=show and (lambda params, *rest: show(merged(params), *rest)),
    )


def model_flops(config: ml_collections.FrozenConfigDict) -> float:
    """Model FLOPs of one optimizer step over all devices, see perf/flops.py.

    Each loss counts a forward pass, and twice that for its backward pass. For several parts it is
    an upper bound, since a loss needs no gradient of the parts that it does not train.
    """
    if "attention" in config.model:  # kernels hide their matrix products
        config = override(config, {"model.attention": "xla"})
    recipe = build(config)
    params = {name: network.shapes for name, network in recipe.networks.items()}
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    example = batch_shapes(1, recipe.model.input_shape)

    def forward(loss: Loss) -> float:
        return flops.of_call(lambda p, batch, k: loss(p, batch, k, True), params, example, keys)

    return 3.0 * recipe.batch_size * sum(map(forward, recipe.objective.losses.values()))
