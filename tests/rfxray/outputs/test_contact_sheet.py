import json

import numpy as np
import pytest
from PIL import Image

from rfxray.data import pixels
from rfxray.errors import DataError
from rfxray.outputs import contact_sheet, files


def test_uint8_pixels_are_clipped_and_rounded():
    values = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    assert pixels.to_uint8(values).tolist() == [0, 0, 128, 255, 255]


def test_table_keeps_every_cell_in_place():
    cells = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1).repeat(8, 2).repeat(8, 3) * 20 + 10
    sheet = contact_sheet.table(cells, least=8)
    step = 8 + 2
    assert sheet.shape == (2 * step, 3 * step)
    for r in range(2):
        for c in range(3):
            cell = sheet[r * step : r * step + 8, c * step : c * step + 8]
            np.testing.assert_array_equal(cell, cells[r, c])


def test_small_images_are_enlarged_by_whole_pixels():
    cell = np.random.default_rng(0).integers(0, 255, (1, 1, 32, 32)).astype(np.uint8)
    sheet = contact_sheet.table(cell)
    np.testing.assert_array_equal(sheet[:128:4, :128:4], cell[0, 0])
    np.testing.assert_array_equal(sheet[3:128:4, 3:128:4], cell[0, 0])


def test_labels_do_not_overlap_the_images():
    cells = np.zeros((2, 2, 128, 128), np.uint8)
    bare = contact_sheet.table(cells)
    labelled = contact_sheet.table(cells, ["one", "two"], ["PA", "AP"], title="synthetic")
    assert bare.max() == 0
    assert labelled.max() > 100
    left, top = (a - b for a, b in zip(labelled.shape[::-1], bare.shape[::-1], strict=True))
    assert left > 0
    assert top == 40
    # The first of two column labels is above its column; the images stay black.
    assert labelled[20:40, left : left + 128].max() > 100
    for r in range(2):
        for c in range(2):
            y, x = top + r * 130, left + c * 130
            assert labelled[y : y + 128, x : x + 128].max() == 0


def test_labels_are_not_cut_and_do_not_overlap():
    cells = np.zeros((1, 2, 100, 100), np.uint8)
    labels = ["enlarged_cardiomediastinum=absent", "enlarged_cardiomediastinum=present"]
    long = contact_sheet.table(cells, columns=labels, title="synthetic")
    step = long.shape[1] // 2
    assert step > 200
    for k in range(2):  # every label ends before the next column begins
        assert long[20:40, k * step : (k + 1) * step].max() > 100
        assert long[20:40, (k + 1) * step - 4 : (k + 1) * step].max() == 0
    title = contact_sheet.table(cells, title="synthetic: " + ", ".join(labels))
    assert title[:20, -4:].max() == 0
    assert title[:20, -30:].max() > 100


@pytest.mark.parametrize(
    ("n", "columns", "shape"), [(5, 0, (2, 3)), (4, 0, (2, 2)), (3, 1, (3, 1))]
)
def test_grid_is_as_square_as_possible(n, columns, shape):
    sheet = contact_sheet.grid(np.full((n, 16, 16), 9, np.uint8), columns, least=16)
    assert sheet.shape == (shape[0] * 18, shape[1] * 18)
    assert (sheet == 9).sum() == n * 16 * 16


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_keeps_pixels_and_metadata(tmp_path, dtype):
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (7, 9)).astype(dtype)
    path = tmp_path / "a.png"
    files.save_png(path, image, {"Description": "synthetic", "rfxray": {"index": 3}})
    with Image.open(path) as picture:
        np.testing.assert_array_equal(np.asarray(picture), image)
        assert picture.text["Description"] == "synthetic"
        assert json.loads(picture.text["rfxray"]) == {"index": 3}
    assert list(tmp_path.iterdir()) == [path]  # no temporary file is left


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_grey_is_read_from_every_png_mode(tmp_path, mode):
    levels = np.array([[0, 255], [255, 0]], np.uint8)
    path = tmp_path / "mask.png"
    if mode == "P":  # index 0 is white
        picture = Image.fromarray(np.array([[1, 0], [0, 1]], np.uint8), "P")
        picture.putpalette([255, 255, 255, 0, 0, 0])
    elif mode == "I;16":
        picture = Image.fromarray(levels.astype(np.uint16))
    else:
        picture = Image.fromarray(levels).convert(mode)
    picture.save(path)
    np.testing.assert_array_equal(files.read_png(path), levels)


def test_transparent_pixels_are_black_and_colour_is_rejected(tmp_path):
    white = Image.new("RGBA", (2, 1), "white")
    white.putpixel((0, 0), (255, 255, 255, 0))
    white.save(tmp_path / "a.png")
    assert files.read_png(tmp_path / "a.png").tolist() == [[0, 255]]
    Image.new("RGB", (2, 1), "red").save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"b\.png is in colour"):
        files.read_png(tmp_path / "b.png")
