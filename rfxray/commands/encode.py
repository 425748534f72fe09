"""A data set of images as one of latents, to train on.

    rfxray export --checkpoint runs/vae --out runs/vae_export
    rfxray encode --data data/cxr7 --vae runs/vae_export --out data/cxr7_latents

Each latent is the mean of the autoencoder's posterior, stored as float16, with everything else that
the data set says of the radiograph. The folder gets a copy of the autoencoder, which decodes what a
model makes of the latents. To continue after an interruption, run the same command again. Several
hosts that share the folder divide the work (docs/latents.md).
"""

import argparse
from collections.abc import Callable, Sequence

from rfxray.command_line import ArgumentParser, Progress, exit_on_error, local_path
from rfxray.data.manifest import summary
from rfxray.errors import ConfigError
from rfxray.runtime import distributed, refusal
from rfxray.sampling.encoding import EncodeRequest, encode

COMMAND = "rfxray.encode"


def parser() -> ArgumentParser:
    p = ArgumentParser(
        prog="rfxray encode",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--data", required=True, type=local_path, metavar="DATA", help="data set of images"
    )
    p.add_argument(
        "--vae",
        required=True,
        type=local_path,
        metavar="DIR",
        help="autoencoder, as rfxray export wrote it",
    )
    p.add_argument("--out", required=True, type=local_path, metavar="DIR", help="new folder")
    p.add_argument(
        "--log-variance",
        action="store_true",
        help="also store the log-variance of the posterior, at twice the size (default: no)",
    )
    p.add_argument(
        "--batch-size",
        type=int,
        default=EncodeRequest.batch_size,
        help="images that are encoded at once on a host (default: %(default)s)",
    )
    p.add_argument(
        "--shard-examples",
        type=int,
        default=EncodeRequest.shard_examples,
        help="latents in each file (shard) of the data set (default: %(default)s)",
    )
    return p


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser().parse_args(argv)
    with exit_on_error(COMMAND), refusal.travels(COMMAND):
        request = EncodeRequest(**vars(flags))
        if request.batch_size < 1:
            raise ConfigError(f"--batch-size must be at least 1 (got {request.batch_size})")
        distributed.start(refusal.listen)
        refusal.hear_stops()
        shown: list[Progress] = []

        def began(total: int, done: int) -> Callable[[], None]:
            first = distributed.place()[0] == 0
            shown.append(Progress(COMMAND, total, done, shown=first))
            return shown[0].advance

        try:
            manifest = encode(request, began)
        finally:
            for progress in shown:
                progress.close()
        if distributed.place()[0] == 0:
            print(f"{COMMAND}: {summary(manifest, request.out)}")


if __name__ == "__main__":
    main()
