"""What is planned for volumes: pictures of small cases, and laws that hold for all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biounet.core import Grid, SettingsError
from biounet.core.recipe import parse_recipe
from biounet.network import UNet
from biounet.training.planning import describe_plan, plan

VOLUMES = parse_recipe({"data": {"dims": 3}, "train": {"patch": 48}})


def test_even_voxels_are_pooled_along_all_axes():
    planned = plan(VOLUMES, [Grid((36, 50, 35), (1.0, 1.0, 1.0), "mm")])
    assert planned.network.fold == (2, 2, 2)
    assert planned.network.pools == ((2, 2, 2), (2, 2, 2))  # 36 -> 18 folded -> 9 -> 4
    assert planned.network.widths == VOLUMES.network.widths[:3]
    assert planned.train.patch == (40, 56, 40)  # the whole volume
    assert planned.data.voxel_size == (1.0, 1.0, 1.0)


def test_thick_slices_are_left_alone_until_the_plane_is_as_coarse():
    planned = plan(VOLUMES, [Grid((24, 256, 256), (6.0, 0.8, 0.8), "mm")])
    assert planned.network.fold == (1, 2, 2)
    # 6 and 0.8 mm, 6 and 1.6 folded, 6 and 3.2: now alike, and pooled together as long as there are slices
    assert planned.network.pools == ((1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2))
    assert planned.network.kernels[:2] == ((1, 3, 3), (3, 3, 3))
    assert np.prod(planned.train.patch) <= 48**3


def test_the_working_grid_is_the_median_but_fine_along_thick_slices():
    grids = [Grid((9, 90, 90), (thick, 1.0, 1.0), "mm") for thick in (2.0, 2.0, 3.0)]
    assert plan(VOLUMES, grids).data.voxel_size == (2.0, 1.0, 1.0)
    grids = [Grid((9, 90, 90), (thick, 1.0, 1.0), "mm") for thick in (4.0, 6.0, 6.0)]
    assert plan(VOLUMES, grids).data.voxel_size == (4.4, 1.0, 1.0)


def test_without_calibration_nothing_is_resampled():
    planned = plan(VOLUMES, [Grid((40, 40, 40)), Grid((30, 50, 40))])
    assert planned.data.voxel_size == ()


def test_a_mixture_is_refused():
    calibrated = Grid((9, 9, 9), (1.0, 1.0, 1.0), "mm")
    with pytest.raises(SettingsError, match="1 of 2 training images"):
        plan(VOLUMES, [calibrated, Grid((9, 9, 9))])
    with pytest.raises(SettingsError, match="in mm, some in µm"):
        plan(VOLUMES, [calibrated, Grid((9, 9, 9), (1.0, 1.0, 1.0), "um")])


def test_images_and_finished_plans_stay_as_they_are():
    flat = parse_recipe({})
    assert plan(flat, [Grid((9, 9))]) is flat
    once = plan(VOLUMES, [Grid((24, 256, 256), (6.0, 0.8, 0.8), "mm")])
    assert plan(once, [Grid((80, 80, 80), (1.0, 1.0, 1.0), "mm")]) == once


@given(
    shape=st.tuples(*[st.integers(1, 300)] * 3),
    spacing=st.tuples(*[st.floats(0.1, 10)] * 3),
)
def test_every_plan_makes_a_network_that_takes_its_patch(shape, spacing):
    planned = plan(VOLUMES, [Grid(shape, spacing, "mm")])
    network = UNet(3, 1, 1, planned.network.model_copy(update={"widths": (2,) * len(planned.network.widths)}))
    assert all(edge % stride == 0 for edge, stride in zip(planned.train.patch, network.stride, strict=True))
    assert np.prod(planned.train.patch) <= max(48**3, np.prod(network.stride))
    steps = np.array(planned.data.voxel_size)
    for pool in (planned.network.fold, *planned.network.pools):
        assert all(factor == 1 or step < 2 * steps.min() for factor, step in zip(pool, steps, strict=True))
        steps = steps * pool


def test_a_plan_in_words():
    planned = plan(VOLUMES, [Grid((24, 256, 256), (6.0, 0.8, 0.8), "mm")])
    words = describe_plan(planned, "mm")
    assert words["voxel size (z, y, x)"] == "6 x 0.8 x 0.8 mm"
    assert words["folded into channels"] == "y, x"
    assert words["levels"].startswith("32 channels, halved along y, x, 64 channels, halved along z, y, x, 96 channels")
    assert words["levels"].endswith("halved along y, x, 128 channels")
    assert describe_plan(plan(VOLUMES, [Grid((40, 40, 40))]))["voxel size (z, y, x)"] == "as stored"


def test_the_unit_of_the_voxel_size_is_that_of_the_training_images():
    for unit in ("mm", "um"):
        grids = [Grid((9, 9, 9), (1.0, 1.0, 1.0), unit)]
        assert plan(VOLUMES, grids).data.voxel_unit == unit
        stated = VOLUMES.replace("data", voxel_size=(2.0, 1.0, 1.0))
        assert plan(stated, grids).data.voxel_unit == unit
        other = stated.replace("data", voxel_unit="mm" if unit == "um" else "um")
        with pytest.raises(SettingsError, match=f"the training images are in {unit}"):
            plan(other, grids)
    with pytest.raises(SettingsError, match="some in µm"):
        plan(stated, [*grids, Grid((9, 9, 9), (1.0, 1.0, 1.0), "mm")])
    assert plan(VOLUMES, [Grid((9, 9, 9))]).data.voxel_unit is None
    with pytest.raises(SettingsError, match="voxel_unit"):
        parse_recipe({"data": {"dims": 3, "voxel_unit": "mm"}})
