"""Model FLOPs: the operations of the matrix products of a program.

They are counted in the traced program, two per multiply-add, with attention over all pairs of
tokens and convolutions. Recomputation under remat does not count, since it is not part of the
mathematics, nor do element-wise operations.
"""

import math
from collections.abc import Callable

import jax
import jax.extend
import jax.numpy as jnp

from rfxray.attributes.vocabulary import NUM_ATTRIBUTES, Attributes
from rfxray.networks.network import Network


def of_jaxpr(jaxpr: jax.extend.core.Jaxpr) -> float:
    """Operations of all products of a jaxpr; the body of a scan counts as often as it runs."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            lhs, out = _shape(equation.invars[0]), _shape(equation.outvars[0])
            total += 2.0 * math.prod(out) * math.prod(lhs[d] for d in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            kernel, out = _shape(equation.invars[1]), _shape(equation.outvars[0])
            channels_out = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            total += 2.0 * math.prod(out) * math.prod(kernel) / channels_out
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            total += times * of_jaxpr(inner)
    return total


def _shape(variable) -> tuple[int, ...]:
    """The shape of an array of a jaxpr, which JAX's annotations do not name."""
    return variable.aval.shape


def of_call(function: Callable, *arguments: object) -> float:
    """Operations of a call; the arguments may be trees of `jax.ShapeDtypeStruct`."""
    return of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr)


def of_velocity(network: Network) -> float:
    """Operations of one evaluation of a network `(params, x, t, attributes)` for one example."""
    x = jax.ShapeDtypeStruct((1, *network.input_shape), jnp.float32)
    t = jax.ShapeDtypeStruct((1,), jnp.float32)
    attributes = jax.eval_shape(
        lambda: Attributes(jnp.zeros((1, NUM_ATTRIBUTES)), jnp.zeros((1, NUM_ATTRIBUTES), bool))
    )
    return of_call(network.apply, network.shapes, x, t, attributes)
