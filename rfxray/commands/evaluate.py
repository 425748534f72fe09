"""Judges images against real radiographs, whatever made them.

Each action has flags of its own: `rfxray evaluate ACTION --help` lists them. An action's module is
imported when it is called.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from rfxray.command_line import ArgumentParser

# Name, module, and what it does; a module is `rfxray/commands/evaluate_NAME.py`.
ACTIONS = {
    "fidelity": ("rfxray.commands.evaluate_fidelity", "distances of samples from radiographs"),
    "reconstruction": (
        "rfxray.commands.evaluate_reconstruction",
        "measure what an autoencoder keeps of its images",
    ),
    "merge": ("rfxray.commands.evaluate_merge", "several results of fidelity in one table"),
    "check-weights": (
        "rfxray.commands.evaluate_check_weights",
        "show what an extractor's weights answer, beside PyTorch",
    ),
    "convert": ("rfxray.commands.evaluate_convert", "turn published weights into safetensors"),
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
        prog="rfxray evaluate",
        usage="rfxray evaluate ACTION [flags]",
        description=__doc__,
        epilog="\n".join(["actions:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=list(ACTIONS), help="what to do; see below")
    return parser


if __name__ == "__main__":
    main()
