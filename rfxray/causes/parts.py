"""What of a fit is done: a file for each part in a folder, so that a killed fit goes on.

A part is kept as soon as it is there, whole or not at all, with a digest of itself and of what it
comes from: table, graph, options and version. It is read back even when it is new, so that a fit
that went on gives the bytes of one that was never stopped.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from rfxray.checkpoints import tensor_files
from rfxray.errors import DataError
from rfxray.outputs import files

FOLDER = "parts"


class Part(NamedTuple):
    """What is kept.

    Attributes:
      tree: JSON values.
      arrays: Arrays by name.
    """

    tree: Any
    arrays: Mapping[str, np.ndarray]


class Parts:
    """The parts of a fit, in a folder that this process has locked.

    Args:
      out: Folder of the fit.
      inputs: Digest of what the parts come from, hex.

    Attributes:
      inputs: The digest.
      notes: What was found there and is not used, in sentences.
    """

    def __init__(self, out: Path, inputs: str):
        self._folder, self.inputs = out / FOLDER, inputs
        self.notes: list[str] = []
        there = list(self._folder.glob("*.part")) if self._folder.is_dir() else []
        self._there = {file.stem for file in there if self._read(file) is not None}
        if bad := len(there) - len(self._there):
            self.notes.append(
                f"{bad} parts in {self._folder} are damaged, or of another table, graph, option or "
                "version: they are fitted again"
            )

    def __len__(self) -> int:
        """Number of the parts that were there at the start."""
        return len(self._there)

    def kept(self, name: str, make: Callable[[], Part]) -> Part:
        """A part that is there, or is made now.

        Args:
          name: Name of the part.
          make: Function that makes it.

        Raises:
          SaveFailed, ConfigError: If the disk refuses.
          DataError: If what was written cannot be read back.
        """
        file = self._folder / f"{name}.part"
        if name not in self._there:
            content = self._written(make())
            with files.saving(self._folder):
                self._folder.mkdir(exist_ok=True)
                files.write_whole(file, content)
        if (part := self._read(file)) is None:
            raise DataError(f"{file} cannot be read back; check the disk, then rerun the command")
        return part

    def remove(self) -> None:
        """Removes all parts."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _written(self, part: Part) -> bytes:
        tensors = tensor_files.encode(part.arrays, ("format", "rfxray causes part 1"))
        head = {"inputs": self.inputs, "tree": part.tree}
        head["sha256"] = _digest(head, tensors)
        return json.dumps(head).encode() + b"\n" + tensors

    def _read(self, file: Path) -> Part | None:
        """A part; None if it is damaged, or comes from something else."""
        try:
            line, _, tensors = file.read_bytes().partition(b"\n")
            head = json.loads(line)
            digest = head.pop("sha256")
            if digest != _digest(head, tensors) or head["inputs"] != self.inputs:
                return None
            return Part(head["tree"], safetensors.numpy.load(tensors))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


def _digest(head: Mapping[str, Any], tensors: bytes) -> str:
    return hashlib.sha256(json.dumps(head).encode() + tensors).hexdigest()
