"""Whether a file is still the same: its length and time, which are cheap, and its content."""

import hashlib
import os
import stat


def stamp(path: str) -> tuple[int, int] | None:
    """Length in bytes and time of the last change in ns; None if it is not a regular file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def sha256(path: str) -> bytes | None:
    """SHA-256 of a file, 32 bytes; None if it is not a regular file that can be read."""
    if stamp(path) is None:  # opening a FIFO would wait for its writer
        return None
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None
