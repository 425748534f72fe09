"""How the files of a published set may lie on the disk, other than as its tables say."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a published set may lie on the disk.

    Attributes:
      folders: Leading folders in the paths of the tables → folders that may hold the rest of the
        path instead; a key "" stands for the beginning of every path.
      unique_names: Whether no two images of the set have the same file name, so that a file may
        be found by it in any folder.
    """

    folders: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    unique_names: bool = False
