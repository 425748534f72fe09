"""Trains a RadiT: `python -m rfxray.train --config configs/smoke.py --workdir runs/smoke/train`.

Any key of the config is set with `--config.KEY=VALUE`. Running the same command again resumes the
run; a finished run says so and exits. Exit codes: see errors.py.
"""

import signal
import time
from collections import deque
from pathlib import Path

import jax
import numpy as np
from clu import parameter_overview

from rfxray import (
    chips,
    devices,
    errors,
    flops,
    input,
    model,
    partition,
    pictures,
    state,
    telemetry,
)
from rfxray import config as configuration
from rfxray.checkpoint import Checkpoints
from rfxray.optim import ema_name, schedule
from rfxray.sampling import Settings, sampler
from rfxray.step import train_step, validation_step

# Steps the host may run ahead of the device: enough to keep it busy, few enough that batches do not
# pile up in its memory. Waiting for a step this far back never leaves the device idle.
RUN_AHEAD = 8


def train(config, workdir: Path) -> None:
    """Runs or resumes a training to its last step.

    Raises:
      RfxrayError: of the kind that says why it ended early.
    """
    # ----- Setup: devices, data, model -------------------------------------------------------
    mesh = partition.make_mesh(**config.mesh)
    partition.check_batch(mesh, config.batch_size, config.accumulate)
    datasets = input.open_datasets(config)
    identity = configuration.identity(config, input.fingerprint(datasets))
    shape = model.model_config(config)

    workdir.mkdir(parents=True, exist_ok=True)
    abstract = state.abstract(config, mesh)
    metrics = telemetry.fresh_metrics(partition.replicated(mesh))
    checkpoints = Checkpoints(workdir, config, identity, abstract, metrics)

    # ----- State: fresh, or the newest checkpoint --------------------------------------------
    begun = checkpoints.latest()
    if begun is None:
        train_state, position = state.init(config, mesh), 0
    else:
        train_state, metrics, position = checkpoints.restore(begun)
    step = saved = begun or 0
    if position != step * config.batch_size:
        raise errors.DataError(f"checkpoint {step} of {workdir} stands at example {position}")
    if jax.process_index() == 0:
        (workdir / "config.json").write_text(config.to_json_best_effort(indent=1) + "\n")

    writer = telemetry.Writer(workdir, step)
    say = writer.say
    rate = schedule(config)
    count = parameter_overview.count_parameters(abstract["params"])
    say(f"rfxray.train → {workdir}")
    say(f"{mesh.size} {jax.devices()[0].device_kind} device(s), mesh {dict(mesh.shape)}")
    if begun is None:
        overview = parameter_overview.get_parameter_overview(
            abstract["params"], include_stats=False
        )
        for line in overview.split("\n"):
            say(line)
    say(f"{count:,} parameters, {shape.tokens} tokens a picture")
    for dataset in datasets:
        say(f"data {dataset.path}: {dataset.examples} pictures of {dataset.size}²")
    say(f"resumed at step {step}" if begun is not None else "a fresh run")

    # ----- Steps: training, validation, sample grid ------------------------------------------
    options = devices.compiler_options(jax.default_backend())
    take_step = jax.jit(train_step(config), donate_argnums=0, compiler_options=options)
    validate = jax.jit(validation_step(config))
    how = Settings(
        config.seed, config.samples.steps, config.samples.solver, config.samples.guidance
    )
    draw = jax.jit(sampler(config, how), out_shardings=partition.replicated(mesh))
    profile = ema_name(config.ema_sigmas[0])  # what validation and pictures look at

    hosts = {"host": jax.process_index(), "hosts": jax.process_count()}
    loader = input.batches(config, datasets, step, **hosts)
    fixed = []
    if config.eval.every:
        held_out = input.validation_batches(config, datasets, **hosts)
        fixed = [partition.global_batch(mesh, batch) for batch in held_out]
    asked = input.requests(config, datasets, multiple=mesh.shape["data"] * mesh.shape["fsdp"])

    def validation_losses() -> dict[str, float]:
        weights = {"params": train_state["params"], "ema": train_state["ema"][profile]}
        losses = {name: [validate(p, batch) for batch in fixed] for name, p in weights.items()}
        return {
            f"validation_loss/{k}": float(np.mean(jax.device_get(v))) for k, v in losses.items()
        }

    def sample_grid() -> np.ndarray:
        seed, weight = np.uint32(how.seed), np.float32(how.guidance)
        images = draw(train_state["ema"][profile], seed, weight, **asked)
        return pictures.grid(pictures.to_uint8(np.asarray(images)[..., 0]))

    # ----- The loop --------------------------------------------------------------------------
    stop = _stop_on_signal()
    chip = chips.find(jax.devices()[0].device_kind)
    meter = telemetry.Meter(
        *(step, config.steps, config.batch_size, shape.tokens),
        flops=flops.train_step(config),
        devices=mesh.size,
        peak=chip and chip.flops,
    )
    goodput = telemetry.Goodput(workdir)
    trace = telemetry.Trace(workdir, config.profile.first, config.profile.steps)
    bar = telemetry.Bar(step, config.steps)
    ahead = deque()
    compiling = time.perf_counter()
    (workdir / "samples").mkdir(exist_ok=True)

    with jax.set_mesh(mesh):
        while step < config.steps and not stop:
            batch = partition.global_batch(mesh, meter.wait(loader))
            trace.before(step + 1)
            with jax.transfer_guard("disallow"):
                train_state, metrics = take_step(train_state, metrics, batch)
            step += 1
            position = loader.get_state()["global_next_index"]
            bar.advance()
            ahead.append(metrics.loss.count)
            if len(ahead) > RUN_AHEAD:
                ahead.popleft().block_until_ready()
            if compiling is not None:  # the first step of this process, kept out of the rates
                metrics.loss.count.block_until_ready()
                say(f"first step after {telemetry.duration(time.perf_counter() - compiling)}")
                meter.restart(step)
                compiling = None
            if folder := trace.after(step, metrics.loss.count):
                say(f"step {step}: a trace of {config.profile.steps} steps in {folder}")

            last = step == config.steps

            def due(every, step=step, last=last):
                return every and (step % every == 0 or last)

            if due(config.log_every):
                values = telemetry.scalars(metrics)
                metrics = telemetry.fresh_metrics(partition.replicated(mesh))
                values |= meter.read(step) | {"learning_rate": float(rate(step - 1))}
                values |= goodput.read(meter.seconds)
                writer.scalars(step, values)
                say(telemetry.line(step, config.steps, values))
                if not np.isfinite(values["loss"]):
                    raise errors.NonFiniteError(
                        f"the loss is {values['loss']} at step {step}; the last checkpoint is of "
                        f"step {checkpoints.latest()}"
                    )
                checkpoints.check()

            begin = time.perf_counter()
            if due(config.eval.every):
                losses = validation_losses()
                writer.scalars(step, losses)
                say(f"step {step}: " + ", ".join(f"{k} {v:.4f}" for k, v in losses.items()))
            if due(config.samples.every):
                grid = sample_grid()
                file = workdir / "samples" / f"step_{step:08d}.png"
                writer.image(step, "samples", file, grid)
                say(f"step {step}: {file}")
            if due(config.checkpoint_every):
                checkpoints.save(step, train_state, metrics, position)
                saved = step
                say(f"step {step}: saving a checkpoint")
            meter.aside(begin)

    # ----- The end ---------------------------------------------------------------------------
    bar.close()
    if saved != step:  # asked to stop between two saves
        checkpoints.save(step, train_state, metrics, position)
    checkpoints.close()
    finished = step >= config.steps
    say(f"{'finished' if finished else 'stopped after'} {step} steps: {workdir}")
    writer.close()
    if not finished:
        raise errors.Preempted(f"saved at step {step}; run the same command again to go on")


def _stop_on_signal() -> list:
    """A list that is empty until the process is asked to stop."""
    asked = []

    def note(number, frame):
        asked.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    return asked


def main(argv=None) -> None:
    parser = errors.ArgumentParser(prog="python -m rfxray.train", description=__doc__)
    parser.add_argument("--config", required=True, metavar="FILE", help="a file of configs/")
    parser.add_argument("--workdir", required=True, type=Path, help="where the run keeps its files")
    arguments, rest = parser.parse_known_args(argv)
    with errors.exit_on_error("rfxray.train"):
        config = configuration.load(arguments.config, configuration.overrides(rest))
        devices.start()
        train(config, arguments.workdir)


if __name__ == "__main__":
    main()
