"""A page that shows what is in a harmonised data set, and what is odd about it.

    python -m data_prep.audit runs/data/cxr7        # writes runs/data/cxr7/audit.html

The page is one file and needs no network. It reads `manifest.json`, `table.parquet`, a sample of
the records and, where it is still there, `survey/`. With `--audit-text` every record is looked at
for text burned into the picture; what is found stands in `text.csv` and on the page.
"""

import argparse
import os
import sys
from collections.abc import Sequence

import data_prep.needs_prep  # noqa: F401  before what needs it
from data_prep.audit.gather import gather
from data_prep.audit.page import render
from rfxray.command_line import ArgumentParser, exit_on_error, local_path
from rfxray.data import burned_text
from rfxray.data.dataset import open_dataset
from rfxray.data.shards import read_manifest
from rfxray.errors import DataError
from rfxray.outputs.files import saving, write_atomically

COMMAND = "data_prep.audit"


def main(argv: Sequence[str] | None = None) -> None:
    with exit_on_error(COMMAND):
        args = _parser().parse_args(argv)
        out = args.directory
        manifest = read_manifest(out)
        if manifest is None or not (out / "table.parquet").is_file():
            raise DataError(f"{out} is no finished data set of data_prep.harmonise")
        open_dataset(out)
        if args.audit_text:
            print(f"{COMMAND}: looking for text in {out}", file=sys.stderr)
            with saving(out):
                burned_text.scan(out, manifest, workers=args.workers, command=COMMAND)
        print(f"{COMMAND}: reading {out}", file=sys.stderr)
        page = render(manifest, gather(out))
        with saving(out):
            write_atomically(out / "audit.html", page)
        print(out / "audit.html")


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="python -m data_prep.audit",
        description="Writes audit.html beside the shards of a harmonised data set.",
    )
    add = parser.add_argument
    add("directory", type=local_path, help="as given to data_prep.harmonise --out")
    add("--audit-text", action="store_true", help="look for text burned into every picture (slow)")
    add(
        "--workers", type=int, default=os.cpu_count() or 1, help="for that; processes (%(default)s)"
    )
    return parser


if __name__ == "__main__":
    main()
