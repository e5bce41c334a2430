"""Units of voxel sizes: a model that works in mm takes no µm for mm, whoever says so."""

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st

from biounet.api import Segmenter, volume_from_array
from biounet.core import DataSettings, Grid, InputError, SettingsError
from biounet.core.recipe import parse_recipe
from biounet.files import ReadOptions, read_volume
from biounet.network import Card, Model, build_network, load_model, output_channels, save_model
from biounet.preprocessing import working_zoom
from biounet.training import check_data

SHAPE = (8, 12, 12)
IMAGE = np.random.default_rng(0).normal(100, 20, SHAPE).astype(np.float32)


def model_in(unit, size=(1.0, 1.0, 1.0), **card):
    data = {"dims": 3, "kind": "classes", "classes": ["lesion"], "voxel_size": size, "voxel_unit": unit}
    recipe = parse_recipe({"data": {**data, "min_lesion_mm3": 3.0}, "network": {"widths": [4, 6]}})
    torch.manual_seed(0)
    made = Card(recipe=recipe, inputs=recipe.data.channels, outputs=output_channels(recipe), **card)
    return Model(build_network(recipe).eval(), made)


def nifti(path, factor, code, array=IMAGE):
    image = nib.Nifti1Image(array.T, np.diag([factor, factor, 2 * factor, 1.0]))
    image.header["xyzt_units"] = code
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 1)
    nib.save(image, path)
    return path


def test_a_stack_in_um_is_refused_by_a_model_in_mm(tmp_path):
    path = tmp_path / "x.tif"
    metadata = {"axes": "ZYX", "unit": "um", "spacing": 1.0}
    tifffile.imwrite(path, IMAGE, imagej=True, resolution=(1, 1), metadata=metadata)
    with pytest.raises(InputError, match=r"x\.tif: voxel size in um, and this model works on voxels in mm"):
        Segmenter(model_in("mm")).segment(path)
    assert Segmenter(model_in("um")).segment(path).labels.shape == SHAPE
    scan = nifti(tmp_path / "x.nii.gz", 1.0, 2)
    assert Segmenter(model_in("mm")).segment(scan).labels.shape == SHAPE
    with pytest.raises(InputError, match="voxel size in mm, and this model works on voxels in um"):
        Segmenter(model_in("um")).segment(scan)


def test_a_data_set_in_another_unit_than_the_recipe_is_a_problem(tmp_path):
    stack, drawn = tmp_path / "i" / "x.tif", tmp_path / "l" / "x.tif"
    labels = np.zeros(SHAPE, np.uint16)
    labels[2:5, 2:6, 2:6] = 1
    for path, array in ((stack, IMAGE), (drawn, labels)):
        path.parent.mkdir()
        metadata = {"axes": "ZYX", "unit": "um", "spacing": 1.0}
        tifffile.imwrite(path, array, imagej=True, resolution=(1, 1), metadata=metadata)
    recipe = parse_recipe({"data": {"dims": 3, "voxel_size": (1.0, 1.0, 1.0), "voxel_unit": "mm"}})
    report = check_data(stack.parent, drawn.parent, recipe)
    assert any("um" in problem and "mm" in problem for problem in report.problems)
    assert report.as_table()[1][0].endswith(f"{stack} -> {drawn}")


def test_an_array_has_the_given_unit():
    model = Segmenter(model_in("mm"))
    assert model.card.unit == "mm"
    found = model.segment(IMAGE, spacing=(2, 1, 1), unit="mm")
    assert found.volume.grid.unit == "mm"
    assert "volume_mm3" in found.columns
    with pytest.raises(InputError, match="voxel size in um"):
        model.segment(IMAGE, spacing=(2, 1, 1), unit="um")
    with pytest.raises(SettingsError, match="without its unit"):
        model.segment(IMAGE, spacing=(2, 1, 1))
    with pytest.raises(SettingsError, match="only that of an array"):
        model.segment(volume_from_array(IMAGE, 3), unit="mm")


def test_a_model_with_a_lesion_size_in_mm3_needs_the_unit():
    model = model_in(None, size=())
    with pytest.raises(SettingsError, match="without its unit"):
        Segmenter(model).segment(IMAGE, spacing=(2, 1, 1))
    assert Segmenter(model).segment(IMAGE, spacing=(2, 1, 1), unit="mm").volume.grid.unit == "mm"


def test_a_unit_needs_a_spacing():
    assert volume_from_array(IMAGE, 3, (2.0, 1.0, 1.0)).grid.unit == "um"
    assert volume_from_array(IMAGE, 3, (2.0, 1.0, 1.0), unit="mm").grid.unit == "mm"
    with pytest.raises(SettingsError, match="without a spacing"):
        volume_from_array(IMAGE, 3, unit="mm")
    with pytest.raises(SettingsError, match="'um' or 'mm'"):
        volume_from_array(IMAGE, 3, (2.0, 1.0, 1.0), unit="cm")


@pytest.mark.parametrize(("size", "unit"), [(0.5, "um"), (None, "mm")])
def test_a_card_of_an_earlier_version_states_its_unit(tmp_path, size, unit):
    save_model(model_in(None, pixel_size_um=size), tmp_path / "old.safetensors")
    assert load_model(tmp_path / "old.safetensors").card.unit == unit


@given(st.sampled_from(["um", "mm"]), st.sampled_from(["um", "mm"]), st.floats(0.02, 50), st.floats(0.02, 50))
def test_a_zoom_between_units_is_refused(own, works, size, wanted):
    grid = Grid(SHAPE, (size,) * 3, own)
    data = DataSettings(dims=3, voxel_size=(wanted,) * 3, voxel_unit=works)
    if own != works or not 1 / 50 <= size / wanted <= 50:
        with pytest.raises(InputError, match="this model works"):
            working_zoom(grid, data)
    else:
        np.testing.assert_allclose(working_zoom(grid, data), size / wanted, rtol=0.025)


def test_the_same_volume_with_three_headers_gives_the_same_result(tmp_path):
    sizes = {}
    for name, code, factor in (("mm", 2, 1), ("um", 3, 1000), ("metre_right", 1, 1e-3), ("none", 0, 1)):
        volume = read_volume(nifti(tmp_path / f"{name}.nii.gz", factor, code), ReadOptions(dims=3))
        sizes[name] = volume.grid.spacing
        assert volume.notes == ()
    np.testing.assert_allclose(list(sizes.values()), [(2, 1, 1)] * 4, rtol=1e-6)


@pytest.mark.parametrize(("code", "factor"), [(1, 1.0), (3, 1.0)], ids=["metre", "micron"])
def test_voxel_sizes_with_a_wrong_unit_are_refused_or_flagged(tmp_path, code, factor):
    path = nifti(tmp_path / "x.nii.gz", factor, code)
    if code == 1:
        assert "1000 x 1000 mm, which no scanner has" in " ".join(read_volume(path, ReadOptions(dims=3)).notes)
        stated = read_volume(path, ReadOptions(dims=3, spacing=(2.0, 1.0, 1.0)))
        assert not [note for note in stated.notes if "scanner" in note]
    with pytest.raises(InputError, match="this model works at 1 x 1 x 1 mm"):
        Segmenter(model_in("mm")).segment(path)


def test_units_keep_volumes_and_stay_in_the_header(tmp_path):
    model, tables = Segmenter(model_in("mm", size=(2.0, 1.0, 1.0))), []
    for name, code, factor in (("mm", 2, 1), ("um", 3, 1000), ("metre", 1, 1e-3)):
        source = nifti(tmp_path / f"{name}.nii.gz", factor, code)
        found = model.segment(source)
        tables.append(found.columns["volume_mm3"])
        saved = next(path for path in found.save(tmp_path / name) if path.name.endswith("_labels.nii.gz"))
        for field in ("xyzt_units", "pixdim", "srow_x", "srow_y", "srow_z", "qform_code", "sform_code"):
            np.testing.assert_array_equal(nib.load(saved).header[field], nib.load(source).header[field], err_msg=field)
    assert tables[0].sum() > 0
    for table in tables[1:]:
        np.testing.assert_allclose(table, tables[0], rtol=1e-5)
