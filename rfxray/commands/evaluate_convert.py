"""Published weights of a network, turned into a safetensors file without running what they hold.

    rfxray evaluate convert pt_inception-2015-12-05-6726825d.pth --out inception.safetensors

Files of torch.save are pickles, which can run any code when they are opened. This command reads
them as data: state dicts as tensors only; pickled modules with their classes as names, which are
never imported. Nothing that a file names is called; a file that needs it is refused. A safetensors
file is checked and copied. FILE.safetensors.json records the SHA-256 of both files.
"""

import argparse
from collections.abc import Sequence

from rfxray.checkpoints import conversion
from rfxray.command_line import ArgumentParser, exit_on_error, local_path

COMMAND = "rfxray.evaluate.convert"
_SHOWN = 5  # names of a line


def parser() -> ArgumentParser:
    p = ArgumentParser(
        prog="rfxray evaluate convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("source", type=local_path, metavar="IN", help="file of the weights")
    p.add_argument(
        "--out", required=True, type=local_path, metavar="FILE.safetensors", help="output file"
    )
    return p


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser().parse_args(argv)
    with exit_on_error(COMMAND):
        print(f"{COMMAND}: reading {flags.source}")
        done = conversion.convert(flags.source, flags.out)
        print(f"{done.loader}: {done.tensors:,} tensors, {done.values:,} values")
        for what, names in (("left out", done.left_out), ("not imported", done.classes)):
            if names:
                more = " …" if len(names) > _SHOWN else ""
                print(f"{what}: {len(names)} ({', '.join(names[:_SHOWN])}{more})")
        print(f"SHA-256 of the source {done.source_sha256}")
        print(f"SHA-256 of the result {done.sha256}")
        print(f"wrote {flags.out} and {conversion.record_of(flags.out).name}")


if __name__ == "__main__":
    main()
