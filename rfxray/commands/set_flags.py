"""What the commands on sets of images share: flags, and what their results say of a set."""

from collections.abc import Sequence
from pathlib import Path

from rfxray.command_line import ArgumentParser, local_path
from rfxray.evaluate.pictures import Pictures


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


def named_csv(texts: Sequence[str]) -> list[str]:
    """`--csv` with the last part of each path only."""
    return ["=".join(map(last, text.split("=", 1))) for text in texts]


def described(pictures: Pictures) -> dict[str, object]:
    """What is said of a set: numbers and hashes, no key and no path."""
    return {
        "name": pictures.name,
        "images": len(pictures),
        "patients": len({name for name in pictures.patients if name}) or None,
        "fingerprint": pictures.fingerprint,
        "reading": pictures.reading,
        "rejected": len(pictures.rejected),
    }
