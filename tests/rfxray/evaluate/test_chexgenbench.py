"""The path of a public benchmark: its resize, its subsets, its faults, in columns of its own."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from rfxray.commands import evaluate, evaluate_fidelity
from rfxray.errors import ConfigError
from rfxray.evaluate import chexgenbench, kernel
from rfxray.evaluate.extractors.extractor import Preprocessing
from rfxray.evaluate.pictures import open_pictures
from tests.peers import import_peer
from tests.rfxray.evaluate.projection import projection


def inception(width=8):
    path = Preprocessing(299, "pad", "bicubic", False, 3, (0.5,) * 3, (0.5,) * 3)
    return dataclasses.replace(projection(width, name="inception"), preprocessing=path)


def rad_dino():
    path = Preprocessing(518, "pad", "bilinear", False, 3, (0.53,) * 3, (0.25,) * 3)
    return dataclasses.replace(projection(name="rad_dino"), preprocessing=path)


@pytest.fixture
def film():
    """A grey image of 8 bits, wider than high."""
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (60, 90), np.uint8)).resize((400, 300))


def read(film):
    return np.asarray(film, np.float32) / 255


def test_picture_is_squashed_by_pillow_whatever_its_aspect(film):
    (extractor,) = chexgenbench.variants([inception()])
    theirs = film.convert("RGB").resize((299, 299), Image.Resampling.BILINEAR)
    expected = (np.asarray(theirs, np.float32) - 128) / 128
    found = extractor.preprocessing.prepare(read(film))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_rad_dino_gets_the_squashed_picture_of_8_bits_enlarged(film):
    (extractor,) = chexgenbench.variants([rad_dino()])
    theirs = film.convert("RGB").resize((299, 299), Image.Resampling.BILINEAR)
    theirs = theirs.resize((518, 518), Image.Resampling.BICUBIC)
    expected = (np.asarray(theirs, np.float32) / 255 - 0.53) / 0.25
    found = extractor.preprocessing.prepare(read(film))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_its_path_is_another_one_than_ours():
    own = inception()
    (theirs,) = chexgenbench.variants([own, projection()])
    assert str(own.preprocessing) != str(theirs.preprocessing)
    assert str(theirs.preprocessing).startswith("squashed, 299x299 bilinear antialiased in 8 bits")


def test_networks_that_it_lacks_are_refused():
    with pytest.raises(ConfigError, match="needs --extractor inception or rad_dino"):
        chexgenbench.variants([projection()])


@pytest.mark.parametrize(("n", "m"), [(30, 30), (30, 20)])
def test_figures_are_those_of_its_metrics(n, m):
    rng = np.random.default_rng(1)
    real, synthetic = rng.normal(size=(n, 5)), rng.normal(0.3, 1.2, (m, 5))
    found = {f.name: f for f in chexgenbench._figures(real, synthetic, seed=0)}
    assert all(f.low is None and f.reason == chexgenbench.WHY for f in found.values())
    prdc = import_peer("prdc").compute_prdc(real, synthetic, 5)
    for name, value in prdc.items():
        assert found[name].value == pytest.approx(round(value, 3), abs=1e-9)
    if n == m:  # each subset is the whole set
        unbiased = kernel.polynomial(real, real).sum() - np.trace(kernel.polynomial(real, real))
        other = kernel.polynomial(synthetic, synthetic)
        kid = (unbiased + other.sum() - np.trace(other)) / (n * (n - 1))
        kid -= 2 * kernel.polynomial(real, synthetic).mean()
        assert found["KID of subsets"].value == pytest.approx(round(kid, 3), abs=1e-9)
    assert found["FID"].value == round(found["FID"].value, 3)
    assert found["FID"].n_synthetic == m


def in_order(monkeypatch):
    """The splits of the Inception score without the shuffle."""

    class Unshuffled:
        def permutation(self, n):
            return np.arange(n)

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Unshuffled())


@pytest.mark.parametrize("scale", [0.1, 5])
def test_inception_score_equals_torch_fidelity(monkeypatch, scale):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(70, 6)).astype(np.float32)
    classes = (scale * rng.normal(size=(6, 11))).astype(np.float32)
    isc = import_peer("torch_fidelity.metric_isc")
    logits = import_peer("torch").tensor(features.astype(np.float64) @ classes.astype(np.float64))
    theirs = isc.isc_features_to_metric(logits, splits=10, shuffle=False)
    in_order(monkeypatch)
    found = chexgenbench.inception_score(features, classes, seed=0)
    assert found == pytest.approx(theirs["inception_score_mean"], rel=1e-9)


@pytest.mark.parametrize("n", [3, 11, 57])
def test_splits_of_the_inception_score_are_the_chunks_of_torch(monkeypatch, n):
    torch = import_peer("torch")
    rng = np.random.default_rng(n)
    features, classes = rng.normal(size=(n, 6)), 3 * rng.normal(size=(6, 11))
    p = torch.tensor(features @ classes).softmax(1)
    scores = [
        (chunk * (chunk.log() - chunk.mean(0, keepdim=True).log())).sum(1).mean().exp()
        for chunk in p.chunk(10)
    ]
    in_order(monkeypatch)
    found = chexgenbench.inception_score(features, classes, seed=0)
    assert found == pytest.approx(float(torch.stack(scores).mean()), rel=1e-9)


def test_inception_score_is_1_of_equal_images_and_the_number_of_classes_at_most():
    classes = 1e4 * np.eye(4)
    assert chexgenbench.inception_score(np.ones((40, 4)), classes, 0) == pytest.approx(1)
    one_each = np.tile(np.eye(4), (500, 1))
    assert chexgenbench.inception_score(one_each, classes, 0) == pytest.approx(4, rel=0.02)


def test_only_a_network_with_classes_has_an_inception_score():
    rng = np.random.default_rng(1)
    real, synthetic = rng.normal(size=(30, 5)), rng.normal(size=(20, 5))
    classes = rng.normal(size=(5, 9))
    names = [f.name for f in chexgenbench._figures(real, synthetic, 0)]
    first, *others = chexgenbench._figures(real, synthetic, 0, classes)
    assert first.name == "Inception score"
    assert first.value == round(chexgenbench.inception_score(synthetic, classes, 0), 3)
    assert [f.name for f in others] == names
    assert (first.n_synthetic, first.low, first.reason) == (20, None, chexgenbench.WHY)


def test_files_are_read_as_stored_and_not_displayed(tmp_path):
    values = np.linspace(40, 180, 48 * 48).reshape(48, 48).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    stored, displayed = (open_pictures(tmp_path, display=each) for each in (False, True))
    np.testing.assert_allclose(stored.read(0), values / np.float32(255), rtol=0, atol=1e-7)
    assert displayed.read(0).max() == 1
    assert stored.fingerprint != displayed.fingerprint


def test_its_figures_stand_in_columns_of_their_own(tiny_data, other_data, tmp_path, monkeypatch):
    monkeypatch.setenv("RFXRAY_CACHE", str(tmp_path / "cache"))
    path = Preprocessing(16, "pad", "area", False, 1, (0.5,), (0.25,))

    def projected(images):
        return projection().features(images[:, ::19, ::19, :1][:, :16, :16])

    small = dataclasses.replace(projection(name="inception"), preprocessing=path)
    large = dataclasses.replace(inception(), features=projected)
    assert small.width == large.width
    monkeypatch.setattr(evaluate_fidelity, "open_extractor", lambda spec: large)
    words = ["--real", tiny_data, "--synthetic", other_data, "--extractor", "inception"]
    words += ["--protocol", "chexgenbench", "--out", tmp_path / "o"]
    evaluate.main(["fidelity", *map(str, words)])
    found = json.loads((tmp_path / "o/results.json").read_text())
    theirs = [row for row in found["figures"] if row["protocol"] == "chexgenbench"]
    ours = {row["name"] for row in found["figures"] if row["protocol"] == "corrected"}
    assert [row["name"] for row in theirs][:2] == ["FID", "KID of subsets"]
    assert not {"FID", "KID of subsets"} & ours
    assert found["published"]["inception"].startswith("squashed, 299x299")
    page = (tmp_path / "o/report.html").read_text()
    assert "protocol chexgenbench, its faults included" in page
