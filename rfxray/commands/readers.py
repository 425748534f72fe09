"""A study of human readers: can they tell synthetic radiographs from real ones?

Each action has flags of its own: `rfxray readers ACTION --help` lists them. An action's module is
imported when it is called.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from rfxray.command_line import ArgumentParser

ACTIONS = {
    "design": ("rfxray.commands.readers_design", "a page for each reader, and the sealed key"),
    "analyse": ("rfxray.commands.readers_analyse", "turn answers and the key into a verdict"),
    "power": ("rfxray.commands.readers_power", "readers and cases for a margin and a power"),
    "example": ("rfxray.commands.readers_example", "a whole study of phantoms, in a minute"),
    "simulate": ("rfxray.commands.readers_simulate", "answers of readers of known ability"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the action that the first argument names, with the arguments after it."""
    words = list(sys.argv[1:] if argv is None else argv)
    chosen = _parser().parse_args(words[:1])
    module, _ = ACTIONS[chosen.action]
    importlib.import_module(module).main(words[1:])


def _parser() -> ArgumentParser:
    width = max(map(len, ACTIONS)) + 2
    lines = [f"  {name:{width}}{text}" for name, (_, text) in ACTIONS.items()]
    parser = ArgumentParser(
        prog="rfxray readers",
        usage="rfxray readers ACTION [flags]",
        description=__doc__,
        epilog="\n".join(["actions:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=list(ACTIONS), help="what to do; see below")
    return parser


if __name__ == "__main__":
    main()
