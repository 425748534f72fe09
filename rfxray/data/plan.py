"""What a data set is to hold: which items go into which shard, in which order."""

import dataclasses
import functools
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rfxray import __version__
from rfxray.errors import ConfigError

STAGES = ("table", "files", "decode", "quality", "duplicate", "split")
OF_ITEMS = ("items", "inputs_sha256")  # entries of a plan's identity that no option decides


@dataclasses.dataclass(frozen=True)
class Dropped:
    """Something that did not become a record: one line of `dropped.csv`.

    Attributes:
      set: Name of the set that it belongs to.
      key: Key of the record that it would have become; empty for a file without a row, a line of
        a table without an image, and a row with the key of a row that is kept.
      path: Path of its file, as the disk has it, else as the table does; empty for a line.
      stage: What rejected it: one of `STAGES`.
      reason: A few words, the same for everything with the same problem.
      detail: What else is known; free text.
    """

    set: str
    key: str
    path: str
    stage: str
    reason: str
    detail: str = ""

    @property
    def why(self) -> str:
        """Reason and detail as one text."""
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


@dataclasses.dataclass(frozen=True)
class Shard:
    """The items of one shard, `index` counting from 0 within `split`."""

    split: str
    index: int
    items: Sequence[Any]

    @property
    def stem(self) -> str:
        """Name of its files in `partial/`, without their endings."""
        return f"{self.split}-{self.index:05d}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that decides the bytes of a data set, except the function that makes the records.

    Attributes:
      name: Name of the data set and its files; a lower-case identifier.
      size: Side of the square images, pixels.
      description: One paragraph for whoever opens the directory.
      options: Every option of the command that changes a record; JSON.
      preprocessing: How a file became a square; JSON, repeated in the manifest.
      versions: Versions of the libraries that decide pixels, by package; JSON.
      shard_examples: Items per shard.
      shards: Shards in order, split after split.
      dropped: What was dropped before any shard is written.
      notes: Counts of the inputs for the manifest; JSON.
      latent: Shape of the latents, if records hold latents; `options` says so too.
      shown: Fields that records have of `record.CONTENTS`.
    """

    name: str
    size: int
    description: str
    options: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    versions: Mapping[str, str]
    shard_examples: int
    shards: tuple[Shard, ...]
    dropped: tuple[Dropped, ...] = ()
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    latent: tuple[int, int, int] | None = None
    shown: tuple[str, ...] = ("image",)

    @property
    def all_versions(self) -> dict[str, str]:
        """Versions of rfxray and of the libraries that decide pixels, by package."""
        return {"rfxray": __version__, **self.versions}

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What a directory must agree in for this plan to continue in it; JSON, small."""
        inputs = hashlib.sha256()
        items = Counter()
        for shard in self.shards:
            items[shard.split] += len(shard.items)
            for item in shard.items:
                inputs.update(repr(item).encode("utf-8", "backslashreplace") + b"\0")
        for drop in self.dropped:
            inputs.update(repr(drop).encode("utf-8", "backslashreplace") + b"\0")
        identity = {
            "name": self.name,
            "size": self.size,
            "description": self.description,
            "options": self.options,
            "preprocessing": self.preprocessing,
            "versions": self.all_versions,
            "shard_examples": self.shard_examples,
            "items": dict(items),
            "inputs_sha256": inputs.hexdigest(),
        }
        return json.loads(json.dumps(identity))  # tuples become lists, as they will be read back


def make_plan(
    splits: Mapping[str, Sequence[Any]],
    *,
    name: str,
    size: int,
    shard_examples: int,
    description: str = "",
    options: Mapping[str, Any] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    versions: Mapping[str, str] | None = None,
    dropped: Iterable[Dropped] = (),
    notes: Mapping[str, Any] | None = None,
) -> Plan:
    """Cuts every split into shards of `shard_examples` items, the last one shorter.

    A `range` is cut into ranges, so a plan of a million drawn images stays small.

    Raises:
      ConfigError: If tfds cannot read the name back, or a shard would hold no items.
    """
    for word in (name, *splits):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", word):
            raise ConfigError(
                f"{word!r} cannot be the name of a data set or split; use a-z, 0-9 and _"
            )
    if shard_examples < 1 or size < 1:
        raise ConfigError(
            f"--shard-examples and --size must be at least 1 (got {shard_examples} and {size})"
        )
    shards = tuple(
        Shard(split, index, items[start : start + shard_examples])
        for split, items in splits.items()
        for index, start in enumerate(range(0, len(items), shard_examples))
    )
    return Plan(
        name=name,
        size=size,
        description=description,
        options=options or {},
        preprocessing=preprocessing or {},
        versions=versions or {},
        shard_examples=shard_examples,
        shards=shards,
        dropped=tuple(dropped),
        notes=notes or {},
    )
