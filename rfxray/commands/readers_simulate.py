"""Answers of readers of known ability, as files that `rfxray readers analyse` reads.

    rfxray readers simulate --auc 0.5,0.5,0.5,0.75 --cases 200 --out runs/simulated
    rfxray readers analyse runs/simulated/answers-*.csv --key runs/simulated/key.json --out runs/a

Without --key it makes a key of its own. With --key it answers the cases of a study that was
designed, so that its analysis can be tried before anybody reads.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from rfxray.command_line import ArgumentParser, exit_on_error, local_path
from rfxray.errors import ConfigError
from rfxray.outputs import files, folders
from rfxray.readers import answers, key, simulation
from rfxray.readers.roe_metz import RoeMetz

COMMAND = "rfxray.readers.simulate"


def parser() -> ArgumentParser:
    p = ArgumentParser(
        prog="rfxray readers simulate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--auc",
        required=True,
        type=numbers,
        metavar="A,A,…",
        help="true AUC of each reader, before ratings; as many readers as numbers",
    )
    p.add_argument("--cases", type=int, help="images, or pairs of them (needed without --key)")
    p.add_argument(
        "--key", type=local_path, metavar="FILE", help="key of a study that was designed"
    )
    p.add_argument(
        "--pairs", action="store_true", help="show two images side by side (default: one)"
    )
    p.add_argument(
        "--bias",
        type=float,
        default=0.0,
        help='shift towards "synthetic", for pairs towards the left image, in deviations of the '
        "score (default: 0)",
    )
    p.add_argument(
        "--fatigue",
        type=float,
        default=0.0,
        help="share of the ability that is lost by the end, 0 to 1 (default: 0)",
    )
    p.add_argument(
        "--repeats",
        type=float,
        default=0.15,
        help="share of cases that are shown again at the end (default: %(default)s)",
    )
    add_variances(p)
    p.add_argument("--seed", type=int, default=0, help="seed (default: 0)")
    p.add_argument("--out", required=True, type=local_path, metavar="DIR", help="new folder")
    return p


def add_variances(p: argparse.ArgumentParser) -> None:
    """Adds the flags of the Roe–Metz model."""
    default = RoeMetz()
    p.add_argument(
        "--reader-variance",
        type=float,
        help=f"variance of readers on the scale of scores (default: {default.reader:g})",
    )
    p.add_argument(
        "--case-share",
        type=float,
        help=f"share of the variance that is of cases: all readers find the same ones easy "
        f"(default: {default.case:g})",
    )
    p.add_argument(
        "--reader-case-share",
        type=float,
        help=f"share that a reader repeats when a case is shown again "
        f"(default: {default.reader_case:g})",
    )


def variances(flags: argparse.Namespace) -> RoeMetz:
    """The model of these flags."""
    named = {
        "reader": flags.reader_variance,
        "case": flags.case_share,
        "reader_case": flags.reader_case_share,
    }
    return RoeMetz(**{name: value for name, value in named.items() if value is not None})


def numbers(text: str) -> tuple[float, ...]:
    """Numbers with commas between them, as the type of a flag."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} must be numbers with commas") from error


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser().parse_args(argv)
    with exit_on_error(COMMAND):
        simulated = simulation.Simulated(
            areas=flags.auc,
            bias=flags.bias,
            fatigue=flags.fatigue,
            repeats=flags.repeats,
            model=variances(flags),
            seed=flags.seed,
        )
        print(f"{COMMAND}: {len(simulated.areas)} readers, seed {simulated.seed}")
        opened = _key(flags, len(simulated.areas))
        for reader, rows in simulation.answer(opened, simulated).items():
            files.write_whole(flags.out / f"answers-{reader}.csv", answers.text(rows))
        print(f"wrote {len(simulated.areas)} files of answers into {flags.out}")


def _key(flags: argparse.Namespace, readers: int) -> key.Key:
    """The key that is given, or a new one; the output folder exists from here on."""
    out: Path = flags.out
    cases: int = flags.cases or 0
    if (flags.key is None) == (flags.cases is None):
        raise ConfigError("give --cases for a new study, or --key for one that was designed")
    if flags.key is None and cases < 4:
        raise ConfigError(f"--cases must be at least 4 (got {cases})")
    folders.refuse_content(out)
    if flags.key is not None:
        if not flags.key.is_file():
            raise ConfigError(f"{flags.key} is not a file; give the key of a study")
        opened = key.read(flags.key)
        if flags.pairs:
            raise ConfigError("--key says whether images are shown in pairs; leave --pairs out")
        if opened.sides and readers > len(opened.sides):
            raise ConfigError(
                f"--auc has {readers} readers, the study of --key {len(opened.sides)}; give one "
                "AUC for each of its readers"
            )
        with files.saving(out):
            out.mkdir(parents=True, exist_ok=True)
        return opened
    modality = "pairs" if flags.pairs else "single"
    made = simulation.new_key("simulated", modality, cases, readers, flags.seed)
    with files.saving(out):
        out.mkdir(parents=True, exist_ok=True)
        files.write_whole(out / "key.json", json.dumps(made, indent=1) + "\n")
    return key.read(out / "key.json")


if __name__ == "__main__":
    main()
