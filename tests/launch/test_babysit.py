"""The babysitter against a fake gcloud with preemptions and failures."""

import json
import time

import pytest

FLAGS = ("--", "--config", "radit:size=xl")
PREEMPTED = {"preempt": True}


def attempts(cloud) -> list[str]:
    """Names of the attempts that were started, in order."""
    commands = [w for call in cloud.calls for w in call if w.startswith("--command=")]
    return [c.split()[3] for c in commands if "on_host/run.sh" in c]


def report(cloud, **of):
    """Writes a report as an earlier babysitter or run.sh leaves it."""
    line = {"host": 0, "hosts": 1, "attempt": "20200101T000000Z", "code": None, "ended": None}
    line |= {"step": 3, "time": time.time()} | of
    (cloud.folder / "status").mkdir(exist_ok=True)
    (cloud.folder / "status" / "host-0.json").write_text(json.dumps(line) + "\n")


@pytest.mark.parametrize(("kind", "n"), [("spot", 10), ("queued-spot", 3)])
def test_run_survives_repeated_preemptions(cloud, kind, n):
    steps = [{**PREEMPTED, "step": 100 * i} for i in range(n)]
    cloud.play(attempts=[*steps, {"code": 0, "step": 1000}])
    done = cloud.run("babysit", *FLAGS, KIND=kind)
    assert done.returncode == 0, done.stderr
    assert "finished at step 1000" in done.stdout.splitlines()[-1]
    what = "queued-resources" if kind == "queued-spot" else "tpu-vm"
    assert cloud.count(f"{what} create") == n + 1
    assert cloud.count(f"{what} delete") == n
    assert cloud.count("on_host/setup.sh") == n + 1
    started = attempts(cloud)
    assert len(started) == n + 1
    assert started == sorted(set(started))  # each name sorts after the one before


def test_run_survives_preemptions_without_progress(cloud):
    cloud.play(attempts=[PREEMPTED] * 3 + [{"code": 0, "step": 1}])
    assert cloud.run("babysit", *FLAGS, FUTILE="1").returncode == 0


@pytest.mark.parametrize("code", [65, 70, 78])
def test_exit_code_that_needs_a_person_stops_the_babysitter(cloud, code):
    # One host has the cause; the other stopped because of it.
    cloud.play(attempts=[{"codes": [75, code], "step": 40}])
    done = cloud.run("babysit", *FLAGS)
    assert done.returncode == code
    last = done.stdout.splitlines()[-1]
    assert f"stopped at step 40: host 1 of 2 ended with exit {code}" in last
    assert len(attempts(cloud)) == 1
    assert cloud.count("delete") == 0


def test_delete_flag_deletes_the_slice_at_the_end(cloud):
    cloud.play(attempts=[{"code": 78}])
    assert cloud.run("babysit", "--delete", *FLAGS).returncode == 78
    assert cloud.count("tpu-vm delete slice") == 1


def test_exit_75_resumes_on_the_same_slice(cloud):
    cloud.play(attempts=[{"code": 75, "step": 10}, {"code": 75, "step": 20}, {"code": 0}])
    done = cloud.run("babysit", *FLAGS)
    assert done.returncode == 0
    assert cloud.count("tpu-vm create") == 1
    assert len(attempts(cloud)) == 3


def test_exit_75_without_progress_gives_up(cloud):
    cloud.play(attempts=[{"code": 75, "step": 10}])
    done = cloud.run("babysit", *FLAGS)
    assert done.returncode == 75
    assert "2 attempts in a row made no progress beyond step 10" in done.stdout
    assert len(attempts(cloud)) == 3


def test_hosts_that_never_report_are_restarted(cloud):
    cloud.play(attempts=[{"silent": True}, {"code": 0, "step": 5}])
    done = cloud.run("babysit", *FLAGS, STALE="1", POLL="1")
    assert done.returncode == 0, done.stderr
    assert len(attempts(cloud)) == 2


def test_hosts_that_stop_reporting_are_restarted(cloud):
    cloud.play(attempts=[{"step": 7}, {"code": 0, "step": 9}])
    done = cloud.run("babysit", *FLAGS, STALE="1", POLL="1")
    assert done.returncode == 0, done.stderr
    assert "no host has reported for 1 s; the last step is 7" in done.stdout


def test_running_attempt_is_watched_not_restarted(cloud):
    """The babysitter attaches to the run. Here the run stops reporting, so it is resumed later."""
    cloud.play(slice="READY", attempts=[{"code": 0, "step": 9}])
    report(cloud)
    done = cloud.run("babysit", *FLAGS, STALE="6", POLL="1")
    assert done.returncode == 0
    assert "watching attempt 20200101T000000Z" in done.stdout
    looks = [" ".join(call) for call in cloud.calls]
    begun = next(i for i, line in enumerate(looks) if "on_host/run.sh" in line)
    assert sum(line.startswith("storage cat") for line in looks[:begun]) >= 2


def test_old_config_error_does_not_stop_the_corrected_command(cloud):
    cloud.play(slice="READY", attempts=[{"code": 0, "step": 9}])
    report(cloud, code=78, ended="exit 78")
    assert cloud.run("babysit", *FLAGS).returncode == 0
    assert len(attempts(cloud)) == 1


def test_finished_run_is_started_again_for_more_steps(cloud):
    """The new command may ask for more `steps`; if not, the trainer ends at once."""
    cloud.play(slice="READY", attempts=[{"code": 0, "step": 2000}])
    report(cloud, code=0, ended="exit 0", step=1000)
    done = cloud.run("babysit", *FLAGS)
    assert done.returncode == 0
    assert "finished at step 2000" in done.stdout
    assert len(attempts(cloud)) == 1


@pytest.mark.parametrize("call", ["tpu-vm scp", "on_host/setup.sh", "on_host/run.sh"])
def test_preemption_before_the_run_starts_is_survived(cloud, call):
    cloud.play(attempts=[{"code": 0, "step": 9}], preempt={call: 3})
    done = cloud.run("babysit", *FLAGS, TRIES="1", FUTILE="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("could not be started; checking slice again") == 3
    assert cloud.count("tpu-vm create") == 4
    assert cloud.count("tpu-vm delete") == 3


@pytest.mark.parametrize("kind", ["spot", "queued-spot"])
def test_call_that_took_effect_before_failing_is_not_repeated(cloud, kind):
    what = "queued-resources" if kind == "queued-spot" else "tpu-vm"
    calls = (f"{what} create", f"{what} delete", "tpu-vm scp", "on_host/setup.sh")
    steps = [{**PREEMPTED, "step": 5}, {"code": 0, "step": 9}]
    cloud.play(attempts=steps, lose=dict.fromkeys(calls, 1))
    done = cloud.run("babysit", *FLAGS, KIND=kind)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("timed out") == len(calls)
    assert cloud.count(f"{what} create") == 3  # one of them is a retry
    assert cloud.count(f"{what} delete") == 2


def test_babysitter_waits_for_a_queued_slice(cloud):
    waiting = ["ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
    cloud.play(queue=waiting, attempts=[{"code": 0}])
    done = cloud.run("babysit", *FLAGS, KIND="queued")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("waiting for slice") == 3
    assert cloud.count("queued-resources create") == 1


def test_failing_gcloud_call_is_retried(cloud):
    calls = ("storage cat", "tpu-vm describe", "tpu-vm scp", "on_host/run.sh", "tpu-vm create")
    cloud.play(attempts=[{"code": 0}], fail=dict.fromkeys(calls, 2))
    done = cloud.run("babysit", *FLAGS)
    assert done.returncode == 0, done.stderr
    for call in calls:
        assert f"the network ({call})" in done.stderr
    assert done.stderr.count("try 3 of") == len(calls)


@pytest.mark.parametrize(
    ("call", "times"),
    [
        ("storage cat", 3),
        ("tpu-vm describe", 3),
        ("tpu-vm create", 4),
        ("tpu-vm scp", 3 * 2),  # FUTILE=1 gives it a second attempt
        ("on_host/run.sh", 3 * 2),
    ],
)
def test_persistent_gcloud_failure_is_reported(cloud, call, times):
    cloud.play(attempts=[{"code": 0}], fail={call: 99})
    done = cloud.run("babysit", *FLAGS, FUTILE="1")
    assert done.returncode == 75
    assert f"the network ({call})" in done.stderr  # the message of gcloud
    assert cloud.count(call) == times


def test_pauses_between_retries_grow(cloud):
    cloud.play(fail={"storage cat": 99})
    begin = time.monotonic()
    done = cloud.run("babysit", *FLAGS, PAUSE="1")
    assert time.monotonic() - begin >= 3
    assert "try 2 of 3 in 1 s" in done.stderr
    assert "try 3 of 3 in 2 s" in done.stderr


def test_reports_of_the_first_release_are_read(cloud):
    """A pod may still run the old version after this checkout was updated."""
    cloud.play(slice="READY", attempts=[{"code": 0, "step": 2000}])
    (cloud.folder / "status").mkdir()
    (cloud.folder / "status" / "host-0.json").write_text(
        '{"host": 0, "hosts": 1, "attempt": "20200101T000000Z", "code": null, "ended": null, '
        f'"step": 3, "time": {time.time()}}}\n'
    )
    done = cloud.run("babysit", *FLAGS, STALE="2", POLL="1")
    assert done.returncode == 0, done.stderr
    assert "watching attempt 20200101T000000Z" in done.stdout


def test_reports_of_another_version_start_nothing(cloud):
    cloud.play(slice="READY", attempts=[{"code": 0}])
    report(cloud, version=2)
    done = cloud.run("babysit", *FLAGS)
    assert done.returncode == 78
    assert "were written by another version of rfxray" in done.stdout.splitlines()[-1]
    assert attempts(cloud) == []
