"""Arrays of volumes through the public API: what axes, spacing and unit mean, and what is refused."""

import numpy as np
import pandas
import pytest
import tifffile

import biounet
from biounet.api import Segmenter
from biounet.core import Grid, InputError, SettingsError, Volume
from biounet.core.recipe import parse_recipe
from biounet.network import Card, Model, build_network, initialise_weights, output_channels
from biounet.synthetic import StackSettings, make_stack

SPACING = (2.0, 1.0, 1.0)
STACK, _ = make_stack(5, StackSettings(shape=(12, 40, 36), spacing=SPACING, diameter=9))


def make_model(**data) -> Model:
    """A model of random weights: what it finds is always the same."""
    label = {"join": 1.0, "min_peak": 0.0, "min_size": 5}  # hardly any objects are joined, so that there are many
    recipe = parse_recipe({"data": {"dims": 3, **data}, "network": {"widths": [4, 6]}, "label": label})
    network = build_network(recipe)
    initialise_weights(network, 1)
    card = Card(recipe=recipe, inputs=recipe.data.channels, outputs=output_channels(recipe))
    return Model(network.eval(), card)


@pytest.fixture(scope="module")
def volume_model(tmp_path_factory) -> Segmenter:
    path = tmp_path_factory.mktemp("model") / "volumes.safetensors"
    Segmenter(make_model()).save(path)
    return biounet.load(path)


@pytest.fixture(scope="module")
def expected(volume_model):
    """The result of the stack as a volume with its grid."""
    result = volume_model.segment(Volume(STACK[None], Grid(STACK.shape, SPACING, "um")))
    assert result.count > 3
    return result


FORMS = {
    "zyx": (STACK, {}),
    "czyx": (STACK[None], {}),
    "the second channel": (np.stack([STACK[::-1], STACK]), {"channel": 1}),
    "other order of axes": (np.moveaxis(STACK, 0, 2), {"axes": "YXZ"}),
    "channel last": (np.stack([STACK, STACK[::-1]], axis=-1), {"axes": "ZYXC", "channel": 0}),
    "float32": (STACK.astype(np.float32), {}),
    "not contiguous": (np.repeat(STACK, 2, axis=2)[:, :, ::2], {}),
    "another byte order": (STACK.astype(">u2"), {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_array_is_segmented_as_the_volume_that_it_is(volume_model, expected, form):
    array, options = FORMS[form]
    before = array.copy()
    result = volume_model.segment(array, spacing=SPACING, **options)
    assert np.array_equal(array, before)
    assert np.array_equal(result.labels, expected.labels)
    # Intensities of a type are summed in that type.
    pandas.testing.assert_frame_equal(result.table, expected.table, check_dtype=False, rtol=1e-6)
    assert result.volume.grid == expected.volume.grid


def test_a_file_gives_the_objects_of_its_array(volume_model, expected, tmp_path):
    metadata = {"axes": "ZYX", "unit": "um", "spacing": SPACING[0]}
    tifffile.imwrite(tmp_path / "stack.tif", STACK, imagej=True, resolution=(1, 1), metadata=metadata)
    result = volume_model.segment(tmp_path / "stack.tif")
    assert np.array_equal(result.labels, expected.labels)
    assert result.table.equals(expected.table)
    assert len(result.save(tmp_path / "file")) == len(expected.save(tmp_path / "array", "stack"))
    for path in (tmp_path / "file").iterdir():
        assert path.read_bytes() == (tmp_path / "array" / path.name).read_bytes()


def test_spacing_scales_the_volumes_and_its_absence_leaves_them_out(volume_model, expected):
    plain = volume_model.segment(STACK)
    assert np.array_equal(plain.labels, expected.labels)
    assert not [name for name in plain.table.columns if name.endswith(("_um", "_um2", "_um3", "_mm", "_ml"))]
    double, cubes = (volume_model.segment(STACK, spacing=spacing) for spacing in ((4.0, 2.0, 2.0), 0.5))
    assert double.table["volume_um3"].to_numpy() == pytest.approx(8 * expected.table["volume_um3"].to_numpy())
    assert cubes.volume.grid.spacing == (0.5, 0.5, 0.5)
    assert cubes.table["volume_um3"].to_numpy() == pytest.approx(expected.table["volume_um3"].to_numpy() / 16)
    millimetres = volume_model.segment(STACK, spacing=SPACING, unit="mm")
    assert millimetres.volume.grid.unit == "mm"


REFUSED = {
    "a plane": (STACK[0], {}, InputError, "is not a 3D image"),
    "five axes": (STACK[None, None], {}, InputError, "is not a 3D image"),
    "too many channels": (np.stack([STACK, STACK]), {}, InputError, "2 channels"),
    "NaN": (np.where(STACK.mean() < STACK, np.nan, STACK), {}, InputError, "NaN or infinite"),
    "two numbers": (STACK, {"spacing": (1.0, 1.0)}, SettingsError, "one number for each of ZYX"),
    "a spacing of 0": (STACK, {"spacing": (0.0, 1.0, 1.0)}, SettingsError, "positive numbers"),
    "a unit without spacing": (STACK, {"unit": "um"}, SettingsError, "unit without a spacing"),
    "a wrong unit": (STACK, {"spacing": 1.0, "unit": "nm"}, SettingsError, "'um' or 'mm'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arrays_that_are_no_such_volume_are_refused(volume_model, case):
    array, options, error, cause = REFUSED[case]
    with pytest.raises(error, match=cause):
        volume_model.segment(array, **options)


def test_a_model_in_mm_asks_for_the_unit():
    model = Segmenter(make_model(voxel_size=[2.0, 1.0, 1.0], voxel_unit="mm"))
    with pytest.raises(SettingsError, match="unit"):
        model.segment(STACK, spacing=SPACING)
    assert model.segment(STACK, spacing=SPACING, unit="mm").volume.grid.unit == "mm"
