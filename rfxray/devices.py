"""Starting JAX: what every command does before it touches a device."""

import os
from pathlib import Path

import jax


def start() -> None:
    """Turns on the persistent compilation cache.

    A restart is otherwise bound by compiling. `JAX_COMPILATION_CACHE_DIR` moves the cache; set it
    to the empty string to go without.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rfxray" / "jax"
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(default))
    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
