"""Names of files that a table gives: such as every file system keeps, and no two alike."""

import re
import unicodedata
from collections.abc import Sequence

from rfxray.errors import ConfigError

LONGEST = 180  # bytes; 255 less what a temporary file of that name has more
ENDINGS = (".png", ".dcm", ".dicom", ".jpg", ".jpeg", ".tif", ".tiff")

# Files of a folder of samples, and devices of Windows
_TAKEN = {"grid", "nearest", "gallery", "samples", "plan", "parts", "partial"}
_TAKEN |= {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{port}{i}" for port in ("com", "lpt") for i in range(10)),
}


def file_stem(text: str) -> str:
    """A cell of a table as the name of a file, without the ending of an image.

    Letters of any alphabet, digits, and within the name `. _ - + ( )` and spaces.

    Raises:
      ConfigError: For a name that is empty, too long, has another character (a path separator among
        them), or is that of another file or a device.
    """
    stem = unicodedata.normalize("NFC", text.strip())
    for ending in ENDINGS:
        if stem.lower().endswith(ending):
            stem = stem[: -len(ending)]
            break
    if not stem:
        raise ConfigError("the name of the file is empty; name every row")
    if re.search(r"[/\\\\]", stem):
        raise ConfigError(f"{text!r} has a path separator; give names of files, without folders")
    if not re.fullmatch(r"\w(?:[\w .+()-]*[\w)+-])?", stem):
        raise ConfigError(
            f"{text!r} cannot name a file; letters, digits, spaces and . _ - + ( ) can, the first "
            "a letter, a digit or _"
        )
    if stem.split(".")[0].lower() in _TAKEN:
        raise ConfigError(f"{text!r} is the name of another file or a device; choose another")
    if len(stem.encode()) > LONGEST:
        raise ConfigError(f"the name {stem[:20]!r}… is longer than {LONGEST} bytes; shorten it")
    return stem


def refuse_alike(stems: Sequence[str], rows: Sequence[str]) -> None:
    """Raises a ConfigError if two names would be one file where upper and lower case are the same.

    Args:
      stems: Names of files.
      rows: Origin of each, such as `line 3`.
    """
    first: dict[str, int] = {}
    for i, stem in enumerate(stems):
        there = first.setdefault(unicodedata.normalize("NFKC", stem).casefold(), i)
        if there != i:
            raise ConfigError(
                f"{rows[i]}: the name {stem!r} is also that of {rows[there]} ({stems[there]!r}); "
                "names must differ, also in more than upper and lower case"
            )
