import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfxray import command_line
from rfxray.training import rates, run_log
from rfxray.training import recipe as recipes
from rfxray.training.metrics import collection, fresh, scalars


@pytest.fixture(scope="module")
def objective(make_config):
    return recipes.build(make_config()).objective


def collected(objective, *batches):
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    kind = collection(objective)
    metrics = fresh(kind, place)
    for loss, t, norm in batches:
        loss, t = jnp.asarray(loss, jnp.float32), jnp.asarray(t, jnp.float32)
        metrics = metrics.merge(
            kind.single_from_model_output(
                loss=loss.mean(), loss_by_t=(loss, t), grad_norm=norm, update_norm=norm / 10
            )
        )
    return scalars(metrics)


def test_scalars_are_means_without_bins_that_saw_no_example(objective):
    values = collected(objective, ([1.0, 3.0], [0.1, 0.9], 4.0), ([5.0, 7.0], [0.2, 0.3], 6.0))
    assert values == {
        "loss": pytest.approx(4.0),
        "grad_norm": pytest.approx(5.0),
        "update_norm": pytest.approx(0.5),
        "loss_t/0.00-0.25": pytest.approx(3.0),
        "loss_t/0.25-0.50": pytest.approx(7.0),
        "loss_t/0.75-1.00": pytest.approx(3.0),
    }


def test_meter_excludes_time_set_aside_from_the_rates(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(run_log.time, "perf_counter", lambda: now[0])

    def slow_batches():
        while True:
            now[0] += 0.5
            yield "batch"

    meter = rates.Meter(step=10, steps=100, batch_size=8, tokens=16)
    batches = slow_batches()
    for _ in range(4):
        assert meter.wait(batches) == "batch"
        now[0] += 1.5
    begin, now[0] = now[0], now[0] + 1000.0
    meter.aside(begin)
    assert meter.read(14) == {
        "images_per_s": pytest.approx(4 * 8 / 8),
        "tokens_per_s": pytest.approx(4 * 8 * 16 / 8),
        "data_wait": pytest.approx(2 / 8),
        "eta_s": pytest.approx((100 - 14) * 2.0),
    }
    now[0] += 3.0  # a reading starts the next interval
    assert meter.read(15)["images_per_s"] == pytest.approx(8 / 3)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0m 00s"), (69, "1m 09s"), (59.6, "1m 00s"), (7500, "2h 05m"), (273_600, "3d 04h")],
)
def test_duration_shows_the_two_largest_units(seconds, text):
    assert command_line.duration(seconds) == text


def test_damaged_lines_of_the_metrics_file_are_moved_aside(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"step": 1}\n\xff\xfe\x00\n{"step": 2}')  # its last newline was lost
    writer = run_log.Writer(tmp_path, step=2)
    writer.scalars(3, {"loss": 1.0})
    writer.close()
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2, 3]
    assert len((tmp_path / "metrics.set_aside.jsonl").read_text().splitlines()) == 1


def test_metrics_of_steps_that_will_be_taken_again_are_moved_aside(tmp_path):
    writer = run_log.Writer(tmp_path)
    for step in (4, 8, 12):
        writer.scalars(step, {"loss": 1.0 / step})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 16, "lo')  # a kill tore this one
    writer = run_log.Writer(tmp_path, step=6)
    writer.scalars(8, {"loss": 0.5})
    writer.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(4, 0.25), (8, 0.5)]
    aside = (tmp_path / "metrics.set_aside.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in aside[:2]] == [8, 12]
    assert aside[2:] == ['{"step": 16, "lo']


def test_lines_and_findings_are_written_to_the_workdir(tmp_path, capsys):
    writer = run_log.Writer(tmp_path)
    writer.say("hello")
    writer.findings(3, {"loss": 0.5}, {"samples": np.zeros((8, 8), np.uint8)})
    writer.close()
    file = tmp_path / "samples" / "step_00000003.png"
    assert file.is_file()
    said = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()]
    assert said == ["hello", "step 3: loss 0.5000", f"step 3: {file}"]
    assert [line.split(maxsplit=2)[2] for line in (tmp_path / "run.log").open()] == [
        f"{line}\n" for line in said
    ]
    (row,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert (row["step"], row["loss"]) == (3, 0.5)
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_log_that_a_kill_tore_goes_on_in_a_new_line(tmp_path):
    (tmp_path / "run.log").write_bytes(b"2026-01-01 00:00:00 step 3 lo")
    with run_log.Writer(tmp_path) as writer:
        writer.say("resumed")
    torn, line = (tmp_path / "run.log").read_text().splitlines()
    assert torn.endswith("step 3 lo")
    assert line.endswith("resumed")


def test_rows_are_written_by_the_time_a_checkpoint_follows(tmp_path):
    writer = run_log.Writer(tmp_path, every=3600)
    for step in (4, 8):
        writer.scalars(step, {"loss": 1.0})
    writer.flush()
    assert [json.loads(row)["step"] for row in (tmp_path / "metrics.jsonl").open()] == [4, 8]
    writer.close()


def test_each_start_has_its_own_file_of_events(tmp_path):
    for step in (0, 4):
        with run_log.Writer(tmp_path, step) as writer:
            writer.scalars(step + 1, {"loss": 1.0})
    files = sorted((tmp_path / "tensorboard").iterdir())
    assert len(files) == 2
    assert all(file.stat().st_size > 100 for file in files)
