"""The same tasks over many machines: an Apache Beam pipeline, `Create(plan) | Map(work)`.

    python -m data_prep.harmonise … --beam "--runner=FlinkRunner --flink_master=HOST:8081"

The pipeline carries the plan as one file a task, by name: a runner bounds what it is created with
(Dataflow: 10 MB a job), and the rows of 1.2M radiographs are hundreds. So every worker needs rfxray
with its extras `prep` and `beam`, and the raw folders and `--out` under the same paths. Whatever
the runner retries, splits or does twice, a task ends in the same bytes under the same name.
"""

import pickle
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rfxray.command_line import require
from rfxray.data.writing import Task


def run_tasks(
    work: Callable[..., None],
    tasks: Sequence[Task],
    *,
    options: str,
    folder: Path,
    command: str,
    done: int = 0,
) -> None:
    """`writing.run_tasks` as a Beam pipeline.

    Args:
      work, tasks, folder, command, done: Those of `writing.run_tasks`.
      options: Options of the pipeline, as on a command line; empty runs it on this machine.

    Raises:
      ConfigError: If Apache Beam is not installed.
    """
    require("prep,beam", "apache_beam")
    import apache_beam  # pyright: ignore[reportMissingImports]  an extra
    from apache_beam.options.pipeline_options import (  # pyright: ignore[reportMissingImports]
        PipelineOptions,
    )

    if not tasks:
        return
    items = sum(task.items for task in tasks)
    print(
        f"{command}: {items:,} of {done + items:,} images in {len(tasks):,} tasks to Beam",
        file=sys.stderr,
    )
    with tempfile.TemporaryDirectory(prefix=".beam-", suffix=".tmp", dir=folder.resolve()) as plan:
        paths = [Path(plan) / f"{number:06d}" for number in range(len(tasks))]
        for path, task in zip(paths, tasks, strict=True):
            path.write_bytes(pickle.dumps((work, task.arguments)))
        with apache_beam.Pipeline(options=PipelineOptions(shlex.split(options))) as pipeline:
            _ = (
                pipeline
                | apache_beam.Create([str(path) for path in paths])
                | apache_beam.Reshuffle()  # else the runner fuses, and one worker does it all
                | apache_beam.Map(do_task)
            )


def do_task(path: str) -> None:
    """One task, on a worker."""
    work, arguments = pickle.loads(Path(path).read_bytes())
    work(*arguments, lambda: None)
