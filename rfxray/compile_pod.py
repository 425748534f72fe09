"""Compiles a run for a TPU pod that is not there, and says what it would need and take.

    python -m rfxray.compile_pod --config configs/radit_xl.py --topology v5p:4x4x8
    python -m rfxray.compile_pod … --sweep      which remat, mesh and accumulation are best there
    python -m rfxray.compile_pod … --slices 2   several slices, joined along the data axis
    python -m rfxray.compile_pod … --sampler    the sampler of that config instead of its training

The real TPU compiler (`pip install libtpu`, no TPU needed) compiles the very step that
`rfxray.train` runs; nothing is executed. Exit code 1: it does not fit. Any key of the config is set
with `--config.KEY=VALUE`.
"""

import argparse
import json
import re
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections

from rfxray import command_line, errors
from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import Attributes
from rfxray.config import load as configuration
from rfxray.networks import attention, radit
from rfxray.perf import flops, roofline, sweep
from rfxray.perf.topology import Pod, describe
from rfxray.runtime import compiler_options, sharding
from rfxray.sampling import pretrained
from rfxray.sampling.sampler import Settings, make_sampler
from rfxray.sampling.solvers import EVALUATIONS
from rfxray.training import state
from rfxray.training.metrics import TrainMetrics
from rfxray.training.step import abstract_batch, train_step


class DoesNotFit(errors.RfxrayError):
    """The compiler needs more memory than a chip has."""


def for_tpu(config) -> ml_collections.ConfigDict:
    """The config with what `auto` leaves open decided for a TPU instead of for this machine."""
    shape = radit.model_config(config)
    if config.attention != "auto":
        return config
    kernel = attention.choose("tpu", shape.tokens, shape.head_dim, shape.dtype)
    return configuration.override(config, {"attention": kernel})


def lower_step(config, mesh) -> jax.stages.Lowered:
    """The train step of a config over a mesh, as `rfxray.train` jits it."""
    whole = sharding.replicated(mesh)
    metrics = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=whole),
        jax.eval_shape(TrainMetrics.empty),
    )
    arguments = state.abstract(config, mesh), metrics, abstract_batch(config, mesh)
    with jax.set_mesh(mesh):
        return jax.jit(train_step(config), donate_argnums=0).lower(*arguments)


def lower_sampler(config, mesh, settings: Settings) -> jax.stages.Lowered:
    """The sampler of a config, `settings.batch_size` pictures over a mesh, parameters whole on each
    device as `rfxray.sample` has them."""
    whole, n = sharding.replicated(mesh), settings.batch_size
    params = radit.abstract(radit.model_config(config))[1]
    params = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=whole), params)
    seed = jax.ShapeDtypeStruct((), jnp.uint32, sharding=whole)
    weight = jax.ShapeDtypeStruct((), jnp.float32, sharding=whole)
    split = jax.sharding.NamedSharding(mesh, sharding.BATCH)
    indices = jax.ShapeDtypeStruct((n,), jnp.uint32, sharding=split)
    attributes = Attributes(
        jax.ShapeDtypeStruct((n, vocabulary.NUM_ATTRIBUTES), jnp.float32, sharding=split),
        jax.ShapeDtypeStruct((n, vocabulary.NUM_ATTRIBUTES), bool, sharding=split),
    )
    draw = make_sampler(pretrained.velocity(config), pretrained.shape(config), settings)
    with jax.set_mesh(mesh):
        return jax.jit(draw).lower(params, seed, weight, indices, attributes)


def compile_for(lowered: jax.stages.Lowered, options: dict[str, str]) -> jax.stages.Compiled:
    """Compiles under XLA's options.

    Raises:
      DoesNotFit: where a chip's memory does not suffice.
    """
    try:
        return lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = errors.first_line(error)
        sizes = re.findall(r"\d[\d.]*[KMG]", reason)
        raise DoesNotFit(
            f"it does not fit: it needs {sizes[0]} of the {sizes[1]} of a chip; recompute more "
            "(remat=attention, remat=full), shard more (mesh.fsdp) or accumulate"
            # Where a memory within the chip (vmem, smem) is too small, none of that helps.
            if "hbm" in reason.lower() and len(sizes) > 1
            else f"it does not fit: {reason}"
        ) from error


def report(compiled: jax.stages.Compiled, pod: Pod, mesh, model_flops: float) -> dict:
    """What a compiled program needs and should take, as JSON values.

    Args:
      compiled: for the devices of the pod.
      pod, mesh: of it.
      model_flops: of the whole program over all devices, from flops.py.
    """
    memory = compiled.memory_analysis()
    needed = {
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "program": memory.generated_code_size_in_bytes,
    }
    total = sum(needed.values())
    coordinates = [(d.coords, getattr(d, "slice_index", 0)) for d in mesh.devices.flat]
    places = [(*at, slice_) for at, slice_ in coordinates]
    guess = roofline.estimate(compiled.as_text(), pod.chip, places)
    share = model_flops / mesh.size
    cost = compiled.cost_analysis() or {}
    return {
        "topology": pod.name,
        "device": pod.devices[0].device_kind,
        "chips": mesh.size,
        "mesh": dict(mesh.shape),
        "memory": {
            **needed,
            "total": total,
            "capacity": pod.chip.memory,
            "headroom": 1 - total / pod.chip.memory,
        },
        "flops": {
            "model": share,
            "executed": guess.flops,
            "executed_over_model": guess.flops / share,
            "xla_cost_analysis": cost.get("flops", 0.0),
        },
        "traffic": guess.traffic,
        "collectives": guess.collectives,
        "seconds": {
            "roofline": guess.roofline,
            "expected": guess.expected,
            "exposed_communication": guess.exposed,
            "parts": guess.parts,
        },
        "mfu": {
            "roofline": share / guess.roofline / pod.chip.flops,
            "expected": share / guess.expected / pod.chip.flops,
        },
    }


def whole_run(config, found: dict, price: float | None) -> dict:
    """Chip-hours and dollars of all steps at the expected rate, without interruptions."""
    hours = config.steps * found["seconds"]["expected"] * found["chips"] / 3600
    tokens = config.steps * config.batch_size * radit.model_config(config).tokens
    dollars = {} if price is None else {"dollars": hours * price}
    return {"steps": config.steps, "tokens": tokens, "chip_hours": hours, **dollars}


def lines(found: dict) -> list[str]:
    """A report as a person reads it."""
    gib = 2**30
    m, f, s = found["memory"], found["flops"], found["seconds"]
    mesh = " × ".join(f"{k} {v}" for k, v in found["mesh"].items() if v > 1) or "one device"
    out = [
        f"{found['chips']} chips of {found['topology']} ({found['device']}), mesh {mesh}, "
        f"{found['run']}",
        f"parameters      {found['parameters']:,}",
        f"HBM per chip    {m['total'] / gib:.2f} GiB = arguments {m['arguments'] / gib:.2f} + "
        f"temporaries {m['temporaries'] / gib:.2f} + outputs {m['outputs'] / gib:.2f} + program "
        f"{m['program'] / gib:.2f}; of {m['capacity'] / gib:.2f} GiB, headroom {m['headroom']:.1%}",
        f"FLOPs per chip  model {f['model']:.4g}, executed {f['executed']:.4g} (read from the "
        f"compiled module, × {f['executed_over_model']:.3f}); XLA's cost analysis says "
        f"{f['xla_cost_analysis']:.4g} (it counts a loop once)",
        f"HBM traffic     {found['traffic'] / 1e9:.1f} GB per chip",
    ]
    for kind, c in found["collectives"].items():
        out.append(
            f"{kind:18s}  {c['count']:5.0f} × a step, {c['bytes'] / 1e9:7.3f} GB per chip, links "
            f"{c['seconds'] * 1e3:8.2f} ms, not overlapped {c['exposed'] * 1e3:8.2f} ms"
        )
    out.append(
        "parts           "
        + ", ".join(f"{name} {1e3 * took:.0f} ms" for name, took in s["parts"].items())
    )
    out.append(
        f"time            roofline {s['roofline'] * 1e3:.1f} ms (MFU "
        f"{found['mfu']['roofline']:.1%}), expected {s['expected'] * 1e3:.1f} ms (MFU "
        f"{found['mfu']['expected']:.1%}), of which only communication "
        f"{s['exposed_communication'] * 1e3:.1f} ms: estimates, see rfxray/perf/roofline.py"
    )
    if total := found.get("whole_run"):
        dollars = f", {total['dollars']:,.0f} dollars" if "dollars" in total else ""
        out.append(
            f"the whole run   {total['steps']:,} steps, {total['tokens']:.3g} tokens, "
            f"{total['chip_hours']:,.0f} chip-hours{dollars} (estimate)"
        )
    return out


def compile_run(
    config, pod: Pod, options: dict[str, str], hlo: Path | None = None, price: float | None = None
) -> dict:
    """Compiles the train step of a config for a pod and reports on it.

    Args:
      config: of the run, checked.
      pod: from `describe`.
      options: of XLA, see `devices.compiler_options`.
      hlo: where the text of the compiled module is left.
      price: of a chip-hour, in dollars.

    Raises:
      DoesNotFit, ConfigError
    """
    config = for_tpu(config)
    mesh = sharding.make_mesh(**config.mesh, devices=pod.devices)
    sharding.check_batch(mesh, config.batch_size, config.accumulate)
    begin = time.perf_counter()
    compiled = compile_for(lower_step(config, mesh), options)
    took = time.perf_counter() - begin
    if hlo:
        hlo.write_text(compiled.as_text())
    found = report(compiled, pod, mesh, flops.train_step(config))
    each = config.batch_size // mesh.size
    found["run"] = (
        f"batch {config.batch_size} ({each} a chip), remat {config.remat}, "
        f"accumulate {config.accumulate}, attention {config.attention}"
    )
    found["remat"], found["accumulate"] = config.remat, config.accumulate
    found["parameters"] = parameters(config)
    found["compile_seconds"] = took
    found["whole_run"] = whole_run(config, found, price)
    return found


def compile_sampler(
    config, pod: Pod, options: dict[str, str], settings: Settings, hlo: Path | None = None
) -> dict:
    """Compiles the sampler of a config for a pod and reports on it; arguments as `compile_run`."""
    config = for_tpu(config)
    mesh = sharding.make_mesh(len(pod.devices), 1, 1, devices=pod.devices)
    sharding.check_batch(mesh, settings.batch_size)
    compiled = compile_for(lower_sampler(config, mesh, settings), options)
    if hlo:
        hlo.write_text(compiled.as_text())
    # Heun's last step is one of Euler; without guidance the network sees each picture once.
    evaluations = EVALUATIONS[settings.solver] * settings.steps - (settings.solver == "heun")
    pictures = settings.batch_size * (1 if settings.guidance == 1 else 2)
    model_flops = evaluations * pictures * flops.forward(radit.model_config(config))
    found = report(compiled, pod, mesh, model_flops)
    found["run"] = (
        f"{settings.batch_size} pictures, {settings.solver} in {settings.steps} steps, guidance "
        f"{settings.guidance:g}, attention {config.attention}"
    )
    found["parameters"] = parameters(config)
    return found


def parameters(config) -> int:
    """How many the network of a config has."""
    shapes = radit.abstract(radit.model_config(config))[1]
    return sum(s.size for s in jax.tree.leaves(shapes))


def compile_best(config, pod: Pod, options: dict[str, str], price: float | None) -> dict:
    """Ranks analytically, compiles the best three, and reports on the fastest that fits.

    Raises:
      DoesNotFit: where none of the three does.
    """

    def say(line):
        print(line, file=sys.stderr, flush=True)

    slices = len({getattr(d, "slice_index", 0) for d in pod.devices})
    ranked = sweep.rank(config, len(pod.devices), pod.chip, parameters(config), slices)
    say(f"{len(ranked)} candidates should fit; the ten that should be fastest:")
    for candidate in ranked[:10]:
        say(f"  {candidate}")
    fitting = []
    for candidate in ranked[:3]:
        chosen = configuration.override(config, candidate.keys())
        try:
            found = compile_run(chosen, pod, options, price=price)
        except DoesNotFit as error:
            say(f"compiled {candidate}: {error}")
            continue
        gib, seconds = found["memory"]["total"] / 2**30, found["seconds"]["expected"]
        say(f"compiled {candidate}: {gib:.1f} GiB, {seconds * 1e3:.0f} ms")
        if found["memory"]["headroom"] >= sweep.HEADROOM:
            fitting.append(found | {"keys": candidate.keys()})
    if not fitting:
        raise DoesNotFit("none of the three best candidates fits")
    return min(fitting, key=lambda found: found["seconds"]["expected"])


def main(argv: list[str] | None = None) -> None:
    parser = command_line.ArgumentParser(
        prog="python -m rfxray.compile_pod",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="a file of configs/")
    parser.add_argument("--topology", required=True, help="such as v5p:4x4x8, in chips")
    parser.add_argument("--slices", type=int, default=1, help="of that topology, joined by DCN")
    parser.add_argument("--sweep", action="store_true", help="search remat, mesh, accumulation")
    parser.add_argument("--sampler", action="store_true", help="compile sampling, not training")
    parser.add_argument("--pictures", type=int, default=8, help="per chip, with --sampler")
    parser.add_argument("--price", type=float, help="dollars per chip-hour, for the whole run")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of XLA, in place of what training sets (rfxray/runtime/compiler_options.py)",
    )
    parser.add_argument("--hlo", type=Path, help="also writes the compiled module's text there")
    parser.add_argument("--json", action="store_true", help="prints the report as JSON")
    arguments, rest = parser.parse_known_args(argv)
    with command_line.exit_on_error("rfxray.compile_pod"):
        config = configuration.load_config(arguments.config, configuration.overrides(rest))
        pod = describe(arguments.topology, arguments.slices)
        if wrong := [option for option in arguments.option if "=" not in option]:
            raise errors.ConfigError(f"--option {wrong[0]} has no value; write NAME=VALUE")
        if arguments.sweep and arguments.sampler:
            raise errors.ConfigError("--sweep is for training; a sampler has but --pictures")
        if arguments.sweep and arguments.hlo:
            raise errors.ConfigError("--sweep compiles several modules; --hlo is for one of them")
        if arguments.sampler and arguments.price is not None:
            raise errors.ConfigError("--price is for a whole run; a sampler has no number of steps")
        given = dict(option.split("=", 1) for option in arguments.option)
        options = compiler_options.options_for(pod.devices[0].device_kind) | given
        if arguments.sampler:
            pictures = arguments.pictures * len(pod.devices)
            settings = Settings(guidance=2.0, batch_size=pictures)
            found = compile_sampler(config, pod, options, settings, arguments.hlo)
        elif arguments.sweep:
            found = compile_best(config, pod, options, arguments.price)
        else:
            found = compile_run(config, pod, options, arguments.hlo, arguments.price)
        print(json.dumps(found, indent=1) if arguments.json else "\n".join(lines(found)))


if __name__ == "__main__":
    main()
