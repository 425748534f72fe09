"""One EMA of a run as a folder: a safetensors file, its config, and checksums.

    rfxray export --checkpoint runs/mine --out exported --dtype bfloat16

The folder is opened wherever a run is: `--checkpoint exported`, `sampling.load("exported")`. It
holds neither a path nor the optimizer. In float32 it is the same network as the run's to the last
bit; in bfloat16 it is another one, at half the size. docs/sampling.md describes the files.
"""

import argparse
from collections.abc import Sequence

from rfxray.checkpoints.exported import UNSTATED
from rfxray.checkpoints.safetensors import DTYPES
from rfxray.command_line import (
    ArgumentParser,
    add_allow_kind,
    data_folder,
    exit_on_error,
    local_path,
)
from rfxray.runtime import distributed
from rfxray.sampling.exporting import COMMAND, ExportRequest, export
from rfxray.sampling.pretrained import EMA


def parser() -> ArgumentParser:
    p = ArgumentParser(
        prog="rfxray export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--checkpoint",
        required=True,
        type=local_path,
        metavar="WORKDIR",
        help="--workdir of rfxray train",
    )
    p.add_argument("--out", required=True, type=local_path, metavar="DIR", help="new folder")
    p.add_argument(
        "--dtype",
        default="float32",
        help=f"{' or '.join(DTYPES)} (default: float32, the same network as the run's)",
    )
    p.add_argument(
        "--ema",
        type=float,
        default=EMA,
        help="which average of the weights, of the run or of rfxray posthoc-ema "
        "(default: %(default)s)",
    )
    p.add_argument("--step", type=int, help="training step of the checkpoint (default: the newest)")
    p.add_argument(
        "--data",
        action="append",
        type=data_folder,
        metavar="DATA",
        help="data set of the training, where it is now, repeatable: the export names its sources, "
        "and is marked if they are phantoms only (default: those that the run names)",
    )
    p.add_argument(
        "--licence",
        default=UNSTATED,
        metavar="TEXT",
        help="licence of the weights, such as Apache-2.0; that of the training data may forbid "
        "to share them (default: not stated)",
    )
    add_allow_kind(p)
    return p


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser().parse_args(argv)
    request = ExportRequest(
        checkpoint=flags.checkpoint,
        out=flags.out,
        dtype=flags.dtype,
        ema=flags.ema,
        step=flags.step,
        data=flags.data or (),
        licence=flags.licence,
        allow_kinds=flags.allow_kind,
    )
    with exit_on_error(COMMAND):
        distributed.start_one(COMMAND)
        facts = export(request)
        print(
            f"{COMMAND}: model.safetensors, config.json and export.json in {request.out} (weights "
            f"{facts.weights[:12]}…)"
        )


if __name__ == "__main__":
    main()
