"""The folder of edits: what it is to hold, and what of it is done.

`plan.json` says what the folder is to hold, by content: digests of the radiographs and masks, never
their names. Another request is refused. An edit is done if the digests in its `edit.json`, which is
written last, are those of its files; a killed command therefore continues with the next edit.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from rfxray.errors import ConfigError, DataError
from rfxray.outputs import files
from rfxray.sampling import claims

PLAN, RECORD = "plan.json", "edit.json"


def image_sha256(path: Path) -> str:
    """SHA-256 of a given file, hex.

    Raises:
      DataError: If it cannot be read.
    """
    if path.exists() and not path.is_file():  # opening a FIFO would wait for its writer
        raise DataError(f"{path} is not a regular file; give a PNG, JPEG or DICOM file")
    try:
        return files.file_sha256(path)
    except OSError as error:
        raise DataError(f"{path}: unreadable: {error.strerror}") from None


def begun_step(out: Path, plan: Mapping[str, object]) -> int | None:
    """Step of the checkpoint that a folder was begun with, if it was for the same plan."""
    there = _read(out / PLAN)
    return there["step"] if there and not _differences(there, plan) else None


def refuse_other(out: Path, plan: Mapping[str, object]) -> None:
    """Raises a ConfigError unless a folder is absent, empty or of the same plan."""
    if (there := _read(out / PLAN)) is not None:
        if changed := _differences(there, plan):
            raise ConfigError(
                f"{out} holds another edit (it differs in: {', '.join(changed)}); choose another "
                f"--out, or repeat its command with the values in {out / PLAN}"
            )
    elif out.is_dir() and not claims.is_empty(out):
        raise ConfigError(f"{out} is not empty and has no {PLAN}; choose another --out")


def claim(out: Path, plan: Mapping[str, object]) -> None:
    """Writes the plan into a folder that this process has locked; see `refuse_other`."""
    refuse_other(out, plan)
    files.remove_temporary(out)
    if not (out / PLAN).exists():
        files.write_whole(out / PLAN, json.dumps(plan, indent=1) + "\n")


def is_done(folder: Path, wanted: Mapping[str, object]) -> bool:
    """Whether the folder of an edit is complete; one that is torn, or lacks a file, is not.

    Args:
      folder: Folder of the edit.
      wanted: Part of the plan that decides it.

    Raises:
      ConfigError: If it is the folder of another edit.
    """
    try:
        there = _read(folder / RECORD)
    except ConfigError:  # torn: written again
        return False
    if there is None:
        return False
    if changed := _differences(there, wanted):
        raise ConfigError(
            f"{folder} holds another edit (it differs in: {', '.join(changed)}); move it away, or "
            "choose another --out"
        )
    return all(
        (folder / name).is_file() and files.file_sha256(folder / name) == digest
        for name, digest in there.get("files", {"": ""}).items()
    )


def _differences(there: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    """The keys in which a record differs from what is wanted."""
    wanted = json.loads(json.dumps(wanted))  # tuples become lists, as they are read back
    return [key for key in wanted if there.get(key) != wanted[key]]


def _read(file: Path) -> dict | None:
    """A record; None if it is absent.

    Raises:
      ConfigError: If it does not parse.
    """
    try:
        return dict(json.loads(file.read_text()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{file}, the record of an earlier command in --out, cannot be read ({error}); choose "
            "another --out"
        ) from error
