"""Flags that print a text and end the process, such as `--version`. Standard library only."""

import argparse
import os
import sys
from collections.abc import Callable

from rfxray import version
from rfxray.errors import ConfigError


def add_version(parser: argparse.ArgumentParser) -> None:
    """Adds `--version`, which prints what code this is."""
    about = "print version, commit and those of JAX and Python"
    add_printing(parser, "--version", lambda _: version.line(), about)


def add_printing(
    parser: argparse.ArgumentParser,
    flag: str,
    text: Callable[[argparse.Namespace], str],
    about: str,
) -> None:
    """Adds a flag that prints a text and ends the process with 0.

    Args:
      parser: Parser that gets the flag.
      flag: Flag, such as `--version`.
      text: Function that makes the text of the flags before this one; a ConfigError is answered
        as a wrong flag is.
      about: Help of the flag.
    """

    class Print(argparse.Action):
        def __call__(self, parser, namespace, values, option_string=None):
            try:
                print(text(namespace), flush=True)
            except ConfigError as error:
                parser.error(str(error))
            except BrokenPipeError:  # `… | head`; Python would flush once more at its end
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            parser.exit()

    hidden = argparse.SUPPRESS  # the flag sets nothing
    parser.add_argument(flag, action=Print, nargs=0, dest=hidden, default=hidden, help=about)
