"""Model FLOPs: the operations of the matrix products that one step of a config asks for.

Counted from the traced network, two a multiply-add, attention over all pairs of tokens included;
a backward pass takes twice the forward one. What is computed again under remat does not count (it
is the machine's affair), nor do element-wise operations.
"""

import functools
import math

import jax
import jax.extend
import jax.numpy as jnp

from rfxray.attributes import vocabulary
from rfxray.attributes.vocabulary import Attributes
from rfxray.networks import radit


def of_jaxpr(jaxpr) -> float:
    """Operations of every `dot_general` of a jaxpr, the body of a scan as often as it runs."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            lhs, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
            total += 2.0 * math.prod(out) * math.prod(lhs[d] for d in contracted)
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            total += times * of_jaxpr(inner)
    return total


@functools.lru_cache
def forward(shape: radit.ModelConfig) -> float:
    """Of one picture through the network once."""
    network = radit.apply(shape, radit.Execution(attention="xla"))
    picture = jax.ShapeDtypeStruct((1, shape.size, shape.size, shape.channels), jnp.float32)
    attributes = jax.ShapeDtypeStruct((1, vocabulary.NUM_ATTRIBUTES), jnp.float32)
    known = jax.ShapeDtypeStruct(attributes.shape, bool)
    t = jax.ShapeDtypeStruct((1,), jnp.float32)
    arguments = (radit.abstract(shape)[1], picture, t, Attributes(attributes, known))
    return of_jaxpr(jax.make_jaxpr(network)(*arguments).jaxpr)


def train_step(config) -> float:
    """Of one optimizer step of a config, over all devices."""
    return 3.0 * config.batch_size * forward(radit.model_config(config))
