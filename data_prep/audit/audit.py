"""Audits one harmonised data set: reads it and writes its page."""

import dataclasses
import sys
from pathlib import Path

from data_prep.audit.gather import gather
from data_prep.audit.looks import gather_looks
from data_prep.audit.page import render
from rfxray.data import burned_text
from rfxray.data.dataset import open_dataset
from rfxray.data.manifest import read_manifest
from rfxray.errors import DataError
from rfxray.outputs.files import saving, write_whole


@dataclasses.dataclass(frozen=True)
class Options:
    """What to audit, and how.

    Attributes:
      directory: Folder of the data set, as given to `data_prep.harmonise --out`.
      audit_text: Whether to look for text burned into every picture.
      workers: Processes that look for text.
    """

    directory: Path
    audit_text: bool
    workers: int


def audit(options: Options, command: str) -> Path:
    """Writes `audit.html` into the folder of a data set, and `text.csv` if text is looked for.

    Args:
      options: What to audit, and how.
      command: Name of the command, with which each line on stderr begins.

    Returns:
      Path of the page.

    Raises:
      DataError: If the folder has no finished data set, or a damaged one.
      SaveFailed: If a file cannot be written.
    """
    folder = options.directory
    manifest = read_manifest(folder)
    if manifest is None or not (folder / "table.parquet").is_file():
        raise DataError(
            f"{folder} has no finished data set; give the --out folder of a completed "
            "run of data_prep.harmonise"
        )
    open_dataset(folder)
    if options.audit_text:
        print(f"{command}: looking for text in {folder}", file=sys.stderr)
        with saving(folder):
            burned_text.scan(folder, manifest, workers=options.workers, command=command)
    print(f"{command}: reading {folder}", file=sys.stderr)
    page = render(manifest, gather(folder), gather_looks(folder))
    with saving(folder):
        write_whole(folder / "audit.html", page)
    return folder / "audit.html"
