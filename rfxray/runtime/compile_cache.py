"""The folder of the persistent compilation cache: where the user says, or in their cache folder."""

import os
import pwd
import sys
from pathlib import Path

import jax


def folder() -> Path | None:
    """The folder of compiled programs, or None without one.

    `JAX_COMPILATION_CACHE_DIR`, if it is set (empty: no cache), else `rfxray/jax` in
    `XDG_CACHE_HOME`, else in `~/.cache`. An `XDG_CACHE_HOME` or a home that is empty or relative
    counts as unset (XDG Base Directory Specification 0.8).
    """
    if (given := os.environ.get("JAX_COMPILATION_CACHE_DIR")) is not None:
        return Path(given) if given else None
    for variable, inside in (("XDG_CACHE_HOME", ""), ("HOME", ".cache")):
        path = Path(os.environ.get(variable, ""))
        if path.is_absolute():
            return path / inside / "rfxray" / "jax"
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # the uid of a container may stand in no database
        return None
    return Path(home) / ".cache" / "rfxray" / "jax" if home else None


def start() -> None:
    """Turns the cache on; without a folder that can be written, says so in one line and goes on.

    Without the cache, compiling dominates a restart, but every result is the same.
    """
    found = folder()
    if found is None:
        if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
            _say("there is no home folder")
        return
    try:
        found.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _say(f"{found} cannot be created ({error.strerror})")
        found = None
    if found is not None and not os.access(found, os.W_OK | os.X_OK):
        _say(f"{found} cannot be written")
        found = None
    # JAX itself reads the variable, and would warn at every program that it cannot write.
    jax.config.update("jax_compilation_cache_dir", None if found is None else str(found))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _say(why: str) -> None:
    print(
        f"rfxray: no cache of compiled programs: {why}; set JAX_COMPILATION_CACHE_DIR to keep one",
        file=sys.stderr,
        flush=True,
    )
