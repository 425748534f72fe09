"""Efficiency of a run: model FLOPs utilisation, goodput over restarts, traces."""

import gzip
import json

import jax
import pytest

from rfxray.perf import chips
from rfxray.training import profile, run_log
from rfxray.training.rates import Goodput, Meter


@pytest.fixture
def clock(monkeypatch):
    """`clock[0]` is the time, both of day and of the performance counter."""
    now = [1000.0]
    monkeypatch.setattr(run_log.time, "time", lambda: now[0])
    monkeypatch.setattr(run_log.time, "perf_counter", lambda: now[0])
    return now


def test_mfu_is_model_flops_over_peak_flops_of_all_devices(clock):
    meter = Meter(0, 100, batch_size=8, tokens=16, flops=6e12, devices=4, peak=1e12)
    clock[0] += 10.0
    rates = meter.read(5)
    assert rates["mfu"] == pytest.approx(5 * 6e12 / (10 * 4 * 1e12))
    assert rates["tokens_per_s_per_chip"] == pytest.approx(5 * 8 * 16 / 10 / 4)
    assert meter.seconds == pytest.approx(10.0)
    values = {"loss": 1.0, "grad_norm": 1.0, "tokens_seen": 640.0, "save_wait": 0.0, **rates}
    assert "MFU 75.0%" in run_log.line(5, 100, values)


def test_rates_per_chip_are_left_out_without_a_peak(clock):
    meter = Meter(0, 100, batch_size=8, tokens=16, flops=6e12)
    clock[0] += 10.0
    assert not {"mfu", "tokens_per_s_per_chip"} & meter.read(5).keys()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
    ],
)
def test_chips_are_found_by_device_kind(kind, name):
    assert chips.find(kind) is chips.CHIPS[name]


def test_cpu_is_not_in_the_table_of_chips():
    assert chips.find("cpu") is None


def test_goodput_survives_restarts_and_does_not_count_lost_steps(clock, tmp_path):
    def log(writer, goodput, step, seconds):
        values = goodput.read(seconds)
        writer.scalars(step, values)
        return values

    writer = run_log.Writer(tmp_path)
    goodput = Goodput(tmp_path)
    clock[0] += 100.0  # of which 60 were training
    assert log(writer, goodput, 10, 60.0)["goodput"] == pytest.approx(0.6)
    clock[0] += 100.0
    assert log(writer, goodput, 20, 90.0)["goodput"] == pytest.approx(0.75)
    writer.close()  # killed; the checkpoint was of step 10

    clock[0] += 50.0
    writer = run_log.Writer(tmp_path, step=10)
    goodput = Goodput(tmp_path)
    clock[0] += 50.0
    values = log(writer, goodput, 20, 30.0)
    writer.close()
    assert values["hours/since_start"] == pytest.approx(300 / 3600)
    assert values["hours/trained"] == pytest.approx((60 + 30) / 3600)
    assert values["goodput"] == pytest.approx(0.3)


def test_goodput_counts_the_steps_between_the_last_log_line_and_the_checkpoint(clock, tmp_path):
    goodput = Goodput(tmp_path, trained=90.0, began=clock[0] - 200.0)
    clock[0] += 100.0
    assert goodput.read(10.0)["hours/trained"] == pytest.approx(100 / 3600)
    assert goodput.read(0.0)["goodput"] == pytest.approx(100 / 300)


def written(path, **row):
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


@pytest.mark.parametrize("back", [3600.0, 400 * 86400.0])
def test_clock_set_back_while_a_run_lives_changes_no_hours(monkeypatch, tmp_path, back):
    now, ticks = [2e9], [50.0]
    monkeypatch.setattr(run_log.time, "time", lambda: now[0])
    monkeypatch.setattr(run_log.time, "perf_counter", lambda: ticks[0])
    goodput = Goodput(tmp_path)
    ticks[0] += 100.0
    now[0] += 100.0 - back
    values = goodput.read(60.0)
    assert values["hours/since_start"] == pytest.approx(100 / 3600)
    assert values["goodput"] == pytest.approx(0.6)


def test_clock_set_back_between_two_starts_does_no_lasting_harm(monkeypatch, tmp_path):
    """Three starts of an hour, an hour apart; the clock of the second is 400 days behind."""
    truth, wrong = [2e9], [0.0]
    monkeypatch.setattr(run_log.time, "time", lambda: truth[0] - wrong[0])
    monkeypatch.setattr(run_log.time, "perf_counter", lambda: truth[0])
    began, hours, notes = truth[0], [], []
    for start in range(3):
        wrong[0] = 400 * 86400.0 if start == 1 else 0.0
        goodput = Goodput(tmp_path, began=began)
        truth[0] += 3600.0
        values = goodput.read(1800.0)
        written(tmp_path / "metrics.jsonl", step=start, time=run_log.time.time(), **values)
        hours.append(values["hours/since_start"])
        notes.append(goodput.notes)
        truth[0] += 3600.0
    # The pause before the second start cannot be known there, and is known again at the third.
    assert hours == pytest.approx([1, 2, 5])
    assert values["hours/trained"] == pytest.approx(1.5)
    assert values["goodput"] == pytest.approx(1.5 / 5)
    assert [len(each) for each in notes] == [0, 1, 1]
    assert "differs by 399d 23h" in notes[1][0]


def test_clock_that_was_behind_at_the_first_start_does_no_lasting_harm(monkeypatch, tmp_path):
    """As on a machine that starts before it knows the time; NTP corrects the clock later."""
    truth, wrong = [2e9], [400 * 86400.0]
    monkeypatch.setattr(run_log.time, "time", lambda: truth[0] - wrong[0])
    monkeypatch.setattr(run_log.time, "perf_counter", lambda: truth[0])
    began = run_log.time.time()
    goodput = Goodput(tmp_path, began=began)
    truth[0] += 60.0
    wrong[0] = 0.0
    truth[0] += 3540.0
    values = goodput.read(1800.0)
    written(tmp_path / "metrics.jsonl", step=1, time=run_log.time.time(), **values)
    truth[0] += 3600.0
    assert Goodput(tmp_path, began=began).read(0.0)["hours/since_start"] == pytest.approx(2)


def test_run_resumed_inside_the_traced_steps_writes_no_trace(tmp_path):
    trace = profile.Trace(tmp_path, first=3, steps=3)
    for step in (4, 5, 6):
        trace.before(step)
        assert trace.after(step, jax.numpy.zeros(())) is None
    assert not (tmp_path / "profile").exists()


def test_trace_is_kept_if_the_run_ends_inside_the_traced_steps(
    make_config, tiny_data, run_training, tmp_path
):
    keys = (f"data.dirs={tiny_data}", "steps=3", "profile.first=2", "profile.steps=5")
    workdir = run_training(make_config(*keys), tmp_path / "run")
    assert "step 3: a trace of 2 steps in" in (workdir / "run.log").read_text()
    assert any((workdir / "profile").rglob("*.trace.json.gz"))


def test_trace_of_the_requested_steps_is_written_to_the_workdir(
    make_config, tiny_data, run_training, tmp_path, capsys
):
    config = make_config(
        f"data.dirs={tiny_data}", "steps=5", "profile.first=3", "profile.steps=2", "log_every=5"
    )
    workdir = run_training(config, tmp_path / "run")
    # Both the file for XProf and the one for Perfetto hold the two steps.
    (xplane,) = (workdir / "profile").rglob("*.xplane.pb")
    planes = jax.profiler.ProfileData.from_file(str(xplane)).planes
    assert any("jit(step)" in e.name for p in planes for n in p.lines for e in n.events)
    (perfetto,) = (workdir / "profile").rglob("perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(perfetto.read_bytes()))["traceEvents"]
    assert sum("jit(step)" in event.get("name", "") for event in events) >= 2
    assert f"step 4: a trace of 2 steps in {workdir / 'profile'}" in capsys.readouterr().out
