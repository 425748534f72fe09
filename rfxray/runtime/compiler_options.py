"""What every program for a kind of device is compiled with."""

# To let the gathers and reductions of sharded parameters travel while matrix products run: without
# them libtpu 0.0.42 schedules each gather of a layer as a wait (two layers compiled for v5p:2x2x1).
_TPU_OPTIONS = {
    "xla_tpu_enable_async_collective_fusion": "true",
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": "true",
    "xla_tpu_enable_async_collective_fusion_multiple_steps": "true",
    "xla_tpu_overlap_compute_collective_tc": "true",
    "xla_enable_async_all_gather": "true",
}


# KiB of a core's on-chip memory for the tiles of one fusion, where there is more than the compiler
# takes by itself. With it the products of XL's step on v5p:4x4x4 should take 743 → 555 ms by XLA's
# own cost model: what is done element by element within them is done once in place of per tile.
_VMEM = {"TPU v5": 49152, "TPU v6": 98304}


def options_for(device_kind: str) -> dict[str, str]:
    """What every program for a kind of device (`jax.Device.device_kind`) is compiled with."""
    if not device_kind.startswith("TPU"):
        return {}
    vmem = next((kib for kind, kib in _VMEM.items() if device_kind.startswith(kind)), None)
    return _TPU_OPTIONS | ({"xla_tpu_scoped_vmem_limit_kib": str(vmem)} if vmem else {})
