"""Tensors of files that `torch.save` wrote, without torch and without running what they hold.

Two layouts exist. The *legacy* one (torch before 1.6) is four pickles (a magic number, a version,
sizes of types, the object), the list of storage keys, and then each storage: its number of elements
as int64, then its bytes. The *zip* one has the pickle of the object in `NAME/data.pkl` and each
storage in `NAME/data/KEY`. In both, a tensor is a call of `torch._utils._rebuild_tensor_v2(storage,
offset, size, stride, …)` (source: torch/serialization.py and torch/_utils.py).

The pickles are read by `inert_pickle`.
"""

import dataclasses
import math
import mmap
import os
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from rfxray.checkpoints import inert_pickle
from rfxray.checkpoints.inert_pickle import Inert, Name, Refused
from rfxray.errors import DataError, first_line

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001

_STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}

# A network of 1,000 layers has about 10,000 tensors, 30 levels deep. The limits end what refers to
# itself, or has a billion names for one tensor.
_MOST_NAMES = 30_000
_DEEPEST = 100


@dataclasses.dataclass(frozen=True)
class Content:
    """What a file holds.

    Attributes:
      tensors: Arrays by the name that a state dict gives them: keys joined by dots.
      left_out: Names of entries that are not tensors, such as `epoch`.
      classes: Names of classes of objects in the file, which were not looked up; empty for a state
        dict.
    """

    tensors: dict[str, np.ndarray]
    left_out: tuple[str, ...]
    classes: tuple[str, ...]


def read(path: str | os.PathLike, modules: bool = False) -> Content:
    """The tensors of a file; they are views of it where its layout allows.

    Args:
      path: Path of the file.
      modules: Whether a pickled module (an object with `_parameters`, `_buffers` and `_modules`)
        may be read as well as a state dict. Its classes are not looked up.

    Raises:
      DataError: If it is not such a file, is damaged, or has what a file of tensors does not need.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise DataError("an empty file")
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        read_layout = _read_zip if content[:4] == b"PK\x03\x04" else _read_legacy
        return _content(read_layout(content, modules))
    except DataError as error:
        raise DataError(f"{path} cannot be read as tensors of torch: {error}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


# ---------------------------------------------------------------------------------------------
# Layouts


@dataclasses.dataclass(eq=False)
class _Storage:
    dtype: np.dtype
    length: int
    elements: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        storage, itemsize = self.storage, self.storage.dtype.itemsize
        if storage.elements is None:
            raise DataError("a tensor without its storage")
        if math.prod(self.shape) > storage.length:
            raise Refused(f"a tensor of shape {list(self.shape)} in {storage.length} elements")
        if not math.prod(self.shape):
            return np.zeros(self.shape, storage.dtype)
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if last >= storage.length:
            raise DataError("a tensor that reaches beyond its storage")
        strides = [stride * itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(
            storage.elements[self.offset :], self.shape, strides, writeable=False
        )


def _read_legacy(content: mmap.mmap, modules: bool) -> Any:
    storages: dict[str, _Storage] = {}

    def persistent(identity: Any) -> Any:
        match identity:
            case ("module", Name() as kind, *_):
                return kind  # with its source text, which is not needed
            case ("storage", Name() as kind, str(key), _, int(length), None):
                return _storage(storages, kind, key, length)
        raise Refused("a reference that is not to a storage")

    if _plain(content) != _MAGIC or _plain(content) != _PROTOCOL:
        raise DataError("neither of the two layouts of torch.save")
    sizes = _plain(content)
    if not isinstance(sizes, dict) or sizes.get("little_endian") is not True:
        raise DataError("numbers that are not little-endian")
    value = inert_pickle.load(content, _CALLS, persistent, modules)
    keys = _plain(content)
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise DataError("storages that are not those of its tensors")
    for key in keys:
        storage = storages[str(key)]
        size = storage.length * storage.dtype.itemsize
        head = content.read(8)
        if len(head) < 8 or content.size() - content.tell() < size:
            raise DataError("truncated: the file ends within a storage")
        if struct.unpack("<q", head) != (storage.length,):
            raise DataError("a storage of another size than its tensors have")
        storage.elements = np.frombuffer(content, storage.dtype, storage.length, content.tell())
        content.seek(size, os.SEEK_CUR)
    return value


def _plain(content: mmap.mmap) -> Any:
    """The next pickle, which has no tensors and no calls."""

    def persistent(_: Any) -> Any:
        raise Refused("a reference where only numbers and text are read")

    return inert_pickle.load(content, {}, persistent, modules=False)


def _read_zip(content: mmap.mmap, modules: bool) -> Any:
    storages: dict[str, _Storage] = {}

    def persistent(identity: Any) -> Any:
        match identity:
            case ("storage", Name() as kind, str(key), _, int(length)):
                return _storage(storages, kind, key, length)
        raise Refused("a reference that is not to a storage")

    try:
        with zipfile.ZipFile(_Reader(content)) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise Refused("a compressed archive; torch.save does not compress")
            if sum(entry.file_size for entry in entries) > content.size():
                raise Refused("an archive of entries that overlap")
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise DataError("an archive without data.pkl, so not of torch.save")
            folder = pickles[0].removesuffix("data.pkl")
            names = set(archive.namelist())
            if folder + "constants.pkl" in names:
                raise Refused("a TorchScript archive, which holds a program; save its state_dict()")
            order = folder + "byteorder"
            if order in names and archive.read(order) != b"little":
                raise DataError("numbers that are not little-endian")
            data = _Reader(archive.read(pickles[0]))
            value = inert_pickle.load(data, _CALLS, persistent, modules)
            for key, storage in storages.items():
                if f"{folder}data/{key}" not in names:
                    raise DataError("truncated: a storage is missing")
                part = archive.read(f"{folder}data/{key}")
                if len(part) != storage.length * storage.dtype.itemsize:
                    raise DataError("a storage of another size than its tensors have")
                storage.elements = np.frombuffer(part, storage.dtype)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        raise DataError(f"a damaged archive ({first_line(error)})") from None
    return value


class _Reader:
    """A file of bytes that are there; it never allocates more than is left, as `mmap.read`."""

    def __init__(self, content: mmap.mmap | bytes):
        self._view, self._at = memoryview(content), 0

    def read(self, size: int = -1) -> bytes:
        end = len(self._view) if size < 0 else min(self._at + size, len(self._view))
        part = bytes(self._view[self._at : end])
        self._at = end
        return part

    def readline(self) -> bytes:
        # A name of a class; zipfile does not read lines.
        part = bytes(self._view[self._at : self._at + 4096])
        end = part.find(b"\n") + 1 or len(part)
        self._at += end
        return part[:end]

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._view)}[whence]
        if base + offset < 0:
            raise ValueError("before the begin of the file")
        self._at = min(base + offset, len(self._view))
        return self._at


# ---------------------------------------------------------------------------------------------
# What the pickles call


def _storage(storages: dict[str, _Storage], kind: Name, key: str, length: int) -> _Storage:
    if kind.module not in ("torch", "torch.storage") or kind.name not in _STORAGES:
        raise Refused(f"a storage of type {kind}")
    dtype = np.dtype(_STORAGES[kind.name])
    known = storages.setdefault(key, _Storage(dtype, length))
    if (known.dtype, known.length) != (dtype, length) or length < 0:
        raise DataError("a storage that is described in two ways")
    return known


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    numbers = [offset, *shape, *strides]
    whole = all(type(number) is int and number >= 0 for number in numbers)
    if not isinstance(storage, _Storage) or not whole or len(shape) != len(strides):
        raise DataError("a tensor without a storage or a shape")
    if len(shape) > 32:
        raise Refused(f"a tensor of {len(shape)} dimensions")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _dict(pairs: Any = ()) -> dict:
    if any(not isinstance(key, str) for key, _ in pairs):
        raise Refused("a dict with a key that is not text")
    return dict(pairs)


def _set(items: Any = ()) -> list:
    return list(items)


_CALLS = {
    "collections.OrderedDict": _dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "__builtin__.set": _set,
    "builtins.set": _set,
}


# ---------------------------------------------------------------------------------------------
# From the object to a state dict


def _content(value: Any) -> Content:
    tensors: dict[str, np.ndarray] = {}
    left_out: list[str] = []
    classes: set[str] = set()
    for name, found in _entries(value, "", 0, classes):
        if not isinstance(found, _Tensor):
            left_out.append(name)
        elif name in tensors:
            raise DataError(f"two tensors of the name {name}")
        else:
            tensors[name] = found.array()
        if len(tensors) + len(left_out) > _MOST_NAMES:
            raise Refused(f"more than {_MOST_NAMES:,} entries")
    if not tensors:
        raise DataError("no tensors")
    return Content(tensors, tuple(left_out), tuple(sorted(classes)))


def _entries(value: Any, name: str, depth: int, classes: set[str]) -> Iterator[tuple[str, Any]]:
    if depth > _DEEPEST:
        raise Refused(f"objects in objects, more than {_DEEPEST} deep")
    if isinstance(value, Inert):
        classes.add(str(value.kind))
        state = {part: value.state.get(part) for part in ("_parameters", "_buffers", "_modules")}
        if not all(isinstance(part, dict) for part in state.values()):
            yield name, value  # not a module
            return
        hidden = value.state.get("_non_persistent_buffers_set") or ()
        for part in state.values():
            for key, each in part.items():  # type: ignore[union-attr]
                if each is not None and key not in hidden:
                    yield from _entries(each, f"{name}.{key}".strip("."), depth + 1, classes)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _entries(each, f"{name}.{key}".strip("."), depth + 1, classes)
    else:
        yield name, value
