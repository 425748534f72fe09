"""Many images to a folder, from Python: what `rfxray sample` does, in one call."""

from collections.abc import Callable
from pathlib import Path

from rfxray.attributes import vocabulary
from rfxray.sampling import samples, stream
from rfxray.sampling.given import Asked, rows_of
from rfxray.sampling.pretrained import Model
from rfxray.sampling.requests import Requests
from rfxray.sampling.settings import Settings, with_changes

DEFAULT = Settings()


def generate_to(
    out: str | Path,
    model: Model,
    attributes: Asked,
    n: int | None = None,
    settings: Settings = DEFAULT,
    guidance: float | None = None,
    seed: int | None = None,
    first: int = 0,
    format: str = "png",
    progress: Callable[[int], None] = lambda new: None,
) -> Path:
    """Draws images to a folder in bounded memory; the same call resumes after an interruption.

    The folder is that of `rfxray sample`: the images, `grid.png`, `gallery.html`, `samples.json`.

    Args:
      out: Folder that is absent, empty, or was begun by the same call, or one of smaller n.
      model: Model from `load`.
      attributes: Mapping such as `{"view": "PA"}` for every image, or a list of them or rows, used
        in turn.
      n: Number of images; one for each of the rows when None.
      settings: Settings that images are drawn with.
      guidance: Guidance in place of that of the settings.
      seed: Seed in place of that of the settings.
      first: Index of the first image among those of the seed.
      format: One of `stream.FORMATS`.
      progress: Function called with the number of images that each block added.

    Returns:
      Path of the folder.

    Raises:
      ConfigError: For wrong attributes or numbers, or a folder that holds something else.
      NonFiniteError: If a generated image is not finite.
    """
    out, settings = Path(out), with_changes(settings, guidance, seed)
    rows = rows_of(attributes)
    vocabulary.refuse_outside(rows)
    count = len(rows.values) if n is None else n
    plan = stream.Plan(count, first, min(settings.batch_size, max(1, count)), format)
    samples.refuse_folder(out)
    stream.write(model, settings, Requests(rows), plan, out, progress=progress)
    return out
