"""Large label images are read from a file as they are needed, and are the same."""

import numpy as np
import pytest
import tifffile

from biounet.core import Grid
from biounet.files import forget, map_labels, mapped_labels, write_labels
from support.label_images import blobs


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch):
    monkeypatch.setattr(mapped_labels, "_LARGE", 1000)


@pytest.mark.parametrize("offset", [0, 70_000])  # 16 and 32 bits
def test_a_mapped_label_image_is_the_same(tmp_path, offset):
    labels = np.tile(blobs(500), (1, 3))
    labels[labels > 0] += offset
    write_labels(tmp_path / "a_labels.tif", labels, Grid(labels.shape), "objects")
    mapped = map_labels(tmp_path / "a_labels.tif")
    assert isinstance(mapped, np.memmap)
    assert [path.name for path in tmp_path.iterdir()] == ["a_labels.tif"]
    np.testing.assert_array_equal(mapped, labels)
    for part in (mapped, mapped.reshape(1, *labels.shape)[0], mapped[3:9]):
        forget(part)
        np.testing.assert_array_equal(mapped, labels)


def test_a_tiled_label_image_is_mapped_too(tmp_path):
    labels = np.tile(blobs(500), (1, 3))[:70, :101]
    tifffile.imwrite(tmp_path / "tiles.tif", labels.astype(np.uint32), tile=(32, 48), compression="zlib")
    np.testing.assert_array_equal(map_labels(tmp_path / "tiles.tif"), labels)


def test_others_are_read_as_before(tmp_path):
    tifffile.imwrite(tmp_path / "small.tif", np.zeros((20, 20), np.uint8))
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((3, 64, 64), np.uint16), photometric="minisblack")
    names = ("small.tif", "stack.tif", "a.nii.gz")
    assert [map_labels(tmp_path / name) for name in names] == [None] * 3
    forget(np.zeros(3))
