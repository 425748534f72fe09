"""Turns raw radiographs and their table into a data set that the trainer reads.

    python -m data_prep.build --source folder --images DIR --metadata FILE.csv \\
        --column image=image_id --column patient=patient_id --column view=projection \\
        --size 256 --out runs/data/mine

It is `data_prep.harmonise` of this one set: the same survey, filters, search for duplicates, and
files in `--out`.
"""

import os
from collections.abc import Sequence

from data_prep.tables import description
from rfxray.command_line import ArgumentParser, exit_on_error, local_path, require

COMMAND = "data_prep.build"


def main(argv: Sequence[str] | None = None) -> None:
    with exit_on_error(COMMAND):
        flags = vars(_parser().parse_args(argv))
        flags.pop("source")
        require("prep", "cv2", "gdcm", "pyarrow", "pydicom")
        from data_prep import raw_sets

        name, images = flags["name"], flags.pop("images")
        own = {name: (images, description.describe(name, flags.pop("described")))}
        print(raw_sets.harmonise(raw_sets.Options(roots={}, own=own, command=COMMAND, **flags)))


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog=f"python -m {COMMAND}",
        description="Writes a data set of chest radiographs (TensorFlow Datasets, ArrayRecord).",
    )
    add = parser.add_argument
    add(
        "--source",
        choices=("folder",),
        default="folder",
        help="layout of the raw data; folder is the only one (default: %(default)s)",
    )
    add(
        "--images",
        type=local_path,
        required=True,
        help="folder of PNG, JPEG and DICOM files, at any depth",
    )
    description.add_arguments(parser, required=True)
    add("--size", type=int, required=True, help="side of the square images, pixels")
    add("--out", type=local_path, required=True, help="folder to create, or to continue in")
    add(
        "--name",
        default="radiographs",
        help="beginning of the names of its files and keys (default: %(default)s)",
    )
    for split, share in (("validation", 0.1), ("test", 0.0)):
        add(
            f"--{split}",
            type=float,
            default=share,
            help=f"fraction of the patients to put into {split}, of those without a split in the "
            "table (default: %(default)s)",
        )
    add(
        "--shard-examples",
        type=int,
        default=1024,
        help="images in each file (shard) of the data set (default: %(default)s)",
    )
    add(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes that read and write at the same time (default: one per CPU core, "
        "%(default)s)",
    )
    return parser


if __name__ == "__main__":
    main()
