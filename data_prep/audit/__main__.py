"""A page that shows what is in a harmonised data set, and what is odd about it.

    python -m data_prep.audit runs/data/cxr7        # writes runs/data/cxr7/audit.html

The page is one file and needs no network. It is made from `manifest.json`, `table.parquet`, a
sample of the records and, unless it was deleted, `survey/`. With `--audit-text` every record is
searched for text burned into the picture; what is found is listed in `text.csv` and on the page.
"""

import os
from collections.abc import Sequence

from rfxray.command_line import ArgumentParser, exit_on_error, local_path, require

COMMAND = "data_prep.audit"


def main(argv: Sequence[str] | None = None) -> None:
    with exit_on_error(COMMAND):
        args = _parser().parse_args(argv)
        require("prep", "cv2", "gdcm", "pyarrow", "pydicom")
        from data_prep.audit.audit import Options, audit

        print(audit(Options(**vars(args)), COMMAND))


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog=f"python -m {COMMAND}",
        description="Writes audit.html beside the shards of a harmonised data set.",
    )
    add = parser.add_argument
    add("directory", type=local_path, help="data set folder: --out of data_prep.harmonise")
    add(
        "--audit-text",
        action="store_true",
        help="search every image for burned-in text, which is slow (default: off)",
    )
    add(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes that search for text (default: one per CPU core, %(default)s)",
    )
    return parser


if __name__ == "__main__":
    main()
