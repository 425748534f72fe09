"""Files of a DINOv2 network as Hugging Face publishes them: weights, config.json, processor."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from rfxray.checkpoints import tensor_files
from rfxray.errors import ConfigError, DataError
from rfxray.networks import vit
from rfxray.networks.vit import Vit

_WEIGHTS = "model.safetensors"
PROCESSOR = "preprocessor_config.json"


def read(path: Path) -> tuple[Vit, dict[str, np.ndarray]]:
    """A network and its weights.

    Args:
      path: Path of a folder with model.safetensors and config.json, or of a safetensors file of a
        published size, beside which a config.json is read if there is one.

    Raises:
      ConfigError: If the folder has no weights.
      DataError: If they are damaged or of another network.
    """
    file = path / _WEIGHTS if path.is_dir() else path
    if not file.exists():
        raise ConfigError(
            f"no {_WEIGHTS} in {path}; download the whole folder of the network from Hugging Face"
        )
    tensors = tensor_files.read(file)[0]
    config = file.with_name("config.json")
    try:
        network = vit.from_config(_json(config)) if config.exists() else vit.from_shapes(tensors)
        return network, vit.convert(network, tensors)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def processor(folder: Path, expected: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Means and deviations of a folder's processor, which must prepare images as expected.

    Args:
      folder: Folder of the network.
      expected: Keys of its preprocessor_config.json and what they must be.

    Raises:
      ConfigError: If there is no processor.
      DataError: If it prepares images in another way.
    """
    file = folder / PROCESSOR
    if not file.exists():
        raise ConfigError(
            f"no {PROCESSOR} in {folder}; it holds the mean and deviation that the network "
            "expects, so give the whole folder that is published"
        )
    values = _json(file)
    for key, wanted in expected.items():
        if values.get(key) != wanted:
            raise DataError(f"{file} must have {key}={wanted} (got {values.get(key)!r})")
    found: list[list[float]] = []
    for key in ("image_mean", "image_std"):
        numbers = values.get(key)
        if not (isinstance(numbers, list) and len(numbers) == 3 and _positive(numbers)):
            raise DataError(
                f"{file} must have three numbers as image_mean and as image_std, above 0"
            )
        found.append(numbers)
    return found[0], found[1]


def _json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as JSON ({error})") from None
    if not isinstance(values, dict):
        raise DataError(f"{file} must hold an object of JSON")
    return values


def _positive(numbers: list[Any]) -> bool:
    return all(isinstance(number, float) and number > 0 for number in numbers)
