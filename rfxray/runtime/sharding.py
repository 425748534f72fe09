"""The mesh, and the sharding of every array on it.

Every dimension of a parameter has a logical name; one table maps the names to mesh axes. `data`
replicates the model, `fsdp` splits it along its embedding dimension (each layer is gathered when it
is used), `tensor` splits heads and the SwiGLU width (Megatron's layout, arXiv 1909.08053),
`sequence` splits the tokens of an image (the queries of a device attend to all keys and values,
which are gathered). The batch is split over data × fsdp.
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
    """A (data, fsdp, tensor, sequence) mesh over all devices; data = −1 uses the remaining devices.

    Several slices are joined by a slower network, so they are placed along the data axis: only the
    reduction of gradients crosses it.

    Raises:
      ConfigError: If the product is not the number of devices, or data is not a multiple of the
        slices.
    """
    devices = jax.devices() if devices is None else devices
    n = len(devices)
    if data == -1:
        data = max(1, n // (fsdp * tensor * sequence))
    shape = (data, fsdp, tensor, sequence)
    written = _written(dict(zip(AXES, shape, strict=True)))
    if min(shape) < 1:
        raise ConfigError(f"config.mesh.* must be at least 1, or −1 for data (got {written})")
    if math.prod(shape) != n:
        raise ConfigError(
            f"mesh {written} needs {math.prod(shape)} devices, but there are {n}; set config.mesh.*"
        )
    # GPUs number their hosts as slices too, but the order of their devices already suits a mesh.
    slices = len({getattr(d, "slice_index", 0) for d in devices if d.platform == "tpu"}) or 1
    if data % slices:
        raise ConfigError(
            f"mesh.data must be a multiple of the {slices} slices, because only the data axis may "
            f"cross slices (got {data})"
        )
    # An axis of 16 on a torus of 8 × 8 × 4 needs a part of a dimension.
    split = {"allow_split_physical_axes": True}
    if slices > 1:
        inside, between = (data // slices, *shape[1:]), (slices, 1, 1, 1)
        grid = mesh_utils.create_hybrid_device_mesh(inside, between, devices, **split)
    else:
        grid = mesh_utils.create_device_mesh(shape, devices, **split)
    # Auto: the compiler propagates shardings from the arrays. Under Explicit, the default since
    # jax 0.10, plain indexing of a sharded array raises.
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _written(shape: Mapping[str, int]) -> str:
    """`data 2 × fsdp 4 × …`."""
    return " × ".join(f"{axis} {shape[axis]}" for axis in AXES)


def sharding(mesh: Mesh, shape: tuple[int, ...], logical: tuple[str | None, ...]) -> NamedSharding:
    """The sharding of an array with these logical names of dimensions.

    A dimension that its mesh axes do not divide, such as 60 rows of a table, is not split.
    """

    def axes(size, name):
        axes = RULES.get(name)
        ways = math.prod(mesh.shape[a] for a in np.atleast_1d(axes)) if axes else 1
        return axes if ways > 1 and size % ways == 0 else None

    return NamedSharding(mesh, P(*map(axes, shape, logical)))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def check_batch(mesh: Mesh, batch_size: int, parts: int = 1) -> None:
    """Refuses a batch that the mesh cannot split, or a mesh that gives two hosts the same rows.

    Raises:
      ConfigError: If data × fsdp × parts or the number of hosts does not divide the batch, or if
        tensor or sequence span several hosts, since each host reads different rows.
    """
    shards, hosts = mesh.shape["data"] * mesh.shape["fsdp"], jax.process_count()
    if hosts > 1:
        rows = NamedSharding(mesh, BATCH).addressable_devices_indices_map((shards,)).values()
        if len(set(map(str, rows))) * hosts != shards:
            raise ConfigError(
                f"mesh {_written(mesh.shape)} puts the same rows of a batch on several of the "
                f"{hosts} hosts; tensor × sequence must fit into one host"
            )
    if batch_size % (shards * parts) or batch_size % hosts:
        accumulated = f" × accumulate {parts}" if parts > 1 else ""
        raise ConfigError(
            f"batch_size must be a multiple of data {mesh.shape['data']} × fsdp "
            f"{mesh.shape['fsdp']}{accumulated} and of {hosts} host(s) (got {batch_size})"
        )


def check_axes(mesh: Mesh, sizes: Mapping[str, int]) -> None:
    """Refuses a mesh that does not divide the axes of a network.

    Args:
      mesh: The mesh.
      sizes: Sizes of logical axes, such as `heads`, that must be divided.

    Raises:
      ConfigError: If a size is not a multiple of its mesh axis.
    """
    for name, size in sizes.items():
        axis = RULES[name]
        if isinstance(axis, str) and size % mesh.shape[axis]:
            raise ConfigError(
                f"mesh.{axis} must divide the {size} {name} of the network (got {mesh.shape[axis]})"
            )


def constrain(x: jax.Array, *logical: str | None) -> jax.Array:
    """Constrains the sharding of an activation under `jax.set_mesh`; otherwise does nothing."""
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
