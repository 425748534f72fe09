"""Several processes as the hosts of one run, over gloo on this machine."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rfxray.errors import ConfigError, HostMissing
from rfxray.runtime import distributed

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def no_host_has_been_joined(monkeypatch):
    """A process that tried to join others must not end normally: not so the one of the tests."""
    monkeypatch.setattr(distributed, "_tried", False)
    monkeypatch.setattr(distributed, "_joined", False)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def hosts(environment, n: int, devices: int, **more: str) -> list[dict[str, str]]:
    """Environments of the n processes of a run, each with that many devices."""
    address = {"JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}", "JAX_NUM_PROCESSES": str(n)}
    return [{**environment(devices), **address, "JAX_PROCESS_ID": str(i), **more} for i in range(n)]


def start(environment: dict, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "rfxray.train", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def losses(workdir: Path) -> list[float]:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def test_two_hosts_of_four_devices_match_one_host_of_eight(
    environment, tiny_arguments, tiny_data, tmp_path
):
    keys = (f"data.dirs={tiny_data}", "steps=6", "log_every=1", "mesh.fsdp=4", "checkpoint_every=6")
    one, two = tmp_path / "one", tmp_path / "two"
    for workdir, environments in (
        (one, [environment(8)]),
        (two, hosts(environment, n=2, devices=4)),
    ):
        for run in [start(host, *tiny_arguments(workdir, *keys)) for host in environments]:
            _, error = run.communicate(timeout=900)
            assert run.returncode == 0, error[-2000:]
    assert len(losses(one)) == 6
    # The rows are in another order and reduced in another order: float32 rounding.
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-5)


def test_mesh_that_gives_two_hosts_the_same_rows_is_refused(
    environment, tiny_arguments, tiny_data, tmp_path
):
    keys = (f"data.dirs={tiny_data}", "mesh.sequence=8")
    environments = hosts(environment, n=2, devices=4)
    runs = [start(host, *tiny_arguments(tmp_path / "run", *keys)) for host in environments]
    errors = [run.communicate(timeout=900)[1] for run in runs]
    assert [run.returncode for run in runs] == [78, 78]
    for error in errors:
        assert "the same rows of a batch on several of the 2 hosts" in error


@pytest.mark.parametrize("present", [0, 1])
def test_missing_host_ends_the_run_with_75_and_is_named(
    environment, tiny_arguments, tmp_path, present
):
    host = hosts(environment, n=2, devices=1, RFXRAY_HOST_TIMEOUT="3")[present]
    run = start(host, *tiny_arguments(tmp_path / "run"))
    _, error = run.communicate(timeout=900)
    assert run.returncode == 75
    (line,) = [line for line in error.splitlines() if line.startswith("rfxray.train:")]
    assert f"host {present} of 2: not every host joined within 3 s" in line


def test_a_host_of_a_slice_joins_the_others_unless_jax_platforms_is_cpu(monkeypatch):
    calls = []
    monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)
    monkeypatch.setattr(distributed.jax.config, "update", lambda *_: None)
    monkeypatch.setattr(distributed.jax.distributed, "initialize", lambda **how: calls.append(how))
    monkeypatch.setenv("JAX_PLATFORMS", "tpu,cpu")
    distributed.join()
    assert calls == []  # no slice
    monkeypatch.setattr(distributed.clusters.GceTpuCluster, "is_env_present", lambda: True)
    distributed.join()
    assert len(calls) == 1
    assert "coordinator_address" not in calls[0]  # the slice knows it
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    distributed.join()
    assert len(calls) == 1


ADDRESS = "JAX_COORDINATOR_ADDRESS"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"JAX_PROCESS_ID": "2"}, "JAX_PROCESS_ID=2 must be below JAX_NUM_PROCESSES=2"),
        ({"JAX_PROCESS_ID": "-1"}, "JAX_PROCESS_ID must be a whole number"),
        ({"JAX_PROCESS_ID": "one"}, "JAX_PROCESS_ID must be a whole number"),
        ({"JAX_PROCESS_ID": ""}, "JAX_PROCESS_ID must be a whole number"),
        ({"JAX_NUM_PROCESSES": "0"}, "JAX_NUM_PROCESSES must be a whole number, at least 1"),
        ({"JAX_NUM_PROCESSES": ""}, "JAX_NUM_PROCESSES must be a whole number, at least 1"),
        ({ADDRESS: ""}, "JAX_COORDINATOR_ADDRESS is not set"),
        ({ADDRESS: "", "JAX_NUM_PROCESSES": "1"}, "JAX_COORDINATOR_ADDRESS is not set"),
        ({ADDRESS: "localhost"}, "must be HOST:PORT"),
        ({"RFXRAY_HOST_TIMEOUT": "0"}, "RFXRAY_HOST_TIMEOUT must be a whole number, at least 1"),
    ],
)
def test_impossible_environment_of_hosts_is_refused(monkeypatch, change, named):
    whole = {ADDRESS: "localhost:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    for name, value in {"JAX_PLATFORMS": "cpu", **whole, **change}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=named):
        distributed.join()


def test_process_without_other_hosts_joins_nobody(monkeypatch):
    monkeypatch.delenv(ADDRESS, raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "1")
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    assert distributed.described() is None


def test_first_host_says_that_its_port_is_taken(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        monkeypatch.setenv(ADDRESS, f"localhost:{taken.getsockname()[1]}")
        monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
        monkeypatch.setenv("JAX_PROCESS_ID", "0")
        with pytest.raises(HostMissing, match="another process with JAX_PROCESS_ID=0"):
            distributed.join()
