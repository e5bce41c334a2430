"""Channels: names from files and users, the one that is segmented and those that are measured, pictures of grey."""

import warnings

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from biounet.core import InputError, SettingsError, find_warnings, note_code
from biounet.files import IsolatedReader, ReadOptions, read_volume
from biounet.files.channels import clean_name, is_clean_name
from biounet.files.read import read_header

NAMES = ("DAPI", "GFP", "RFP")
PLANES = np.random.default_rng(0).integers(1, 60000, (3, 21, 17)).astype(np.uint16)
LABELS = [f"c:{n}/3 - {name}" for n, name in enumerate(NAMES, 1)]


@pytest.fixture(scope="module")
def reader():
    with IsolatedReader() as reader:
        yield reader


def write(path, array, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tifffile.imwrite(path, array, **how)
    return path


def write_imagej(path, array, axes="CYX", **metadata):
    return write(path, array, imagej=True, metadata={"axes": axes, **metadata})


def write_ome(path, array, axes="CYX", names=NAMES):
    return write(path, array, ome=True, metadata={"axes": axes, "Channel": {"Name": list(names)}})


def read(path, **options):
    return read_volume(path, ReadOptions(**options))


def failure(path, **options):
    with pytest.raises(InputError) as caught:
        read(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def expand(axes):
    """The planes of the channels with the axes of length 1 that a file may have."""
    return PLANES[tuple(slice(None) if letter in "CYX" else None for letter in axes)]


NAMED = {
    "ImageJ labels": lambda path, dtype: write_imagej(path, PLANES.astype(dtype), Labels=list(NAMES)),
    "ImageJ positions": lambda path, dtype: write_imagej(path, PLANES.astype(dtype), Labels=LABELS),
    "ImageJ hyperstack": lambda path, dtype: write_imagej(path, expand("TZCYX").astype(dtype), "TZCYX", Labels=LABELS),
    "OME": lambda path, dtype: write_ome(path, PLANES.astype(dtype)),
    "OME with z and t": lambda path, dtype: write_ome(path, expand("TCZYX").astype(dtype), "TCZYX"),
    "Zeiss in Info": lambda path, dtype: write_imagej(
        path,
        PLANES.astype(dtype),
        Info="".join(f"Information|Image|Channel|Name #{n} = {name}\n" for n, name in enumerate(NAMES, 1)),
    ),
    "Micro-Manager in Info": lambda path, dtype: write_imagej(
        path, PLANES.astype(dtype), Info='{"Prefix":"x","ChNames":["DAPI", "GFP", "RFP"],"Slices":1}'
    ),
}


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("write_named", NAMED.values(), ids=NAMED.keys())
def test_a_channel_is_segmented_and_others_are_measured_by_the_names_in_the_file(tmp_path, write_named, dtype):
    planes = PLANES.astype(dtype)
    path = write_named(tmp_path / "x.tif", dtype)
    assert read(path).channel_names == NAMES
    volume = read(path, channel="GFP", measure=("all",))
    np.testing.assert_array_equal(volume.array, planes[1:2], strict=True)
    assert volume.channel_names == ("GFP",)
    assert list(volume.measured) == ["DAPI", "RFP"]
    np.testing.assert_array_equal(volume.measured["RFP"], planes[2], strict=True)


# options, names of the segmented channels, numbers of those, numbers of the measured by name
CHOICES = {
    "all": ({}, NAMES, [0, 1, 2], {}),
    "by number": ({"channel": 2, "measure": (0,)}, ("RFP",), [2], {"DAPI": 0}),
    "any capitals": ({"channel": "dapi", "measure": ("gFp",)}, ("DAPI",), [0], {"GFP": 1}),
    "the segmented one, too": ({"channel": "DAPI", "measure": ("DAPI", "RFP")}, ("DAPI",), [0], {"RFP": 2}),
    "one twice": ({"channel": "DAPI", "measure": ("GFP", 1)}, ("DAPI",), [0], {"GFP": 1}),
    "in their order": ({"channel": 1, "measure": ("RFP", "DAPI")}, ("GFP",), [1], {"RFP": 2, "DAPI": 0}),
    "other names": ({"channels": ("a", "b", "c"), "channel": "c", "measure": ("a",)}, ("c",), [2], {"a": 0}),
    "all of none": ({"measure": ("all",)}, NAMES, [0, 1, 2], {}),
}


@pytest.mark.parametrize("case", CHOICES.values(), ids=CHOICES.keys())
def test_what_is_chosen(tmp_path, case):
    options, names, segmented, measured = case
    volume = read(write_ome(tmp_path / "x.tif", PLANES), **options)
    np.testing.assert_array_equal(volume.array, PLANES[segmented])
    assert volume.channel_names == names
    assert list(volume.measured) == list(measured)
    for name, number in measured.items():
        np.testing.assert_array_equal(volume.measured[name], PLANES[number])


def test_channels_without_names_are_numbered(tmp_path):
    path = write_imagej(tmp_path / "x.tif", PLANES)
    volume = read(path, channel=0, measure=("all",))
    assert volume.channel_names == ()
    assert list(volume.measured) == ["channel_1", "channel_2"]
    assert (
        "have no names: give a number from 0; segment and measure take names of the channels with --channels"
        in failure(path, channel="DAPI")
    )


def test_names_of_a_file_that_are_equal_get_their_numbers(tmp_path):
    path = write_ome(tmp_path / "x.tif", PLANES, names=["DAPI", "GFP", "GFP"])
    assert list(read(path, channel="DAPI", measure=("all",)).measured) == ["GFP_1", "GFP_2"]
    assert "2 channels are called 'GFP'" in failure(path, channel="DAPI", measure=("GFP",))


def test_names_that_are_numbers_are_not_taken_for_positions(tmp_path):
    path = write_ome(tmp_path / "x.tif", PLANES, names=["405", "488", "1"])
    assert read(path, channel=488).channel_names == ("488",)
    assert read(path, channel=0).channel_names == ("405",)
    assert "channel 1 is called '488', and '1' is another channel" in failure(path, channel=1)


def test_names_are_one_printable_line(tmp_path):
    path = write_ome(tmp_path / "x.tif", PLANES, names=["a\tb", "  ", "c" * 1000])
    assert read(path).channel_names == ("a b", "channel_1", "c" * 100)


@given(st.text(max_size=300))
def test_a_clean_name_is_a_printable_line_and_stays_as_it_is(name):
    cleaned = clean_name(name)
    assert clean_name(cleaned) == cleaned == cleaned.strip()
    assert cleaned.isprintable()
    assert len(cleaned) <= 100
    assert is_clean_name(cleaned) == bool(cleaned)


@pytest.mark.parametrize("name", ["x" * 99 + " y", "x" * 200, "a\nb", " a "])
def test_any_name_of_a_file_comes_through_the_other_process(tmp_path, reader, name):
    path = write_ome(tmp_path / "x.tif", PLANES, names=[name, name, "c"])
    options = ReadOptions(channel=2, measure=("all",))
    assert list(reader.read(path, options).measured) == list(read_volume(path, options).measured)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channel": "CY5"}, "no channel is called 'CY5' (hint: the channels are DAPI, GFP, RFP"),
        ({"channel": 0, "measure": ("CY5",)}, "no channel is called 'CY5' (hint: the channels are DAPI, GFP, RFP"),
        ({"channel": 3}, "no channel 3: there are 3 (hint: the channels are DAPI, GFP, RFP, counted from 0)"),
        ({"channel": -1}, "no channel -1"),
        ({"channels": ("DAPI", "GFP")}, "3 channels, and 2 names (DAPI, GFP)"),
    ],
    ids=str,
)
def test_a_channel_that_is_not_there_lists_those_that_are(tmp_path, options, message):
    assert message in failure(write_ome(tmp_path / "x.tif", PLANES), **options)


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": "DAPI"},
        {"channels": ()},
        {"channels": ("DAPI", " ")},
        {"channels": ("DAPI", "dapi")},
        {"channels": ("DAPI", "all")},
        {"channels": (1, 2)},
        {"measure": ("GFP", "GFP")},
        {"measure": (0, 0)},
        {"measure": (1.5,)},
        {"measure": ("",)},
    ],
    ids=str,
)
def test_names_that_cannot_be_are_refused_before_any_file_is_read(wrong):
    with pytest.raises(SettingsError):
        ReadOptions(**wrong)


@pytest.mark.parametrize("count", [2, 3])
def test_names_say_that_pages_are_channels(tmp_path, count):
    path = write(tmp_path / "x.tif", PLANES[:count], metadata=None, photometric="minisblack")
    volume = read(path, channels=NAMES[:count], channel="GFP")
    np.testing.assert_array_equal(volume.array, PLANES[1:2])
    assert "does not say" in failure(path, channels=NAMES[: count - 1])


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_a_stack_of_three_planes_is_only_called_rgb_if_the_file_says_so(tmp_path, dtype):
    planes = PLANES.astype(dtype)
    by_default = write(tmp_path / "planes.tif", planes)  # tifffile declares any three planes to be RGB
    assert "does not say" in failure(by_default)
    colours = write(tmp_path / "rgb.tif", planes.transpose(1, 2, 0).copy(), photometric="rgb")
    assert read(colours).channel_names == ("red", "green", "blue")
    np.testing.assert_array_equal(read(colours, channel="green").array, planes[1:2])
    grey = write(
        tmp_path / "grey.tif", planes.transpose(1, 2, 0).copy(), photometric="minisblack", planarconfig="contig"
    )
    assert read(grey).channel_names == ()


GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)
ZERO = np.zeros_like(GREY)
PICTURES = {
    "equal": ((GREY, GREY, GREY), GREY, "red, green and blue are equal: read as grey"),
    "green only": ((ZERO, GREY, ZERO), GREY, "only green holds an image: read as grey"),
    "on a tint": ((GREY, ZERO + 7, ZERO + 9), GREY, "only red holds an image: read as grey"),
    "black": ((ZERO, ZERO, ZERO), ZERO, "red, green and blue are equal: read as grey"),
    "an empty exposure": ((ZERO, ZERO, ZERO + 3), ZERO + 3, "only blue holds an image: read as grey"),
}


@pytest.mark.parametrize(
    ("kind", "case"),
    # A palette of nothing but greys is grey without any channel.
    [
        (kind, case)
        for kind in ("tif", "png", "palette")
        for case in PICTURES.values()
        if kind != "palette" or case[2][:4] == "only"
    ],
    ids=lambda one: one if isinstance(one, str) else one[2],
)
def test_a_picture_in_colours_that_holds_grey_is_read_as_grey(tmp_path, case, kind):
    colours, expected, text = case
    path, picture = tmp_path / f"x.{kind.replace('palette', 'png')}", Image.fromarray(np.dstack(colours))
    (picture.quantize(256) if kind == "palette" else picture).save(path)
    volume = read(path, inputs=1)
    np.testing.assert_array_equal(volume.array, expected[None])
    note = next(note for note in volume.notes if note == text)
    assert not find_warnings([note])  # it says what was done, and is no reason to look at the image
    assert read(path, inputs=3).channels == read(path).channels == 3
    header, _ = read_header(path, ReadOptions(inputs=1))
    assert header.array.shape == volume.array.shape
    assert note in header.notes


def test_a_picture_in_colours_stays_one(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(np.dstack([GREY, GREY + 1, ZERO])).save(path)
    assert read(path, inputs=1).array.shape == (3, 3, 4)
    np.testing.assert_array_equal(read(path, inputs=1, channel="red", measure=("all",)).measured["green"], GREY + 1)


@pytest.fixture
def files(tmp_path):
    """One file for each channel."""
    return [write(tmp_path / f"{name}.tif", plane) for name, plane in zip(NAMES, PLANES, strict=True)]


def test_files_are_channels_by_their_names(files):
    volume = read(files, channels=NAMES, channel="RFP", measure=("DAPI",))
    np.testing.assert_array_equal(volume.array, PLANES[2:])
    np.testing.assert_array_equal(volume.measured["DAPI"], PLANES[0])
    assert (volume.channel_names, volume.source) == (("RFP",), files[0])
    assert read(files, channels=NAMES).channel_names == NAMES
    np.testing.assert_array_equal(read(files).array, PLANES)


def test_a_file_whose_channel_is_not_used_is_not_read(files):
    files[1].write_bytes(b"damaged")
    assert list(read(files, channels=NAMES, channel=0, measure=(2,)).measured) == ["RFP"]
    assert "not a TIFF" in failure(files, channels=NAMES, channel=0, measure=("all",))


def test_measured_files_of_other_types_keep_their_values(files):
    write(files[1], PLANES[1].astype("f4") / 7)
    volume = read(files, channels=NAMES, channel=0, measure=("all",))
    assert [channel.dtype for channel in volume.measured.values()] == ["f4", "u2"]
    np.testing.assert_array_equal(volume.measured["GFP"], PLANES[1].astype("f4") / 7)


def test_an_empty_channel_that_is_only_measured_is_no_reason_to_look(files):
    write(files[1], np.zeros_like(PLANES[1]))
    assert not any("constant" in note for note in read(files, channels=NAMES, channel=0, measure=("all",)).notes)
    assert any("constant" in note for note in read(files, channels=NAMES, channel=1).notes)


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        (PLANES[1, :-1], "not on the grid of"),
        (PLANES.transpose(1, 2, 0), "3 channels, where each file is one"),
        (np.full_like(PLANES[1], np.nan, "f4"), "357 of 357 pixels are NaN or infinite"),
    ],
    ids=["grid", "colours", "NaN"],
)
def test_files_of_channels_that_do_not_fit_are_errors(files, spoilt, message):
    write(files[1], spoilt, **({"photometric": "rgb"} if spoilt.ndim == 3 else {}))
    assert message in failure(files, channels=NAMES, channel=0, measure=("GFP",))


def test_nan_in_a_measured_channel_says_in_which(tmp_path):
    planes = PLANES.astype("f4")
    planes[2, 0, 0] = np.nan
    path = write_ome(tmp_path / "x.tif", planes)
    message = failure(path, channel="DAPI", measure=("all",))
    assert "1 of 357 pixels of channel 'RFP' are NaN or infinite" in message


READS = [
    {"channel": "GFP", "measure": ("all",)},
    {"channels": ("ä", "β", "c=1/2"), "channel": "β", "measure": ("c=1/2", "ä")},
    {},
]


@pytest.mark.parametrize("options", READS, ids=str)
@pytest.mark.parametrize("several", [False, True], ids=["one file", "files"])
def test_another_process_reads_the_same(tmp_path, reader, files, options, several):
    given = files if several else write_ome(tmp_path / "x.tif", PLANES)
    options = ReadOptions(**({"channels": NAMES} | options if several else options))
    here, there = read_volume(given, options), reader.read(given, options)
    header, again = reader.read_header(given, options)[0], read_header(given, options)[0]
    for volume in (there, header, again):
        assert (volume.channel_names, list(volume.measured)) == (here.channel_names, list(here.measured))
        assert volume.source == here.source
        assert volume.array.shape == here.array.shape
        assert [m.dtype for m in volume.measured.values()] == [m.dtype for m in here.measured.values()]
        assert [*map(note_code, volume.notes)] == [*map(note_code, here.notes)]
    for name, channel in here.measured.items():
        np.testing.assert_array_equal(there.measured[name], channel)
        assert there.measured[name].flags.writeable
        assert not header.measured[name].any()
