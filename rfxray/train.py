"""Trains a RadiT: `python -m rfxray.train --config configs/smoke.py --workdir runs/smoke/train`.

Any key of the config is set with `--config.KEY=VALUE`. Running the same command again resumes the
run; a finished run says so and exits. Exit codes: see errors.py.
"""

import time
from collections import deque
from pathlib import Path

import jax
import numpy as np
from clu import parameter_overview

from rfxray import command_line, errors
from rfxray.attributes.vocabulary import Attributes
from rfxray.checkpoints.run import Checkpoints
from rfxray.checkpoints.weights import ema_name
from rfxray.config import load as configuration
from rfxray.config.identity import identity_of
from rfxray.data import batches, dataset, pixels
from rfxray.data.faults import Faults
from rfxray.networks import attention, radit
from rfxray.outputs import contact_sheet, files
from rfxray.perf import chips, flops
from rfxray.runtime import compiler_options, distributed, sharding
from rfxray.runtime.preemption import StopRequest
from rfxray.runtime.watchdog import Watchdog
from rfxray.sampling import pretrained
from rfxray.sampling.sampler import Settings, make_sampler
from rfxray.training import run_log, skip_guard, skip_report, state
from rfxray.training.metrics import fresh_metrics, scalars
from rfxray.training.optimizer import schedule
from rfxray.training.profile import Trace
from rfxray.training.rates import Goodput, Meter
from rfxray.training.step import abstract_batch, train_step, validation_step

# Steps the host may run ahead of the device: enough to keep it busy, few enough that batches do not
# pile up in its memory. Waiting for a step this far back never leaves the device idle.
RUN_AHEAD = 8


def train(config, workdir: Path, allow: tuple[str, ...] = ()) -> None:
    """Runs or resumes a training to its last step.

    Args:
      config: of the run, checked.
      workdir: where it keeps its files.
      allow: identity keys in which a checkpoint may differ from the config.

    Raises:
      RfxrayError: of the kind that says why it ended early.
    """
    # ----- Setup: devices, data, model -------------------------------------------------------
    stop = StopRequest(config.stop_seconds)
    mesh = sharding.make_mesh(**config.mesh)
    sharding.check_batch(mesh, config.batch_size, config.accumulate)
    shape = radit.model_config(config)
    attention.refuse_elsewhere(config.attention, jax.default_backend(), shape.head_dim, shape.dtype)
    hosts = {"host": jax.process_index(), "hosts": jax.process_count()}
    datasets = batches.open_datasets(config)
    for each in datasets:
        dataset.verify(each, config.data.verify, **hosts)
    identity = identity_of(config, batches.fingerprint(datasets))

    make_workdir(workdir)
    abstract = state.abstract(config, mesh)
    metrics = fresh_metrics(sharding.replicated(mesh))
    checkpoints = Checkpoints(workdir, config, identity, abstract, metrics, allow)

    # ----- State: fresh, or the newest checkpoint that is whole ------------------------------
    begun = checkpoints.resume()
    if begun is None:
        step, position, train_state, found = 0, 0, state.init(config, mesh), []
    else:
        step, (train_state, metrics, position), found = begun
    saved = step
    skips = skip_guard.Watch(int(train_state["guard"]["skipped"]))
    if jax.process_index() == 0:
        told = config.to_json_best_effort(indent=1) + "\n"
        files.write_whole(workdir / "config.json", told.encode())

    writer = run_log.Writer(workdir, step)
    goodput = Goodput(workdir)  # from here on, so that compiling counts as lost
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
    for each in datasets:
        counts = ", ".join(f"{split} {n:,}" for split, n in each.examples.items())
        say(f"data {each.path}: pictures of {each.size}², {counts}")
    for line in found + checkpoints.changes:
        say(line)
    say(f"resumed at step {step}" if begun is not None else "a fresh run")
    if begun and config.ema_every and (step % config.ema_every == 0 or step == config.steps):
        checkpoints.snapshot(step, train_state, position)  # a kill may have cut it off
    if step >= config.steps:
        say(f"finished {step} steps: {workdir}")
        checkpoints.close()
        writer.close()
        return

    # ----- Steps: training, validation, sample grid ------------------------------------------
    watch = Watchdog(workdir, writer.alarm, step=step, **hosts, **config.watchdog)
    watch.doing("compiling")
    options = compiler_options.options_for(jax.devices()[0].device_kind)
    begin = time.perf_counter()
    with jax.set_mesh(mesh):
        take_step = (
            jax.jit(
                train_step(config),
                donate_argnums=0,
                out_shardings=(state.shardings(config, mesh), sharding.replicated(mesh)),
                compiler_options=options,
            )
            .lower(train_state, metrics, abstract_batch(config, mesh))
            .compile()
        )
    say(f"compiled after {command_line.duration(time.perf_counter() - begin)}")
    validate = jax.jit(validation_step(config))
    how = Settings(
        config.seed, config.samples.steps, config.samples.solver, config.samples.guidance
    )
    draw = jax.jit(
        make_sampler(pretrained.velocity(config), pretrained.shape(config), how),
        out_shardings=sharding.replicated(mesh),
    )
    profile = ema_name(config.ema_sigmas[0])  # what validation and pictures look at

    faults = Faults(workdir / "data_faults.jsonl", config.data.tolerate)
    loader = batches.train_batches(config, datasets, position, **hosts, faults=faults)
    fixed = []
    if config.eval.every:
        held_out = batches.validation_batches(config, datasets, **hosts, faults=faults)
        fixed = [sharding.global_batch(mesh, batch) for batch in held_out]
    asked = batches.requests(
        config, datasets, multiple=mesh.shape["data"] * mesh.shape["fsdp"], faults=faults
    )

    def validation_losses() -> dict[str, float]:
        weights = {"params": train_state["params"], "ema": train_state["ema"][profile]}
        losses = {name: [validate(p, batch) for batch in fixed] for name, p in weights.items()}
        return {
            f"validation_loss/{k}": float(np.mean(jax.device_get(v))) for k, v in losses.items()
        }

    def sample_grid() -> np.ndarray:
        seed, weight = np.uint32(how.seed), np.float32(how.guidance)
        attributes = Attributes(asked["attributes"], asked["known"])
        images = draw(train_state["ema"][profile], seed, weight, asked["indices"], attributes)
        return contact_sheet.grid(pixels.to_uint8(np.asarray(images)[..., 0]))

    def save() -> float:
        tell_skips()  # so that every skip which a checkpoint counts stands in the log
        return checkpoints.save(step, train_state, metrics, position)

    def tell_skips() -> None:
        seen = jax.device_get(train_state["guard"])
        new = skips.new(seen)
        for skip in new:
            say(skip_report.line(config, datasets, skip, faults))
        if skip_guard.too_many(seen, new, config.skip.limit, config.skip.window):
            checkpoints.save(step, train_state, metrics, position)
            checkpoints.close()
            raise errors.NonFiniteError(
                f"{config.skip.limit} steps or more within {config.skip.window} had a gradient "
                f"that is not finite or explodes; saved at step {step}; look at "
                f"{skip_report.keep(workdir, config, datasets, seen, step, faults)}"
            )

    # ----- The loop --------------------------------------------------------------------------
    chip = chips.find(jax.devices()[0].device_kind)
    meter = Meter(
        *(step, config.steps, config.batch_size, shape.tokens),
        flops=flops.train_step(config),
        devices=mesh.size,
        peak=chip and chip.flops,
    )
    trace = Trace(workdir, config.profile.first, config.profile.steps)
    bar = command_line.Bar(step, config.steps, hosts["host"])
    ahead = deque()
    first, saved_at = True, time.perf_counter()
    waited = 0.0  # for checkpoints, since the last log step
    distributed.barrier("the first step")  # hosts compile at their own pace

    with watch, jax.set_mesh(mesh):
        while step < config.steps and not stop.agreed(step):
            watch.doing("data")
            batch = sharding.global_batch(mesh, meter.wait(loader))
            watch.doing("the device")
            trace.before(step + 1)
            with jax.transfer_guard("disallow"):
                train_state, metrics = take_step(train_state, metrics, batch)
            step += 1
            position = loader.get_state()["global_next_index"]
            bar.advance()
            ahead.append(metrics.loss.count)
            if len(ahead) > RUN_AHEAD:
                ahead.popleft().block_until_ready()
            if first:  # the first step of this process, kept out of the rates
                metrics.loss.count.block_until_ready()
                say(f"step {step} is the first of this process")
                meter.restart(step)
                first = False
            watch.done(step)
            if line := trace.after(step, metrics.loss.count, last=step == config.steps):
                say(line)
            checkpoints.check()

            last = step == config.steps
            overdue = False

            def due(every, step=step, last=last):
                return every and (step % every == 0 or last)

            if due(config.log_every):
                values = scalars(metrics)
                metrics = fresh_metrics(sharding.replicated(mesh))
                rates = meter.read(step)
                values |= rates | {"tokens_seen": float(position * shape.tokens)}
                values |= {"save_wait": waited / (waited + meter.seconds)}
                waited = 0.0
                values |= goodput.read(meter.seconds)
                for line in faults.new():
                    say(line)
                skipped = int(train_state["guard"]["skipped"])
                values |= {"skipped": skipped, "replaced_records": faults.count}
                values |= {"learning_rate": float(rate(step - 1 - skipped))}
                writer.scalars(step, values)
                say(run_log.line(step, config.steps, values))
                tell_skips()
                limit = 60 * config.checkpoint_minutes
                overdue = limit and distributed.first_says(time.perf_counter() - saved_at > limit)

            pauses = config.eval.every, config.samples.every, config.checkpoint_every
            if overdue or any(map(due, (*pauses, config.ema_every))):
                jax.block_until_ready(metrics)  # the steps under way are training still
            begin = time.perf_counter()
            if due(config.eval.every):
                watch.doing("validation")
                losses = validation_losses()
                writer.scalars(step, losses)
                say(f"step {step}: " + ", ".join(f"{k} {v:.4f}" for k, v in losses.items()))
            if due(config.samples.every):
                watch.doing("samples")
                grid = sample_grid()
                file = workdir / "samples" / f"step_{step:08d}.png"
                writer.image(step, "samples", file, grid)
                say(f"step {step}: {file}")
            if last or overdue or due(config.checkpoint_every):
                watch.doing("the checkpoint")
                waited += save()
                saved, saved_at = step, time.perf_counter()
                say(f"step {step}: saving a checkpoint")
            if due(config.ema_every):
                watch.doing("the snapshot")
                waited += checkpoints.snapshot(step, train_state, position)
            meter.aside(begin)

        # ----- The end -----------------------------------------------------------------------
        bar.close()
        if line := trace.after(step, metrics.loss.count, last=True):  # stopped in its middle
            say(line)
        watch.doing("the last checkpoint")
        if saved != step:  # asked to stop between two saves
            save()
        checkpoints.close()
    stop.saved()
    finished = step >= config.steps
    say(f"{'finished' if finished else 'stopped after'} {step} steps: {workdir}")
    writer.close()
    if not finished:
        raise errors.Preempted(f"saved at step {step}; run the same command again to go on")


def make_workdir(workdir: Path) -> None:
    """Creates the folders of a run; a ConfigError where that is not possible."""
    try:
        for name in ("checkpoints", "samples"):
            (workdir / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.ConfigError(f"--workdir {workdir} cannot be made: {error}") from error


def main(argv=None) -> None:
    parser = command_line.ArgumentParser(prog="python -m rfxray.train", description=__doc__)
    parser.add_argument("--config", required=True, metavar="FILE", help="a file of configs/")
    parser.add_argument(
        "--workdir",
        required=True,
        type=command_line.local_path,
        help="where the run keeps its files",
    )
    parser.add_argument(
        "--allow-change",
        action="append",
        default=[],
        metavar="KEY",
        help="resume although this key differs from what the checkpoint was made with (repeatable)",
    )
    arguments, rest = parser.parse_known_args(argv)
    with distributed.leaving(), command_line.exit_on_error("rfxray.train"):
        config = configuration.load_config(arguments.config, configuration.overrides(rest))
        distributed.start()
        train(config, arguments.workdir, tuple(arguments.allow_change))


if __name__ == "__main__":
    main()
