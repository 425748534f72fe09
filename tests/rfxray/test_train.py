import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from rfxray import train
from rfxray.checkpoints import store
from rfxray.checkpoints.run import Checkpoints
from rfxray.config.identity import identity_of
from rfxray.errors import NonFiniteError, Preempted, SaveFailed
from rfxray.runtime import sharding
from rfxray.training import rates, state
from rfxray.training import recipe as recipes
from rfxray.training.metrics import fresh


def metrics(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def logged(workdir: Path) -> dict[int, dict]:
    """Logged numbers of each step, without those that depend on the clock."""
    clock = {"time", "images_per_s", "tokens_per_s", "data_wait", "eta_s"}
    clock |= {"save_wait", "goodput", "hours/trained", "hours/since_start"}
    rows: dict[int, dict] = {}
    for row in metrics(workdir):
        rows.setdefault(row["step"], {}).update({k: v for k, v in row.items() if k not in clock})
    return rows


def restored(config, workdir: Path, step: int):
    """(state, metrics, position) of a checkpoint."""
    mesh = sharding.make_mesh(1, 1, 1)
    recipe = recipes.build(config)
    mixture = train.open_data(config, recipe.model.input_shape)
    run = identity_of(config, mixture.fingerprint)
    empty = fresh(recipe.metrics, sharding.replicated(mesh))
    checkpoints = Checkpoints(workdir, config, run, state.abstract(recipe, mesh), empty)
    try:
        return checkpoints.restore(step)
    finally:
        checkpoints.close()


KEYS = (
    "evaluators.validation_loss.every=12",
    "evaluators.validation_loss.batches=2",
    "evaluators.sample_grid.every=12",
    "evaluators.sample_grid.n=4",
    "evaluators.sample_grid.steps=2",
)


@pytest.fixture(scope="module")
def config(make_config, tiny_data):
    """The config of the session's `trained` run."""
    return make_config(f"data.dirs={tiny_data}", *KEYS)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory, config, run_training):
    """The same run, stopped during step 6 and then resumed."""
    workdir = tmp_path_factory.mktemp("train") / "interrupted"
    wait, seen = rates.Meter.wait, []

    def wait_and_signal(self, iterator):
        seen.append(None)
        if len(seen) == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return wait(self, iterator)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rates.Meter, "wait", wait_and_signal)
        with pytest.raises(Preempted, match="saved at step 6"):
            run_training(config, workdir)
    return run_training(config, workdir)


def test_run_writes_config_metrics_samples_and_log(trained, config):
    assert json.loads((trained / "config.json").read_text())["model"]["width"] == 32
    assert [row["step"] for row in metrics(trained)] == [4, 8, 12, 12]
    last = logged(trained)[12]
    assert {"loss", "grad_norm", "update_norm", "learning_rate", "tokens_seen"} <= last.keys()
    assert {"validation_loss/params", "validation_loss/ema"} <= last.keys()
    assert any(key.startswith("loss_t/") for key in last)
    assert last["tokens_seen"] == 12 * 8 * 16
    assert all(np.isfinite(v) for row in logged(trained).values() for v in row.values())
    assert (trained / "samples" / "step_00000012.png").is_file()
    assert list((trained / "tensorboard").glob("events.out.tfevents.*"))
    log = (trained / "run.log").read_text()
    assert "a new run" in log
    assert f"finished 12 steps: {trained}" in log


def test_loss_falls(make_config, tiny_data, run_training, tmp_path):
    config = make_config(
        f"data.dirs={tiny_data}", "steps=120", "log_every=20", "checkpoint_every=120"
    )
    rows = logged(run_training(config, tmp_path / "run"))
    assert rows[120]["loss"] < 0.5 * rows[20]["loss"]


def test_resume_continues_bitwise(trained, interrupted, config, assert_bitwise):
    assert "resumed at step 6" in (interrupted / "run.log").read_text()
    for a, b in zip(restored(config, trained, 12), restored(config, interrupted, 12), strict=True):
        assert_bitwise(a, b)


def test_resume_logs_the_same_numbers(trained, interrupted):
    # Step 8 logs the mean of steps 5 to 8; two of them were taken before the stop.
    assert logged(interrupted) == logged(trained)
    assert len(metrics(interrupted)) == len(metrics(trained))


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


@pytest.mark.parametrize("steps", [12, 5])
def test_rerunning_a_finished_run_changes_nothing(
    copy, make_config, tiny_data, run_training, capsys, steps
):
    before = (copy / "metrics.jsonl").read_bytes()
    run_training(make_config(f"data.dirs={tiny_data}", *KEYS, f"steps={steps}"), copy)
    assert "finished 12 steps" in capsys.readouterr().out
    assert (copy / "metrics.jsonl").read_bytes() == before


def test_missing_snapshot_is_taken_at_the_next_start(copy, make_config, tiny_data, run_training):
    config = make_config(f"data.dirs={tiny_data}", *KEYS, "ema_every=5")
    assert not (copy / "ema").exists()
    run_training(config, copy)  # a finished run
    assert [path.name for path in (copy / "ema").iterdir()] == ["12"]


def test_resume_from_an_older_checkpoint_logs_every_step_once(trained, copy, config, run_training):
    shutil.rmtree(copy / "checkpoints" / "12")
    run_training(config, copy)
    assert [row["step"] for row in metrics(copy)] == [4, 8, 12, 12]
    assert logged(copy) == logged(trained)
    aside = (copy / "metrics.set_aside.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in aside] == [8, 12, 12]


def test_only_the_newest_checkpoints_are_kept(make_config, tiny_data, run_training, tmp_path):
    config = make_config(
        f"data.dirs={tiny_data}", "steps=5", "checkpoint_every=1", "checkpoint_keep=2"
    )
    workdir = run_training(config, tmp_path / "run")
    kept = sorted(p.name for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())
    assert kept == ["4", "5"]


def spoil(monkeypatch, steps, value=np.nan):
    """Replaces an image in the batches of some steps by a value."""
    batches = train.batches.train_batches

    def spoilt(mixture, batch_size, *how):
        loader = batches(mixture, batch_size, *how)

        class Loader:
            get_state = loader.get_state

            def __next__(self):
                batch = next(loader)
                step = int(batch["index"][0]) // batch_size + 1
                if step in steps:
                    batch["image"][3] = value
                return batch

        return Loader()

    monkeypatch.setattr(train.batches, "train_batches", spoilt)


def test_non_finite_gradient_is_skipped_and_logged(
    make_config, tiny_data, run_training, tmp_path, monkeypatch, assert_bitwise
):
    """A skipped step changes only its number and the guard."""
    config = make_config(f"data.dirs={tiny_data}", "steps=5", "log_every=5", "checkpoint_every=1")
    keep = config_with(config, checkpoint_keep=9)
    spoil(monkeypatch, {3})
    workdir = run_training(keep, tmp_path / "run")
    (before, _, _), (after, _, _) = (restored(keep, workdir, step) for step in (2, 3))
    for key in ("params", "optimizer", "ema"):
        assert_bitwise(after[key], before[key])
    assert (int(before["step"]), int(after["step"])) == (2, 3)
    (last,) = metrics(workdir)
    assert last["skipped"] == 1
    assert all(np.isfinite(v) for v in last.values())
    log = (workdir / "run.log").read_text()
    assert "step 3: skipped, gradient norm nan; examples 16 to 23" in log
    assert "largest loss at 19 (phantom/p" in log


def config_with(config, **values):
    from rfxray.config.load import override

    return override(config, values)


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_skips_end_the_run_with_evidence(
    make_config, tiny_data, run_training, tmp_path, monkeypatch, workers
):
    spoil(monkeypatch, {2, 3, 6})
    keys = (
        f"data.dirs={tiny_data}",
        "skip.limit=3",
        f"data.workers={workers}",
        "checkpoint_every=0",
    )
    workdir = tmp_path / "run"
    with pytest.raises(NonFiniteError, match="saved at step 8; see") as caught:
        run_training(make_config(*keys), workdir)
    folder = workdir / "skipped" / "step_00000008"
    assert str(folder) in str(caught.value)
    rows = json.loads((folder / "skips.json").read_text())
    assert [row["step"] for row in rows] == [2, 3, 6]
    assert rows[-1]["examples"] == [40, 47]
    assert rows[-1]["largest_loss"]["example"] == 43
    with np.load(folder / "batch.npz") as batch:
        numbers = batch["image"][:, 0, 0]
    assert [f"phantom/p{n}/s/i" for n in numbers] == rows[-1]["keys"]
    assert (folder / "batch.png").is_file()
    # The saved checkpoint can be resumed.
    monkeypatch.undo()
    run_training(make_config(*keys), workdir)
    assert metrics(workdir)[-1]["step"] == 12


@pytest.mark.parametrize("resumed", [False, True])
def test_checkpoint_from_before_the_first_skip_survives_and_is_named(
    make_config, tiny_data, run_training, tmp_path, monkeypatch, resumed
):
    """Only one checkpoint is kept, and every step saves one; from step 5 on all but two skip."""
    spoil(monkeypatch, {5, 6, 8, 10})
    keys = (
        f"data.dirs={tiny_data}",
        "checkpoint_every=1",
        "checkpoint_keep=1",
        "log_every=1",
        "skip.limit=4",
        "skip.window=6",
    )
    workdir = tmp_path / "run"
    if resumed:  # after the first skips
        run_training(make_config(*keys, "steps=6"), workdir)
        assert steps_in(workdir) == [4, 5, 6]  # 5 is from before step 6
    with pytest.raises(NonFiniteError) as caught:
        run_training(make_config(*keys), workdir)
    good = workdir / "checkpoints" / "4"
    assert f"before the first of them, step 5, is {good} (step 4)" in str(caught.value)
    # Those from before the later skips are kept as well: an earlier skip may leave the window.
    assert {4, 10} <= set(steps_in(workdir)) <= {4, 5, 7, 9, 10}


def test_checkpoint_from_before_a_skip_is_not_kept_after_the_window(
    make_config, tiny_data, run_training, tmp_path, monkeypatch
):
    spoil(monkeypatch, {3})
    keys = ("checkpoint_every=1", "checkpoint_keep=1", "log_every=1", "skip.window=4")
    workdir = run_training(make_config(f"data.dirs={tiny_data}", *keys), tmp_path / "run")
    assert steps_in(workdir) == [12]


def test_run_that_skips_from_its_first_step_has_no_checkpoint_from_before(
    make_config, tiny_data, run_training, tmp_path, monkeypatch
):
    spoil(monkeypatch, {1, 2})
    keys = (f"data.dirs={tiny_data}", "checkpoint_every=1", "skip.limit=2")
    with pytest.raises(
        NonFiniteError, match=r"no checkpoint in .* before the first of them, step 1"
    ):
        run_training(make_config(*keys), tmp_path / "run")


def steps_in(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def test_skips_outside_the_window_do_not_end_the_run(
    make_config, tiny_data, run_training, tmp_path, monkeypatch
):
    spoil(monkeypatch, {1, 5, 9, 12})
    keys = (f"data.dirs={tiny_data}", "skip.limit=2", "skip.window=3")
    assert metrics(run_training(make_config(*keys), tmp_path / "run"))[-1]["skipped"] == 4


def test_skip_is_logged_before_the_next_checkpoint(
    make_config, tiny_data, run_training, tmp_path, monkeypatch
):
    spoil(monkeypatch, {5})
    keys = (f"data.dirs={tiny_data}", "log_every=100", "checkpoint_every=6", "steps=12")
    workdir = run_training(make_config(*keys), tmp_path / "run")
    lines = (workdir / "run.log").read_text().splitlines()
    (skip,) = (n for n, line in enumerate(lines) if "step 5: skipped" in line)
    (saved,) = (n for n, line in enumerate(lines) if "step 6: saving a checkpoint" in line)
    assert skip < saved


# ---------------------------------------------------------------------------------------------
# Damage and change


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_record_ends_the_run_or_is_replaced_and_listed(
    tiny_data, damage_record, refusal, tiny_arguments, make_config, run_training, tmp_path, workers
):
    data = shutil.copytree(tiny_data, tmp_path / "data")
    damage_record(data, 3, shard=2)
    keys = (f"data.dirs={data}", f"data.workers={workers}", "data.verify=none")
    code, line = refusal(train.main, tiny_arguments(tmp_path / "strict", *keys))
    assert code == 65
    assert "record 3 of" in line
    assert "00002-of-00004 is damaged" in line
    workdir = run_training(make_config(*keys, "data.tolerate=1"), tmp_path / "tolerant")
    assert metrics(workdir)[-1]["replaced_records"] == 1
    assert "data: record 3 of" in (workdir / "run.log").read_text()
    (row,) = [
        json.loads(x) for x in (workdir / "data_faults-host-0.jsonl").read_text().splitlines()
    ]
    assert row["record"] == 3


def test_damaged_shard_is_detected_before_the_run(tiny_data, refusal, tiny_arguments, tmp_path):
    data = shutil.copytree(tiny_data, tmp_path / "data")
    file = sorted(data.glob("*train*"))[1]
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)
    argv = tiny_arguments(tmp_path / "run", f"data.dirs={data}", "data.verify=full")
    code, line = refusal(train.main, argv)
    assert code == 65
    assert file.name in line
    assert not (tmp_path / "run").exists()


def test_damaged_checkpoint_costs_only_the_steps_since_the_one_before(
    trained, copy, config, run_training
):
    (copy / "checkpoints" / "12" / "seal.json").write_text("{}")
    (copy / "checkpoints" / "12" / "meta" / "metadata").unlink()
    run_training(config, copy)
    log = (copy / "run.log").read_text()
    assert f"the checkpoint {copy}/checkpoints/12 is damaged" in log
    assert "resumed at step 6" in log
    assert logged(copy) == logged(trained)


def test_change_of_the_config_needs_allow_change(copy, tiny_data, refusal, tiny_arguments):
    changes = ("optim.learning_rate=1e-3", "steps=14")
    argv = tiny_arguments(copy, f"data.dirs={tiny_data}", *KEYS, *changes)
    code, line = refusal(train.main, argv)
    assert code == 78
    assert "optim.learning_rate: 0.002 there, 0.001 here" in line
    assert "--allow-change" in line
    train.main([*argv, "--allow-change", "optim.learning_rate"])
    assert "from step 12 on, optim.learning_rate" in (copy / "run.log").read_text()
    assert metrics(copy)[-1]["step"] == 14


def test_checkpoint_minutes_saves_at_log_steps(make_config, tiny_data, run_training, tmp_path):
    keys = (f"data.dirs={tiny_data}", "checkpoint_every=0", "checkpoint_minutes=1e-6")
    workdir = run_training(make_config(*keys), tmp_path / "run")
    assert {p.name for p in (workdir / "checkpoints").iterdir()} == {"4", "8", "12"}


def test_checkpoint_that_cannot_be_written_ends_the_run(
    make_config, tiny_data, run_training, tmp_path, monkeypatch
):
    def full(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "seal", full)
    config = make_config(f"data.dirs={tiny_data}", "steps=4000", "checkpoint_every=2")
    with pytest.raises(SaveFailed, match=r"checkpoints/2 could not be saved .*No space left"):
        run_training(config, tmp_path / "run")
