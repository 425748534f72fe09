import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfxray.data import batches
from rfxray.training import skip_guard
from rfxray.training.skip_report import SkipReport


@pytest.fixture
def report(tmp_path, tiny_data):
    mixture = batches.open_mixture([tiny_data], [1.0], "train", 0, True)
    return SkipReport(tmp_path, mixture, batch_size=4, limit=2, window=3)


def skipped(guard, step):
    """The guard after a step with a gradient that is not finite."""
    losses, index = jnp.ones(4), jnp.arange(4 * step - 4, 4 * step, dtype=jnp.uint32)
    bad = jnp.bool(False)
    return jax.device_get(
        skip_guard.remember(guard, bad, jnp.int32(step), jnp.float32(np.nan), losses, index)
    )


def test_every_skip_is_reported_once_with_its_examples(report):
    guard = skipped(skipped(skip_guard.fresh(), 3), 9)
    lines, too_many = report.new(guard)
    assert [line.split(":")[0] for line in lines] == ["step 3", "step 9"]
    assert "examples 8 to 11" in lines[0]
    assert "phantom/" in lines[0]
    assert not too_many
    assert report.new(guard) == ([], False)
    lines, too_many = report.new(skipped(guard, 10))
    assert [line.split(":")[0] for line in lines] == ["step 10"]
    assert too_many  # 9 and 10 are within three steps
    assert report.seen == 3


def test_error_of_too_many_skips_names_the_folder_of_evidence(report, tmp_path):
    guard = skipped(skipped(skip_guard.fresh(), 1), 2)
    error = report.too_many(guard, 2, "go back to step 0")
    folder = tmp_path / "skipped" / "step_00000002"
    assert str(folder) in str(error)
    assert str(error).endswith("; go back to step 0")
    assert {file.name for file in folder.iterdir()} == {"skips.json", "batch.npz", "batch.png"}
