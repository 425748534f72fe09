"""Attributes as the network sees them: embedding rows, and the dropout that guidance needs."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Key

from rfxray.attributes.vocabulary import ATTRIBUTES, NUM_ATTRIBUTES, Attributes

# ---------------------------------------------------------------------------------------------
# Embedding rows: one table serves every attribute, row 0 of each attribute's part is its null.


CATEGORIES = np.array([max(1, len(attribute.values)) for attribute in ATTRIBUTES])
ROW_OFFSET = np.concatenate([[0], np.cumsum(CATEGORIES + 1)[:-1]])
NUM_ROWS = int((CATEGORIES + 1).sum())


def embedding_rows(attributes: Attributes) -> Int32[Array, "... 19"]:
    """The row of the shared table for each attribute, int32 [..., 19].

    Every attribute owns `1 + len(values)` consecutive rows of which the first is null; a continuous
    attribute owns a null row and a "known" row, and its number enters separately.
    """
    continuous = np.array([attribute.continuous for attribute in ATTRIBUTES])
    category = jnp.where(continuous, 0, attributes.values.astype(jnp.int32))
    return jnp.asarray(ROW_OFFSET, jnp.int32) + jnp.where(attributes.known, 1 + category, 0)


# ---------------------------------------------------------------------------------------------
# Dropout


def drop(
    keys: Key[Array, " batch"], attributes: Attributes, all_null: float = 0.1, each: float = 0.2
) -> Attributes:
    """Forgets attributes at random, so that one network learns every conditional of guidance.

    A mixture per example: with probability `all_null` everything is forgotten (the unconditional
    velocity of classifier-free guidance); with probability `each` every attribute is forgotten
    with one probability u ~ U(0, 1) drawn for the example, which gives every subset of attributes
    weight (decoupled guidance, arXiv 2506.14399, needs single groups as much as nearly all);
    otherwise nothing changes.

    Args:
      keys: Typed PRNG keys, one per example, [batch].
      attributes: Attributes of the batch, [batch, 19].
      all_null: Share of examples without any condition.
      each: Share of examples with independent dropout.

    Returns:
      Attributes in which the forgotten ones are no longer known.
    """

    def one(key, known):
        case, share, every = jax.random.split(key, 3)
        draw = jax.random.uniform(case)
        u = jax.random.uniform(share)
        kept = jax.random.uniform(every, (NUM_ATTRIBUTES,)) >= u
        partly = (draw >= all_null) & (draw < all_null + each)
        return known & (draw >= all_null) & (kept | ~partly)

    return attributes._replace(known=jax.vmap(one)(keys, attributes.known))
