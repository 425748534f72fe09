"""An average of any width after training: `python -m rfxray.posthoc_ema --workdir W --sigma S`.

A run that keeps snapshots of its averages (`ema_every`) has enough to reconstruct an average of
another width: the wanted profile over the steps is approximated by the profiles that were kept, in
the least-squares sense, and the parameters by the same sum (Karras et al. 2024, arXiv 2312.02696,
§3.2). The result is in `W/posthoc/`, where `rfxray.sample --ema S` finds it. The command prints the
relative error of the profile, warns above 0.05 and refuses above 0.2. With 38 snapshots it is
0.0007 for a width between the two that were kept, 0.008 for 0.03, and 0.14 for 0.01.

`--sweep 0.03,0.05,0.07,0.1` judges widths by the evaluator `fidelity` of the run, on the noise of
its seed and on fresh noise, prints a table and keeps the best of them.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rfxray.command_line import ArgumentParser, add_allow_kind, exit_on_error, local_path
from rfxray.errors import ConfigError
from rfxray.outputs import files
from rfxray.runtime import distributed
from rfxray.training.reconstruction import WARNED, reconstruct
from rfxray.training.width_sweep import FRESH, sweep


@dataclasses.dataclass(frozen=True)
class Command:
    """What the flags say; see `parser`."""

    workdir: Path
    sigmas: tuple[float, ...]
    sweep: bool
    step: int | None
    fresh: int
    allow_kinds: tuple[str, ...]

    def __post_init__(self):
        if self.fresh < 1:
            raise ConfigError(f"--fresh must be at least 1 (got {self.fresh})")


def widths(text: str) -> tuple[float, ...]:
    """Two or more numbers with commas between them.

    Raises:
      ArgumentTypeError: If they are not, or one is there twice.
    """
    try:
        found = tuple(map(float, text.split(",")))
    except ValueError:
        found = ()
    if len(set(found)) < 2 or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r} must be two or more widths, as 0.03,0.07")
    return found


def parser() -> ArgumentParser:
    p = ArgumentParser(
        prog="python -m rfxray.posthoc_ema",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--workdir", required=True, type=local_path, metavar="DIR", help="--workdir of rfxray train"
    )
    wanted = p.add_mutually_exclusive_group(required=True)
    wanted.add_argument(
        "--sigma",
        type=float,
        help="width of the wanted average, as a fraction of the training so far; at most 0.25",
    )
    wanted.add_argument(
        "--sweep",
        type=widths,
        metavar="SIGMA,…",
        help="widths to compare by the run's evaluator fidelity; the best is made",
    )
    p.add_argument("--step", type=int, help="training step of a snapshot (default: the newest)")
    p.add_argument(
        "--fresh",
        type=int,
        default=FRESH,
        help="seeds on which --sweep judges each width again (default: %(default)s)",
    )
    add_allow_kind(p)
    return p


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser().parse_args(argv)
    sigmas = flags.sweep or (flags.sigma,)
    with exit_on_error("rfxray.posthoc_ema"):
        command = Command(
            flags.workdir,
            sigmas,
            flags.sweep is not None,
            flags.step,
            flags.fresh,
            tuple(flags.allow_kind),
        )
        distributed.start()
        if command.sweep:
            return _compare(command)
        folder, error = reconstruct(
            command.workdir, command.sigmas[0], command.step, command.allow_kinds
        )
        if error > WARNED:
            print(
                f"rfxray.posthoc_ema: WARNING: the profile is {error:.2f} off, more than {WARNED}",
                file=sys.stderr,
            )
        print(f"rfxray.posthoc_ema: relative error of the profile: {error:.1e}; wrote {folder}")


def _compare(command: Command) -> None:
    found = sweep(command.workdir, command.sigmas, command.step, command.allow_kinds, command.fresh)
    file = command.workdir / "posthoc" / f"sweep_{found.step:08d}.json"
    with files.saving(file):
        file.parent.mkdir(exist_ok=True)
    files.write_whole(file, json.dumps(found.entry(), indent=1) + "\n")
    print(found.table())
    where = f"wrote {found.folder}" if found.folder else "the run keeps it"
    print(
        f"rfxray.posthoc_ema: width {found.chosen} has the lowest {found.by}, and on "
        f"{found.confirmed} of {found.fresh} fresh seeds too; {where}, and {file}; sample with "
        f"--ema {found.chosen}"
    )


if __name__ == "__main__":
    main()
