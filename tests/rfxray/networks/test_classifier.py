"""The classifier beside a twin in PyTorch."""

import jax
import ml_collections
import numpy as np
import pytest

from rfxray.attributes.vocabulary import ATTRIBUTES
from rfxray.config.schema import defaults
from rfxray.errors import ConfigError
from rfxray.networks import classifier, kinds

SIZE = 24


def section(**keys) -> ml_collections.FrozenConfigDict:
    found = defaults(model="classifier", objective="classification", evaluators={}).model
    found.update({"size": SIZE, "multipliers": (1, 2, 2), "blocks": 2, **keys})
    return ml_collections.FrozenConfigDict(found)


@pytest.fixture(scope="module")
def network():
    return kinds.build(section())


@pytest.fixture(scope="module")
def params(network):
    """Parameters of which none is at its first value, so that every one of them counts."""
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(float(name.endswith("scale")), 0.3, shape.shape).astype(np.float32)
        for name, shape in network.shapes.items()
    }


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(-1, 1, (5, SIZE, SIZE, 1)).astype(np.float32)


def twin(params, images):
    torch = pytest.importorskip("torch", reason="no torch; it comes with the extra peers")
    f = torch.nn.functional
    p = {name: torch.from_numpy(value) for name, value in params.items()}

    def conv(name, x, stride=1):
        kernel = p[name].permute(3, 2, 0, 1)
        return f.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    def norm(name, x):
        return f.silu(f.group_norm(x, 4, p[f"{name}.scale"], p[f"{name}.bias"], 1e-6))

    x = conv("stem.kernel", torch.from_numpy(images).permute(0, 3, 1, 2), 2)
    for level in range(3):
        for block in range(2):
            name = f"levels.{level}.{block}"
            stride = 2 if level and not block else 1
            y = norm(f"{name}.norm1", x)
            if f"{name}.skip.kernel" in p:
                x = conv(f"{name}.skip.kernel", f.avg_pool2d(y, stride))
            y = norm(f"{name}.norm2", conv(f"{name}.conv1.kernel", y, stride))
            x = x + conv(f"{name}.conv2.kernel", y)
    x = norm("norm", x)
    seen = torch.cat([x.mean((2, 3)), x.amax((2, 3))], -1)
    return (seen @ p["heads.kernel"] + p["heads.bias"]).numpy()


def test_outputs_are_those_of_a_twin_in_torch(network, params, images):
    found = np.asarray(network.apply(params, images))
    np.testing.assert_allclose(found, twin(params, images), rtol=1e-4, atol=1e-4)


def test_every_attribute_has_its_outputs(network, params, images):
    parts = np.split(np.asarray(network.apply(params, images)), classifier.ENDS[:-1], 1)
    assert [part.shape[1] for part in parts] == [len(a.values) or 1 for a in ATTRIBUTES]


def test_what_is_read_from_an_image_does_not_depend_on_its_batch(network, params, images):
    whole = np.asarray(network.apply(params, images))
    one = np.asarray(network.apply(params, images[3:4]))
    np.testing.assert_allclose(whole[3:4], one, rtol=1e-4, atol=1e-5)


def test_fresh_network_answers_everything_at_chance(network, images):
    fresh = network.init(jax.random.key(0))
    assert {name: leaf.shape for name, leaf in fresh.items()} == {
        name: leaf.shape for name, leaf in network.shapes.items()
    }
    np.testing.assert_array_equal(network.apply(fresh, images), 0)


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"groups": 3}, r"model\.groups must divide model\.width=8 \(got 3\)"),
        ({"size": 20}, r"model\.size must be a multiple of 8.*\(got 20\)"),
    ],
)
def test_keys_that_do_not_fit_are_refused(keys, match):
    with pytest.raises(ConfigError, match=match):
        kinds.build(section(**keys))
