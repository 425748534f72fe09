"""Circular figures: an extractor that saw the data, or that a model was trained against."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import rfxray.sampling
from rfxray.attributes.vocabulary import ATTRIBUTES
from rfxray.checkpoints import exported
from rfxray.errors import DataError
from rfxray.evaluate.extractors import circularity, kinds
from rfxray.evaluate.extractors.extractor import Extractor, Preprocessing

PACKAGED = Path(rfxray.sampling.__file__).parent / "packaged"


@pytest.fixture
def extractor():
    path = Preprocessing(8, "pad", "area", False, 1, (0.0,), (1.0,))
    features = np.zeros
    return Extractor("encoder", "0" * 64, 4, path, features, trained_on=("nih", "mimic"))


@pytest.mark.parametrize(
    ("sources", "config", "expected"),
    [
        (["phantom"], None, []),
        (["nih", "phantom"], None, ["encoder was trained on nih, the source of model"]),
        ([], {"objective": {"perceptual": "encoder"}}, ["objective.perceptual"]),
        ([], {"objective": {"losses": [{"network": "encoder=w.npz"}]}}, ["objective.losses"]),
        ([], {"parts": {"teacher": {"kind": "encoder"}}}, ["parts.teacher.kind"]),
        ([], {"objective": {"perceptual": "encoder_large"}}, []),
        ([], {"evaluators": {"fidelity": {"extractor": "encoder"}}}, []),
        (["mimic"], {"objective": {"a": "encoder"}}, ["trained on mimic", "trained against"]),
    ],
)
def test_reasons_name_shared_data_and_losses(extractor, sources, config, expected):
    found = circularity.reasons(extractor, "model", sources, config)
    assert len(found) == len(expected)
    for line, words in zip(found, expected, strict=True):
        assert words in line


def test_packaged_model_of_phantoms_is_circular_for_the_oracle_only(extractor):
    oracle = kinds.open_extractor("oracle")
    (line,) = circularity.of_model(oracle, PACKAGED)
    assert line == "oracle was trained on phantom, the source of packaged"
    assert circularity.of_model(extractor, PACKAGED) == []


def test_export_without_stated_data_is_refused_not_called_sound(extractor, tmp_path):
    folder = shutil.copytree(PACKAGED, tmp_path / "model")
    about = json.loads((folder / "export.json").read_text())
    about["trained_on"] = []
    about["checksum"] = exported._checksum(about)
    (folder / "export.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match="does not state its training data"):
        circularity.of_model(extractor, folder)


def test_our_extractors_name_their_data_as_the_attribute_source_does():
    (source,) = (attribute for attribute in ATTRIBUTES if attribute.name == "source")
    oracle = kinds.open_extractor("oracle")
    assert set(oracle.trained_on) <= set(source.values)
