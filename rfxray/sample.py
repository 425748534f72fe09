"""Draws radiographs from a trained model: `python -m rfxray.sample --help`."""

import sys
import time
from collections.abc import Sequence

import numpy as np

from rfxray import stop_signals
from rfxray.command_line import Progress, exit_on_error
from rfxray.data.dataset import open_dataset
from rfxray.errors import Preempted
from rfxray.evaluate import memorisation
from rfxray.outputs.files import saving
from rfxray.runtime import distributed
from rfxray.sampling import samples, stream, tables
from rfxray.sampling.flags import SampleRequest, parser, request_of
from rfxray.sampling.pretrained import Model, load
from rfxray.sampling.sampler import Batches
from rfxray.sampling.tables import Table


def run(request: SampleRequest) -> None:
    """Loads the model, draws, writes, compares.

    Raises:
      ConfigError, DataError: see `load`, `requests` and `stream.write`.
      NonFiniteError, SaveFailed: if an image is not finite, or cannot be written.
    """
    out, asks, settings = request.out, request.asks, request.settings
    samples.refuse_folder(out)
    trained_on = open_dataset(request.nearest) if request.nearest is not None else None
    # Without --step the checkpoint is that which the folder was begun with, if it was: the training
    # run may have continued since.
    step = stream.begun_step(out, request.checkpoint) if request.step is None else request.step
    model = load(request.checkpoint, request.ema, step, request.weak, request.allow_kinds)
    if trained_on is not None:
        memorisation.check(trained_on, model.size)
    source = model.source
    print(f"rfxray.sample: {source['checkpoint']} at step {source['step']}, EMA {source['ema']}")
    count = asks.images if isinstance(asks, Table) else request.n
    if request.compile_only:
        began = time.monotonic()
        batches = Batches(model, settings, min(settings.batch_size, count))
        batches.compile()
        print(f"rfxray.sample: compiled for {batches.size} in {time.monotonic() - began:.1f} s")
        return
    with saving(out):
        shown = draw(model, request)
        if trained_on is not None:
            line = memorisation.save_nearest(shown, trained_on, out, of=count)
            print(f"rfxray.sample: {line}")
    print(f"rfxray.sample: {count:,} images, grid.png and samples.json in {out}")


def draw(model: Model, request: SampleRequest) -> np.ndarray:
    """Draws to disk; returns the first images, [n, height, width] float32 in [−1, 1]."""
    settings, asks, out = request.settings, request.asks, request.out
    command = request.command(model)
    if isinstance(asks, Table):
        with Progress("rfxray.sample", asks.images) as progress:
            return tables.write(model, settings, asks, out, command, progress.advance).images
    plan = request.plan
    with Progress("rfxray.sample", plan.n, stream.finished(out, plan)) as progress:
        try:
            extra = {"command": command}
            stream.write(model, settings, asks, plan, out, extra, progress.advance)
        except KeyboardInterrupt:
            raise Preempted("interrupted; the same command continues where it stopped") from None
    return stream.save_first(out, plan, samples.title(request.asked, settings.guidance))


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    words = list(sys.argv[1:] if argv is None else argv)
    with exit_on_error("rfxray.sample"):
        distributed.start()
        stop_signals.hear_again()  # on several hosts JAX takes SIGTERM, for what only training does
        run(request_of(arguments, words))


if __name__ == "__main__":
    main()
