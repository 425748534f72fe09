"""`rfxray readers simulate`."""

from collections.abc import Sequence

from rfxray.command_line import ArgumentParser


def main(argv: Sequence[str] | None = None) -> None:
    ArgumentParser(prog="rfxray readers simulate").parse_args(argv)
