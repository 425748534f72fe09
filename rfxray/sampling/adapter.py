"""An adapter of an autoencoder's decoder as peft keeps it: adapter_config.json and its tensors."""

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rfxray.checkpoints import safetensors, tensor_files
from rfxray.config import json_text
from rfxray.errors import ConfigError, DataError
from rfxray.networks import lora, torch_weights
from rfxray.networks.lora import Lora
from rfxray.networks.torch_weights import Weights
from rfxray.networks.vae import layout
from rfxray.networks.vae_shape import Vae
from rfxray.outputs import files
from rfxray.outputs.folders import whole_folder

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."  # what peft writes before the names of modules
# Variants of LoRA in a config of peft, and the value that means none of them.
_PLAIN = {
    "peft_type": "LORA",
    "bias": "none",
    "fan_in_fan_out": False,
    "use_dora": False,
    "alpha_pattern": {},
    "rank_pattern": {},
    "modules_to_save": None,
}


@dataclasses.dataclass(frozen=True)
class Adapter:
    """An adapter of a file.

    Attributes:
      tensors: Its tensors by name, in JAX's layout, float32.
      scale: Weight of the narrow path.
    """

    tensors: Weights
    scale: float


def read(folder: Path) -> Adapter:
    """The adapter of a folder that peft wrote.

    Raises:
      ConfigError: If the folder has not both files.
      DataError: If they are damaged, or of another kind of adapter.
    """
    for name in (CONFIG, TENSORS):
        if not (folder / name).is_file():
            raise ConfigError(f"no {name} in {folder}; give --adapter a folder that peft wrote")
    about = _config(folder / CONFIG)
    root = about["r"] ** 0.5 if about.get("use_rslora") else about["r"]
    tensors = tensor_files.read(folder / TENSORS)[0]
    named = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    shapes = {name: tensor.shape for name, tensor in named.items()}
    try:
        converted = torch_weights.convert(named, shapes, "an adapter")
    except DataError as error:
        raise DataError(f"{folder / TENSORS}: {error}") from None
    for name, tensor in converted.items():
        if name.endswith(lora.A) and tensor.shape[-1:] not in ((), (about["r"],)):
            raise DataError(
                f"{name} in {folder / TENSORS} has the rank {tensor.shape[-1]}, and {CONFIG} says "
                f"r={about['r']}"
            )
    return Adapter(converted, about["lora_alpha"] / root)


def write(
    out: Path, tensors: Weights, shape: Lora, dtype: str, metadata: Mapping[str, str]
) -> None:
    """Writes an adapter as peft does, whole or not at all.

    Args:
      out: Folder that is absent or empty.
      tensors: Its tensors by name, in JAX's layout, float32.
      shape: Its shape.
      dtype: Dtype of the file, a key of `safetensors.DTYPES`.
      metadata: Text of the header of the file by name.

    Raises:
      ConfigError: If `out` is not an empty folder, or another process is writing it.
      OSError: If the disk refuses.
    """
    # In full: the last part of a name may also be that of a layer of the encoder.
    modules = [name.removesuffix(lora.A) for name in tensors if name.endswith(lora.A)]
    about = {
        **_PLAIN,
        "r": shape.rank,
        "lora_alpha": shape.alpha,
        "target_modules": modules,
        "use_rslora": False,
        "inference_mode": True,
    }
    named = {_PREFIX + name: value for name, value in torch_weights.published(tensors).items()}
    with whole_folder(out) as folder:
        files.write_whole(folder / CONFIG, json.dumps(about, indent=1) + "\n")
        with files.whole_file(folder / TENSORS) as temporary:
            safetensors.write(temporary, named, dtype, {**metadata, "format": "pt"})


def _config(file: Path) -> dict[str, Any]:
    try:
        about = dict(json_text.parse(file.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{file} cannot be read as JSON ({error})") from None
    for key, plain in _PLAIN.items():
        if about.get(key, plain) not in (plain, None):
            raise DataError(f"{file} must have {key}={plain!r} (got {about[key]!r})")
    for key in ("r", "lora_alpha"):
        number = json_text.finite(about.get(key))
        if number is None or not number > 0:
            raise DataError(
                f"{file} must have a finite number above 0 as {key} (got {about.get(key)!r})"
            )
    return about


def merge(vae: Vae, params: Weights, adapter: Adapter) -> dict[str, np.ndarray]:
    """The parameters of an autoencoder with an adapter, float32, on the host.

    Raises:
      DataError: If the adapter is not of its decoder, changes nothing, or makes a value infinite.
    """
    lora.check(adapter.tensors, layout(vae))
    joined = jax.jit(functools.partial(lora.merge, scale=adapter.scale))
    merged = jax.device_get(joined(params, adapter.tensors))
    if all(np.array_equal(merged[name], params[name]) for name in params):
        raise DataError(
            "the adapter changes no parameter: all its narrow paths are zero, so it was not trained"
        )
    infinite = [name for name, value in merged.items() if not np.isfinite(value).all()]
    if infinite:
        raise DataError(f"the adapter makes values that are not finite (first: {infinite[0]})")
    return merged
