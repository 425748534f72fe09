"""The babysitter against a gcloud that preempts, fails and forgets."""

import json
import time

import pytest

FLAGS = ("--", "--config", "radit:size=xl")
PREEMPTED = {"preempt": True}


def attempts(cloud) -> list[str]:
    """The names of the attempts that were started."""
    commands = [w for call in cloud.calls for w in call if w.startswith("--command=")]
    return [c.split()[3] for c in commands if "on_host/run.sh" in c]


def report(cloud, **of):
    """A report that an earlier babysitter or run.sh has left behind."""
    line = {"host": 0, "hosts": 1, "attempt": "20200101T000000Z", "code": None, "ended": None}
    line |= {"step": 3, "time": time.time()} | of
    (cloud.folder / "status").mkdir(exist_ok=True)
    (cloud.folder / "status" / "host-0.json").write_text(json.dumps(line) + "\n")


@pytest.mark.parametrize(("kind", "n"), [("spot", 10), ("queued-spot", 3)])
def test_ten_preemptions_are_survived(cloud, kind, n):
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
    assert started == sorted(set(started))  # each one a later name than the one before


def test_preemptions_without_a_step_forward_are_survived_too(cloud):
    cloud.play(attempts=[PREEMPTED] * 3 + [{"code": 0, "step": 1}])
    assert cloud.run("babysit", *FLAGS, FUTILE="1").returncode == 0


@pytest.mark.parametrize("code", [65, 70, 78])
def test_a_code_that_needs_a_person_stops(cloud, code):
    # One host says why; the other was taken along by it.
    cloud.play(attempts=[{"codes": [75, code], "step": 40}])
    done = cloud.run("babysit", *FLAGS)
    assert done.returncode == code
    last = done.stdout.splitlines()[-1]
    assert f"stopped at step 40: host 1 of 2 ended with exit {code}" in last
    assert len(attempts(cloud)) == 1
    assert cloud.count("delete") == 0


def test_the_slice_is_deleted_at_the_end_where_asked(cloud):
    cloud.play(attempts=[{"code": 78}])
    assert cloud.run("babysit", "--delete", *FLAGS).returncode == 78
    assert cloud.count("tpu-vm delete slice") == 1


def test_75_resumes_on_the_same_slice(cloud):
    cloud.play(attempts=[{"code": 75, "step": 10}, {"code": 75, "step": 20}, {"code": 0}])
    done = cloud.run("babysit", *FLAGS)
    assert done.returncode == 0
    assert cloud.count("tpu-vm create") == 1
    assert len(attempts(cloud)) == 3


def test_75_without_a_step_forward_is_given_up(cloud):
    cloud.play(attempts=[{"code": 75, "step": 10}])
    done = cloud.run("babysit", *FLAGS)
    assert done.returncode == 75
    assert "2 attempts in a row made no progress beyond step 10" in done.stdout
    assert len(attempts(cloud)) == 3


def test_silent_hosts_are_started_again(cloud):
    cloud.play(attempts=[{"silent": True}, {"code": 0, "step": 5}])
    done = cloud.run("babysit", *FLAGS, STALE="1", POLL="1")
    assert done.returncode == 0, done.stderr
    assert len(attempts(cloud)) == 2


def test_hosts_that_fall_silent_are_started_again(cloud):
    cloud.play(attempts=[{"step": 7}, {"code": 0, "step": 9}])
    done = cloud.run("babysit", *FLAGS, STALE="1", POLL="1")
    assert done.returncode == 0, done.stderr
    assert "no host has reported for 1 s; the last step is 7" in done.stdout


def test_a_run_that_goes_on_is_left_alone(cloud):
    """Started again, it attaches: here to a run that is silent from now on, so it resumes it."""
    cloud.play(slice="READY", attempts=[{"code": 0, "step": 9}])
    report(cloud)
    done = cloud.run("babysit", *FLAGS, STALE="6", POLL="1")
    assert done.returncode == 0
    assert "watching attempt 20200101T000000Z" in done.stdout
    looks = [" ".join(call) for call in cloud.calls]
    begun = next(i for i, line in enumerate(looks) if "on_host/run.sh" in line)
    assert sum(line.startswith("storage cat") for line in looks[:begun]) >= 2


def test_an_old_refusal_does_not_stop_the_corrected_command(cloud):
    cloud.play(slice="READY", attempts=[{"code": 0, "step": 9}])
    report(cloud, code=78, ended="exit 78")
    assert cloud.run("babysit", *FLAGS).returncode == 0
    assert len(attempts(cloud)) == 1


def test_a_finished_run_is_asked_whether_there_is_more_to_do(cloud):
    """Started again with more `steps`; where they are the same the trainer ends at once."""
    cloud.play(slice="READY", attempts=[{"code": 0, "step": 2000}])
    report(cloud, code=0, ended="exit 0", step=1000)
    done = cloud.run("babysit", *FLAGS)
    assert done.returncode == 0
    assert "finished at step 2000" in done.stdout
    assert len(attempts(cloud)) == 1


@pytest.mark.parametrize("call", ["tpu-vm scp", "on_host/setup.sh", "on_host/run.sh"])
def test_a_preemption_before_the_run_has_started_is_survived(cloud, call):
    cloud.play(attempts=[{"code": 0, "step": 9}], preempt={call: 3})
    done = cloud.run("babysit", *FLAGS, TRIES="1", FUTILE="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("could not be started; checking slice again") == 3
    assert cloud.count("tpu-vm create") == 4
    assert cloud.count("tpu-vm delete") == 3


@pytest.mark.parametrize("kind", ["spot", "queued-spot"])
def test_what_gcloud_did_and_then_failed_is_not_done_twice(cloud, kind):
    what = "queued-resources" if kind == "queued-spot" else "tpu-vm"
    calls = (f"{what} create", f"{what} delete", "tpu-vm scp", "on_host/setup.sh")
    steps = [{**PREEMPTED, "step": 5}, {"code": 0, "step": 9}]
    cloud.play(attempts=steps, lose=dict.fromkeys(calls, 1))
    done = cloud.run("babysit", *FLAGS, KIND=kind)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("timed out") == len(calls)
    assert cloud.count(f"{what} create") == 3  # one of them a second try
    assert cloud.count(f"{what} delete") == 2


def test_the_queue_is_waited_for(cloud):
    waiting = ["ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
    cloud.play(queue=waiting, attempts=[{"code": 0}])
    done = cloud.run("babysit", *FLAGS, KIND="queued")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("waiting for slice") == 3
    assert cloud.count("queued-resources create") == 1


def test_a_failing_gcloud_is_tried_again(cloud):
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
def test_a_gcloud_that_keeps_failing_is_reported(cloud, call, times):
    cloud.play(attempts=[{"code": 0}], fail={call: 99})
    done = cloud.run("babysit", *FLAGS, FUTILE="1")
    assert done.returncode == 75
    assert f"the network ({call})" in done.stderr  # gcloud's own words
    assert cloud.count(call) == times


def test_the_pauses_grow(cloud):
    cloud.play(fail={"storage cat": 99})
    begin = time.monotonic()
    done = cloud.run("babysit", *FLAGS, PAUSE="1")
    assert time.monotonic() - begin >= 3
    assert "try 2 of 3 in 1 s" in done.stderr
    assert "try 3 of 3 in 2 s" in done.stderr


def test_reports_of_an_earlier_version_are_judged(cloud):
    """The line as the first release wrote it: a pod outlives an update of this checkout."""
    cloud.play(slice="READY", attempts=[{"code": 0, "step": 2000}])
    (cloud.folder / "status").mkdir()
    (cloud.folder / "status" / "host-0.json").write_text(
        '{"host": 0, "hosts": 1, "attempt": "20200101T000000Z", "code": null, "ended": null, '
        f'"step": 3, "time": {time.time()}}}\n'
    )
    done = cloud.run("babysit", *FLAGS, STALE="2", POLL="1")
    assert done.returncode == 0, done.stderr
    assert "watching attempt 20200101T000000Z" in done.stdout


def test_reports_that_cannot_be_read_start_nothing(cloud):
    cloud.play(slice="READY", attempts=[{"code": 0}])
    report(cloud, version=2)
    done = cloud.run("babysit", *FLAGS)
    assert done.returncode == 78
    assert "were written by another version of rfxray" in done.stdout.splitlines()[-1]
    assert attempts(cloud) == []
