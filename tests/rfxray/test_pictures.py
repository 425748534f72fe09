import json

import numpy as np
import pytest
from PIL import Image

from rfxray import pictures


def test_pixels_are_clipped_and_rounded():
    values = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    assert pictures.to_uint8(values).tolist() == [0, 0, 128, 255, 255]


def test_a_table_keeps_every_cell_in_its_place():
    cells = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1).repeat(8, 2).repeat(8, 3) * 20 + 10
    sheet = pictures.table(cells, least=8)
    step = 8 + 2
    assert sheet.shape == (2 * step, 3 * step)
    for r in range(2):
        for c in range(3):
            cell = sheet[r * step : r * step + 8, c * step : c * step + 8]
            np.testing.assert_array_equal(cell, cells[r, c])


def test_small_pictures_are_enlarged_by_whole_pixels():
    cell = np.random.default_rng(0).integers(0, 255, (1, 1, 32, 32)).astype(np.uint8)
    sheet = pictures.table(cell)
    np.testing.assert_array_equal(sheet[:128:4, :128:4], cell[0, 0])
    np.testing.assert_array_equal(sheet[3:128:4, 3:128:4], cell[0, 0])


def test_labels_take_room_of_their_own():
    cells = np.zeros((2, 2, 128, 128), np.uint8)
    bare = pictures.table(cells)
    labelled = pictures.table(cells, ["one", "two"], ["PA", "AP"], title="synthetic")
    assert bare.max() == 0
    assert labelled.max() > 100
    left, top = (a - b for a, b in zip(labelled.shape[::-1], bare.shape[::-1], strict=True))
    assert left > 0
    assert top == 40
    # The first of two column labels stands above its column, the pictures stay black.
    assert labelled[20:40, left : left + 128].max() > 100
    for r in range(2):
        for c in range(2):
            y, x = top + r * 130, left + c * 130
            assert labelled[y : y + 128, x : x + 128].max() == 0


@pytest.mark.parametrize(
    ("n", "columns", "shape"), [(5, 0, (2, 3)), (4, 0, (2, 2)), (3, 1, (3, 1))]
)
def test_a_grid_is_as_square_as_it_can_be(n, columns, shape):
    sheet = pictures.grid(np.full((n, 16, 16), 9, np.uint8), columns, least=16)
    assert sheet.shape == (shape[0] * 18, shape[1] * 18)
    assert (sheet == 9).sum() == n * 16 * 16


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_png_keeps_its_pixels_and_says_what_it_is(tmp_path, dtype):
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (7, 9)).astype(dtype)
    path = tmp_path / "a.png"
    pictures.save_png(path, image, {"Description": "synthetic", "rfxray": {"index": 3}})
    with Image.open(path) as picture:
        np.testing.assert_array_equal(np.asarray(picture), image)
        assert picture.text["Description"] == "synthetic"
        assert json.loads(picture.text["rfxray"]) == {"index": 3}
    assert list(tmp_path.iterdir()) == [path]  # no temporary file is left
