"""Targets: pictures whose answer is visible, one naive transform per object as the reference, and unlabelled space."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from biounet.core import Annotation, Grid, InputError, TargetSettings
from biounet.core.recipe import parse_recipe
from biounet.training.targets.boundary_weight import border_weight, two_nearest
from biounet.training.targets.distances import edge_distance, signed_distance
from biounet.training.targets.instances import InstanceTargets, make_instance_targets
from biounet.training.targets.layout import TargetLayout, make_target

FIELDS = tuple(field.name for field in fields(InstanceTargets))
SHAPES = hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=7)
STEPS = st.sampled_from([0.25, 0.5, 1.0, 2.0, 2.9])
WIDTHS = st.floats(0.3, 4)


def picture(text):
    """Labels drawn as text: ``.`` background, ``?`` unlabelled, digits objects."""
    values = {".": 0, "?": -1}
    rows = [[values[c] if c in values else int(c) for c in line.strip()] for line in text.split()]
    return np.array(rows, np.int32)


def annotate(labels, kind="instances"):
    return Annotation(np.asarray(labels, np.int32), kind, Grid(np.shape(labels)))


def targets(labels, steps=None, **changes):
    return make_instance_targets(annotate(labels), TargetSettings(**changes), steps)


def nearest_two(labels, steps):
    """The two smallest distances of each voxel to an object, by one distance transform per object."""
    ids = [i for i in np.unique(labels) if i > 0]
    far = [np.full(labels.shape, np.inf)] * 2
    return np.sort([ndimage.distance_transform_edt(labels != i, sampling=steps) for i in ids] + far, axis=0)[:2]


def to_unlabelled(labels, steps):
    if (labels >= 0).all():
        return np.full(labels.shape, np.inf)
    return ndimage.distance_transform_edt(labels >= 0, sampling=steps)


def naive_weight(labels, w0, sigma, steps):
    return w0 * np.exp(-(nearest_two(labels, steps).sum(axis=0) ** 2) / (2 * sigma**2))


def connected(labels):
    """Give every connected piece of an id its own id."""
    pieces = np.zeros_like(labels)
    for i in np.unique(labels[labels > 0]):
        found = ndimage.label(labels == i, structure=np.ones((3,) * labels.ndim))[0]
        pieces[found > 0] = found[found > 0] + pieces.max()
    return pieces


@st.composite
def annotations(draw, low=-1):
    """Labels, and the length of a voxel along each axis."""
    shape = draw(SHAPES)
    labels = draw(hnp.arrays(np.int32, shape, elements=st.integers(low, 3), fill=st.integers(low, 1)))
    return labels, tuple(draw(STEPS) for _ in shape)


@st.composite
def hidden(draw):
    """Fully labelled connected objects, the same with a part unlabelled, and the length of a voxel."""
    labels, steps = draw(annotations(low=0))
    full = connected(labels)
    sparse = full.copy()
    corners = [draw(st.tuples(st.integers(0, n - 1), st.integers(0, n))) for n in full.shape]
    window = tuple(slice(*sorted(corner)) for corner in corners)
    if draw(st.booleans()):
        sparse[window] = -1
    else:
        sparse[:] = -1
        sparse[window] = full[window]
    return full, sparse, steps


@pytest.fixture(scope="module")
def cells():
    """A field of cells that is longer than what is worked on at once, some of them touching."""
    centres = np.random.default_rng(0).uniform(0, (60, 700), (200, 2))
    places = np.stack(np.mgrid[:60, :700], axis=-1)[..., None, :]
    squares = ((places - centres) ** 2).sum(axis=-1)
    return np.where(squares.min(axis=-1) < 49, squares.argmin(axis=-1) + 1, 0).astype(np.int32)


# The boundary weight


def test_the_gap_between_two_cells_weighs_most():
    weight = border_weight(picture("11...22"), w0=10, sigma=2)
    sums = np.array([5, 4, 4, 4, 4, 4, 5])
    np.testing.assert_allclose(weight[0], 10 * np.exp(-(sums**2) / 8), rtol=1e-6)


def test_the_border_of_touching_cells_weighs_as_if_the_gap_were_closed():
    weight = border_weight(picture("111222"), w0=10, sigma=2)
    np.testing.assert_allclose(weight[0], 10 * np.exp(-(np.array([3, 2, 1, 1, 2, 3]) ** 2) / 8), rtol=1e-6)


def test_one_cell_has_no_gap():
    assert not border_weight(picture("11... 11..."), w0=10, sigma=5).any()


def test_a_gap_where_a_cell_may_hide_is_not_known():
    weight = border_weight(picture("1...2..........?"), w0=1, sigma=1)
    known = border_weight(picture("1...2..........."), w0=1, sigma=1)
    np.testing.assert_array_equal(weight, known)
    # An object hidden at the last voxel could be as near to the 2 as the 1 is, but not nearer.
    assert border_weight(picture("1...2...?"), w0=1, sigma=2)[0, 4] > 0
    assert border_weight(picture("1...2..?."), w0=1, sigma=2)[0, 4] == 0
    assert border_weight(picture("1...2..?."), w0=1, sigma=2, known_only=False)[0, 4] > 0


@given(annotations(), WIDTHS)
def test_the_weight_is_the_naive_one(case, sigma):
    labels, steps = case
    naive = naive_weight(labels, 10, sigma, steps)
    np.testing.assert_allclose(border_weight(labels, 10, sigma, steps, known_only=False), naive, atol=1e-3)
    second, unlabelled = nearest_two(labels, steps)[1], to_unlabelled(labels, steps)
    tie = np.isclose(unlabelled, second)
    weight = border_weight(labels, 10, sigma, steps)
    np.testing.assert_allclose(weight[~tie], np.where(unlabelled > second, naive, 0)[~tie], atol=1e-3)


@pytest.mark.parametrize("steps", [(1.0, 1.0), (0.7, 0.31), (1.0, 4.0)])
def test_the_weight_of_a_large_field_is_the_naive_one(cells, steps):
    weight = border_weight(cells, 10, 4, steps)
    assert weight.dtype == np.float32
    assert np.abs(weight - naive_weight(cells, 10, 4, steps)).max() <= 1e-3


def test_the_weight_of_a_large_volume_is_the_naive_one(cells):
    labels = np.stack([cells, np.roll(cells, 5, 0), np.zeros_like(cells), np.roll(cells, 90, 1)])[:, :, :100]
    weight = border_weight(labels, 10, 4, (3.0, 1.0, 0.8))
    assert np.abs(weight - naive_weight(labels, 10, 4, (3.0, 1.0, 0.8))).max() <= 1e-3


@given(annotations(), WIDTHS)
def test_two_nearest_is_exact_within_reach(case, reach):
    labels, steps = case
    for squared, naive in zip(two_nearest(labels, reach, steps), nearest_two(labels, steps), strict=True):
        within = naive <= reach
        np.testing.assert_allclose(np.sqrt(squared[within]), naive[within], rtol=1e-5, atol=1e-6)
        assert (np.sqrt(squared[~within]) > reach * (1 - 1e-6)).all()


@given(hidden(), WIDTHS)
def test_hiding_a_part_raises_no_weight_and_changes_none_that_is_left(case, sigma):
    full, sparse, steps = case
    before, after = border_weight(full, 10, sigma, steps), border_weight(sparse, 10, sigma, steps)
    np.testing.assert_allclose(after[after > 0], before[after > 0], rtol=1e-5)
    assert not after[sparse < 0].any()


# Distances


def test_distance_to_the_edge():
    labels = picture(
        """.......
           .11122.
           .11122.
           .11122.
           ......."""
    )
    seen = [[0, 0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1, 0], [0, 1, 2, 1, 1, 1, 0], [0, 1, 1, 1, 1, 1, 0], [0] * 7]
    np.testing.assert_array_equal(edge_distance(labels), seen)
    expected = np.where(labels == 1, np.array(seen) / 2, labels == 2)
    np.testing.assert_array_equal(targets(labels).distance, expected)


def test_the_edge_of_the_image_is_no_edge():
    np.testing.assert_array_equal(edge_distance(picture("111. 111. 111.")), [[3, 2, 1, 0]] * 3)


@given(annotations())
def test_edge_distance_is_the_naive_one(case):
    labels, steps = case
    naive = np.zeros(labels.shape)
    for i in np.unique(labels[labels > 0]):
        inside = labels == i
        naive[inside] = np.inf if inside.all() else ndimage.distance_transform_edt(inside, sampling=steps)[inside]
    np.testing.assert_allclose(edge_distance(labels, steps), naive, rtol=1e-5)


def test_edge_distance_of_a_large_field_is_the_naive_one(cells):
    naive = np.max([ndimage.distance_transform_edt(cells == i, sampling=(1.5, 0.4)) for i in np.unique(cells)[1:]], 0)
    np.testing.assert_allclose(edge_distance(cells, (1.5, 0.4)), naive, rtol=1e-5)


def test_the_distance_of_a_cell_that_may_go_on_is_unknown():
    labels = picture(
        """......?
           .11..2?
           .11..2?
           ......?
           33.4..?
           33....?"""
    )
    made = targets(labels)
    # 2 meets unlabelled space; 3 is cut by the image only.
    np.testing.assert_array_equal(made.distance_weight > 0, (labels >= 0) & (labels != 2))
    assert made.distance[5, 0] == 1
    assert not made.distance[labels == 2].any()


def test_a_corner_is_enough_to_go_on():
    assert not targets(picture("1.. .?. ...")).distance_weight[0, 0]
    assert targets(picture("1.. ... ..?")).distance_weight[0, 0]


def test_a_cell_without_an_edge_has_no_distance():
    made = targets(np.ones((4, 5)))
    assert not made.distance.any()
    assert not made.distance_weight.any()
    assert made.contour_weight.all()
    assert not made.contour.any()
    np.testing.assert_array_equal(made.foreground_weight, 1)


def test_ids_may_be_any_number():
    labels = picture("1.2 112 ..2")
    large = np.where(labels > 0, 2**31 - 3 + labels.astype(np.int64), labels)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(targets(large), name), getattr(targets(labels), name))


def test_contour_and_distance_between_cells_may_weigh_more():
    labels = picture("11...22..........33")
    plain, parting = (make_instance_targets(annotate(labels), TargetSettings(separation_weight=w)) for w in (0.0, 4.0))
    between = border_weight(labels, 1.0, TargetSettings().border_sigma)
    assert between[0, 3] > between[0, 12] > 0
    for name in ("contour_weight", "distance_weight"):
        np.testing.assert_allclose(getattr(parting, name), getattr(plain, name) * (1 + 4 * between), rtol=1e-6)
    np.testing.assert_array_equal(parting.foreground_weight, plain.foreground_weight)


def test_what_is_unknown_stays_unknown_between_cells():
    made = make_instance_targets(annotate(picture("11?22..")), TargetSettings(separation_weight=4.0))
    plain = make_instance_targets(annotate(picture("11?22..")), TargetSettings(separation_weight=0.0))
    for name in ("contour_weight", "distance_weight"):
        np.testing.assert_array_equal(getattr(made, name) > 0, getattr(plain, name) > 0)


# Contours


def test_the_contour_lies_inside_each_cell():
    labels = picture(
        """.......
           .111222
           .111222
           .111222
           ......."""
    )
    seen = [[0, 0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1, 1], [0, 1, 0, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1, 1], [0] * 7]
    np.testing.assert_array_equal(targets(labels).contour, seen)


def test_a_contour_of_two_voxels_is_two_voxels_wide():
    np.testing.assert_array_equal(targets(picture("111111."), contour=2.0).contour, [[0, 0, 0, 0, 1, 1, 0]])
    made = targets(picture("111111?"), contour=2.0)
    np.testing.assert_array_equal(made.contour_weight, [[1, 1, 1, 1, 0, 0, 0]])


def test_an_edge_against_unlabelled_space_is_not_a_contour():
    labels = picture(
        """..?????
           .11111?
           .11111?
           .11111?
           ......."""
    )
    made = targets(labels)
    contour = [[0, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1, 0], [0] * 7]
    known = [[1, 1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 0], [1] * 7]
    np.testing.assert_array_equal(made.contour, contour)
    np.testing.assert_array_equal(made.contour_weight, known)


def test_the_contour_is_never_thinner_than_a_voxel():
    labels = np.zeros((3, 5, 5), np.int32)
    labels[:, 1:4, 1:4] = 1
    labels[0] = 0
    contour = targets(labels, steps=(5.0, 1.0, 1.0), contour=0.5).contour
    np.testing.assert_array_equal(contour[1, 1:4, 1:4], 1)  # faces background below
    np.testing.assert_array_equal(contour[2, 1:4, 1:4], [[1, 1, 1], [1, 0, 1], [1, 1, 1]])


@given(annotations(), WIDTHS)
def test_contours_are_what_the_definition_says(case, width):
    labels, steps = case
    at = np.indices(labels.shape).reshape(labels.ndim, -1).T
    apart = np.abs(at[:, None] - at[None])
    near = (np.linalg.norm(apart * steps, axis=-1) <= width * (1 + 1e-6)) | (apart.sum(axis=-1) == 1)
    flat = labels.ravel()
    drawn = (near & (flat[None] >= 0) & (flat[None] != flat[:, None])).any(axis=1) & (flat > 0)
    known = (flat >= 0) & (drawn | (flat == 0) | ~(near & (flat[None] < 0)).any(axis=1))
    made = targets(labels, steps, contour=width)
    np.testing.assert_array_equal(made.contour.ravel(), drawn)
    np.testing.assert_array_equal(made.contour_weight.ravel() > 0, known)


# All of them


@given(hidden(), WIDTHS, WIDTHS)
@settings(max_examples=200)
def test_what_is_known_is_what_a_complete_annotation_says(case, sigma, width):
    full, sparse, steps = case
    before = targets(full, steps, border_sigma=sigma, contour=width)
    after = targets(sparse, steps, border_sigma=sigma, contour=width)
    for name in ("foreground", "contour", "distance"):
        weight = f"{name}_weight"
        known = getattr(after, weight) > 0
        assert not known[sparse < 0].any()
        assert (getattr(before, weight) > 0)[known].all()
        np.testing.assert_allclose(getattr(after, name)[known], getattr(before, name)[known], rtol=1e-5)
    np.testing.assert_array_equal(after.foreground_weight > 0, sparse >= 0)
    raised = after.foreground_weight > 1
    np.testing.assert_allclose(after.foreground_weight[raised], before.foreground_weight[raised], rtol=1e-5)


@given(annotations(), st.integers(1, 5))
def test_more_unlabelled_space_around_changes_nothing(case, margin):
    labels, steps = case
    once = np.pad(labels, 1, constant_values=-1)
    more = np.pad(labels, 1 + margin, constant_values=-1)
    inner = (slice(margin, -margin),) * labels.ndim
    for name in FIELDS:
        np.testing.assert_array_equal(
            getattr(targets(more, steps), name)[inner], getattr(targets(once, steps), name), err_msg=name
        )


@given(annotations(), WIDTHS, WIDTHS)
def test_lengths_have_no_preferred_unit(case, sigma, width):
    labels, steps = case
    once = targets(labels, steps, border_sigma=sigma, contour=width)
    doubled = targets(labels, tuple(2 * step for step in steps), border_sigma=2 * sigma, contour=2 * width)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(doubled, name), getattr(once, name), rtol=1e-6, err_msg=name)
    np.testing.assert_array_equal(
        edge_distance(labels, tuple(2 * step for step in steps)), 2 * edge_distance(labels, steps)
    )


@given(annotations(), STEPS)
def test_an_image_is_a_volume_of_one_slice(case, thickness):
    labels, steps = case
    if labels.ndim == 3:
        labels, steps = labels[0], steps[1:]
    flat, volume = targets(labels, steps), targets(labels[None], (thickness, *steps))
    for name in FIELDS:
        np.testing.assert_allclose(getattr(volume, name)[0], getattr(flat, name), rtol=1e-5, err_msg=name)


@given(annotations(), st.randoms(use_true_random=False))
def test_the_order_of_axes_changes_nothing(case, random):
    labels, steps = case
    axes = random.sample(range(labels.ndim), labels.ndim)
    turned = targets(np.transpose(labels, axes), tuple(steps[a] for a in axes))
    for name in FIELDS:
        expected = np.transpose(getattr(targets(labels, steps), name), axes)
        np.testing.assert_allclose(getattr(turned, name), expected, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (2, 3, 4)])
def test_background_only_is_known_and_nothing_labelled_is_not(shape):
    empty, nothing = targets(np.zeros(shape)), targets(np.full(shape, -1))
    for name in FIELDS:
        array = getattr(empty, name)
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, np.full(shape, float("weight" in name)))
        np.testing.assert_array_equal(getattr(nothing, name), np.zeros(shape))


def test_the_target_of_exclusive_classes_is_one_channel_for_each_and_one_weight():
    recipe = parse_recipe({"data": {"kind": "classes", "classes": ["a", "b", "c"]}})
    labels = picture("1?2 .3?")
    *classes, labelled = make_target(annotate(labels, "classes"), recipe, (1.0, 1.0))
    for number, channel in enumerate(classes):
        np.testing.assert_array_equal(channel, labels == number)
    assert len(classes) == 4  # with the background
    np.testing.assert_array_equal(labelled, [[1, 0, 1], [1, 1, 0]])


@pytest.mark.parametrize("boundary", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["instances", "classes", "regions"])
def test_the_layout_names_every_channel_of_a_target(kind, boundary):
    data = {"kind": "classes", "classes": ["a", "b"]} if kind != "instances" else {}
    data |= {"regions": {"ab": [1, 2], "b": [2]}} if kind == "regions" else {}
    recipe = parse_recipe({"data": data, "loss": {"boundary": boundary}})
    layout = TargetLayout.from_recipe(recipe)
    labels = picture("11.22 ...22 ?....")
    target = torch.from_numpy(make_target(annotate(labels, recipe.data.kind), recipe, (1.0, 1.0)))
    parts = layout.split(target)
    outlines = {"instances": ["foreground"], "classes": ["a", "b"], "regions": ["ab", "b"]}[kind]
    masks = {"foreground": labels > 0, "ab": labels > 0, "a": labels == 1, "b": labels == 2, "background": labels == 0}
    for name, value in zip(layout.values, parts.values, strict=True):
        if name in masks:
            np.testing.assert_array_equal(value, masks[name])
    assert list(layout.outlines) == (outlines if boundary else [])
    for name, distance, known in zip(layout.outlines, parts.outline_distances, parts.outline_weights, strict=True):
        expected = signed_distance(masks[name], labels >= 0)
        np.testing.assert_allclose(distance, expected[0], rtol=1e-3)
        np.testing.assert_array_equal(known, expected[1])
    weights = [*parts.weights, *parts.outline_weights]
    assert len(layout.weight_index) == len(layout.values) + len(layout.outlines)
    for name, index in zip(layout.values, layout.weight_index, strict=False):
        position = layout.weights.index(name if name in layout.weights else "labelled")
        assert index == position
        assert not weights[index][torch.from_numpy(labels < 0)].any()
    assert layout.weight_index[len(layout.values) :] == list(range(len(layout.weights), len(weights)))


def test_what_cannot_be_a_target_is_refused():
    with pytest.raises(InputError, match="need instances, not scribbles"):
        make_instance_targets(annotate(picture("1."), "scribbles"), TargetSettings())
    with pytest.raises(InputError, match="2 positive voxel lengths"):
        targets(picture("1."), steps=(1.0, 1.0, 1.0))
    with pytest.raises(InputError, match="2 positive voxel lengths"):
        border_weight(picture("1."), 10, 5, spacing=(1.0, 0.0))


def test_signed_distance_is_kervadecs():
    region = np.array([[0, 0, 1, 1, 1, 0, 0]], bool)
    distance, known = signed_distance(region, np.ones_like(region))
    assert distance.tolist() == [[2, 1, 0, -1, 0, 1, 2]]
    assert known.all()
    assert signed_distance(region, np.ones_like(region), (1.0, 2.0))[0].tolist() == [[4, 2, -1, -3, -1, 2, 4]]


def test_signed_distance_is_unknown_where_an_outline_may_be_hidden():
    region = np.array([[0, 0, 1, 1, 1, 0, 0, 0, 0]], bool)
    labelled = np.array([[1, 1, 1, 1, 1, 1, 1, 0, 0]], bool)
    assert signed_distance(region, labelled)[1].tolist() == [[1, 1, 1, 1, 1, 1, 0, 0, 0]]
    assert not signed_distance(region, region)[1].any()
    everything = np.ones_like(region)
    assert not signed_distance(everything, everything)[1].any()
    assert not signed_distance(~everything, everything)[1].any()


@pytest.mark.parametrize(
    ("region", "labelled", "known"),
    [
        # Far from unlabelled space, but not twice as far as from the outline.
        ([0, 0, 0, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0, 1, 1], [1, 1, 1, 1, 0, 0, 0, 0]),
        # Something hidden that is as near as the outline changes nothing.
        ([1, 0, 0], [1, 1, 0], [1, 1, 0]),
    ],
)
def test_signed_distance_is_known_up_to_the_distance_of_unlabelled_space(region, labelled, known):
    masks = np.array([region], bool), np.array([labelled], bool)
    assert signed_distance(*masks)[1].tolist() == [known]
    assert not signed_distance(*masks)[0][~masks[1]].any()


def volume(*planes):
    return np.stack([picture(plane) for plane in planes])


HIDDEN = "??????? " * 5


def test_of_single_planes_the_sections_are_known():
    wide = "....... .11111. .11111. .11111. ......."
    small = "....... ....... ..111.. ....... ....22."
    made = make_instance_targets(annotate(volume(wide, HIDDEN, small)), TargetSettings(), section_axis=0)
    for field in ("foreground_weight", "contour_weight", "distance_weight"):
        known = getattr(made, field) > 0
        assert known[[0, 2]].all()
        assert not known[1].any()
    assert made.contour[0].sum() == 12
    # The middle of a large section is 1; smaller ones are lower, as they are towards the ends of an object.
    assert made.distance[0].max() == 1
    assert made.distance[2].max() == pytest.approx(1 / 1.8)  # the 90th percentile of 2, 1 and 1


def test_of_planes_without_any_label_nothing_is_known():
    made = make_instance_targets(annotate(volume(HIDDEN, HIDDEN)), TargetSettings(), section_axis=0)
    assert not any(getattr(made, field).any() for field in FIELDS)


def test_sections_lie_in_any_plane():
    labels = volume("....... .11111. .11111. .11111. .......", HIDDEN, HIDDEN)
    expected = make_instance_targets(annotate(labels), TargetSettings(), (3.0, 1.0, 1.0), section_axis=0)
    turned = annotate(np.moveaxis(labels, 0, 2))
    turned = make_instance_targets(turned, TargetSettings(), (1.0, 1.0, 3.0), section_axis=2)
    for field in FIELDS:
        np.testing.assert_array_equal(
            np.moveaxis(getattr(turned, field), 2, 0), getattr(expected, field), err_msg=field
        )


def test_what_is_hidden_changes_no_section():
    drawn = volume("...... .111.. .111.. ......", "?????? " * 4, "...... ...22. ...22. ......")
    dense = drawn.copy()
    dense[1] = 7
    whole = make_instance_targets(annotate(dense), TargetSettings(), section_axis=0)
    part = make_instance_targets(annotate(drawn), TargetSettings(), section_axis=0)
    for field in ("foreground", "contour", "foreground_weight"):
        np.testing.assert_array_equal(getattr(part, field)[[0, 2]], getattr(whole, field)[[0, 2]], err_msg=field)
