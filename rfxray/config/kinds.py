"""Kinds: which network, objective or evaluator a config means.

A kind is a short name from a table, or `package.module:name` for code that is not ours. A folder
from elsewhere must never choose what code is run: foreign code is imported only if the user names
it, in the config file that they run or with `--allow-kind`.
"""

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from rfxray.errors import ConfigError, first_line

T = TypeVar("T")

_allowed: dict[str, Any] = {}


def is_foreign(kind: str) -> bool:
    """Whether a kind names code outside of this package."""
    return ":" in kind


def allow(kind: str) -> None:
    """Imports the code of a foreign kind, which may be used from then on.

    Args:
      kind: `package.module:name`, of an object with `KEYS` that is called like ours.

    Raises:
      ConfigError: If there is no such object.
    """
    module, _, name = kind.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever that module does when it is imported
        raise ConfigError(
            f"kind {kind} cannot be imported ({first_line(error)}); write package.module:name of "
            "an installed module"
        ) from error
    if not isinstance(getattr(found, "KEYS", None), Mapping):
        raise ConfigError(f"kind {kind} has no KEYS, a mapping of its config keys to schema.Key")
    _allowed[kind] = found


def lookup(kind: str, table: Mapping[str, T], what: str) -> T:
    """What a kind stands for: the entry of our table, or the foreign object.

    Args:
      kind: Name from the table, or `package.module:name`.
      table: Ours, by name.
      what: `network`, `objective` or `evaluator`, for the message.

    Raises:
      ConfigError: If there is no such kind, or it is foreign and was not allowed.
    """
    if is_foreign(kind):
        if kind not in _allowed:
            raise ConfigError(
                f"the config asks for {what} {kind}, which is code outside of rfxray; add "
                f"--allow-kind {kind} if you trust it"
            )
        return _allowed[kind]
    if kind in table:
        return table[kind]
    raise ConfigError(f"unknown {what} kind {kind!r}{_near(kind, table)}")


def _near(kind: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(kind, list(names), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f", only {', '.join(names)}"
