"""The files of images below a folder: which there are, what they hold, which are rejected.

What a file is decides its content or its ending, never its place in a listing. Nothing is left out
in silence: what is not an image is counted, what cannot be read is an error or is listed.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rfxray.data import manifest
from rfxray.errors import DataError
from rfxray.outputs import files

# Endings of images; those that the decoder cannot read are refused and not overlooked.
READ = (".png", ".jpg", ".jpeg", ".jpe", ".dcm", ".dicom")
NOT_READ = (".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".j2k", ".jxl", ".heic", ".avif")
NOT_READ += (".npy", ".npz", ".gz", ".nii", ".nrrd", ".mha", ".pgm")
SAMPLES = "samples.json"
_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")  # of PNG and JPEG

# Function of the name of a file that decodes it; a DataError is the reason why not.
Decode = Callable[[str], object]


def found(folder: Path) -> tuple[list[str], int]:
    """Paths of the images below a folder, sorted, with forward slashes; number of other files.

    Raises:
      DataError: If a folder below it is a set of its own.
    """
    names, others, entered = [], 0, set()
    for root, folders, here in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in entered:  # a link to a folder that has been entered
            folders.clear()
            continue
        entered.add(real)
        _refuse_set(Path(root), folder, here)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in here:
            file = Path(root, name)
            if not name.startswith(".") and _is_image(file):
                names.append(file.relative_to(folder).as_posix())
            else:
                others += 1
    return sorted(names), others


def _refuse_set(root: Path, folder: Path, names: Sequence[str]) -> None:
    ours = SAMPLES in names or {manifest.NAME, "dataset_info.json"} <= set(names)
    if ours and root != folder:
        raise DataError(
            f"{root} is a set of its own, below {folder}: its pixels and attributes would be read "
            "in another way; give each set by its own folder"
        )


def _is_image(file: Path) -> bool:
    if file.suffix.lower() in (*READ, *NOT_READ):
        return True
    if not file.is_file():  # a pipe would be waited for
        return False
    try:  # DICOM files are often named by a UID, or without an ending
        with file.open("rb") as opened:
            start = opened.read(132)
    except OSError:
        return False
    return start[128:] == b"DICM" or start.startswith(_STARTS)


def kept(
    folder: Path, names: Sequence[str], reject: bool | None, decode: Decode, repeats: bool
) -> tuple[dict[str, str], dict[str, str]]:
    """The files that are in a set, and those that are not.

    Args:
      folder: Folder of the files.
      names: Paths of the files in it.
      reject: Whether files that cannot be read or repeat another one are left out, instead of
        refused. Every file is decoded for that. None: refused, and there is no flag to ask for it.
      decode: What reads a file.
      repeats: Whether files may repeat another one.

    Returns:
      SHA-256 of each file in the order of the names, and the reason for each that is left out. What
      stands before the colon of a reason names no file.

    Raises:
      DataError: If a file cannot be opened or repeats another one, or no file is left.
    """
    contents, rejected = _contents(folder, names)
    if rejected and not reject:
        name, why = next(iter(rejected.items()))
        raise DataError(
            f"{folder / name} {why}; check its permissions or remove it{_way_out(reject)}"
        )
    first: dict[str, str] = {}
    for name, content in contents.items():
        if repeats or (there := first.setdefault(content, name)) == name:
            continue
        if not reject:
            raise DataError(
                f"{folder / name} has the same content as {there}; remove one of them"
                f"{_way_out(reject)}"
            )
        rejected[name] = f"repeated: the same content as {there}"
    if not reject:
        return contents, {}

    def reason(name: str) -> str:
        try:
            decode(name)
        except DataError as error:
            return str(error)
        return ""

    remaining = [name for name in contents if name not in rejected]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reasons = zip(remaining, pool.map(reason, remaining), strict=True)
        rejected |= {name: why for name, why in reasons if why}
    left = {name: content for name, content in contents.items() if name not in rejected}
    if not left:
        name, why = next(iter(rejected.items()))
        raise DataError(f"no file of {folder} can be read; the first: {name}: {why}")
    return left, dict(sorted(rejected.items()))


def unreadable(file: Path, why: str | Exception, reject: bool | None) -> DataError:
    """The refusal of a file that is not decoded; see `kept`."""
    return DataError(f"{file}: {why}; repair or remove the file{_way_out(reject)}")


def _way_out(reject: bool | None) -> str:
    return "" if reject is None else ", or leave out what is rejected with --skip-rejected"


def _contents(folder: Path, names: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """SHA-256 of each file, by name, in the order of the names; reasons of those without one."""

    def one(name: str) -> tuple[str, str]:
        try:
            if (folder / name).exists() and not (folder / name).is_file():
                return "", "cannot be opened: not a regular file"
            return files.file_sha256(folder / name), ""
        except OSError as error:
            return "", f"cannot be opened: {error.strerror or error}"

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing releases the GIL
        read = dict(zip(names, pool.map(one, names), strict=True))
    contents = {name: content for name, (content, why) in read.items() if not why}
    return contents, {name: why for name, (_, why) in read.items() if why}
