"""The leak check: it finds what files leave behind, and passes clean studies at its rate."""

import io
import itertools
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from rfxray.errors import DataError
from rfxray.readers import leaks, traces
from tests.rfxray.readers.test_design import SIDE, candidates, film, made


def jpeg(image, quality=30):
    eight = (image >> 8).astype(np.uint8)
    _, coded = cv2.imencode(".jpg", eight, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE).astype(np.uint16) << 8


def resized_jpeg(image):
    larger = cv2.resize(image, None, fx=1.6, fy=1.6, interpolation=cv2.INTER_CUBIC)
    return cv2.resize(jpeg(larger, 20), image.shape, interpolation=cv2.INTER_AREA)


def coarse(image):
    return (image >> 10) << 10


def bordered(image):
    image = image.copy()
    image[:3] = 0
    return image


def written(image):
    image = image.copy()
    for k in range(6):
        image[4:8, 5 + 5 * k : 6 + 5 * k] = 65535
    return image


@pytest.mark.parametrize("leaky", ["real", "synthetic"])
@pytest.mark.parametrize(
    ("plant", "feature"),
    [
        (jpeg, "JPEG blocks"),
        (resized_jpeg, "JPEG blocks"),
        (coarse, "grey levels"),
        (bordered, "border"),
        (written, "burned-in text"),
    ],
)
def test_planted_leak_blocks_the_study(plant, feature, leaky):
    with pytest.raises(DataError, match=f"leak what is synthetic: .*{feature}"):
        made(**{leaky: candidates(leaky, 40, plant)})


def test_text_that_differs_by_stratum_only_blocks():
    """Text in the AP films of one side and in the PA films of the other: as often on both."""
    images = [leaks.shown(film(n, SIDE)) for n in range(40)]
    truth, view = np.arange(40) % 2 == 1, np.arange(40) // 2 % 2
    for n in np.flatnonzero(truth == view):
        images[n] = leaks.shown(written(film(n, SIDE)))
    found = leaks.check(images, encoded(images), truth, view.astype(str))
    assert [leak.feature for leak in found if leak.blocks()] == ["burned-in text by stratum"]
    assert found[[leak.feature for leak in found].index("burned-in text")].auc == 0.5


def test_matched_text_passes_where_shares_differ():
    """Half of the real and a tenth of the synthetic films have text: shares of the cases agree."""
    real = candidates("real", 20, written) + candidates("real+", 20)
    synthetic = candidates("synthetic", 36) + candidates("synthetic+", 4, written)
    match = ("view", "burned_in_text")
    study = made(real=real, synthetic=synthetic, match=match, training=0)
    assert not any(leak.blocks() for leak in study.leaks)


def patched(image):
    """The joints of a model's patches, 8 pixels."""
    image = image.astype(int)
    image[::8] += 3000
    image[:, ::8] += 3000
    return image.clip(0, 65535).astype(np.uint16)


def test_grid_of_the_model_is_content_only_if_it_is_declared():
    synthetic = candidates("synthetic", 40, patched)
    with pytest.raises(DataError, match="own patches: --model-grid"):
        made(synthetic=synthetic)
    assert made(synthetic=synthetic, model_grid=8).leaks
    with pytest.raises(DataError, match="JPEG blocks or resize"):  # another grid is not excused
        made(synthetic=synthetic, real=candidates("real", 40, resized_jpeg), model_grid=8)


def encoded(images):
    return leaks.encode({f"{n:03}": image for n, image in enumerate(images)})


def chunk(png, kind, data):
    body = kind + data
    return (
        png[:-12]
        + struct.pack(">I", len(data))
        + body
        + struct.pack(">I", zlib.crc32(body))
        + png[-12:]
    )


def deeper(image):
    buffer = io.BytesIO()
    Image.fromarray(image.astype(np.uint16) << 8).save(buffer, "PNG")
    return buffer.getvalue()


def smaller(image):
    buffer = io.BytesIO()
    Image.fromarray(image[:-1]).save(buffer, "PNG")
    return buffer.getvalue()


FILES = {
    "bytes": lambda image, png: leaks._padded(png, 50),
    "metadata": lambda image, png: chunk(png, b"tEXt", b"Software\0rfxray"),
    "metadata, EXIF": lambda image, png: chunk(png, b"eXIf", b"MM\0*"),
    "metadata, profile": lambda image, png: chunk(png, b"iCCP", b"grey\0\0"),
    "bit depth": lambda image, png: deeper(image),
    "height": lambda image, png: smaller(image),
}


@pytest.mark.parametrize("what", FILES)
def test_planted_leak_of_a_file_blocks(what):
    images = [leaks.shown(film(n, SIDE)) for n in range(24)]
    truth = np.arange(24) % 2 == 1
    files = encoded(images)
    assert len({len(data) for data in files.values()}) == 1
    for (name, data), image, leaky in zip(list(files.items()), images, truth, strict=True):
        files[name] = FILES[what](image, data) if leaky else data
    found = leaks.check(images, files, truth, ["a"] * 24)
    assert what.partition(",")[0] in [leak.feature for leak in found if leak.blocks()]


def test_planted_order_of_files_blocks():
    images = [leaks.shown(film(n, SIDE)) for n in range(24)]
    truth = np.arange(24) >= 12
    found = leaks.check(images, encoded(images), truth, ["a"] * 24)
    assert [leak.feature for leak in found if leak.blocks()] == ["order of files"]


def test_what_files_say_of_themselves_does_not_reach_the_page(tmp_path):
    """Text, EXIF and a colour profile of the given files; and 8 bits of one set."""
    from rfxray.readers.candidates import find

    for n in range(4):
        info = PngImagePlugin.PngInfo()
        info.add_text("Software", "secret-maker")
        image = Image.fromarray((film(n, SIDE) >> 8).astype(np.uint8))
        exif = Image.Exif()
        exif[0x0131] = "secret-maker"
        image.save(tmp_path / f"{n}.png", pnginfo=info, exif=exif, icc_profile=b"secret-maker")
    (tmp_path / "t.csv").write_text("image\n" + "".join(f"{n}.png\n" for n in range(4)))
    found = find(tmp_path, tmp_path / "t.csv", ())
    files = encoded([leaks.shown(each.pixels(SIDE)) for each in found])
    assert len(files) == 4
    for data in files.values():
        assert b"secret" not in data
        assert leaks._metadata(data) == 0


def test_content_that_differs_is_reported_and_does_not_block():
    def soft(image):
        return cv2.GaussianBlur(image, (0, 0), 1.5)

    study = made(synthetic=candidates("synthetic", 40, soft))
    areas = {leak.feature: leak.auc for leak in study.leaks if leak.p is None}
    assert areas["spectrum"] == 1
    assert areas["fine detail"] == 0
    assert not any(leak.blocks() for leak in study.leaks)


def test_clean_studies_pass_at_the_stated_rate():
    """Exchanges of truth over features as they are: 5% is tested, which 300 studies can show."""
    rng = np.random.default_rng(0)
    images = [leaks.shown(film(n, 32)) for n in range(40)]
    grids = np.array([list(traces.grids(image).values()) for image in images])
    values = np.array([[traces.grey_levels(image), traces.border(image)] for image in images])
    texts = (np.arange(40) % 5 == 0).astype(float)
    stratum = np.arange(40) % 2
    least = []
    for _ in range(300):
        truth = np.zeros(40, bool)
        for each in (0, 1):
            truth[rng.permutation(np.flatnonzero(stratum == each))[:10]] = True
        p, _ = leaks.adjusted(values, grids, texts, truth, stratum, exchanges=499)
        least.append(min(p))
    assert 0.02 <= np.mean(np.array(least) <= 0.05) <= 0.09


def test_p_of_a_study_is_that_of_all_its_exchanges():
    """Six images: all 20 exchanges by hand against the drawn ones."""
    values = np.array([[3.0], [1], [4], [1.5], [9], [2.6]])
    truth = np.array([True, False, True, False, True, False])
    grids, texts, stratum = np.zeros((6, 1)), np.zeros(6), np.zeros(6, int)
    ranks = np.argsort(np.argsort(values[:, 0])) + 1
    sums = [abs(sum(ranks[list(each)]) - 10.5) for each in itertools.combinations(range(6), 3)]
    exact = np.mean(np.array(sums) >= abs(ranks[truth].sum() - 10.5))
    (p, *others), _ = leaks.adjusted(values, grids, texts, truth, stratum)
    assert p == pytest.approx(exact, abs=0.02)
    assert others == [1.0, 1.0]
