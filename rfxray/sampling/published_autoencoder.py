"""Weights of an autoencoder that another project published, as a folder like that of a run."""

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_collections
import numpy as np

from rfxray import __version__
from rfxray.checkpoints import exported, safetensors, tensor_files, weights
from rfxray.checkpoints.exported import Facts
from rfxray.command_line import Progress
from rfxray.config import json_text
from rfxray.config.load import check_config
from rfxray.config.schema import defaults
from rfxray.errors import ConfigError, DataError
from rfxray.networks import vae_weights
from rfxray.networks.vae_shape import Vae
from rfxray.networks.vae_weights import Published
from rfxray.outputs.files import file_sha256, saving
from rfxray.outputs.folders import refuse_content
from rfxray.sampling import adapter as adapters
from rfxray.sampling.network_identity import APPLIED, encoder_identity, identity

_CLASSES = ("AutoencoderKL", "AutoencoderKLFlux2")
_PICKLES = (b"\x80", b"PK\x03\x04")  # how the two layouts of torch.save begin


@dataclasses.dataclass(frozen=True)
class PublishedRequest:
    """What is to be exported.

    Attributes:
      weights: Path of a safetensors file, or of a folder of diffusers with its config.json.
      out: Folder that is absent or empty.
      licence: Licence under which the weights were published, as the user names it.
      dtype: Dtype of the file that is written, a key of `safetensors.DTYPES`.
      adapter: Folder of an adapter of the decoder that peft wrote, to be merged; None for none.
    """

    weights: Path
    out: Path
    licence: str
    dtype: str = "float32"
    adapter: Path | None = None


def export(request: PublishedRequest) -> tuple[Facts, Published]:
    """Writes an export, whole or not at all; returns what it says of itself, and what was read.

    Raises:
      ConfigError: If there is no such file, or `out` is not an empty folder or is being written.
      DataError: If the weights are damaged or of another network.
      SaveFailed: If the disk is full.
    """
    if request.dtype not in safetensors.DTYPES:
        raise ConfigError(f"no --dtype {request.dtype!r}, only {', '.join(safetensors.DTYPES)}")
    refuse_content(request.out)
    file = _file(request.weights)
    found, about = _read(file)
    own = found.params
    if request.adapter:
        adapter = adapters.read(request.adapter)
        try:
            own = adapters.merge(found.vae, own, adapter)
        except DataError as error:
            raise DataError(f"{request.adapter}: {error}") from None
        about["adapter_sha256"] = file_sha256(request.adapter / adapters.TENSORS)
    config = _config(found.vae)
    params = {"model": own}
    facts = Facts(
        step=0,
        ema=0.0,
        dtype=request.dtype,
        parameters=sum(np.size(tensor) for tensor in own.values()),
        weights=identity(config, weights.digest_of(params, request.dtype), APPLIED),
        source_weights=identity(config, weights.digest_of(params), APPLIED),
        data_fingerprint="",
        trained_on=(),
        synthetic_only=False,
        licence=request.licence,
        flow_loss_limit=None,
        rfxray=__version__,
        published={"sha256": file_sha256(file), **about},
        encoder=encoder_identity(config.model, own, request.dtype),
    )
    size = facts.parameters * jnp.dtype(request.dtype).itemsize
    with saving(request.out), Progress("rfxray.export", size, unit="byte") as progress:
        exported.write(request.out, config, params, facts, progress.advance)
    return facts, found


def _file(path: Path) -> Path:
    """The file of the weights in a folder, or the file itself."""
    if not path.exists():
        raise ConfigError(f"there is no {path}; give --weights a safetensors file or its folder")
    folder = path if path.is_dir() else path.parent
    if (folder / exported.MANIFEST).exists():
        raise ConfigError(
            f"{path} is an export of rfxray already; give its folder to rfxray encode --vae, or as "
            "config.model.base"
        )
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.safetensors"))
    if len(files) != 1:
        there = ", ".join(file.name for file in files) or "none"
        inside = path / "vae"
        hint = f"give --weights {inside}" if inside.is_dir() else "give --weights the file"
        raise ConfigError(f"{path} must hold one safetensors file (there: {there}); {hint}")
    return files[0]


def _of_numpy(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return all(name.endswith(".npy") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _read(file: Path) -> tuple[Published, dict[str, float | str]]:
    """The weights of a file, and the scale and shift of latents that its config.json states."""
    with file.open("rb") as opened:
        start = opened.read(9)
    if start.startswith(_PICKLES) and start[8:] != b"{":  # after the length of a safetensors header
        if _of_numpy(file):
            raise DataError(
                f"{file} is an archive of NumPy and not of safetensors; write its tensors with "
                "safetensors.numpy.save_file"
            )
        raise DataError(
            f"{file} is a pickle of torch, which can run code; turn it into tensors first: rfxray "
            f"evaluate convert {file} --out {file.stem}.safetensors"
        )
    tensors = tensor_files.read(file)[0]
    beside = file.with_name("config.json")
    about = _json(beside) if beside.exists() else {}
    groups = about.get("norm_num_groups", vae_weights.GROUPS)
    try:
        found = vae_weights.convert(tensors, groups)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    vae = found.vae
    stated = {
        "block_out_channels": list(vae.widths),
        "latent_channels": vae.z,
        "layers_per_block": vae.blocks,
        "act_fn": "silu",
    }
    for key, value in stated.items():
        if about.get(key, value) != value:
            raise DataError(f"{beside} has {key}={about[key]!r}, but the tensors are of {value!r}")
    factors = {key: about.get(key) for key in ("scaling_factor", "shift_factor")}
    for key, value in factors.items():
        if value is not None and json_text.finite(value) is None:
            raise DataError(f"{beside} must have a finite number as {key} (got {value!r})")
    return found, {key: float(v) for key, v in factors.items() if v is not None}


def _json(file: Path) -> dict[str, Any]:
    try:
        about = json_text.parse(file.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as JSON ({error})") from None
    kind = about.get("_class_name") if isinstance(about, dict) else None
    if kind not in _CLASSES:
        raise DataError(f"{file} must have {' or '.join(_CLASSES)} as _class_name (got {kind!r})")
    groups = about.get("norm_num_groups", vae_weights.GROUPS)
    if not isinstance(groups, int) or isinstance(groups, bool) or groups < 1:
        raise DataError(f"{file} must have a whole number as norm_num_groups (got {groups!r})")
    return about


def _config(vae: Vae) -> ml_collections.FrozenConfigDict:
    config = defaults(model="vae", objective="autoencoding", evaluators={})
    config.model.update(dataclasses.asdict(vae))
    return check_config(config)
