"""Compiles a run for a TPU pod that you do not have: the memory and time that it would take.

    rfxray compile-pod --config radit:size=xl --topology v5p:4x4x8
    rfxray compile-pod … --sweep      which remat, mesh and accumulation are fastest there
    rfxray compile-pod … --slices 2   several slices, joined along the data axis
    rfxray compile-pod … --sampler    the sampler of that config instead of its training
    rfxray compile-pod … --encoder    the encoder of an autoencoder, as rfxray encode runs it
    rfxray compile-pod … --decoder    its decoder, as rfxray sample runs it
    rfxray compile-pod … --decoder --tiles   in tiles, for maps that are too large for a chip

The real TPU compiler (`pip install libtpu`, no TPU needed) compiles the very step that
`rfxray.train` runs; nothing is executed. Exit code 1: it does not fit. Any key of the config is set
with `--config.KEY=VALUE`.
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections

from rfxray.attributes.vocabulary import encode
from rfxray.command_line import ArgumentParser, exit_on_error
from rfxray.config import listing
from rfxray.config.load import load_config, override, overrides
from rfxray.errors import ConfigError
from rfxray.networks import radit
from rfxray.perf import autoencoder, flops, sweep
from rfxray.perf.compiling import DoesNotFit, compile_for
from rfxray.perf.report import lines, report, whole_run
from rfxray.perf.topology import GENERATIONS, Pod, describe
from rfxray.runtime import sharding
from rfxray.runtime.compiler_options import options_for
from rfxray.sampling.sampler import make_sampler
from rfxray.sampling.settings import Settings
from rfxray.sampling.solvers import EVALUATIONS
from rfxray.training import recipe as recipes
from rfxray.training import state
from rfxray.training.step import abstract_batch, train_step


def for_tpu(config: ml_collections.FrozenConfigDict) -> ml_collections.FrozenConfigDict:
    """The config with what `auto` leaves open decided for a TPU instead of for this machine."""
    if config.model.get("attention") != "auto":
        return config
    return override(config, {"model.attention": radit.kernel_for(config.model, "tpu")})


def lower_step(recipe: recipes.Recipe, mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
    """The train step of a recipe over a mesh, as `rfxray.train` jits it."""
    whole = sharding.replicated(mesh)
    metrics = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=whole),
        jax.eval_shape(recipe.metrics.empty),
    )
    arguments = state.abstract(recipe, mesh), metrics, abstract_batch(recipe, mesh)
    with jax.set_mesh(mesh):
        return jax.jit(train_step(recipe), donate_argnums=0).lower(*arguments)


def lower_sampler(
    recipe: recipes.Recipe, mesh: jax.sharding.Mesh, settings: Settings
) -> jax.stages.Lowered:
    """The sampler of a recipe, `settings.batch_size` samples over a mesh, with the parameters whole
    on every device as `rfxray.sample` has them.

    Raises:
      ConfigError: If its objective learns no velocity.
    """
    if recipe.objective.velocity is None:
        raise ConfigError("the objective learns no velocity, so there is no sampler to compile")
    whole, n = sharding.replicated(mesh), settings.batch_size
    params = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=whole), state.averaged(recipe)
    )
    seed = jax.ShapeDtypeStruct((), jnp.uint32, sharding=whole)
    weight = jax.ShapeDtypeStruct((), jnp.float32, sharding=whole)
    split = jax.sharding.NamedSharding(mesh, sharding.BATCH)
    indices = jax.ShapeDtypeStruct((n,), jnp.uint32, sharding=split)
    attributes = jax.tree.map(
        lambda row: jax.ShapeDtypeStruct((n, *row.shape), row.dtype, sharding=split), encode({})
    )
    draw = make_sampler(recipe.objective.velocity, recipe.model.input_shape, settings)
    with jax.set_mesh(mesh):
        return jax.jit(draw).lower(params, seed, weight, indices, attributes)


def compile_run(
    config, pod: Pod, options: dict[str, str], hlo: Path | None = None, price: float | None = None
) -> dict:
    """Compiles the train step of a config for a pod and reports on it.

    Args:
      config: Config of the run, checked.
      pod: Pod from `describe`.
      options: Options of XLA; see `compiler_options.options_for`.
      hlo: File that gets the text of the compiled module.
      price: Price of a chip-hour, in dollars.

    Raises:
      DoesNotFit, ConfigError
    """
    config = for_tpu(config)
    recipe = recipes.build(config)
    mesh = sharding.make_mesh(**config.mesh, devices=pod.devices)
    sharding.check_batch(mesh, recipe.batch_size, recipe.accumulate)
    for network in recipe.networks.values():
        sharding.check_axes(mesh, network.sizes)
    begin = time.perf_counter()
    compiled = compile_for(lower_step(recipe, mesh), options)
    took = time.perf_counter() - begin
    if hlo:
        hlo.write_text(compiled.as_text() or "")
    found = report(compiled, pod, mesh, recipes.model_flops(config))
    each = recipe.batch_size // mesh.size
    found["run"] = f"batch {recipe.batch_size} ({each} a chip), accumulate {recipe.accumulate}"
    if "remat" in config.model:
        found["run"] += f", remat {config.model.remat}"
        found["remat"] = config.model.remat
    if "attention" in config.model:
        found["run"] += f", attention {config.model.attention}"
    found["accumulate"] = recipe.accumulate
    found["parameters"] = recipe.parameters
    found["compile_seconds"] = took
    tokens = recipe.batch_size * recipe.model.tokens
    found["whole_run"] = whole_run(config.steps, tokens, found, price)
    return found


def compile_sampler(
    config, pod: Pod, options: dict[str, str], settings: Settings, hlo: Path | None = None
) -> dict:
    """Compiles the sampler of a config for a pod and reports on it; arguments as `compile_run`."""
    config = for_tpu(config)
    recipe = recipes.build(config)
    mesh = sharding.make_mesh(len(pod.devices), 1, 1, devices=pod.devices)
    sharding.check_batch(mesh, settings.batch_size)
    compiled = compile_for(lower_sampler(recipe, mesh, settings), options, "draw fewer --samples")
    if hlo:
        hlo.write_text(compiled.as_text() or "")
    # Heun's last step is one of Euler; without guidance the network sees each sample once.
    evaluations = EVALUATIONS[settings.solver] * settings.steps - (settings.solver == "heun")
    samples = settings.batch_size * (1 if settings.guidance == 1 else 2)
    plain = radit.build(override(config, {"model.attention": "xla"}).model)
    model_flops = evaluations * samples * flops.of_velocity(plain)
    found = report(compiled, pod, mesh, model_flops)
    found["run"] = (
        f"{settings.batch_size} samples, {settings.solver} in {settings.steps} steps, guidance "
        f"{settings.guidance:g}, attention {config.model.attention}"
    )
    found["parameters"] = recipe.parameters
    return found


def workload(config: ml_collections.FrozenConfigDict) -> sweep.Workload:
    """What the ranking reads of a config.

    Raises:
      ConfigError: If its network is not a RadiT, the only one that the ranking knows.
    """
    if config.model.kind != "radit":
        raise ConfigError(f"--sweep ranks only model.kind=radit (got {config.model.kind})")
    recipe, m = recipes.build(config), config.model
    return sweep.Workload(
        m.width,
        m.depth,
        m.heads,
        m.mlp_width,
        recipe.model.tokens,
        recipe.parameters,
        len(recipe.sigmas),
        recipe.batch_size,
        recipes.model_flops(config),
        config.mesh.sequence,
    )


def compile_best(config, pod: Pod, options: dict[str, str], price: float | None) -> dict:
    """Ranks analytically, compiles the best three, and reports on the fastest that fits.

    Raises:
      DoesNotFit: Where none of the three does.
    """

    def say(line):
        print(line, file=sys.stderr, flush=True)

    slices = len({getattr(d, "slice_index", 0) for d in pod.devices})
    ranked = sweep.rank(workload(config), len(pod.devices), pod.chip, slices)
    say(f"{len(ranked)} candidates should fit; the ten that should be fastest:")
    for candidate in ranked[:10]:
        say(f"  {candidate}")
    fitting = []
    for candidate in ranked[:3]:
        chosen = override(config, candidate.keys())
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
        raise DoesNotFit(
            "the three configurations ranked fastest all need more than "
            f"{1 - sweep.HEADROOM:.0%} of a chip's memory; use a larger --topology or a smaller "
            "--config.batch_size"
            if ranked
            else "no combination of remat, mesh and accumulation divides evenly over this pod and "
            "is estimated to fit; use another --topology or --config.batch_size"
        )
    return min(fitting, key=lambda found: found["seconds"]["expected"])


@dataclasses.dataclass(frozen=True)
class Command:
    """What the flags say; see `parser`."""

    config: str
    overrides: tuple[str, ...]
    topology: str
    slices: int
    sweep: bool
    sampler: bool
    encoder: bool
    decoder: bool
    tiles: bool
    samples: int
    price: float | None
    options: dict[str, str]
    hlo: Path | None
    json: bool

    def __post_init__(self):
        names = ("sampler", "encoder", "decoder")
        asked = [f"--{name}" for name in names if getattr(self, name)]
        if len(asked) > 1:
            raise ConfigError(f"{asked[0]} and {asked[1]} are two programs; remove one of them")
        other = asked[0] if asked else ""
        if self.tiles and not (self.encoder or self.decoder):
            raise ConfigError("--tiles needs --encoder or --decoder")
        if self.tiles and self.hlo:
            raise ConfigError("--tiles compiles several modules; --hlo writes only one of them")
        if self.sweep and other:
            raise ConfigError(f"--sweep works only for the train step; remove --sweep or {other}")
        if self.sweep and self.hlo:
            raise ConfigError("--sweep compiles several modules; --hlo writes only one of them")
        if other and self.price is not None:
            raise ConfigError(
                f"--price gives the cost of a whole training run; remove --price or {other}"
            )


def parser() -> ArgumentParser:
    p = ArgumentParser(
        prog="python -m rfxray.compile_pod",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = p.add_argument
    add(
        "--config",
        required=True,
        metavar="FILE",
        help="Python file or name of a config, such as radit:size=xl; as for rfxray train",
    )
    add(
        "--topology",
        required=True,
        metavar="GENERATION:SHAPE",
        help=f"TPU generation ({', '.join(GENERATIONS)}) and number of chips along each dimension "
        "of a slice, such as v5p:4x4x8 or v5e:16x16",
    )
    add(
        "--slices",
        type=int,
        default=1,
        help="number of such slices, connected by the data-centre network (default: 1)",
    )
    add(
        "--sweep",
        action="store_true",
        help="search model.remat, accumulate and the data, fsdp and tensor axes of mesh: rank all "
        "by estimate, compile the best three, report the fastest that fits into memory (default: "
        "only what the config has)",
    )
    add(
        "--sampler",
        action="store_true",
        help="compile the sampler (as rfxray sample runs it) instead of the train step (default: "
        "off)",
    )
    add(
        "--encoder",
        action="store_true",
        help="compile the encoder of an autoencoder (as rfxray encode runs it) instead of the "
        "train step (default: off)",
    )
    add(
        "--decoder",
        action="store_true",
        help="compile the decoder of an autoencoder (as rfxray sample runs it) instead of the "
        "train step (default: off)",
    )
    add(
        "--tiles",
        action="store_true",
        help="with --encoder or --decoder: in tiles, one image at a time (default: whole maps)",
    )
    add(
        "--samples",
        type=int,
        default=8,
        help="with --sampler, --encoder or --decoder: images drawn, encoded or decoded at once on "
        "each chip (default: 8)",
    )
    add(
        "--price",
        type=float,
        help="price of a chip for an hour, in dollars, to report the cost of the whole training "
        "run (default: no cost is reported)",
    )
    add(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="XLA compiler option, such as xla_tpu_scoped_vmem_limit_kib=65536, in addition to or "
        "instead of those of training (rfxray/runtime/compiler_options.py); repeatable (default: "
        "none)",
    )
    add(
        "--hlo",
        type=Path,
        metavar="FILE",
        help="file to write the compiled module to, as text (default: none)",
    )
    add(
        "--json",
        action="store_true",
        help="print the report to stdout as JSON (default: as lines of text)",
    )
    listing.add_flag(p)
    return p


def compile_command(command: Command) -> dict:
    """The report that a command asks for.

    Raises:
      DoesNotFit, ConfigError
    """
    config = load_config(command.config, command.overrides)
    pod = describe(command.topology, command.slices)
    options = options_for(pod.devices[0].device_kind) | command.options
    if command.sampler:
        settings = Settings(batch_size=command.samples * len(pod.devices))
        return compile_sampler(config, pod, options, settings, command.hlo)
    if command.encoder or command.decoder:
        half = "encoder" if command.encoder else "decoder"
        if command.tiles:
            return autoencoder.compile_tiles(config.model, pod, options, half)
        found = config.model, pod, options, half, command.samples, command.hlo
        return autoencoder.compile_whole(*found)
    if command.sweep:
        return compile_best(config, pod, options, command.price)
    return compile_run(config, pod, options, command.hlo, command.price)


def main(argv: list[str] | None = None) -> None:
    flags, rest = parser().parse_known_args(argv)
    with exit_on_error("rfxray.compile_pod"):
        if wrong := [option for option in flags.option if "=" not in option]:
            raise ConfigError(f"--option {wrong[0]} has no value; write NAME=VALUE")
        command = Command(
            config=flags.config,
            overrides=tuple(overrides(rest)),
            topology=flags.topology,
            slices=flags.slices,
            sweep=flags.sweep,
            sampler=flags.sampler,
            encoder=flags.encoder,
            decoder=flags.decoder,
            tiles=flags.tiles,
            samples=flags.samples,
            price=flags.price,
            options=dict(option.split("=", 1) for option in flags.option),
            hlo=flags.hlo,
            json=flags.json,
        )
        found = compile_command(command)
        print(json.dumps(found, indent=1) if command.json else "\n".join(lines(found)))


if __name__ == "__main__":
    main()
