"""What is known of one key of a config."""

import dataclasses

Value = bool | int | float | str | tuple[str, ...] | tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of a config.

    Attributes:
      default: Value that a config starts from; its type is the type of the key.
      meaning: What it is, with its unit.
      runtime: Whether it may change between a run and its resumption.
      least: Smallest value allowed, if there is one.
      above: Value that it must exceed, if there is one.
      choices: The only values allowed, if they are few.
    """

    default: Value
    meaning: str
    runtime: bool = False
    least: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()


def runtime(default: Value, meaning: str, **bounds) -> Key:
    """A key that may change between a run and its resumption."""
    return Key(default, meaning, runtime=True, **bounds)
