"""DenseNet-121 of TorchXRayVision, beside the original."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfxray.errors import DataError
from rfxray.networks import torch_weights
from rfxray.networks.convnets import densenet
from tests.peers import import_peer
from tests.rfxray.networks.parity import MATTERS, TOLERANCE, draw, effects, relative

# One of each kind of tensor: two blocks, of which the first has a second layer.
TINY = {"blocks": (2, 1), "growth": 4, "stem": 8, "classes": 3}
SIDE = 32
THRESHOLDS = np.float32([0.2, np.nan, 0.7])

run = jax.jit(densenet.apply)
score = jax.jit(densenet.scores)


def peer(tensors, shape=None, thresholds=None):
    torch, xrv = import_peer("torch"), import_peer("torchxrayvision")
    named = {}
    if shape:
        named = {
            "block_config": shape["blocks"],
            "growth_rate": shape["growth"],
            "num_init_features": shape["stem"],
            "num_classes": shape["classes"],
        }
    model = xrv.models.DenseNet(**named).eval()
    loaded = model.load_state_dict({n: torch.tensor(t) for n, t in tensors.items()}, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in loaded.missing_keys)
    if thresholds is not None:
        model.op_threshs = torch.tensor(thresholds)
    return model


def answers(model, images):
    torch = import_peer("torch")
    with torch.no_grad():
        given = torch.tensor(images).permute(0, 3, 1, 2)
        return model.features2(given).numpy(), model(given).numpy()


def pictures(side, n=2, scale=1.0):
    rng = np.random.default_rng(1)
    return rng.uniform(-scale, scale, (n, side, side, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def tiny():
    """A tiny network at N(0, .3²): at .05 the layers of so few maps would not matter."""
    shapes = densenet.shapes(**TINY)
    tensors = draw(shapes, 0.3)
    return tensors, torch_weights.convert(tensors, shapes, "a tiny DenseNet")


def test_a_tiny_network_equals_torchxrayvision(tiny):
    tensors, weights = tiny
    images = pictures(SIDE)
    theirs, their_scores = answers(peer(tensors, TINY, THRESHOLDS), images)
    features = run(weights, images)
    assert relative(features, theirs) < TOLERANCE
    assert relative(score(weights, features, THRESHOLDS), their_scores) < TOLERANCE


def test_every_tensor_matters_beyond_the_tolerance(tiny):
    _, weights = tiny
    images = pictures(SIDE)
    everywhere = np.float32([0.2, 0.5, 0.7])
    found = effects(lambda w: score(w, run(w, images), everywhere), weights)
    assert min(found.values()) > MATTERS, min(found, key=found.get)


@pytest.mark.drill
def test_the_whole_network_equals_torchxrayvision():
    tensors = draw(densenet.shapes(), 0.05)
    weights = jax.device_put(densenet.convert(tensors))
    model = peer(tensors)
    for side, scale in ((SIDE, 1.0), (224, 1024.0)):
        images = pictures(side, n=1, scale=scale)
        assert relative(run(weights, images), answers(model, images)[0]) < TOLERANCE
    images = pictures(SIDE, n=1)
    kept = [name for name in weights if "classifier" not in name]
    found = effects(lambda w: run(w, images), weights, kept)
    assert len(found) == 604
    assert min(found.values()) > MATTERS, min(found, key=found.get)


@given(
    logits=st.lists(st.floats(-8, 8, width=32), min_size=3, max_size=3),
    thresholds=st.lists(
        st.floats(0.001953125, 0.998046875, width=32) | st.just(np.nan), min_size=3, max_size=3
    ),
)
def test_scores_equal_those_of_torchxrayvision(logits, thresholds):
    torch, xrv = import_peer("torch"), import_peer("torchxrayvision")
    logits, thresholds = np.float32([logits]), np.float32(thresholds)
    theirs = xrv.models.op_norm(torch.sigmoid(torch.tensor(logits)), torch.tensor(thresholds))
    weights = {"classifier.weight": np.eye(3, dtype=np.float32), "classifier.bias": np.zeros(3)}
    np.testing.assert_allclose(score(weights, logits, thresholds), theirs.numpy(), atol=1e-6)


def test_a_network_of_another_depth_is_refused():
    tensors = draw(densenet.shapes((6, 12, 23, 16)), 0.05)
    with pytest.raises(DataError, match=r"10 of 606 tensors are missing \(first: features\.denseb"):
        densenet.convert(tensors)
