"""Files that are written whole or not at all, PNG among them."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from rfxray.errors import DataError, SaveFailed, refused_by_system


@contextlib.contextmanager
def saving(out: str | Path):
    """Turns the refusal of a disk into the error of a command that may be run again, or of one that
    needs another folder (read-only, no permission)."""
    try:
        yield
    except OSError as error:
        kind = type(refused_by_system(error) or SaveFailed())
        raise kind(
            f"{out} cannot be written ({error.strerror or error}); check free space and "
            f"permissions, then rerun the command"
        ) from error


# ---------------------------------------------------------------------------------------------
# Whole or not at all


def write_whole(path: str | Path, content: str | bytes, durable: bool = True) -> None:
    """Writes a file so that a reader finds the old content or the new, never a part.

    Args:
      path: Path of the file, in an existing folder of a local file system.
      content: Bytes, or text to be encoded as UTF-8.
      durable: Whether the file survives a power cut from here on. Without it nothing waits for
        the disk: for what is written again and again, such as a heartbeat.
    """
    with whole_file(path, durable) as temporary:
        temporary.write_bytes(_bytes(content))


def _bytes(content: str | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")


def write_together(folder: Path, contents: Mapping[str, str | bytes]) -> None:
    """Writes files that belong together, in their order: a disk that refuses changes none of them.

    Each is on the disk before the first gets its name. The last one, which says that all are there,
    is removed before that: a process that is killed in between leaves no mixture that looks whole.

    Args:
      folder: Existing folder.
      contents: Text or bytes of each file, by its name.
    """
    with contextlib.ExitStack() as until_named:
        for name in reversed(list(contents)):  # names are given in the reverse order
            temporary = until_named.enter_context(whole_file(folder / name, durable=False))
            temporary.write_bytes(_bytes(contents[name]))
            sync(temporary)
        (folder / list(contents)[-1]).unlink(missing_ok=True)
    sync(folder)


@contextlib.contextmanager
def whole_file(path: str | Path, durable: bool = True) -> Iterator[Path]:
    """Like `write_whole`, for content that another library writes or that comes in pieces.

    Yields:
      Path of a temporary file in the same folder. It becomes `path` when the block ends, and is
      removed when the block raises an error; a killed process leaves it to `remove_temporary`.
    """
    path = Path(path)
    # The name is unique: two processes may write the same file at the same time.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        if durable:
            sync(temporary)
        os.replace(temporary, path)
    except Exception as error:
        with contextlib.suppress(OSError):  # the disk may refuse that as well
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            # With the name that a person knows.
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    if durable:
        sync(path.parent)


def append(path: Path, content: bytes) -> None:
    """Appends to a file and closes it; the content survives a power cut from here on.

    On a mounted bucket a file is visible to others, and survives this machine, only once it is
    closed; one that stays open is lost with the machine (gcsfuse documentation, "semantics").
    """
    try:
        with path.open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        # `write` and `fsync` do not name it.
        raise OSError(error.errno, error.strerror, str(path)) from error


def ends_a_line(path: Path) -> bool:
    """Whether a file is absent, empty or ends with a newline."""
    if not path.exists() or not path.stat().st_size:
        return True
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def last_row(path: Path) -> dict:
    """The last line of JSON in a file of such lines, without those that a kill tore; {} if none."""
    if not path.exists():
        return {}
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2**16))  # a line of metrics has about 600 bytes
        for line in reversed(file.read().splitlines()):
            with contextlib.suppress(ValueError):
                if isinstance(row := json.loads(line), dict):
                    return row
    return {}


def clock_of(folder: Path) -> float:
    """The time by the clock that dates the files of a folder, seconds since 1970.

    Ages of files are differences to this time: the clock of this machine may be another one (a file
    server, another host's).
    """
    probe = folder / f".clock.{uuid.uuid4().hex}.tmp"
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def is_temporary(path: Path) -> bool:
    """Whether a file or folder is one that an unfinished write left behind."""
    return path.name.startswith(".") and path.suffix == ".tmp"


def remove_temporary(folder: Path) -> None:
    """Removes what killed processes left in a folder; only one process may write there."""
    for path in filter(is_temporary, folder.iterdir()):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def sync(path: str | Path) -> None:
    """Waits until the content of a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pixels_sha256(image: np.ndarray) -> str:
    """SHA-256 of the pixels of an image [height, width] uint16, hex, whatever file holds them."""
    return hashlib.sha256(
        f"{image.shape}".encode() + np.ascontiguousarray(image, "<u2").tobytes()
    ).hexdigest()


# ---------------------------------------------------------------------------------------------
# PNG


def save_png(path: Path, image: np.ndarray, text: Mapping[str, object] | None = None) -> None:
    """Writes a greyscale PNG, whole or not at all.

    Args:
      path: Path of the file.
      image: [height, width] uint8 or uint16.
      text: What the file says of itself, as PNG text chunks.
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
      DataError: If it is in colour.
    """
    with Image.open(path) as image:
        if image.mode == "L" or image.mode.startswith("I"):
            return np.asarray(image).astype(np.uint8 if image.mode == "L" else np.uint16)
        black = Image.new("RGBA", image.size, "black")
        channels = np.asarray(Image.alpha_composite(black, image.convert("RGBA")))[..., :3]
    if (channels != channels[..., :1]).any():
        raise DataError(f"{path} is in colour; convert it to greyscale")
    return channels[..., 0]
