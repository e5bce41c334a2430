"""Time series and stacks: frames that are taken, and one image made of the planes."""

import numpy as np
import pytest
import tifffile

from biounet.core import InputError, SettingsError
from biounet.files import IsolatedReader, ReadOptions, inspect_volume, read_volume, write_labels
from biounet.files.stacks import as_frames, focused_planes, project_planes, select_frames

MOVIE = np.random.default_rng(0).integers(0, 60000, (5, 20, 30)).astype(np.uint16)  # t y x
STACKS = np.random.default_rng(1).integers(0, 60000, (3, 4, 2, 20, 30)).astype(np.uint16)  # t z c y x


@pytest.fixture
def movie(tmp_path):
    path = tmp_path / "movie.tif"
    metadata = {"axes": "TYX", "unit": "um", "finterval": 90.0}
    tifffile.imwrite(path, MOVIE, imagej=True, resolution=(2.0, 2.0), metadata=metadata)
    return path


@pytest.fixture
def stacks(tmp_path):
    path = tmp_path / "stacks.tif"
    tifffile.imwrite(path, STACKS, imagej=True, metadata={"axes": "TZCYX"})
    return path


def refusal(path, **options):
    with pytest.raises(InputError) as caught:
        read_volume(path, ReadOptions(**options))
    with pytest.raises(InputError) as header:
        inspect_volume(path, ReadOptions(**options))
    assert str(header.value) == str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("frames", "numbers"),
    [("all", (0, 1, 2, 3, 4)), ("3", (3,)), (3, (3,)), ("1:3", (1, 2)), (":2", (0, 1)), ("4:", (4,))],
)
def test_frames_are_numbered_from_0(movie, frames, numbers):
    volume = read_volume(movie, ReadOptions(frames=frames))
    assert volume.times == numbers
    assert (volume.grid.shape, volume.grid.spacing, volume.interval) == ((20, 30), (0.5, 0.5), 90.0)
    np.testing.assert_array_equal(volume.array, MOVIE[None, list(numbers)])
    np.testing.assert_array_equal(volume.frame(0).array, MOVIE[None, numbers[0]])


@pytest.mark.parametrize("frames", ["", "x", "-1", "1:1", ":0", "3:2", "0:5:2", -1, 1.5, True, [1]])
def test_what_names_no_frames_is_refused(frames):
    with pytest.raises(SettingsError, match="all, a number from 0, or start:stop"):
        as_frames(frames)


@pytest.mark.parametrize("frames", ["5", "0:6", "5:", "7:9"])
def test_frames_beyond_the_end_are_refused_with_their_number(movie, frames):
    assert f"{frames}: there are 5, from 0 to 4" in refusal(movie, frames=frames)


def test_frames_are_those_of_a_slice():
    for start in range(5):
        for stop in range(start + 1, 6):
            assert list(select_frames(f"{start}:{stop}", 5, "x")) == [*range(5)[start:stop]]


def test_time_series_and_stacks_that_are_none(tmp_path, movie, stacks):
    image, pages = tmp_path / "image.tif", tmp_path / "pages.tif"
    tifffile.imwrite(image, MOVIE[0])
    tifffile.imwrite(pages, MOVIE, metadata=None, photometric="minisblack")
    assert "this is not a time series (axes YX" in refusal(image, frames="all")
    assert "this is not a stack (axes YX" in refusal(image, project="max")
    assert "this is not a stack (axes TYX" in refusal(movie, project="max", frames="all")
    assert "if its pages are times, say --axes TYX" in refusal(pages, frames="all")
    assert "if its pages are planes, say --axes ZYX" in refusal(pages, project="max")
    assert "choose one with --plane; segment counts in each with --frames all" in refusal(movie)
    assert "along T and Z" in refusal(stacks)
    assert "4 planes" in refusal(stacks, frames="all")
    assert read_volume(pages, ReadOptions(frames="all", axes="TYX")).times == (0, 1, 2, 3, 4)


def test_a_projection_makes_images_for_models_of_images():
    for options in ({"project": "max", "dims": 3}, {"project": "max", "plane": 1}, {"project": "median"}):
        with pytest.raises(SettingsError):
            ReadOptions(**options)


@pytest.mark.parametrize("how", ["max", "mean"])
def test_projections_are_those_of_numpy(stacks, how):
    volume = read_volume(stacks, ReadOptions(frames="1:3", project=how, channel=1))
    expected = getattr(STACKS[1:, :, 1], how)(axis=1)[None]
    assert volume.array.dtype == (np.float32 if how == "mean" else np.uint16)
    np.testing.assert_array_equal(volume.array, expected.astype(volume.array.dtype))
    info = inspect_volume(stacks, ReadOptions(frames="1:3", project=how, channel=1))
    assert (info.times, info.grid, np.dtype(info.dtype)) == ((1, 2), volume.grid, volume.array.dtype)


def test_a_mean_is_exact_where_a_sum_of_32_bits_is_not():
    planes = np.full((1, 3, 1, 1), 2**24, np.uint32)
    planes[0, 0] += 1
    assert project_planes(planes, "mean").dtype == np.float32
    wide = np.array([2**40 + 1, 2**40, 2**40 + 2], np.uint64).reshape(1, 3, 1, 1)
    assert project_planes(wide, "mean")[0, 0, 0] == 2**40 + 1


def test_the_plane_in_focus_is_the_sharpest_of_each_frame():
    """Discs that are sharp in one plane and blurred the farther from it, with the noise of a camera."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    sharp = (rng.random((64, 64)) > 0.97).astype(float)
    sharp = 2000 * (gaussian_filter(sharp, 2) > 0.02)
    stack = np.empty((1, 2, 7, 64, 64), np.uint16)
    for t, focus in enumerate((2, 5)):
        for z in range(7):
            light = gaussian_filter(sharp, 0.5 + 1.5 * abs(z - focus)) + 100
            stack[0, t, z] = np.clip(rng.poisson(light) + rng.normal(0, 5, light.shape), 0, None)
    planes = focused_planes(stack)
    assert planes.tolist() == [2, 5]
    np.testing.assert_array_equal(project_planes(stack, "focus", planes), np.stack([stack[:, 0, 2], stack[:, 1, 5]], 1))
    assert focused_planes(stack[:, 1]).tolist() == [5]
    assert focused_planes(np.zeros((1, 3, 8, 8))).tolist() == [0]


def test_one_file_per_channel_shares_the_plane_in_focus(tmp_path):
    flat = np.zeros((4, 16, 16), np.uint8)
    first, second = flat.copy(), flat.copy()
    first[1, ::4], second[3, ::4], second[1] = 200, 200, 7
    for name, stack in (("a.tif", first), ("b.tif", second)):
        tifffile.imwrite(tmp_path / name, stack, imagej=True, metadata={"axes": "ZYX"})
    volume = read_volume([tmp_path / "a.tif", tmp_path / "b.tif"], ReadOptions(project="focus"))
    np.testing.assert_array_equal(volume.array, [first[1], second[1]])
    (note,) = (note for note in volume.notes if note.startswith("in focus"))
    assert (note, note.severity) == ("in focus: plane 1 of 4, counted from 0", "information")


def test_isolated_readers_give_the_same_time_series(stacks):
    options = ReadOptions(frames="0:2", project="focus", channel=0)
    with IsolatedReader() as reader:
        volume, (header, _) = reader.read(stacks, options), reader.read_header(stacks, options)
    expected = read_volume(stacks, options)
    np.testing.assert_array_equal(volume.array, expected.array)
    assert (volume.times, volume.grid) == (header.times, header.grid) == ((0, 1), expected.grid)
    assert header.array.shape == expected.array.shape == (1, 2, 20, 30)


@pytest.mark.parametrize("largest", [9, 70_000])
def test_labels_of_a_time_series_open_as_one(tmp_path, movie, largest):
    volume = read_volume(movie, ReadOptions(frames="1:4"))
    labels = np.zeros((3, 20, 30), np.int32)
    labels[2, 3, 4] = largest
    write_labels(tmp_path / "labels.tif", labels, volume, "objects")
    again = read_volume(tmp_path / "labels.tif", ReadOptions(frames="all"))
    np.testing.assert_array_equal(again.array[0], labels)
    assert (again.grid.spacing, again.interval, again.times) == ((0.5, 0.5), 90.0, (0, 1, 2))


def test_labels_of_volumes_over_time_open_as_such(tmp_path, stacks):
    volume = read_volume(stacks, ReadOptions(frames="all", dims=3, channel=0, spacing=(2, 1, 1)))
    labels = np.arange(3 * 4 * 600).reshape(3, 4, 20, 30)
    write_labels(tmp_path / "labels.tif", labels, volume)
    again = read_volume(tmp_path / "labels.tif", ReadOptions(frames="all", dims=3))
    np.testing.assert_array_equal(again.array[0], labels)
    assert again.grid.spacing == (2, 1, 1)
