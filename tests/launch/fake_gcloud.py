"""A fake gcloud: `fake_gcloud.py WORDS…`, with its state in the folder $FAKE_GCLOUD.

Every call is recorded in `calls.jsonl`. `scenario.json` configures the outcome:

    attempts   outcome of each start of the run, in order; the last one also applies to all later
               starts: {"code": 75, "step": 10} every host ends with this code at this step;
               {"preempt": true} the slice is preempted while the hosts run; {"silent": true} no
               host ever reports
    hosts      number of hosts of the slice (default: 2)
    fail       {"WORDS": n} the next n calls that contain WORDS fail without any effect
    lose       {"WORDS": n} the next n calls that contain WORDS take effect but return an error
    preempt    {"WORDS": n} the slice is preempted before each of the next n calls with WORDS
    slice      initial state of the slice ("" if it does not exist)
    queue      states of the queued resource, one per query
    execute    if true, files sent to the hosts are copied to `home/`, and commands sent to them run
               there, with `home/` as $HOME
"""

import json
import os
import sys
import time

# pathlib is not used, and subprocess is imported only when needed: a test of ten preemptions starts
# this script a hundred times, and these two imports would take half of its time.


def path(*parts: str) -> str:
    return os.path.join(os.environ["FAKE_GCLOUD"], *parts)


def read(file: str) -> str:
    with open(file) as lines:
        return lines.read()


def write(file: str, text: str, mode: str = "w") -> None:
    with open(file, mode) as lines:
        lines.write(text)


def main(words: list[str]) -> int:
    write(path("calls.jsonl"), json.dumps(words) + "\n", mode="a")
    scenario = json.loads(read(path("scenario.json")))
    if os.path.exists(path("state.json")):
        state = json.loads(read(path("state.json")))
    else:
        state = {"slice": scenario.get("slice", ""), "starts": 0, "queued": False, "looks": 0}
        state |= {what: scenario.get(what, {}) for what in ("fail", "lose", "preempt")}
    try:
        if happens("preempt", words, state):
            state["slice"] = "PREEMPTED"
        code = answer(words, scenario, state)
        if happens("lose", words, state):
            return complain("timed out while it waited for the operation")
        return code
    finally:
        write(path("state.json"), json.dumps(state))


def happens(what: str, words: list[str], state: dict) -> str:
    """WORDS of the scenario entry that applies to this call; empty if none does."""
    for failing, times in state[what].items():
        if failing in " ".join(words) and times:
            state[what][failing] -= 1
            return failing
    return ""


def answer(words: list[str], scenario: dict, state: dict) -> int:
    line = " ".join(words)
    if failing := happens("fail", words, state):
        return complain(f"no more capacity, or the network ({failing})")
    if line.startswith("storage cat"):
        files = sorted(os.listdir(path("status"))) if os.path.isdir(path("status")) else []
        print("".join(read(path("status", file)) for file in files), end="")
        return 0 if files else complain("The following URLs matched no objects or files:\n-gs://…")
    if "queued-resources create" in line:
        if state["queued"]:
            return complain("ALREADY_EXISTS: Resource 'projects/…' already exists")
        state["queued"] = True
    elif "queued-resources describe" in line:
        if not state["queued"]:
            return complain("NOT_FOUND: Resource was not found")
        states = scenario.get("queue", ["ACTIVE"])
        found = states[min(state["looks"], len(states) - 1)]
        state["looks"] += 1
        state["slice"] = state["slice"] or ("READY" if found == "ACTIVE" else "")
        print("SUSPENDED" if state["slice"] == "PREEMPTED" else found)
    elif "delete" in line:
        if not (state["slice"] or state["queued"]):
            return complain("NOT_FOUND: Resource was not found")
        state["slice"], state["queued"] = "", False
    elif "tpu-vm create" in line:
        if state["slice"]:
            return complain("ALREADY_EXISTS: Resource 'projects/…' already exists")
        state["slice"] = "READY"
    elif "tpu-vm describe" in line:
        if not state["slice"]:
            return complain("NOT_FOUND: Resource 'projects/…' was not found")
        print(state["slice"])
    elif "tpu-vm scp" in line and scenario.get("execute"):
        import shutil

        shutil.copy(words[words.index("scp") + 1], path("home"))
    elif "tpu-vm scp" in line or "tpu-vm ssh" in line:
        if state["slice"] != "READY" and not scenario.get("execute"):
            return complain(f"the slice is {state['slice'] or 'not there'}")
        if "scp" in words:
            return 0
        (command,) = (w.removeprefix("--command=") for w in words if w.startswith("--command="))
        if scenario.get("execute"):
            import subprocess

            home = {"HOME": path("home")}
            return subprocess.call(
                ["bash", "-c", command], cwd=home["HOME"], env={**os.environ, **home}
            )
        if "on_host/run.sh" in command:
            start(command.split()[3], scenario, state)
    return 0


def start(attempt: str, scenario: dict, state: dict) -> None:
    """Starts the run on the hosts and writes its outcome at once."""
    attempts = scenario["attempts"]
    what = attempts[min(state["starts"], len(attempts) - 1)]
    state["starts"] += 1
    if what.get("silent"):
        return
    os.makedirs(path("status"), exist_ok=True)
    hosts = scenario.get("hosts", 2)
    codes = what.get("codes", [what.get("code")] * hosts)
    for host, code in enumerate(codes):
        ended = None if code is None else f"exit {code}"
        report = {"host": host, "hosts": hosts, "attempt": attempt, "code": code, "ended": ended}
        report |= {"step": what.get("step"), "time": time.time()}
        write(path("status", f"host-{host}.json"), json.dumps(report) + "\n")
    if what.get("preempt"):
        state["slice"] = "PREEMPTED"


def complain(message: str) -> int:
    print(f"ERROR: (gcloud) {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
