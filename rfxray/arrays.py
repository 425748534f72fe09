"""Arrays in annotations: `Float[AnyArray, "batch height width"]` is a NumPy or a JAX array."""

from typing import TypeAlias

import jax
import numpy as np
from jaxtyping import PyTree

AnyArray: TypeAlias = np.ndarray | jax.Array

# Parameters of one network, a nested dict of arrays.
Params: TypeAlias = PyTree[AnyArray]
