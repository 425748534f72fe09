"""`rfxray readers power`."""

from collections.abc import Sequence

from rfxray.command_line import ArgumentParser


def main(argv: Sequence[str] | None = None) -> None:
    ArgumentParser(prog="rfxray readers power").parse_args(argv)
