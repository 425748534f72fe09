"""Published weights, turned into safetensors without running what their files hold."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np

from rfxray.checkpoints import tensor_files, torch_files
from rfxray.errors import ConfigError
from rfxray.outputs.files import file_sha256, saving, write_together

STATE_DICT = "state dict, read as tensors only"
MODULE = "pickled module, its classes read as names without code"
SAFETENSORS = "safetensors, copied"


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What was converted, and by which way.

    Attributes:
      loader: Way in which the file was read: the safest one that its content allows.
      tensors: Number of tensors.
      values: Number of their values.
      left_out: Names of entries that are not tensors.
      classes: Names of classes in the file, which were not looked up.
      source_sha256: SHA-256 of the file, hex.
      sha256: SHA-256 of the result, hex.
    """

    loader: str
    tensors: int
    values: int
    left_out: tuple[str, ...]
    classes: tuple[str, ...]
    source_sha256: str
    sha256: str


def record_of(out: Path) -> Path:
    """Path of the JSON record of a conversion, beside its result."""
    return out.with_name(out.name + ".json")


def convert(source: Path, out: Path) -> Conversion:
    """Writes the tensors of a file as safetensors and the record of it beside, or neither.

    Args:
      source: Path of a state dict or a pickled module that `torch.save` wrote, or of a safetensors
        file, which is copied.
      out: Path of the result. An existing file is replaced only by the same bytes.

    Raises:
      DataError: If it is another kind of file, is damaged, or would run code.
      ConfigError: If `out` exists and has another content, or its folder does not exist.
      SaveFailed: If the disk refuses.
    """
    if out.suffix != ".safetensors":
        raise ConfigError(f"the result is a safetensors file; name it so: {out}.safetensors")
    if not out.parent.is_dir():
        raise ConfigError(f"there is no folder {out.parent}; make it, or choose another --out")
    if source.suffix == ".safetensors":
        arrays, _ = tensor_files.read(source)
        found = torch_files.Content(arrays, (), ())
        loader, content = SAFETENSORS, source.read_bytes()
        digest = file_sha256(source)
    else:
        found = torch_files.read(source, modules=True)
        loader = MODULE if found.classes else STATE_DICT
        digest = file_sha256(source)
        text = json.dumps({"source_sha256": digest, "loader": loader})
        content = tensor_files.encode(found.tensors, ("rfxray", text))
    if out.exists() and (not out.is_file() or out.read_bytes() != content):
        raise ConfigError(
            f"{out} exists and has another content; remove it or choose another --out"
        )
    done = Conversion(
        loader=loader,
        tensors=len(found.tensors),
        values=int(sum(np.size(array) for array in found.tensors.values())),
        left_out=found.left_out,
        classes=found.classes,
        source_sha256=digest,
        sha256=hashlib.sha256(content).hexdigest(),
    )
    record = json.dumps(dataclasses.asdict(done), indent=1) + "\n"
    with saving(out):
        write_together(out.parent, {out.name: content, record_of(out).name: record})
    return done
