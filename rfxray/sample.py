"""Draws radiographs from a trained model: `python -m rfxray.sample --help`."""

import time
from collections.abc import Sequence

from rfxray.causes import cohorts, completion
from rfxray.command_line import Progress, exit_on_error
from rfxray.data.dataset import open_dataset
from rfxray.data.pixels import to_float
from rfxray.errors import Preempted
from rfxray.evaluate import memorisation
from rfxray.outputs.files import saving
from rfxray.runtime import distributed, refusal
from rfxray.sampling import samples, stream
from rfxray.sampling.flags import parser, request_of
from rfxray.sampling.model_flags import described, is_run
from rfxray.sampling.pretrained import Model, load
from rfxray.sampling.requests import Requests
from rfxray.sampling.sample_request import SampleRequest
from rfxray.sampling.sampler import Batches


def run(request: SampleRequest) -> None:
    """Loads the model, draws, writes, compares.

    Raises:
      ConfigError, DataError: See `load`, `requests` and `stream.write`.
      NonFiniteError, SaveFailed: If an image is not finite, or cannot be written.
    """
    out, settings = request.out, request.settings
    samples.refuse_folder(out)
    trained_on = open_dataset(request.nearest) if request.nearest is not None else None
    step = request.step
    if step is None and is_run(request.checkpoint):
        # The checkpoint that the folder was begun with: the training run may have continued since.
        step = stream.begun_step(out)
    model = load(
        request.checkpoint, request.ema, step, request.weak, request.allow_kinds, request.vae
    )
    if trained_on is not None:
        memorisation.check(trained_on, model.size)
    first = distributed.place()[0] == 0
    print(f"rfxray.sample: {described(model.source)}")
    if isinstance(request.asks, Requests) and request.asks.completion is not None:
        print(f"rfxray.sample: {request.asks.completion}")
    count = request.plan.n
    if request.compile_only:
        began = time.monotonic()
        batches = Batches(model, settings, min(settings.batch_size, count))
        batches.compile()
        print(f"rfxray.sample: compiled for {batches.size} in {time.monotonic() - began:.1f} s")
        return
    with saving(out):
        drawn = draw(model, request)
        if trained_on is not None:
            if first:
                shown = to_float(stream.first_pictures(out, request.plan))
                line = memorisation.save_nearest(shown, trained_on, out, of=count)
                print(f"rfxray.sample: {line}")
            # The others would wait at the end of their processes, for 300 s only.
            distributed.barrier("the nearest training images", stream.PATIENCE)
    if first:
        if drawn and model.space:
            rate = model.space.decoded_per_second()
            print(f"rfxray.sample: its latents are decoded at {rate:.3g} samples/s")
        print(f"rfxray.sample: {count:,} images, grid.png and samples.json in {out}")


def draw(model: Model, request: SampleRequest) -> bool:
    """Draws to disk; returns whether anything was left to draw."""
    plan, extra = request.plan, {"command": request.command(model)}
    done = stream.finished(request.out, plan)
    host, hosts = distributed.place()
    with Progress("rfxray.sample", plan.n // hosts, done // hosts, shown=host == 0) as progress:
        try:
            stream.write(
                *(model, request.settings, request.asks, plan, request.out, extra),
                progress.advance,
            )
        except KeyboardInterrupt:
            raise Preempted("interrupted; the same command continues where it stopped") from None
    return done < plan.n


def main(argv: Sequence[str] | None = None) -> None:
    with exit_on_error("rfxray.sample"), refusal.travels("rfxray.sample"):
        arguments = parser().parse_args(argv)
        distributed.start(refusal.listen)
        refusal.hear_stops()
        run(cohorts.asked_for(arguments, request_of(arguments, completion.of_model)))


if __name__ == "__main__":
    main()
