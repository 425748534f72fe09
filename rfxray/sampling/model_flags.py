"""Flags of the commands that use a trained network: which one, and where they write."""

import argparse

from rfxray.command_line import add_allow_kind, local_path


def add_places(p: argparse.ArgumentParser) -> None:
    """Adds --checkpoint and --out."""
    p.add_argument(
        "--checkpoint",
        required=True,
        type=local_path,
        metavar="WORKDIR",
        help="--workdir of rfxray train",
    )
    p.add_argument(
        "--out",
        required=True,
        type=local_path,
        metavar="DIR",
        help="folder to create, or to resume in",
    )


def add_weights(group: argparse._ArgumentGroup) -> None:
    """Adds --ema, --step and --allow-kind, which choose the weights of the run."""
    group.add_argument(
        "--ema",
        type=float,
        default=0.05,
        help="which average of the weights: its width as a fraction of the training so far "
        "(default: 0.05)",
    )
    group.add_argument(
        "--step",
        type=int,
        help="training step of the checkpoint (default: the newest, or as in --out)",
    )
    add_allow_kind(group)
