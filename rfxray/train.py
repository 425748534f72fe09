"""Trains what a config describes: `rfxray train --config smoke --workdir runs/smoke/train`.

Any key of the config is set with `--config.KEY=VALUE`; `rfxray train --config smoke --config.help`
lists them with value, meaning and limits. Running the same command again resumes the run; a
finished run says so and exits.

Exit codes:
     0  finished
    65  a data set or checkpoint is missing or damaged
    70  too many steps with a gradient that is not finite or explodes; the state is saved
    75  stopped and saved, a host or a reader process was lost, a save failed, or no space or memory
        is left: run the same command again
    78  a wrong flag or config key, a checkpoint of another run, or a folder that cannot be written
"""

import argparse
import contextlib
import dataclasses
import time
from collections import deque
from pathlib import Path

import jax
import ml_collections
import numpy as np
from clu import parameter_overview

from rfxray import command_line, stop_signals, version
from rfxray.checkpoints import exported
from rfxray.checkpoints.run import Checkpoints
from rfxray.config import listing
from rfxray.config.identity import identity_of
from rfxray.config.load import load_config, overrides, to_json
from rfxray.config.schema import flatten
from rfxray.data import batches, dataset
from rfxray.data.faults import Faults
from rfxray.errors import ConfigError, Preempted, SaveFailed, refused_by_system
from rfxray.outputs.files import saving, write_whole
from rfxray.perf import chips
from rfxray.runtime import agreement, distributed, refusal, sharding
from rfxray.runtime.compiler_options import options_for
from rfxray.runtime.preemption import StopRequest
from rfxray.runtime.run_lock import locked_run
from rfxray.runtime.watchdog import Watchdog
from rfxray.sampling.autoencoder import open_autoencoder
from rfxray.training import best_step, frozen
from rfxray.training import recipe as recipes
from rfxray.training import state as states
from rfxray.training.evaluators import kinds as evaluation
from rfxray.training.evaluators.evaluator import Context
from rfxray.training.metrics import accumulated, fresh, scalars
from rfxray.training.profile import Trace
from rfxray.training.rates import Goodput, Meter
from rfxray.training.run_data import open_data
from rfxray.training.run_log import Writer, line
from rfxray.training.saving import Current, report_skips, save
from rfxray.training.skip_report import SkipReport
from rfxray.training.step import abstract_batch, train_step

# Steps the host may run ahead of the device: enough to keep it busy, few enough that batches do not
# pile up in its memory. Waiting for a step this far back never leaves the device idle.
RUN_AHEAD = 8


def train(
    config: ml_collections.FrozenConfigDict, workdir: Path, allow: tuple[str, ...] = ()
) -> None:
    """Runs or resumes a training to its last step.

    Args:
      config: Config of the run, checked.
      workdir: Folder where the run keeps its files.
      allow: Identity keys in which a checkpoint may differ from the config.

    Raises:
      RfxrayError: Of the kind that says why it ended early.
    """
    with contextlib.ExitStack() as held:
        run(config, workdir, allow, held)


def run(
    config: ml_collections.FrozenConfigDict,
    workdir: Path,
    allow: tuple[str, ...],
    held: contextlib.ExitStack,
) -> None:
    """What `train` does; what must be given back at its end, however it ends, enters `held`."""
    # =============================================================================================
    # What is trained, on what, from which data
    # =============================================================================================
    recipe = recipes.build(config)
    mixture = open_data(config, recipe.model.input_shape)
    given = frozen.open_weights(config)
    hashes = {weights.key: weights.hash for weights in given.values()}
    identity = identity_of(config, mixture.fingerprint, hashes)
    data = [(each.path, each.fingerprint) for each in mixture.datasets]
    agreement.require(config, data, allow, hashes)

    host, hosts = jax.process_index(), jax.process_count()
    if hosts == 1:
        stop_signals.hear_again()  # JAX may have taken SIGTERM, to make several hosts agree
    mesh = sharding.make_mesh(**config.mesh)
    sharding.check_batch(mesh, recipe.batch_size, recipe.accumulate)
    for network in recipe.networks.values():
        sharding.check_axes(mesh, network.sizes)
        network.refuse(jax.default_backend())
    for each in mixture.datasets:
        dataset.verify(each, config.data.verify, host=host, hosts=hosts)

    make_workdir(workdir)
    lock = held.enter_context(locked_run(workdir, host))

    # =============================================================================================
    # The state: fresh, or the newest checkpoint that is whole
    # =============================================================================================
    abstract = states.abstract(recipe, mesh)
    no_metrics = fresh(recipe.metrics, sharding.replicated(mesh))
    params = {name: weights.params for name, weights in given.items()}
    checkpoints = Checkpoints(
        workdir, config, identity, abstract, no_metrics, allow, not_saved=tuple(params)
    )
    if hosts == 1:
        held.callback(checkpoints.settle)  # the lock is given back after the last write
    resumed = checkpoints.resume()
    if resumed is None:
        set_aside = []
        current = Current(0, 0, states.init(recipe, mesh, params), no_metrics)
    else:
        step, (state, metrics, position), set_aside = resumed
        state["params"] |= states.placed(recipe, mesh, params)
        current = Current(step, position, states.State(**state), metrics, checkpoints.trained)
    saved = current.step

    # =============================================================================================
    # What is said about it
    # =============================================================================================
    latents, vae = mixture.latents, None
    if latents is not None:
        vae = workdir / exported.VAE
        if host == 0:
            source = mixture.datasets[0].path / exported.VAE
            if present := [folder for folder in (vae, source) if folder.exists()]:
                # Or the first sample grid would refuse it; before it is copied into the workdir.
                open_autoencoder(present[0], latents)
            with saving(workdir):
                exported.copy(source, vae)
    if host == 0 and recipe.model.base is not None:  # an export of the run merges into it
        base = workdir / exported.BASE
        with saving(workdir):
            exported.copy(command_line.at_home(config.model.base), base)
        frozen.require_base(base, given[recipes.BASE])
    if host == 0:
        recorded = latents and latents.entry()
        write_whole(workdir / "config.json", to_json(config, version.versions(), recorded))
    writer = held.enter_context(Writer(workdir, current.step))
    # From here on, so that compiling counts as lost.
    goodput = Goodput(workdir, current.trained, checkpoints.began)
    say = writer.say
    say(f"rfxray.train → {workdir}")
    say(version.line())
    say(f"{mesh.size} {jax.devices()[0].device_kind} device(s), mesh {dict(mesh.shape)}")
    if resumed is None:
        overview = parameter_overview.get_parameter_overview(
            abstract["params"], include_stats=False
        )
        for row in overview.split("\n"):
            say(row)
    say(f"{recipe.parameters:,} parameters, {recipe.model.tokens} tokens an image")
    for name, weights in given.items():
        where = flatten(config)[weights.key]
        say(f"part {name} is not trained: {weights.key}={where} ({weights.hash[:12]}…)")
    for each in mixture.datasets:
        counts = ", ".join(f"{split} {n:,}" for split, n in each.examples.items())
        say(f"data {each.path}: images of {each.size}², {counts}")
    for row in set_aside + checkpoints.notes + checkpoints.changes + goodput.notes:
        say(row)
    say("a new run" if resumed is None else f"resumed at step {current.step}")
    if resumed and due(config.ema_every, current.step, current.step == config.steps):
        # A kill may have cut this snapshot off.
        checkpoints.snapshot(current.step, current.state, current.position)
    if current.step >= config.steps:
        say(f"finished {current.step} steps: {workdir}")
        checkpoints.close()
        return

    # =============================================================================================
    # Evaluators, which may lack a file; then compile the step
    # =============================================================================================
    watch = Watchdog(
        workdir, writer.alarm, host=host, hosts=hosts, step=current.step, **config.watchdog
    )
    watch.doing("the evaluators")
    faults = Faults(
        workdir / f"data_faults-host-{host}.jsonl", config.data.tolerate, "data_faults-host-*.jsonl"
    )
    mixture = dataclasses.replace(mixture, faults=faults)
    evaluators = evaluation.build(
        config.evaluators, Context(recipe, mixture, mesh, host, hosts, vae)
    )
    watch.doing("compiling")
    begin = time.perf_counter()
    with jax.set_mesh(mesh):
        take_step = (
            jax.jit(
                train_step(recipe),
                donate_argnums=0,
                out_shardings=(states.shardings(abstract), sharding.replicated(mesh)),
                compiler_options=options_for(jax.devices()[0].device_kind),
            )
            .lower(current.state, current.metrics, abstract_batch(recipe, mesh))
            .compile()
        )
    say(f"compiled after {command_line.duration(time.perf_counter() - begin)}")

    # =============================================================================================
    # Data, rates
    # =============================================================================================
    reading = batches.Reading(config.data.threads, config.data.workers, config.data.prefetch)
    loader = batches.train_batches(
        mixture, recipe.batch_size, reading, current.position, host, hosts
    )
    skips = SkipReport(
        workdir,
        mixture,
        recipe.batch_size,
        config.skip.limit,
        config.skip.window,
        seen=int(current.state["guard"]["skipped"]),
    )
    chip = chips.find(jax.devices()[0].device_kind)
    meter = Meter(
        current.step,
        config.steps,
        recipe.batch_size,
        recipe.model.tokens,
        flops=recipes.model_flops(config),
        devices=mesh.size,
        peak=chip and chip.flops,
    )
    trace = Trace(workdir, config.profile.first, config.profile.steps)
    bar = command_line.Progress(
        "rfxray.train", config.steps, current.step, "step", seconds=None, shown=host == 0
    )
    ahead: deque[jax.Array] = deque()
    first, saved_at = True, time.perf_counter()
    waited = 0.0  # seconds for checkpoints since the last log step
    distributed.barrier("the first step")  # hosts compile at their own pace

    # =============================================================================================
    # The loop
    # =============================================================================================
    stop = StopRequest(config.stop_seconds, lock.stopping)
    with stop, watch, jax.set_mesh(mesh):
        while current.step < config.steps and not stop.agreed(current.step):
            # ----- One step ----------------------------------------------------------------------
            watch.doing("data")
            batch = sharding.global_batch(mesh, meter.wait(loader))
            watch.doing("the device")
            trace.before(current.step + 1)
            with jax.transfer_guard("disallow"):
                current.state, current.metrics = take_step(current.state, current.metrics, batch)
            current.step += 1
            current.position = loader.get_state()["global_next_index"]
            step, last = current.step, current.step == config.steps
            bar.advance()
            ahead.append(accumulated(current.metrics))
            if len(ahead) > RUN_AHEAD:
                ahead.popleft().block_until_ready()
            if first:  # the first step of this process, kept out of the rates
                accumulated(current.metrics).block_until_ready()
                say(f"step {step} is the first of this process")
                meter.restart(step)
                first = False
            watch.done(step)
            if text := trace.after(step, accumulated(current.metrics), last=last):
                say(text)
            checkpoints.check()
            writer.check()

            # ----- A line of metrics -------------------------------------------------------------
            overdue = False
            if due(config.log_every, step, last):
                values = scalars(current.metrics)
                current.metrics = fresh(recipe.metrics, sharding.replicated(mesh))
                values |= meter.read(step)
                values["tokens_seen"] = float(current.position * recipe.model.tokens)
                values["save_wait"] = waited / (waited + meter.seconds)
                waited = 0.0
                values |= goodput.read(meter.seconds)
                current.trained = goodput.trained
                for row in faults.new():
                    say(row)
                skipped = int(current.state["guard"]["skipped"])
                values["skipped"], values["replaced_records"] = skipped, faults.count
                rate = np.asarray(recipe.learning_rate(step - 1 - skipped))
                values["learning_rate"] = float(rate)
                writer.scalars(step, values)
                say(line(step, config.steps, values))
                report_skips(current, skips, checkpoints, writer)
                limit = 60 * config.checkpoint_minutes
                overdue = bool(
                    limit and distributed.first_says(time.perf_counter() - saved_at > limit)
                )

            # ----- Evaluators and checkpoints ----------------------------------------------------
            intervals = [every for every, _ in evaluators.values()]
            intervals += [config.checkpoint_every, config.ema_every]
            if overdue or any(due(every, step, last) for every in intervals):
                jax.block_until_ready(current.metrics)  # steps under way still count as training
            begin = time.perf_counter()
            for name, (every, evaluate) in evaluators.items():
                if due(every, step, last):
                    watch.doing(name)
                    findings = evaluate(current.state)
                    writer.findings(step, findings.scalars, findings.images)
            if last or overdue or due(config.checkpoint_every, step, last):
                watch.doing("the checkpoint")
                current.trained = goodput.trained + meter.elapsed()
                waited += save(current, skips, checkpoints, writer)
                saved, saved_at = step, time.perf_counter()
                say(f"step {step}: saving a checkpoint")
            if due(config.ema_every, step, last):
                watch.doing("the snapshot")
                waited += checkpoints.snapshot(step, current.state, current.position)
            meter.aside(begin)

        # =========================================================================================
        # The end: all steps taken, or asked to stop
        # =========================================================================================
        bar.close()
        if text := trace.after(current.step, accumulated(current.metrics), last=True):
            say(text)
        watch.doing("the last checkpoint")
        if saved != current.step:  # asked to stop between two saves
            current.trained = goodput.trained + meter.elapsed()
            save(current, skips, checkpoints, writer)
        checkpoints.close()
        kept = checkpoints.kept()
    finished = current.step >= config.steps
    say(f"{'finished' if finished else 'stopped after'} {current.step} steps: {workdir}")
    if finished and (text := best_step.described(workdir, kept)):
        say(text)
    if not finished:
        raise Preempted(f"saved at step {current.step}; rerun the command to resume")


def make_workdir(workdir: Path) -> None:
    """Creates the folders of a run; a ConfigError if that is not possible."""
    try:
        for name in ("checkpoints", "samples"):
            (workdir / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if isinstance(refused_by_system(error), SaveFailed):
            raise  # a full disk
        raise ConfigError(f"cannot create --workdir {workdir}: {error}") from error


def due(every: int, step: int, last: bool) -> bool:
    """Whether something that happens every so many steps (0: never) happens at this one."""
    return bool(every) and (last or step % every == 0)


@dataclasses.dataclass(frozen=True)
class Command:
    """What the flags say; see `parser`."""

    config: str
    workdir: Path
    overrides: tuple[str, ...]
    allow_change: tuple[str, ...]


def parser() -> command_line.ArgumentParser:
    p = command_line.ArgumentParser(
        prog="python -m rfxray.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--config",
        required=True,
        metavar="FILE",
        help="config that comes with the project (smoke, nih, own, radit and more in configs/), or "
        "path of a Python file with get_config(); what follows a colon is passed to it: "
        "radit:size=b",
    )
    p.add_argument(
        "--workdir",
        required=True,
        type=command_line.local_path,
        metavar="DIR",
        help="folder of the run, for checkpoints, metrics and samples: created, or resumed if it "
        "has a checkpoint",
    )
    p.add_argument(
        "--allow-change",
        action="append",
        default=[],
        metavar="KEY",
        help="config key that may differ from the checkpoint that is resumed, such as "
        "optim.learning_rate; repeatable (default: none)",
    )
    listing.add_flag(p)
    return p


def main(argv: list[str] | None = None) -> None:
    with command_line.exit_on_error("rfxray.train"), refusal.travels():
        flags, rest = parser().parse_known_args(argv)
        command = Command(
            flags.config, flags.workdir, tuple(overrides(rest)), tuple(flags.allow_change)
        )
        config = load_config(command.config, command.overrides)
        distributed.start(refusal.listen)
        train(config, command.workdir, command.allow_change)


if __name__ == "__main__":
    main()
