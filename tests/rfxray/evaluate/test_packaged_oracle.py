"""The oracle that comes with the package."""

import json
import shutil

import numpy as np
import pytest

from data_prep import phantom
from rfxray.attributes.vocabulary import all_known
from rfxray.data.pixels import to_float
from rfxray.errors import DataError
from rfxray.evaluate import classifier
from rfxray.outputs.files import file_sha256

# Of the file that `python -m benchmarks.packaged` wrote; whoever makes it again changes this.
SHA256 = "015a3530ec43bb509eb3030328ae3ad64da844a7100a79482cfdaaf696c78ea4"


def test_packaged_oracle_is_the_one_that_was_measured():
    assert file_sha256(classifier.PACKAGED) == SHA256


def test_packaged_oracle_reads_phantoms_as_its_figures_say():
    indices = np.arange(192)
    attributes = phantom.draw_attributes(77, indices)
    images = to_float(phantom.draw_images(attributes, 77, indices, 64))
    figures = classifier.scores(classifier.load(), images, all_known(attributes))
    ceiling = json.loads(classifier.PACKAGED.with_suffix(".json").read_text())["ceiling"]
    assert figures.keys() == ceiling.keys()
    # The standard error of a share of 192 is at most 0.036.
    for name in ("view", "sex", "cardiomegaly", "edema", "consolidation", "support_devices"):
        assert abs(figures[name] - ceiling[name]) < 0.04, name
    assert abs(figures["age"] - ceiling["age"]) < 1


def test_flipped_byte_of_an_oracle_is_one_line(tmp_path):
    file = shutil.copy(classifier.PACKAGED, tmp_path)
    content = bytearray(classifier.PACKAGED.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "oracle.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"no oracle in .*oracle\.npz"):
        classifier.load(file)
