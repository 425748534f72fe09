"""A radiograph far from the training data is warned of; one like it is not."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from rfxray import edit
from rfxray.data.dataset import open_dataset, stored
from rfxray.data.pixels import to_float
from rfxray.sampling import distance, load, read_square


@pytest.fixture(scope="module")
def model(trained):
    return load(trained)


def of(model, images):
    losses = jax.jit(distance.losses(model.velocity))
    return np.asarray(losses(model.params, np.asarray(images)[..., None]))


def test_the_trainer_logs_the_quantile_of_its_validation_images(trained, tiny_data, model):
    images = [to_float(record["image"]) for record in stored(open_dataset(tiny_data), "validation")]
    expected = np.quantile(of(model, images[:16]), distance.SHARE)  # two batches of 8
    assert distance.limit(trained, 12) == pytest.approx(expected, rel=1e-4)


def test_the_limit_is_that_of_the_step_and_none_if_the_run_logged_none(tmp_path):
    assert distance.limit(tmp_path, 10) is None
    rows = [{"step": 5, distance.NAME: 0.5}, {"step": 8, "loss": 1}, {"step": 10, distance.NAME: 1}]
    lines = [json.dumps(row) for row in rows] + [f'{{"step": 11, "{distance.NAME}": 0.']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    found = [distance.limit(tmp_path, step) for step in (4, 5, 9, 10, 12)]
    assert found == [None, 0.5, 0.5, 1.0, 1.0]


def test_the_loss_of_a_network_that_knows_nothing_is_that_of_its_target():
    images = np.random.default_rng(0).uniform(-1, 1, (3, 8, 8, 1)).astype(np.float32)
    noise = np.asarray(jax.random.normal(jax.random.key(0), (8, 8, 1)))
    found = distance.losses(lambda params, x, t, attributes: 0 * x)({}, images)
    np.testing.assert_allclose(found, ((noise - images) ** 2).mean((1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize(
    ("limit", "says"),
    [(0.0, "far from the training data"), (1e9, ""), (None, "logged no flow loss")],
)
def test_an_edit_warns_above_the_limit(
    trained, model, tiny_data, tmp_path, capsys, monkeypatch, limit, says
):
    monkeypatch.setattr(distance, "limit", lambda workdir, step: limit)
    (record, *_) = stored(open_dataset(tiny_data), "validation")
    Image.fromarray(record["image"]).save(tmp_path / "a.png")
    flags = ["--checkpoint", trained, "--image", tmp_path / "a.png", "--out", tmp_path / "out"]
    flags += ["--set", "view=PA", "--method", "flow", "--steps", "2"]
    edit.main([str(flag) for flag in flags])
    said = capsys.readouterr().out
    for words in ("far from the training data", "logged no flow loss"):
        assert (words in said) == (words == says)
    found = json.loads((tmp_path / "out" / "edit.json").read_text())
    square = read_square(tmp_path / "a.png", model.size).image
    assert found["flow_loss"] == pytest.approx(float(of(model, [square])[0]), rel=1e-3)
    assert found["flow_loss_limit"] == limit
