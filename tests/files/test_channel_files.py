"""Files that are one channel each: which belong together, and when they are left as they are."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import tifffile

from biounet.core import InputError, SettingsError
from biounet.files import ReaderPool, ReadOptions, describe_channel_files, find_images
from biounet.files.dataset_index.channel_files import join_channel_files

ONE = ReadOptions(inputs=1, channel=0)
GUIDS = [f"{n:08X}-89AB-CDEF-0123-456789ABCDEF" for n in range(9)]


@pytest.fixture(scope="module")
def readers():
    with ReaderPool() as readers:
        yield readers


def joined(images, options, readers):
    """Files and channels by the name of each image."""
    return {
        image.relative.as_posix(): ([file.name for file in (image.path, *image.others)], image.channels)
        for image in join_channel_files(images, options, readers)
    }


# names of files; images that they are, with the names of the channels
PATTERNS = {
    "MetaXpress": (["A01_w1.tif", "A01_w2.tif", "A02_w1.tif", "A02_w2.tif"], {"A01": "w1 w2", "A02": "w1 w2"}),
    "MetaMorph": (["x_w1DAPI_s1.TIF", "x_w2Cy 5_s1.TIF"], {"x_s1": "DAPI Cy 5"}),
    "MetaXpress with identifiers": ([f"A01_s1_w{n}{GUIDS[n]}.tif" for n in (1, 2)], {"A01_s1": "w1 w2"}),
    "equal names of settings": (["x_w1Confocal.tif", "x_w2Confocal.tif"], {"x": "Confocal_1 Confocal_2"}),
    "Leica": (["cells_ch00.tif", "cells_ch01.tif", "cells_ch02.tif"], {"cells": "ch00 ch01 ch02"}),
    "Opera": ([f"r01c02f03p01-ch{n}sk1fk1fl1.tiff" for n in (1, 2)], {"r01c02f03p01_sk1fk1fl1": "ch1 ch2"}),
    "dashes": (["a-ch1.tif", "a-ch2.tif"], {"a": "ch1 ch2"}),
    "Bio-Formats": (["a_C0.tif", "a_C1.tif"], {"a": "C0 C1"}),
    "Bio-Formats with signs": (["a_Z=0_C=0_T=0.tif", "a_Z=0_C=1_T=0.tif"], {"a_Z=0_T=0": "C=0 C=1"}),
    "ZEN": (["a_c1.tif", "a_c2.tif"], {"a": "c1 c2"}),
    "Fiji": (["C1-a.tif", "C2-a.tif", "C1-b.tif", "C2-b.tif"], {"a": "C1 C2", "b": "C1 C2"}),
    "Micro-Manager": (["i_channel000_z0.tif", "i_channel001_z0.tif"], {"i_z0": "channel000 channel001"}),
    "ten": ([f"a_ch{n:02}.tif" for n in range(11)], {"a": " ".join(f"ch{n:02}" for n in range(11))}),
}  # fmt: skip


@pytest.mark.parametrize("case", PATTERNS.values(), ids=PATTERNS.keys())
def test_files_that_differ_in_the_marker_of_the_channel_are_one_image(make, readers, case):
    names, expected = case
    images = find_images([make(*names)])
    found = joined(images, ONE, readers)
    assert {name: " ".join(channels) for name, (_, channels) in found.items()} == expected
    assert sorted(itertools.chain(*(files for files, _ in found.values()))) == sorted(names)


@pytest.mark.parametrize("case", PATTERNS.values(), ids=PATTERNS.keys())
def test_nothing_is_joined_unless_a_channel_is_asked_for(make, readers, case):
    images = find_images([make(*case[0])])
    for options in (ReadOptions(inputs=1), ReadOptions(inputs=2, channel=0), ReadOptions(channel=0)):
        assert join_channel_files(images, options, readers) == images


NOT_CHANNELS = {
    "wells": ["plate_C01.tif", "plate_C02.tif"],
    "other images": ["a.tif", "b.tif"],
    "one each": ["a_w1.tif", "b_w1.tif", "c_ch00.tif"],
    "words": ["a_channels.tif", "a_chromatin.tif", "w1.tif", "w2.tif", "c1.tif", "c2.tif"],
    "times": ["a_t1.tif", "a_t2.tif"],
}


@pytest.mark.parametrize("names", NOT_CHANNELS.values(), ids=NOT_CHANNELS.keys())
def test_other_names_are_images_of_their_own(make, readers, names):
    images = find_images([make(*names)])
    assert join_channel_files(images, ONE, readers) == images
    assert describe_channel_files(images) == ""


def test_names_of_channels_at_the_end_join_files(make, readers):
    images = find_images([make("x_DAPI.tif", "x_gfp.tif", "p1/DAPI.tif", "p1/GFP.tif", "other.tif")])
    by_names = ReadOptions(inputs=1, channels=("DAPI", "GFP"), channel="DAPI")
    by_choice = ReadOptions(inputs=1, channel="DAPI", measure=("GFP",))
    expected = {
        "p1": (["DAPI.tif", "GFP.tif"], ("DAPI", "GFP")),
        "x": (["x_DAPI.tif", "x_gfp.tif"], ("DAPI", "GFP")),
        "other.tif": (["other.tif"], ()),
    }
    for options in (by_names, by_choice):
        assert joined(images, options, readers) == expected


def test_names_of_the_user_are_those_of_the_numbers_in_order(make, readers):
    images = find_images([make("a_w2.tif", "a_w1.tif")])
    options = ReadOptions(inputs=1, channels=("DAPI", "GFP"), channel="GFP")
    (image,) = join_channel_files(images, options, readers)
    assert (image.channels, [file.name for file in image.files()]) == (("DAPI", "GFP"), ["a_w1.tif", "a_w2.tif"])
    assert image.read_options(options).channels == ("DAPI", "GFP")


def test_a_missing_file_is_a_problem_of_its_image_only(make, readers):
    images = find_images([make("a_w1.tif", "a_w2.tif", "b_w1.tif", "c_w2.tif", "d/a_w1.tif", "d/a_w2.tif")])
    problems = {image.relative.as_posix(): image.problem for image in join_channel_files(images, ONE, readers)}
    assert problems == {
        "a": "",
        "b": "image 'b': no file of channel 'w2'",
        "c": "image 'c': no file of channel 'w1'",
        "d/a": "",
    }


def test_two_files_of_one_channel_are_a_problem(make, readers):
    images = find_images([make("a_w1.tif", "a_w1.png", "a_w2.tif")])
    (image,) = join_channel_files(images, ONE, readers)
    assert image.problem == "image 'a': 2 files of channel 'w1': a_w1.png, a_w1.tif"


def test_another_number_of_names_is_a_problem(make, readers):
    options = ReadOptions(inputs=1, channels=("DAPI", "GFP", "RFP"))
    (image,) = join_channel_files(find_images([make("a_w1.tif", "a_w2.tif")]), options, readers)
    assert image.problem == "image 'a': 2 files, and 3 names (DAPI, GFP, RFP)"


def test_files_of_several_channels_are_images_whatever_their_names(tmp_path, readers):
    for number in (1, 2):
        stack = np.zeros((3, 8, 9), np.uint16)
        tifffile.imwrite(tmp_path / f"coverslip_C{number}.tif", stack, imagej=True, metadata={"axes": "CYX"})
    images = find_images([tmp_path])
    assert join_channel_files(images, ONE, readers) == images


def test_an_image_beside_its_channels_stays_an_image(make, readers):
    images = find_images([make("a_w1.tif", "a_w2.tif", "overview.tif")])
    assert set(joined(images, ONE, readers)) == {"a", "overview.tif"}


def test_a_name_that_is_also_that_of_a_file_is_kept_apart(make, readers):
    images = find_images([make("C1-a_w1.tif", "C1-a_w2.tif")])
    assert set(joined(images, ONE, readers)) == {"C1-a"}


def test_the_line_about_likely_channels_says_how_to_join_them(make):
    folder = make("a_w1.tif", "a_w2.tif", "b_w1.tif", "b_w2.tif")
    assert describe_channel_files(find_images([folder])) == (
        "the names look like channels of 2 images, such as a_w1.tif, a_w2.tif; "
        "if they are, --channel w1 --measure all segments one channel and measures the others"
    )


def test_one_image_that_lacks_a_file_does_not_hide_that_the_others_have_channels(make):
    folder = make("a_w1.tif", "b_w1.tif", "b_w2.tif", "c_w1.tif", "c_w2.tif")
    assert "3 images, such as b_w1.tif, b_w2.tif; if they are, --channel w1" in describe_channel_files(
        find_images([folder])
    )


@pytest.mark.parametrize(
    "names",
    [
        ["a_c3.tif", "a_c4.tif"],
        ["a_c1.tif", "a_c4.tif"],
        ["a_ch0.tif", "a_ch1.tif", "b_ch0.tif"],
        [f"a_c{n}.tif" for n in range(9)],
    ],
    ids=str,
)
def test_numbers_that_channels_rarely_have_are_not_remarked_on(make, names):
    assert describe_channel_files(find_images([make(*names)])) == ""


def test_files_are_named_as_channels_by_the_user(make):
    folder = make("a.tif", "b.tif", "x_w1.tif", "x_w2.tif")

    def find(*inputs):
        (image,) = find_images([f"{name}={folder / file}" for name, file in inputs], ("intensity",))
        return image.relative.as_posix(), image.channels, [file.name for file in image.files()]

    assert find(("DAPI", "a.tif"), ("GFP", "b.tif")) == ("a", ("DAPI", "GFP"), ["a.tif", "b.tif"])
    assert find(("GFP", "x_w2.tif"), ("DAPI", "x_w1.tif")) == ("x", ("GFP", "DAPI"), ["x_w2.tif", "x_w1.tif"])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["DAPI=a.tif", "dapi=b.tif"], "a second file for channel 'dapi'"),
        (["DAPI=a.tif", "GFP=none.tif"], "no such file"),
        (["DAPI=a.tif", "GFP=./a.tif"], "both 'DAPI' and 'GFP'"),
        (["DAPI=a.tif", "=b.tif"], "an empty name"),
        (["DAPI=a.tif", "all=b.tif"], "none can be called 'all'"),
    ],
    ids=str,
)
def test_files_that_cannot_be_channels_are_refused(make, monkeypatch, inputs, message):
    monkeypatch.chdir(make("a.tif", "b.tif"))
    with pytest.raises((InputError, SettingsError), match=message):
        find_images(inputs, ("intensity",))


def test_the_model_of_several_channels_takes_its_own_names_only(make, monkeypatch):
    monkeypatch.chdir(make("a.tif", "b.tif"))
    with pytest.raises(InputError, match="no channel is called 'DAPI'"):
        find_images(["DAPI=a.tif", "GFP=b.tif"], ("flair", "t1"))
    (image,) = find_images(["intensity=a.tif"], ("intensity",))
    assert (image.path, image.channels) == (Path("a.tif"), ())
