"""Speed of making and reading a data set of 512² radiographs.

    python -m benchmarks.data [--only ingest --only start …] [--folder runs/bench_data]

| measured | how |
|---|---|
| ingest | DICOM (plain, JPEG 2000) and 16-bit PNG of 2,500², noise on a phantom, to 512² |
| shards | records of 512² written by `shards.write_shard` |
| loader | the same records through `rfxray.data.batches`, as training reads them, one thread |
| start | start-up, first batch and memory of that loader over 1,172 shards of 1,024 records |
| table | all of `data_prep.harmonise` except pixels, over 1.2M rows and as many files |

The 1,172 shards are hard links to one file: their number and size are real, the 330 GB are not.
`table` reads no pixels; its survey is drawn at random.

Rates are per second of processor time of one process, which other load on the machine changes
least; files are in the page cache. Each is measured `--repeats` times; printed are the median and,
in brackets, all values.
"""

import csv
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from data_prep import decide, raw_sets
from data_prep.images import survey
from data_prep.images.decoder import Decoder
from data_prep.phantom import draw_attributes, draw_images
from data_prep.phantom.dataset import records as phantom_records
from data_prep.sources.files import FileIndex
from data_prep.sources.locate import locate
from data_prep.sources.mapping import FINDING_LABELS
from data_prep.sources.sets import SETS
from data_prep.tables import parquet
from rfxray.command_line import ArgumentParser, exit_on_error
from rfxray.data import radiograph, shards
from rfxray.data.manifest import read_manifest, write_manifest
from rfxray.data.plan import Shard, make_plan
from rfxray.data.writing import write_dataset

RAW, SIZE = 2500, 512
RECORDS, SHARD_EXAMPLES = 1_200_000, 1024
XL_IMAGES = 150  # images per second that XL reads on a v5p host of 4 chips; an estimate
HOST_CORES = 208  # virtual cores of such a host

# Runs in a fresh interpreter, so that start-up and memory are those of the loader.
READER = """
import json, resource, sys, time
from rfxray.data import batches
batch_size = int(sys.argv[2])
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20
before, start = rss(), time.perf_counter()
mixture = batches.open_mixture([sys.argv[1]], [1.0], "train", 0, True)
loader = batches.train_batches(mixture, batch_size, batches.Reading(threads=1))
opened = time.perf_counter()
next(loader)
first, memory, spent = time.perf_counter(), rss() - before, time.process_time()
count = int(sys.argv[3])
for _ in range(count):
    next(loader)
rate = count * batch_size / (time.process_time() - spent) if count else 0
print(json.dumps({"start": opened - start, "first": first - opened, "MiB": memory, "rate": rate}))
"""


def ingest_rates(folder: Path, repeats: int) -> None:
    """Prints images per second for each kind of file."""
    attributes = draw_attributes(0, np.arange(1))
    chest = cv2.resize(draw_images(attributes, 0, np.arange(1), 512)[0], (RAW, RAW))
    noise = np.random.default_rng(0).normal(0, 300, chest.shape)
    chest = np.clip(chest + noise, 0, 65535).astype(np.uint16) >> 4
    files = [folder / name for name in ("plain.dcm", "jpeg2000.dcm", "sixteen.png")]
    _dicom(files[0], chest)
    _jpeg2000(files[0], files[1])
    Image.fromarray(chest << 4).save(files[2])
    limited = Decoder()
    for path in files:
        rates = [5 / _spent(lambda p=path: [radiograph.ingest(p, SIZE) for _ in range(5)])
                 for _ in range(repeats)]  # fmt: skip
        start = time.perf_counter()
        for _ in range(5):
            limited.decode(path, SIZE)
        through = 5 / (time.perf_counter() - start)
        print(f"ingest: {path.name}, {path.stat().st_size / 2**20:.1f} MiB, {RAW}² to {SIZE}²: "
              f"{_median(rates, '.1f')} images/s/core; through the limited decoder, with pipe and "
              f"start, {through:.1f}/s of wall time")  # fmt: skip
    limited.close()


def shard_rates(folder: Path, repeats: int) -> None:
    """Writes the data set of one shard that the loader reads; prints records per second."""
    drawn = list(phantom_records(range(64), 0, SIZE))
    items = range(SHARD_EXAMPLES)
    plan = make_plan({"train": items}, name="one", size=SIZE, shard_examples=SHARD_EXAMPLES)
    write_dataset(plan, _Repeated(drawn), folder / "one", command="benchmarks.data")
    (shard,) = read_manifest(folder / "one")["splits"]["train"]["shards"]
    part = Shard("train", 0, range(64))
    (folder / "again" / "partial").mkdir(parents=True)
    rates = [64 / _spent(lambda: shards.make_shard(part, folder / "again", SIZE, _Repeated(drawn)))
             for _ in range(repeats)]  # fmt: skip
    kib = shard["bytes"] / SHARD_EXAMPLES / 1024
    print(f"shards: {kib:.0f} KiB per record of {SIZE}²; {_median(rates, '.0f')} written/s/core")


def loader_rate(folder: Path, repeats: int) -> None:
    rates = [_reader(folder / "one", 32, 12)["rate"] for _ in range(repeats)]
    need = XL_IMAGES / statistics.median(rates)
    print(
        f"loader: {_median(rates, '.0f')} images/s/core, shard to batch; the {XL_IMAGES} of XL "
        f"on a v5p host (an estimate) need {need:.1f} of its {HOST_CORES} cores, 4 times as many "
        f"need {4 * need:.1f}"
    )


def grain_start(folder: Path, repeats: int) -> None:
    """Measures the loader over as many records as CXR7 has, each of its true size."""
    one = read_manifest(folder / "one")
    (shard,) = one["splits"]["train"]["shards"]
    many = folder / "many"
    many.mkdir()
    listed = [{**shard, "file": f"many-{i:05d}"} for i in range(-(-RECORDS // SHARD_EXAMPLES))]
    for other in listed:
        os.link(folder / "one" / shard["file"], many / other["file"])
    examples = len(listed) * SHARD_EXAMPLES
    one["splits"]["train"] |= {"examples": examples, "shards": listed}
    write_manifest(many, one)
    runs = [_reader(many, 64, 0) for _ in range(repeats)]
    start, first, memory = ([run[key] for run in runs] for key in ("start", "first", "MiB"))
    print(f"start: {examples:,} records of {SIZE}² in {len(listed):,} shards: open "
          f"{_median(start, '.2f')} s, first batch of 64 {_median(first, '.2f')} s, "
          f"{_median(memory, '.0f')} MiB above the imports")  # fmt: skip


def table_cost(folder: Path, repeats: int) -> None:
    """Measures all of harmonise except pixels, once, because it takes minutes."""
    root = folder / "chexpert"
    _raw_table(root, RECORDS)
    seen = list(_random_survey(folder / "survey", RECORDS))
    begun = start = time.perf_counter()

    def lap(what: str) -> None:
        nonlocal start
        print(f"table: {what} in {time.perf_counter() - start:.0f} s, peak "
              f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")  # fmt: skip
        start = time.perf_counter()

    tables = {"chexpert": SETS["chexpert"].read(root)}
    lap(f"{len(tables['chexpert'].rows):,} rows read")
    layout = SETS["chexpert"].layout
    tables = {n: locate(n, table, FileIndex(root), layout) for n, table in tables.items()}
    rows = tables["chexpert"].rows
    lap(f"{len(rows):,} files found")
    splits = decide.assign_splits(tables, 0.02, 0.02)
    fates, found = decide.decide(rows, splits, seen)
    lap(f"duplicates searched, {found['near_candidates_between_patients']:,} candidates")
    options = raw_sets.Options(
        roots={"chexpert": root},
        own={},
        name="cxr7",
        size=512,
        out=folder / "cxr7",
        validation=0.02,
        test=0.02,
        shard_examples=1024,
        workers=1,
    )
    looks = raw_sets.looks(rows, seen)
    plan = raw_sets.plan_shards(tables, splits, fates, {"duplicates": found}, options, looks)
    lap(f"{len(plan.shards):,} shards planned, {plan.identity['inputs_sha256'][:8]}")
    parquet.write(folder / "table.parquet", tables, splits, fates, looks)
    lap("table.parquet written")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"table: {RECORDS:,} rows in {(time.perf_counter() - begun) / 60:.1f} min, {peak:.2f} GiB"
    )


# ---------------------------------------------------------------------------------------------
# Tools of the measurements


def _spent(work: Callable[[], object]) -> float:
    """Seconds of processor time that `work` takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def _median(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} [{', '.join(f'{v:{form}}' for v in values)}]"


def _reader(folder: Path, batch: int, batches: int) -> dict[str, float]:
    command = [sys.executable, "-c", READER, str(folder), str(batch), str(batches)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


class _Repeated:
    """A few records again and again, each time under a new key."""

    def __init__(self, records: list[dict]):
        self.records = records

    def __call__(self, items):
        for i in items:
            key = {"key": f"phantom/p{i}//0", "patient": f"phantom/p{i}"}
            yield {**self.records[i % len(self.records)], **key}


def _raw_table(root: Path, count: int) -> None:
    """CheXpert's train.csv with `count` rows, twenty films a study, and empty files to match."""
    cells = np.array(["", "1.0", "0.0", "-1.0"])
    labels = np.random.default_rng(0).choice(
        4, (4001, len(FINDING_LABELS)), p=[0.7, 0.15, 0.1, 0.05]
    )
    rows = cells[labels].tolist()
    root.mkdir()
    with open(root / "train.csv", "w", newline="") as file:
        writer = csv.writer(file)
        header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA"]
        writer.writerow([*header, *FINDING_LABELS.values()])
        for i in range(count):
            folder = f"train/patient{i // 60:06d}/study{i // 20 % 3 + 1}"
            if i % 20 == 0:
                os.makedirs(root / folder)
            path = f"{folder}/view{i % 20 + 1}_frontal.jpg"
            os.mknod(f"{root}/{path}")
            known = ["Male", 20 + i % 70, "Frontal", "AP"]
            writer.writerow([f"CheXpert-v1.0/{path}", *known, *rows[i % len(rows)]])


def _random_survey(folder: Path, count: int, chunk: int = 65_536) -> Iterator[Path]:
    folder.mkdir()
    rng = np.random.default_rng(1)
    schema = survey.SCHEMA.remove(survey.SCHEMA.get_field_index("thumbnail"))
    for start in range(0, count, chunk):
        rows = min(chunk, count - start)
        hashes = rng.integers(0, 256, (rows, 32), np.uint8)
        digests = [hashlib.sha256(h).digest() for h in hashes]
        columns = {
            "key": [str(i) for i in range(start, start + rows)],
            "reason": [""] * rows,
            "content": digests,
            "pixels": digests,
            "hash": [h.tobytes() for h in hashes],
            "scores": [[30.0, 0.8, 0.2, 0.2, 0.2, -0.5, 0.3]] * rows,
        }
        unknown = [None] * rows
        arrays = [pa.array(columns.get(field.name, unknown), field.type) for field in schema]
        path = folder / f"{start}.parquet"
        pq.write_table(pa.table(arrays, schema=schema), path)
        yield path


def _dicom(path: Path, pixels: np.ndarray) -> None:
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelData = pixels.astype("<u2").tobytes()
    dataset.save_as(path, enforce_file_format=True)


def _jpeg2000(plain: Path, path: Path) -> None:
    import gdcm

    reader, writer = gdcm.ImageReader(), gdcm.ImageWriter()
    change = gdcm.ImageChangeTransferSyntax()
    reader.SetFileName(str(plain))
    reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEG2000Lossless))
    change.SetInput(reader.GetImage())
    change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.Write()


MEASURED = {
    "ingest": ingest_rates,
    "shards": shard_rates,
    "loader": loader_rate,
    "start": grain_start,
    "table": table_cost,
}


def main() -> None:
    with exit_on_error("benchmarks.data"):
        parser = ArgumentParser(
            prog="python -m benchmarks.data", description=__doc__.splitlines()[0]
        )
        parser.add_argument(
            "--only",
            action="append",
            choices=MEASURED,
            help="what to measure, repeatable (default: all)",
        )
        parser.add_argument(
            "--repeats", type=int, default=3, help="measurements per figure (default: %(default)s)"
        )
        parser.add_argument(
            "--folder",
            type=Path,
            default=Path("runs/bench_data"),
            help="folder that is emptied and written (default: %(default)s)",
        )
        args = parser.parse_args()
        wanted = dict.fromkeys(args.only or MEASURED)
        if {"loader", "start"} & set(wanted):
            wanted = dict.fromkeys(("shards", *wanted))  # both read what shards writes
        shutil.rmtree(args.folder, ignore_errors=True)
        args.folder.mkdir(parents=True)
        for name in MEASURED:
            if name in wanted:
                MEASURED[name](args.folder, args.repeats)
        print(f"{args.folder} holds the files that were measured and may be deleted")


if __name__ == "__main__":
    main()
