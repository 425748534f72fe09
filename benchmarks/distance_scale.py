"""Time and memory of the distances of many features, one process for each measure.

    python -m benchmarks.distance_scale

Draws 50,000 real and 50,000 synthetic rows of float32 and prints, as Markdown, the seconds and the
peak memory of the process above that of the two sets. Set OMP_NUM_THREADS=1 for one core.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from rfxray.command_line import ArgumentParser, Progress, exit_on_error
from rfxray.evaluate import frechet, manifold

COMMAND = "benchmarks.distance_scale"


def _frechet(real: np.ndarray, synthetic: np.ndarray) -> float:
    return frechet.distance(frechet.moments(real), frechet.moments(synthetic))


def _prdc(real: np.ndarray, synthetic: np.ndarray) -> float:
    return manifold.prdc(real, synthetic).coverage


MEASURES: dict[str, tuple[Callable[[np.ndarray, np.ndarray], float], int]] = {
    "FD of 768 columns": (_frechet, 768),
    "FD of 2,048 columns": (_frechet, 2048),
    "PRDC of 768 columns": (_prdc, 768),
}


def measure(name: str, rows: int) -> str:
    """One line of the table."""
    function, width = MEASURES[name]
    rng = np.random.default_rng(0)
    real, synthetic = (rng.standard_normal((rows, width), dtype=np.float32) for _ in range(2))
    began = time.perf_counter()
    function(real, synthetic)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts kibibytes
    above = (peak - real.nbytes - synthetic.nbytes) / 2**30
    return f"| {name} | {rows:,} | {seconds:,.0f} | {above:.2f} | {peak / 2**30:.2f} |"


def main() -> None:
    parser = ArgumentParser(prog=f"python -m {COMMAND}", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--rows", type=int, default=50_000, help="of each set (default: %(default)s)"
    )
    parser.add_argument("--only", choices=list(MEASURES), help="measure this one in this process")
    arguments = parser.parse_args()
    with exit_on_error(COMMAND):
        if arguments.only:
            print(measure(arguments.only, arguments.rows))
            return
        print("| what | rows of each set | seconds | GiB beyond the features | GiB in all |")
        print("|---|---|---|---|---|", flush=True)
        with Progress(COMMAND, len(MEASURES), unit="measure") as progress:
            for name in MEASURES:
                words = ["--rows", str(arguments.rows), "--only", name]
                subprocess.run([sys.executable, "-m", COMMAND, *words], check=True)
                progress.advance()


if __name__ == "__main__":
    main()
