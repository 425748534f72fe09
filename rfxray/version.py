"""Which code this is: the version, the commit, and the versions of JAX and Python.

Standard library only, and nothing is run before it is asked for.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from rfxray import __version__

ROOT = Path(__file__).resolve().parents[1]
STAMP = Path(__file__).with_name("commit.txt")  # `git archive` writes its commit there
CODE = ("rfxray", "data_prep", "configs")


def commit(root: Path = ROOT, stamp: Path = STAMP) -> str:
    """The commit of a checkout, with `+dirty` if the code differs from it; `unknown` without one.

    Args:
      root: Folder that holds the packages.
      stamp: File with the commit of an archive; one that git has not written into starts with `$`.
    """
    if not (root / ".git").exists():  # not the repository around a folder of packages
        text = stamp.read_text().strip() if stamp.is_file() else ""
        return text[:12] if text and not text.startswith("$") else "unknown"
    # Within a hook of git, GIT_DIR names another repository. No lock is taken, so that a checkout
    # that is read-only, or in use, is not disturbed.
    foreign = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment = {**foreign, "GIT_OPTIONAL_LOCKS": "0"}

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            check=True,
        )
        return done.stdout.strip()

    try:
        dirty = "+dirty" if git("status", "--porcelain", "--", *CODE) else ""
        return git("rev-parse", "--short=12", "HEAD") + dirty
    except (OSError, subprocess.SubprocessError):  # no git, or it refuses another user's checkout
        return "unknown"


def versions() -> dict[str, str]:
    """Versions of rfxray, its commit, JAX, jaxlib and Python, by name."""
    found = {"rfxray": __version__, "commit": commit()}
    found |= {name: installed(name) for name in ("jax", "jaxlib")}
    return found | {"python": platform.python_version()}


def installed(package: str) -> str:
    """The version of a package, or `not installed`."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def line(found: dict[str, str] | None = None) -> str:
    """The same as one line."""
    return ", ".join(f"{name} {value}" for name, value in (found or versions()).items())
