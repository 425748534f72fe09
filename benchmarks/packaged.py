"""Makes what comes with the package from a smoke run: `python -m benchmarks.packaged runs/smoke`.

The argument is a folder that `launch/smoke.sh` wrote; the same folder gives the same bytes.

- `rfxray/sampling/packaged`: the export of its model, in bfloat16.
- `rfxray/evaluate/packaged`: its oracle in float16, with the ceiling on phantoms that it has not
  seen, measured as it is stored; what changed against its float32 weights is printed.

Both have seen only phantoms in their training, so they may be given away.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_prep.phantom.oracle import ceiling
from rfxray.checkpoints import exported
from rfxray.command_line import ArgumentParser, exit_on_error, local_path
from rfxray.errors import ConfigError
from rfxray.evaluate import classifier
from rfxray.outputs.files import saving, whole_file, write_whole
from rfxray.sampling.exporting import ExportRequest, export

COMMAND = "benchmarks.packaged"
LICENCE = "Apache-2.0"  # of the project, because phantoms are drawn by it
SEED, UNSEEN = 2, 2048  # as those of the figures that `data_prep.phantom.oracle` writes
PACKAGE = Path(classifier.__file__).parents[1]


def pack_model(run: Path, out: Path) -> None:
    """Exports the model of a smoke run into a folder, in place of an earlier export.

    Raises:
      ConfigError: If it was not trained on phantoms only, or `out` holds something else.
    """
    request = ExportRequest(
        run / "train", out, "bfloat16", data=[str(run / "phantom")], licence=LICENCE
    )
    if exported.is_export(out):
        shutil.rmtree(out)
    if not export(request).synthetic_only:
        shutil.rmtree(out)
        raise ConfigError(f"{run / 'phantom'} does not hold phantoms only; nothing was packaged")


def pack_oracle(trained: Path, out: Path, n: int) -> dict[str, float]:
    """Stores an oracle in float16, with its figures on n unseen phantoms as JSON beside.

    Returns:
      Ceiling of each attribute as it is stored minus that of the float32 weights.
    """
    oracle = classifier.load(trained)
    before = ceiling(oracle, SEED, n)
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as temporary:
        oracle.save(temporary, np.float16)
    after = ceiling(classifier.load(out), SEED, n)
    about = json.loads(trained.with_suffix(".json").read_text())
    kept = {key: about[key] for key in ("size", "n", "seed", "epochs")}
    write_whole(out.with_suffix(".json"), json.dumps(kept | after, indent=1) + "\n")
    return {name: value - before["ceiling"][name] for name, value in after["ceiling"].items()}


def main(argv: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(prog=f"python -m {COMMAND}", description=__doc__)
    parser.add_argument("folder", type=local_path, help="folder of a run of launch/smoke.sh")
    parser.add_argument(
        "--out",
        type=local_path,
        default=PACKAGE,
        metavar="DIR",
        help="folder that gets sampling/packaged and evaluate/packaged (default: the package)",
    )
    flags = parser.parse_args(argv)
    with exit_on_error(COMMAND), saving(flags.out):
        pack_model(flags.folder, flags.out / "sampling" / "packaged")
        oracle = flags.out / "evaluate" / "packaged" / "oracle.npz"
        changes = pack_oracle(flags.folder / "oracle.npz", oracle, UNSEEN)
        for name, change in changes.items():
            print(f"{name:28s} {change:+.4f}")
        print(f"{COMMAND}: sampling/packaged and evaluate/packaged in {flags.out}")


if __name__ == "__main__":
    main()
