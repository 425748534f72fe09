"""TPU slices described by the TPU compiler, without hardware."""

import dataclasses
import importlib.util
import os
import re
from collections.abc import Sequence

import jax

from rfxray import errors
from rfxray.perf import chips

GENERATIONS = ("v4", "v5e", "v5p", "v6e")


@dataclasses.dataclass(frozen=True)
class Pod:
    """One slice, or several joined by the data centre's network.

    Attributes:
      name: Generation and shape in chips of each slice, such as `v5p:4x4x8`.
      devices: Devices (`jax.Device`) to compile for; they cannot run anything.
      chip: Peaks of one chip.
    """

    name: str
    devices: Sequence[jax.Device]  # pyright: ignore[reportInvalidTypeForm]  a variable to it
    chip: chips.Chip


def describe(topology: str, slices: int = 1) -> Pod:
    """The pod with a name such as `v5p:4x4x8`: a generation, and chips along each dimension.

    Raises:
      ConfigError: If the compiler does not know the name, or libtpu is not installed.
    """
    generation = topology.partition(":")[0]
    if generation not in GENERATIONS or not re.fullmatch(r"\w+:\d+(x\d+)+", topology):
        raise errors.ConfigError(
            f"--topology must be GENERATION:SHAPE with one of {', '.join(GENERATIONS)} and a shape "
            f"in chips, such as v5p:4x4x8 or v5e:16x16 (got {topology})"
        )
    # Keeps libtpu from looking for a TPU and its metadata server.
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": f"{generation}-8"}
    os.environ |= {"TPU_WORKER_HOSTNAMES": "localhost", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    jax.config.update("jax_platforms", "cpu")
    from jax.experimental import topologies

    # The two cores of a v4 chip act as one device only on request, those of others by default.
    more = {"chip_config_name": "megacore"} if generation == "v4" else {}
    more |= {"num_slices": slices} if slices > 1 else {}
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology, **more)
    except Exception as error:  # several types, from a missing library to a wrong shape
        if not importlib.util.find_spec("libtpu"):
            raise errors.ConfigError(
                "the TPU compiler libtpu is not installed; run pip install libtpu (needs no TPU)"
            ) from error
        raise errors.ConfigError(
            f"{topology} is not a TPU topology that libtpu knows ({errors.first_line(error)}); "
            "choose another shape, for example v5p:4x4x8"
        ) from error
    return Pod(topology, found.devices, chips.CHIPS[generation])
