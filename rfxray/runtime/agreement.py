"""Whether all hosts run the same program on the same data, asked before the state is made.

Hosts that differ (a stale copy of the data, a checkout of another day, a file edited between two
launches) would train together on something that nobody described, or hang. Each host sends one
hash; only if the hashes differ, one host of each kind sends what it hashed.
"""

import hashlib
import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jax
import ml_collections

import rfxray
from rfxray import version
from rfxray.config import kinds, schema
from rfxray.errors import HostsDiffer
from rfxray.runtime import distributed

# Keys that a host may have of its own: where its copy of the data is, how it reads, and what only
# this host does. All others enter the program, or decide when the hosts do something together.
LOCAL = (
    "data.dirs",  # compared by content
    "data.make",
    "data.verify",
    "data.threads",
    "data.workers",
    "data.prefetch",
    "profile.first",
    "profile.steps",
    "watchdog.factor",
    "watchdog.seconds",
    "watchdog.give_up",
)

PACKAGES = (
    "jax",
    "jaxlib",
    "libtpu",
    "jax-cuda13-plugin",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "array-record",
    "clu",
    "ml-collections",
    "numpy",
    "pillow",
    "protobuf",
)

# Beginnings of JAX's flags that say how one process caches, logs, or sees its devices.
LOCAL_FLAGS = (
    "jax_compilation_cache",
    "jax_cross_host_trans",
    "jax_cuda_visible",
    "jax_debug_log",
    "jax_dump",
    "jax_log",
    "jax_oneapi_visible",
    "jax_persistent_cache",
    "jax_pprint",
    "jax_raise_persistent_cache",
    "jax_rocm_visible",
    "jax_traceback",
    "jax_tracer_error",
)

SHOWN = 3  # differences in the message
PATIENCE = 60_000  # milliseconds to wait for what another host has hashed

Facts = dict[str, str]


def facts(
    config: ml_collections.ConfigDict,
    data: Sequence[tuple[Path, str]],
    allow: Iterable[str] = (),
    weights: Mapping[str, str] = {},
) -> Facts:
    """What must be the same on every host, by name.

    Args:
      config: Config of the run.
      data: Path and fingerprint of each data set, in the order of the mixture.
      allow: Keys of `--allow-change`.
      weights: Hash of the weights that each key of given weights names, by the key.
    """
    found = {
        f"config.{key}": repr(value)
        for key, value in schema.flatten(config).items()
        if key not in (*LOCAL, *weights)  # weights are compared by content
    }
    found |= {f"config.{key}": digest[:16] for key, digest in weights.items()}
    found["--allow-change"] = repr(sorted(allow))
    for number, (path, fingerprint) in enumerate(data):
        # A path may differ: it is for the reader of the message, and not compared.
        found[f"config.data.dirs[{number}]"] = f"fingerprint {fingerprint[:16]}\0 ({path})"
    found |= {f"version of {name}": version.installed(name) for name in PACKAGES}
    found["version of python"] = platform.python_version()
    found |= {
        name: str(value)
        for name, value in jax.config.values.items()
        if not name.startswith(LOCAL_FLAGS)
    }
    flags = os.environ.get("XLA_FLAGS", "").split()
    found["XLA_FLAGS"] = " ".join(flag for flag in flags if not flag.startswith("--xla_dump"))
    found["LIBTPU_INIT_ARGS"] = os.environ.get("LIBTPU_INIT_ARGS", "")
    found |= _source(Path(rfxray.__file__).parent)
    for kind in filter(kinds.is_foreign, schema.kinds_of(config)):
        top = sys.modules[kind.partition(":")[0].partition(".")[0]]
        for place in getattr(top, "__path__", [top.__file__]):
            found |= _source(Path(place))
    return found


def require(
    config: ml_collections.ConfigDict,
    data: Sequence[tuple[Path, str]],
    allow: Iterable[str] = (),
    weights: Mapping[str, str] = {},
) -> None:
    """Compares the facts of all hosts; on one host it does nothing. All hosts must call it.

    Args:
      config, data, allow, weights: Those of `facts`.

    Raises:
      HostsDiffer: If they differ; it names the hosts, what differs, and its values.
      HostMissing: If a host does not come in time.
    """
    if not distributed.joined():
        return
    own = facts(config, data, allow, weights)
    client, (me, _) = distributed.service(), distributed.place()
    compared = {name: value.split("\0")[0] for name, value in own.items()}
    digest = hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()
    client.key_value_set(f"rfxray/agreement/{me}", digest)
    distributed.barrier("the comparison of hosts")
    entries = client.key_value_dir_get("rfxray/agreement")
    digests = {int(key.rsplit("/", 1)[1]): value for key, value in entries}
    groups: dict[str, list[int]] = {}
    for host in sorted(digests):
        groups.setdefault(digests[host], []).append(host)
    if len(groups) == 1:
        return
    if groups[digest][0] == me:
        client.key_value_set(f"rfxray/facts/{me}", json.dumps(own))
    of_group = [
        (hosts, json.loads(client.blocking_key_value_get(f"rfxray/facts/{hosts[0]}", PATIENCE)))
        for hosts in groups.values()
    ]
    raise HostsDiffer(difference(of_group))


def difference(groups: list[tuple[list[int], Facts]]) -> str:
    """A line that names the hosts that differ from most others, and in what.

    Args:
      groups: Hosts that agree with each other, and their facts; at least two groups, which differ.
    """
    names = list(dict.fromkeys(name for _, found in groups for name in found))
    lines, hosts = [], set()
    for name in names:
        shown, counts = {}, Counter()
        for members, found in groups:
            value = found.get(name, "absent")
            compared = value.split("\0")[0]
            shown.setdefault(compared, (value.replace("\0", ""), []))[1].extend(members)
            counts[compared] += len(members)
        if len(shown) == 1:
            continue
        usual, _ = counts.most_common(1)[0]  # of equal counts, that of the first host
        parts = [
            f"{value or 'nothing'} on {_hosts(members)}"
            for compared, (value, members) in shown.items()
            if compared != usual
        ]
        hosts.update(h for c, (_, members) in shown.items() if c != usual for h in members)
        value, members = shown[usual]
        lines.append(f"{name} is {', '.join(parts)} and {value or 'nothing'} on {_hosts(members)}")
    more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    verb = "differs" if len(hosts) == 1 else "differ"
    return (
        f"{_hosts(sorted(hosts))} {verb} from the others: {'; '.join(lines[:SHOWN])}{more}; start "
        "all hosts with the same command, code and data"
    )


def _hosts(numbers: list[int]) -> str:
    few = ", ".join(map(str, numbers[:8])) + (" …" if len(numbers) > 8 else "")
    return f"host{'s' * (len(numbers) > 1)} {few}"


def _source(place: Path) -> Facts:
    """The digest of every file of a package, or of a module's only file."""
    files = [place] if place.is_file() else sorted(place.rglob("*"))
    return {
        f"file {file.relative_to(place.parent).as_posix()}": (
            f"SHA-256 {hashlib.sha256(file.read_bytes()).hexdigest()[:16]}"
        )
        for file in files
        if file.suffix in (".py", ".json")
    }
