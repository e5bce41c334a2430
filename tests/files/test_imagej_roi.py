"""Outlines of ImageJ: written, opened with roifile, and read back as the same pixels."""

import struct
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import roifile
import tifffile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from roifile import ROI_OPTIONS, ROI_SUBTYPE, ROI_TYPE, ImagejRoi
from skimage.measure import grid_points_in_poly

from biounet.core import Grid, InputError
from biounet.files import LabelledImage, export_formats, write_export
from biounet.files.outlines.fill import fill
from biounet.files.outlines.imagej_roi import read_imagej_roi
from biounet.files.outlines.outline import Plane
from support.labelled_images import STACK, labelled_image, squares, time_series

(ROI,) = export_formats(["roi"])
DATA = Path(__file__).parents[3] / "shared" / "data"
RING = np.pad(np.pad([[0]], 2, constant_values=1), 1)
NECK = np.array([[1, 0, 0], [0, 1, 1], [0, 1, 0]], np.int32)


def bare(labels):
    columns = {"label": np.unique(labels[labels > 0])}
    return LabelledImage("a", labels.astype(np.int32), Grid(labels.shape), "objects", columns)


def exported(image, folder):
    return write_export(image, ROI, folder)


def read_back(path, shape):
    filled = fill(read_imagej_roi(path), shape)
    assert (filled.overlaps, filled.notes) == ((), ())
    return filled.labels


def save(path, *rois):
    if path.suffix == ".roi":
        rois[0].tofile(path)
    else:
        roifile.roiwrite(path, rois, name=[f"{n}-{roi.name}" for n, roi in enumerate(rois, 1)], mode="w")
    return path


def mask(path, roi, shape):
    return fill(read_imagej_roi(save(path, roi)), shape).labels > 0


@settings(max_examples=100, deadline=None)
@example(RING)
@example(NECK)
@given(hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=9), elements=st.integers(0, 3)))
def test_outlines_are_read_back_as_the_same_pixels(tmp_path_factory, labels):
    path = exported(bare(labels), tmp_path_factory.mktemp("out"))
    assert path.name == "a_rois.zip"
    if labels.any():
        np.testing.assert_array_equal(read_back(path, labels.shape), labels)
    else:
        with pytest.raises(InputError, match="holds no outline of ImageJ"):
            read_imagej_roi(path)


@pytest.mark.parametrize("kind", ["nuclei2d", "nuclei3d-embryo"])
def test_real_nuclei_are_read_back_as_the_same_pixels(kind, tmp_path):
    if not DATA.is_dir():
        pytest.skip("no real images in ../shared/data")
    paths = sorted((DATA / kind / "val" / "labels").iterdir())[:3]
    for path in paths:
        labels = tifffile.imread(path).astype(np.int32)
        np.testing.assert_array_equal(read_back(exported(bare(labels), tmp_path), labels.shape), labels)


def test_roifile_opens_what_is_written(tmp_path):
    image = labelled_image(squares((20, 30)), class_name="nucleus")
    rois = roifile.roiread(exported(image, tmp_path))
    assert len(rois) == 15
    first, second = rois[:2]
    assert (first.name, first.roitype, first.group) == ("nucleus 1", ROI_TYPE.TRACED, 0)
    assert second.coordinates().tolist() == [[7, 1], [11, 1], [11, 5], [7, 5]]
    assert (second.left, second.top, second.right, second.bottom) == (7, 1, 11, 5)
    assert second.properties["label"] == 2
    assert second.properties["class"] == "nucleus"
    assert second.properties["area_px"] == 16
    assert (first.position, first.c_position, first.z_position, first.t_position) == (0, 0, 0, 0)


@settings(max_examples=50, deadline=None)
@example(RING)
@example(NECK)
@given(hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3)))
def test_others_fill_what_roifile_reads_to_the_same_pixels(tmp_path_factory, labels):
    path, again = exported(bare(labels), tmp_path_factory.mktemp("out")), np.zeros_like(labels)
    for roi in roifile.roiread(path):
        rings = [grid_points_in_poly(labels.shape, ring[:, ::-1] - 0.5) for ring in roi.coordinates(multi=True)]
        again[np.logical_xor.reduce(rings)] = roi.properties["label"]
    np.testing.assert_array_equal(again, labels)


def test_holes_and_pieces_are_rings_of_a_composite(tmp_path):
    ring, neck = (roifile.roiread(exported(bare(labels), tmp_path))[0] for labels in (RING, NECK))
    assert [len(path) for path in ring.coordinates(multi=True)] == [5, 5]
    assert [path.tolist()[0] for path in neck.coordinates(multi=True)] == [[0, 0], [1, 1]]
    assert ring.composite
    assert (ring.left, ring.top, ring.right, ring.bottom) == (1, 1, 6, 6)


def test_each_slice_of_an_object_has_its_place(tmp_path):
    image = labelled_image(squares(STACK))
    rois = roifile.roiread(exported(image, tmp_path))
    assert len(rois) == 15 * 3
    assert [roi.name for roi in (rois[0], rois[15])] == ["0001-0003-0003 object 1", "0002-0003-0003 object 1"]
    assert [roi.z_position for roi in (rois[0], rois[-1])] == [1, 3]
    np.testing.assert_array_equal(read_back(tmp_path / "a_rois.zip", STACK), image.labels)


def test_frames_of_a_time_series_have_their_place(tmp_path):
    image = time_series()
    outlines = read_imagej_roi(exported(image, tmp_path))
    assert {outline.plane for outline in outlines} == {Plane(t=0), Plane(t=1), Plane(t=2)}
    frames = [[one for one in outlines if one.plane.t == t] for t in range(3)]
    np.testing.assert_array_equal([fill(frame, (20, 30)).labels for frame in frames], image.labels)
    assert roifile.roiread(tmp_path / "a_rois.zip")[-1].properties["t"] == 2


def test_frames_are_numbered_as_in_the_image_of_which_some_were_read(tmp_path):
    outlines = read_imagej_roi(exported(replace(time_series(), times=(5, 6, 7)), tmp_path))
    assert {outline.plane for outline in outlines} == {Plane(t=5), Plane(t=6), Plane(t=7)}


def test_classes_are_groups(tmp_path):
    labels = np.array([[1, 1, 0, 2], [1, 1, 0, 2], [0, 0, 0, 1]], np.int32)
    image = labelled_image(labels, kind="classes", class_names={1: "tumour", 2: "oedema/rim"})
    path = exported(image, tmp_path)
    assert [(roi.name, roi.group) for roi in roifile.roiread(path)] == [("tumour", 1), ("oedema-rim", 2)]
    outlines = read_imagej_roi(path)
    assert [outline.class_name for outline in outlines] == ["tumour", "oedema/rim"]
    assert [roi.properties["area_px"] for roi in roifile.roiread(path)] == [5, 2]
    np.testing.assert_array_equal(read_back(path, labels.shape), labels)


def test_the_same_results_are_the_same_bytes(tmp_path):
    image = labelled_image(squares((20, 30)))
    first = exported(image, tmp_path).read_bytes()
    assert exported(image, tmp_path).read_bytes() == first
    assert {entry.date_time for entry in zipfile.ZipFile(tmp_path / "a_rois.zip").infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("side", [59_000, 60_530, 65_535])
@pytest.mark.parametrize("axis", [0, 1])
def test_coordinates_are_exact_up_to_the_largest_size(tmp_path, side, axis):
    labels = np.zeros((side, 6), np.int32)
    labels[-4:-1, 1:3], labels[5:-5, 4:] = 1, 2
    labels = np.moveaxis(labels, 0, axis)
    path = exported(bare(labels), tmp_path)
    np.testing.assert_array_equal(read_back(path, labels.shape), labels)
    stored = roifile.roiread(path)[0].coordinates()
    assert stored[:, 1 - axis].max() == side - 1


def test_larger_images_are_refused_with_a_way_out(tmp_path):
    labels = np.zeros((1, 65_536), np.int32)
    with pytest.raises(InputError, match=r"is 65536 x 1 pixels.*65535 \(hint: the format geojson takes any size\)"):
        exported(bare(labels), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_outline_of_very_many_corners_is_a_composite(tmp_path):
    comb = np.zeros((3, 40_000), np.int32)
    comb[::2], comb[:, ::2] = [[1], [0]], 1
    path = exported(bare(comb), tmp_path)
    assert roifile.roiread(path)[0].composite
    np.testing.assert_array_equal(read_back(path, comb.shape), comb)


def pixels(condition, size=20):
    """Return where a condition on the centres of pixels holds."""
    y, x = np.mgrid[:size, :size] + 0.5
    return condition(y, x)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 5), (7, 7), (8, 8), (9, 16), (17, 4)])
def test_ovals_are_the_pixels_of_imagej(tmp_path, height, width):
    roi = ImagejRoi(roitype=ROI_TYPE.OVAL, top=1, left=2, bottom=1 + height, right=2 + width)
    expected = pixels(lambda y, x: ((y - 1) / height * 2 - 1) ** 2 + ((x - 2) / width * 2 - 1) ** 2 <= 1)
    np.testing.assert_array_equal(mask(tmp_path / "x.roi", roi, (20, 20)), expected)


def test_rectangles(tmp_path):
    plain = ImagejRoi(roitype=ROI_TYPE.RECT, top=1, left=2, bottom=7, right=10)
    np.testing.assert_array_equal(
        mask(tmp_path / "x.roi", plain, (20, 20)), pixels(lambda y, x: (y > 1) & (y < 7) & (x > 2) & (x < 10))
    )
    plain.rounded_rect_arc_size = 4
    corners = plain_corners = mask(tmp_path / "x.roi", plain, (20, 20))
    assert plain_corners.sum() == 48 - 4
    assert not corners[1, 2]
    assert corners[1, 3]
    fraction = ImagejRoi(roitype=ROI_TYPE.RECT, options=ROI_OPTIONS.SUB_PIXEL_RESOLUTION, top=1, bottom=5)
    fraction.left, fraction.right, fraction.xd, fraction.yd, fraction.widthd, fraction.heightd = 1, 4, 1.6, 1, 2, 3.4
    np.testing.assert_array_equal(
        mask(tmp_path / "x.roi", fraction, (20, 20)), pixels(lambda y, x: (y > 1) & (y < 4.4) & (x > 1.6) & (x < 3.6))
    )


def along_axis(subtype, ends, width):
    roi = ImagejRoi(roitype=ROI_TYPE.FREEHAND, subtype=subtype, n_coordinates=0)
    roi.x1, roi.y1, roi.x2, roi.y2 = ends
    roi.arrow_style_or_aspect_ratio, roi.arrow_head_size, roi.rounded_rect_arc_size = struct.unpack(
        ">BBh", struct.pack(">f", width)
    )
    roi.integer_coordinates = np.zeros((0, 2), np.int32)
    return roi


def test_rotated_rectangles_and_ellipses(tmp_path):
    ends = (3.0, 4.0, 15.0, 13.0)  # 15 long, along (4, 3) / 5

    def place(y, x):
        dx, dy = x - 9, y - 8.5
        return (0.8 * dx + 0.6 * dy) / 7.5, (0.8 * dy - 0.6 * dx) / 3

    rectangle = along_axis(ROI_SUBTYPE.ROTATED_RECT, ends, 6.0)
    expected = pixels(lambda y, x: np.maximum(*np.abs(place(y, x))) < 1)
    np.testing.assert_array_equal(mask(tmp_path / "x.roi", rectangle, (20, 20)), expected)
    ellipse = along_axis(ROI_SUBTYPE.ELLIPSE, ends, 0.4)
    filled = mask(tmp_path / "x.roi", ellipse, (20, 20))
    assert filled[pixels(lambda y, x: np.square(place(y, x)).sum(0) < 0.996)].all()  # a polygon of 72 corners
    assert not filled[pixels(lambda y, x: np.square(place(y, x)).sum(0) > 1)].any()


def test_fractions_of_pixels_are_kept(tmp_path):
    roi = ImagejRoi.frompoints(np.array([[1.4, 1.0], [5.6, 1.0], [5.6, 3.0], [1.4, 3.0]]))
    outline = read_imagej_roi(save(tmp_path / "x.roi", roi))[0]
    np.testing.assert_allclose(outline.rings[0][:, 1], [1.4, 5.6, 5.6, 1.4], atol=1e-6)
    assert fill([outline], (4, 8)).labels.tolist() == [[0] * 8, *[[0, 1, 1, 1, 1, 1, 0, 0]] * 2, [0] * 8]


def test_pixels_whose_centre_is_on_the_line_are_those_of_imagej(tmp_path):
    roi = ImagejRoi.frompoints(np.array([[0, 0], [4, 4], [0, 4]]))
    assert mask(tmp_path / "x.roi", roi, (4, 4)).astype(int).tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 1, 0],
        [1, 1, 1, 1],
    ]
    roi = ImagejRoi.frompoints(np.array([[0, 0], [4, 4], [4, 0]]))
    assert mask(tmp_path / "x.roi", roi, (4, 4)).astype(int).tolist() == [
        [0, 1, 1, 1],
        [0, 0, 1, 1],
        [0, 0, 0, 1],
        [0, 0, 0, 0],
    ]


def test_splines_bulge_between_their_points(tmp_path):
    points = np.array([[5, 5], [15, 5], [15, 15], [5, 15]])
    roi = ImagejRoi.frompoints(points)
    plain = mask(tmp_path / "x.roi", roi, (20, 20))
    roi.options |= ROI_OPTIONS.SPLINE_FIT
    fitted = mask(tmp_path / "x.roi", roi, (20, 20))
    # The closed cubic spline through the corners of a square of side 10 bulges by 15 / 8 px.
    within, beyond = (pixels(lambda y, x, r=r: np.hypot(y - 10, x - 10) < r) for r in (6.87, 7.08))
    assert plain.sum() == 100
    assert fitted[within].all()
    assert not fitted[~beyond].any()


def test_composites_with_curves(tmp_path):
    k = 4 * (2**0.5 - 1) / 3 * 8  # control points of a quarter of a circle of radius 8
    path = [0, 18, 10, 3, 18, 10 + k, 10 + k, 18, 10, 18, 3, 10 - k, 18, 2, 10 + k, 2, 10]
    path += [3, 2, 10 - k, 10 - k, 2, 10, 2, 3, 10 + k, 2, 18, 10 - k, 18, 10, 4]
    path += [0, 8, 8, 1, 12, 8, 1, 12, 12, 2, 10, 12, 8, 12, 4]
    roi = ImagejRoi(roitype=ROI_TYPE.RECT, multi_coordinates=np.array(path, np.float32), shape_roi_size=len(path))
    expected = pixels(lambda y, x: (np.hypot(y - 10, x - 10) < 8) & ((np.abs(y - 10) > 2) | (np.abs(x - 10) > 2)))
    np.testing.assert_array_equal(mask(tmp_path / "x.roi", roi, (20, 20)), expected)


def test_names_planes_and_groups(tmp_path):
    square = np.array([[0, 0], [2, 0], [2, 2], [0, 2]])
    stack = ImagejRoi.frompoints(square, name="Zelle ß", position=4)
    hyperstack = ImagejRoi.frompoints(square, name="b", c=1, z=2, t=0)
    grouped = ImagejRoi.frompoints(square, name="0001-0012-0034-1")
    grouped.group = hyperstack.group = 3
    first, second, third = read_imagej_roi(save(tmp_path / "x.zip", stack, hyperstack, grouped))
    assert (first.name, first.plane, first.class_name, first.object_number) == ("Zelle ß", Plane(z=4), "", None)
    assert (second.name, second.plane, second.class_name) == ("b", Plane(z=2, t=0, c=1), "")
    assert (third.plane, third.class_name) == (None, "group 3")  # where nobody gave it a name


def test_a_copied_outline_is_an_object_of_its_own(tmp_path):
    one, copy, other = (
        ImagejRoi(roitype=ROI_TYPE.RECT, name=name, left=x, right=x + 1, bottom=1, props=f"label: {label}\n")
        for name, x, label in (("a", 0, 5), ("b", 1, 5), ("c", 2, 9))
    )
    filled = fill(read_imagej_roi(save(tmp_path / "x.zip", one, copy, other)), (1, 4))
    assert np.unique(filled.labels).tolist() == [0, *sorted(filled.values.tolist())]
    assert len(set(filled.values.tolist())) == 3


def test_an_archive_that_is_called_like_a_single_outline_is_read(tmp_path):
    square = ImagejRoi.frompoints([[2, 1], [6, 1], [6, 4], [2, 4]])
    roifile.roiwrite(tmp_path / "a.roi", [square, square], name=["1", "2"])
    assert len(read_imagej_roi(tmp_path / "a.roi")) == 2


def test_points_and_lines_are_left_out_with_a_note(tmp_path):
    point, line, text = (ImagejRoi.frompoints(np.array([[0, 0], [3, 3]]), name=name) for name in ("p", "l", "t"))
    point.roitype, line.roitype = ROI_TYPE.POINT, ROI_TYPE.POLYLINE
    text = ImagejRoi(roitype=ROI_TYPE.RECT, subtype=ROI_SUBTYPE.TEXT, name="t", text="cell", bottom=3, right=3)
    area = ImagejRoi(roitype=ROI_TYPE.RECT, name="r", bottom=2, right=2)
    filled = fill(read_imagej_roi(save(tmp_path / "x.zip", point, area, line, text)), (4, 4))
    assert filled.notes == ("3 outlines (p, l, t): points or lines, which are no areas: left out",)
    assert filled.labels.sum() == 4
    with pytest.raises(InputError, match="holds 2 points or lines, and no area") as caught:
        read_imagej_roi(save(tmp_path / "y.zip", point, line))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_outlines_are_one_line(tmp_path):
    square = ImagejRoi.frompoints(np.array([[0, 0], [2, 0], [2, 2], [0, 2]]), name="s")
    whole = save(tmp_path / "x.roi", square).read_bytes()
    for name, data, text in (
        ("empty.roi", b"", "no outline of ImageJ"),
        ("text.roi", b"x" * 200, "no outline of ImageJ, or damaged"),
        ("cut.roi", whole[:70], "no outline of ImageJ, or damaged"),
        ("x.zip", b"PK\3\4 no archive", "cannot be read: BadZipFile"),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(InputError, match=text) as caught:
            read_imagej_roi(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    path = tmp_path / "others.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("table.csv", "a,b")
        archive.writestr("__MACOSX/._s.roi", b"x")
    with pytest.raises(InputError, match="holds no outline of ImageJ"):
        read_imagej_roi(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("s.roi", whole)
        archive.writestr("broken.roi", whole[:70])
    with pytest.raises(InputError, match=r"others\.zip: broken\.roi: no outline"):
        read_imagej_roi(path)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_files_are_errors_and_no_crashes(tmp_path_factory, data):
    roi = ImagejRoi.frompoints(np.array([[0, 0], [2, 0], [2, 2], [0, 2]]), name="s")
    content = bytearray(roi.tobytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.roi"
    path.write_bytes(content)
    with suppress(InputError):
        fill(read_imagej_roi(path), (4, 4))
