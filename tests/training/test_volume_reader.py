"""Files through MONAI's own pipelines: the array, its geometry and its channels are those of the file."""

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from monai.data import MetaTensor, NibabelReader
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd, Spacingd

import biounet
from biounet.core import InputError, Recipe
from biounet.files import find_pairs
from biounet.training import load_cases

STACK = biounet.ReadOptions(dims=3)
SHAPE = (7, 6, 5)  # x, y, z
TURN = np.array([[0.8, -0.36, 0.48], [0.6, 0.48, -0.64], [0, 0.8, 0.6]])


def affine(directions, lengths, origin=(-30, 12, 5)):
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(directions) * lengths
    matrix[:3, 3] = origin
    return matrix


AFFINES = {
    "straight": affine(np.eye(3), (1.0, 1.0, 2.0)),
    "oblique": affine(TURN, (0.5, 0.7, 1.5)),
    "axes permuted": affine(np.eye(3)[:, [2, 0, 1]], (0.5, 0.7, 1.5)),
    "axes flipped": affine(np.diag([-1, -1, 1]), (0.5, 0.7, 1.5)),
}


@pytest.fixture
def voxels():
    return np.random.default_rng(0).uniform(0, 1000, SHAPE).astype(np.float32)


def write_nifti(path, array, matrix):
    nib.save(nib.Nifti1Image(array, matrix), path)
    return path


def write_tiff(path, array, spacing=None):
    """An ImageJ TIFF with axes ``[zc]yx`` and pixels of these lengths in µm, z first."""
    metadata = {"axes": {2: "YX", 3: "ZYX", 4: "ZCYX"}[array.ndim]}
    if spacing is None:
        tifffile.imwrite(path, array, imagej=True, metadata=metadata)
    else:
        metadata |= {"unit": "um"} | ({"spacing": spacing[0]} if len(spacing) == 3 else {})
        resolution = (1 / spacing[-1], 1 / spacing[-2])
        tifffile.imwrite(path, array, imagej=True, metadata=metadata, resolution=resolution)
    return path


def loaded(path, *transforms, options=STACK, reader=None, **settings):
    reader = reader or biounet.VolumeReader(options, **settings)
    image = Compose(transforms)(LoadImaged("image", reader=reader)({"image": path}))["image"]
    assert isinstance(image, MetaTensor)
    return image


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize(
    "transforms",
    [
        [],
        [Spacingd("image", pixdim=(1.0, 0.9, 0.8))],
        [Orientationd("image", axcodes="RAS", labels=None)],
        [Orientationd("image", axcodes="PSR", labels=None), Spacingd("image", pixdim=(1.0, 0.9, 0.8))],
    ],
    ids=["loaded", "spacing", "orientation", "both"],
)
def test_a_nifti_is_that_of_the_reader_of_monai(name, transforms, voxels, tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", voxels, AFFINES[name])
    chain = [EnsureChannelFirstd("image"), *transforms]
    ours, theirs = loaded(path, *chain), loaded(path, *chain, reader=NibabelReader())
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours.affine, theirs.affine, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.as_tensor(), theirs.as_tensor(), rtol=1e-5, atol=1e-2)


def test_metadata_of_a_nifti(voxels, tmp_path):
    image = loaded(write_nifti(tmp_path / "a.nii", voxels, AFFINES["oblique"]))
    assert image.shape == (1, *SHAPE)
    assert image.meta["original_channel_dim"] == 0
    assert image.meta["spatial_shape"].tolist() == list(SHAPE)
    np.testing.assert_allclose(image.meta["spacing"], (0.5, 0.7, 1.5), rtol=1e-6)
    np.testing.assert_allclose(image.pixdim, (0.5, 0.7, 1.5), rtol=1e-6)
    assert (image.meta["unit"], image.meta["space"]) == ("mm", "RAS")


def test_one_volume_in_any_storage_order_is_one_volume_in_one_orientation(voxels, tmp_path):
    matrix = AFFINES["oblique"]
    image = nib.Nifti1Image(voxels, matrix)
    turned = image.as_reoriented(nib.orientations.axcodes2ornt("SPL", labels=(("L", "R"), ("P", "A"), ("I", "S"))))
    nib.save(turned, tmp_path / "b.nii.gz")
    chain = [Orientationd("image", axcodes="RAS", labels=None)]
    one = loaded(write_nifti(tmp_path / "a.nii.gz", voxels, matrix), *chain)
    other = loaded(tmp_path / "b.nii.gz", *chain)
    assert torch.equal(one.as_tensor(), other.as_tensor())
    torch.testing.assert_close(one.affine, other.affine, rtol=0, atol=1e-5)


def test_lengths_of_a_nifti_in_um_are_in_mm(voxels, tmp_path):
    image = nib.Nifti1Image(voxels, affine(np.eye(3), (250, 250, 500)))
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(loaded(tmp_path / "a.nii").pixdim, (0.25, 0.25, 0.5))


def test_a_calibrated_stack_has_a_diagonal_affine_and_is_resampled_by_it(tmp_path):
    array = np.arange(4 * 6 * 10, dtype=np.uint16).reshape(4, 6, 10)
    path = write_tiff(tmp_path / "a.tif", array, spacing=(2.0, 0.5, 0.25))
    image = loaded(path, EnsureChannelFirstd("image"))
    assert torch.equal(image.as_tensor(), torch.from_numpy(array.T[None].astype(np.float32)))
    np.testing.assert_allclose(image.affine, np.diag([0.25, 0.5, 2, 1]))
    assert image.meta["unit"] == "um"
    assert "space" not in image.meta
    even = loaded(path, EnsureChannelFirstd("image"), Spacingd("image", pixdim=(0.5, 0.5, 1.0)))
    assert even.shape == (1, 6, 6, 7)  # the centres of the outermost voxels span 2.25 x 2.5 x 6 µm
    np.testing.assert_allclose(even.pixdim, (0.5, 0.5, 1.0))
    assert torch.equal(even[0, 0, :, ::2].as_tensor(), image[0, 0].as_tensor())
    assert loaded(path, Orientationd("image", axcodes="RAS", labels=None)).shape == image.shape


def test_a_calibrated_image_in_2d(tmp_path):
    array = np.arange(54, dtype=np.uint16).reshape(6, 9)
    image = loaded(write_tiff(tmp_path / "a.tif", array, spacing=(0.5, 0.25)), options=None)
    assert image.shape == (1, 9, 6)
    np.testing.assert_allclose(image.pixdim[:2], (0.25, 0.5))
    assert Spacingd("image", pixdim=(0.5, 0.5))({"image": image})["image"].shape == (1, 5, 6)


def test_channels_of_one_file_and_of_several(voxels, tmp_path):
    array = np.arange(3 * 2 * 6 * 8, dtype=np.uint16).reshape(3, 2, 6, 8)
    image = loaded(write_tiff(tmp_path / "a.tif", array, spacing=(2.0, 0.5, 0.5)))
    assert torch.equal(image.as_tensor(), torch.from_numpy(array.transpose(1, 3, 2, 0).astype(np.float32)))
    one = biounet.ReadOptions(dims=3, channel=1)
    assert torch.equal(loaded(tmp_path / "a.tif", options=one)[0], image[1])
    matrix = AFFINES["axes permuted"]
    paths = [write_nifti(tmp_path / f"{n}.nii.gz", voxels + n, matrix) for n in range(2)]
    both = loaded(paths, EnsureChannelFirstd("image"))
    assert both.shape == (2, *SHAPE)
    np.testing.assert_allclose(both.affine, matrix, atol=1e-6)
    assert torch.equal(both[1].as_tensor(), torch.from_numpy(voxels + 1))


def test_channels_on_different_grids_are_an_error(voxels, tmp_path):
    paths = [write_nifti(tmp_path / f"{name}.nii", voxels, AFFINES[name]) for name in ("straight", "oblique")]
    with pytest.raises(InputError, match="not on the grid of"):
        loaded(paths)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_pixel_size_is_never_made_up(dims, tmp_path):
    array = np.arange(240, dtype=np.uint8).reshape(5, 6, 8)
    path = write_tiff(tmp_path / "a.tif", array if dims == 3 else array[0])
    options = biounet.ReadOptions(dims=dims)
    with pytest.raises(InputError, match=r"pixel size unknown.*uncalibrated=True"):
        loaded(path, options=options)
    image = loaded(path, options=options, uncalibrated=True)
    assert image.meta["unit"] == "voxel"
    assert "spacing" not in image.meta
    assert torch.equal(image.affine, torch.eye(4, dtype=torch.float64))
    stated = biounet.ReadOptions(dims=dims, spacing=(2.0, 0.5, 0.25)[-dims:])
    np.testing.assert_allclose(loaded(path, options=stated).pixdim[:dims], (0.25, 0.5, 2.0)[:dims])


def test_a_damaged_file_is_not_left_to_the_readers_of_monai(voxels, tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", voxels, AFFINES["straight"])
    data = path.read_bytes()
    path.write_bytes(data[:-8] + bytes(4) + data[-4:])  # a wrong checksum, which nibabel does not read
    assert loaded(path, reader=NibabelReader()).shape == SHAPE
    with pytest.raises(InputError, match="damaged"):
        loaded(path)


def test_training_data_is_read_by_it(cell_folder, monkeypatch):
    calls, load = [], biounet.VolumeReader.load

    def watched(self, files):
        calls.append(list(files))
        return load(self, files)

    monkeypatch.setattr(biounet.VolumeReader, "load", watched)
    pairs = find_pairs(cell_folder / "images", cell_folder / "labels")[:1]
    assert len(list(load_cases(pairs, Recipe()))) == 1
    assert calls == [list(pairs[0].files())]
