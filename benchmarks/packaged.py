"""Makes the oracle that comes with the package: `python -m benchmarks.packaged runs/smoke`.

From a folder that `launch/smoke.sh` wrote. The oracle is stored in float16, and its ceiling on
phantoms that it has not seen is measured as it is stored, beside that of its float32 weights. Only
phantoms were seen in its training, so it may be given away.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_prep.phantom.oracle import ceiling
from rfxray.command_line import ArgumentParser, exit_on_error, local_path
from rfxray.evaluate import classifier
from rfxray.outputs.files import saving, whole_file, write_whole

COMMAND = "benchmarks.packaged"
SEED, UNSEEN = 2, 2048  # as those of the figures that `data_prep.phantom.oracle` writes
PACKAGE = Path(classifier.__file__).parents[1]


def pack_oracle(trained: Path, out: Path, n: int = UNSEEN) -> dict[str, float]:
    """Stores an oracle in float16, with its figures as JSON beside.

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
        help="folder that gets evaluate/packaged (default: the package itself)",
    )
    flags = parser.parse_args(argv)
    with exit_on_error(COMMAND), saving(flags.out):
        oracle = flags.out / "evaluate" / "packaged" / "oracle.npz"
        changes = pack_oracle(flags.folder / "oracle.npz", oracle)
        for name, change in changes.items():
            print(f"{name:28s} {change:+.4f}")
        print(f"{COMMAND}: {oracle}")


if __name__ == "__main__":
    main()
