"""Extractors by name: what they ask for, and what they answer."""

import jax
import numpy as np
import pytest

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
