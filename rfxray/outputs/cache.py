"""The folder of what can be made again: compiled programs, features, converted weights."""

import os
import pwd
from pathlib import Path

from rfxray.errors import ConfigError, SaveFailed, refused_by_system


def root() -> Path | None:
    """The folder, or None on a machine where the user has no home.

    `RFXRAY_CACHE`, else `rfxray` in `XDG_CACHE_HOME`, else in `~/.cache`. What is empty or relative
    counts as unset (XDG Base Directory Specification 0.8).
    """
    places = (("RFXRAY_CACHE", ""), ("XDG_CACHE_HOME", "rfxray"), ("HOME", ".cache/rfxray"))
    for variable, inside in places:
        path = Path(os.environ.get(variable, ""))
        if path.is_absolute():
            return path / inside
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # the uid of a container may stand in no database
        return None
    return Path(home) / ".cache" / "rfxray" if home else None


def folder(name: str) -> Path:
    """The folder of that name in the cache, created.

    Raises:
      ConfigError: If there is no place for it.
      SaveFailed: If the disk is full.
    """
    found = root()
    if found is None:
        raise ConfigError("there is no home folder for a cache; set RFXRAY_CACHE to a folder")
    try:
        (found / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        full = isinstance(refused_by_system(error), SaveFailed)
        raise (SaveFailed if full else ConfigError)(
            f"the cache {found / name} cannot be created ({error.strerror}); set RFXRAY_CACHE to a "
            "folder that can be written"
        ) from error
    return found / name
