"""Answers of readers and the key, or a published table, turned into a verdict.

    rfxray readers analyse answers/*.csv --key key.json --out runs/readers
    rfxray readers analyse VanDyke.csv --out runs/vandyke --map reader=reader --map case=case \\
      --map modality=treatment --map score=rating --map truth=truth

Writes analysis.html (one page, no network needed), results.json, table.md and, except for pairs,
study.imrmc. The page says which readers and answers the pooled results leave out, and why.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rfxray.command_line import ArgumentParser, exit_on_error, local_path
from rfxray.errors import ConfigError
from rfxray.outputs import folders
from rfxray.outputs.files import file_sha256
from rfxray.readers import published, reading, report
from rfxray.readers.analysis import analyse
from rfxray.readers.verdict import METHODS

COMMAND = "rfxray.readers.analyse"


@dataclasses.dataclass(frozen=True)
class Command:
    """What the flags say; see `parser`."""

    files: tuple[Path, ...]
    key: Path | None
    map: list[str] | None
    middle: float | None
    margin: float
    method: str
    out: Path

    def __post_init__(self):
        if not 0 < self.margin < 0.5:
            raise ConfigError(f"--margin must be above 0 and below 0.5 (got {self.margin:g})")


def parser() -> ArgumentParser:
    p = ArgumentParser(
        prog="rfxray readers analyse",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "files",
        nargs="+",
        type=local_path,
        metavar="FILE",
        help="answers of the readers, or one table with truth (CSV with --map, or iMRMC)",
    )
    add_reading(p)
    p.add_argument(
        "--margin",
        type=float,
        default=0.05,
        help="distance from .5 that counts as equivalent (default: %(default)s)",
    )
    p.add_argument(
        "--method",
        choices=METHODS,
        default="delong",
        help="covariances that the verdict rests on (default: %(default)s)",
    )
    p.add_argument("--out", required=True, type=local_path, metavar="DIR", help="output folder")
    return p


def add_reading(p: argparse.ArgumentParser) -> None:
    """Adds the flags that say how files of answers are read."""
    p.add_argument("--key", type=local_path, metavar="FILE", help="opened key of the study")
    p.add_argument(
        "--map",
        action="append",
        metavar="NAME=COLUMN",
        help=f"column of a table that holds {', '.join(published.NEEDED)} (needed), "
        f"{', '.join(published.OPTIONAL)}, or a stratum of any other name; repeatable",
    )
    p.add_argument(
        "--middle",
        type=float,
        metavar="SCORE",
        help="score of a table that means undecided; without it accuracy, d′ and agreement are not "
        "estimable (default for files of the kit: 3)",
    )


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser().parse_args(argv)
    with exit_on_error(COMMAND):
        command = Command(**{**vars(flags), "files": tuple(flags.files)})
        folders.refuse_others(command.out, report.FILES)
        print(f"{COMMAND}: {len(command.files)} file(s), margin ±{command.margin:g}")
        study = reading.read(command.files, command.key, command.map, command.middle)
        found = analyse(study, command.margin, command.method)
        inputs = [*command.files, *([command.key] if command.key else [])]
        page = report.write(
            command.out, study, found, {str(path): file_sha256(path) for path in inputs}
        )
        for reader, why in found.excluded.items():
            print(f"left out of the panel: {reader}: {why}")
        for what, count in found.left_out.items():
            print(f"left out: {count} {what}")
        for verdict in found.verdicts:
            print(f"{verdict.modality}: {report.headline(verdict)}")
        print(f"wrote {page}")


if __name__ == "__main__":
    main()
