"""Weights that a torch file holds, converted once into the cache of the user.

A cached file carries the hash of its tensors, which is checked each time that it is opened; a
damaged one is converted again. Two processes may convert at the same time: both write the same
bytes, each under a name of its own, and the last to finish replaces the other's.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rfxray.checkpoints import tensor_files, torch_files
from rfxray.errors import DataError, RfxrayError, refused_by_system
from rfxray.evaluate.extractors.extractor import weights_hash
from rfxray.outputs import cache
from rfxray.outputs.files import file_sha256, write_whole

_HASH = "weights_sha256"


def tensors_of(source: Path, network: str) -> Mapping[str, np.ndarray]:
    """The tensors of a state dict by name.

    Args:
      source: Path of a file that `torch.save` wrote, or of safetensors, which need no conversion.
      network: Name of the network, which the cached file begins with.

    Raises:
      DataError: If it is not such a file, or is damaged.
    """
    if source.suffix == ".safetensors":
        return tensor_files.read(source)[0]
    try:
        digest = file_sha256(source)
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror or error}") from None
    try:
        cached = cache.folder("weights") / f"{network}-{digest[:16]}.safetensors"
    except RfxrayError as error:
        _say(f"the weights of {network} are not cached: {error}")
        return torch_files.read(source).tensors
    if cached.exists():
        try:
            return _checked(cached)
        except DataError as error:
            _say(f"{error}; it is converted again")
    found = torch_files.read(source).tensors
    try:
        write_whole(cached, tensor_files.encode(found, (_HASH, weights_hash(found))))
    except OSError as error:  # the cache only saves time
        why = refused_by_system(error) or error
        _say(f"the weights of {network} are not cached: {why}")
    return found


def _checked(cached: Path) -> Mapping[str, np.ndarray]:
    arrays, text = tensor_files.read(cached)
    if text.get(_HASH) != weights_hash(arrays):
        raise DataError(f"{cached} is damaged (its tensors are not those that were written)")
    return arrays


def _say(line: str) -> None:
    print(f"rfxray: {line}", file=sys.stderr, flush=True)
