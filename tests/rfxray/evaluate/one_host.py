"""One of several hosts that extract features into one cache; see test_feature_hosts.py."""

import dataclasses
import json
import sys
import time
from pathlib import Path

from rfxray.command_line import exit_on_error
from rfxray.evaluate import features
from rfxray.evaluate.pictures import open_pictures
from rfxray.runtime import distributed, refusal
from tests.rfxray.evaluate.projection import projection

COMMAND = "tests.rfxray.evaluate.one_host"


def main(data: str, cache: str, out: str, seconds: str = "0", seed: str = "0") -> None:
    """Writes the features, and the pictures that this host read, into OUT.

    A picture takes some seconds, so that a test can kill a host between two.
    """
    features.PART = 4
    pictures = open_pictures(data)
    read: list[int] = []

    def load(number: int):
        time.sleep(float(seconds))
        read.append(number)
        return pictures.load(number)

    with exit_on_error(COMMAND), refusal.travels(COMMAND):
        distributed.start(refusal.listen)
        noted = dataclasses.replace(pictures, load=load)
        found = features.extracted(noted, projection(seed=int(seed)), Path(cache))
        host, _ = distributed.place()
        about = {"read": sorted(read), "sum": float(found.values.sum()), "n": len(found.pictures)}
        Path(out, f"{host}.json").write_text(json.dumps(about))


if __name__ == "__main__":
    main(*sys.argv[1:])
