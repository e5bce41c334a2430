"""Label images that cannot be what they are declared to be, and such that only look odd."""

import io

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

import biounet
from biounet.core import UNLABELLED, Annotation, DataSettings, Grid, InputError, inspect_annotation
from biounet.core.recipe import parse_recipe
from biounet.files import read_annotation
from biounet.training import check_data
from support.images import discs

U = UNLABELLED
CELLS = DataSettings()
RECIPE = parse_recipe({"network": {"widths": [4, 4]}, "train": {"patch": 32, "epochs": 1, "steps_per_epoch": 2}})


def inspect(labels, kind="instances", grid=None):
    labels = np.asarray(labels).astype(np.int32)
    return inspect_annotation(Annotation(labels, kind, grid or Grid(labels.shape)))


def problems(labels, kind="instances", grid=None):
    return [found.cause for found in inspect(labels, kind, grid) if found.severity == "problem"]


@pytest.fixture(scope="module")
def field():
    return discs((128, 128), 25, 3, radius=(5, 9))[1]


def as_jpeg(labels, quality):
    buffer = io.BytesIO()
    Image.fromarray(labels.astype(np.uint8)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def enlarged(labels, zoom, order):
    return np.rint(ndimage.zoom(labels.astype(float), zoom, order=order)).clip(0)


def disc(radius):
    return np.add.outer(np.arange(-radius, radius + 1) ** 2, np.arange(-radius, radius + 1) ** 2) <= radius**2


GRID_POINTS = np.zeros((128, 128), int)
GRID_POINTS[4::9, 4::9] = np.arange(1, 197).reshape(14, 14)
SPOILT = {
    "enlarged": lambda labels: enlarged(labels * 7, 2, 1),
    "enlarged by a spline": lambda labels: enlarged(labels, 1.5, 3),
    "shrunk": lambda labels: enlarged(labels, 0.5, 1),
    "turned": lambda labels: np.rint(ndimage.rotate(labels.astype(float), 15, order=1)),
    "blurred": lambda labels: np.rint(ndimage.gaussian_filter(labels.astype(float), 0.6)),
    "jpeg 100": lambda labels: as_jpeg(labels, 100),
    "jpeg 95": lambda labels: as_jpeg(labels, 95),
    "jpeg 30": lambda labels: as_jpeg(labels, 30),
    "jpeg of a mask": lambda labels: as_jpeg((labels > 0) * 255, 90),
    "smooth mask": lambda labels: enlarged((labels > 0) * 255, 0.5, 1),
    "mask": lambda labels: labels > 0,
    "simple segmentation": lambda labels: np.where(labels > 0, 1, 2),
    "classes": lambda labels: np.where(labels > 0, labels % 3 + 1, 0),
    "classes and background": lambda labels: np.where(labels > 0, labels % 3 + 2, 1),
    "background 1": lambda labels: labels + 1,
    "background 1, lines between": lambda labels: np.where(
        ndimage.grey_dilation(labels, (3, 3)) > labels, 0, labels + 1
    ),
    "255 where nobody looked": lambda labels: np.where(np.arange(128) < 50, labels, 255),
    "65535 around a window": lambda labels: np.where(np.pad(np.ones((60, 60)), 34) > 0, labels, 65535),
    "65535 in a corner": lambda labels: np.where(np.pad(np.ones((108, 108)), ((0, 20), (0, 20))) > 0, labels, 65535),
    "255 in a strip": lambda labels: np.where(np.arange(128) < 120, labels, 255),
    "255 as a line around each": lambda labels: np.where(
        (labels == 0) & (ndimage.grey_dilation(labels, (3, 3)) > 0), 255, labels
    ),
    "255 beside nothing": lambda labels: np.where(np.arange(128) < 40, 0, 255) + 0 * labels,
    "one value everywhere": np.ones_like,
    "background and nothing else": lambda labels: labels == 0,
    "outlines": lambda labels: np.where(ndimage.grey_erosion(labels, (3, 3)) == labels, 0, labels),
    "dots": lambda labels: ndimage.grey_dilation(GRID_POINTS + 0 * labels, (3, 3)),
    "discs": lambda labels: ndimage.grey_dilation(GRID_POINTS + 0 * labels, footprint=disc(2)),
    "points": lambda labels: np.where(
        (np.arange(128)[:, None] % 9 == 0) & (np.arange(128) % 9 == 0), np.arange(128), 0
    ),
}


@pytest.mark.parametrize("how", SPOILT)
def test_implausible_label_images_are_problems(field, how):
    assert problems(SPOILT[how](field)), how


SOUND = {
    "as drawn": lambda labels: labels,
    "gaps between ids": lambda labels: labels * 37,
    "random ids": lambda labels: np.append(0, np.random.default_rng(0).permutation(60000) + 1)[labels],
    "255 and 65535 among the ids": lambda labels: np.append([0, 255, 65535], np.arange(1, 200))[labels],
    "a window": lambda labels: np.where(np.pad(np.ones((60, 60)), 34) > 0, labels, U),
    "every ninth row": lambda labels: np.where(np.arange(128)[:, None] % 9 == 0, labels, U),
    "some objects and no background": lambda labels: np.where(labels > 0, labels, U),
    "without an object": np.zeros_like,
    "touching": lambda labels: ndimage.grey_dilation(labels, (5, 5)),
    "without background": lambda labels: np.kron(np.arange(1, 65).reshape(8, 8), np.ones((16, 16))),
    "one object": lambda labels: labels == labels[labels > 0][0],
    "one large object": lambda labels: np.pad(np.ones((100, 100)), 14),
    "one object with holes": lambda labels: (labels == 0) & (np.pad(np.ones((60, 60)), 34) > 0),
    "rods of one size": lambda labels: np.kron(
        np.arange(1, 257).reshape(16, 16), np.pad(np.ones((2, 5)), ((3, 3), (1, 2)))
    ),
    "rings": lambda labels: np.where(ndimage.grey_erosion(labels, (9, 9)) == labels, 0, labels),
    "255 for one of few": lambda labels: np.where(labels == 1, 255, labels) * (labels < 3),
    "two pieces": lambda labels: np.where(labels == 2, 1, labels),
    "two objects of two pieces": lambda labels: np.select([labels < 3, labels < 5], [labels > 0, 2 * (labels > 2)], 0),
    "enlarged as it should be": lambda labels: ndimage.zoom(labels, 3, order=0),
    "flat objects": lambda labels: np.repeat(np.arange(128) % 4 // 2 * (np.arange(128) // 4 + 1), 128).reshape(
        128, 128
    ),
}


@pytest.mark.parametrize("how", SOUND)
def test_plausible_label_images_are_not(field, how):
    assert not problems(SOUND[how](field)), how


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(0, 127), st.integers(1, 128), st.booleans())
def test_discs_in_a_labelled_window_are_plausible(seed, count, start, length, unlabelled):
    labels = discs((128, 128), count, seed % 1000)[1]
    hidden = (np.arange(128) < start) | (np.arange(128) >= start + length)
    cut = np.where(hidden, U, labels) if unlabelled else labels[:, ~hidden]
    small = [found for found in problems(cut) if "points" not in found]  # what a narrow window leaves may be small
    assert not small


@given(st.permutations(range(1, 26)), st.sampled_from(list(SPOILT) + list(SOUND)))
@settings(deadline=None, max_examples=30)
def test_the_order_of_ids_does_not_matter(order, how):
    """Ids are names, except where they are values that were mixed."""
    labels = discs((128, 128), 25, 3, radius=(5, 9))[1]
    named = np.append(0, order)[labels]
    spoil = (SPOILT | SOUND)[how]
    assert bool(problems(spoil(named))) == (how in SPOILT)


def test_findings_have_figures(field):
    (found, *_) = inspect(SPOILT["enlarged"](field))
    percent, words = found.cause.split("%", 1)
    assert int(percent) > 30
    assert words.startswith(" of the edges go over values in between, as rings around the objects (")
    (found, *_) = inspect(SPOILT["255 where nobody looked"](field))
    assert found.cause == "one id, 255, covers 61% of what is labelled and may mean unlabelled"
    assert "data.unlabelled = 255" in found.hint
    (found, *_) = inspect(SPOILT["simple segmentation"](field))
    assert "kind = 'classes'" in found.hint
    (found, *_) = inspect(SPOILT["classes"](field))
    assert found.cause.startswith("3 ids in 25 distant pieces, id ")
    (found, *_) = inspect(SPOILT["background 1"](field))
    assert "id, 1, covers" in found.cause
    assert "lies around 25 of 25 others" in found.cause


def test_outlines_in_the_planes_of_a_volume_are_a_problem(field):
    outlines = np.repeat(SPOILT["outlines"](field)[None], 4, axis=0)
    (cause,) = problems(outlines)
    assert "of 25 objects are lines around an empty inside" in cause


def test_stray_pixels_are_a_remark_and_fragments_a_problem(field):
    labels = field.copy()
    labels[0, 0] = field[field > 0][0]
    labels[-1, 0] = 99
    (found,) = inspect(labels)
    cause = "stray pixels? 1 of 26 objects in several pieces and 1 of at most 4 pixels"
    assert (found.severity, found.cause) == ("remark", cause)
    free = np.argwhere(ndimage.grey_dilation(field, (5, 5)) == 0)[::40]
    for number, at in enumerate(free[:20], 1):
        labels[tuple(at)] = number
    assert any("objects are in several pieces" in cause for cause in problems(labels))
    assert [found.cause for found in inspect(SOUND["without background"](field))] == [
        "no voxel is background (0): everything belongs to an object"
    ]


class TestVolumes:
    """Stacks of discs: each object a column of several planes."""

    stack = np.pad(np.repeat(discs((64, 64), 8, 1)[1][None], 6, axis=0), ((3, 3), (0, 0), (0, 0)))

    def test_a_stack_is_sound(self):
        assert not inspect(self.stack)
        assert not inspect(np.where(np.isin(np.arange(12), (4, 6))[:, None, None], self.stack, U))
        assert not inspect(self.stack == 1)

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_single_outlined_planes_without_unlabelled_ones_are_a_problem(self, axis):
        planes = np.expand_dims(np.arange(self.stack.shape[axis]) % 2, [n for n in range(3) if n != axis])
        (found, *_) = inspect(self.stack * planes)
        assert f"slices = '{'zyx'[axis]}'" in found.hint

    def test_classes_in_labelled_planes(self):
        classes = np.where(self.stack > 0, self.stack % 2 + 1, 0)
        assert problems(classes)
        assert problems(np.where(np.isin(np.arange(12), (4, 6))[:, None, None], classes, U))

    def test_smoothing_is_checked_along_the_finest_axes(self):
        smooth = np.rint(ndimage.zoom(self.stack * 7.0, (1, 2, 2), order=1))
        assert problems(smooth)
        cubes = np.moveaxis(smooth, 0, 2)
        assert problems(cubes, grid=Grid(cubes.shape, (0.5, 0.5, 2.0), "mm"))
        thin = np.zeros((9, 40, 40), np.int32)  # one plane each, as where steps along z are long
        for z in range(9):
            thin[z, 4 + z : 30, 4 : 30 - z] = z + 1
        assert not problems(thin, grid=Grid(thin.shape, (5.0, 1.0, 1.0), "mm"))


def test_smoothed_classes_are_a_remark(field):
    classes = np.where(field > 0, 4, 0)
    (found,) = inspect(enlarged(classes, 2, 1), "classes")
    assert found.severity == "remark"
    assert not inspect(classes, "classes")
    assert not inspect(classes, "scribbles")


def test_a_label_image_stored_as_jpeg_is_refused(tmp_path, field):
    for data in (CELLS, DataSettings(kind="classes", classes=("cell",))):
        Image.fromarray(field.astype(np.uint8)).save(tmp_path / "a.jpg", quality=100)
        with pytest.raises(InputError, match="JPEG, which changes values"):
            read_annotation(tmp_path / "a.jpg", data)


def data_set(folder, *labels):
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, drawn in enumerate(labels):
        image = discs(drawn.shape, 5, number)[0]
        tifffile.imwrite(folder / "images" / f"{number}.tif", image)
        tifffile.imwrite(folder / "labels" / f"{number}.tif", drawn)
    return folder / "images", folder / "labels"


def said_by_both(folders, recipe=RECIPE):
    """Return the problems of `check`; `train` must stop at the first of them."""
    found = check_data(*folders, recipe).problems
    if found:
        with pytest.raises(InputError) as caught:
            biounet.train(recipe, *folders)
        assert str(caught.value) in found
    return found


@pytest.mark.parametrize("how", ["enlarged", "mask", "simple segmentation", "255 where nobody looked", "background 1"])
def test_check_and_train_report_the_same_problems(tmp_path, field, how):
    spoilt = SPOILT[how](field).astype(np.uint16)
    assert len(said_by_both(data_set(tmp_path, spoilt, spoilt))) == 2


def test_check_shows_remarks(tmp_path, field):
    labels = field.astype(np.uint16)
    labels[0, 0] = 2
    (row, _) = check_data(*data_set(tmp_path, labels, labels.T.copy()), RECIPE).rows
    assert any("stray pixels" in note for note in row.notes)


def test_one_image_may_be_without_cells_but_not_all(tmp_path, field):
    labels = field.astype(np.uint16)
    assert not check_data(*data_set(tmp_path / "one", labels, 0 * labels), RECIPE).problems
    (problem,) = said_by_both(data_set(tmp_path / "none", 0 * labels, 0 * labels))
    assert problem.startswith("no annotation has an object (hint: ")


def test_partly_labelled_objects_need_background(tmp_path, field):
    objects = np.where(field > 0, field, U).astype(np.int16)
    (problem,) = [each for each in said_by_both(data_set(tmp_path / "a", objects)) if "background" in each]
    assert "label some voxels where no object is as 0" in problem
    tiles = SOUND["without background"](field).astype(np.uint16)
    assert not check_data(*data_set(tmp_path / "b", tiles), RECIPE).problems


@pytest.mark.parametrize("classes", [["cell", "background"], ["cell", "debris"]])
def test_scribbles_need_background(tmp_path, field, classes):
    strokes = np.zeros(field.shape, np.uint8)
    strokes[::9] = field[::9] > 0
    strokes[40] *= 2 if "debris" in classes else 1
    data = {"kind": "scribbles", "classes": classes}
    recipe = parse_recipe({**RECIPE.model_dump(), "data": data})
    (problem,) = said_by_both(data_set(tmp_path, strokes), recipe)
    assert problem.startswith("no annotation has a stroke of background")
    assert "a class called 'background'" in problem
