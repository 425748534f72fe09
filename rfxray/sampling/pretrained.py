"""A trained network, ready to sample."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Float, PyTree

from rfxray.arrays import AnyArray
from rfxray.checkpoints import exported, safetensors, weights
from rfxray.config import load as configuration
from rfxray.data.latents import Latents
from rfxray.errors import ConfigError, DataError
from rfxray.networks import kinds as networks
from rfxray.objectives import kinds as objectives
from rfxray.objectives.objective import Objective, Parts
from rfxray.objectives.objective import Velocity as ParametricVelocity
from rfxray.runtime import sharding
from rfxray.sampling import distance
from rfxray.sampling.autoencoder import LatentSpace, open_space
from rfxray.sampling.given import Asked, rows_of
from rfxray.sampling.network_identity import identity
from rfxray.sampling.solvers import Velocity

# A model that comes with the package, for a first look: an export that has seen only procedural
# phantoms, made by `python -m benchmarks.packaged`.
PACKAGED = Path(__file__).with_name("packaged")
PACKAGED_NAME = "the phantom model of rfxray"  # in records, instead of a path

EMA = 0.05  # profile of a run that is taken unless another one is named


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained network, ready to sample.

    Attributes:
      params: Parameters of one EMA profile, on the devices of `mesh`.
      velocity: `(params, x, t [n], attributes [n, 19]) → dx/dt`, shaped like x. Compiled programs
        are cached by this function: equal configs have the same one.
      shape: Height, width and channels of one example.
      mesh: Devices of this process, over which a batch is split.
      source: Origin of the parameters: `checkpoint`, `step` and `ema`, `weights`, which
        identifies the network by content (see `identity`), and `weak`, if any.
      weak: Parameters of a lesser network of the same run, for autoguidance.
      flow_loss_limit: Flow loss above which an image is unlike the training data, see `distance`;
        None if the run did not measure it.
      space: Latent space of a model of latents; None for a model of pixels.
    """

    params: Parts
    velocity: ParametricVelocity
    shape: tuple[int, int, int]
    mesh: jax.sharding.Mesh
    source: Mapping[str, object]
    weak: Parts | None = None
    flow_loss_limit: float | None = None
    space: LatentSpace | None = None

    @property
    def size(self) -> int:
        """Side of the square images, pixels."""
        return self.space.latents.size if self.space else self.shape[0]

    def cells(self, images: Float[np.ndarray, "n size size"]) -> Float[np.ndarray, " n *shape"]:
        """What the network sees of images in [-1, 1], float32."""
        if self.space:
            return np.asarray(self.space.cells(images))
        return np.asarray(images, np.float32)[..., None]

    def flow_losses(self, images: Float[np.ndarray, "n size size"]) -> Float[np.ndarray, " n"]:
        """How far images in [-1, 1] are from the training data; see `distance`."""
        losses = jax.jit(distance.losses(self.velocity))
        return np.asarray(losses(self.params, self.cells(images)))

    def images(self, x: Float[AnyArray, " n *shape"]) -> Float[jax.Array, "n size size 1"]:
        """The images of what the network sees, about [-1, 1], not clipped, still on the devices."""
        return self.space.images(x) if self.space else jnp.asarray(x)

    def __repr__(self) -> str:
        count = sum(np.size(leaf) for leaf in jax.tree.leaves(self.params))
        height = width = self.size
        made = ", ".join(f"{name} {value}" for name, value in self.source.items())
        return f"Model({height} × {width}, {count:,} parameters, {made})"

    def under(self, attributes: Asked) -> Velocity:
        """The velocity under attributes, without guidance, as (x [n, h, w, 1], t scalar) → dx/dt.

        Args:
          attributes: Mapping for every image, a list of one for each, or rows [n, 19].
        """

        def velocity(x, t):
            rows = rows_of(attributes, len(x))
            return self.velocity(self.params, x, jnp.full(len(x), t), rows)

        return velocity


def load(
    workdir: str | Path | None = None,
    ema: float | None = None,
    step: int | None = None,
    weak: tuple[float, int | None] | None = None,
    allow_kinds: Sequence[str] = (),
    vae: Path | None = None,
) -> Model:
    """The network of a run, with the weights of one of its EMA profiles, or that of an export.

    Args:
      workdir: Workdir of `rfxray.train`, or folder of `rfxray export`; None for the phantom model
        that comes with the package.
      ema: Relative width of the profile, one of the run's `ema_sigmas` or one that
        `rfxray.posthoc_ema` made; 0.05, or that of the export, when None.
      step: Step of the checkpoint; the newest, or that of the export, when None.
      weak: (Profile, step) of the network that autoguidance leads away from; its step is that of
        the network itself when None.
      allow_kinds: Kinds `package.module:name` outside of rfxray that the run's config may name.
        Their code is run; without this a config that names one is refused.
      vae: Folder of the export of the autoencoder of a model of latents; its own copy when None.

    Raises:
      ConfigError: For an unknown profile or step, a weak network that is the same one or of a
        later step, a profile, step or weak network that an export does not hold, or another
        autoencoder than that of the latents.
      DataError: If there is no checkpoint, or it is damaged.
    """
    if workdir is None:
        model = _of_export(PACKAGED, ema, step, weak, allow_kinds, vae)
        return dataclasses.replace(model, source={**model.source, "checkpoint": PACKAGED_NAME})
    workdir = Path(workdir)
    if exported.is_export(workdir):
        return _of_export(workdir, ema, step, weak, allow_kinds, vae)
    tree = weights.read_config(workdir)
    config = configuration.from_json(tree, allow_kinds)
    space = _space(workdir, tree, vae, shape(config))
    latents = _decoded(tree, space)
    mesh, shapes = _places(config)

    def restore(ema, step):
        name = weights.exact_ema_name(ema)
        found = weights.restore_ema(workdir, shapes, name, step)
        which = identity(config, found.digest, latents=latents)
        about = {"step": found.step, "ema": float(name), "weights": which}
        return found.params, found.step, about

    ema = EMA if ema is None else ema
    params, step, about = restore(ema, step)
    source: dict[str, object] = {"checkpoint": str(workdir), **about}
    lesser = None
    if weak is not None:
        weak_ema, weak_step = weak[0], step if weak[1] is None else weak[1]
        if (weak_ema, weak_step) == (ema, step):
            raise ConfigError("autoguidance needs another network than the one it guides")
        if weak_step > step:
            raise ConfigError(f"autoguidance of step {step} by step {weak_step}, which is later")
        lesser, _, source["weak"] = restore(weak_ema, weak_step)
    limit = distance.limit(workdir, step)
    return Model(params, _sampled(config), shape(config), mesh, source, lesser, limit, space)


def _space(
    folder: Path, tree: Mapping, vae: Path | None, example: tuple[int, int, int]
) -> LatentSpace | None:
    """The latent space of a run or an export, from its `config.json`; `example` is the shape that
    its network takes."""
    if configuration.LATENTS not in tree:
        if vae is not None:
            raise ConfigError(
                f"{folder} is not a model of latents and reads no --vae; leave it out"
            )
        if example[-1] != 1:
            raise DataError(
                f"{folder / 'config.json'} does not say its latents, and its network draws "
                f"{_cells(example)}; copy it again"
            )
        return None
    try:
        latents = Latents.of_entry(tree[configuration.LATENTS])
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(f"{folder / 'config.json'} does not say its latents: {error!r}") from error
    if latents.shape != example:
        raise DataError(
            f"{folder / 'config.json'} says latents of {_cells(latents.shape)} and a network of "
            f"{_cells(example)}; copy it again"
        )
    own = folder / exported.VAE
    if vae is None and not own.exists():
        raise DataError(
            f"{folder} is a model of latents and has no folder {exported.VAE}; give the export of "
            f"the autoencoder {latents.vae[:12]} by --vae"
        )
    return open_space(vae or own, latents)


def _cells(shape: tuple[int, int, int]) -> str:
    return " × ".join(map(str, shape))


def _decoded(tree: Mapping, space: LatentSpace | None) -> Mapping[str, object] | None:
    """What a run records of its latents, with the autoencoder that decodes them here."""
    return tree[configuration.LATENTS] | {"vae": space.vae.weights} if space else None


def _of_export(
    folder: Path,
    ema: float | None,
    step: int | None,
    weak: tuple[float, int | None] | None,
    allow_kinds: Sequence[str],
    vae: Path | None,
) -> Model:
    """The network of an export, which holds one profile of one step."""
    tree, facts = exported.read(folder)
    held = f"{folder} is an export of step {facts.step} and EMA {facts.ema:g}, and holds no"
    if step not in (None, facts.step):
        raise ConfigError(f"{held} step {step}; leave --step out, or give the run as --checkpoint")
    if ema is not None and float(weights.exact_ema_name(ema)) != facts.ema:
        raise ConfigError(f"{held} EMA {ema:g}; leave --ema out, or give the run as --checkpoint")
    if weak is not None:
        raise ConfigError(
            f"{held} second network; leave --autoguide out, or give the run as --checkpoint"
        )
    config = configuration.from_json(tree, allow_kinds)
    mesh, shapes = _places(config)
    params = safetensors.restore(folder / exported.MODEL, shapes)
    space = _space(folder, tree, vae, shape(config))
    source = {
        "checkpoint": str(folder),
        "step": facts.step,
        "ema": facts.ema,
        "weights": identity(config, weights.digest_of(params), latents=_decoded(tree, space)),
    }
    return Model(
        params,
        _sampled(config),
        shape(config),
        mesh,
        source,
        flow_loss_limit=facts.flow_loss_limit,
        space=space,
    )


def _places(
    config: ml_collections.FrozenConfigDict,
) -> tuple[jax.sharding.Mesh, Mapping[str, PyTree[jax.ShapeDtypeStruct]]]:
    """The devices of this process, and the averaged parts of a config, whole on each of them."""
    mesh = sharding.make_mesh(-1, 1, 1, jax.local_devices())
    whole = sharding.replicated(mesh)
    shapes = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=whole), averaged(config)
    )
    return mesh, shapes


def _sampled(config: ml_collections.FrozenConfigDict) -> ParametricVelocity:
    """The velocity with an attention kernel that this machine has."""
    if "attention" in config.model:
        config = configuration.override(config, {"model.attention": "auto"})
    return velocity(config)


def shape(config: ml_collections.FrozenConfigDict) -> tuple[int, int, int]:
    """Height, width and channels of one example of a config."""
    return networks.build(config.model).input_shape


def averaged(config: ml_collections.FrozenConfigDict) -> Mapping[str, PyTree[jax.ShapeDtypeStruct]]:
    """The parts that an EMA profile of a config holds, as `jax.ShapeDtypeStruct`, by name."""
    sections = _sections(config)
    return {name: networks.build(sections[name]).shapes for name in _objective(config).averaged}


def is_sampled(config: ml_collections.FrozenConfigDict) -> bool:
    """Whether the objective of a config learns a velocity."""
    return _objective(config).velocity is not None


@functools.lru_cache(maxsize=8)
def velocity(config: ml_collections.FrozenConfigDict) -> ParametricVelocity:
    """The velocity of a config as `(params, x, t [n], attributes [n, 19]) → dx/dt`, float32; the
    params are those of the averaged parts, by name.

    Raises:
      ConfigError: If its objective learns none.
    """
    found = _objective(config).velocity
    if found is None:
        raise ConfigError(
            f"objective.kind={config.objective.kind} learns no velocity, so there is nothing to "
            "sample from by an ODE"
        )
    return found


def _sections(config: ml_collections.FrozenConfigDict) -> dict[str, ml_collections.ConfigDict]:
    return {"model": config.model} | {name: part.model for name, part in config.parts.items()}


def _objective(config: ml_collections.FrozenConfigDict) -> Objective:
    applies = {name: networks.build(part).apply for name, part in _sections(config).items()}
    return objectives.build(config.objective, applies)
