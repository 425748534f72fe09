"""`rfxray readers analyse`."""

from collections.abc import Sequence

from rfxray.command_line import ArgumentParser


def main(argv: Sequence[str] | None = None) -> None:
    ArgumentParser(prog="rfxray readers analyse").parse_args(argv)
