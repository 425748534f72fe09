"""The interface of every network to training and sampling."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
from jaxtyping import Array, Key, PyTree

from rfxray.arrays import Params

# (params, inputs …) → arrays; a network and its objective agree on both.
Apply: TypeAlias = Callable[..., Any]


def _runs_anywhere(backend: str) -> None:
    pass


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A network as pure functions.

    Attributes:
      init: Function of a PRNG key that returns fresh parameters. Trace it under jit to place them.
      apply: Function of parameters and inputs that returns the output.
      shapes: Parameters as a tree of `jax.ShapeDtypeStruct`.
      axes: Tree like them with the logical name of each dimension (see runtime/sharding.py).
      input_shape: Height, width and channels of one example.
      tokens: Tokens of one example, for rates; 1 if it has none.
      sizes: Sizes of the logical axes that the mesh must divide.
      base: Network that this one adapts: its parameters are given, and not trained. None for a
        network of its own.
      merge: Function of the parameters of `base` and of this network that returns those that
        `apply` takes; None without a base.
      refuse: Function of a backend (`cpu`, `gpu`, `tpu`) that raises a ConfigError if the network
        cannot run there.
    """

    init: Callable[[Key[Array, ""]], Params]
    apply: Apply
    shapes: PyTree[jax.ShapeDtypeStruct]
    axes: PyTree[str]
    input_shape: tuple[int, int, int]
    tokens: int = 1
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    base: "Network | None" = None
    merge: Callable[[Params, Params], Params] | None = None
    refuse: Callable[[str], None] = _runs_anywhere

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.shapes))
