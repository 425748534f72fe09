"""Distances of samples while a run trains, beside those of the public sampler and measures."""

import dataclasses
import json
import shutil

import jax
import ml_collections
import numpy as np
import pytest

from rfxray import sampling, train
from rfxray.attributes.vocabulary import Attributes
from rfxray.errors import ConfigError
from rfxray.evaluate import feature_pair, frechet, kernel
from rfxray.evaluate.fidelity import basis_of
from rfxray.runtime import sharding
from rfxray.training import best_step, recipe
from rfxray.training.evaluators import fidelity
from rfxray.training.evaluators.evaluator import Context
from tests.rfxray.evaluate.projection import projection

SECTION = {"split": "validation", "n": 6, "solver": "ab2", "steps": 3, "guidance": 1.0}


@pytest.fixture(autouse=True)
def without_weights(monkeypatch):
    """Features that need no weights, in place of the extractor that a section names."""
    monkeypatch.setattr(fidelity, "open_extractor", lambda spec: projection(80, name=spec))


@pytest.fixture(scope="module")
def config(make_config, tiny_data):
    return make_config(f"data.dirs={tiny_data}")


@pytest.fixture(scope="module")
def context(config):
    built = recipe.build(config)
    mixture = train.open_data(config, built.model.input_shape)
    return Context(built, mixture, sharding.make_mesh(1, 1, 1), 0, 1)


@pytest.fixture(scope="module")
def model(trained):
    return sampling.load(trained)


def section(**changes) -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict({**SECTION, "extractor": "projection", **changes})


def measured(context, model, seed=0, **changes) -> dict[str, float]:
    with jax.set_mesh(context.mesh):
        return fidelity.judge(section(**changes), context)(model.params, seed)


def features(images):
    extractor = projection(80)
    unit = (np.clip(images, -1, 1) + 1) / 2
    return extractor.features(np.stack([extractor.preprocessing.prepare(x) for x in unit]))


def expected(context, model, seed=0, n=6):
    """Features of reals and samples, by the public sampler."""
    examples = context.first_examples("validation", n)
    asked = Attributes(examples["attributes"], examples["known"])
    made = sampling.generate(
        model, asked, settings=sampling.Settings(seed, steps=3, guidance=1.0)
    ).images
    return features(examples["image"][..., 0]), features(made)


@pytest.mark.parametrize("seed", [0, 3])
def test_distances_are_those_of_samples_of_the_held_out_requests(context, model, seed):
    real, made = expected(context, model, seed)
    found = measured(context, model, seed)
    wanted = kernel.distance(real, made, feature_pair.patients(6, 6)).value
    assert set(found) == {"KID"}
    assert found["KID"] == pytest.approx(wanted, rel=1e-4)


def test_fd64_stands_beside_it_where_there_are_enough_images(context, model, monkeypatch):
    n = 80
    monkeypatch.setattr(fidelity.basis, "LEAST", n)
    monkeypatch.setattr(frechet.bases, "LEAST", n)
    rng = np.random.default_rng(0)
    examples = context.first_examples("validation", n)
    noise = rng.normal(0, 0.1, examples["image"].shape).astype(np.float32)
    many = {**examples, "image": examples["image"] + noise}
    monkeypatch.setattr(Context, "first_examples", lambda self, split, count: many)
    real, made = expected(context, model, n=n)
    found = measured(context, model, n=n)
    own = basis_of(projection(80), real, "")
    wanted = frechet.principal(frechet.moments(real), frechet.moments(made), own)
    assert found["FD64"] == pytest.approx(wanted, rel=1e-3)
    assert set(found) == {"KID", "FD64"}


def test_distances_do_not_depend_on_how_samples_are_batched(context, model):
    whole = measured(context, model)
    wider = dataclasses.replace(context.recipe, batch_size=4)
    batched = measured(dataclasses.replace(context, recipe=wider), model)
    assert batched["KID"] == pytest.approx(whole["KID"], rel=1e-4)


def test_real_image_counts_once_if_a_small_split_is_repeated(context, model, monkeypatch):
    seen = []
    monkeypatch.setattr(
        fidelity.kernel,
        "distance",
        lambda real, made, patients: seen.append((len(real), len(made))) or kernel_figure,
    )
    kernel_figure = dataclasses.make_dataclass("Figure", ["value"])(1.0)
    there = context.mixture.datasets[0].examples["validation"]
    measured(context, model, n=there + 3)
    assert seen == [(there, there + 3)]


def test_other_hosts_draw_and_do_not_measure(context, model):
    assert measured(dataclasses.replace(context, host=1, hosts=2), model) == {}


def test_objective_without_samples_is_refused(context):
    silent = dataclasses.replace(context.recipe.objective, velocity=None)
    mute = dataclasses.replace(context.recipe, objective=silent)
    with pytest.raises(ConfigError, match=r"draws no samples.* evaluators\.fidelity\.every=0"):
        fidelity.judge(section(), dataclasses.replace(context, recipe=mute))


def test_run_logs_the_distances_of_its_first_average(
    context, make_config, tiny_data, run_training, tmp_path
):
    changes = [f"evaluators.fidelity.{key}={value}" for key, value in SECTION.items()]
    config = make_config(f"data.dirs={tiny_data}", "evaluators.fidelity.every=12", *changes)
    workdir = run_training(config, tmp_path / "run")
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    (row,) = [line for line in lines if "fidelity/KID" in line]
    assert row["step"] == 12
    assert row["fidelity/seconds"] > 0
    model = sampling.load(workdir, ema=config.ema_sigmas[0])
    assert row["fidelity/KID"] == pytest.approx(
        measured(context, model, config.seed)["KID"], rel=1e-4
    )


def test_run_that_resumes_measures_the_same_bit_by_bit(
    make_config, tiny_data, run_training, tmp_path, capsys
):
    changes = [f"evaluators.fidelity.{key}={value}" for key, value in SECTION.items()]
    config = make_config(f"data.dirs={tiny_data}", "evaluators.fidelity.every=6", *changes)
    whole = run_training(config, tmp_path / "whole")
    said = capsys.readouterr().out.splitlines()[-1]
    shutil.copytree(whole, tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "12")
    resumed = run_training(config, tmp_path / "resumed")

    def measured_at(workdir):
        rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
        return {row["step"]: row["fidelity/KID"] for row in rows if "fidelity/KID" in row}

    assert measured_at(resumed) == measured_at(whole)
    assert measured_at(whole).keys() == {6, 12}
    lowest, best = min((value, step) for step, value in measured_at(whole).items())
    assert f"fidelity/KID was lowest at step {best} ({lowest:.4g}): --step {best} of" in said
    params = [
        sampling.load(workdir, ema=config.ema_sigmas[0]).params for workdir in (whole, resumed)
    ]
    jax.tree.map(np.testing.assert_array_equal, *params)


def test_best_step_is_that_of_fd64_where_it_was_logged(tmp_path):
    assert best_step.described(tmp_path, [1]) is None
    rows = ['{"step": 10, "loss": 1}', '{"step": 10, "fidelity/KID": 0.1}', '{"step": 20, "fid']
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    assert best_step.best_step(tmp_path) == ("fidelity/KID", 0.1, 10)
    rows += ['{"step": 20, "fidelity/KID": 0.2, "fidelity/FD64": 30.5}']
    rows += ['{"step": 30, "fidelity/KID": 0.3, "fidelity/FD64": 31}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows))
    assert best_step.best_step(tmp_path) == ("fidelity/FD64", 30.5, 20)
    assert "--step 20 of" in str(best_step.described(tmp_path, [20, 30]))
    assert "no weights are kept" in str(best_step.described(tmp_path, [30]))
