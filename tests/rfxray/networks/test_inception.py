"""Inception-v3 of FID, beside that of pytorch-fid."""

import jax
import numpy as np
import pytest

from rfxray.errors import DataError
from rfxray.networks.convnets import inception
from tests.peers import import_peer
from tests.rfxray.networks.parity import MATTERS, TOLERANCE, draw, effects, relative

CLASSIFIER = {"fc.weight": (1008, 2048), "fc.bias": (1008,)}
# The least side that every block leaves a pixel of.
SIDE = 75


@pytest.fixture(scope="module")
def tensors():
    drawn = draw(inception.shapes() | CLASSIFIER, 0.05)
    # With variances of a tenth of a weight's square the first convolutions still matter at the end;
    # with ten times as much their effect is below the tolerance.
    return {n: t / 10 if n.endswith("running_var") else t for n, t in drawn.items()}


@pytest.fixture(scope="module")
def weights(tensors):
    return jax.device_put(inception.convert(tensors))


@pytest.fixture(scope="module")
def peer(tensors):
    torch, fid = import_peer("torch"), import_peer("pytorch_fid.inception")
    weights = {name: torch.tensor(tensor) for name, tensor in tensors.items()}

    def loaded(state, resize):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fid, "load_state_dict_from_url", lambda *_, **__: state)
            return fid.InceptionV3([3], resize_input=resize).eval()

    def features(images, resize):
        # It loads strictly, so it gets the counters of BatchNorm that no file of ours has.
        counters = {
            name.replace("running_mean", "num_batches_tracked"): torch.tensor(0)
            for name in weights
            if name.endswith("running_mean")
        }
        with torch.no_grad():
            levels = torch.tensor((images + 1) / 2)  # it scales [0, 1] itself
            out = loaded(weights | counters, resize)(levels.permute(0, 3, 1, 2))
        return out[0][:, :, 0, 0]

    return features


def pictures(side, n=2):
    return np.random.default_rng(1).uniform(-1, 1, (n, side, side, 3)).astype(np.float32)


run = jax.jit(inception.apply, static_argnames="resize")


def test_equals_pytorch_fid(weights, peer):
    images = pictures(SIDE)
    assert relative(run(weights, images, resize=False), peer(images, False)) < TOLERANCE


@pytest.mark.drill
def test_equals_pytorch_fid_with_its_resize(weights, peer):
    images = pictures(64, n=1)
    assert relative(run(weights, images, resize=True), peer(images, True)) < TOLERANCE


def test_the_first_and_the_last_tensors_matter_beyond_the_tolerance(weights):
    images = pictures(SIDE)
    names = [n for n in weights if n.startswith(("Conv2d_1a", "Mixed_5b.branch_pool", "Mixed_7c"))]
    found = effects(lambda w: run(w, images, resize=False), weights, names)
    assert min(found.values()) > MATTERS, min(found, key=found.get)


@pytest.mark.drill
def test_every_tensor_matters_beyond_the_tolerance(weights):
    images = pictures(SIDE, n=1)
    found = effects(lambda w: run(w, images, resize=False), weights)
    assert len(found) == 470
    assert min(found.values()) > MATTERS, min(found, key=found.get)


def test_weights_of_torchvision_are_refused_by_their_classes(tensors):
    given = tensors | {
        "fc.weight": tensors["fc.weight"][:1000],
        "fc.bias": tensors["fc.bias"][:1000],
    }
    with pytest.raises(DataError) as error:
        inception.convert(given)
    assert str(error.value) == (
        "these are not the weights of the Inception-v3 of FID: 2 have another shape "
        "(first: fc.weight is [1000, 2048], not [1008, 2048])"
    )
