"""`--list`: the attributes and their values, as a command prints them."""

import argparse

from rfxray.attributes.vocabulary import ATTRIBUTES, NAMES, UNKNOWN
from rfxray.printing_flags import add_printing


def add_list(parser: argparse.ArgumentParser) -> None:
    """Adds `--list`, which prints the attributes and their values."""
    add_printing(parser, "--list", lambda _: printed(), "print the attributes and their values")


def printed() -> str:
    """Every attribute with its values, a line each."""
    width = max(map(len, NAMES)) + 2
    lines = []
    for attribute in ATTRIBUTES:
        values = ", ".join(attribute.values)
        if attribute.continuous:
            values = f"{attribute.low:g} to {attribute.high:g} {attribute.unit}"
        lines.append(f"{attribute.name:{width}}{values}")
    spelled = "Common spellings are read too: sex=Female, cardiomegaly=1, age=063Y."
    return "\n".join([*lines, "", f"Any of them may be {UNKNOWN}. {spelled}"])
