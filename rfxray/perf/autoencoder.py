"""Encoder or decoder of an autoencoder, compiled for a pod: whole, or in tiles."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import PyTree

from rfxray.errors import ConfigError
from rfxray.networks import kinds, vae_tiles
from rfxray.networks.network import Network
from rfxray.networks.vae_shape import of_section
from rfxray.perf import flops
from rfxray.perf.compiling import compile_for
from rfxray.perf.report import report, whole_set
from rfxray.perf.topology import Pod
from rfxray.runtime import sharding

METHODS = {"encoder": "encode", "decoder": "decode"}


def network(section: ml_collections.ConfigDict, half: str) -> Network:
    """The autoencoder of a config's `model` section; of an adapter that of its base.

    Raises:
      ConfigError: If it is of another kind.
    """
    if section.kind not in ("vae", "decoder_lora"):
        raise ConfigError(
            f"--{half} compiles an autoencoder, of model.kind vae or decoder_lora (got "
            f"{section.kind})"
        )
    model = kinds.build(section)
    return model.base or model


def compile_whole(
    section: ml_collections.ConfigDict,
    pod: Pod,
    options: dict[str, str],
    half: str,
    each: int,
    hlo: Path | None = None,
) -> dict:
    """Compiles the `encoder` or the `decoder` of a config for a pod and reports on it.

    Every chip has the parameters whole, as `rfxray.encode` has them, and takes `each` images at
    once.

    Args:
      section: The config's `model` section.
      pod: Pod from `describe`.
      options: Options of XLA; see `compiler_options.options_for`.
      half: Key of `METHODS`.
      each: Images at once on a chip.
      hlo: File that gets the text of the compiled module.

    Raises:
      DoesNotFit, ConfigError
    """
    model, n = network(section, half), each * len(pod.devices)
    mesh = sharding.make_mesh(len(pod.devices), 1, 1, devices=pod.devices)
    split = jax.sharding.NamedSharding(mesh, sharding.BATCH)
    params = _on(sharding.replicated(mesh), model.shapes)
    given = jax.ShapeDtypeStruct((n, *model.input_shape), jnp.float32, sharding=split)
    if half == "decoder":
        encode = functools.partial(model.apply, method="encode")
        latents = jax.eval_shape(encode, model.shapes, given).mean
        given = jax.ShapeDtypeStruct(latents.shape, jnp.float32, sharding=split)
    run = functools.partial(model.apply, method=METHODS[half])
    lowered = jax.jit(run, out_shardings=split).lower(params, given)
    compiled = compile_for(lowered, options, "take fewer --samples, or --tiles")
    if hlo:
        hlo.write_text(compiled.as_text() or "")
    found = report(compiled, pod, mesh, flops.of_call(run, params, given))
    found["run"] = f"{half}, {n} images ({each} a chip), {section.dtype}"
    found["parameters"] = model.parameters
    found["encoding"] = whole_set(n, found)
    return found


def compile_tiles(
    section: ml_collections.ConfigDict, pod: Pod, options: dict[str, str], half: str
) -> dict:
    """Like `compile_whole`, in tiles: many programs, of which the largest is reported on.

    Memory is that of all parameters and of what the largest program has beside its own. Every chip
    does the same, one image after another.

    Raises:
      DoesNotFit, ConfigError
    """
    model, shape = network(section, half), of_section(section)
    mesh = sharding.make_mesh(len(pod.devices), 1, 1, devices=pod.devices)
    place = sharding.replicated(mesh)
    host, found = 0, {}
    for program in vae_tiles.programs(shape, model.shapes, METHODS[half]):
        leaves, tree = jax.tree.flatten(program.arrays)
        key = (*program.fixed, tree, *((leaf.shape, leaf.dtype) for leaf in leaves))
        if key not in found:
            arrays = _on(place, program.arrays)
            lowered = program.run.lower(*program.fixed, *arrays)
            compiled = compile_for(lowered, options, "take a chip with more memory")
            run = functools.partial(program.run, *program.fixed)
            every = mesh.size * flops.of_call(run, *program.arrays)
            found[key] = _beside(report(compiled, pod, mesh, every), model, program)
        host = max(host, program.host)
    largest = max(found.values(), key=lambda each: each["memory"]["total"])
    return largest | {
        "run": f"{half} in tiles of {vae_tiles.TILE}, 1 image, {section.dtype}; of "
        f"{len(found)} programs that with the most memory: {largest['run']}",
        "parameters": model.parameters,
        "host": host,
    }


def _beside(found: dict, model: Network, program: vae_tiles.Program) -> dict:
    """A report on a program, with all parameters in the place of those that it takes."""
    memory = found["memory"]
    given = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(program.arrays[1:]))
    arguments = given + model.parameters * np.dtype(np.float32).itemsize
    total = memory["total"] - memory["arguments"] + arguments
    memory |= {
        "arguments": arguments,
        "total": total,
        "headroom": 1 - total / memory["capacity"],
    }
    return found | {"run": program.name}


def _on(place: jax.sharding.Sharding, shapes: PyTree) -> PyTree[jax.ShapeDtypeStruct]:
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes)
