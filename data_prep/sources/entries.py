"""What the entries of a folder are, found without opening one: files, archives, FIFOs, …"""

import contextlib
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from rfxray.data.special import SPECIAL
from rfxray.errors import DataError

ARCHIVE = re.compile(
    r"\.(zip|tar|tgz|tbz2?|txz|tzst|7z|rar|gz|bz2|xz|zst|z\d\d|(zip|7z|tar|rar)\.\d{3}|part\d\d+)$"
)
PACKED_TABLE = re.compile(r"\.(csv|tsv|json|jsonl|txt|md)\.\w+$")


def special(path: str | os.PathLike) -> str:
    """What a path is instead of a file or folder, such as "a FIFO"; empty if it is one of these."""
    try:
        return SPECIAL.get(stat.S_IFMT(os.stat(path).st_mode), "")
    except OSError:
        return "a link to nothing" if os.path.islink(path) else ""


def entries(folder: str) -> list[os.DirEntry]:
    """The entries of a folder by name; DataError if it cannot be read."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"the folder {error.filename} cannot be read: {error.strerror}") from None


def is_folder(entry: os.DirEntry) -> bool:
    """Whether an entry is a folder, or a link to one."""
    with contextlib.suppress(OSError):  # of a link in a circle of links
        return entry.is_dir()
    return False


def is_file(entry: os.DirEntry) -> bool:
    """Whether an entry is a file that can be read to its end, or a link to one."""
    with contextlib.suppress(OSError):
        return entry.is_file()
    return False


def is_archive(name: str) -> bool:
    """Whether a name is that of packed files, and not of a packed table."""
    return bool(ARCHIVE.search(name.lower()) and not PACKED_TABLE.search(name.lower()))


def packed(archives: Sequence[str], count: int = 0) -> str:
    """What to do about archives, of which there are `count` or as many as are named."""
    count = count or len(archives)
    what, them = ("1 archive", "it") if count == 1 else (f"{count:,} archives", "them")
    return f"{what}: unpack {them} (first: {archives[0]})"


def archives_in(folder: Path) -> list[str]:
    """The archives that lie directly in a folder."""
    names = sorted(entry.name for entry in entries(str(folder)) if is_file(entry))
    return list(filter(is_archive, names))
