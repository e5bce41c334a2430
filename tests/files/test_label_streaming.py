"""One file of labels that are not in memory: the same as of labels that are."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from biounet.core import Grid, InputError, MachineError, canonical_grid, canonical_transform
from biounet.files import (
    ReadOptions,
    StoreOptions,
    create_label_store,
    read_label_kind,
    read_labels,
    read_volume,
    stream_labels,
    write,
    write_labels,
    write_shard,
)
from biounet.files.label_store import streaming


def store_of(path, labels, grid, shard):
    store = create_label_store(path, grid, StoreOptions(shard))
    for region in store.levels[0].regions():
        write_shard(store, region, labels[region])
    return store


def squares(shape, largest):
    """Squares of labels up to a largest one, with background between them and a corner without any."""
    labels = np.zeros(shape, np.int32)
    places = list(np.ndindex(*(-(-length // 20) for length in shape)))
    for number, place in enumerate(places[len(places) // 4 :]):
        labels[tuple(slice(20 * at + 3, 20 * at + 17) for at in place)] = largest - number
    return np.maximum(labels, 0)


@pytest.mark.parametrize("largest", [900, 70_000])
@pytest.mark.parametrize(
    ("shape", "shard"), [((150, 1000), (64, 128)), ((1000, 150), (333, 77)), ((30, 90, 110), (16, 32, 64))]
)
@pytest.mark.parametrize("tiled", [False, True])
def test_a_tiff_has_the_bytes_of_one_from_memory(tmp_path, monkeypatch, largest, shape, shard, tiled):
    if tiled:
        monkeypatch.setattr(write, "_MAX_IMAGEJ", 1000)
        monkeypatch.setattr(write, "_TILED_FROM", 100)
        monkeypatch.setattr(write, "_TILE", (32, 48))
    monkeypatch.setattr(write, "_STRIP", 5000)
    labels, grid = squares(shape, largest), Grid(shape, (2.0, 0.5, 0.5)[-len(shape) :], "um")
    store = store_of(tmp_path / "store", labels, grid, shard)
    write_labels(tmp_path / "a.tif", labels, grid, "objects")
    stream_labels(tmp_path / "b.tif", store, grid, int(labels.max()), "objects")
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    assert np.array_equal(read_labels(tmp_path / "b.tif"), labels)
    assert read_label_kind(tmp_path / "b.tif") == "objects"
    assert read_volume(tmp_path / "b.tif", ReadOptions(dims=len(shape))).grid.spacing == grid.spacing


@pytest.fixture
def oblique(tmp_path):
    """A volume that is stored in another order than the canonical one."""
    affine = np.array([[0, 0, 2.0, -5], [-0.5, 0, 0, 30], [0, -0.7, 0, 40], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(np.zeros((21, 34, 15), np.int16), affine), tmp_path / "a.nii")
    return read_volume(tmp_path / "a.nii", ReadOptions(dims=3)).grid


@pytest.mark.parametrize("largest", [90, 40_000, 70_000])
@pytest.mark.parametrize("canonical", [False, True])
def test_a_nifti_has_the_voxels_and_header_of_one_from_memory(tmp_path, monkeypatch, oblique, largest, canonical):
    monkeypatch.setattr(streaming, "_REGION", 300)
    monkeypatch.setattr(streaming, "_COPIED", 1000)
    labels = squares(oblique.shape, largest)
    transform, grid = canonical_transform(oblique), canonical_grid(oblique) if canonical else oblique
    assert transform.changes
    stored = np.ascontiguousarray(transform.apply(labels)) if canonical else labels
    store = store_of(tmp_path / "store", stored, grid, (8, 16, 12))
    for name in ("b.nii", "b.nii.gz"):
        write_labels(tmp_path / "a.nii", labels, oblique, "objects")
        stream_labels(tmp_path / name, store, oblique, int(labels.max()), "objects")
        content = (tmp_path / name).read_bytes()
        assert (gzip.decompress(content) if name.endswith("gz") else content) == (tmp_path / "a.nii").read_bytes()
    assert np.array_equal(read_labels(tmp_path / "b.nii.gz"), labels)


def test_errors_leave_no_file(tmp_path, oblique):
    grid = Grid((100, 100))
    labels = squares((100, 100), 9)
    store = store_of(tmp_path / "store", labels, grid, (50, 50))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="no NIfTI header"):
        stream_labels(tmp_path / "b.nii", store, grid, 9)
    with pytest.raises(InputError, match="not a label image on grid"):
        stream_labels(tmp_path / "b.tif", store, Grid((100, 101)), 9)
    with pytest.raises(MachineError, match="make the folder first"):
        stream_labels(tmp_path / "no" / "b.tif", store, grid, 9)
    shard = tmp_path / "store" / "0" / "c" / "1" / "1"
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(InputError, match="shard 0/c/1/1 is damaged"):
        stream_labels(tmp_path / "b.tif", store, grid, 9)
    assert sorted(tmp_path.iterdir()) == before
