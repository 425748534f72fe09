"""What it costs to make and to read a data set of 512² radiographs, per core.

    python -m benchmarks.data [--records 1200000] [--folder runs/bench]

| measured | how |
|---|---|
| ingest | DICOM (plain, JPEG 2000) and 16-bit PNG of 2,500², noise on a phantom, to 512² |
| shard | records of 512² written by `shards.write_shard`, read and decoded as training does |
| Grain | start-up, memory and first batch over as many records as CXR7 has, of 16² |

1.2 million records of 512² are 400 GB; number and size are therefore measured apart: the number
decides start-up and memory, the size decides the rate of decoding.

Every figure is of one process on the machine at hand, the files in its page cache.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from data_prep import ingest, shards
from data_prep.decoder import Decoder
from data_prep.phantom import draw_attributes, draw_images
from data_prep.phantom.dataset import records as phantom_records
from data_prep.processes import write_dataset
from rfxray.errors import exit_on_error
from rfxray.record import deserialize

RAW, SIZE = 2500, 512
XL_IMAGES = 150  # a second and host, an estimate: v5p, XL, 1,024 tokens; 4× is the aim

# Runs in a fresh interpreter, so that start-up and memory are Grain's own
READER = """
import json, resource, sys, time
import grain, numpy
from rfxray import input, record
from rfxray.input import open_dataset
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20
before, start = rss(), time.perf_counter()
dataset = open_dataset(sys.argv[1])
source = grain.sources.ArrayRecordDataSource([str(p) for p in dataset.shards["train"]])
order = grain.MapDataset.source(source).seed(7).shuffle().repeat().map(record.deserialize)
length, opened = len(source), time.perf_counter()
batch = [order[i] for i in range(64)]
first = time.perf_counter()
print(json.dumps([length, opened - start, first - opened, rss() - before]))
"""


def ingest_rates(folder: Path, rounds: int) -> None:
    """Images a second of each kind of file, in this process and through the limited decoder."""
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
        limited.decode(path, SIZE)
        alone = _rate(lambda path=path: ingest.ingest(path, SIZE), rounds)
        through = _rate(lambda path=path: limited.decode(path, SIZE), rounds)
        print(f"ingest {path.name}, {path.stat().st_size / 2**20:.1f} MiB, {RAW}² to {SIZE}²: "
              f"{alone:.1f} images/s/core, {through:.1f} through the limited decoder")  # fmt: skip
    limited.close()


def shard_rates(folder: Path, count: int) -> None:
    """Records of 512² a second, written and read."""
    drawn = list(phantom_records(range(count), 0, SIZE))
    shard = shards.Shard("train", 0, range(count))
    (folder / "partial").mkdir(parents=True)
    start = time.perf_counter()
    shards.write_shard(shard, folder, SIZE, lambda items: iter(drawn))
    wrote = time.perf_counter() - start
    from array_record.python.array_record_module import ArrayRecordReader

    path = folder / "partial" / "train-00000.array_record"
    reader = ArrayRecordReader(os.fspath(path))
    start = time.perf_counter()
    for data in reader.read_all():
        deserialize(data)
    read = count / (time.perf_counter() - start)
    print(f"shard of {SIZE}², {path.stat().st_size / count / 1024:.0f} KiB a record: written at "
          f"{count / wrote:.0f}/s/core, read and decoded at {read:.0f}/s/core")  # fmt: skip
    cores = 4 * XL_IMAGES / read
    print(f"4 × the {XL_IMAGES} images/s (an estimate) of XL on a v5p host need {cores:.1f} cores; "
          f"such a host has 208")  # fmt: skip


def grain_start(folder: Path, count: int) -> None:
    """Start-up, memory and first batch over `count` small records."""
    (one,) = phantom_records(range(1), 0, 16)
    plan = shards.plan({"train": range(count)}, name="many", size=16, shard_examples=16_384)
    write_dataset(plan, _Repeated(one), folder / "many", command="benchmarks.data")
    done = subprocess.run(
        [sys.executable, "-c", READER, str(folder / "many")],
        capture_output=True,
        text=True,
        check=True,
    )
    length, opened, first, memory = json.loads(done.stdout)
    print(f"Grain over {length:,} records in {len(plan.shards)} shards: open {opened:.2f} s, first "
          f"64 examples {first:.2f} s, {memory:.0f} MiB above the imports")  # fmt: skip


class _Repeated:
    """One record for every item, under another key."""

    def __init__(self, record: dict):
        self.record = record

    def __call__(self, items):
        for i in items:
            yield {**self.record, "key": f"phantom/p{i}//0", "patient": f"phantom/p{i}"}


def _rate(work, rounds: int) -> float:
    start = time.perf_counter()
    for _ in range(rounds):
        work()
    return rounds / (time.perf_counter() - start)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=1_200_000, help="for Grain (%(default)s)")
    parser.add_argument("--images", type=int, default=64, help="of 512² (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of ingest (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench_data"))
    args = parser.parse_args()
    with exit_on_error("benchmarks.data"):
        shutil.rmtree(args.folder, ignore_errors=True)
        args.folder.mkdir(parents=True)
        ingest_rates(args.folder, args.rounds)
        shard_rates(args.folder / "one", args.images)
        grain_start(args.folder, args.records)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{args.folder}: may be deleted; this process took {peak:.1f} GiB at most")


if __name__ == "__main__":
    main()
