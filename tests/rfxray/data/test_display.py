"""PS3.3 C.11 as written there, beside ours."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfxray.data import display
from rfxray.data.display import Table, Window

finite = st.floats(-1e5, 1e5, allow_nan=False)


def standard(function: str, x: float, centre: float, width: float) -> float:
    """The pseudo-code of C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2 with y from 0 to 1."""
    if function == "SIGMOID":
        return 1 / (1 + math.exp(min(700, -4 * (x - centre) / width)))
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    if x <= centre - width / 2:
        return 0
    if x > centre + width / 2:
        return 1
    return (x - centre) / width + 0.5


@given(
    st.sampled_from(display.FUNCTIONS), st.lists(finite, min_size=1), finite, st.floats(1e-3, 1e5)
)
def test_window_is_that_of_the_standard(function, values, centre, width):
    window = Window(centre, width, function)
    assert window.is_void == (function == "LINEAR" and width < 1)
    if not window.is_void:
        expected = [standard(function, value, centre, width) for value in values]
        np.testing.assert_allclose(window(np.array(values)), expected, atol=1e-9)


@pytest.mark.parametrize("function", display.FUNCTIONS)
@pytest.mark.parametrize("width", [0.0, -5.0, math.nan])
def test_window_without_width_is_void(function, width):
    assert Window(100, width, function).is_void


@pytest.mark.parametrize(("function", "void"), [("LINEAR", True), ("SIGMOID", False)])
def test_only_linear_needs_a_width_of_one(function, void):
    assert Window(100, 0.5, function).is_void == void


def test_linear_window_of_width_one_is_a_threshold():
    assert Window(100, 1)(np.array([99, 99.5, 99.6, 100])).tolist() == [0, 0, 1, 1]


def test_window_does_not_change_its_input():
    values = np.arange(5.0)
    Window(2, 3)(values)
    assert values.tolist() == [0, 1, 2, 3, 4]


@given(
    first=st.integers(-40_000, 70_000),
    entries=st.lists(st.integers(0, 255), min_size=1, max_size=700),
    inputs=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1),
    kind=st.sampled_from([np.int32, np.int64, np.float64]),
)
def test_table_takes_its_ends_for_inputs_beyond_it(first, entries, inputs, kind):
    table = Table(first, 8, np.array(entries, np.int64))
    expected = [entries[min(max(value - first, 0), len(entries) - 1)] for value in inputs]
    assert table.look_up(np.array(inputs, kind)).tolist() == expected
    np.testing.assert_allclose(table(np.array(inputs, kind)), np.array(expected) / 255)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int16])
def test_index_of_a_table_may_pass_the_type_of_its_inputs(kind):
    limits = np.iinfo(kind)
    inputs = np.array([limits.min, limits.max], kind)
    table = Table(limits.min - 300, 16, np.arange(66_200))
    assert table.look_up(inputs).tolist() == [300, 300 + limits.max - limits.min]


def test_table_indexes_fractions_as_their_whole_part():
    table = Table(0, 8, np.arange(10))
    assert table.look_up(np.array([0.9, 0.1 * 30, 2.99])).tolist() == [0, 3, 2]


def test_entries_larger_than_their_bits_keep_their_order():
    shown = Table(0, 8, np.array([0, 255, 4095]))(np.arange(3))
    np.testing.assert_allclose(shown, [0, 255 / 4095, 1])


def test_rescale_of_small_types_does_not_wrap():
    stored = np.array([0, 255], np.uint8)
    assert display.rescale(stored, -10, 3000).tolist() == [3000, 450]


# ---------------------------------------------------------------------------------------------
# Degenerate views

RAMP = np.linspace(0, 4095, 4096)


@pytest.mark.parametrize(
    ("window", "share"),
    [
        (Window(127, 255), 0.94),  # of 8 bits, left in a file of 12
        (Window(2048, 4096), 0),
        (Window(2048, 2400), 0.41),
        (Window(2048, 1600), 0.61),
        (Window(2048, 0.5, "SIGMOID"), 1),
        (Window(2048, 2000, "SIGMOID"), 0.0),
        (Window(60_000, 100), 1),
        (Window(-60_000, 100, "LINEAR_EXACT"), 1),
    ],
)
def test_clipped_share_of_a_ramp(window, share):
    assert abs(display.clipped_share(window, RAMP) - share) < 0.01


def test_plate_beside_the_field_does_not_make_a_window_degenerate():
    values = np.concatenate([RAMP, np.linspace(0, 200, 9000)])
    window = Window(2200, 4000)
    assert (window(values) == 0).mean() > 0.5
    assert display.clipped_share(window, values) < 0.1


def test_table_is_judged_by_the_range_of_its_entries():
    small = Table(0, 16, np.arange(4096))  # 12 bits in entries of 16
    assert display.clipped_share(small, RAMP) < 0.01
    steps = Table(0, 16, np.repeat([0, 4095], 2048))
    assert display.clipped_share(steps, RAMP) == 1
    assert display.clipped_share(Table(0, 8, np.full(4096, 7)), RAMP) == 1
