"""From a checkpoint to radiographs: load, generate, save."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from rfxray import checkpoint, conditioning, flow, model, optim, partition, pictures
from rfxray import config as configuration
from rfxray.errors import ConfigError
from rfxray.input import to_uint16
from rfxray.sampling import guidance as guide
from rfxray.sampling import solvers


@dataclasses.dataclass(frozen=True)
class Settings:
    """How pictures are drawn from a model.

    Attributes:
      seed: picture i of a seed starts from the same noise, whatever else is asked.
      steps: intervals of the time grid.
      solver: a key of `solvers.SOLVERS`.
      guidance: classifier-free weight w; 1 is none.
      shift: of the time grid, see `flow.shift_timestep`.
      batch_size: pictures per call of the network (twice that with guidance).
    """

    seed: int = 0
    steps: int = 50
    solver: str = "heun"
    guidance: float = 1.0
    shift: float = 1.0
    batch_size: int = 64

    def __post_init__(self):
        if self.solver not in solvers.SOLVERS:
            raise ConfigError(f"no solver {self.solver!r}, only {', '.join(solvers.SOLVERS)}")
        if not 0 <= self.guidance < float("inf"):
            raise ConfigError(f"guidance={self.guidance} must be a number of at least 0")
        if self.steps < 1 or self.batch_size < 1:
            raise ConfigError(f"steps={self.steps}, batch_size={self.batch_size}: at least 1 each")
        if not 0 < self.shift < float("inf"):
            raise ConfigError(f"shift={self.shift} must be a number above 0")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed={self.seed} must lie in [0, 2³²)")


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained network, ready to sample.

    Attributes:
      params: of one EMA profile, on the devices of `mesh`.
      config: of the run that trained it.
      mesh: over which a batch is split.
      source: where it came from: `checkpoint`, `step` and `ema`.
    """

    params: dict
    config: ml_collections.ConfigDict
    mesh: jax.sharding.Mesh
    source: dict[str, object]


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Generated pictures and all that made them.

    Attributes:
      images: [n, height, width] float32 in [−1, 1].
      attributes, known: [n, 19], what each was asked to be.
      indices: [n] int, which noise of the seed each started from.
      settings: as they were drawn.
      source: of the model.
    """

    images: np.ndarray
    attributes: np.ndarray
    known: np.ndarray
    indices: np.ndarray
    settings: Settings
    source: dict[str, object]


def load(workdir: str | Path, ema: float = 0.05, step: int | None = None) -> Model:
    """The network of a run as one of its EMA profiles has it.

    Args:
      workdir: of `rfxray.train`.
      ema: the relative width of the profile, one of the run's `ema_sigmas`.
      step: of the checkpoint; the newest when None.

    Raises:
      ConfigError: for a profile or a step that is not there.
      DataError: where there is no checkpoint, or it is damaged.
    """
    workdir = Path(workdir)
    tree = ml_collections.ConfigDict(checkpoint.read_config(workdir), convert_dict=True)
    config = configuration.check(configuration.with_tuples(tree))
    mesh = partition.make_mesh(-1, 1, 1)
    whole = partition.replicated(mesh)
    shapes = model.abstract(model.model_config(config))[1]
    shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=whole), shapes)
    name = optim.ema_name(ema)
    params, step = checkpoint.restore_ema(workdir, shapes, name, step)
    source = {"checkpoint": str(workdir), "step": step, "ema": ema}
    return Model(params, config, mesh, source)


def velocity(config, params) -> Callable:
    """The network of a config as `(x, t [batch], attributes, known) → dx/dt`, float32."""
    network = model.apply(model.model_config(config), model.execution(config))

    def dx_dt(x, t, attributes, known):
        output = network(params, x, t, attributes, known)
        return flow.velocity(output, x, t, config.flow.prediction)

    return dx_dt


def sampler(config, settings: Settings) -> Callable:
    """The whole integration as one pure function, to be jitted.

    Args:
      config: of the run that trained the network.
      settings: of which `seed` is not read, and `guidance` only for whether it is 1 (none).

    Returns:
      `(params, seed, weight, indices [batch] uint32, attributes, known) → images [batch, height,
      width, channels] float32`, where seed and weight stand for those of the settings (so that a
      sweep over them compiles once) and picture i starts from noise keyed by (seed, i) alone.
    """
    m = config.model
    times = solvers.time_grid(settings.steps, settings.shift)

    def sample(params, seed, weight, indices, attributes, known):
        key = jax.random.key(seed)
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(indices)
        noise = jax.vmap(lambda k: jax.random.normal(k, (m.size, m.size, m.channels)))(keys)
        dx_dt = velocity(config, params)
        if settings.guidance == 1:
            guided = guide.conditional(dx_dt, attributes, known)
        else:
            guided = guide.classifier_free(dx_dt, attributes, known, weight)
        return solvers.integrate(guided, noise, times, settings.solver)

    return sample


@functools.lru_cache(maxsize=8)
def _compiled(config, settings: Settings):
    return jax.jit(sampler(config, settings))


def generate(
    model: Model,
    attributes: Mapping[str, object] | tuple[np.ndarray, np.ndarray],
    n: int | None = None,
    indices: Sequence[int] | None = None,
    settings: Settings = Settings(),
    progress: Callable[[int], None] | None = None,
) -> Pictures:
    """Draws radiographs.

    Args:
      model: from `load`.
      attributes: a mapping such as `{"view": "PA", "age": 63}` for every picture alike, or
        (`attributes`, `known`), each [n, 19], one row a picture; what is not told is null.
      n: how many; may be left out where `attributes` has rows or `indices` are given.
      indices: which pictures of the seed; 0 … n − 1 when None. The same index under other
        attributes starts from the same noise.
      settings: seed, solver and guidance.
      progress: called with the number of pictures that each batch added.

    Returns:
      `Pictures` in the order asked.

    Raises:
      ConfigError: for a wrong attribute, or numbers that do not fit each other.
    """
    if isinstance(attributes, Mapping):
        row, told = conditioning.encode(attributes)
        if n is None:
            n = 1 if indices is None else len(indices)
        values, known = np.tile(row, (max(0, n), 1)), np.tile(told, (max(0, n), 1))
    else:
        values, known = (np.asarray(a) for a in attributes)
        n = len(values) if n is None else n
    indices = np.arange(n) if indices is None else np.asarray(indices)
    if not len(values) == len(known) == len(indices) == n or n < 1:
        raise ConfigError(f"{len(values)} rows of attributes, {len(indices)} indices and n={n}")
    if indices.min() < 0 or indices.max() >= 2**32:
        raise ConfigError("indices must lie in [0, 2³²)")

    devices = model.mesh.size
    block = min(settings.batch_size, max(1, n))
    block += -block % devices
    # Whether there is guidance at all changes the program; its weight and the seed do not.
    program = dataclasses.replace(settings, guidance=float(settings.guidance == 1), seed=0)
    run = _compiled(model.config, program)
    seed, weight = jnp.uint32(settings.seed), jnp.float32(settings.guidance)
    images = []
    for start in range(0, n, block):
        rows = np.arange(start, start + block) % n  # the last block wraps: one shape, one program
        batch = {"i": indices[rows].astype(np.uint32), "a": values[rows], "k": known[rows]}
        batch = partition.global_batch(model.mesh, batch)
        with jax.set_mesh(model.mesh):  # so that attention kernels run on each device's own rows
            out = run(model.params, seed, weight, batch["i"], batch["a"], batch["k"])
        images.append(np.asarray(out)[: n - start])
        if progress:
            progress(len(images[-1]))
    images = np.clip(np.concatenate(images), -1.0, 1.0)[..., 0]
    return Pictures(images, values, known, indices, settings, model.source)


def describe(drawn: Pictures, i: int) -> dict[str, object]:
    """All that reproduces picture i, as JSON values."""
    return {
        "synthetic": True,
        "index": int(drawn.indices[i]),
        "attributes": conditioning.decode(drawn.attributes[i], drawn.known[i]),
        **dataclasses.asdict(drawn.settings),
        **drawn.source,
    }


def save(drawn: Pictures, out: str | Path, extra: Mapping[str, object] | None = None) -> list[Path]:
    """Writes 16-bit PNGs, a grid and `samples.json`.

    Every PNG carries what made it as text, and says that it is synthetic.

    Args:
      drawn: from `generate`.
      out: a directory, made where it is absent.
      extra: further entries of `samples.json`.

    Returns:
      the paths of the PNGs.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    paths, entries = [], []
    for i, image in enumerate(drawn.images):
        entry = describe(drawn, i)
        paths.append(out / f"sample_{i:05d}.png")
        text = {"Software": "rfxray", "Description": "synthetic radiograph, not of a person"}
        pictures.save_png(paths[-1], to_uint16(image), {**text, "rfxray": entry})
        entries.append({"file": paths[-1].name, **entry})
    sidecar = {**(extra or {}), "pictures": entries}
    (out / "samples.json").write_text(json.dumps(sidecar, indent=1) + "\n")
    return paths
