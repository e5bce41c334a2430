"""The picture of an image that is reduced region by region is that of the image in memory."""

from threading import Event

import numpy as np
import pytest
import zarr

from biounet.core import ArrayImage, Grid, Volume
from biounet.files import ReadOptions, StoreOptions, open_label_store, open_lazy, write_label_store
from biounet.reporting import large_pictures, overlays
from biounet.reporting.large_pictures import compose_large
from biounet.reporting.overlays import prepare_canvas
from biounet.reporting.volume_overlays import _View, compose_volume
from support.images import discs


def stored(folder, labels, edge):
    grid = Grid(labels.shape)
    write_label_store(folder / "labels.ome.zarr", labels, grid, StoreOptions((edge,) * labels.ndim))
    return open_label_store(folder / "labels.ome.zarr")


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    monkeypatch.setattr(overlays, "MAX_SIDE", 40)
    monkeypatch.setattr(large_pictures, "MAX_SIDE", 40)
    monkeypatch.setattr(large_pictures, "_REGION", 600)
    monkeypatch.setattr(large_pictures, "_ENOUGH", 300)


@pytest.mark.parametrize(
    ("dtype", "channels"), [("u1", 3), ("u1", 1), ("u2", 2), ("i4", 1), ("f4", 1), ("f8", 3), ("i8", 1)]
)
def test_a_picture_is_that_of_memory(dtype, channels, tmp_path):
    image, labels = discs((101, 87), 12, 3)
    array = np.stack([image // (number + 1) for number in range(channels)]).astype(dtype)
    canvas = compose_large(ArrayImage.of(Volume(array, Grid(image.shape))), stored(tmp_path, labels, 32), Event())
    expected = prepare_canvas(array, labels)
    assert max(canvas.labels.shape) <= 40
    assert np.array_equal(canvas.labels, expected.labels)
    assert np.array_equal(canvas.picture, expected.picture)
    assert canvas.bright == expected.bright


@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "f4", "f8"])
def test_what_a_file_does_not_store_is_drawn_without_filling_it(dtype, tmp_path, monkeypatch):
    image, labels = discs((101, 87), 12, 3)
    array = zarr.create_array(tmp_path / "a.zarr", shape=image.shape, chunks=(12, 12), dtype=dtype, fill_value=7)
    array[:30, :40] = image[:30, :40]
    labels[30:] = labels[:, 40:] = 0
    sizes = []
    reduce = large_pictures.reduce_channels
    spy = lambda channels, *more: sizes.append(channels[0].size) or reduce(channels, *more)  # noqa: E731
    monkeypatch.setattr(large_pictures, "reduce_channels", spy)
    lazy = open_lazy((tmp_path / "a.zarr",), ReadOptions(dims=2))
    canvas = compose_large(lazy, stored(tmp_path, labels, 32), Event())
    expected = prepare_canvas(array[:][None], labels)
    assert np.array_equal(canvas.picture, expected.picture)
    assert sum(sizes) < image.size * 0.7
    assert sizes.count(9) > 5  # one square of 3 x 3 in place of a region


@pytest.mark.parametrize(("most", "factors"), [(10**6, (1, 1, 1)), (10**5, (2, 2, 2)), (10**4, (8, 2, 2))])
def test_a_volume_is_drawn_at_a_level_with_the_numbers_of_its_own_slices(most, factors, tmp_path, monkeypatch):
    monkeypatch.setattr(large_pictures, "_VOLUME", most)
    labels = np.zeros((24, 40, 300), np.int32)
    labels[8:16, 16:32, 96:128] = 1
    array = np.where(labels > 0, 200, 10).astype(np.uint8)[None]
    said = []

    def compose(*arguments, **keywords):
        said.append((*arguments, keywords["factors"]))
        return compose_volume(*arguments, **keywords)

    monkeypatch.setattr(large_pictures, "compose_volume", compose)
    image = ArrayImage.of(Volume(array, Grid(labels.shape, (1.0, 1.0, 1.0), "um")))
    canvas = compose_large(image, stored(tmp_path, labels, 32), Event())
    [(small, small_labels, grid, used)] = said
    assert used == grid.spacing == factors
    assert small.shape[1:] == small_labels.shape == grid.shape
    assert np.array_equal(small[0], np.where(small_labels > 0, 200, 10))
    assert (canvas.labels > 0).any()
    view = _View(small[0], small_labels, grid.steps, oriented=False, factors=factors)
    assert view.name(1, 5) == f"xz  y = {5 * factors[1]}"


@pytest.mark.parametrize(("every", "planes"), [(1, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]), (3, [1, 4, 7, 9]), (40, [9])])
def test_planes_of_labels_are_the_middle_ones(every, planes, tmp_path):
    labels = np.arange(1, 11, dtype=np.int32)[:, None, None] * np.ones((1, 6, 6), np.int32)
    store = stored(tmp_path, labels, 4)
    assert store.levels[0].chunk[0] < 10  # a plane of each of several chunks
    picked = large_pictures._middle_planes(store, 0, every, Event())
    assert np.array_equal(picked, labels[planes])
