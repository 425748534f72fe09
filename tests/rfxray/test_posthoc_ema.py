import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from rfxray import posthoc_ema, sampling
from rfxray.checkpoints import run
from rfxray.checkpoints.weights import ema_name
from rfxray.commands import export
from rfxray.outputs import lock
from rfxray.runtime import sharding
from rfxray.training import ema, recipe, state, width_sweep
from rfxray.training.ema import ema_gamma, ema_update
from rfxray.training.evaluators import fidelity
from rfxray.training.metrics import fresh
from tests.rfxray.evaluate.projection import projection

KEPT, WANTED, STEPS = (0.05, 0.10), 0.07, 24


@pytest.mark.parametrize(("t", "u"), [(3.0, 3.0), (2.0, 3.0), (1e6, 8e5)])
def test_inner_product_of_two_profiles_matches_the_integral(t, u):
    a, b = ema_gamma(0.05), ema_gamma(0.1)

    def profiles(x):  # over τ = x·min(t, u)
        tau = x * min(t, u)
        return (a + 1) * (tau / t) ** a / t * (b + 1) * (tau / u) ** b / u * min(t, u)

    wanted = scipy.integrate.quad(profiles, 0, 1, epsabs=0, epsrel=1e-10)[0]
    assert ema.inner_product(t, a, u, b) == pytest.approx(wanted, rel=1e-8)


def test_coefficients_of_a_stored_profile_select_it():
    weights, error = ema.coefficients([10, 10, 20, 20], [0.05, 0.1] * 2, 20, 0.1)
    np.testing.assert_allclose(weights, [0, 0, 0, 1], atol=1e-6)
    assert error < 1e-6


@pytest.mark.parametrize("sigma", [0.03, 0.07, 0.12])
def test_coefficients_match_the_published_solution(sigma):
    # arXiv 2312.02696, algorithm 3, and the division of its published code
    steps, sigmas, end = np.repeat([250.0, 500, 750, 1000], 2), np.array([*KEPT] * 4), 1000.0
    gammas, gamma = np.array([ema_gamma(s) for s in sigmas]), ema_gamma(sigma)

    def product(t, a, u, b):
        exponent = np.where(t < u, b, -a)
        return (a + 1) * (b + 1) * (t / u) ** exponent / ((a + b + 1) * np.maximum(t, u))

    gram = product(steps[:, None], gammas[:, None], steps, gammas)
    solved = np.linalg.solve(gram, product(steps, gammas, end, gamma))
    weights, _ = ema.coefficients(steps, sigmas, end, sigma)
    np.testing.assert_allclose(weights, solved / solved.sum(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("sigma", [0.01, 0.07, 0.2, 0.25])
@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_an_average_of_equal_networks_is_that_network(count, sigma):
    steps = np.repeat(np.arange(1, count + 1) * 1000, 2)
    weights, _ = ema.coefficients(steps, [*KEPT] * count, 1000 * count, sigma)
    assert weights.sum() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("sigma", [0.03, 0.07, 0.15, 0.2])
def test_error_falls_with_the_number_of_snapshots(sigma):
    errors = []
    for count in (4, 8, 16, 32):
        steps = np.repeat(np.arange(1, count + 1) * (1_000_000 // count), 2)
        errors.append(ema.coefficients(steps, [*KEPT] * count, 1_000_000, sigma)[1])
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02


@pytest.fixture
def history(trained, tmp_path, make_config, tiny_data, randomise):
    """(workdir with a snapshot of every step of a random walk, expected average)."""
    workdir = shutil.copytree(trained, tmp_path / "run")
    config = make_config(f"data.dirs={tiny_data}", f"steps={STEPS}", "ema_every=1")
    mesh = sharding.make_mesh(1, 1, 1)
    built = recipe.build(config)
    abstract = state.abstract(built, mesh)
    metrics = fresh(built.metrics, sharding.replicated(mesh))
    identity = {"data.fingerprint": "f" * 64}
    writer = run.Checkpoints(workdir, config, identity, abstract, metrics)
    params = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), abstract["params"])
    averages = dict.fromkeys((*KEPT, WANTED), params)
    update = jax.jit(ema_update, static_argnums=3)
    for step in range(1, STEPS + 1):
        params = jax.tree.map(jnp.asarray, randomise(params, seed=step, scale=1.0))
        averages = {s: update(a, params, jnp.int32(step), s) for s, a in averages.items()}
        ema = {ema_name(s): averages[s] for s in KEPT}
        writer.snapshot(step, {"ema": ema}, position=8 * step)
    writer.close()
    return workdir, averages[WANTED]


def test_posthoc_average_matches_the_expected_one_and_is_loaded_by_samplers(history, capsys):
    workdir, wanted = history
    posthoc_ema.main(["--workdir", str(workdir), "--sigma", str(WANTED)])
    printed = capsys.readouterr().out
    assert "posthoc/0.070/24" in printed.splitlines()[-1]
    assert "relative error of the profile" in printed
    model = sampling.load(workdir, ema=WANTED)
    assert model.source["step"] == STEPS
    for found, leaf in zip(jax.tree.leaves(model.params), jax.tree.leaves(wanted), strict=True):
        # A walk of 24 steps of 1: the error of the fit is far below one step.
        np.testing.assert_allclose(found, leaf, atol=0.02)
        assert np.abs(leaf).max() > 1
    words = ["--checkpoint", workdir, "--ema", WANTED, "--out", workdir / "exported"]
    export.main([str(word) for word in words])
    same = sampling.load(workdir / "exported")
    assert same.source == {**model.source, "checkpoint": str(workdir / "exported")}


@pytest.mark.parametrize(
    ("flags", "code", "part"),
    [
        (["--sigma", "0.05"], 78, "already keeps the profile 0.050"),
        (["--sigma", "0.3"], 78, "a width must be in (0, 0.25]"),
        (["--sigma", "0.07"], 65, "no snapshots; train with --config.ema_every=N"),
    ],
)
def test_stored_widths_wrong_widths_and_runs_without_snapshots_are_refused(
    trained, refusal, flags, code, part
):
    found, line = refusal(posthoc_ema.main, ["--workdir", trained, *flags])
    assert found == code
    assert part in line


def test_a_profile_that_is_off_is_warned_of_and_one_that_is_another_is_refused(
    history, capsys, refusal
):
    workdir, _ = history
    posthoc_ema.main(["--workdir", str(workdir), "--sigma", "0.012"])
    assert "WARNING: the profile is 0.1" in capsys.readouterr().err
    flags = ["--workdir", workdir, "--sigma", 0.01, "--step", 4]
    code, line = refusal(posthoc_ema.main, flags)
    assert code == 78
    assert "relative error of 0." in line
    assert "--config.ema_every" in line


def test_two_processes_write_no_average_at_once(history, refusal):
    workdir, _ = history
    (workdir / "posthoc").mkdir()
    with lock.locked(workdir / "posthoc"):
        code, line = refusal(posthoc_ema.main, ["--workdir", workdir, "--sigma", WANTED])
        assert code == 78
        assert "posthoc" in line
        assert [each.name for each in (workdir / "posthoc").iterdir()] == [".lock"]
    with lock.locked(workdir):  # as a trainer of the run has it
        posthoc_ema.main(["--workdir", str(workdir), "--sigma", str(WANTED)])
    assert {each.name for each in (workdir / "posthoc").iterdir()} == {ema_name(WANTED)}


def test_a_step_without_a_snapshot_is_refused(history, refusal):
    flags = ["--workdir", history[0], "--sigma", WANTED, "--step", 99]
    code, line = refusal(posthoc_ema.main, flags)
    assert code == 78
    assert "no snapshot of step 99" in line


# ---------------------------------------------------------------------------------------------
# Many widths, judged


@pytest.fixture
def projected(monkeypatch):
    """Features that need no weights, in place of the extractor of a run."""
    monkeypatch.setattr(fidelity, "open_extractor", lambda spec: projection(8))


def test_sweep_chooses_the_width_whose_samples_are_nearest(history, projected, monkeypatch, capsys):
    workdir, _ = history
    drawn = []

    def judge(section, context):
        def distances(params, seed):
            drawn.append(seed)
            size = float(np.abs(jax.tree.leaves(params)[0]).mean())
            return {"KID": size + (seed == 2) * 100 * (1 - size)}

        return distances

    monkeypatch.setattr(width_sweep.fidelity, "judge", judge)
    posthoc_ema.main(["--workdir", str(workdir), "--sweep", "0.05,0.07,0.2"])
    found = json.loads((workdir / "posthoc/sweep_00000024.json").read_text())
    first = [each["distances"][0]["KID"] for each in found["widths"]]
    sigmas = [each["sigma"] for each in found["widths"]]
    assert sigmas == [0.05, 0.07, 0.2]
    assert found["chosen"] == sigmas[int(np.argmin(first))]
    assert len(set(first)) == 3
    assert found["confirmed"] == 2  # the order of seed 2 is the other way round
    assert drawn == [0, 1, 2, 3] * 3
    said = capsys.readouterr().out
    assert f"width {found['chosen']} has the lowest KID, and on 2 of 3 fresh seeds too" in said
    if found["folder"]:
        assert sampling.load(workdir, ema=found["chosen"]).source["step"] == STEPS


def test_seeds_agree_as_often_as_they_have_the_same_best_width():
    values = {0.05: (1.0, 1.0, 3.0, 1.0), 0.1: (2.0, 2.0, 2.0, 2.0)}
    found = [width_sweep.Width(s, 0.0, [{"KID": v} for v in of]) for s, of in values.items()]
    sweep = width_sweep.Sweep(24, "KID", found, 0.05, None)
    assert (sweep.fresh, sweep.agreement) == (3, (6, 12))  # seeds 0, 1 and 3, in both orders
    assert len({line.count("|") for line in sweep.table().splitlines()}) == 1


def test_number_of_fresh_seeds_is_chosen(history, projected, refusal, capsys):
    workdir, _ = history
    posthoc_ema.main(["--workdir", str(workdir), "--sweep", "0.05,0.07", "--fresh", "1"])
    found = json.loads((workdir / "posthoc/sweep_00000024.json").read_text())
    assert [len(each["distances"]) for each in found["widths"]] == [2, 2]
    capsys.readouterr()
    code, line = refusal(
        posthoc_ema.main, ["--workdir", workdir, "--sweep", "0.05,0.07", "--fresh", 0]
    )
    assert (code, "--fresh must be at least 1" in line) == (78, True)


def test_swept_average_is_the_one_of_its_width(history, projected, capsys):
    workdir, _ = history
    posthoc_ema.main(["--workdir", str(workdir), "--sweep", "0.07,0.071"])
    found = json.loads((workdir / "posthoc/sweep_00000024.json").read_text())
    assert (found["by"], found["folder"]) == ("KID", "24")
    swept = sampling.load(workdir, ema=found["chosen"]).params
    posthoc_ema.main(["--workdir", str(workdir), "--sigma", str(found["chosen"])])
    again = sampling.load(workdir, ema=found["chosen"]).params  # written once, and found again
    for one, other in zip(jax.tree.leaves(swept), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("given", "code", "part"),
    [
        ("0.05,0.3", 78, "a width must be in (0, 0.25]"),
        ("0.07", 78, "two or more widths"),
        ("0.07,0.07", 78, "two or more widths"),
        ("a,b", 78, "two or more widths"),
    ],
)
def test_widths_that_cannot_be_compared_are_refused(history, refusal, given, code, part):
    found, line = refusal(posthoc_ema.main, ["--workdir", history[0], "--sweep", given])
    assert found == code
    assert part in line
