"""Draws phantoms: a data set, a table of attributes, or a contact sheet of what each looks like.

python -m data_prep.phantom --out runs/smoke/phantom --n 16384 --size 64 --seed 0 --workers 2
python -m data_prep.phantom --table phantom.csv --n 100000 --world interacting
python -m data_prep.phantom --contact-sheet phantom.png
"""

import argparse

from data_prep.phantom import dataset, sheet
from data_prep.phantom.dataset import COMMAND
from rfxray.command_line import ArgumentParser, exit_on_error, local_path
from rfxray.data.manifest import summary


def main(argv: list[str] | None = None) -> None:
    with exit_on_error(COMMAND):
        flags = vars(_parser().parse_args(argv))
        file, size, table = (flags.pop(name) for name in ("contact_sheet", "size", "table"))
        if table:
            dataset.write_table(table, flags["world"], flags["n"], flags["seed"])
            print(f"{COMMAND}: {flags['n']:,} phantoms in {table}")
        elif file:
            print(sheet.save(sheet.Options(file, 256 if size is None else size, flags["seed"])))
        else:
            options = dataset.Options(size=64 if size is None else size, **flags)
            print(summary(dataset.write(options), options.out))


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog=f"python -m {COMMAND}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=local_path, help="directory of the data set to write")
    what.add_argument(
        "--contact-sheet", type=local_path, metavar="FILE.png", help="image to write instead"
    )
    what.add_argument("--table", type=local_path, metavar="FILE.csv", help="table to write instead")
    add = parser.add_argument
    add(
        "--world",
        choices=dataset.WORLDS,
        default=dataset.WORLDS[0],
        help="population: additive logits, or one with interactions, a U-shaped effect of age and "
        "the size of the heart as a variable of its own (default: %(default)s)",
    )
    add("--n", type=int, default=4096, help="number of patients (default: %(default)s)")
    add(
        "--size", type=int, help="side of the images, pixels (default: 64; tiles of the sheet: 256)"
    )
    add("--seed", type=int, default=0, help="seed of the population (default: %(default)s)")
    add(
        "--validation",
        type=float,
        default=1 / 16,
        help="fraction of the patients in validation (default: 1/16)",
    )
    add("--workers", type=int, default=1, help="processes (default: %(default)s)")
    return parser


if __name__ == "__main__":
    main()
