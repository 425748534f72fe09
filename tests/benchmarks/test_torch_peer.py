"""The PyTorch network of the same size that our speed is compared with."""

import pytest

from rfxray.attributes import vocabulary

torch = pytest.importorskip("torch", reason="no torch; it comes with the extra peers")


def test_output_has_the_input_shape_and_a_step_trains():
    from benchmarks import torch_peer

    torch.manual_seed(0)
    attributes = vocabulary.NUM_ATTRIBUTES
    network = torch_peer.SiT(16, 1, 8, width=32, depth=2, heads=2, attributes=attributes)
    image = torch.randn(2, 16, 16, 1)
    values, known = torch.zeros(2, attributes), torch.ones(2, attributes, dtype=torch.bool)
    assert network(image, torch.rand(2), values, known).shape == image.shape
    before = [parameter.detach().clone() for parameter in network.parameters()]
    loss = torch_peer.train_step(network, 1e-3)(image, values, known)
    assert torch.isfinite(loss)
    changed = [bool((a != b).any()) for a, b in zip(before, network.parameters(), strict=True)]
    assert any(changed)
