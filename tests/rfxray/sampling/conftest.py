"""A model without a network, which draws in milliseconds."""

import pytest


@pytest.fixture(scope="session")
def analytic():
    """A model that goes to a grey level which depends on the age, and on nothing else."""
    from rfxray.attributes.vocabulary import INDEX
    from rfxray.runtime import sharding
    from rfxray.sampling.pretrained import Model

    def velocity(params, x, t, attributes):
        grey = attributes.values[:, INDEX["age"]] / 100 - 0.5
        return x - 0.3 * x - grey[:, None, None, None]

    source = {"checkpoint": "none", "step": 0, "ema": 0.05, "weights": "a" * 64}
    return Model({}, velocity, (32, 32, 1), sharding.make_mesh(1, 1, 1), source)
