"""Networks that an objective reads and nothing trains: their weights, from where a config says.

A network is named as an extractor of `rfxray evaluate` is, so that the hash of its weights is the
one printed there, and figures under it are marked as circular for a model that it trained.
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
from rfxray.evaluate.extractors import kinds as extractors
from rfxray.evaluate.extractors import published_vit
from rfxray.networks import grey_vit
from rfxray.networks import kinds as networks

# Kind of the network that each name is the weights of.
_KINDS = {"ssl": "masked_vit", "dinov2": "grey_vit", "rad_dino": "grey_vit"}


@dataclasses.dataclass(frozen=True)
class Weights:
    """Given weights of a part.

    Attributes:
      params: Parameters, on the host.
      hash: SHA-256 of them by content, hex, as the extractor of the same name has it.
    """

    params: Params
    hash: str


def open_weights(config: ml_collections.FrozenConfigDict) -> dict[str, Weights]:
    """The weights of every part of a config that is not trained, by name.

    Raises:
      ConfigError: If a part has no weights, or they are of another network than the config says.
      DataError: If they are damaged.
    """
    return {name: _open(name, part) for name, part in config.parts.items() if is_frozen(part)}


def _open(name: str, part: ml_collections.FrozenConfigDict) -> Weights:
    key = f"parts.{name}"
    of, separator, path = part.weights.partition("=")
    names = [each for each, kind in _KINDS.items() if kind == part.model.kind]
    if not separator or of not in names:
        raise ConfigError(
            f"{key}.weights must be {' or '.join(f'{each}=FOLDER' for each in names)}, the weights "
            f"of a {part.model.kind} (got {part.weights!r})"
        )
    extractor = extractors.open_extractor(part.weights)
    folder = at_home(path)
    if of == "ssl":
        _agree(key, part.model, exported.read(folder)[0]["model"], folder)
        return Weights(_exported(part.model, folder), extractor.hash)
    network, params = published_vit.read(folder)
    prepared = extractor.preprocessing
    theirs = dataclasses.asdict(network)
    theirs |= {"mean": _short(prepared.mean), "std": _short(prepared.std)}
    _agree(key, part.model, theirs, folder)
    if grey_vit.trunk(part.model) != network:
        raise ConfigError(f"{folder} holds {network}, and a grey_vit has no registers and no gates")
    return Weights(params, extractor.hash)


def _agree(
    key: str, section: ml_collections.FrozenConfigDict, theirs: Mapping[str, object], folder: Path
) -> None:
    """Raises a ConfigError if a key of the section has another value in the folder."""
    for name, value in section.items():
        if name in theirs and theirs[name] != value:
            raise ConfigError(
                f"{key}.model.{name}={value}, but the network in {folder} has {theirs[name]}; set "
                f"--config.{key}.model.{name}={theirs[name]}"
            )


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
