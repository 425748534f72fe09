"""Files that are written whole or not at all, PNG among them."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from rfxray.errors import DataError, SaveFailed


@contextlib.contextmanager
def saving(out: str | Path):
    """Turns the refusal of a disk into the error of a command that may be run again."""
    try:
        yield
    except OSError as error:
        raise SaveFailed(
            f"{out} cannot be written: {error.strerror or error}; make room there, or see that it "
            f"is writable, and run the same command again"
        ) from error


def save_png(path: Path, image: np.ndarray, text: Mapping[str, object] | None = None) -> None:
    """Writes a greyscale PNG, whole or not at all.

    Args:
      path: of the file.
      image: [height, width] uint8 or uint16.
      text: what the file says of itself, as PNG text chunks.
    """
    info = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        info.add_text(key, value if isinstance(value, str) else json.dumps(value))
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", pnginfo=info)
    write_whole(path, buffer.getvalue())


def read_png(path: Path) -> np.ndarray:
    """The pixels of a grey PNG: [height, width] uint8 or uint16.

    Grey may be stored as a palette or as three equal channels; what is transparent is black.

    Raises:
      DataError: where it is in colour.
    """
    with Image.open(path) as picture:
        if picture.mode == "L" or picture.mode.startswith("I"):
            return np.asarray(picture).astype(np.uint8 if picture.mode == "L" else np.uint16)
        black = Image.new("RGBA", picture.size, "black")
        channels = np.asarray(Image.alpha_composite(black, picture.convert("RGBA")))[..., :3]
    if (channels != channels[..., :1]).any():
        raise DataError(f"{path} is in colour, where grey is needed")
    return channels[..., 0]


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


# ---------------------------------------------------------------------------------------------
# Files


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that it is there whole or not at all, after a power cut too."""
    if isinstance(content, str):
        content = content.encode("utf-8", "backslashreplace")
    temporary = _temporary(path)
    with open(temporary, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _fsync(path.parent)


def is_temporary(path: Path) -> bool:
    """Whether a killed process left this file or folder behind."""
    return path.name.startswith(".") and path.suffix == ".tmp"


def remove_temporary(folder: Path) -> None:
    """Removes what killed processes left in a folder."""
    for path in filter(is_temporary, folder.iterdir()):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def _fsync(path: str | os.PathLike) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _file_sha256(path: str | os.PathLike) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
