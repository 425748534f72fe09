"""The mesh, and where every array lives on it.

A dimension of a parameter has a logical name; one table maps names to mesh axes. `data` repeats
the model, `fsdp` splits it by its embedding dimension (each layer is gathered when it is used),
`tensor` splits heads and the SwiGLU width (Megatron's layout, arXiv 1909.08053), `sequence` the
tokens of a picture (each device's queries meet all keys and values, which are gathered). The batch
is split over data × fsdp.
"""

import math
from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from rfxray.errors import ConfigError

AXES = ("data", "fsdp", "tensor", "sequence")

RULES = {
    "batch": ("data", "fsdp"),
    "tokens": "sequence",
    "layers": None,
    "embed": "fsdp",
    "heads": "tensor",
    "mlp": "tensor",
}

BATCH = P(RULES["batch"])


def make_mesh(data: int, fsdp: int, tensor: int, devices=None, *, sequence: int = 1) -> Mesh:
    """A (data, fsdp, tensor, sequence) mesh over all devices; data = −1 takes what is left.

    Several slices, which a slower network joins, lie along the data axis: only the gradients'
    reduction crosses it.

    Raises:
      ConfigError: where the product is not the number of devices, or slices do not divide data.
    """
    devices = jax.devices() if devices is None else devices
    n = len(devices)
    if data == -1:
        data = max(1, n // (fsdp * tensor * sequence))
    shape = (data, fsdp, tensor, sequence)
    if min(shape) < 1 or math.prod(shape) != n:
        raise ConfigError(
            f"a mesh of {_written(dict(zip(AXES, shape, strict=True)))} is not the {n} device(s) "
            "at hand; set config.mesh so that the product is"
        )
    # GPUs number their hosts as slices too; there the order of the devices does as well.
    slices = len({getattr(d, "slice_index", 0) for d in devices if d.platform == "tpu"}) or 1
    if data % slices:
        raise ConfigError(
            f"mesh.data={data} is not a multiple of the {slices} slices; between slices only the "
            "data axis runs"
        )
    # A torus of 8 × 8 × 4 has no 16 among its products, so an axis may take a part of a dimension.
    split = {"allow_split_physical_axes": True}
    if slices > 1:
        inside, between = (data // slices, *shape[1:]), (slices, 1, 1, 1)
        grid = mesh_utils.create_hybrid_device_mesh(inside, between, devices, **split)
    else:
        grid = mesh_utils.create_device_mesh(shape, devices, **split)
    # Auto: the compiler propagates shardings from the arrays; the default since jax 0.10 is
    # Explicit, under which plain indexing of a sharded array raises.
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _written(shape: Mapping[str, int]) -> str:
    """`data 2 × fsdp 4 × …`."""
    return " × ".join(f"{axis} {shape[axis]}" for axis in AXES)


def sharding(mesh: Mesh, shape: tuple[int, ...], logical: tuple[str | None, ...]) -> NamedSharding:
    """The sharding of an array whose dimensions have those logical names.

    A dimension that its mesh axes do not divide (a table of 60 rows, say) stays whole.
    """

    def axes(size, name):
        axes = RULES.get(name)
        ways = math.prod(mesh.shape[a] for a in np.atleast_1d(axes)) if axes else 1
        return axes if ways > 1 and size % ways == 0 else None

    return NamedSharding(mesh, P(*map(axes, shape, logical)))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def check_batch(mesh: Mesh, batch_size: int, parts: int = 1) -> None:
    """Refuses a batch that the mesh cannot split, or whose rows two hosts would have to share.

    Raises:
      ConfigError: where data × fsdp × parts, or the hosts, do not divide the batch; where tensor or
        sequence reach over several hosts, each of which reads rows of its own.
    """
    shards, hosts = mesh.shape["data"] * mesh.shape["fsdp"], jax.process_count()
    if hosts > 1:
        rows = NamedSharding(mesh, BATCH).addressable_devices_indices_map((shards,)).values()
        if len(set(map(str, rows))) * hosts != shards:
            raise ConfigError(
                f"a mesh of {_written(mesh.shape)} lays the same rows of a batch on several of the "
                f"{hosts} hosts; tensor × sequence must fit into one, and the rest be data × fsdp"
            )
    if batch_size % (shards * parts) or batch_size % hosts:
        accumulated = f", accumulated in {parts} parts" if parts > 1 else ""
        raise ConfigError(
            f"batch_size={batch_size} is not divided by the mesh: data {mesh.shape['data']} × "
            f"fsdp {mesh.shape['fsdp']} over {hosts} host(s){accumulated}"
        )


def check_axes(mesh: Mesh, sizes: Mapping[str, int]) -> None:
    """Refuses a mesh that does not divide a network.

    Args:
      mesh: The mesh.
      sizes: Sizes of logical axes, such as `heads`, that must be divided.

    Raises:
      ConfigError: With the axis that is not divided.
    """
    for name, size in sizes.items():
        axis = RULES[name]
        if isinstance(axis, str) and size % mesh.shape[axis]:
            raise ConfigError(
                f"mesh.{axis} must divide the {size} {name} of the network (got {mesh.shape[axis]})"
            )


def constrain(x: jax.Array, *logical: str | None) -> jax.Array:
    """Pins an activation to its place under `jax.set_mesh`; outside of one it does nothing."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(
        x, P(*(RULES.get(name) if name else None for name in logical))
    )


def global_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """This host's rows of a batch as global arrays split over data × fsdp."""
    where = NamedSharding(mesh, BATCH)
    return {k: jax.make_array_from_process_local_data(where, v) for k, v in batch.items()}
