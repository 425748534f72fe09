"""Turns the raw sets into one data set: tables, survey, duplicates, plan, shards.

    python -m data_prep.harmonise --set nih=DIR --set padchest=DIR --out runs/data/cxr7 --size 512

Each DIR is the root of a raw set as published (`data_prep/sources/` has the seven). Folders of your
own may join them, the table of each described as for `data_prep.build`:

    … --folder mine=DIR --metadata FILE.csv --column image=image_id --column patient=patient_id

The result is a TensorFlow Datasets directory as `data_prep.build` makes it, with

    table.parquet   every row that has a file: attributes, where each came from, split, fate
    dropped.csv     every image that became no record, and why
    survey/         what every file looks like; may be deleted, makes the next run quick

Every file is decoded twice, once to survey it and once to write it: what is dropped is then known
before the first shard, so the plan (which keys, in which order, in which shard) is a pure function
of the tables and the survey, and no image is stored twice. Killed, the same command continues.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_prep.sources.sets import SETS
from data_prep.tables.description import (
    Description,
    Given,
    add_arguments,
    add_described,
    describe,
)
from rfxray.command_line import ArgumentParser, exit_on_error, local_path, require
from rfxray.errors import ConfigError

COMMAND = "data_prep.harmonise"
FOLDER = "folder"


def main(argv: Sequence[str] | None = None) -> None:
    with exit_on_error(COMMAND):
        flags = vars(_parser().parse_args(argv))
        roots, own = _roots(flags.pop("set")), _own(flags.pop("described"))
        flags["labels"] = _labels(flags["labels"], roots)
        if not roots and not own:
            raise ConfigError("nothing to harmonise: give --set SET=DIR or --folder NAME=DIR")
        require("prep", "cv2", "gdcm", "pyarrow", "pydicom")
        from data_prep import raw_sets

        print(raw_sets.harmonise(raw_sets.Options(roots=roots, own=own, **flags)))


def _roots(given: Sequence[str]) -> dict[str, Path]:
    """`["nih=DIR"]` as {"nih": DIR}, in the order of `SETS`, however they are given."""
    roots = {}
    for assignment in given:
        name, separator, root = assignment.partition("=")
        if not separator or name not in SETS or not root:
            known = ", ".join(SETS)
            raise ConfigError(f"--set {assignment!r} is not SET=DIR with SET one of {known}")
        if name in roots:
            raise ConfigError(f"--set {name} is given twice")
        roots[name] = Path(root)
    return {name: roots[name] for name in SETS if name in roots}


def _labels(given: Sequence[str], roots: Mapping[str, Path]) -> dict[str, str]:
    """`["chexpert=train_cheXbert.csv"]` as {"chexpert": "train_cheXbert.csv"}, checked."""
    labels = {}
    for assignment in given:
        name, _, table = assignment.partition("=")
        if name not in roots or table not in SETS[name].labels:
            allowed = ", ".join(f"{n}={t}" for n in roots for t in SETS[n].labels)
            raise ConfigError(
                f"--labels {assignment!r} is not SET=TABLE of a --set that has several label "
                f"tables: {allowed or 'the sets given have one each'}"
            )
        if name in labels:
            raise ConfigError(f"--labels {name} is given twice")
        labels[name] = table
    return labels


def _own(described: Sequence[Given]) -> dict[str, tuple[Path, Description]]:
    """`--folder mine=DIR` and the flags of its table as {"mine": (DIR, …)}, in alphabetical order.

    Of several folders, each is described by the flags between it and the next one.
    """
    folders = [i for i, given in enumerate(described) if given.flag == FOLDER]
    if not folders:
        if described:
            flag = described[0].flag
            raise ConfigError(f"--{flag} describes a --folder NAME=DIR, which is not given")
        return {}
    if len(folders) > 1 and folders[0] > 0:
        raise ConfigError(
            f"--{described[0].flag} is before the first --folder; if there are several, each is "
            "followed by the flags of its table"
        )
    own: dict[str, tuple[Path, Description]] = {}
    for start, end in zip(folders, [*folders[1:], len(described)], strict=True):
        name, _, root = described[start].value.partition("=")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in SETS or not root:
            raise ConfigError(
                f"--folder {described[start].value!r} is not NAME=DIR with a NAME of a-z, 0-9 and "
                f"_ other than {', '.join(SETS)}"
            )
        if name in own:
            raise ConfigError(f"--folder {name} is given twice; give each folder a name of its own")
        flags = described[start:end] if len(folders) > 1 else described
        own[name] = Path(root), describe(name, [given for given in flags if given.flag != FOLDER])
    return dict(sorted(own.items()))


def _local_root(assignment: str) -> str:
    """NAME=DIR with a DIR of this machine, as the type of a flag."""
    local_path(assignment.partition("=")[2])
    return assignment


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog=f"python -m {COMMAND}",
        description="Writes one data set (TensorFlow Datasets, ArrayRecord) from several raw sets.",
    )
    add = parser.add_argument
    add(
        "--set",
        type=_local_root,
        action="append",
        default=[],
        metavar="SET=DIR",
        help="a raw set and the folder that it was unpacked into, as published, such as "
        f"nih=/data/nih; repeat for each. SET is one of {', '.join(SETS)} (default: none)",
    )
    add(
        "--labels",
        action="append",
        default=[],
        metavar="SET=TABLE",
        help="labels of another labeller, by the name of the table in the folder of the set: "
        f"{'; '.join(f'{n}: ' + ', '.join(s.labels) for n, s in SETS.items() if s.labels)} "
        "(default: the first that is there; of chexpert's CSV tables only train.csv)",
    )
    add_described(
        parser,
        FOLDER,
        _local_root,
        metavar="NAME=DIR",
        help="a set of your own: a name for it (a-z, 0-9 and _) and its folder of images, such as "
        "mine=/data/mine; --metadata, --column, --findings, --closed-list, --map and --set-source "
        "describe its table. Repeat for each; those flags then follow their --folder "
        "(default: none)",
    )
    add_arguments(parser, required=False)
    add("--size", type=int, required=True, help="side of the square images, pixels")
    add("--out", type=local_path, required=True, help="folder to create, or to continue in")
    add("--name", default="cxr7", help="beginning of the names of its files (default: %(default)s)")
    for split in ("validation", "test"):
        add(
            f"--{split}",
            type=float,
            default=0.02,
            help=f"fraction of the patients to put into {split}, of those without a published "
            "split (default: %(default)s)",
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
    add(
        "--beam",
        metavar="OPTIONS",
        help="run as an Apache Beam pipeline on several machines instead of --workers, with these "
        "pipeline options in one string, such as '--runner=FlinkRunner --flink_master=HOST:8081'; "
        "the raw folders and --out must have the same paths on every machine (default: no Beam)",
    )
    return parser


if __name__ == "__main__":
    main()
