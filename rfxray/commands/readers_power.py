"""How many readers and cases a reader study needs, by formula and by simulation.

    rfxray readers power --margin 0.05 --power 0.8 --readers 5,8,12 --cases 200,400 --out runs/power

The variances are given by flags, or estimated from a pilot study: --pilot with the flags of
`rfxray readers analyse`. Prints the smallest designs and a table with the true size of both tests,
and writes power.html and power.json.
"""

import argparse
from collections.abc import Sequence

from rfxray.command_line import ArgumentParser, Progress, exit_on_error, local_path, refuse_unread
from rfxray.commands.readers_analyse import add_reading
from rfxray.commands.readers_simulate import add_variances, numbers, variances
from rfxray.errors import ConfigError, DataError
from rfxray.outputs import folders
from rfxray.readers import plan, power, reading
from rfxray.readers.panel import panel, why_not_estimable
from rfxray.readers.roe_metz import RoeMetz

COMMAND = "rfxray.readers.power"


def parser() -> ArgumentParser:
    p = ArgumentParser(
        prog="rfxray readers power",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--margin",
        type=float,
        default=0.05,
        help="distance from .5 that counts as equivalent (default: %(default)s)",
    )
    p.add_argument("--power", type=float, default=0.8, help="wanted power (default: %(default)s)")
    p.add_argument(
        "--auc",
        type=float,
        default=0.5,
        help="true mean AUC: within the margin the power is of equivalence, outside of the test "
        "against .5 (default: %(default)s)",
    )
    p.add_argument(
        "--readers",
        type=whole_numbers,
        default=(3, 5, 8),
        metavar="N,N,…",
        help="numbers of readers (default: 3,5,8)",
    )
    p.add_argument(
        "--cases",
        type=whole_numbers,
        default=(100, 200, 400),
        metavar="N,N,…",
        help="numbers of images, half of them synthetic, or of pairs (default: 100,200,400)",
    )
    p.add_argument(
        "--pairs", action="store_true", help="show two images side by side (default: one)"
    )
    add_variances(p)
    p.add_argument(
        "--pilot",
        nargs="+",
        type=local_path,
        metavar="FILE",
        help="answers of a pilot study, which give the variances",
    )
    add_reading(p)
    p.add_argument(
        "--studies",
        type=int,
        default=2000,
        help="studies to simulate for each design; 0 for the formula only (default: %(default)s)",
    )
    p.add_argument("--out", required=True, type=local_path, metavar="DIR", help="output folder")
    return p


def whole_numbers(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them, as the type of a flag."""
    found = numbers(text)
    if any(value != int(value) for value in found):
        raise argparse.ArgumentTypeError(f"{text!r} must be whole numbers with commas")
    return tuple(int(value) for value in found)


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser().parse_args(argv)
    with exit_on_error(COMMAND):
        folders.refuse_others(flags.out, (plan.PAGE, plan.NUMBERS))
        model = _model(flags)
        wanted = plan.Wanted(
            margin=flags.margin,
            power=flags.power,
            area=flags.auc,
            readers=flags.readers,
            cases=flags.cases,
            model=model,
            studies=flags.studies,
            pairs=flags.pairs,
        )
        count = len(wanted.readers) * len(wanted.cases)
        print(
            f"{COMMAND}: {count} designs; variance of readers {model.reader:.4g}, "
            f"share of cases {model.case:.3g}"
        )
        least = plan.smallest(wanted)
        with Progress(COMMAND, count, unit="design") as progress:
            rows = list(plan.designs(wanted, progress.advance))
        print(plan.markdown(rows))
        print("\n".join(plan.sentences(wanted, least)))
        print(f"wrote {plan.write(flags.out, wanted, rows, least)}")


def _model(flags: argparse.Namespace) -> RoeMetz:
    given = ["reader_variance", "case_share", "reader_case_share"]
    if flags.pilot is None:
        refuse_unread(flags, ["key", "map", "middle"], "a plan without --pilot")
        return variances(flags)
    if any(getattr(flags, name) is not None for name in given):
        raise ConfigError("--pilot gives the variances; leave out the flags that set them")
    study = reading.read(flags.pilot, flags.key, flags.map, flags.middle)
    if len(study.modalities) != 1:
        raise DataError(
            f"the pilot has the modalities {', '.join(study.modalities)}; one is needed, or give "
            "the variances by flags"
        )
    # The variances are those of scores, so a pilot of either kind plans studies of both
    chosen = panel(study)
    if why := why_not_estimable(chosen):
        raise DataError(f"the pilot gives no variances: {why}")
    covariance = chosen.covariance("delong")[0, :, 0]
    return power.from_pilot(chosen.merit()[0], covariance, *chosen.patients(), study.pairs)


if __name__ == "__main__":
    main()
