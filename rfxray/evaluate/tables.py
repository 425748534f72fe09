"""The tables that `--csv FOLDER=FILE` gives folders of files."""

from collections.abc import Collection, Sequence
from pathlib import Path

from rfxray.command_line import at_home, refuse_address
from rfxray.errors import ConfigError


def tables_of(texts: Sequence[str], given: Collection[str], flags: str) -> dict[str, Path]:
    """The CSV of each folder that has one, by the folder as it was given.

    Args:
      texts: Values of `--csv`, each `FOLDER=FILE`.
      given: Folders of the other flags, as they were written.
      flags: Names of those flags, for people.

    Raises:
      ConfigError: If a text is not of that form, or names a folder that is not given, or twice.
    """
    found: dict[str, Path] = {}
    for text in texts:
        place, equals, file = text.partition("=")
        if not equals or place not in given:
            raise ConfigError(
                f"--csv {text} must be FOLDER=FILE with a folder of {flags}, as it is written there"
            )
        if place in found:
            raise ConfigError(f"--csv names {place} twice; give one table for each folder")
        if not file.strip():
            raise ConfigError(f"--csv {text} names no file; give FOLDER=FILE")
        refuse_address(file)
        found[place] = at_home(file)
    return found
