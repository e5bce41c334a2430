"""Segmenting one image: the source grid comes back, tiling is invisible, what does not fit is refused."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import regionprops_table

from biounet.api import Segmenter, load, volume_from_array
from biounet.core import Grid, InputError, MachineError, ModelError, Volume
from biounet.segmentation import SegmentOptions
from support.images import discs


def test_cells_are_counted_labelled_and_measured(segmenter):
    image, truth = discs((160, 200), 30, 77)
    found = segmenter.segment(image, spacing=(0.5, 0.5))
    assert abs(found.count - truth.max()) <= 2
    assert found.labels.shape == image.shape
    assert sorted(np.unique(found.labels)) == list(range(found.count + 1))
    assert len(found.table) == found.count
    assert found.table["area_um2"].sum() == pytest.approx((found.labels > 0).sum() * 0.25)
    assert found.table["confidence"].between(0, 1).all()


def test_what_was_not_acquired_is_outside_the_counting_frame(segmenter):
    image, _ = discs((96, 128), 12, 40)
    inside = segmenter.segment(image, spacing=0.5)
    wide = segmenter.segment(np.pad(image, ((0, 40), (64, 0))), spacing=0.5)
    assert inside.figures["area_mm2"] == pytest.approx(95 * 127 * 0.25e-6)
    assert wide.figures["area_mm2"] == inside.figures["area_mm2"]
    assert wide.figures["count_in_frame"] == pytest.approx(inside.figures["count_in_frame"], abs=1)
    assert wide.columns["border_weight"].max() > 1
    torn = np.pad(image, ((0, 40), (64, 0)))
    torn[:40, :120] = 0  # what is left is an L
    found = segmenter.segment(torn, spacing=0.5)
    assert (found.figures["count_in_frame"], found.figures["density_per_mm2"]) == (None, None)
    assert any("no counting frame" in note for note in found.notes)


def test_without_objects_at_the_border_nothing_is_said_of_density(segmenter):
    image, _ = discs((96, 128), 12, 40)
    found = segmenter.segment(image, spacing=0.5, options=SegmentOptions(exclude_border=True))
    assert (found.figures["count_in_frame"], found.figures["density_per_mm2"]) == (None, None)


def test_further_channels_are_measured_in_each_cell_around_it_and_outside(segmenter):
    image, _ = discs((96, 96), 12, 40)
    gfp = np.random.default_rng(0).integers(0, 4000, image.shape).astype(np.uint16)
    volume = Volume(image[None], Grid(image.shape), measured={"GFP": gfp})
    found = segmenter.segment(volume)
    cells = regionprops_table(found.labels, gfp, properties=["intensity_mean", "intensity_max", "intensity_std"])
    assert found.count > 1
    assert found.columns["intensity_mean_GFP"] == pytest.approx(cells["intensity_mean"], rel=1e-9)
    assert found.columns["intensity_max_GFP"].tolist() == cells["intensity_max"].tolist()
    assert found.columns["intensity_sd_GFP"] == pytest.approx(cells["intensity_std"], rel=1e-9)
    background = float(np.median(gfp[found.labels == 0]))
    assert set(found.columns["background_GFP"]) == {background}
    assert found.figures["background_GFP"] == background
    assert found.figures["mean_intensity_GFP"] == pytest.approx(cells["intensity_mean"].mean(), rel=1e-5)
    wider = segmenter.segment(volume, options=SegmentOptions(ring="0,8px")).columns
    assert wider["ring_area_px"].sum() > found.columns["ring_area_px"].sum() > 0
    assert "ring_mean_intensity" in wider, "the channel that is segmented has a surrounding, too"


def test_without_further_channels_there_is_no_ring_and_no_background(segmenter):
    found = segmenter.segment(discs((96, 96), 12, 40)[0])
    assert not [name for name in found.columns if name.startswith(("ring", "background"))]
    assert not [name for name in found.figures if "background" in name]


@given(block=st.integers(64, 250), workers=st.sampled_from([1, 2]), seed=st.integers(0, 3))
@settings(deadline=None, max_examples=8)
def test_tiling_is_invisible(segmenter, block, workers, seed):
    image, _ = discs((230, 190), 45, seed)
    whole = segmenter.segment(image)
    with ThreadPoolExecutor(workers) as pool:
        tiled = replace(segmenter, executor=pool).segment(image, options=SegmentOptions(block=block))
    assert np.array_equal(whole.labels, tiled.labels)
    assert whole.columns.keys() == tiled.columns.keys()
    for name, values in whole.columns.items():
        assert np.array_equal(values, tiled.columns[name]), name


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (17, 19), (33, 64), (5, 300)])
def test_any_size_of_image(segmenter, shape):
    found = segmenter.segment(np.random.default_rng(0).integers(0, 1000, shape).astype(np.uint16))
    assert found.labels.shape == shape
    assert found.count == found.labels.max()


@pytest.mark.parametrize("value", [0, 7, 65535])
def test_an_image_without_contrast_has_no_cells_and_says_so(segmenter, value, tmp_path):
    tifffile.imwrite(tmp_path / "flat.tif", np.full((90, 80), value, np.uint16))
    found = segmenter.segment(tmp_path / "flat.tif")
    assert found.count == 0
    assert len(found.table) == 0
    assert any("constant" in note for note in found.notes)


def test_a_diameter_brings_the_image_to_the_size_the_model_knows(segmenter):
    image, truth = discs((96, 96), 12, 50)
    large = image.repeat(3, 0).repeat(3, 1)
    size = segmenter.card.object_size_px
    found = segmenter.segment(large, options=SegmentOptions(diameter=3 * size))
    assert found.labels.shape == large.shape
    assert abs(found.count - truth.max()) <= 1


def test_doubling_the_pixel_size_makes_areas_four_times_as_large(segmenter):
    image, _ = discs((96, 96), 12, 51)
    one, two = (segmenter.segment(image, spacing=(s, s)).table for s in (0.5, 1.0))
    assert np.allclose(two["area_um2"], 4 * one["area_um2"])
    assert np.allclose(two["perimeter_um"], 2 * one["perimeter_um"])


def test_without_calibration_there_is_no_physical_column(segmenter):
    found = segmenter.segment(discs((96, 96), 12, 52)[0])
    assert not [name for name in found.columns if "um" in name.split("_")[-1]]


def test_the_same_image_in_another_unit_of_light_gives_the_same_labels(segmenter):
    image, _ = discs((96, 96), 12, 53)
    assert np.array_equal(segmenter.segment(image).labels, segmenter.segment(image.astype(np.float32)).labels)


def test_images_that_do_not_fit_are_refused(segmenter):
    with pytest.raises(InputError, match="3 channels"):
        segmenter.segment(np.zeros((3, 50, 50), np.uint8))
    with pytest.raises(InputError, match="NaN"):
        segmenter.segment(np.full((50, 50), np.nan))
    with pytest.raises(InputError, match="real numbers"):
        segmenter.segment(np.zeros((50, 50), complex))
    with pytest.raises(InputError, match="not a 2D image"):
        segmenter.segment(np.zeros((1, 2, 50, 50)))


def test_models_that_are_not_there_are_refused(tmp_path, segmenter):
    with pytest.raises(ModelError, match="no model is called 'nucleii'"):
        load("nucleii")
    with pytest.raises(MachineError, match="no such model"):
        load(tmp_path / "none.safetensors")
    with pytest.raises(MachineError, match="cuda:9"):
        Segmenter(segmenter.model, "cuda:9").segment(np.zeros((9, 9)))


def test_a_damaged_or_foreign_model_file_is_refused(tmp_path, segmenter):
    path = tmp_path / "m.safetensors"
    segmenter.save(path)
    data = path.read_bytes()
    assert load(path).card == segmenter.card
    for broken in (data[: len(data) // 2], data[:20], b"", b"PK\x03\x04" + data, data[:8] + b"\xff" * 40 + data[48:]):
        path.write_bytes(broken)
        with pytest.raises(ModelError) as caught:
            load(path)
        assert "\n" not in str(caught.value)
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(ModelError, match="not a biounet model"):
        load(path)


def test_saving_a_result(segmenter, tmp_path):
    image, _ = discs((96, 96), 12, 54)
    found = segmenter.segment(image, spacing=(0.5, 0.25))
    paths = found.save(tmp_path, "field")
    assert [path.name for path in paths] == ["field_objects.csv", "field_overlay.png", "field_labels.tif"]
    with tifffile.TiffFile(tmp_path / "field_labels.tif") as tif:
        assert np.array_equal(tif.asarray(), found.labels)
        assert tif.pages[0].tags["YResolution"].value == (2, 1)
        assert tif.imagej_metadata["unit"] == "um"


def test_an_array_becomes_a_volume_without_invented_calibration():
    assert volume_from_array(np.zeros((4, 5)), 2).grid.spacing is None
    assert volume_from_array(np.zeros((2, 4, 5)), 2, (1.0, 2.0)).grid.unit == "um"
