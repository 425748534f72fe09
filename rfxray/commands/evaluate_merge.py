"""Several results of `rfxray evaluate fidelity` in one table.

    rfxray evaluate merge runs/a runs/b --out runs/both

Writes report.html (one page, no network needed), table.md and results.json.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from rfxray.command_line import ArgumentParser, exit_on_error, local_path
from rfxray.evaluate import merging, report, results
from rfxray.outputs import files, folders

COMMAND = "rfxray.evaluate.merge"
TABLE = "table.md"


def parser() -> ArgumentParser:
    p = ArgumentParser(
        prog="rfxray evaluate merge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "results",
        nargs="+",
        type=local_path,
        metavar="RESULTS",
        help="folders that rfxray evaluate fidelity wrote, or their results.json",
    )
    p.add_argument("--out", required=True, type=local_path, metavar="DIR", help="output folder")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser().parse_args(argv)
    with exit_on_error(COMMAND):
        out: Path = flags.out
        runs = merging.read(flags.results)
        tables = merging.merged(runs)
        found = merging.as_json(tables, runs)
        contents = {
            TABLE: merging.markdown(tables),
            report.NAME: merging.html(tables, runs),
            results.NAME: json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False) + "\n",
        }
        with folders.held(out, contents), files.saving(out):
            files.write_together(out, contents)
        print(f"wrote {out / report.NAME}")


if __name__ == "__main__":
    main()
