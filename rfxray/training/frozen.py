"""Networks that a run reads and nothing trains: their weights, from where a config says.

A part of the objective is named as an extractor of `rfxray evaluate` is, so that the hash of its
weights is the one printed there, and figures under it are marked as circular for a model that it
trained. What `model` adapts is an export of an autoencoder, with the hash that names it elsewhere.

Checkpoints do not hold these weights: a run that resumes reads them again, and another hash is
another run.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import jax
import ml_collections

from rfxray.arrays import Params
from rfxray.checkpoints import exported, safetensors
from rfxray.command_line import at_home
from rfxray.config.schema import is_frozen
from rfxray.errors import ConfigError
from rfxray.evaluate.extractors import converted, published_vit
from rfxray.evaluate.extractors import kinds as extractors
from rfxray.networks import grey_vit
from rfxray.networks import kinds as networks
from rfxray.networks.convnets import efficientnet
from rfxray.sampling.autoencoder import open_autoencoder
from rfxray.training.recipe import BASE

# Kind of the network that each name is the weights of.
_KINDS = {
    "ssl": "masked_vit",
    "dinov2": "grey_vit",
    "rad_dino": "grey_vit",
    "efficientnet_lite0": "grey_efficientnet",
}


@dataclasses.dataclass(frozen=True)
class Weights:
    """Given weights of a part.

    Attributes:
      params: Parameters, on the host.
      hash: SHA-256 of them by content, hex, as the extractor of the same name has it.
      key: Key of the config that says where they are.
    """

    params: Params
    hash: str
    key: str


def open_weights(config: ml_collections.FrozenConfigDict) -> dict[str, Weights]:
    """The weights of every part of a recipe that is not trained, by name.

    Raises:
      ConfigError: If a part has no weights, or they are of another network than the config says.
      DataError: If they are damaged.
    """
    given = {name: _open(name, part) for name, part in config.parts.items() if is_frozen(part)}
    if networks.build(config.model).base is not None:
        given[BASE] = _open_base(config.model)
    return given


def _open_base(section: ml_collections.FrozenConfigDict) -> Weights:
    if not section.base:
        raise ConfigError(
            "model.base must be the folder of the autoencoder that is adapted (got ''); make one "
            "with rfxray export --weights FILE --licence TEXT --out DIR"
        )
    folder = at_home(section.base)
    found = open_autoencoder(folder)
    theirs = exported.read(folder)[0]["model"]
    # Any network computes images of any size, in any precision.
    shape = {k: v for k, v in theirs.items() if k not in ("kind", "size", "dtype", "remat")}
    _agree("model", section, shape, folder)
    return Weights(jax.device_get(found.params), found.weights, "model.base")


def require_base(folder: Path, given: Weights) -> None:
    """Refuses a copy of what is adapted that has other weights than those given.

    Raises:
      ConfigError: If it has.
      DataError: If it is damaged.
    """
    if (found := open_autoencoder(folder).weights) != given.hash:
        raise ConfigError(
            f"{folder} is another autoencoder ({found[:12]}) than {given.key} ({given.hash[:12]}), "
            "which this run adapts; remove the folder, and start again"
        )


def _open(name: str, part: ml_collections.FrozenConfigDict) -> Weights:
    key = f"parts.{name}.model"
    where = f"parts.{name}.weights"
    of, separator, path = part.weights.partition("=")
    names = [each for each, kind in _KINDS.items() if kind == part.model.kind]
    if not separator or of not in names:
        where_of = "FILE" if "efficientnet_lite0" in names else "FOLDER"
        raise ConfigError(
            f"{where} must be {' or '.join(f'{each}={where_of}' for each in names)}, the weights "
            f"of a {part.model.kind} (got {part.weights!r})"
        )
    extractor = extractors.open_extractor(part.weights)
    folder = at_home(path)
    if of != "ssl" and not part.licence:
        raise ConfigError(
            f"parts.{name}.licence must name the licence of the weights of {of}, such as MIT, as "
            "the LICENSE or the card beside your copy says (got '')"
        )
    if of == "ssl":
        _agree(key, part.model, exported.read(folder)[0]["model"], folder)
        return Weights(_exported(part.model, folder), extractor.hash, where)
    if of == "efficientnet_lite0":
        params = efficientnet.from_torch(converted.tensors_of(folder, of))
        return Weights(params, extractor.hash, where)
    network, params = published_vit.read(folder)
    prepared = extractor.preprocessing
    theirs = dataclasses.asdict(network)
    theirs |= {"mean": _short(prepared.mean), "std": _short(prepared.std)}
    _agree(key, part.model, theirs, folder)
    if grey_vit.trunk(part.model) != network:
        raise ConfigError(f"{folder} holds {network}, and a grey_vit has no registers and no gates")
    return Weights(params, extractor.hash, where)


def _agree(
    key: str, section: ml_collections.FrozenConfigDict, theirs: Mapping[str, object], folder: Path
) -> None:
    """Raises a ConfigError if a key of the section has another value in the folder."""
    for name, value in section.items():
        if name not in theirs:
            continue
        there = theirs[name]
        there = tuple(there) if isinstance(there, list) else there
        if there != value:
            raise ConfigError(
                f"{key}.{name}={_text(value)}, but the network in {folder} has {_text(there)}; set "
                f"--config.{key}.{name}={_text(there)}"
            )


def _text(value: object) -> str:
    """A value as a flag has it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _short(values: tuple[float, ...]) -> tuple[float, ...]:
    """One entry for channels that are all alike."""
    return values[:1] if len(set(values)) == 1 else values


def _exported(section: ml_collections.FrozenConfigDict, folder: Path) -> Params:
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place),
        networks.build(section).shapes,
    )
    return jax.device_get(safetensors.restore(folder / exported.MODEL, {"model": shapes})["model"])
