"""The door of a command with several actions, each with flags of its own: `rfxray NAME ACTION`."""

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence

from rfxray.command_line import ArgumentParser

# Module and text of each action, by its name.
Actions = Mapping[str, tuple[str, str]]


def run(name: str, description: str | None, actions: Actions, argv: Sequence[str] | None) -> None:
    """Runs the action that the first argument names, with the arguments after it.

    Args:
      name: Name of the command.
      description: Text of its help.
      actions: Actions; a module is imported when it is called.
      argv: Arguments; those of the process when None.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    chosen = _parser(name, description, actions).parse_args(words[:1])
    module, _ = actions[chosen.action]
    importlib.import_module(module).main(words[1:])


def _parser(name: str, description: str | None, actions: Actions) -> ArgumentParser:
    width = max(map(len, actions)) + 2
    lines = [f"  {action:{width}}{text}" for action, (_, text) in actions.items()]
    parser = ArgumentParser(
        prog=f"rfxray {name}",
        usage=f"rfxray {name} ACTION [flags]",
        description=description,
        epilog="\n".join(["actions:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=list(actions), help="what to do; see below")
    return parser
