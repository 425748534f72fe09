"""Files of named tensors in the safetensors format, written one tensor at a time.

The library writes only what is in memory as a whole, in the dtype of the file; a model of 1.3B
parameters would be there twice. So the writer is ours (a length, a JSON header, little-endian
bytes), and the reader is the library's, which checks the header. Nothing is pickled: opening a file
runs no code.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from safetensors import SafetensorError, safe_open

from rfxray.arrays import AnyArray
from rfxray.errors import ConfigError, DataError, first_line

# Names of dtypes in the config, and in the format.
DTYPES = {"float32": "F32", "bfloat16": "BF16"}


def dotted(tree: PyTree) -> dict[str, jax.Array]:
    """The leaves of a tree by their path, joined by dots: `model.blocks.qkv`.

    Raises:
      ConfigError: If two leaves have one name, because a key holds a dot.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
    if len(named) < len(leaves):
        raise ConfigError("two parameters have one name, because a name holds a dot; rename one")
    return named


def write(
    file: Path,
    tensors: Mapping[str, AnyArray],
    dtype: str,
    metadata: Mapping[str, str],
    progress: Callable[[int], None] = lambda new: None,
) -> None:
    """Writes float32 tensors, rounded to a dtype to the nearest even.

    Args:
      file: Path of the file, which is created or overwritten.
      tensors: Tensors by name, float32.
      dtype: Key of `DTYPES`.
      metadata: Text of the header by name.
      progress: Function called with the number of bytes of each tensor when it is written.

    Raises:
      ConfigError: If a tensor is not float32.
      OSError: If the disk refuses.
    """
    stored, end = jnp.dtype(dtype), 0
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32:
            raise ConfigError(f"{name} is {tensor.dtype}; only float32 parameters are exported")
        begin, end = end, end + tensor.size * stored.itemsize
        place = {"data_offsets": [begin, end]}
        header[name] = {"dtype": DTYPES[dtype], "shape": list(tensor.shape), **place}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that tensors are aligned for whoever maps the file
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little"))
        out.write(text)
        for tensor in tensors.values():
            values = np.asarray(tensor).astype(stored, copy=False)
            out.write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
            progress(tensor.size * stored.itemsize)


def restore(file: Path, abstract: PyTree[jax.ShapeDtypeStruct]) -> PyTree[jax.Array]:
    """The tensors of a file as a tree, cast and placed one after another.

    Args:
      file: Path of the file.
      abstract: Tree of `jax.ShapeDtypeStruct` with shardings; its paths are the names of the
        tensors, see `dotted`.

    Raises:
      ConfigError: If the file holds other tensors than these.
      DataError: If it cannot be read.
    """
    wanted = dotted(abstract)
    try:
        with safe_open(file, framework="np") as stored:
            if wanted.keys() != (found := set(stored.keys())):
                some = sorted(wanted.keys() ^ found)
                raise ConfigError(
                    f"{file} does not hold the tensors of this model: {', '.join(some[:4])}"
                    f"{' …' if len(some) > 4 else ''}"
                )
            for name, leaf in wanted.items():
                if (shape := tuple(stored.get_slice(name).get_shape())) != leaf.shape:
                    raise ConfigError(f"{file} has {name} in shape {shape} instead of {leaf.shape}")
            leaves = [
                jax.device_put(stored.get_tensor(name).astype(leaf.dtype), leaf.sharding)
                for name, leaf in wanted.items()
            ]
    except (SafetensorError, OSError) as error:
        raise DataError(f"{file} cannot be read ({first_line(error)})") from error
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(abstract), leaves)
