"""Flags that the commands on sets of images share."""

from pathlib import Path

from rfxray.command_line import ArgumentParser, local_path


def add_csv(p: ArgumentParser) -> None:
    """Adds `--csv`."""
    p.add_argument(
        "--csv",
        action="append",
        default=[],
        metavar="FOLDER=FILE",
        help="table of a folder of files: columns image, patient and attributes; repeatable",
    )


def add_rest(p: ArgumentParser) -> None:
    """Adds `--skip-rejected` and `--out`."""
    p.add_argument(
        "--skip-rejected",
        action="store_true",
        help="leave out files that cannot be read, are in colour or are repeated, and list them "
        "(default: refuse the set)",
    )
    p.add_argument("--out", required=True, type=local_path, metavar="DIR", help="output folder")


def last(path: str | Path) -> str:
    """The last part of a path, all of it that results name, which are shared."""
    return Path(path).name
