"""Resampling of grids, beside PyTorch's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfxray.networks import interpolation

torch = pytest.importorskip("torch", reason="no torch; it comes with the extra peers")

SIDES = st.integers(1, 24)
MODES = {
    "bilinear": {"mode": "bilinear"},
    "bicubic": {"mode": "bicubic"},
    "bicubic_antialias": {"mode": "bicubic", "antialias": True},
}


@pytest.mark.parametrize("kind", MODES)
@given(old=st.tuples(SIDES, SIDES), new=st.tuples(SIDES, SIDES))
def test_equals_torch_at_any_size(kind, old, new):
    x = np.random.default_rng(0).normal(size=(*old, 2)).astype(np.float32)
    channels_first = torch.tensor(x).permute(2, 0, 1)[None]
    theirs = torch.nn.functional.interpolate(
        channels_first, size=new, align_corners=False, **MODES[kind]
    )
    rows, columns = (interpolation.matrix(a, b, kind) for a, b in zip(old, new, strict=True))
    ours = np.einsum("yi,xj,ijc->cyx", rows, columns, x)
    np.testing.assert_allclose(ours, theirs[0].numpy(), atol=2e-5)


@pytest.mark.parametrize("kind", MODES)
def test_the_same_size_changes_nothing(kind):
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(interpolation.resize(x, 5, 4, kind), x, atol=1e-6)
