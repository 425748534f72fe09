"""XLA options for every program, by kind of device."""

# Overlap gathers and reductions of sharded parameters with matrix products: without these options
# libtpu 0.0.42 waits for each gather of a layer (two layers compiled for v5p:2x2x1).
_TPU_OPTIONS = {
    "xla_tpu_enable_async_collective_fusion": "true",
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": "true",
    "xla_tpu_enable_async_collective_fusion_multiple_steps": "true",
    "xla_tpu_overlap_compute_collective_tc": "true",
    "xla_enable_async_all_gather": "true",
}


# KiB of a core's on-chip memory for the tiles of one fusion, on chips that have more than the
# compiler's default. XLA's cost model estimates 555 instead of 743 ms for the products of XL's step
# on v5p:4x4x4, because their element-wise work is done once instead of once per tile.
_VMEM = {"TPU v5": 49152, "TPU v6": 98304}


def options_for(device_kind: str) -> dict[str, str]:
    """The compiler options for a `jax.Device.device_kind`."""
    if not device_kind.startswith("TPU"):
        return {}
    vmem = next((kib for kind, kib in _VMEM.items() if device_kind.startswith(kind)), None)
    return _TPU_OPTIONS | ({"xla_tpu_scoped_vmem_limit_kib": str(vmem)} if vmem else {})
