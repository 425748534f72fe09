"""Weights of another network are refused in one line that names the first offence of each sort."""

import numpy as np
import pytest

from rfxray.errors import DataError
from rfxray.networks import torch_weights

SHAPES = {"conv.weight": (4, 3, 2, 5), "fc.weight": (7, 4), "fc.bias": (7,), "token": (1, 4)}


def tensors(**changed):
    rng = np.random.default_rng(0)
    whole = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    return whole | changed


def test_layout_is_that_of_jax():
    given = tensors()
    kept = torch_weights.convert(given, SHAPES, "N")
    assert kept["conv.weight"].shape == (2, 5, 3, 4)
    assert kept["conv.weight"][1, 4, 2, 3] == given["conv.weight"][3, 2, 1, 4]
    np.testing.assert_array_equal(kept["fc.weight"], given["fc.weight"].T)
    np.testing.assert_array_equal(kept["token"], given["token"])


def test_half_precision_becomes_float32():
    half = {name: tensor.astype(np.float16) for name, tensor in tensors().items()}
    kept = torch_weights.convert(half, SHAPES, "N")
    assert {tensor.dtype for tensor in kept.values()} == {np.dtype(np.float32)}


def test_counters_and_unread_tensors_are_left_out():
    more = {"bn.num_batches_tracked": np.asarray(3), "mask": np.zeros(2, np.float32)}
    assert set(torch_weights.convert(tensors() | more, SHAPES, "N", ["mask"])) == set(SHAPES)


def test_each_fault_is_counted_and_the_first_is_named():
    given = tensors(
        **{"fc.bias": np.zeros(9, np.float32), "head": np.zeros(1), "tail": np.zeros(1)}
    )
    del given["conv.weight"]
    with pytest.raises(DataError) as error:
        torch_weights.convert(given, SHAPES, "N")
    assert str(error.value) == (
        "these are not the weights of N: 1 of 4 tensors are missing (first: conv.weight); "
        "2 are unexpected (first: head); 1 have another shape (first: fc.bias is [9], not [7])"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_refused(value):
    given = tensors()
    given["fc.bias"][3] = value
    with pytest.raises(DataError, match=r"1 of 4 .* not finite \(first: fc\.bias\)"):
        torch_weights.convert(given, SHAPES, "N")
