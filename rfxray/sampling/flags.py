"""Flags that are not given are None, so that one which nothing reads is told from a default."""

import argparse
import dataclasses
from collections.abc import Iterable

from rfxray.errors import ConfigError


def refuse_unread(arguments: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Raises a ConfigError where one of these flags is given, though nothing would read it.

    Args:
      arguments: as parsed.
      names: of flags, as the parser has them.
      why: what leaves them unread, such as `--times`.
    """
    if given := [name for name in names if getattr(arguments, name) is not None]:
        raise ConfigError(f"{why} does not read --{given[0]}; leave it out")


def settings_given(arguments: argparse.Namespace, settings: type) -> dict:
    """The fields of a dataclass for which there is a flag, and one that is given."""
    flags = vars(arguments)
    names = [field.name for field in dataclasses.fields(settings)]
    return {name: flags[name] for name in names if flags.get(name) is not None}
