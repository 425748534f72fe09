"""One EMA of a run as a folder: a safetensors file, its config, and checksums.

    rfxray export --checkpoint runs/mine --out exported --dtype bfloat16
    rfxray export --weights vae/diffusion_pytorch_model.safetensors --licence Apache-2.0 --out vae

The folder is opened wherever a run is: `--checkpoint exported`, `sampling.load("exported")`. It
holds neither a path nor the optimizer. In float32 it is the same network as the run's to the last
bit; in bfloat16 it is another one, at half the size. docs/sampling.md describes the files.

--weights makes the same folder of an autoencoder that others published: of Stable Diffusion 1, 2,
XL or 3, FLUX.1 or FLUX.2, in the naming of diffusers or the original one. The network follows from
the shapes of its tensors. Its licence has to be named; the folder carries it.

A run that adapts such an autoencoder (`--config rad_vae_flux2`) becomes one with the adapter
merged, or with --adapter-only the folder of the adapter that peft reads. Both carry the licence of
the base.
"""

import argparse
from collections.abc import Sequence

from rfxray.checkpoints.exported import UNSTATED, Facts
from rfxray.checkpoints.safetensors import DTYPES
from rfxray.command_line import (
    ArgumentParser,
    add_allow_kind,
    data_folder,
    exit_on_error,
    local_path,
)
from rfxray.errors import ConfigError
from rfxray.runtime import distributed
from rfxray.sampling import adapter, published_autoencoder
from rfxray.sampling.exporting import COMMAND, ExportRequest, export
from rfxray.sampling.pretrained import EMA
from rfxray.sampling.published_autoencoder import PublishedRequest

_SHOWN = 5  # names of a line


def parser() -> ArgumentParser:
    p = ArgumentParser(
        prog="rfxray export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = p.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--checkpoint", type=local_path, metavar="WORKDIR", help="--workdir of rfxray train"
    )
    source.add_argument(
        "--weights",
        type=local_path,
        metavar="FILE",
        help="published weights of an autoencoder: a safetensors file, or its folder of diffusers "
        "with config.json",
    )
    p.add_argument(
        "--adapter",
        type=local_path,
        metavar="DIR",
        help="LoRA of the decoder of --weights, as peft wrote it, to be merged (default: none)",
    )
    p.add_argument(
        "--adapter-only",
        action="store_true",
        help="of a --checkpoint that adapts an autoencoder: write only the adapter, as peft reads "
        "it (default: merged into the autoencoder)",
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
        help="which average of the weights, of the run or of rfxray posthoc-ema "
        f"(default: {EMA:g})",
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
        metavar="TEXT",
        help="licence of the weights, such as Apache-2.0; that of the training data may forbid "
        f"to share them (default: {UNSTATED}; needed by --weights)",
    )
    add_allow_kind(p)
    return p


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser().parse_args(argv)
    with exit_on_error(COMMAND):
        distributed.start_one(COMMAND)
        facts = _published(flags) if flags.weights else _run(flags)
        files = "model.safetensors, config.json and export.json"
        if flags.adapter_only:
            files = f"{adapter.TENSORS} and {adapter.CONFIG}"
        print(f"{COMMAND}: {files} in {flags.out} (weights {facts.weights[:12]}…)")


def _run(flags: argparse.Namespace) -> Facts:
    if flags.adapter:
        raise ConfigError("--adapter is merged into --weights; leave it out with --checkpoint")
    return export(
        ExportRequest(
            checkpoint=flags.checkpoint,
            out=flags.out,
            dtype=flags.dtype,
            ema=flags.ema,
            step=flags.step,
            data=flags.data or (),
            licence=flags.licence,
            allow_kinds=flags.allow_kind,
            adapter_only=flags.adapter_only,
        )
    )


def _published(flags: argparse.Namespace) -> Facts:
    of_run = ("ema", "step", "data", "allow_kind", "adapter_only")
    given = {name: getattr(flags, name) for name in of_run}
    absent = (None, [], ())  # not False, which step 0 equals
    if meant := [n for n, v in given.items() if v is not False and v not in absent]:
        raise ConfigError(
            f"--{meant[0].replace('_', '-')} is of a run; leave it out with --weights, or give a "
            "run as --checkpoint"
        )
    if not (flags.licence or "").strip():
        raise ConfigError(
            "--weights needs --licence, the terms under which they were published, such as "
            "Apache-2.0; see where you got them"
        )
    print(f"{COMMAND}: reading {flags.weights}")
    request = PublishedRequest(flags.weights, flags.out, flags.licence, flags.dtype, flags.adapter)
    facts, found = published_autoencoder.export(request)
    vae = found.vae
    print(
        f"{COMMAND}: autoencoder of factor {vae.factor} with {vae.latent_channels} channels of "
        f"latents, widths {', '.join(map(str, vae.widths))}: {facts.parameters:,} parameters in "
        f"{flags.dtype}, licence {facts.licence}"
    )
    if names := found.left_out:
        more = " …" if len(names) > _SHOWN else ""
        print(f"{COMMAND}: left out {len(names)} tensors ({', '.join(names[:_SHOWN])}{more})")
    return facts


if __name__ == "__main__":
    main()
