"""Ellipsoids of known volume, diameter and number, from a NIfTI file to label image and table."""

import math

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from biounet.api import Result
from biounet.core.recipe import parse_recipe
from biounet.files import ReadOptions, read_labels, read_volume
from biounet.network import Card, Predictor, output_channels
from biounet.segmentation import SegmentOptions, segment

RECIPE = parse_recipe({"data": {"dims": 3, "kind": "classes", "classes": ["lesion"], "regions": {"lesion": [1]}}})
HALF_AXES = ((15.0, 10.0, 12.0), (12.0, 12.0, 12.0), (10.0, 13.5, 11.0), (11.0, 10.0, 10.0))
CENTRES = ((-24.2, -20.1, -15.3), (23.1, -19.4, 16.2), (-21.7, 22.6, 15.1), (20.3, 20.8, -18.4))  # mm, from the middle


class Bright(torch.nn.Module):
    """A network whose foreground is what is bright, with the stride and receptive radius of a real one."""

    stride, receptive_radius, shuffle_factors, dims = (4, 8, 8), (5, 11, 11), (1, 1, 1), 3

    def shuffled_logits(self, image, keep=None):
        return 40 * (image[(..., *(keep or ()))] - 0.5)


def scan(spacing, angles, flips):
    """Return voxels (x, y, z) and affine of a scan of all ellipsoids, each turned its own way."""
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    shape = np.ceil(np.array([94, 94, 74]) / spacing).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = turn * np.array(spacing) * np.array(flips)
    affine[:3, 3] = np.array([12.0, -31.0, 48.0]) - affine[:3, :3] @ ((shape - 1) / 2)
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    places = (voxels @ affine[:3, :3].T + affine[:3, 3] - [12.0, -31.0, 48.0]) @ turn  # mm along the scanner's own axes
    image = np.full(shape, 100, np.int16)
    for number, (centre, half_axes) in enumerate(zip(CENTRES, HALF_AXES, strict=True)):
        own = Rotation.from_euler("zyx", [25 * number, 10 * number, 5], degrees=True).as_matrix()
        image[(((places - centre) @ own / half_axes) ** 2).sum(-1) <= 1] = 1000
    return image, affine


@pytest.mark.parametrize(
    ("spacing", "angles", "flips"),
    [
        ((1, 1, 1), (0, 0, 0), (1, 1, 1)),
        ((0.8, 0.9, 2.4), (20, -15, 10), (-1, 1, 1)),
        ((2, 1, 1), (5, 30, -70), (1, -1, -1)),
    ],
    ids=["plain", "oblique, thick slices", "sagittal, flipped"],
)
def test_ellipsoids_from_file_to_table(tmp_path, spacing, angles, flips):
    image, affine = scan(spacing, angles, flips)
    source = nib.Nifti1Image(image, affine)
    source.set_qform(affine, 1)
    nib.save(source, tmp_path / "scan.nii.gz")

    volume = read_volume(tmp_path / "scan.nii.gz", ReadOptions(dims=3))
    predictor = Predictor(Bright(), torch.device("cpu"), torch.float32, softmax=False)
    card = Card(recipe=RECIPE, inputs=("intensity",), outputs=output_channels(RECIPE))
    found = Result(**vars(segment(volume, predictor, card)))
    *_, label_file = found.save(tmp_path, "scan")

    assert found.count == len(CENTRES)
    lesions = found.table[found.table["lesion"] > 0]
    true = sorted(4 / 3 * math.pi * np.prod(HALF_AXES, axis=1), reverse=True)
    np.testing.assert_allclose(lesions["volume_mm3"], true, rtol=0.02)
    longest = [2 * max(half) for half in sorted(HALF_AXES, key=np.prod, reverse=True)]
    np.testing.assert_allclose(lesions["longest_diameter_3d_mm"], longest, atol=max(spacing))

    written = nib.load(label_file)
    assert np.array_equal(written.affine, nib.load(tmp_path / "scan.nii.gz").affine)
    assert np.array_equal(np.asarray(written.dataobj) > 0, image == 1000)
    for block in (64, 17, 40):
        tiled = segment(volume, predictor, card, SegmentOptions(block=block))
        assert np.array_equal(tiled.labels, read_labels(label_file))
        for name, values in found.columns.items():
            np.testing.assert_array_equal(values, tiled.columns[name], name)
