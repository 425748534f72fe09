"""The folder of the persistent compilation cache: where the user says, or in their cache folder."""

import os
import sys
from pathlib import Path

import jax

from rfxray.outputs import cache


def folder() -> Path | None:
    """The folder of compiled programs, or None without one.

    `JAX_COMPILATION_CACHE_DIR`, if it is set (empty: no cache), else `jax` in `outputs.cache`.
    """
    if (given := os.environ.get("JAX_COMPILATION_CACHE_DIR")) is not None:
        return Path(given) if given else None
    found = cache.root()
    return found and found / "jax"


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
