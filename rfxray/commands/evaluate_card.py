"""The evaluation part of a model card, from results of the other actions.

    rfxray evaluate card runs/fidelity runs/control runs/privacy --out MODEL_CARD.md

Markdown with the main figures, their intervals and floors, the worst parts and groups, the verdict
of the release gate, and the command and commit of each.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rfxray.command_line import ArgumentParser, exit_on_error, local_path
from rfxray.errors import ConfigError
from rfxray.evaluate import model_card
from rfxray.outputs import files

COMMAND = "rfxray.evaluate.card"


def parser() -> ArgumentParser:
    p = ArgumentParser(
        prog="rfxray evaluate card",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "results",
        nargs="+",
        type=local_path,
        metavar="RESULTS",
        help="folders that fidelity, control, privacy or utility wrote, or their results.json",
    )
    p.add_argument("--out", required=True, type=local_path, metavar="FILE", help="Markdown file")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser().parse_args(argv)
    with exit_on_error(COMMAND):
        out: Path = flags.out
        if out.is_dir():
            raise ConfigError(f"--out {out} is a folder; give the name of a file")
        text = model_card.markdown([model_card.read(path) for path in flags.results])
        with files.saving(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            files.write_whole(out, text)
        print(f"wrote {out}")


if __name__ == "__main__":
    main()
