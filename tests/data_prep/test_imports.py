"""Data preparation runs on machines without accelerator software, so it must not load JAX."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import data_prep

ROOT = Path(data_prep.__file__).parents[1]
LOAD_JAX = ("data_prep.phantom.oracle",)  # trains a network
SHARED = (
    *("canonical", "codestream", "decoded", "dicom", "dicom_header", "display", "grey"),
    "stored_values",
    "burned_text",
    "dataset",
    "faults",
    "manifest",
    "markers",
    "pixels",
    "plan",
    "radiograph",
    "record",
    "shards",
    "writing",
)

# Imports the modules in order and exits with the name of the first that loads JAX.
SCRIPT = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    if {"jax", "grain", "tensorflow"} & sys.modules.keys():
        sys.exit(name)
"""


def offenders(names: list[str]) -> list[str]:
    """Modules that load JAX. A fresh process starts after each of them; the others share one."""
    found = []
    while names:
        command = [sys.executable, "-c", SCRIPT, *names]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if not done.returncode:
            break
        found.append(done.stderr.strip().splitlines()[-1])
        names = names[names.index(found[-1]) + 1 :]
    return found


def test_preparing_data_loads_no_jax():
    names = [m.name for m in pkgutil.walk_packages(data_prep.__path__, "data_prep.")]
    names += [f"rfxray.data.{name}" for name in SHARED]
    assert {"data_prep.phantom.__main__", "data_prep.sources.sets"} <= set(names)
    assert offenders(names) == list(LOAD_JAX)
