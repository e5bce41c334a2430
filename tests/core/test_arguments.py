"""Arguments of the public functions: each does what it says for every kind of image, or is refused in one line."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import biounet
from biounet.core import (
    BiounetError,
    DataSettings,
    Grid,
    InputError,
    Note,
    NoteCode,
    SettingsError,
    Volume,
    require_extra,
)
from biounet.files import ReadOptions, read_volume
from biounet.segmentation import SegmentOptions

IMAGE = np.random.default_rng(0).integers(0, 4000, (24, 20)).astype(np.uint16)
TWO = np.stack([IMAGE, IMAGE[::-1]])
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def segmenter(untrained):
    return biounet.Segmenter(untrained, "cpu")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("arguments") / "two.tif"
    tifffile.imwrite(path, TWO, metadata={"axes": "CYX"}, ome=False, imagej=True)
    return path


def forms(file):
    """Return one image of two channels as a file, an array and a volume."""
    return {"file": file, "array": TWO, "volume": read_volume(file)}


@pytest.mark.parametrize("spacing", [1e-300, 1e300, (0.5, 1e-10)])
def test_a_pixel_size_that_no_microscope_has_is_refused(segmenter, file, spacing):
    with pytest.raises(SettingsError, match="no pixel is that small or large"):
        segmenter.segment(file, channel=0, spacing=spacing)


@pytest.mark.parametrize("form", ["file", "array", "volume"])
@pytest.mark.parametrize("channel", [0, 1, np.int64(1)])
def test_a_channel_is_chosen_from_every_kind_of_image(segmenter, file, form, channel):
    found = segmenter.segment(forms(file)[form], channel=channel)
    np.testing.assert_array_equal(found.volume.array, TWO[[channel]])


@pytest.mark.parametrize("form", ["file", "array", "volume"])
@pytest.mark.parametrize(("channel", "words"), [(2, "no channel 2"), (-1, "no channel -1"), ("GFP", "called 'GFP'")])
def test_a_missing_channel_is_an_error_for_every_kind_of_image(segmenter, file, form, channel, words):
    with pytest.raises(InputError, match=words):
        segmenter.segment(forms(file)[form], channel=channel)


@pytest.mark.parametrize("form", ["file", "array", "volume"])
@pytest.mark.parametrize("spacing", [0.65, np.float32(0.65), (0.65, 0.65), [0.65, 0.65], np.full(2, 0.65)])
def test_a_pixel_size_applies_to_every_kind_of_image(segmenter, file, form, spacing):
    grid = segmenter.segment(forms(file)[form], channel=0, spacing=spacing).volume.grid
    assert (grid.unit, grid.spacing) == ("um", pytest.approx((0.65, 0.65)))


def test_a_pixel_size_replaces_that_of_a_volume_and_its_remark(segmenter):
    notes = (Note("pixel size unknown", NoteCode.VOXEL_SIZE_UNKNOWN), "something else")
    volume = Volume(IMAGE[None], Grid(IMAGE.shape), notes=notes)
    assert segmenter.segment(volume, spacing=2).volume.notes == ("something else",)
    known = Volume(IMAGE[None], Grid(IMAGE.shape, (1.0, 1.0), "mm"))
    assert segmenter.segment(known, spacing=2).volume.grid == Grid(IMAGE.shape, (2.0, 2.0), "mm")


@pytest.mark.parametrize("axes", ["CYX", "YXC", "yxc", "YCX", "XYC"])
def test_axes_apply_to_arrays_and_files(segmenter, tmp_path, axes):
    array = TWO.transpose(["CYX".index(letter) for letter in axes.upper()])
    tifffile.imwrite(tmp_path / "x.tif", array, photometric="minisblack", planarconfig="separate")
    for image in (np.ascontiguousarray(array), array, tmp_path / "x.tif"):
        found = segmenter.segment(image, axes=axes, channel=1)
        np.testing.assert_array_equal(found.volume.array, TWO[1:])


def test_wrong_axes_are_refused(segmenter, file):
    with pytest.raises(InputError, match="axes YX do not fit"):
        segmenter.segment(TWO, axes="YX", channel=0)
    with pytest.raises(SettingsError, match="a Volume has its axes"):
        segmenter.segment(read_volume(file), axes="CYX", channel=0)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["", ".", "\0", "x.tif", "²", "C", "nuclei", "auto", "cuda:99", "meta", b"x", 1j, object(), int]),
    st.lists(st.one_of(st.integers(-1, 3), st.floats(), st.text(max_size=2), st.none()), max_size=4),
    st.lists(st.floats(0.1, 5), min_size=2, max_size=3).map(tuple),
    st.sampled_from([Path(), np.zeros((2, 2)), np.array("x"), np.array(2.0), np.array([0.5, 0.5])]),
    st.sampled_from([{}, {"a": 1}, set()]),
)
TYPES = ["?", "i1", ">u2", "u4", "i8", "u8", "f2", ">f4", "f8", "g", "F", "O", "S3", "U2", "M8[s]", "V4"]
ARRAYS = st.tuples(st.lists(st.integers(0, 20), max_size=5), st.sampled_from(TYPES)).map(
    lambda drawn: np.zeros(drawn[0], drawn[1])
)
IMAGES = st.one_of(JUNK, ARRAYS, st.sampled_from([IMAGE, TWO, [IMAGE, IMAGE], [[1, 2], [3, 4]]]))
SENSIBLE = st.sampled_from([IMAGE, TWO, Volume(TWO, Grid(IMAGE.shape)), np.ma.masked_equal(IMAGE, IMAGE[0, 0])])


def only_ours(call):
    """Make a call that may raise an error of biounet, which is one line; any other fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call()
        except BiounetError as error:
            lines = str(error).splitlines()
        else:
            lines = [""]
    assert len(lines) == 1


@QUICK
@given(image=st.one_of(IMAGES, SENSIBLE), spacing=JUNK, axes=JUNK, channel=JUNK)
def test_segment_raises_only_errors_of_biounet(segmenter, image, spacing, axes, channel):
    only_ours(lambda: segmenter.segment(image, spacing=spacing, axes=axes, channel=channel))


@QUICK
@given(image=SENSIBLE, name=st.sampled_from(["spacing", "axes", "channel"]), value=JUNK)
def test_odd_arguments_raise_only_errors_of_biounet(segmenter, image, name, value):
    only_ours(lambda: segmenter.segment(image, **{"channel": 0, name: value}))


@QUICK
@given(block=JUNK, diameter=JUNK, size=st.integers(1, 40))
def test_options_raise_only_errors_of_biounet(segmenter, block, diameter, size):
    only_ours(lambda: segmenter.segment(IMAGE[:size], options=SegmentOptions(block=block, diameter=diameter)))


@pytest.fixture(scope="module")
def saved(segmenter, tmp_path_factory):
    """A model file, and a result."""
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    segmenter.save(path)
    return path, segmenter.segment(IMAGE)


@QUICK
@given(given=JUNK, other=JUNK)
def test_public_functions_raise_only_errors_of_biounet(saved, tmp_path_factory, given, other):
    model, result = saved
    calls = [
        lambda: biounet.load(given, other).segment(IMAGE),
        lambda: biounet.load(model, other),
        lambda: biounet.read_volume(given),
        lambda: biounet.read_volume(given, ReadOptions(dims=other)),
        lambda: biounet.train(given, images="nowhere", labels=other),
        lambda: biounet.train("nuclei_2d", images="nowhere", labels=given, minutes=other),
        lambda: biounet.train("nuclei_2d", images="nowhere", epochs=given, validation=other),
        lambda: biounet.train("nuclei_2d", images="nowhere", start=given),
        lambda: biounet.evaluate("nowhere", given, DataSettings(), other),
        lambda: biounet.evaluate(given, "nowhere", DataSettings()),
        lambda: result.save(tmp_path_factory.mktemp("saved"), given),
    ]
    for call in calls:
        only_ours(call)


@pytest.mark.parametrize("package", ["no_such_package", "no_such_package.part", "numpy.no_such_part"])
def test_a_package_that_is_not_installed_is_named_with_its_extra(package):
    text = rf"DICOM needs {package}, which is not installed \(hint: pip install 'biounet\[dicom\]'\)"
    with pytest.raises(SettingsError, match=rf"^{text}$"):
        require_extra("dicom", package, "DICOM")
    with pytest.raises(InputError, match=rf"^x\.dcm: {text}$"):
        require_extra("dicom", package, "DICOM", "x.dcm")


def test_a_package_that_is_installed_is_no_error():
    require_extra("dicom", "numpy.linalg", "DICOM")
