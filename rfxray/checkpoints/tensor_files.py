"""Named arrays in a safetensors file: whatever their dtypes, whoever wrote them."""

import os
from collections.abc import Mapping

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from rfxray.errors import DataError, first_line


def read(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a file by name, and the text of its header by name.

    Raises:
      DataError: If it is not such a file, or is damaged.
    """
    try:
        with safe_open(path, "np") as file:
            names = sorted(file.keys())
            return {name: _array(file, name) for name in names}, dict(file.metadata() or {})
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read as safetensors ({first_line(error)})") from None


def _array(file: safe_open, name: str) -> np.ndarray:
    try:
        return file.get_tensor(name)
    except AttributeError:  # of NumPy, which has no 8-bit floats
        kind = file.get_slice(name).get_dtype()
        raise TypeError(f"{name} is {kind}; store it as float32 or bfloat16") from None


def encode(arrays: Mapping[str, np.ndarray], text: tuple[str, str]) -> bytes:
    """The content of a file of arrays: the same bytes for the same arrays and text.

    Args:
      arrays: Arrays by name.
      text: Name and text of the one entry of the header; the order of several would be random.
    """
    # The library writes the memory of an array as it lies, so it must lie in order.
    ordered = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return safetensors.numpy.save(ordered, dict([text]))
