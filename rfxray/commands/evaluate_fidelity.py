"""How far samples are from real radiographs, by several extractors, with floors and intervals.

    rfxray evaluate fidelity --real data/mine:test --synthetic out/samples \\
      --extractor efficientnet_lite0 --train data/mine:train --out runs/fidelity

A set is a data set of ours (DATA:SPLIT, or DATA for every split), a folder that `rfxray sample`
wrote, or a folder of PNG, JPEG or DICOM files. Several --synthetic are compared with each other on
the same reals. Features are cached in RFXRAY_CACHE (default: ~/.cache/rfxray) by content; after a
kill the same command continues. Writes report.html (one page, no network needed), results.json,
images.csv (what is known of each synthetic image, by its key) and rejected.csv.
"""

import argparse
import contextlib
import copy
import dataclasses
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from rfxray.command_line import (
    ArgumentParser,
    data_folder,
    exit_on_error,
    local_path,
    words_of,
)
from rfxray.commands import set_flags
from rfxray.commands.set_flags import last
from rfxray.errors import ConfigError
from rfxray.evaluate import chexgenbench, fidelity, folder, gathering, report, results
from rfxray.evaluate.extractors.extractor import Extractor
from rfxray.evaluate.extractors.kinds import open_extractor
from rfxray.evaluate.gathering import Sets
from rfxray.evaluate.pictures import Pictures, open_pictures
from rfxray.evaluate.tables import tables_of
from rfxray.outputs import cache, folders
from rfxray.runtime import distributed, refusal

COMMAND = "rfxray.evaluate.fidelity"


@dataclasses.dataclass(frozen=True)
class Command:
    """What the flags say; see `parser`."""

    real: str
    synthetic: tuple[str, ...]
    train: str | None
    model: tuple[Path, ...]
    csv: tuple[str, ...]
    extractor: tuple[str, ...]
    skip_rejected: bool
    show_files: bool
    protocol: str | None
    seed: int
    out: Path

    def __post_init__(self):
        names = [spec.partition("=")[0] for spec in self.extractor]
        if len(set(names)) < len(names):
            raise ConfigError(
                f"--extractor names one twice (got {','.join(names)}); give each once"
            )
        if len(set(self.synthetic)) < len(self.synthetic):
            raise ConfigError("--synthetic is given twice with the same set; give each once")
        if self.seed < 0:
            raise ConfigError(f"--seed must be 0 or more (got {self.seed})")

    @property
    def tables(self) -> dict[str, Path]:
        """The CSV of each folder that has one, by the folder as it was given."""
        given = [self.real, *self.synthetic, *([self.train] if self.train else [])]
        return tables_of(self.csv, given, "--real, --synthetic or --train")


def parser() -> ArgumentParser:
    p = ArgumentParser(
        prog="rfxray evaluate fidelity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--real", required=True, type=data_folder, metavar="DATA[:SPLIT]", help="real radiographs"
    )
    p.add_argument(
        "--synthetic",
        required=True,
        action="append",
        type=data_folder,
        metavar="DIR",
        help="synthetic images; repeatable",
    )
    p.add_argument(
        "--train",
        type=data_folder,
        metavar="DATA[:SPLIT]",
        help="images that the models were trained on, for AuthPct (default: none)",
    )
    p.add_argument(
        "--model",
        action="append",
        default=[],
        type=local_path,
        metavar="EXPORT",
        help="export of a model that drew samples: an extractor that it was trained "
        "against, or on the same data, is named as circular; repeatable",
    )
    set_flags.add_csv(p)
    p.add_argument(
        "--extractor",
        required=True,
        metavar="NAME[=WEIGHTS],…",
        help="networks that turn images into features, such as efficientnet_lite0,rad_dino=DIR",
    )
    p.add_argument(
        "--show-files",
        action="store_true",
        help="show images of folders of files on the page, which is made to be shared: no patient "
        "may be on them (default: only samples of rfxray and phantoms are shown)",
    )
    p.add_argument(
        "--protocol",
        choices=[chexgenbench.NAME],
        help="figures by the path of a published benchmark too, its faults included, in columns of "
        "their own (default: none)",
    )
    p.add_argument("--seed", type=int, default=0, help="seed of the floors (default: %(default)s)")
    set_flags.add_rest(p)
    return p


def main(argv: Sequence[str] | None = None) -> None:
    with exit_on_error(COMMAND), refusal.travels(COMMAND):
        flags = parser().parse_args(argv)
        several = {
            "synthetic": tuple(flags.synthetic),
            "model": tuple(flags.model),
            "csv": tuple(flags.csv),
            "extractor": tuple(flags.extractor.split(",")),
        }
        command = Command(**{**vars(flags), **several})
        distributed.start(refusal.listen)
        refusal.hear_stops()
        run(command, shlex.join(["rfxray", "evaluate", "fidelity", *shown(flags)]))


def run(command: Command, line: str) -> None:
    """Opens the sets, extracts, compares, writes.

    Args:
      command: What the flags say.
      line: Command line that the results name.

    Raises:
      ConfigError, DataError: See `open_pictures`, `open_extractor` and `gather`.
    """
    first = distributed.place()[0] == 0
    # Only the first host writes there, so only it keeps others out.
    with folders.held(command.out, folder.FILES) if first else contextlib.nullcontext():
        _run(command, line, first)


def _run(command: Command, line: str, first: bool) -> None:
    extractors = [open_extractor(spec) for spec in command.extractor]
    sets = opened(command)
    if first:
        for label, pictures in sets.named().items():
            folder.announce(label, pictures, _say)
    began = time.monotonic()
    say = _say if first else _silent
    gathered = gathering.gather(sets, extractors, cache.folder("features"), say)
    for label, pictures in sets.named().items():
        if known := gathering.in_training_set(sets, label, gathered[0].features):
            say(f"{label}: {known:,} of {len(pictures):,} images are in the training set")
    published = []
    if command.protocol:
        stored = opened(command, display=False)
        variants = chexgenbench.variants(extractors)
        published = gathering.gather(stored, variants, cache.folder("features"), say, floors=False)
    seconds = {"features": time.monotonic() - began}
    if first:
        began = time.monotonic()
        judged = []
        for of in gathered:
            judged.append(fidelity.judge(sets, of, command.seed, command.model))
            _tell(of.extractor, judged[-1])
        rows = [row for of in published for row in chexgenbench.judge(of, command.seed)]
        seconds["figures"] = time.monotonic() - began
        head = results.head(line, command.seed, seconds)
        page = folder.write(
            command.out, sets, gathered, judged, head, published, rows, command.show_files
        )
        print(f"wrote {page}")
    distributed.barrier("the end of the comparison", 86400.0)


def opened(command: Command, display: bool = True) -> Sets:
    """The sets of a command, each synthetic one under the last part of its path."""
    tables = command.tables

    def one(given: str) -> Pictures:
        return open_pictures(given, tables.get(given), command.skip_rejected, display)

    synthetic: dict[str, Pictures] = {}
    for given in command.synthetic:
        pictures = one(given)
        label, number = pictures.name, 2
        while label in (*synthetic, "real", "train"):
            label, number = f"{pictures.name} {number}", number + 1
        synthetic[label] = pictures
    return Sets(one(command.real), synthetic, one(command.train) if command.train else None)


def shown(flags: argparse.Namespace) -> list[str]:
    """The words of a command line, with the last part of each path only: results are shared."""
    named = copy.copy(flags)
    named.real, named.out = last(flags.real), last(flags.out)
    named.train = last(flags.train) if flags.train else None
    named.synthetic = [last(given) for given in flags.synthetic]
    named.model = [last(given) for given in flags.model]
    named.csv = set_flags.named(flags.csv)
    specs = [spec.partition("=") for spec in flags.extractor.split(",")]
    named.extractor = ",".join(f"{name}{mark}{last(path)}" for name, mark, path in specs)
    return words_of(parser(), named)


def _tell(extractor: Extractor, judged: fidelity.Judged) -> None:
    for reason in judged.circular:
        _say(f"circular: {reason}")
    for line in judged.suspects:
        _say(f"{extractor.name}: {line}; see {folder.IMAGES}")
    _say(f"{extractor.name}: weights {extractor.hash[:12]}; {extractor.preprocessing}")
    floors = {
        (row.synthetic, row.figure.name, row.kind): row.figure
        for row in judged.rows
        if not row.part
    }
    for row in judged.rows:
        if row.kind not in ("figure", "difference"):
            continue
        figure = row.figure
        of = f"{row.synthetic} less {row.part}" if row.part else row.synthetic
        line = f"{of}: {figure}, N {figure.n_real:,} × {figure.n_synthetic:,}"
        for kind in report.FLOORS:
            floor = floors.get((row.synthetic, figure.name, kind))
            if row.kind == "figure" and floor is not None and floor.value is not None:
                line += f", {kind} {floor.value:.4g} (N {floor.n_real:,} × {floor.n_synthetic:,})"
        _say(line)


def _say(line: str) -> None:
    print(f"{COMMAND}: {line}", flush=True)


def _silent(line: str) -> None:
    pass


if __name__ == "__main__":
    main()
