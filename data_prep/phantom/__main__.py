"""Draws phantoms: a data set, or a contact sheet of what each attribute looks like.

python -m data_prep.phantom --out runs/smoke/phantom --n 16384 --size 64 --seed 0 --workers 2
python -m data_prep.phantom --contact-sheet phantom.png
"""

import argparse

from data_prep.phantom.dataset import COMMAND, write
from data_prep.phantom.sheet import contact_sheet
from rfxray.command_line import ArgumentParser, exit_on_error, local_path
from rfxray.data.manifest import summary
from rfxray.errors import ConfigError

SEEDS = 2**63


def main(argv: list[str] | None = None) -> None:
    with exit_on_error(COMMAND):
        _draw(_parser().parse_args(argv))


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="python -m data_prep.phantom",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=local_path, help="directory of the data set to write")
    what.add_argument(
        "--contact-sheet", type=local_path, metavar="FILE.png", help="picture to write"
    )
    parser.add_argument("--n", type=int, default=4096, help="how many patients (4096)")
    parser.add_argument("--size", type=int, help="pixels a side (64; of the sheet's tiles 256)")
    parser.add_argument("--seed", type=int, default=0, help="of the population (0)")
    parser.add_argument(
        "--validation", type=float, default=1 / 16, help="share of patients held out (1/16)"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes (1)")
    return parser


def _draw(flags: argparse.Namespace) -> None:
    if not 0 <= flags.seed < SEEDS:
        raise ConfigError(f"--seed {flags.seed} is not from 0 to {SEEDS - 1}")
    if flags.contact_sheet:
        if flags.contact_sheet.suffix != ".png" or not flags.contact_sheet.parent.is_dir():
            raise ConfigError(
                f"--contact-sheet {flags.contact_sheet} is not FILE.png in a directory that exists"
            )
        sheet = contact_sheet(256 if flags.size is None else flags.size, flags.seed)
        sheet.save(flags.contact_sheet, optimize=True)
        print(f"{flags.contact_sheet}: {sheet.width} × {sheet.height}")
        return
    size = 64 if flags.size is None else flags.size
    print(f"{COMMAND}: {flags.n:,} phantoms of {size}², seed {flags.seed}, to {flags.out}")
    manifest = write(flags.out, flags.n, size, flags.seed, flags.validation, flags.workers)
    print(summary(manifest, flags.out))


if __name__ == "__main__":
    main()
