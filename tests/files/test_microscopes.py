"""Files of microscopes: their pixels, axes, lengths and names are those that were written, or an error says why not."""

import os
import sys
import types
from contextlib import suppress

import liffile
import nd2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from biounet.core import InputError, NoteCode, SettingsError, note_code
from biounet.files import IsolatedReader, ReadOptions, inspect_volume, read_volume
from biounet.files.formats.opening import list_scenes, open_raw
from biounet.files.isolation import worker
from biounet.files.isolation.messages import Request
from support.microscopes import Picture, write_lif, write_lof, write_nd2

RNG = np.random.default_rng(3)
SPACING = {"X": 0.325, "Y": 0.325, "Z": 2.0}
SIZES = {"P": 3, "T": 2, "Z": 4, "C": 2, "Y": 10, "X": 12, "S": 3, "λ": 5, "M": 4}


def picture(axes, dtype=np.uint16, **stated):
    array = RNG.integers(0, 200, [SIZES[axis] for axis in axes]).astype(dtype)
    spacing = {axis: SPACING[axis] for axis in axes if axis in SPACING}
    return Picture(array, axes, stated.pop("spacing", spacing), stated.pop("interval", 60.0), **stated)


def failure(path, **options):
    with pytest.raises(InputError) as caught:
        read_volume(path, ReadOptions(**options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("axes", ["YX", "CYX", "ZYX", "TZCYX", "TCYX", "CZYX", "YXS"])
@pytest.mark.parametrize("suffix", [".lif", ".lof", ".nd2"])
def test_an_image_is_read_as_it_was_written(tmp_path, suffix, axes, dtype):
    if suffix == ".nd2" and axes == "CZYX":
        return  # its planes hold all channels
    one, path = picture(axes, dtype, dyes=("DAPI", "GFP") if "C" in axes else ()), tmp_path / f"x{suffix}"
    if suffix == ".nd2":
        write_nd2(path, one)
        with nd2.ND2File(path) as file:
            theirs = file.asarray()
    else:
        write_lif(path, {"one": one}) if suffix == ".lif" else write_lof(path, one)
        with liffile.LifFile(path) as file:
            theirs = file.images[0].asarray()
    raw = open_raw(path)
    assert (raw.axes, raw.dtype) == (axes, np.dtype(dtype))
    np.testing.assert_array_equal(raw.load(), one.array)
    np.testing.assert_array_equal(raw.load(), theirs)
    assert raw.spacing == pytest.approx({axis: SPACING[axis] for axis in axes if axis in SPACING}, rel=1e-12)
    assert raw.interval == (pytest.approx(60) if "T" in axes else None)
    names = ("DAPI", "GFP") if "C" in axes else ("red", "green", "blue") if "S" in axes else raw.channel_names
    assert raw.channel_names == names
    assert [scene.key for scene in list_scenes(path)] == ["0"]


@pytest.mark.parametrize("axes", ["PYX", "PTZCYX", "TPZCYX", "TZPCYX"])
def test_each_position_of_an_nd2_is_an_image(tmp_path, axes):
    one = picture(axes)
    path = write_nd2(tmp_path / "x.nd2", one, ("A1", "", "B 3"))
    assert [(scene.key, scene.name) for scene in list_scenes(path)] == [("0", "A1"), ("1", ""), ("2", "B 3")]
    for number, wanted in enumerate(["A1", "1", "b 3"]):
        raw = open_raw(path, scene=wanted)
        assert raw.axes == axes.replace("P", "")
        np.testing.assert_array_equal(raw.load(), one.array.take(number, axes.index("P")))
        with nd2.ND2File(path) as file:
            np.testing.assert_array_equal(raw.load(), file.asarray(position=number).reshape(raw.shape))


def test_each_image_of_a_lif_is_one_whatever_its_folder(tmp_path):
    pictures = {"A/R1": picture("CYX"), "overview": picture("YX"), "A/R2": picture("ZYX"), "colours": picture("YXS")}
    path = write_lif(tmp_path / "x.lif", pictures)
    names = [scene.name for scene in list_scenes(path)]
    assert sorted(names) == sorted(pictures)
    for number, name in enumerate(names):
        for wanted in (str(number), name, name.rpartition("/")[2].lower()):
            raw = open_raw(path, scene=wanted)
            assert raw.axes == pictures[name].axes
            np.testing.assert_array_equal(raw.load(), pictures[name].array)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.sampled_from(["YX", "CYX", "ZYX", "TYX", "YXS"]), min_size=1, max_size=4),
    st.sampled_from([np.uint8, np.uint16]),
)
def test_a_reader_process_lists_and_reads_what_is_in_a_lif(tmp_path_factory, reader, all_axes, dtype):
    pictures = {f"Series{n:03d}": picture(axes, dtype) for n, axes in enumerate(all_axes)}
    path = write_lif(tmp_path_factory.mktemp("any") / "x.lif", pictures)
    scenes = reader.list_scenes(path)
    assert [scene.name for scene in scenes] == list(pictures)
    for scene in scenes:
        one = pictures[scene.name]
        choice = {"plane": 1} if set("ZT") & set(one.axes) else {}
        volume = reader.read(path, ReadOptions(scene=scene.key, **choice))
        expected = one.array[1] if choice else np.moveaxis(one.array, -1, 0) if "S" in one.axes else one.array
        np.testing.assert_array_equal(volume.array, expected.reshape(volume.array.shape))
        assert volume.grid.spacing == pytest.approx((0.325, 0.325))


@pytest.fixture(scope="module")
def reader():
    with IsolatedReader() as reader:
        yield reader


def test_a_file_of_many_images_is_hashed_once(tmp_path, monkeypatch):
    hashed, path = [], write_nd2(tmp_path / "x.nd2", picture("PYX"))
    monkeypatch.setattr(worker, "hash_image", lambda *arguments: hashed.append(arguments) or "0" * 64)
    worker._hash_once.cache_clear()
    for number in range(SIZES["P"]):
        worker._run_task(path, Request("read", [path], ReadOptions(scene=str(number)), 9.0, ""))
    assert len(hashed) == 1
    os.utime(path, ns=(0, 0))
    worker._run_task(path, Request("read", [path], ReadOptions(scene="0"), 9.0, ""))
    assert len(hashed) == 2
    worker._hash_once.cache_clear()


def test_a_file_of_several_images_says_which_there_are(tmp_path):
    path = write_lif(tmp_path / "x.lif", {"A1": picture("YX"), "B2": picture("YX"), "b2": picture("YX")})
    text = failure(path)
    assert "holds 3 images: 0 (A1), 1 (B2), 2 (b2)" in text
    assert "--scene 0" in text
    assert "no scene 3: it holds 3 images" in failure(path, scene="3")
    assert "no scene C: " in failure(path, scene="C")
    assert "holds 3 images" in failure(path, scene="0,1")
    for wanted, number in (("B2", 1), ("b2", 2), ("a1", 0)):
        np.testing.assert_array_equal(open_raw(path, scene=wanted).load(), open_raw(path, scene=str(number)).load())
    tifffile.imwrite(tmp_path / "y.png.tif", np.zeros((9, 9), np.uint8))
    assert "no scene 1: it holds one image: 0" in failure(tmp_path / "y.png.tif", scene="1")
    assert read_volume(tmp_path / "y.png.tif", ReadOptions(scene="0")).array.shape == (1, 9, 9)
    with pytest.raises(SettingsError, match="numbers from 0 or names"):
        ReadOptions(scene=1.5)
    assert ReadOptions(scene=(0, "A1")).scene == "0,A1"


def test_a_name_that_several_images_have_needs_a_number(tmp_path):
    path = write_nd2(tmp_path / "x.nd2", picture("PYX"), ("A1", "A1", "B2"))
    text = failure(path, scene="A1")
    assert "2 scenes are called 'A1'" in text
    assert "such as 0" in text


def test_each_image_of_an_ome_tiff_is_one(tmp_path):
    path, arrays = tmp_path / "x.ome.tif", [picture("CYX").array, picture("ZYX").array]
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for number, (array, axes) in enumerate(zip(arrays, ("CYX", "ZYX"), strict=True)):
            sizes = {"PhysicalSizeX": 0.5 + number, "PhysicalSizeY": 0.5 + number}
            tif.write(array, photometric="minisblack", metadata={"axes": axes, "Name": f"field {number}", **sizes})
    assert [scene.name for scene in list_scenes(path)] == ["field 0", "field 1"]
    assert "holds 2 images: 0 (field 0), 1 (field 1)" in failure(path)
    for number, array in enumerate(arrays):
        raw = open_raw(path, scene=f"field {number}")
        np.testing.assert_array_equal(raw.load(), array)
        assert raw.spacing["X"] == 0.5 + number


def test_images_of_one_name_are_not_taken_for_one(tmp_path):
    path = write_lif(tmp_path / "x.lif", {"A1": picture("YX"), "A2": picture("YX")})
    path.write_bytes(path.read_bytes().replace("A2".encode("utf-16-le"), "A1".encode("utf-16-le")))
    with pytest.raises(InputError, match="2 images, and 1 name: A1"):
        list_scenes(path)


def test_bands_of_a_spectrum_are_channels_and_sections_need_axes(tmp_path):
    path = write_lif(tmp_path / "x.lif", {"spectrum": picture("λYX"), "section": Picture(picture("ZX").array, "ZX")})
    assert inspect_volume(path, ReadOptions(scene="spectrum")).channels == SIZES["λ"]
    text = failure(path, scene="section")
    assert "no image along y and x (axes ZX, shape 4 x 12)" in text
    assert "--axes, such as YX" in text
    assert read_volume(path, ReadOptions(scene="section", axes="YX")).array.shape == (1, 4, 12)


def test_tiles_that_are_not_merged_are_no_image(tmp_path):
    path = write_lif(tmp_path / "x.lif", {"scan": picture("MYX")})
    assert "a tile scan whose tiles are not merged" in failure(path)
    assert "LAS X" in failure(path)


def test_lengths_that_are_not_stated_are_unknown(tmp_path):
    lif = write_lif(tmp_path / "x.lif", {"one": Picture(picture("TYX").array, "TYX")})
    other = write_nd2(tmp_path / "x.nd2", Picture(picture("TYX").array, "TYX"))
    for path in (lif, other):
        info = inspect_volume(path, ReadOptions(plane=0))
        assert info.grid.spacing is None
        assert NoteCode.VOXEL_SIZE_UNKNOWN in map(note_code, info.notes)
        assert open_raw(path).interval is None


@pytest.mark.parametrize("suffix", [".lif", ".nd2"])
def test_a_file_that_is_cut_short_is_an_error(tmp_path, suffix):
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    one = picture("PYX") if suffix == ".nd2" else picture("ZYX")
    write_nd2(whole, one) if suffix == ".nd2" else write_lif(whole, {"one": one})
    content = whole.read_bytes()
    for length in [17, 100, *range(200, len(content), len(content) // 40), len(content) - 1]:
        cut.write_bytes(content[:length])
        text = failure(cut, scene="0", plane=0 if suffix == ".lif" else None)
        assert "truncated" in text


def test_planes_that_are_not_in_an_nd2_are_no_zeros(tmp_path):
    path = write_nd2(tmp_path / "x.nd2", picture("TZYX"), recorded=5)
    assert "incomplete: 5 of 8 planes were recorded" in failure(path, plane=0)
    content = bytearray(write_nd2(path, picture("TYX")).read_bytes())
    at = content.rindex(b"ImageDataSeq|1!") + len(b"ImageDataSeq|1!")
    content[at : at + 8] = (len(content) - 4100).to_bytes(8, "little")  # it leads to where too few bytes are
    path.write_bytes(content)
    assert "truncated" in failure(path, frames="all")


@pytest.mark.parametrize("suffix", [".lif", ".nd2"])
def test_any_damage_gives_an_input_error(tmp_path, suffix):
    rng, path = np.random.default_rng(5), tmp_path / f"x{suffix}"
    one = picture("PYX") if suffix == ".nd2" else picture("YX")
    whole = (write_nd2(path, one) if suffix == ".nd2" else write_lif(path, {"one": one})).read_bytes()
    end = min(len(whole), 4000)
    for _ in range(60):
        data = bytearray(whole)
        for at in rng.integers(0, end, rng.integers(1, 9)):
            data[at] = rng.integers(256)
        path.write_bytes(data)
        with suppress(InputError):  # any other error fails
            assert read_volume(path, ReadOptions(scene="0")).array.ndim == 3


@pytest.mark.parametrize(("suffix", "package"), [(".lif", "liffile"), (".nd2", "nd2")])
def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch, suffix, package):
    path = tmp_path / f"x{suffix}"
    write_lif(path, {"one": picture("YX")}) if suffix == ".lif" else write_nd2(path, picture("YX"))
    monkeypatch.setitem(sys.modules, package, None)
    assert "pip install 'biounet[vendor]'" in failure(path)
    with pytest.raises(InputError, match="vendor"):
        list_scenes(path)


CZI_XML = """<ImageDocument><Metadata><Information><Image><Dimensions>
<Channels><Channel Id="Channel:0" Name="DAPI"/></Channels>
<S><Scenes><Scene Index="0" Name="A1"/><Scene Index="2" Name="A3"/></Scenes></S>
<T><Positions><List><Offsets>0 60.5 121</Offsets></List></Positions></T>
</Dimensions></Image></Information><Scaling><Items>
<Distance Id="X"><Value>3.25E-07</Value></Distance><Distance Id="Y"><Value>3.25E-07</Value></Distance>
<Distance Id="Z"><Value>0</Value></Distance></Items></Scaling></Metadata></ImageDocument>"""


@pytest.fixture
def czi(monkeypatch, tmp_path):
    """A file that begins as CZI do, and what is used of the interface of czifile 2026, with the images of a test."""
    images = {}

    class Image:
        def __init__(self, array, axes, channels=("DAPI", "GFP")):
            self.array, self.dtype = array, array.dtype
            self.sizes = dict(zip(axes, array.shape, strict=True))
            self.channels = {name: {} for name in channels}

        def asarray(self, *, maxworkers=None):
            return self.array

    class CziFile:
        scenes = images

        def __init__(self, file):
            assert file == tmp_path / "x.czi"

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def metadata(self):
            return CZI_XML

    module = types.ModuleType("czifile")
    module.CziFile = CziFile
    module.__spec__ = types.SimpleNamespace(name="czifile")
    monkeypatch.setitem(sys.modules, "czifile", module)
    (tmp_path / "x.czi").write_bytes(b"ZISRAWFILE" + bytes(1000))
    return tmp_path / "x.czi", images, Image


def test_each_scene_of_a_czi_is_an_image(czi):
    path, images, image = czi
    array = picture("TCZYX").array
    images |= {0: image(array, "TCZYX"), 2: image(array[0, 0, 0], "YX", ("DAPI",))}
    assert [(scene.key, scene.name) for scene in list_scenes(path)] == [("0", "A1"), ("2", "A3")]
    raw = open_raw(path, scene="A1")
    assert (raw.axes, raw.channel_names, raw.interval) == ("TCZYX", ("DAPI", "GFP"), 60.5)
    assert raw.spacing == {"X": 0.325, "Y": 0.325}
    np.testing.assert_array_equal(raw.load(), array)
    np.testing.assert_array_equal(read_volume(path, ReadOptions(scene="2")).array, array[:1, 0, 0])
    images[0] = image(array, "HCZYX")
    assert "several phases, which is not read" in failure(path, scene="0")


def test_colours_of_a_czi_are_channels_without_the_transparency(czi):
    path, images, image = czi
    rgba = RNG.integers(0, 255, (9, 8, 4), dtype=np.uint8)
    images[0] = image(rgba, "YXS", ("C1",))
    volume = read_volume(path, ReadOptions(scene="0"))
    np.testing.assert_array_equal(volume.array, np.moveaxis(rgba[..., :3], -1, 0))
    assert volume.channel_names == ("red", "green", "blue")


@pytest.mark.parametrize(("version", "words"), [((3, 11), ("Python 3.12", "3.11", "OME-TIFF")), ((3, 12), ("vendor",))])
def test_without_czifile_the_error_says_what_to_do(tmp_path, monkeypatch, version, words):
    monkeypatch.setitem(sys.modules, "czifile", None)
    monkeypatch.setattr(sys, "version_info", version)
    (tmp_path / "x.czi").write_bytes(b"ZISRAWFILE" + bytes(1000))
    text = failure(tmp_path / "x.czi")
    assert all(word in text for word in words)


def test_the_czifile_of_2019_is_too_old(czi, monkeypatch):
    path, *_ = czi
    monkeypatch.setattr(sys.modules["czifile"], "CziFile", object)
    assert "pip install -U 'biounet[vendor]'" in failure(path)
