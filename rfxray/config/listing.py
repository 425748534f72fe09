"""`--config.help`: every key of a config with its value, meaning and limits."""

import argparse

from rfxray.config.load import load_config
from rfxray.config.schema import Key, Value, defaults, flatten, keys_of
from rfxray.printing_flags import add_printing

HELP = "--config.help"


def listing(name: str | None = None) -> str:
    """Text that names every key, a line each.

    Args:
      name: Config, as `load_config` takes it; None for the defaults.

    Raises:
      ConfigError: If there is no such config.
    """
    config = defaults() if name is None else load_config(name)
    keys, values = keys_of(config), flatten(config)
    width = max(len(f"{key}={_text(value)}") for key, value in values.items() if len(key) < 40)
    head = f"keys of {name or 'a config, with their defaults'}; set one with --config.KEY=VALUE"
    lines = [
        f"  {f'{key}={_text(values[key])}':{min(width, 44)}}  {about.meaning}{_limits(about)}"
        for key, about in keys.items()
    ]
    return "\n".join([head, *lines])


def _text(value: Value) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _limits(key: Key) -> str:
    parts = []
    if key.choices:
        parts.append(f"one of {', '.join(key.choices)}")
    if key.least is not None:
        parts.append(f"at least {key.least:g}")
    if key.above is not None:
        parts.append(f"above {key.above:g}")
    if key.runtime:
        parts.append("may change on resuming")
    return f" [{'; '.join(parts)}]" if parts else ""


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Adds `--config.help` to a command that takes `--config`."""
    add_printing(
        parser,
        HELP,
        lambda given: listing(getattr(given, "config", None)),
        "list every key with its value, meaning and limits, and exit; after --config FILE those of "
        "that config",
    )
