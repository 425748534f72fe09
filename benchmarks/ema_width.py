"""How often the width of the average that a sweep picks is the best on fresh samples too.

    python -m benchmarks.ema_width --folder runs/smoke --out runs/widths

Trains the last part of a smoke run again with snapshots of its averages, from its last checkpoint
but one, and sweeps widths by the run's evaluator fidelity on several seeds of the noise. Each seed
picks a width, and every other seed says whether that is its best too: the share of these ordered
pairs is the answer. The measure of one width on one seed takes about 15 s of CPU time, the training
2 to 3 minutes. After a kill the same command continues with the training, and then sweeps.
"""

import argparse
import json
import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from rfxray import version
from rfxray.checkpoints import weights
from rfxray.command_line import ArgumentParser, exit_on_error, local_path, words_of
from rfxray.config.load import from_json, override
from rfxray.errors import ConfigError
from rfxray.outputs import files
from rfxray.outputs.folders import whole_folder
from rfxray.posthoc_ema import widths
from rfxray.train import train
from rfxray.training.width_sweep import Sweep, sweep

COMMAND = "benchmarks.ema_width"
SNAPSHOTS = 25  # steps between two


def parser() -> ArgumentParser:
    p = ArgumentParser(
        prog="python -m benchmarks.ema_width",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--folder", type=local_path, default=Path("runs/smoke"), help="folder of a smoke run"
    )
    p.add_argument("--sweep", type=widths, default=(0.03, 0.05, 0.07, 0.1), metavar="SIGMA,…")
    p.add_argument("--fresh", type=int, default=4, help="further seeds (default: %(default)s)")
    p.add_argument("--out", type=local_path, required=True, metavar="DIR", help="folder to make")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser().parse_args(argv)
    with exit_on_error(COMMAND):
        began = time.monotonic()
        workdir = trained(flags.folder, flags.out)
        found = sweep(workdir, flags.sweep, fresh=flags.fresh)
        named = argparse.Namespace(
            **{**vars(flags), "folder": flags.folder.name, "sweep": ",".join(map(str, flags.sweep))}
        )
        agree, pairs = found.agreement
        result = {
            "command": shlex.join(
                ["python", "-m", "benchmarks.ema_width", *words_of(parser(), named, ("out",))]
            ),
            "written_by": version.versions(),
            "seconds": round(time.monotonic() - began, 1),
            **found.entry(),
            "agree": agree,
            "pairs": pairs,
        }
        file = flags.out / "ema_width.json"
        with files.saving(file):
            files.write_whole(file, json.dumps(result, indent=1) + "\n")
        print(said(found))
        print(f"wrote {file}")


def said(found: Sweep) -> str:
    """The table of a sweep, and how often its seeds agree."""
    agree, pairs = found.agreement
    return (
        f"{found.table()}\n\nWidth {found.chosen} has the lowest {found.by}, and on "
        f"{found.confirmed} of {found.fresh} fresh seeds too. Of {pairs} ordered pairs of seeds, "
        f"{agree} agree on the best width."
    )


def trained(folder: Path, out: Path) -> Path:
    """A run like that of `folder`, with its last part trained again and snapshots of it kept.

    Raises:
      ConfigError: If the run has one checkpoint only.
    """
    run, workdir = folder / "train", out / "train"
    config = override(
        from_json(weights.read_config(run)),
        {
            "ema_every": SNAPSHOTS,
            "data.dirs": (str(folder / "phantom"),),
            "evaluators.validation_loss.every": 0,
            "evaluators.sample_grid.every": 0,
        },
    )
    folders = [path for path in (run / "checkpoints").iterdir() if path.name.isdigit()]
    if len(folders) < 2:
        raise ConfigError(f"{run} has one checkpoint, so its last part cannot be trained again")
    before = sorted(folders, key=lambda path: int(path.name))[-2]
    if not workdir.exists():
        with whole_folder(workdir) as inside:
            shutil.copytree(before, inside / "checkpoints" / before.name)
            shutil.copy(run / "run.json", inside / "run.json")
    train(config, workdir)
    return workdir


if __name__ == "__main__":
    main()
