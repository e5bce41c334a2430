"""``biounet segment --measure``: further channels per cell, in files as microscopes write them."""

import csv

import numpy as np
import pytest
import tifffile
from skimage.measure import regionprops_table

from support.images import discs


@pytest.fixture
def stack(tmp_path):
    """Three channels of one field, as an OME-TIFF and as an ImageJ hyperstack."""
    image, labels = discs((200, 220), 20, 3)
    rng = np.random.default_rng(0)
    gfp, rfp = (rng.poisson(200 + factor * (labels > 0)).astype(np.uint16) for factor in (400, 30))
    array = np.stack([image.astype(np.uint16), gfp, rfp])
    names, size = ["DAPI", "GFP", "RFP"], {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    metadata = {"axes": "CYX", "Channel": {"Name": names}, **size, "PhysicalSizeXUnit": "um", "PhysicalSizeYUnit": "um"}
    tifffile.imwrite(tmp_path / "ome.ome.tif", array, metadata=metadata, ome=True)
    metadata = {"axes": "CYX", "unit": "um", "Labels": names}
    tifffile.imwrite(tmp_path / "hyperstack.tif", array, imagej=True, resolution=(2.0, 2.0), metadata=metadata)
    return dict(zip(names, array, strict=True))


def test_each_channel_is_measured_in_each_cell_as_scikit_image_does(biounet, stack, tmp_path):
    files = ("ome.ome.tif", "hyperstack.tif")
    code, _, _ = biounet("segment", *files, "--channel", "DAPI", "--measure", "all", "-o", "out", "--no-overlay", "-q")
    assert code == 0
    for name in ("ome", "hyperstack"):
        labels = tifffile.imread(tmp_path / "out" / f"{name}_labels.tif")
        with (tmp_path / "out" / f"{name}_objects.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == labels.max() > 10
        for channel, image in stack.items():
            wanted = ("intensity_mean", "intensity_max", "intensity_std")
            theirs = regionprops_table(labels, image, properties=wanted)
            theirs["intensity_sd"] = theirs.pop("intensity_std")
            theirs["intensity_sum"] = np.array([image[labels == k + 1].sum() for k in range(len(rows))])
            theirs["background"] = np.full(len(rows), np.median(image[labels == 0]))
            for column, values in theirs.items():
                ours = [float(row[f"{column}_{channel}"]) for row in rows]
                assert ours == pytest.approx(values, rel=1e-6), (name, channel, column)


def test_another_ring_is_another_setting_of_the_results(biounet, stack):
    arguments = (
        "segment",
        "hyperstack.tif",
        "--channel",
        "DAPI",
        "--measure",
        "GFP",
        "-o",
        "out",
        "--no-overlay",
        "-q",
    )
    assert biounet(*arguments, "--ring", "0,2px")[0] == 0
    code, _, err = biounet(*arguments, "--ring", "0.5,2um")
    assert code == 2
    assert "holds results of other settings (ring 0,2px, now 0.5,2um)" in err
    assert biounet("verify", "out", "-q")[0] == 0


def test_a_ring_in_um_needs_the_pixel_size(biounet, tmp_path):
    tifffile.imwrite(tmp_path / "bare.tif", np.stack([discs((90, 90), 9, 1)[0].astype(np.uint16)] * 2))
    arguments = ("--axes", "CYX", "--channel", "0", "--measure", "all", "--ring", "0.5,2um", "-o", "out", "-q")
    code, _, err = biounet("segment", "bare.tif", *arguments)
    assert code == 4
    assert err.startswith("ERROR bare.tif: a ring in µm, but the pixel size is unknown (hint: give the pixel size with")
    assert len(err.splitlines()) == 1
