"""What `rfxray sample` was asked to draw."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from rfxray.sampling import stream
from rfxray.sampling.pretrained import Model
from rfxray.sampling.requests import Requests
from rfxray.sampling.settings import Settings
from rfxray.sampling.tables import Table


@dataclasses.dataclass(frozen=True)
class SampleRequest:
    """What the command was asked to draw.

    Attributes:
      checkpoint: Workdir of `rfxray.train` or folder of `rfxray export`; None for the packaged one.
      out: Directory that is written.
      n: Number of images, or of images of each cell of a table.
      first: Index of the first image among those of the seed.
      format: One of `stream.FORMATS`.
      settings: Settings that images are drawn with.
      asked: Attributes requested of every image.
      asks: Rows of attributes for the images, or a table.
      ema: Relative width of the EMA profile; see `load` for None.
      step: Step of the checkpoint; the newest, or that which `out` began with, when None.
      weak: Profile and step of the network of autoguidance.
      nearest: Data set to compare the images with.
      compile_only: Whether only to fill the compilation cache.
      allow_kinds: Kinds outside of rfxray that may be run.
      vae: Folder of the autoencoder of a model of latents; its own copy when None.
      words: Words of the command line, for the record.
    """

    checkpoint: Path | None
    out: Path
    n: int
    first: int
    format: str
    settings: Settings
    asked: Mapping[str, str]
    asks: Requests | Table
    ema: float | None
    step: int | None
    weak: tuple[float, int | None] | None
    nearest: str | None
    compile_only: bool
    allow_kinds: Sequence[str]
    vae: Path | None
    words: Sequence[str]

    @property
    def plan(self) -> stream.Plan:
        """What the directory is to hold."""
        if isinstance(self.asks, Table):
            n, cells = self.asks.images, self.asks.cells
            block = min(self.settings.batch_size, n)
            return stream.Plan(n, self.first, block, self.format, cells=cells)
        block = min(self.settings.batch_size, self.n)
        names: tuple[str, ...] = ()
        if self.asks.names:
            names = tuple(map(self.asks.name, range(self.first, self.first + self.n)))
        return stream.Plan(self.n, self.first, block, self.format, names)

    def command(self, model: Model) -> str:
        """A command that draws the same when the run has continued: all steps are written out."""
        words = ["python", "-m", "rfxray.sample", *self.words]
        if self.step is None:
            words += ["--step", str(model.source["step"])]
        if self.weak and self.weak[1] is None:
            # Without a step of its own it is of the step of the network that it guides.
            words += ["--autoguide", f"{self.weak[0]}@{model.source['step']}"]
        return shlex.join(words)
