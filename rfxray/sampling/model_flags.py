"""Flags of the commands that use a trained network: which one, and where they write."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from rfxray.checkpoints import exported
from rfxray.command_line import add_allow_kind, local_path
from rfxray.sampling.pretrained import PACKAGED_NAME


def add_places(p: argparse.ArgumentParser) -> None:
    """Adds --checkpoint and --out."""
    p.add_argument(
        "--checkpoint",
        type=local_path,
        metavar="WORKDIR",
        help="--workdir of rfxray train, or folder of rfxray export (default: the phantom model "
        "that comes with rfxray)",
    )
    p.add_argument(
        "--out",
        required=True,
        type=local_path,
        metavar="DIR",
        help="folder to create, or to resume in",
    )


def add_vae(group: argparse._ArgumentGroup) -> None:
    """Adds --vae."""
    group.add_argument(
        "--vae",
        type=local_path,
        metavar="DIR",
        help="autoencoder of a model of latents, as rfxray export wrote it (default: the copy "
        "beside the weights)",
    )


def add_weights(group: argparse._ArgumentGroup) -> None:
    """Adds --ema, --step and --allow-kind, which choose the weights of the run."""
    group.add_argument(
        "--ema",
        type=float,
        help="which average of the weights: its width as a fraction of the training so far "
        "(default: 0.05, or that of the export)",
    )
    group.add_argument(
        "--step",
        type=int,
        help="training step of the checkpoint (default: the newest, as in --out, or that of the "
        "export)",
    )
    add_allow_kind(group)


def is_run(checkpoint: Path | None) -> bool:
    """Whether a checkpoint is a run, of which a folder keeps the step that it was begun with."""
    return checkpoint is not None and not exported.is_export(checkpoint)


def described(source: Mapping[str, object]) -> str:
    """The network of a source, in words."""
    line = f"{source['checkpoint']} at step {source['step']}, EMA {source['ema']}"
    if source["checkpoint"] == PACKAGED_NAME:
        line += "; it has seen only procedural phantoms, and --checkpoint takes another model"
    return line
