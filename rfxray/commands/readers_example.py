"""A whole study in a minute, of phantoms and of samples of the model in the package.

    rfxray readers example --out runs/example

It shows each command before it runs it, so that they can be repeated with other sets: phantoms,
samples under the same attributes, the pages of three readers with their key and protocol, answers
of three simulated readers of whom one tells the images apart, and their analysis. The pages open in
a browser. After an interruption the same command continues.
"""

import argparse
import shlex
from collections.abc import Sequence

from rfxray.command_line import ArgumentParser, exit_on_error, local_path
from rfxray.commands import table
from rfxray.errors import ConfigError

COMMAND = "rfxray.readers.example"


# The file that each command writes last, and the command. Phantoms of this seed are not among those
# that the model in the package has seen; 8 is the side of its patches: a reader may see that grid.
STEPS = (
    ("real/manifest.json", "phantom --n 240 --size 64 --seed 12 --out OUT/real"),
    ("synthetic/samples.json", "sample --like OUT/real --n 60 --out OUT/synthetic"),
    (
        "study/protocol.md",
        "readers design --study example --real OUT/real --synthetic OUT/synthetic "
        "--match view,sex --cases 60 --readers 3 --training 4 --size 64 --model-grid 8 "
        "--margin 0.1 --key OUT/key.json --out OUT/study",
    ),
    (
        "answers/answers-reader-3.csv",
        "readers simulate --key OUT/key.json --auc 0.5,0.5,0.9 --out OUT/answers",
    ),
    (
        "analysis/results.json",
        "readers analyse OUT/answers/answers-reader-1.csv OUT/answers/answers-reader-2.csv "
        "OUT/answers/answers-reader-3.csv --key OUT/key.json --margin 0.1 --out OUT/analysis",
    ),
)


def main(argv: Sequence[str] | None = None) -> None:
    p = ArgumentParser(
        prog="rfxray readers example",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--out", required=True, type=local_path, metavar="DIR", help="folder of it all")
    with exit_on_error(COMMAND):
        out = p.parse_args(argv).out
        if out.exists() and not out.is_dir():
            raise ConfigError(f"{out} is a file; give a folder by --out")
        for last, text in STEPS:
            if (out / last).exists():
                continue
            words = [word.replace("OUT", str(out)) for word in text.split()]
            print(f"\n$ rfxray {shlex.join(words)}", flush=True)
            table.main(words)
    print(f"wrote {out / 'study' / 'reader-1.html'} and {out / 'analysis' / 'analysis.html'}")


if __name__ == "__main__":
    main()
