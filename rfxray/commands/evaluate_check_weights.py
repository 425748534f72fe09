"""Published weights of an extractor, checked: their hash, and the features of a built-in picture.

    rfxray evaluate check-weights rad_dino=models/rad-dino
    rfxray evaluate check-weights xrv=models/xrv.safetensors

The figures are the same on every machine to about six digits. If the PyTorch project that published
the weights is installed (`pip install 'rfxray[peers]'`), its features of the same picture stand
below ours, and the command fails if they differ by more than 1e-4 of the largest. Nothing is
written.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from rfxray.command_line import ArgumentParser, at_home, exit_on_error
from rfxray.errors import ConfigError
from rfxray.evaluate.extractors import check_weights, kinds, twins

COMMAND = "rfxray.evaluate.check_weights"


def parser() -> ArgumentParser:
    p = ArgumentParser(
        prog="rfxray evaluate check-weights",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "extractor", metavar="NAME[=WEIGHTS]", help=f"extractor: {', '.join(kinds.NAMES)}"
    )
    return p


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser().parse_args(argv)
    with exit_on_error(COMMAND):
        print(f"{COMMAND}: opening {flags.extractor}")
        extractor = kinds.open_extractor(flags.extractor)
        print(f"weights    SHA-256 {extractor.hash}")
        print(f"trained on {', '.join(extractor.trained_on)}")
        print(f"prepares   {extractor.preprocessing}")
        twin, why = _twin(flags.extractor)
        found = check_weights.check(extractor, twin)
        print(f"features   {_numbers(found.features)} … ({extractor.width})")
        if found.twin is not None:
            print(f"PyTorch    {_numbers(found.twin)} …")
        for name, value in found.scores.items():
            print(f"score      {value:.6f} {name}")
        if found.difference is None:
            print(f"not compared: {why}")
        else:
            print(f"equal to its PyTorch original: largest difference {found.difference:.1e}")


def _twin(spec: str) -> tuple[twins.Twin | None, str]:
    name, _, path = spec.partition("=")
    if name not in twins.NAMES:
        return None, f"{name} has no original in PyTorch that this command knows"
    try:
        return twins.open_twin(name, at_home(path)), ""
    except ConfigError as error:
        return None, str(error)


def _numbers(features: np.ndarray) -> str:
    return " ".join(f"{value:.6g}" for value in features[: check_weights.SHOWN])


if __name__ == "__main__":
    main()
