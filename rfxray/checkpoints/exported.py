"""A network as a folder to give away: `rfxray export` writes it, `sampling.load` opens it.

    model.safetensors   one EMA of a run, float32 or bfloat16; the facts below, in its header
    config.json         the sections model, objective and parts of the run's config, and what it
                        records of its latents, no other key
    export.json         the facts, size and SHA-256 of the other two, a checksum of itself

A network of latents has its autoencoder beside it, in the folder `vae`: an export of its own.

No path, data set or user of the run is named in it. A parameter is named by its path in the
parameter tree, joined by dots, from the part on: `model.head`, `model.condition.time.inner`. The
blocks are stacked: `model.blocks.qkv` has a leading dimension of `depth`, block 0 first. Matrices
multiply from the right (x @ W), so their first dimension is the input.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
from jaxtyping import PyTree

from rfxray.checkpoints import safetensors
from rfxray.config import json_text
from rfxray.config.load import LATENTS
from rfxray.config.schema import is_frozen
from rfxray.errors import ConfigError, DataError
from rfxray.outputs import files
from rfxray.outputs.folders import whole_folder

FORMAT, VERSION = "rfxray.export", 1
VAE = "vae"  # folder of the autoencoder in what holds latents, a model of them, or its export
BASE = "base"  # folder of the autoencoder that a run adapts, in its workdir
MANIFEST, CONFIG, MODEL = "export.json", "config.json", "model.safetensors"
UNSTATED = "not stated"


@dataclasses.dataclass(frozen=True)
class Facts:
    """What an export says of itself.

    Attributes:
      step: Step of the checkpoint.
      ema: Relative width of the EMA profile.
      dtype: Dtype of the tensors in the file, `float32` or `bfloat16`.
      parameters: Number of parameters.
      weights: Identity of the network as it is exported, see `sampling.network_identity`.
      source_weights: Identity of the network in the run; the same if dtype is float32.
      data_fingerprint: Fingerprint of the training data, of several joined by `+`.
      trained_on: Sources of the training data, as the attribute `source` names them; empty if they
        were not stated.
      synthetic_only: Whether the training data are known to be procedural phantoms only.
      licence: Licence of the weights, or `UNSTATED`.
      flow_loss_limit: Flow loss above which an image is unlike the training data, see
        `sampling.distance`; None if the run did not measure it.
      rfxray: Version that wrote the export.
      published: What is known of a file of another project that the weights come from: `sha256`,
        from a config.json beside it `scaling_factor` and `shift_factor`, and `adapter_sha256` of
        an adapter that was merged. Of a run that adapted an export: what that one says here, its
        `weights` and its `licence`. None for another run.
      frozen: Networks that it was trained against, which are not in the file, by part: `weights`
        (the name of the network), `sha256` of them by content, and `licence`.
      encoder: Identity of the encoder of an autoencoder, see `sampling.network_identity`: those
        with the same one have the same latents. None for another network, or of an older rfxray.
    """

    step: int
    ema: float
    dtype: str
    parameters: int
    weights: str
    source_weights: str
    data_fingerprint: str
    trained_on: tuple[str, ...]
    synthetic_only: bool
    licence: str
    flow_loss_limit: float | None
    rfxray: str
    published: Mapping[str, object] | None = None
    encoder: str | None = None
    frozen: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)

    def metadata(self) -> dict[str, str]:
        """What the header of `model.safetensors`, which holds text only, says of it."""
        said = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}
        return {key: v if isinstance(v, str) else json.dumps(v) for key, v in said.items()}


def is_export(folder: Path) -> bool:
    """Whether a folder is, or was, an export."""
    return any((folder / name).exists() for name in (MANIFEST, MODEL))


def reduced(
    config: ml_collections.FrozenConfigDict, latents: Mapping[str, object] | None = None
) -> str:
    """The `config.json` of an export: what a network is built from, and nothing else of the run."""
    kept = {name: config[name].to_dict() for name in ("model", "objective", "parts")}
    for part in kept["parts"].values():
        if is_frozen(part):  # NAME=PATH: what the model was trained against stays, where it was not
            part["weights"] = part["weights"].partition("=")[0]
    recorded = {LATENTS: dict(latents)} if latents else {}
    return json.dumps({**recorded, **kept, "evaluators": {}}, indent=1) + "\n"


def write(
    out: Path,
    config: ml_collections.FrozenConfigDict,
    params: PyTree[jax.Array],
    facts: Facts,
    progress: Callable[[int], None] = lambda new: None,
    latents: Mapping[str, object] | None = None,
    vae: Path | None = None,
) -> None:
    """Writes an export, whole or not at all.

    Args:
      out: Folder that is absent or empty.
      config: Config of the run.
      params: Parameters by part, float32.
      facts: What the export says of itself.
      progress: Function called with the number of bytes of each tensor.
      latents: What the run records of its latents.
      vae: Folder of the export of the autoencoder of these latents, which is copied.

    Raises:
      ConfigError: If `out` is not an empty folder, or another process is writing it.
      OSError: If the disk refuses.
    """
    text = reduced(config, latents)
    metadata = facts.metadata() | {"config_sha256": hashlib.sha256(text.encode()).hexdigest()}
    with whole_folder(out) as folder:
        files.write_whole(folder / CONFIG, text)
        with files.whole_file(folder / MODEL) as temporary:
            tensors = safetensors.dotted(params)
            safetensors.write(temporary, tensors, facts.dtype, metadata, progress)
        if vae is not None:
            copy(vae, folder / VAE)
        about = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(facts)}
        about["files"] = {
            name: [(folder / name).stat().st_size, files.file_sha256(folder / name)]
            for name in (CONFIG, MODEL)
        }
        about["checksum"] = _checksum(about)
        files.write_whole(folder / MANIFEST, json.dumps(about, indent=1) + "\n")


def copy(source: Path, target: Path) -> None:
    """Copies an export, whole or not at all; nothing if it is there already.

    Raises:
      DataError: If the source, or what is there, is missing or damaged.
    """
    if target.exists():
        read(target)
        return
    if not source.exists():
        raise DataError(f"there is no export {source}; copy it there, or make it again")
    read(source)
    with whole_folder(target) as folder:
        for name in (MODEL, CONFIG, MANIFEST):
            shutil.copyfile(source / name, folder / name)


def read(folder: Path) -> tuple[dict[str, Any], Facts]:
    """The config of an export and what it says of itself, after all its files were checked.

    Raises:
      ConfigError: If it was written by a later version.
      DataError: If a file is missing or is not what was written.
    """
    file = folder / MANIFEST
    try:
        about = dict(json_text.parse(file.read_text()))
        if about["checksum"] != _checksum(about):
            raise ValueError("its content does not match its checksum")
        if about["format"] != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        version, listed = about["version"], {n: about["files"][n] for n in (CONFIG, MODEL)}
    except FileNotFoundError:
        raise _damaged(folder, f"{MANIFEST} is missing") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise _damaged(folder, f"{MANIFEST}: {error}") from error
    if version != VERSION:
        raise ConfigError(
            f"{folder} is an export of version {version}, and this rfxray reads version "
            f"{VERSION}; use the rfxray that wrote it ({about.get('rfxray')})"
        )
    for name, (size, digest) in listed.items():
        if not (folder / name).is_file():
            raise _damaged(folder, f"{name} is missing")
        if (found := (folder / name).stat().st_size) != size:
            raise _damaged(folder, f"{name} has {found:,} bytes instead of {size:,}")
        if files.file_sha256(folder / name) != digest:
            raise _damaged(folder, f"{name} is not what was written")
    try:
        later: dict[str, object] = {"published": None, "encoder": None, "frozen": {}}
        about = {**later, **about}  # an older export lacks these entries
        said = {field.name: about[field.name] for field in dataclasses.fields(Facts)}
        said["trained_on"] = tuple(said["trained_on"])
        return dict(json.loads((folder / CONFIG).read_text())), Facts(**said)
    except (ValueError, LookupError, TypeError) as error:  # of a writer that is not ours
        raise _damaged(folder, f"{MANIFEST} or {CONFIG} lacks something: {error!r}") from error


def _checksum(about: Mapping[str, object]) -> str:
    """SHA-256 of a manifest without its entry `checksum`, hex."""
    bare = {key: value for key, value in about.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()


def _damaged(folder: Path, reason: str) -> DataError:
    return DataError(f"the export {folder} is damaged ({reason}); export or copy it again")
