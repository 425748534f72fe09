"""What a folder of samples belongs to: its lock, and `plan.json`, which says what was begun there.

A folder is continued only by what agrees with its plan in everything that decides an image: the
weights by content, the settings, the requests. Where the checkpoint lay is recorded for people and
not compared. A folder with anything in it and no plan is somebody else's.
"""

import contextlib
import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from rfxray import version
from rfxray.command_line import refuse_address
from rfxray.errors import ConfigError, DataError
from rfxray.outputs import files, lock
from rfxray.runtime import distributed, run_lock

NAME, INDEX = "plan.json", "samples.json"

# Entries of a plan that are not compared: records for people, and what may grow.
RECORDS = ("checkpoint", "written_by", "n", "block", "earlier", "requests")


@contextlib.contextmanager
def held(out: Path) -> Iterator[None]:
    """Makes a folder if there is none, and keeps other processes from writing there; the hosts of
    a run are one holder."""
    refuse_address(out)
    out.mkdir(parents=True, exist_ok=True)
    with run_lock.locked_run(out, distributed.place()[0], "--out"):
        yield


def read(out: Path) -> dict[str, Any]:
    """The plan of a folder that was begun; {} of another.

    Raises:
      ConfigError: If its `plan.json` does not parse.
    """
    file = out / NAME
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text()))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{file}, the record of an earlier run in --out, cannot be read ({error}), so that run "
            "cannot be resumed; choose another --out"
        ) from error


def begin(out: Path, plan: Mapping[str, object]) -> None:
    """Writes the plan of a folder, with the versions that begin it.

    Raises:
      ConfigError: If there is no plan yet and the folder is not empty.
    """
    if not (out / NAME).exists() and not is_empty(out):
        raise ConfigError(
            f"{out} is not empty and has no {NAME}, so no samples were begun there; choose another "
            "--out"
        )
    files.write_whole(out / NAME, json.dumps(plan, indent=1) + "\n")


def is_empty(out: Path) -> bool:
    """Whether a folder holds nothing except locks and what unfinished writes left."""
    return all(files.is_temporary(path) or lock.is_lock(path) for path in out.iterdir())


def compare(out: Path, there: Mapping[str, object], ours: Mapping[str, object]) -> None:
    """Compares the plan of a folder with another, except `RECORDS`.

    Raises:
      ConfigError: If they differ, with what differs.
    """
    ours = json.loads(json.dumps(ours))  # tuples become lists, as they were read
    if there.get("kind") != ours["kind"]:
        raise ConfigError(
            f"{out} was written by {there.get('kind', 'another command')} and not by "
            f"{ours['kind']}; choose another --out"
        )
    keys = dict.fromkeys(key for key in (*ours, *there) if key not in RECORDS)
    changed = [key for key in keys if there.get(key) != ours.get(key)]
    if "weights" in changed or (changed == ["weak"] and there.get("weak") and ours.get("weak")):
        raise ConfigError(
            f"{out} was begun with another model: step {there.get('step')} of "
            f"{there.get('checkpoint')} as it was then, weights {_short(there)}, now step "
            f"{ours.get('step')} of {ours.get('checkpoint')}, weights {_short(ours)}; give the "
            "--checkpoint that it was begun with, or choose another --out"
        )
    if changed:
        refuse(out, changed)


def refuse(out: Path, changed: list[str]) -> None:
    """Raises the ConfigError that a folder was started with other settings of these names."""
    raise ConfigError(
        f"{out} was started with different settings of: {', '.join(changed)}; choose another "
        f"--out, or repeat the command with the values in {out / NAME}"
    )


def read_index(out: Path, plan: Mapping[str, object]) -> list[dict[str, Any]] | None:
    """The entries of the images in `samples.json`; None if there is none.

    Raises:
      DataError: If it is damaged, or is that of another plan.
    """
    file = out / INDEX
    if not file.exists():
        return None
    try:
        index = json.loads(file.read_text())
        entries, made = index["pictures"], index["plan"]
        same = all(made[key] == plan[key] for key in plan if key not in RECORDS)
        same &= made["n"] < plan["n"] or all(made[key] == plan[key] for key in ("n", "requests"))
        whole = len(entries) == made["n"] and all(isinstance(entry, dict) for entry in entries)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file} is damaged ({type(error).__name__}); delete it, and the same command draws "
            "the samples again, or choose another --out"
        ) from error
    if not (same and whole):
        raise DataError(
            f"{file} is not the index of what {out / NAME} says; delete it, and the same command "
            "draws the samples again, or choose another --out"
        )
    return entries


@functools.cache
def written_by() -> dict[str, str]:
    """Versions and devices of this process, by name."""
    devices = jax.devices()
    return {**version.versions(), "devices": f"{len(devices)} × {devices[0].device_kind}"}


def _short(plan: Mapping[str, Any]) -> str:
    weak = plan.get("weak") or {}
    digests = [str(part.get("weights")) for part in (plan, weak) if part.get("weights")]
    return " and ".join(f"{digest[:12]}…" for digest in digests) or "unknown"
