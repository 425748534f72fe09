"""One EMA profile of a run, read without the rest of its state."""

import shutil

import jax
import numpy as np
import pytest

from rfxray.checkpoints import weights
from rfxray.errors import ConfigError, DataError
from rfxray.training import recipe, state


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the trained run, with checkpoints 6 and 12, that a test may damage."""
    return shutil.copytree(trained, tmp_path / "copy")


@pytest.fixture(scope="module")
def abstract(make_config, tiny_data) -> dict:
    """The averaged parts of the tiny run."""
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place),
        state.averaged(recipe.build(make_config(f"data.dirs={tiny_data}"))),
    )


def test_each_profile_is_restored_without_the_state(copy, abstract):
    shutil.rmtree(copy / "checkpoints" / "12" / "state")
    found = {}
    for name in ("0.050", "0.100"):
        found[name], step, *_ = weights.restore_ema(copy, abstract, name)
        assert step == 12
        assert jax.tree.structure(found[name]) == jax.tree.structure(abstract)
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(*(jax.tree.leaves(tree) for tree in found.values()), strict=True)
    )


def test_any_existing_step_is_restored_and_others_are_refused(trained, abstract):
    assert weights.restore_ema(trained, abstract, "0.050", step=6).step == 6
    with pytest.raises(ConfigError, match=r"no EMA profile 0\.070, only 0\.050, 0\.100"):
        weights.restore_ema(trained, abstract, "0.070")
    with pytest.raises(ConfigError, match=r"no checkpoint of step 9, only \[6, 12\]"):
        weights.restore_ema(trained, abstract, "0.050", step=9)


def test_restore_refuses_parts_that_are_not_stored(trained, abstract):
    with pytest.raises(ConfigError, match="does not hold the arrays of this version"):
        weights.restore_ema(trained, abstract | {"critic": abstract["model"]}, "0.050")


def test_folder_without_config_or_checkpoints_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"is not a workdir of rfxray\.train"):
        weights.read_config(tmp_path)
    with pytest.raises(DataError, match="has no complete checkpoint"):
        weights.restore_ema(tmp_path, {}, "0.050")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(DataError, match="no complete checkpoint"):
        weights.restore_ema(tmp_path, {}, "0.050")
    (tmp_path / "config.json").write_text('{"torn": ')
    with pytest.raises(DataError, match="is not valid JSON"):
        weights.read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(DataError, match=r"config\.json holds no object"):
        weights.read_config(tmp_path)
