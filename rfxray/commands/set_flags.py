"""What the commands on sets of images share: flags, a refusal, and what results say of a set."""

from collections.abc import Sequence
from pathlib import Path

from rfxray.command_line import ArgumentParser, local_path
from rfxray.errors import DataError
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


def named(texts: Sequence[str]) -> list[str]:
    """Words such as `FOLDER=FILE` with the last part of each path only."""
    return ["=".join(map(last, text.split("=", 1))) for text in texts]


def refuse_common_patients(trained_on: Pictures, held_out: Pictures, flag: str) -> None:
    """Raises a DataError if two data sets share patients; names in other sets mean nothing here.

    Args:
      trained_on: Set that something was, or is, trained on.
      held_out: Set of other patients.
      flag: Flag of the second one.
    """
    if not (trained_on.records and held_out.records):
        return
    if both := {name for name in trained_on.patients if name} & set(held_out.patients):
        raise DataError(
            f"{trained_on.name} and {held_out.name} share {len(both):,} patients; give {flag} of "
            "other patients, such as another split"
        )


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
