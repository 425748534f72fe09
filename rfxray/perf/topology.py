"""A TPU slice that is not there, as the TPU compiler describes it."""

import dataclasses
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
      name: generation and shape in chips, such as `v5p:4x4x8`, of each slice.
      devices: `jax.Device`s that can be compiled for and not be run on.
      chip: its row of the peak table.
    """

    name: str
    devices: Sequence[jax.Device]  # pyright: ignore[reportInvalidTypeForm]  a variable to it
    chip: chips.Chip


def describe(topology: str, slices: int = 1) -> Pod:
    """The pod of a name such as `v5p:4x4x8`: a generation, and its chips along each dimension.

    Raises:
      ConfigError: for a name that the compiler does not know, or where libtpu is not installed.
    """
    generation = topology.partition(":")[0]
    if generation not in GENERATIONS or not re.fullmatch(r"\w+:\d+(x\d+)+", topology):
        raise errors.ConfigError(
            f"--topology {topology} is not GENERATION:SHAPE with a generation of "
            f"{', '.join(GENERATIONS)} and a shape in chips, such as v5p:4x4x8 or v5e:16x16"
        )
    # libtpu looks for a TPU and its metadata server unless it is told not to.
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": f"{generation}-8"}
    os.environ |= {"TPU_WORKER_HOSTNAMES": "localhost", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    jax.config.update("jax_platforms", "cpu")
    from jax.experimental import topologies

    # A v4 chip is two cores that act as one device, which the other generations say by themselves.
    more = {"chip_config_name": "megacore"} if generation == "v4" else {}
    more |= {"num_slices": slices} if slices > 1 else {}
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology, **more)
    except Exception as error:  # several kinds, from a missing library to a wrong shape
        raise errors.ConfigError(
            f"no topology {topology}: {errors.first_line(error)} (the compiler comes with: pip "
            "install libtpu)"
        ) from error
    return Pod(topology, found.devices, chips.CHIPS[generation])
