"""Several processes of this machine as the hosts of one run."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def end_of_hosts(environment):
    """`end_of_hosts(arguments, devices, variables, folders, command, killed, by)`: how the hosts of
    a run end.

    `arguments` are the flags of each host; `variables` and `folders` change the environment and
    the working folder of some hosts, by number; host 1 gets the signal `by` when `killed()` is
    true. Returns the exit code of each host and its lines that begin with `COMMAND:`.
    """
    started = []

    def run(
        arguments,
        devices=1,
        variables=None,
        folders=None,
        command="rfxray.train",
        killed=None,
        by=signal.SIGKILL,
    ):
        processes = []
        with socket.socket() as s:
            s.bind(("localhost", 0))
            port = s.getsockname()[1]
        for host, flags in enumerate(arguments):
            process = subprocess.Popen(
                [sys.executable, "-m", command, *flags],
                cwd=(folders or {}).get(host, ROOT),
                env={
                    **environment(devices),
                    "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
                    "JAX_NUM_PROCESSES": str(len(arguments)),
                    "JAX_PROCESS_ID": str(host),
                    **(variables or {}).get(host, {}),
                },
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            started.append(process)
            processes.append(process)
        if killed:
            while not killed():
                assert processes[1].poll() is None, processes[1].communicate()
                time.sleep(0.02)
            os.kill(processes[1].pid, by)
        errors = [process.communicate(timeout=900)[1] for process in processes]
        assert not any("Traceback" in error for error in errors), errors
        return [process.returncode for process in processes], [
            [line for line in error.splitlines() if line.startswith(f"{command}:")]
            for error in errors
        ]

    yield run
    for process in started:
        process.kill()
