import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfxray.config.schema import REMEMBERED_SKIPS
from rfxray.training import skip_guard


def take(state, step, norm, losses=(1.0, 2.0), factor=50.0, first=0):
    """(guard, whether the step is good) after a step."""
    losses = jnp.asarray(losses, jnp.float32)
    index = jnp.arange(first, first + len(losses), dtype=jnp.uint32)
    norm = jnp.float32(norm)
    good = skip_guard.judge(state, norm, losses, factor)
    return skip_guard.remember(state, good, jnp.int32(step), norm, losses, index), bool(good)


def warmed(norm=2.0):
    state = skip_guard.fresh()
    for step in range(1, skip_guard.WARM + 1):
        state, good = take(state, step, norm)
        assert good
    return state


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_step_with_non_finite_norm_or_loss_is_skipped(bad):
    for state in (skip_guard.fresh(), warmed()):
        assert not take(state, 1, bad)[1]
        assert not take(state, 1, 1.0, losses=(1.0, bad))[1]


def test_large_gradient_is_skipped_only_after_the_usual_norm_is_known():
    assert take(skip_guard.fresh(), 1, 1e9)[1]
    state = warmed(2.0)
    np.testing.assert_allclose(state["usual"], 2.0, rtol=1e-6)
    assert take(state, 101, 99.0)[1]
    assert not take(state, 101, 101.0)[1]
    assert take(state, 101, 101.0, factor=0.0)[1]


def test_skipped_step_does_not_change_the_usual_norm():
    state = warmed(2.0)
    after, _ = take(state, 101, np.inf)
    assert after["usual"] == state["usual"]
    assert after["good"] == state["good"]


def test_guard_remembers_the_last_skips_and_their_worst_example():
    state, n = skip_guard.fresh(), REMEMBERED_SKIPS
    for step in range(1, n + 4):
        state, _ = take(state, step, np.inf, losses=(1.0, np.nan, np.inf), first=10 * step)
    found = skip_guard.remembered(jax.device_get(state))
    assert [skip.step for skip in found] == list(range(4, n + 4))
    assert found[-1] == skip_guard.Skip(n + 3, np.inf, 10 * (n + 3), 10 * (n + 3) + 1)
    assert int(state["skipped"]) == n + 3


@pytest.mark.parametrize(
    ("limit", "window", "new", "stop"),
    [
        (3, 60, [60], True),
        (3, 59, [60], False),
        (2, 11, [60], True),
        (2, 10, [60], False),
        (2, 2, [11, 12], True),  # even if later skips came before the host looked
        (2, 2, [60], False),  # the earlier ones were judged before
        (2, 60, [], False),
    ],
)
def test_too_many_counts_skips_in_windows_that_a_new_skip_ends(limit, window, new, stop):
    state = skip_guard.fresh()
    for step in (1, 11, 12, 50, 60) if window == 2 else (1, 50, 60):
        state, _ = take(state, step, np.nan)
    seen = jax.device_get(state)
    skips = [skip for skip in skip_guard.remembered(seen) if skip.step in new]
    assert skip_guard.too_many(seen, skips, limit, window) == stop
