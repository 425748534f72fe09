"""The extractors by name."""

import importlib
from pathlib import Path

from rfxray.command_line import at_home, refuse_address
from rfxray.errors import ConfigError
from rfxray.evaluate.extractors.extractor import Extractor

# A module has `open_weights(path or None) → Extractor`; it is imported when it is opened.
_MODULES = {
    "dinov2": "rfxray.evaluate.extractors.dinov2",
    "efficientnet_lite0": "rfxray.evaluate.extractors.efficientnet_lite0",
    "inception": "rfxray.evaluate.extractors.inception",
    "oracle": "rfxray.evaluate.extractors.oracle",
    "rad_dino": "rfxray.evaluate.extractors.rad_dino",
    "xrv": "rfxray.evaluate.extractors.xrv",
    "ssl": "rfxray.evaluate.extractors.ssl",
}

NAMES = tuple(_MODULES)


def open_extractor(spec: str) -> Extractor:
    """The extractor that a name stands for.

    Args:
      spec: `NAME`, or `NAME=WEIGHTS` with the file or folder of its weights.

    Raises:
      ConfigError: If there is no such extractor, or it needs weights that are not there.
      DataError: If the weights are damaged or of another network.
    """
    name, separator, path = spec.partition("=")
    if name not in _MODULES:
        raise ConfigError(f"no extractor {name!r}; there are {', '.join(NAMES)}")
    if separator and not path.strip():
        raise ConfigError(f"{spec!r} names no weights; give {name}=FILE, or {name} without =")
    weights = _existing(name, path) if separator else None
    return importlib.import_module(_MODULES[name]).open_weights(weights)


def _existing(name: str, path: str) -> Path:
    refuse_address(path)
    weights = at_home(path)
    if not weights.exists():
        raise ConfigError(
            f"no weights in {weights}; {name}=WEIGHTS takes the file or folder of the weights"
        )
    return weights
