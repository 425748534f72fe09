"""The two ends of a sample, `--last velocity` and `--last data`, read by an oracle of phantoms.

    python -m benchmarks.last_step --checkpoint runs/smoke/train --oracle runs/smoke/oracle.npz

For phantoms and samples with the same attributes: the mean balanced accuracy of the oracle (without
race, which is in no pixel), and the high-pass statistic, the standard deviation of an image minus
its 3 × 3 median, in levels of 255. And the seconds that guidance within an interval takes, as a
share of those of guidance at all times. Prints Markdown. Some minutes on one core.
"""

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import median_filter
from tqdm import tqdm

from data_prep import phantom
from rfxray import sampling
from rfxray.attributes.vocabulary import Attributes, all_known
from rfxray.command_line import ArgumentParser, exit_on_error
from rfxray.data.pixels import to_float
from rfxray.evaluate import classifier
from rfxray.runtime import distributed
from rfxray.sampling.settings import LAST

SEED = 4242  # of phantoms that the model has not seen
CASES = (("ab2", 20), ("ab2", 50), ("heun", 16))
INTERVAL = (0.3, 0.7)


def high_pass(images: np.ndarray) -> float:
    """Mean standard deviation of images [n, height, width] in [−1, 1] minus their medians."""
    return float(np.mean([(i - median_filter(i, 3)).std() for i in images]) * 127.5)


def accuracy(oracle: classifier.Oracle, images: np.ndarray, asked: Attributes) -> float:
    """Mean balanced accuracy of the categorical attributes that are in the pixels."""
    scores = classifier.scores(oracle, images, asked)
    return float(np.mean([s for name, s in scores.items() if name not in ("age", "race")]))


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.last_step", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--checkpoint", required=True, metavar="WORKDIR", help="workdir of a run")
    parser.add_argument("--oracle", required=True, type=Path, help="oracle of the phantoms")
    parser.add_argument("--n", type=int, default=64, help="number of samples (default: 64)")
    arguments = parser.parse_args()
    with exit_on_error("benchmarks.last_step"):
        distributed.start()
        model, oracle = sampling.load(arguments.checkpoint), classifier.load(arguments.oracle)
        indices = np.arange(arguments.n)
        attributes = phantom.draw_attributes(SEED, indices)
        asked = all_known(attributes)
        drawn = to_float(phantom.draw_images(attributes, SEED, indices, model.size))
        rows = [("phantoms", "", high_pass(drawn), accuracy(oracle, drawn, asked))]
        plain = sampling.Settings(seed=SEED, guidance=2.0, batch_size=32)
        for solver, steps in tqdm(CASES, desc="last step", disable=None):
            for last in LAST:
                how = dataclasses.replace(plain, solver=solver, steps=steps, last=last)
                images = sampling.generate(model, asked, settings=how).images
                found = high_pass(images), accuracy(oracle, images, asked)
                rows.append((f"`{solver}`, {steps} steps", last, *found))
        seconds = []
        batch = asked.rows(slice(16))
        for interval in ((0.0, 1.0), INTERVAL):
            how = dataclasses.replace(plain, steps=20, batch_size=16, interval=interval)
            sampling.generate(model, batch, settings=how)  # compiles
            began = time.monotonic()
            sampling.generate(model, batch, settings=how)
            seconds.append(time.monotonic() - began)
    print("| | last step | high-pass | oracle |\n|---|---|---|---|")
    for name, last, passed, read in rows:
        print(f"| {name} | {last} | {passed:.2f} | {read:.3f} |")
    low, high = INTERVAL
    print(f"guidance within {low:g} to {high:g}: {seconds[1] / seconds[0]:.2f} of the time")


if __name__ == "__main__":
    main()
