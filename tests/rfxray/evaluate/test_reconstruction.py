"""Reconstructions are compared with their own originals, inside the radiograph."""

import csv
import json

import numpy as np
import pytest

from rfxray.commands import evaluate_reconstruction
from rfxray.errors import DataError
from rfxray.evaluate import reconstruction
from rfxray.outputs import files, lock


def film(seed=0, height=64, width=64):
    rng = np.random.default_rng(seed)
    rough = rng.normal(size=(height, width)).cumsum(0).cumsum(1)
    return ((rough - rough.min()) / np.ptp(rough)).astype(np.float32)


@pytest.mark.parametrize("shape", [(64, 64), (40, 57), (11, 30)])
def test_ssim_agrees_with_scikit_image(shape):
    metrics = pytest.importorskip("skimage.metrics", reason="no scikit-image; extra peers has it")
    rng = np.random.default_rng(0)
    for noise in (0.001, 0.05, 0.5):
        x = film(1, *shape).astype(float)
        y = np.clip(x + noise * rng.normal(size=shape), 0, 1)
        expected = metrics.structural_similarity(
            x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
        )
        assert reconstruction.ssim(x, y) == pytest.approx(expected, rel=1e-9)


def test_psnr_is_that_of_the_squared_error():
    original = np.full((32, 32), 0.5, np.float32)
    pair = reconstruction.measure(original, original + np.float32(0.1), None)
    assert pair.psnr == pytest.approx(20, abs=1e-4)
    assert all(value is None for value in pair.kept.values())  # a constant has no power


def test_margins_of_the_square_count_for_nothing():
    original = film()
    box = np.array([8, 4, 40, 56])
    decoded = np.clip(original + 0.05 * np.random.default_rng(1).normal(size=(64, 64)), 0, 1)
    decoded = decoded.astype(np.float32)
    other = np.ones_like(decoded)
    inside = slice(8, 48), slice(4, 60)
    other[inside] = decoded[inside]
    assert reconstruction.measure(original, other, box) == reconstruction.measure(
        original, decoded, box
    )
    assert reconstruction.measure(original, other, None) != reconstruction.measure(
        original, decoded, None
    )


def test_power_is_kept_in_the_bands_that_a_filter_leaves():
    rng = np.random.default_rng(0)
    original = rng.normal(size=(128, 128))
    frequency = 128 * np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128)))
    low = np.fft.ifft2(np.fft.fft2(original) * (frequency < 16)).real
    pair = reconstruction.measure(original.astype(np.float32), low.astype(np.float32), None)
    assert list(pair.kept) == [2, 4, 8, 16, 32]
    assert pair.kept[4] == pytest.approx(1, abs=0.05)
    assert pair.error[4] < 0.01
    assert pair.kept[32] < 0.01
    assert pair.error[32] == pytest.approx(1, abs=0.01)
    half = reconstruction.measure(
        original.astype(np.float32), original.astype(np.float32) / 2, None
    )
    assert half.kept[8] == pytest.approx(0.25, rel=1e-5)
    assert half.error[8] == pytest.approx(0.25, rel=1e-5)
    assert half.correlation[8] == pytest.approx(1, abs=1e-6)


def test_power_of_invented_texture_is_kept_and_does_not_correlate():
    rng = np.random.default_rng(0)
    original, noise = rng.normal(size=(2, 128, 128))
    pair = reconstruction.measure(original.astype(np.float32), noise.astype(np.float32), None)
    assert pair.kept[32] == pytest.approx(1, abs=0.1)
    assert pair.error[32] == pytest.approx(2, abs=0.2)
    assert abs(pair.correlation[32]) < 0.05
    half = (original + noise).astype(np.float32)
    found = reconstruction.measure(original.astype(np.float32), half, None).correlation[32]
    assert found == pytest.approx(0.5**0.5, abs=0.03)
    blank = reconstruction.measure(original.astype(np.float32), np.zeros_like(half), None)
    assert blank.correlation[32] is None


def test_power_of_all_bands_is_that_of_the_windowed_image():
    image = np.random.default_rng(0).normal(size=(21, 34))
    power = reconstruction.spectrum(image, 34)
    window = np.outer(np.hanning(21), np.hanning(34))
    windowed = (image - (image * window).sum() / window.sum()) * window
    whole = np.abs(np.fft.fft2(windowed)) ** 2
    radius = 34 * np.hypot(np.fft.fftfreq(21)[:, None], np.fft.fftfreq(34))
    assert sum(power.values()) == pytest.approx(whole[(radius >= 2) & (radius <= 17)].sum())


def test_bands_are_of_the_picture_whatever_the_box():
    columns = np.arange(128) / 128
    wave = 0.5 + 0.4 * np.sin(2 * np.pi * 20 * columns)[None].repeat(128, 0)
    for box in (None, np.array([0, 32, 128, 64])):
        image = wave if box is None else wave[:, 32:96]
        power = reconstruction.spectrum(image, 128)
        assert power[16] > 0.95 * sum(power.values())


def test_pairs_are_found_by_key_and_never_by_position():
    keys = ["a/1", "a/2", "b"]
    order = reconstruction.matched(keys, ["b.png", "a/2.png", "a/1.png"])
    np.testing.assert_array_equal(order, [2, 1, 0])
    with pytest.raises(DataError, match=r"1 of 3 originals have no reconstruction .*first: b"):
        reconstruction.matched(keys, ["a/1.png", "a/2.png"])
    with pytest.raises(DataError, match=r"1 reconstructions have no original .*first: c"):
        reconstruction.matched(keys, ["a/1", "a/2", "b", "c"])
    with pytest.raises(DataError, match="two reconstructions have the key b"):
        reconstruction.matched(keys, ["a/1", "a/2", "b.png", "b.dcm"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda image: image[:32], "write reconstructions in the size of the originals"),
        (lambda image: image * np.nan, "not finite"),
    ],
)
def test_pairs_that_cannot_be_compared_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        reconstruction.measure(film(), change(film()), None)
    with pytest.raises(DataError, match="smaller than the window"):
        reconstruction.measure(film(), film(), np.array([0, 0, 10, 64]))


# ---------------------------------------------------------------------------------------------
# The command


@pytest.fixture
def folders(tmp_path):
    """Twelve films and their reconstructions, written in another order."""
    rng = np.random.default_rng(0)
    for name in ("original", "decoded"):
        (tmp_path / name).mkdir()
    for number in range(12):
        image = film(number)
        noisy = np.clip(image + 0.02 * rng.normal(size=image.shape), 0, 1)
        for name, pixels in (("original", image), ("decoded", noisy)):
            files.save_png(
                tmp_path / name / f"film{number}.png", (pixels * 65535).astype(np.uint16)
            )
    return tmp_path


def evaluate(folder, *flags):
    evaluate_reconstruction.main(
        [
            "--original",
            str(folder / "original"),
            "--reconstructed",
            str(folder / "decoded"),
            "--latent",
            "8x8x4",
            "--out",
            str(folder / "out"),
            *flags,
        ]
    )


def test_command_writes_figures_with_their_compression_and_no_path(folders, capsys):
    evaluate(folders)
    assert "compression 16" in capsys.readouterr().out
    text = (folders / "out" / "results.json").read_text()
    assert str(folders) not in text
    found = json.loads(text)
    assert found["compression"] == 16
    figures = {figure["name"]: figure for figure in found["figures"]}
    assert all(figure["compression"] == 16 for figure in figures.values())
    assert 30 < figures["PSNR"]["low"] < figures["PSNR"]["value"] < 40
    assert figures["SSIM"]["high"] < 1
    rows = list(csv.DictReader((folders / "out" / "images.csv").open()))
    assert [row["key"] for row in rows][:2] == ["film0.png", "film1.png"]
    mean = np.mean([float(row["psnr"]) for row in rows])
    assert mean == pytest.approx(figures["PSNR"]["value"], rel=1e-4)
    evaluate(folders)  # the same folder again


def test_a_change_of_brightness_counts(folders):
    for number in range(12):
        image = np.full((64, 64), 0.4) + 0.2 * film(number)
        files.save_png(
            folders / "original" / f"film{number}.png", (image * 65535).astype(np.uint16)
        )
        brighter = ((image + 0.1) * 65535).astype(np.uint16)
        files.save_png(folders / "decoded" / f"film{number}.png", brighter)
    evaluate(folders)
    found = json.loads((folders / "out" / "results.json").read_text())
    rows = list(csv.DictReader((folders / "out" / "images.csv").open()))
    assert all(float(row["psnr"]) == pytest.approx(20, abs=0.01) for row in rows)
    assert found["figures"][0]["value"] == pytest.approx(20, abs=0.01)


def test_images_that_equal_their_original_have_no_psnr_and_say_so(folders):
    (folders / "decoded" / "film3.png").write_bytes(
        (folders / "original" / "film3.png").read_bytes()
    )
    evaluate(folders)
    found = json.loads((folders / "out" / "results.json").read_text())
    psnr = next(figure for figure in found["figures"] if figure["name"] == "PSNR")
    assert psnr["value"] is None
    assert "1 of 12 images are the same" in psnr["reason"]


def test_decoder_that_answers_every_image_with_one_is_measured(folders):
    first = (folders / "decoded" / "film0.png").read_bytes()
    for number in range(1, 12):
        (folders / "decoded" / f"film{number}.png").write_bytes(first)
    evaluate(folders)
    found = json.loads((folders / "out" / "results.json").read_text())
    assert found["images"] == 12
    assert found["figures"][0]["value"] < 25


def test_second_command_on_one_folder_is_refused(folders, capsys):
    (folders / "out").mkdir()
    with lock.locked(folders / "out"), pytest.raises(SystemExit) as ended:
        evaluate(folders)
    assert ended.value.code == 78
    assert "another process is writing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("harm", "code", "message"),
    [
        (lambda f: (f / "decoded" / "film3.png").unlink(), 65, "no reconstruction of their key"),
        (lambda f: (f / "out").mkdir() or (f / "out" / "x").touch(), 78, "choose another --out"),
        (
            lambda f: files.save_png(
                f / "decoded" / "film3.png", np.zeros((32, 32), np.uint16) + 7
            ),
            65,
            "film3.png: the original is 64×64",
        ),
    ],
)
def test_command_refuses_in_one_line(folders, capsys, harm, code, message):
    harm(folders)
    with pytest.raises(SystemExit) as ended:
        evaluate(folders)
    assert ended.value.code == code
    error = capsys.readouterr().err
    assert message in error
    assert not (folders / "out" / "results.json").exists()


def test_oracle_is_refused_for_what_is_not_a_phantom(folders, capsys):
    with pytest.raises(SystemExit) as ended:
        evaluate(folders, "--oracle")
    assert ended.value.code == 78
    assert "not a data set of phantoms" in capsys.readouterr().err
